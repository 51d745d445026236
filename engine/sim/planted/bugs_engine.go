package main

// engineBugs are in engine.
var engineBugs = []bug{
	{"record is not read again", "engine/records.go",
		"errors.Join(fmt.Errorf(\"write the record: %w\", err), r.load(context.WithoutCancel(ctx)))",
		"errors.Join(fmt.Errorf(\"write the record: %w\", err))",
		"after an answer that was lost the record cannot be written"},
	{"remembered, not saved", "engine/records.go",
		"\tif err != nil {\n\t\t// It may be on disk although",
		"\tif err != nil {\n\t\tr.rec = after\n\t\t// It may be on disk although",
		"a record that failed to be written is believed"},
}
