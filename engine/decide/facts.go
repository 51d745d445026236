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
	known    bool            // a primary is recorded and configured
	named    cluster.SyncSet // what synchronous_standby_names on the primary says
	lost     loss
	lostWhy  string
	alive    string // why the primary is alive although we cannot reach it; "" when nothing says so
	others   []cluster.NodeFacts
	writable []cluster.NodeFacts // others that are up and not in recovery

	// standbys by what they are good for
	absent     []lostStandby       // in the sync set or running names, and gone
	waiting    []lostStandby       // the same, not certain yet
	claimed    []claim             // names that more than one server claims
	candidates []cluster.NodeFacts // could be promoted, best first
	silent     []cluster.NodeID    // without their promises none of the candidates can be
}

type lostStandby struct {
	cluster.NodeFacts
	why string
}

// claim is a name that several replication connections have.
type claim struct {
	id   cluster.NodeID
	from []string // their addresses, each once
	why  string
}

func gather(in Input, mem *Memory) *facts {
	mem.tick(in.Snapshot.Now, in.Policy)
	f := &facts{Input: in, now: in.Snapshot.Now}
	f.Memory = *mem
	f.spec, f.known = in.Policy.Node(in.Record.Primary)
	f.primary = in.Snapshot.Node(in.Record.Primary)
	f.others = make([]cluster.NodeFacts, 0, len(in.Snapshot.Nodes))
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
	f.named = ParseSyncNames(f.primary.SyncStandbyNames)
	f.named.Members = slices.Clip(f.named.Members) // whoever appends to it has a set of his own
	f.lost, f.lostWhy = f.weighPrimary()
	f.alive = aliveElsewhere(f.primary, f.others)
	f.watchWishes(mem)
	f.watchTerms(mem)
	f.watchSenders(mem)
	f.watchIdle(mem)
	f.Memory = *mem
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

// weighPrimary damps: after failovers, a silence must last longer to be one
// more. Proof is proof.
func (f *facts) weighPrimary() (loss, string) {
	before := len(f.Memory.Failovers)
	needed := retriesNeeded(f.Policy, before)
	grade, why := evidence(f.primary, needed)
	if usual := max(1, f.Policy.CheckRetries); needed > usual && f.primary.Failures >= usual && grade < lost {
		why += fmt.Sprintf("; %d are needed instead of %d, because of %d failovers in the last %s", needed, usual, before, f.Policy.DampingWindow)
	}
	return grade, why
}

// evidence weighs what is known against a node. Proof needs no retries; a
// silence needs so many.
func evidence(n cluster.NodeFacts, retries int) (loss, string) {
	if n.Up() {
		return present, ""
	}
	if n.Reach == cluster.ReachUnknown {
		return suspected, "it has not been looked at yet"
	}
	gone := n.Host.Postmaster == cluster.PostmasterStopped || n.Host.Postmaster == cluster.PostmasterAbsent
	if HostSeen(n) && n.Host.Reachable && gone && n.Reach != cluster.ReachRejected {
		return proven, fmt.Sprintf("connection %s, and its host says that no postmaster runs on its data directory", n.Reach)
	}
	if n.Reach == cluster.ReachRejected {
		return suspected, "it answers but refuses our login: " + n.LastError
	}
	enough := n.Failures >= max(1, retries)
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

// HostSeen says whether what is known of a node's host was asked after the
// present run of answers, or of failures, began; what is older proves nothing.
func HostSeen(n cluster.NodeFacts) bool {
	return !n.Host.LastTry.IsZero() && !n.Host.LastTry.Before(n.ReachSince)
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

// rank orders the nodes that could be promoted: up, standbys, known to hold
// everything, in the recorded history; the greatest position first, then
// weight, then the order of the configuration. One that we promoted already
// comes before all: a second promotion would make a second history.
func (f *facts) rank() []cluster.NodeFacts {
	var c []cluster.NodeFacts
	for _, n := range f.others {
		spec, ok := f.Policy.Node(n.ID)
		if !ok || !spec.FailoverAllowed || !n.Up() || !HoldsAll(f.Record, n.ID) {
			continue
		}
		if Unrecorded(f.Record, n) {
			return []cluster.NodeFacts{n}
		}
		if _, outdone := HoldsMore(f.Record, n.ID); outdone || !f.inLine(n) {
			continue
		}
		c = append(c, n)
	}
	slices.SortStableFunc(c, func(a, b cluster.NodeFacts) int {
		if x, y := held(f.Record, a), held(f.Record, b); x != y {
			if x > y {
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

// inLine: a standby of the recorded system with the recorded history.
func (f *facts) inLine(n cluster.NodeFacts) bool {
	return n.Role == cluster.RoleStandby && n.SystemIdentifier == f.Record.SystemIdentifier && InHistory(f.Record, n)
}

// best is the standby that would lose least, whether or not it is known to
// hold everything.
func (f *facts) best(fits func(cluster.NodeFacts) bool) (cluster.NodeFacts, uint64, bool) {
	var b cluster.NodeFacts
	found := false
	for _, n := range f.others {
		if n.Role == cluster.RoleStandby && !f.Record.Members[n.ID].Fenced && fits(n) && (!found || held(f.Record, n) > held(f.Record, b)) {
			b, found = n, true
		}
	}
	return b, held(f.Record, b).Behind(f.primary.FlushLSN), found
}

// counted: commits wait for it, or the record says that they do.
func (f *facts) counted(id cluster.NodeID) bool {
	return slices.Contains(f.Record.SyncSet.Members, id) ||
		slices.Contains(f.named.Members, id)
}

// running is the sync set that the primary has in force. Nobody is waited for,
// whatever the names say, where commits are local by default.
func running(f *facts) cluster.SyncSet {
	if commitsAreLocal(f.primary) {
		return cluster.SyncSet{}
	}
	return f.named
}

func commitsAreLocal(n cluster.NodeFacts) bool {
	return n.SynchronousCommit == "off" || n.SynchronousCommit == "local"
}

// restartMatters: the primary runs anew since the gate was opened to it, and
// commits that waited for a standby then are visible now, confirmed or not.
func (f *facts) restartMatters() bool {
	p := f.Memory.Proved
	return f.GateOpen && f.primary.Up() && p.Node == f.primary.ID && p.Term == f.Record.Term && !p.StartedAt.IsZero() &&
		!f.primary.StartedAt.IsZero() && !p.StartedAt.Equal(f.primary.StartedAt) &&
		f.Record.Mode == cluster.ModeSync && len(running(f).Members) > 0
}
