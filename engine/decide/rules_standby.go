package decide

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// notFollowing repoints standbys whose history lets them follow as they are;
// the others are for rules 73 and 75.
func notFollowing(f *facts) (Decision, bool) {
	return f.first(f.others, func(n cluster.NodeFacts) (Decision, bool) {
		if !n.Up() || f.Record.Members[n.ID].Fenced || f.Policy.Rejoin != cluster.Automatic || !f.inLine(n) {
			return Decision{}, false
		}
		d := Decision{Action: cluster.Rejoin, Node: n.ID}
		spec, _ := f.Policy.Node(n.ID)
		switch old := followsFormer(f, n); {
		case n.Receiver == nil && n.Conninfo == "":
			d.Reason = fmt.Sprintf("%s is a standby without a primary_conninfo: it follows %s", n.ID, f.primary.ID)
		case n.Receiver != nil && f.Record.Members[n.ID].Promised > f.Record.Term:
			d.Reason = fmt.Sprintf("%s receives again although it promised not to: its promise is taken back", n.ID)
		case old != "" && spec.FailoverAllowed:
			d.Reason = fmt.Sprintf("%s is told to follow %s, a former primary: it follows %s", n.ID, old, f.primary.ID)
		default:
			return Decision{}, false
		}
		return d, true
	})
}

// hostPort reads a connection string of keywords and values, where a value may
// stand in quotes (PostgreSQL docs, 34.1.1.1).
func hostPort(conninfo string) (host, port string) {
	for rest := conninfo; rest != ""; {
		key, value, found := strings.Cut(rest, "=")
		if !found {
			return host, port
		}
		value = strings.TrimLeft(value, " ")
		if quoted, ok := strings.CutPrefix(value, "'"); ok {
			value, rest, _ = strings.Cut(quoted, "'")
		} else {
			value, rest, _ = strings.Cut(value, " ")
		}
		switch strings.TrimSpace(key) {
		case "host":
			host = value
		case "port":
			port = value
		}
	}
	return host, port
}

// toldToFollow names the configured node that a standby's primary_conninfo
// points at; "" where it is none of ours.
func toldToFollow(f *facts, n cluster.NodeFacts) cluster.NodeID {
	host, port := hostPort(n.Conninfo)
	for _, spec := range f.Policy.Nodes {
		if spec.ID != n.ID && spec.Host != "" && spec.Host == host && strconv.Itoa(spec.Port) == port {
			return spec.ID
		}
	}
	return ""
}

// followsFormer names the former primary that a standby's primary_conninfo
// points at; "" where it points elsewhere, as at a standby on purpose.
func followsFormer(f *facts, n cluster.NodeFacts) cluster.NodeID {
	to := toldToFollow(f, n)
	was := slices.ContainsFunc(f.Record.History, func(h cluster.HistoryEntry) bool { return h.Node == to })
	if to == f.primary.ID || !was {
		return ""
	}
	return to
}

// cascaded names the standbys that stream from another standby: the primary
// has no sender for them, so no commit can wait for them.
func cascaded(f *facts) string {
	var said string
	for _, n := range f.others {
		to := toldToFollow(f, n)
		if _, ok := f.primary.SenderTo(n.ID); !ok && to != "" && to != f.primary.ID && n.Up() && n.Role == cluster.RoleStandby && n.Receiver != nil {
			said += fmt.Sprintf("; %s streams from %s and is never counted", n.ID, to)
		}
	}
	return said
}

// mayRejoin: a standby may be taken away from what it does, and its data
// overwritten, without a person.
func (f *facts) mayRejoin(n cluster.NodeFacts) bool {
	spec, ok := f.Policy.Node(n.ID)
	return ok && spec.FailoverAllowed && f.Policy.Rejoin == cluster.Automatic && n.Host.Reachable && KeepsFrom(f.Input, n.ID) == ""
}

// protectFirst: nobody confirms commits, and a standby that could is there.
// Overwriting another may take hours, in which nothing could be promoted.
func (f *facts) protectFirst() bool {
	d, could := standbyBack(f)
	return could && len(running(f).Members) == 0 && f.pause(d.Action, d.Node) == 0
}

// needsCopy: it receives nothing, the WAL that it would receive next is gone,
// and no archive serves it either.
func (f *facts) needsCopy(n cluster.NodeFacts) bool {
	idle, seen := f.Memory.Replayed[n.ID]
	return seen && f.now.Sub(idle.Since) >= 2*patience(f.Policy) && !f.Record.Members[n.ID].Fenced && f.inLine(n) && WALGone(f.Input, n.ID)
}

func walGone(f *facts) (Decision, bool) {
	return f.first(f.others, func(n cluster.NodeFacts) (Decision, bool) {
		if !f.needsCopy(n) || !f.mayRejoin(n) || f.protectFirst() {
			return Decision{}, false
		}
		return Decision{Action: cluster.Rejoin, Node: n.ID, Clone: true, Level: cluster.Warn,
			Reason: fmt.Sprintf("%s is at %s and %s has no WAL before %s any more: it is copied anew", n.ID, n.Position(), f.primary.ID, f.primary.OldestWAL)}, true
	})
}

// standbyEmpty: there is nothing to overwrite. It must have been so for the
// usual number of checks, because a file system that is mounted late looks the
// same.
func standbyEmpty(f *facts) (Decision, bool) {
	return f.first(f.others, func(n cluster.NodeFacts) (Decision, bool) {
		empty := HostSeen(n) && n.Host.Postmaster == cluster.PostmasterAbsent && n.Failures >= max(1, f.Policy.CheckRetries)
		if n.Up() || !empty || !f.mayRejoin(n) || f.protectFirst() {
			return Decision{}, false
		}
		return Decision{Action: cluster.Rejoin, Node: n.ID, Clone: true, Level: cluster.Warn,
			Reason: fmt.Sprintf("%s has no data directory: it is copied from %s", n.ID, f.primary.ID)}, true
	})
}

// strays: a standby of our system with a history that was not recorded, seen
// after the last change of the record.
func (f *facts) strays(n cluster.NodeFacts) string {
	m := f.Record.Members[n.ID]
	if !n.Up() || n.Role != cluster.RoleStandby || m.Fenced || n.SystemIdentifier != f.Record.SystemIdentifier || len(f.Record.History) == 0 ||
		!after(n.LastOK, f.Record.History[len(f.Record.History)-1].At, f.now) {
		return ""
	}
	return leftHistory(f.Record, n)
}

func anotherHistory(f *facts) (Decision, bool) {
	return f.first(f.others, func(n cluster.NodeFacts) (Decision, bool) {
		why := f.strays(n)
		if why == "" || !f.mayRejoin(n) || f.protectFirst() {
			return Decision{}, false
		}
		return Decision{Action: cluster.Rejoin, Node: n.ID, Level: cluster.Warn,
			Reason: fmt.Sprintf("the history of %s is not the recorded one (%s): it returns as a standby of %s", n.ID, why, f.primary.ID)}, true
	})
}

func oldPrimaryBack(f *facts) (Decision, bool) {
	return f.first(f.others, func(n cluster.NodeFacts) (Decision, bool) {
		if !f.Record.Members[n.ID].Fenced || !f.mayRejoin(n) || f.protectFirst() {
			return Decision{}, false
		}
		// What was tried twice by what differs is copied whole; and a standby
		// whose WAL is gone has nothing that differs.
		whole := WALGone(f.Input, n.ID) || f.Memory.Attempts[Attempt{cluster.Rejoin, n.ID}].Count >= 2
		return Decision{Action: cluster.Rejoin, Node: n.ID, Clone: whole,
			Reason: fmt.Sprintf("%s is %s whose host answers: it returns as a standby of %s", n.ID, f.fencedAs(n.ID), f.primary.ID)}, true
	})
}

func oldPrimaryAway(f *facts) (Decision, bool) {
	for _, n := range f.others {
		if _, ok := f.Policy.Node(n.ID); !ok || !f.Record.Members[n.ID].Fenced {
			continue
		}
		return Decision{Level: cluster.Warn, Reason: fmt.Sprintf("%s is %s%s", n.ID, f.fencedAs(n.ID), f.whyAway(n))}, true
	}
	return Decision{}, false
}

// fencedAs says what a fenced node is: most were the primary once, and the
// others were being overwritten when that ended.
func (f *facts) fencedAs(id cluster.NodeID) string {
	if f.Snapshot.Node(id).Role == cluster.RoleStandby && !slices.ContainsFunc(f.Record.History, func(h cluster.HistoryEntry) bool { return h.Node == id }) {
		return "a standby that has not followed since its data was to be replaced"
	}
	return "a former primary"
}

// whyAway says why a node is not made to follow.
func (f *facts) whyAway(n cluster.NodeFacts) string {
	spec, _ := f.Policy.Node(n.ID)
	keeps := KeepsFrom(f.Input, n.ID)
	switch {
	case !n.Host.Reachable:
		return " and its host does not answer over ssh"
	case !spec.FailoverAllowed:
		return " and may not be touched (allow_failover = false)"
	case keeps != "":
		return ", and its data is not overwritten: " + keeps
	}
	return "; the policy leaves its return to a person"
}

func cannotFollow(f *facts) (Decision, bool) {
	for _, n := range f.others {
		if n.Up() && n.SystemIdentifier != f.Record.SystemIdentifier {
			return Decision{Level: cluster.Error, Reason: fmt.Sprintf("%s belongs to another database system (identifier %d, recorded is %d): it is neither counted nor overwritten; move its data directory aside and rejoin it",
				n.ID, n.SystemIdentifier, f.Record.SystemIdentifier)}, true
		}
		if why := f.strays(n); why != "" {
			return Decision{Level: cluster.Error, Reason: fmt.Sprintf("the history of %s is not the recorded one (%s)%s", n.ID, why, f.whyAway(n))}, true
		}
		if f.needsCopy(n) {
			return Decision{Level: cluster.Error, Reason: fmt.Sprintf("%s needs WAL that %s no longer has%s", n.ID, f.primary.ID, f.whyAway(n))}, true
		}
		idle, seen := f.Memory.Replayed[n.ID]
		if stands := f.now.Sub(idle.Since); seen && n.Conninfo != "" && stands >= 2*patience(f.Policy) {
			return Decision{Level: cluster.Warn, Reason: fmt.Sprintf("%s receives nothing and has replayed nothing for %s: its log says why it does not connect", n.ID, stands.Round(time.Second))}, true
		}
	}
	return Decision{}, false
}

// CatchUpBytes is how close a returning standby must be before commits wait
// for it: one WAL segment, so that turning to sync costs no long pause.
const CatchUpBytes = 16 << 20

func standbyBack(f *facts) (Decision, bool) {
	if f.Record.WantMode == cluster.ModeAsync || commitsAreLocal(f.primary) {
		return Decision{}, false
	}
	back, target := returning(f)
	if len(target.Members) < max(1, target.K) {
		return Decision{}, false
	}
	d := Decision{Action: cluster.Restore, Node: back, Target: target, Reason: fmt.Sprintf("%s streams from %s again: commits wait for it", back, f.primary.ID)}
	if now := running(f); back == "" {
		// Nobody is back, but what is in force was changed by somebody, or is
		// less than what the policy asks for and the standbys there are make.
		stranger := slices.ContainsFunc(now.Members, func(m cluster.NodeID) bool { _, ok := f.Policy.Node(m); return !ok || m == f.primary.ID })
		if len(now.Members) == 0 || !stranger && now.K >= target.K {
			return Decision{}, false
		}
		d.Node = target.Members[0]
		d.Reason = fmt.Sprintf("commits on %s wait for %s, and the policy asks for %s", f.primary.ID, FormatSyncNames(now), FormatSyncNames(target))
	}
	return d, true
}

// returning finds a standby that could become eligible, and the sync set that
// all close standbys would make, in the order of the configuration, which is
// the order of priority. Where the policy lets commits go on with fewer
// standbys than it wants, as many confirm as there are: less than what is
// wanted is more than nobody.
func returning(f *facts) (back cluster.NodeID, target cluster.SyncSet) {
	target = cluster.SyncSet{Method: f.Policy.SyncMethod, K: f.Policy.SyncK}
	for _, n := range f.others {
		m := f.Record.Members[n.ID]
		if !streams(f, n) || m.Fenced {
			continue
		}
		row, _ := f.primary.SenderTo(n.ID)
		if f.Policy.SyncK > 1 && f.Policy.Slots && row.Slot != cluster.SlotName(n.ID) {
			continue // its next connection could be counted beside this one
		}
		if left, _ := f.stretch(n.ID); !m.Eligible && (left > 0 || f.still(n.ID) >= patience(f.Policy)/2 || row.FlushLSN.Behind(f.primary.FlushLSN) > CatchUpBytes) {
			continue
		}
		target.Members = append(target.Members, n.ID)
		if !m.Eligible && back == "" {
			back = n.ID
		}
	}
	if f.Policy.Degrade == cluster.DegradeAsync && len(target.Members) > 0 {
		target.K = min(target.K, len(target.Members))
	}
	return back, target
}

// streams: it is up, has the recorded history, and the primary has exactly one
// sender with its name that is past catching up.
func streams(f *facts, n cluster.NodeFacts) bool {
	row, ok := f.primary.SenderTo(n.ID)
	return ok && row.State == "streaming" && n.Up() && f.inLine(n)
}

func catchingUp(f *facts) (Decision, bool) {
	if f.Record.WantMode == cluster.ModeAsync || commitsAreLocal(f.primary) {
		return Decision{}, false
	}
	for _, n := range f.others {
		row, ok := f.primary.SenderTo(n.ID)
		if !ok || f.Record.Members[n.ID].Eligible || !n.Up() {
			continue
		}
		if f.Policy.SyncK > 1 && f.Policy.Slots && row.Slot != cluster.SlotName(n.ID) {
			return Decision{Level: cluster.Warn, Reason: fmt.Sprintf("%s streams from %s without its replication slot %s, so where %d must confirm it does not count", n.ID, f.primary.ID, cluster.SlotName(n.ID), f.Policy.SyncK)}, true
		}
		if left, why := f.stretch(n.ID); left > 0 {
			return Decision{Level: cluster.Warn, Reason: fmt.Sprintf("%s is back (%s): %s", n.ID, row.State, why)}, true
		}
		if still := f.still(n.ID); still >= patience(f.Policy)/2 {
			return Decision{Level: cluster.Warn, Reason: fmt.Sprintf("%s seems to stream and has confirmed nothing for %s", n.ID, still.Round(100*time.Millisecond))}, true
		}
		return Decision{Level: cluster.Warn,
			Reason: fmt.Sprintf("%s is catching up (%s): %d bytes behind", n.ID, row.State, row.FlushLSN.Behind(f.primary.FlushLSN))}, true
	}
	return Decision{}, false
}

// nameClaimed: on one address it may be a standby that was cut off and is back
// before the primary noticed; it counts again when one of the two is gone.
func nameClaimed(f *facts) (Decision, bool) {
	for _, c := range f.claimed {
		return Decision{Level: cluster.Warn, Reason: c.why + ": none of them counts until the others are gone (one application_name for each server)"}, true
	}
	return Decision{}, false
}

func replayLags(f *facts) (Decision, bool) {
	var said []string
	for _, n := range f.others {
		left := n.ReplayLSN.Behind(n.ReceiveLSN)
		switch {
		case !n.Up() || n.Role != cluster.RoleStandby || !f.Record.Members[n.ID].Eligible:
		case n.ReplayPaused:
			said = append(said, fmt.Sprintf("replay is paused on %s, %d bytes are left: a promotion ends the pause and replays them first", n.ID, left))
		case replayTime(left) >= slowReplay:
			said = append(said, fmt.Sprintf("%s has %d bytes left to replay, about %s before it could take over", n.ID, left, replayTime(left).Round(time.Second)))
		}
	}
	return Decision{Level: cluster.Warn, Reason: strings.Join(said, "; ")}, len(said) > 0
}

// replayRate is how fast a standby replays where nothing better is known, in
// bytes a second: one core, random pages, a disk that is not the fastest.
const replayRate = 32 << 20

// slowReplay is how much of it a person should know of.
const slowReplay = 5 * time.Second

// replayTime estimates how long a standby replays so much WAL.
func replayTime(bytes uint64) time.Duration {
	return time.Duration(float64(bytes) / replayRate * float64(time.Second))
}

// ReplayTime estimates how long a standby has to replay before it holds, in
// its tables, what the primary has flushed.
func ReplayTime(primary, standby cluster.NodeFacts) time.Duration {
	return replayTime(standby.ReplayLSN.Behind(primary.FlushLSN))
}

// after compares a look with a durable moment. A moment that lies in the
// future was written before the clock was set back, and keeps nothing waiting.
func after(look, moment, now time.Time) bool { return moment.After(now) || look.After(moment) }
