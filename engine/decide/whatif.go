package decide

import (
	"fmt"
	"slices"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// IfDies is what would be decided if a node died now, with proof: the same
// table on a snapshot in which it is gone.
func IfDies(in Input, id cluster.NodeID) Decision {
	s := in.Snapshot
	s.Nodes = slices.Clone(s.Nodes)
	for i := range s.Nodes {
		n := &s.Nodes[i]
		n.Senders = slices.DeleteFunc(slices.Clone(n.Senders), func(r cluster.Sender) bool { return r.ApplicationName == string(id) })
		if n.ID != id {
			continue
		}
		n.Reach, n.ReachSince, n.LastTry = cluster.ReachRefused, s.Now, s.Now
		n.Failures = max(1, in.Policy.CheckRetries)
		n.Host = cluster.HostFacts{Reachable: true, LastTry: s.Now, LastOK: s.Now, Postmaster: cluster.PostmasterStopped}
	}
	d, _, _ := Decide(Input{Snapshot: s, Record: in.Record, Policy: in.Policy, GateOpen: true})
	return d
}

// quiet are the rules that hold when nothing is wrong with the primary and
// nobody is missed: they are about something else than a node that died.
var quiet = map[int]bool{63: true, 64: true, 70: true, 71: true, 72: true, 73: true, 75: true, 76: true, 77: true, 80: true, 81: true, 82: true, 90: true, 91: true, 92: true, 99: true}

// Sentence says a decision of IfDies as a person would.
func Sentence(id cluster.NodeID, d Decision) string {
	switch {
	case d.Action == cluster.Promote && d.LossBytes == 0:
		return fmt.Sprintf("%s is promoted, nothing acknowledged is lost, clients are held meanwhile", d.Node)
	case d.Action == cluster.Promote:
		return fmt.Sprintf("%s is promoted and at least %d bytes of WAL are lost", d.Node, d.LossBytes)
	case d.Action == cluster.Degrade && len(d.Target.Members) == 0:
		return "writes go on in async, unprotected until a standby is back; no client sees an error"
	case d.Action == cluster.Degrade && d.Target.K < d.Was.K:
		return fmt.Sprintf("commits wait for %d instead of %d standbys; no client sees an error", d.Target.K, d.Was.K)
	case d.Action == cluster.Degrade:
		return "the other standbys go on confirming; no client sees an error"
	case d.Rule == 33:
		return "nothing is promoted and clients are held: " + d.Reason
	case quiet[d.Rule]:
		return "nothing changes: no commit waits for it"
	default:
		return d.Name + ": " + d.Reason
	}
}
