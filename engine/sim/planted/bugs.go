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

// beside names the bugs that are planted together with one, where the engine
// has a second defence: what one check lets through, the other stops. Such a
// bug counts as caught only by a seed that those beside it survive without it.
var beside = map[string][]string{
	"no promise counted":         {"silence is nobody's"},
	"silence is nobody's":        {"no promise counted"},
	"a promise without stopping": {"quiet before the receiver ends", "promised is not looked at"},
	"first in the list":          {"who holds more is no matter"},
	"outdone is no matter":       {"who holds more is no matter"},
	"received is enough":         {"who holds more is no matter", "outdone is no matter"},
}

// late is where to begin with a bug that only a late seed catches. The others
// up to the limit come after, so nothing is missed for it.
var late = map[string]uint64{}

// planted are the texts of the files that it changes, with those beside it in
// them, and itself or not.
func (b bug) planted(itself bool) (map[string]string, error) {
	texts := map[string]string{}
	todo := named(beside[b.name])
	if itself {
		todo = append(todo, b)
	}
	for _, one := range todo {
		text, seen := texts[one.file]
		if !seen {
			read, err := os.ReadFile(one.file)
			if err != nil {
				return nil, fmt.Errorf("plant %q: %w", one.name, err)
			}
			text = string(read)
		}
		if n := strings.Count(text, one.old); n != 1 {
			return nil, fmt.Errorf("plant %q: its place occurs %d times in %s: %q", one.name, n, one.file, one.old)
		}
		texts[one.file] = strings.Replace(text, one.old, one.new, 1)
	}
	return texts, nil
}

// named finds bugs by their names.
func named(names []string) (found []bug) {
	for _, b := range all() {
		if slices.Contains(names, b.name) {
			found = append(found, b)
		}
	}
	return found
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
