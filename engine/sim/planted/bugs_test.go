package main

import (
	"go/parser"
	"go/token"
	"testing"
)

// A bug whose place has moved is planted nowhere.
func TestEveryBugHasItsPlace(t *testing.T) {
	t.Chdir("../../..")
	names := map[string]bool{}
	for _, b := range all() {
		if names[b.name] {
			t.Errorf("two bugs are called %q", b.name)
		}
		names[b.name] = true
		text, err := b.planted()
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := parser.ParseFile(token.NewFileSet(), b.file, text, 0); err != nil {
			t.Errorf("%s does not parse: %v", b.name, err)
		}
	}
	if len(names) < 40 {
		t.Errorf("%d bugs are too few", len(names))
	}
}
