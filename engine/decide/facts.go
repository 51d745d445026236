package decide

import (
	"fmt"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// loss grades the evidence that a node is gone.
type loss int

const (
	present    loss = iota
	suspected       // attempts fail, not often enough yet
	restarting      // the server answers that it is starting up or shutting down
	lost            // enough failed attempts
	proven          // nothing listens and the host says that no process owns the data directory
)

// facts are the named values that the rules speak of, computed once.
type facts struct {
	Input
	now time.Time

	primary  cluster.NodeFacts
	spec     cluster.Node
	known    bool // a primary is recorded and configured
	lost     loss
	lostWhy  string
	alive    string // why the primary is alive although we cannot reach it; "" when nothing says so
	others   []cluster.NodeFacts
	writable []cluster.NodeFacts // others that are up and not in recovery

	// standbys by what they are good for
	absent     []lostStandby       // in the sync set or running names, and gone
	waiting    []lostStandby       // the same, not certain yet
	candidates []cluster.NodeFacts // could be promoted, best first
	silent     []cluster.NodeID    // without their promises none of the candidates can be
}

type lostStandby struct {
	cluster.NodeFacts
	why string
}

func gather(in Input, mem *Memory) facts {
	f := facts{Input: in, now: in.Snapshot.Now}
	f.spec, f.known = in.Policy.Node(in.Record.Primary)
	f.primary = in.Snapshot.Node(in.Record.Primary)
	for _, n := range in.Snapshot.Nodes {
		if n.ID == in.Record.Primary && f.known {
			continue
		}
		f.others = append(f.others, n)
		if n.Up() && n.Role == cluster.RolePrimary {
			f.writable = append(f.writable, n)
		}
	}
	if !f.known {
		return f
	}
	f.lost, f.lostWhy = evidence(f.primary, in.Policy)
	f.alive = aliveElsewhere(f.primary, f.others)
	f.watchSenders(mem)
	f.candidates, f.silent = f.rank(), Silent(in)
	return f
}

// Silent are the members of the sync set whose promises a promotion would lack:
// too few of the others answer, so the primary may have acknowledged with these
// alone. It is empty where enough can promise.
func Silent(in Input) (silent []cluster.NodeID) {
	set := in.Record.SyncSet
	for _, id := range set.Members {
		n := in.Snapshot.Node(id)
		if !(n.Up() && n.Role == cluster.RoleStandby) && in.Record.Members[id].Promised <= in.Record.Term {
			silent = append(silent, id)
		}
	}
	if len(silent) < set.K {
		return nil
	}
	return silent
}

// evidence weighs what is known against a node. Proof needs no retries; a
// silence needs CheckRetries of them.
func evidence(n cluster.NodeFacts, p cluster.Policy) (loss, string) {
	if n.Up() {
		return present, ""
	}
	if n.Reach == cluster.ReachUnknown {
		return suspected, "it has not been looked at yet"
	}
	fresh := n.Host.Reachable && !n.Host.LastTry.Before(n.ReachSince)
	gone := n.Host.Postmaster == cluster.PostmasterStopped || n.Host.Postmaster == cluster.PostmasterAbsent
	if fresh && gone && n.Reach != cluster.ReachRejected {
		return proven, fmt.Sprintf("connection %s, and its host says that no postmaster runs on its data directory", n.Reach)
	}
	if n.Reach == cluster.ReachRejected {
		return suspected, "it answers but refuses our login: " + n.LastError
	}
	enough := n.Failures >= max(1, p.CheckRetries)
	why := fmt.Sprintf("%d failed checks, the last: connection %s", n.Failures, n.Reach)
	switch {
	case n.Reach == cluster.ReachStarting && !enough:
		return restarting, "the server says that it is starting up or shutting down"
	case enough:
		return lost, why
	default:
		return suspected, why
	}
}

// aliveElsewhere looks for a standby that has heard from the primary after we
// lost it: then our path is broken, not the primary.
func aliveElsewhere(primary cluster.NodeFacts, others []cluster.NodeFacts) string {
	if primary.Up() || primary.Host.Postmaster == cluster.PostmasterStopped && primary.Host.Reachable {
		return ""
	}
	for _, s := range others {
		if s.Up() && s.Receiver != nil && s.Receiver.Status == "streaming" &&
			s.Receiver.LastMsgReceipt.After(primary.ReachSince.Add(time.Second)) {
			return fmt.Sprintf("%s still receives from it", s.ID)
		}
	}
	return ""
}

// watchSenders finds the standbys that commits wait for and that are gone.
// The running value counts, not the recorded mode: a commit waits for what
// the server has in force.
func (f *facts) watchSenders(mem *Memory) {
	if !f.primary.Up() || f.primary.Role != cluster.RolePrimary {
		return
	}
	for _, s := range f.others {
		if !f.counted(s.ID) {
			delete(mem.SenderMissing, s.ID)
			continue
		}
		row, ok := f.primary.SenderTo(s.ID)
		streaming := ok && row.State == "streaming"
		if streaming {
			delete(mem.SenderMissing, s.ID)
		} else if _, seen := mem.SenderMissing[s.ID]; !seen {
			mem.SenderMissing[s.ID] = f.now
		}
		f.weighStandby(s, ok, mem.SenderMissing[s.ID])
	}
}

// counted: commits wait for it, or the record says that they do.
func (f *facts) counted(id cluster.NodeID) bool {
	return slices.Contains(f.Record.SyncSet.Members, id) ||
		slices.Contains(ParseSyncNames(f.primary.SyncStandbyNames).Members, id)
}

func (f *facts) weighStandby(s cluster.NodeFacts, hasSender bool, missing time.Time) {
	grade, why := evidence(s, f.Policy)
	if grade == lost && missing.IsZero() && f.primary.OldestWait < f.Policy.CheckPeriod {
		// We do not reach it, and it confirms what the primary sends.
		grade, why = suspected, why+", and the primary streams to it"
	}
	patience := time.Duration(max(1, f.Policy.CheckRetries)) * f.Policy.CheckPeriod
	switch {
	case grade == proven, grade == lost:
		f.absent = append(f.absent, lostStandby{s, why})
	case !missing.IsZero() && f.now.Sub(missing) >= patience:
		// One that catches up confirms nothing either, however long it takes.
		what := "the primary has no usable replication connection from it"
		if hasSender {
			what = "the primary does not stream to it"
		}
		f.absent = append(f.absent, lostStandby{s, what + " since " + f.now.Sub(missing).Round(time.Millisecond).String()})
	case grade != present:
		f.waiting = append(f.waiting, lostStandby{s, why})
	case !missing.IsZero():
		f.waiting = append(f.waiting, lostStandby{s, "the primary does not stream to it"})
	}
}

// rank orders the nodes that could be promoted: up, standbys, eligible, in
// the recorded system; the greatest position first, then weight, then name.
func (f *facts) rank() []cluster.NodeFacts {
	var c []cluster.NodeFacts
	for _, n := range f.others {
		spec, ok := f.Policy.Node(n.ID)
		m := f.Record.Members[n.ID]
		if !ok || !spec.FailoverAllowed || !n.Up() || !m.Eligible || m.Fenced {
			continue
		}
		standby := n.Role == cluster.RoleStandby && n.SystemIdentifier == f.Record.SystemIdentifier && InHistory(f.Record, n)
		if !standby && !Unrecorded(f.Record, n) {
			continue
		}
		c = append(c, n)
	}
	slices.SortStableFunc(c, func(a, b cluster.NodeFacts) int {
		if a.Position() != b.Position() {
			if a.Position() > b.Position() {
				return -1
			}
			return 1
		}
		sa, _ := f.Policy.Node(a.ID)
		sb, _ := f.Policy.Node(b.ID)
		return sb.Weight - sa.Weight
	})
	return c
}

// Unrecorded says whether a node takes writes because of a promotion of ours
// whose record was never written: it promised for the next term, has received
// from nobody since, and is on a timeline past the recorded one.
func Unrecorded(r cluster.Record, n cluster.NodeFacts) bool {
	return n.Up() && n.Role == cluster.RolePrimary && n.ID != r.Primary && n.SystemIdentifier == r.SystemIdentifier &&
		n.Timeline > r.Timeline && r.Members[n.ID].Promised == r.Term+1
}

// best is the standby that would lose least, eligible or not.
func (f *facts) best() (cluster.NodeFacts, uint64, bool) {
	var b cluster.NodeFacts
	found := false
	for _, n := range f.others {
		if n.Role == cluster.RoleStandby && !f.Record.Members[n.ID].Fenced && (!found || n.Position() > b.Position()) {
			b, found = n, true
		}
	}
	return b, b.Position().Behind(f.primary.FlushLSN), found
}

// InHistory says whether a node's timeline is one that was recorded. A number
// alone proves little: a node on the recorded timeline must not be ahead of
// nothing, and one on an older timeline must not have passed the point where
// the next one branched off.
func InHistory(r cluster.Record, n cluster.NodeFacts) bool {
	for i, h := range r.History {
		if h.Timeline != n.Timeline || h.SystemIdentifier != n.SystemIdentifier {
			continue
		}
		if i+1 < len(r.History) && n.Position() > r.History[i+1].SwitchLSN {
			return false
		}
		return true
	}
	return false
}
