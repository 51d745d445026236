package daemon

import (
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/proxyd/route/choose"
)

// Who reads from a node is sent away from it when what is recorded and seen says
// so, once; and by nobody who knows no record yet.
func TestWhichNodesAreReadFromNoMore(t *testing.T) {
	const retries = 2
	record := cluster.Record{Term: 1, Primary: "pgsql1", History: []cluster.HistoryEntry{{SystemIdentifier: 7, Timeline: 1, Node: "pgsql1", Term: 1}}}
	standby := cluster.NodeFacts{ID: "pgsql2", Reach: cluster.ReachOK, Role: cluster.RoleStandby, SystemIdentifier: 7, Timeline: 1}
	seen := func(change func(*cluster.NodeFacts)) cluster.NodeFacts {
		n := standby
		change(&n)
		return n
	}
	promoted := record
	promoted.Primary = "pgsql2"
	for _, x := range []struct {
		name   string
		record cluster.Record
		node   cluster.NodeFacts
		why    string
	}{
		{"a standby", record, standby, ""},
		{"no record is known yet", cluster.Record{}, standby, ""},
		{"it is the primary now", promoted, standby, "the node is the primary"},
		{"another history", record, seen(func(n *cluster.NodeFacts) { n.Timeline = 2 }), "the node is no standby of the recorded history"},
		{"it takes writes", record, seen(func(n *cluster.NodeFacts) { n.Role = cluster.RolePrimary }), "the node is no standby of the recorded history"},
		{"one look failed", record, seen(func(n *cluster.NodeFacts) { n.Reach, n.Failures = cluster.ReachTimeout, 1 }), ""},
		{"as many as make it lost", record, seen(func(n *cluster.NodeFacts) { n.Reach, n.Failures = cluster.ReachTimeout, retries }), "the standby does not answer"},
	} {
		r := &reads{monitor: choose.NewMonitor(), left: make(map[cluster.NodeID]bool)}
		in := decide.Input{Record: x.record, Snapshot: cluster.Snapshot{Now: time.Unix(0, 0), Nodes: []cluster.NodeFacts{x.node}}}
		if got := r.look(in, retries)["pgsql2"]; got != x.why {
			t.Errorf("%s: %q, want %q", x.name, got, x.why)
		}
		if again := r.look(in, retries); len(again) != 0 {
			t.Errorf("%s: once more: %q", x.name, again)
		}
	}
}
