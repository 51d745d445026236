package main

import "slices"

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
	"no promise counted":              {"silence is nobody's"},
	"silence is nobody's":             {"no promise counted"},
	"a promise without stopping":      {"quiet before the receiver ends", "promised is not looked at"},
	"first in the list":               {"who holds more is no matter"},
	"received is enough":              {"who holds more is no matter", "outdone is no matter"},
	"promise is never taken back":     {"reopen: promises stand"},
	"reopen: promises stand":          {"promise is never taken back"},
	"promote: only the candidate":     {"no promise counted"},
	"promote: no promise":             {"a promise is not asked for"},
	"a promise is not asked for":      {"promote: no promise"},
	"promote: gate before the record": {"gate to anybody"},
	"gate to anybody":                 {"promote: gate before the record"},
	"fenced is taken back":            {"fenced becomes eligible"},
	"fenced becomes eligible":         {"fenced is taken back", "nothing halts"},
	"anything may be overwritten":     {"rejoin: not fenced before"},
	"rejoin: not fenced before":       {"anything may be overwritten"},
	"everything is compatible":        {"branch point is not asked"},
	"term falls":                      {"nothing halts"},
	"term stays":                      {"nothing halts"},
	"history begins anew":             {"nothing halts"},
}

// late is where to begin with a bug that only a late seed catches. The others
// up to the limit come after, so nothing is missed for it.
var late = map[string]uint64{
	"one barrier":                    2832,
	"received is enough":             2918,
	"rejoin: not fenced before":      3174,
	"anything may be overwritten":    3174,
	"everything is compatible":       2320,
	"quiet without replay":           4164,
	"remembered, not saved":          3470,
	"promote: no count":              524,
	"promote: always forced":         524,
	"who holds more is no matter":    524,
	"quiet before the receiver ends": 524,
	"reopen: promises stand":         1006,
	"promise is never taken back":    1006,
	"record is not read again":       880,
	"reopen: no barrier":             365,
	"first in the list":              412,
	"one failed check is a loss":     392,
	"fenced counts":                  346,
	"branch point is not asked":      437,
}

// theme is what the seeds are about that are played first, because they are
// the ones that catch a bug; the others come after.
var theme = map[string]string{
	"done is not verified":             "who confirms",
	"rejoin: not fenced before":        "coming back",
	"no slot is missed":                "coming back",
	"fenced counts":                    "coming back",
	"one barrier":                      "standbys come",
	"received is enough":               "who holds",
	"first in the list":                "who holds",
	"who holds more is no matter":      "who holds",
	"quiet before the receiver ends":   "who holds",
	"quiet without replay":             "who holds",
	"promise is never taken back":      "broken off",
	"reopen: promises stand":           "broken off",
	"promote: only the candidate":      "who holds",
	"degrade: no barrier":              "standbys come",
	"restore: one is enough":           "standbys come",
	"restore: leavers stay eligible":   "standbys come",
	"barrier of nobody":                "standbys come",
	"checkpointer is not asked":        "who confirms",
	"no waiting for the setting":       "standbys come",
	"setting is not compared":          "behind our back",
	"second writer is left alone":      "behind our back",
	"one failed check is a loss":       "slow network",
	"switchover: drain is not awaited": "slow network",
	"record is not read again":         "broken off",
	"remembered, not saved":            "broken off",
	"intent is not journalled":         "broken off",
	"everything is compatible":         "coming back",
	"anything may be overwritten":      "coming back",
}

// named finds bugs by their names.
func named(names []string) (found []bug) {
	for _, b := range slices.Concat(all(), seconds) {
		if slices.Contains(names, b.name) {
			found = append(found, b)
		}
	}
	return found
}

// seconds are planted only beside others: alone, or as the first of a pair, they
// change nothing that the engine does not make up for elsewhere.
var seconds = []bug{
	{"nothing halts", "engine/records.go",
		"if why := broken(before, after); why != \"\" {",
		"if why := broken(before, after); why == \"never\" {",
		"the record is not looked at before it is written"},
	{"outdone is no matter", "engine/decide/facts.go",
		"outdone || !f.inLine(n) {",
		"(outdone && false) || !f.inLine(n) {",
		"who holds less than another that promised is a candidate"},
	{"promised is not looked at", "engine/execute/steps/promote.go",
		"return r.Conninfo == \"\" && !r.Receiver, fmt",
		"return r.Conninfo == r.Conninfo, fmt",
		"a standby that receives again counts as having promised"},
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
