package decide

import (
	"fmt"
	"slices"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// InHistory says whether a node's history is the recorded one. Its timeline
// must be recorded; on an older timeline it must not have passed the point
// where the next one branched off; and where the server's own timeline history
// was read, every branch in it must lie where the record has it: two promotions
// make two timelines of one number, and only the points where they began tell
// them apart.
func InHistory(r cluster.Record, n cluster.NodeFacts) bool { return leftHistory(r, n) == "" }

// leftHistory says where a node's history is not the recorded one; "" where it
// is.
func leftHistory(r cluster.Record, n cluster.NodeFacts) string {
	at := slices.IndexFunc(r.History, func(h cluster.HistoryEntry) bool {
		return h.Timeline == n.Timeline && h.SystemIdentifier == n.SystemIdentifier
	})
	if at < 0 {
		return fmt.Sprintf("timeline %d was never recorded", n.Timeline)
	}
	if at+1 < len(r.History) && n.Position() > r.History[at+1].SwitchLSN {
		return fmt.Sprintf("it is at %s on timeline %d, which ended at %s", n.Position(), n.Timeline, r.History[at+1].SwitchLSN)
	}
	for _, own := range n.SwitchHistory {
		for _, h := range r.History[:at+1] {
			if own.Timeline == h.Timeline && own.SwitchLSN != 0 && h.SwitchLSN != 0 && own.SwitchLSN != h.SwitchLSN {
				return fmt.Sprintf("its timeline %d began at %s, the recorded one at %s", h.Timeline, own.SwitchLSN, h.SwitchLSN)
			}
		}
	}
	return ""
}

// Unrecorded says whether a node takes writes because of a promotion of ours
// whose record was never written: it promised for the next term, has received
// from nobody since, and is on a timeline past the recorded one.
func Unrecorded(r cluster.Record, n cluster.NodeFacts) bool {
	return n.Up() && n.Role == cluster.RolePrimary && n.ID != r.Primary && n.SystemIdentifier == r.SystemIdentifier &&
		n.Timeline > r.Timeline && r.Members[n.ID].Promised == r.Term+1
}

// HoldsAll says whether a node is recorded to hold every acknowledged commit.
// That is one that is eligible; and one that is not, where it promised and holds
// no less than an eligible one that promised too. The second has a prefix of
// what the first has, and the first is in the sync set because commits may have
// waited for it alone: it was being taken in when the primary was lost, and
// leaving it behind would lose what only it has confirmed.
func HoldsAll(r cluster.Record, id cluster.NodeID) bool {
	m := r.Members[id]
	if m.Fenced || m.Eligible {
		return !m.Fenced
	}
	return PromiseCounts(r, id) && slices.ContainsFunc(r.SyncSet.Members, func(other cluster.NodeID) bool {
		o := r.Members[other]
		return o.Eligible && !o.Fenced && PromiseCounts(r, other) && o.PromisedLSN <= m.PromisedLSN
	})
}

// HoldsMore names the member of the sync set that promised for the coming term
// and holds more than a node that promised as well. Such a node is never
// promoted: the other may be the only one with the last acknowledged commits.
func HoldsMore(r cluster.Record, id cluster.NodeID) (more cluster.NodeID, ok bool) {
	if !PromiseCounts(r, id) {
		return "", false
	}
	most := r.Members[id].PromisedLSN
	for _, other := range r.SyncSet.Members {
		if o := r.Members[other]; PromiseCounts(r, other) && o.PromisedLSN > most {
			more, most, ok = other, o.PromisedLSN, true
		}
	}
	return more, ok
}

// held is what a node would be promoted with: what it promised to stop at,
// which cannot grow any more, or what it was seen to hold.
func held(r cluster.Record, n cluster.NodeFacts) cluster.LSN {
	if PromiseCounts(r, n.ID) {
		return r.Members[n.ID].PromisedLSN
	}
	return n.Position()
}

// KeepsFrom says why a node's data must not be overwritten, by a rewind or a
// copy; "" where it may be. Somebody else must be known to hold everything, and
// that is the recorded primary, up and writing the recorded history.
func KeepsFrom(in Input, id cluster.NodeID) string {
	r, p, n := in.Record, in.Snapshot.Node(in.Record.Primary), in.Snapshot.Node(id)
	switch {
	case id == r.Primary:
		return fmt.Sprintf("%s is the primary", id)
	case !healthy(r, p):
		return fmt.Sprintf("the primary %s is not known to be well, so %s may be the last good copy", p.ID, id)
	case HostSeen(n) && n.Host.Reachable && n.Host.Postmaster == cluster.PostmasterAbsent:
		return "" // there is nothing to overwrite
	case n.SystemIdentifier != 0 && n.SystemIdentifier != r.SystemIdentifier:
		return fmt.Sprintf("%s belongs to another database system (identifier %d): move its data directory aside first", id, n.SystemIdentifier)
	case ahead(r, p, n) > 0:
		return fmt.Sprintf("%s holds %d bytes of timeline %d that the primary %s lacks", id, ahead(r, p, n), n.Timeline, p.ID)
	}
	return ""
}

// healthy: it is the primary that the record speaks of, and takes writes.
func healthy(r cluster.Record, p cluster.NodeFacts) bool {
	return p.Up() && p.ID == r.Primary && p.Role == cluster.RolePrimary && p.SystemIdentifier == r.SystemIdentifier &&
		p.Timeline == r.Timeline && InHistory(r, p)
}

// ahead is how many bytes of the recorded timeline a standby holds that the
// primary lacks. A primary sends nothing that it has not flushed, so there are
// none unless it lost its own. Only a standby that receives nothing and was
// looked at before the primary compares.
func ahead(r cluster.Record, p, n cluster.NodeFacts) uint64 {
	if n.Role != cluster.RoleStandby || n.Receiver != nil || n.Timeline != r.Timeline || p.Timeline != r.Timeline ||
		n.SystemIdentifier != r.SystemIdentifier || n.LastOK.After(p.LastOK) {
		return 0
	}
	return p.FlushLSN.Behind(n.Position())
}

// WALGone says whether a standby needs WAL that the primary has removed, so
// that it can only be copied anew.
func WALGone(in Input, id cluster.NodeID) bool {
	p, n := in.Snapshot.Node(in.Record.Primary), in.Snapshot.Node(id)
	return p.Up() && p.OldestWAL != 0 && n.Role == cluster.RoleStandby && n.Position() != 0 && n.Position() < p.OldestWAL &&
		n.SystemIdentifier == in.Record.SystemIdentifier
}
