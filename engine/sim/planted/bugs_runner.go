package main

// runnerBugs are in engine/execute.
var runnerBugs = []bug{
	{"failed is done", "engine/execute/runner.go",
		"if o := op.Steps[i].Outcome; (o == plan.Failed || o == plan.Unknown) && !op.Plan.Steps[i].Optional {",
		"if o := op.Steps[i].Outcome; false {",
		"a plan goes on after a step that failed"},
	{"unknown is done", "engine/execute/runner.go",
		"(o == plan.Failed || o == plan.Unknown)",
		"o == plan.Failed",
		"a plan goes on after a step of which nobody knows"},
	{"done is not verified", "engine/execute/runner.go",
		"\t\t\tif err != nil {\n\t\t\t\treturn plan.Failed, err.Error()\n\t\t\t}\n\t\t\treturn plan.Done, detail",
		"\t\t\treturn plan.Done, detail",
		"a step is done when it was asked for"},
	{"intent is not journalled", "engine/execute/runner.go",
		"\tif err := r.put(ctx, *op); err != nil {\n\t\treturn err\n\t}\n\tr.tell(*op, \"\")\n\tdoer",
		"\tdoer",
		"a daemon that dies forgets what it was doing"},
}
