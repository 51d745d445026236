package decide_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
)

// TestExplain: what a person on call is told of how a decision came about.
func TestExplain(t *testing.T) {
	promised := func(id cluster.NodeID, term cluster.Term) change {
		return func(in *decide.Input) {
			m := in.Record.Members[id]
			m.Promised, m.PromisedLSN = term, 1000
			in.Record.Members[id] = m
		}
	}
	for _, tt := range []struct {
		story  string
		world  []change
		facts  string // each that must be said, separated by " | "
		silent string // names of facts that must not be
		quorum string
		order  string
		not    string
	}{
		{"in sync", nil, `primary: pgsql1 answers | commits wait for: FIRST 1 ("pgsql2") | candidates: pgsql2 at 0/3E8 | gate: open`,
			"lost standbys, path, silent", "needs 1, given 0, able 1", "[pgsql2]", "map[]"},
		{"the primary is silent for the first time", []change{down("pgsql1", cluster.ReachTimeout, 1)}, "primary: pgsql1 suspected: 1 failed checks, the last: connection timeout",
			"", "needs 1, given 0, able 1", "[pgsql2]", "map[]"},
		{"the primary is stopped", []change{stopped("pgsql1")}, "primary: pgsql1 lost, proven: connection refused, and its host says that no postmaster runs",
			"", "needs 1, given 0, able 1", "[pgsql2]", "map[]"},
		{"async", []change{async}, "commits wait for: nobody", "candidates", "needs 0, given 0, able 0", "[]", "map[pgsql2:pgsql2 is lost]"},
		{"a promise for the term before does not count", []change{promised("pgsql2", 1)}, "gate: open", "", "needs 1, given 0, able 1", "[pgsql2]", "map[]"},
		{"a promise for the term to come does", []change{promised("pgsql2", 2)}, "gate: open", "", "needs 1, given 1, able 1", "[pgsql2]", "map[]"},
		{"one of three is silent, and it may be the one that confirmed", []change{three, down("pgsql3", cluster.ReachTimeout, 5)}, "silent: pgsql3 does not answer and may hold commits that the others lack",
			"", "needs 2, given 0, able 1", "[]", "map[pgsql2:pgsql3 does not answer and may hold commits that the others lack pgsql3:it does not answer]"},
		{"two must confirm, so one promise is enough", []change{three, set(func(in *decide.Input) { in.Record.SyncSet.K = 2 }), down("pgsql3", cluster.ReachTimeout, 5)}, "candidates: pgsql2 at 0/3E8",
			"silent", "needs 1, given 0, able 1", "[pgsql2]", "map[pgsql3:it does not answer]"},
		{"nothing is recorded yet", []change{set(func(in *decide.Input) { in.Record = cluster.Record{} })}, "primary: none is recorded | other writers: pgsql1 on timeline 1",
			"commits wait for", "needs 0, given 0, able 0", "[]", "map[pgsql1:no primary is recorded pgsql2:no primary is recorded]"},
	} {
		t.Run(tt.story, func(t *testing.T) {
			in := healthy()
			for _, c := range tt.world {
				c(&in)
			}
			said := map[string]string{}
			for _, f := range decide.Explain(in) {
				said[f.Name] = f.Value
			}
			for _, want := range strings.Split(tt.facts, " | ") {
				name, value, _ := strings.Cut(want, ": ")
				if !strings.HasPrefix(said[name], value) || value == "" {
					t.Errorf("%s is %q, want %q", name, said[name], value)
				}
			}
			for _, name := range strings.Split(tt.silent, ", ") {
				if v, ok := said[name]; ok {
					t.Errorf("%s is said to be %q", name, v)
				}
			}
			q := decide.QuorumOf(in)
			if got := fmt.Sprintf("needs %d, given %d, able %d", q.Needed, q.Given, q.Able); got != tt.quorum {
				t.Errorf("quorum: %s, want %s", got, tt.quorum)
			}
			order, not := decide.Candidates(in)
			if fmt.Sprint(order) != tt.order || fmt.Sprint(not) != tt.not {
				t.Errorf("candidates %v, not %v; want %s, not %s", order, not, tt.order, tt.not)
			}
		})
	}
}

// TestTraceTellsWhatWaits: a rule that held, and is tried again after a pause,
// is not taken for one that did not hold.
func TestTraceTellsWhatWaits(t *testing.T) {
	in := healthy()
	async(&in)
	fenced("pgsql2")(&in)
	unlink("pgsql2")(&in)
	d, _, tr := decide.Decide(in)
	if d.Rule != 70 || len(tr.Deferred) != 0 {
		t.Fatalf("rule %d, deferred %v; want the rejoin of 70", d.Rule, tr.Deferred)
	}
	in.Memory = in.Memory.Failed(d.Action, d.Node, epoch)
	d, _, tr = decide.Decide(in)
	if d.Acts() || fmt.Sprint(tr.Deferred) != "[70]" {
		t.Errorf("rule %d, action %q, deferred %v; want nothing done and 70 deferred", d.Rule, d.Action, tr.Deferred)
	}
}

// TestNobodyIsTakenInWhileOneIsToBeDropped: the record still lets pgsql2 count,
// and commits do not wait for it. Until that is recorded, which failed a moment
// ago, pgsql3 is not waited for either: what a file puts in force may name more.
func TestNobodyIsTakenInWhileOneIsToBeDropped(t *testing.T) {
	in := healthy()
	three(&in)
	ineligible("pgsql3", "it has not confirmed the new primary's position yet")(&in)
	node(&in, "pgsql1").SyncStandbyNames = ""
	d, _, _ := decide.Decide(in)
	if d.Rule != 52 || d.Action != cluster.Degrade {
		t.Fatalf("rule %d, action %q; want the degradation of 52", d.Rule, d.Action)
	}
	in.Memory = in.Memory.Failed(d.Action, d.Node, epoch)
	d, _, tr := decide.Decide(in)
	if d.Acts() || fmt.Sprint(tr.Deferred) != "[52 80]" {
		t.Errorf("rule %d, action %q, deferred %v; want nothing done, and 52 and 80 deferred", d.Rule, d.Action, tr.Deferred)
	}
}
