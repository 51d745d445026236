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
		texts, err := b.planted(true)
		if err != nil {
			t.Error(err)
			continue
		}
		for file, text := range texts {
			if _, err := parser.ParseFile(token.NewFileSet(), file, text, 0); err != nil {
				t.Errorf("%s does not parse: %v", b.name, err)
			}
		}
	}
	if len(names) < 40 {
		t.Errorf("%d bugs are too few", len(names))
	}
}
