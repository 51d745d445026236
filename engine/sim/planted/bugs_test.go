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
	}
	if len(names) < 40 {
		t.Errorf("%d bugs are too few", len(names))
	}
	for name, with := range beside {
		if got := len(named(with)); !names[name] || got != len(with) {
			t.Errorf("%q: %d bugs of %v are known", name, got, with)
		}
	}
	for name := range theme {
		if !names[name] {
			t.Errorf("%q has a theme and is no bug", name)
		}
	}
	for name := range late {
		if !names[name] {
			t.Errorf("%q has a seed and is no bug", name)
		}
	}
	_, variants := rows(all())
	texts, err := graft(variants)
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range texts {
		if _, err := parser.ParseFile(token.NewFileSet(), file, text, 0); err != nil {
			t.Errorf("%s does not parse: %v", file, err)
		}
	}
}
