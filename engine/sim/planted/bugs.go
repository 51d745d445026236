package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// bug is one rule dropped or swapped: old becomes new, in one place of one
// file.
type bug struct {
	name string
	file string // from the root of the repository
	old  string // occurs once
	new  string
	what string // what is wrong with the engine then
}

// planted is the file's text with the bug in it.
func (b bug) planted() (string, error) {
	text, err := os.ReadFile(b.file)
	if err != nil {
		return "", fmt.Errorf("plant %q: %w", b.name, err)
	}
	if n := strings.Count(string(text), b.old); n != 1 {
		return "", fmt.Errorf("plant %q: its place occurs %d times in %s: %q", b.name, n, b.file, b.old)
	}
	return strings.Replace(string(text), b.old, b.new, 1), nil
}

// all are the bugs that are planted.
func all() []bug { return slices.Concat(bugs, decideBugs, planBugs, stepBugs, runnerBugs, engineBugs) }

var bugs = []bug{
	{"one barrier", "engine/execute/steps/sync.go",
		"if confirmed < k || round == 2 {", "if confirmed < k || round >= 1 {",
		"a walsender that still follows the old setting releases a commit after the position was read"},
	{"no promise counted", "engine/execute/steps/promote.go",
		"if q < n-k+1 {", "if q < 0 {",
		"a promotion goes on with too few promises"},
	{"a promise without stopping", "engine/execute/steps/promote.go",
		"if err := w.stopReceiving(ctx, srv); err != nil {", "if err := srv.Warm(ctx); err != nil {",
		"a standby is recorded as having promised while it goes on receiving"},
}
