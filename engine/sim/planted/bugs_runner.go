package main

// runnerBugs are in engine/execute.
var runnerBugs = []bug{
	{"failed is done", "engine/execute/runner.go",
		"if o := op.Steps[i].Outcome; (o == plan.Failed || o == plan.Unknown) && !op.Plan.Steps[i].Optional {",
		"if o := op.Steps[i].Outcome; false {",
		"a plan goes on after a step that failed"},
	{"done is not verified", "engine/execute/runner.go",
		"\t\t\tdetail, err = r.verify(within, d, s)\n\t\t\tcancel()\n\t\t\tif err != nil {\n",
		"\t\t\t_ = within\n\t\t\tcancel()\n\t\t\tif false {\n",
		"a step is done when it was asked for"},
	{"intent is not journalled", "engine/execute/runner.go",
		"\tif err := r.put(ctx, *op); err != nil {\n\t\treturn err\n\t}\n\tr.tell(*op, \"\")\n\tdoer",
		"\tdoer",
		"a daemon that dies forgets what it was doing"},
}
