package decide

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

func anotherSystem(f *facts) (Decision, bool) {
	p := f.primary
	if !p.Up() || p.SystemIdentifier == f.Record.SystemIdentifier {
		return Decision{}, false
	}
	return Decision{CloseGate: true, Cut: true, Level: cluster.Error,
		Reason: fmt.Sprintf("%s has system identifier %d, recorded is %d", p.ID, p.SystemIdentifier, f.Record.SystemIdentifier)}, true
}

func oldPrimaryWritable(f *facts) (Decision, bool) {
	return f.first(f.writable, func(n cluster.NodeFacts) (Decision, bool) {
		spec, _ := f.Policy.Node(n.ID)
		// While the primary is healthy any second writer is wrong; while it is
		// not only one that we fenced is known to be.
		if !spec.FailoverAllowed || !healthy(f.Record, f.primary) && !f.Record.Members[n.ID].Fenced {
			return Decision{}, false
		}
		return Decision{Action: cluster.Fence, Node: n.ID, Level: cluster.Error,
			Reason: fmt.Sprintf("%s takes writes on timeline %d, but %s is the primary of term %d%s", n.ID, n.Timeline, f.Record.Primary, f.Record.Term, ownWrites(f.Record, n))}, true
	})
}

// ownWrites says what only a node that left the recorded history has, so that
// it is not given up unseen: it is kept, stopped, until the node rejoins.
func ownWrites(r cluster.Record, n cluster.NodeFacts) string {
	if InHistory(r, n) || len(n.SwitchHistory) == 0 {
		return ""
	}
	last := n.SwitchHistory[len(n.SwitchHistory)-1]
	if last.Timeline != n.Timeline || last.SwitchLSN == 0 {
		return ""
	}
	return fmt.Sprintf("; what it wrote since %s, %d bytes of WAL, is nowhere else and is given up when it rejoins", last.SwitchLSN, last.SwitchLSN.Behind(n.Position()))
}

func unknownPrimary(f *facts) (Decision, bool) {
	if healthy(f.Record, f.primary) {
		return Decision{}, false
	}
	for _, n := range f.writable {
		if f.Record.Members[n.ID].Fenced || Unrecorded(f.Record, n) && HoldsAll(f.Record, n.ID) {
			continue // it is known to be wrong; or ours, and the promotion is gone on with
		}
		why := "is gone"
		if f.lost == present {
			why = "takes no writes or left the recorded history"
		}
		return Decision{CloseGate: true, Cut: true, Level: cluster.Error,
			Reason: fmt.Sprintf("%s takes writes on timeline %d and was not promoted by us, while %s %s: stop it, or promote it here by hand%s", n.ID, n.Timeline, f.Record.Primary, why, ownWrites(f.Record, n))}, true
	}
	return Decision{}, false
}

// brokenPathPromote moves service although the primary lives: the promises keep
// it from acknowledging anything more. It wants twice the evidence, because
// whoever has a path of their own to the old primary goes on using it.
func brokenPathPromote(f *facts) (Decision, bool) {
	if f.lost != lost || f.alive == "" || f.Policy.BrokenPath != cluster.PathPromote || !f.promotes() ||
		f.primary.Failures < f.pathPatience() || len(f.candidates) == 0 || len(f.silent) > 0 {
		return Decision{}, false
	}
	c := f.candidates[0]
	return Decision{Action: cluster.Promote, Node: c.ID, CloseGate: true, Cut: true, Level: cluster.Error,
		Reason: fmt.Sprintf("%s does not answer us (%s), but %s; the standbys take no more from it, and %s holds every acknowledged commit", f.primary.ID, f.lostWhy, f.alive, c.ID)}, true
}

// pathPatience is how many failed checks a broken path must have.
func (f *facts) pathPatience() int { return 2 * retriesNeeded(f.Policy, len(f.Memory.Failovers)) }

// promotes: the engine may promote by itself in the place of the primary.
func (f *facts) promotes() bool {
	return f.Policy.Failover == cluster.Automatic && f.spec.FailoverAllowed
}

func brokenPath(f *facts) (Decision, bool) {
	if f.lost != lost || f.alive == "" {
		return Decision{}, false
	}
	what := "nothing is promoted without a person"
	if f.Policy.BrokenPath == cluster.PathPromote && f.promotes() {
		what = fmt.Sprintf("a standby is promoted after %d failed checks", f.pathPatience())
		if f.primary.Failures >= f.pathPatience() {
			what = "no standby could be promoted" + f.whyNone()
		}
	}
	return Decision{CloseGate: true, Level: cluster.Error,
		Reason: fmt.Sprintf("%s does not answer us (%s), but %s: it may be acknowledging commits, so %s", f.primary.ID, f.lostWhy, f.alive, what)}, true
}

func gone(f *facts) bool { return f.lost == lost || f.lost == proven }

func primaryLost(f *facts) (Decision, bool) {
	if !gone(f) || !f.promotes() {
		return Decision{}, false
	}
	if len(f.candidates) > 0 && len(f.silent) == 0 {
		c := f.candidates[0]
		return Decision{Action: cluster.Promote, Node: c.ID, CloseGate: true, Cut: true, Level: cluster.Error,
			Reason: fmt.Sprintf("%s is lost (%s); %s holds every acknowledged commit", f.primary.ID, f.lostWhy, c.ID)}, true
	}
	fits := func(n cluster.NodeFacts) bool {
		spec, _ := f.Policy.Node(n.ID)
		return spec.FailoverAllowed && n.Up() && f.inLine(n)
	}
	if b, loss, ok := f.best(fits); f.Policy.UnsafePromote && ok {
		return Decision{Action: cluster.Promote, Node: b.ID, CloseGate: true, Cut: true, Level: cluster.Error, Unsafe: true, LossBytes: loss,
			Reason: fmt.Sprintf("%s is lost (%s); the policy promotes %s although up to %d bytes may be missing", f.primary.ID, f.lostWhy, b.ID, loss)}, true
	}
	return Decision{}, false
}

func primaryStoppedByUs(f *facts) (Decision, bool) {
	if f.Record.Stopping != f.Record.Primary || f.lost != proven {
		return Decision{}, false
	}
	return Decision{Action: cluster.Restart, Node: f.primary.ID, CloseGate: true, Level: cluster.Warn,
		Reason: fmt.Sprintf("%s was stopped for a switchover that did not get further, and no standby can take over", f.primary.ID)}, true
}

func primaryLostManual(f *facts) (Decision, bool) {
	if !gone(f) || len(f.candidates) == 0 || len(f.silent) > 0 {
		return Decision{}, false
	}
	who := "the policy is manual"
	if !f.spec.FailoverAllowed {
		who = f.primary.ID.String() + " may not be failed over"
	}
	return Decision{CloseGate: true, Cut: true, Level: cluster.Error,
		Reason: fmt.Sprintf("%s is lost (%s); %s: promote %s by hand", f.primary.ID, f.lostWhy, who, f.candidates[0].ID)}, true
}

func primaryLostNoCandidate(f *facts) (Decision, bool) {
	if !gone(f) {
		return Decision{}, false
	}
	d := Decision{CloseGate: true, Cut: true, Level: cluster.Error,
		Reason: fmt.Sprintf("%s is lost (%s) and no standby is known to hold every acknowledged commit; clients are held", f.primary.ID, f.lostWhy)}
	d.Reason += f.whyNone()
	if _, loss, ok := f.best(anyNode); ok && loss > 0 {
		d.LossBytes = loss
		d.Reason += fmt.Sprintf(": at least %d bytes of WAL would be lost", loss)
	}
	return d, true
}

func anyNode(cluster.NodeFacts) bool { return true }

// whyNone says of the standby that would lose least why it is not promoted.
func (f *facts) whyNone() string {
	b, _, ok := f.best(anyNode)
	if !ok {
		return ""
	}
	return fmt.Sprintf("; %s is not promoted (%s)", b.ID, whyNot(f, b))
}

// whyNot says what keeps a standby from being promoted.
func whyNot(f *facts, n cluster.NodeFacts) string {
	spec, _ := f.Policy.Node(n.ID)
	m := f.Record.Members[n.ID]
	more, outdone := HoldsMore(f.Record, n.ID)
	switch {
	case !HoldsAll(f.Record, n.ID):
		return cmp.Or(m.Reason, "nothing is recorded of it")
	case !n.Up():
		return "it does not answer"
	case !spec.FailoverAllowed:
		return "allow_failover = false"
	case outdone:
		return f.mustBe(more)
	case len(f.silent) > 0:
		return MayHoldMore(f.silent)
	case n.SystemIdentifier != f.Record.SystemIdentifier:
		return "it belongs to another database system"
	}
	return cmp.Or(leftHistory(f.Record, n), "it is no standby")
}

// mustBe says why the one that holds the most is not promoted in the place of
// the others.
func (f *facts) mustBe(id cluster.NodeID) string {
	spec, _ := f.Policy.Node(id)
	why := ""
	switch n := f.Snapshot.Node(id); {
	case !n.Up():
		why = " and does not answer"
	case !spec.FailoverAllowed:
		why = " and may not be promoted (allow_failover = false)"
	}
	return fmt.Sprintf("%s promised and holds more, up to %s%s", id, f.Record.Members[id].PromisedLSN, why)
}

// MayHoldMore says why silent members of the sync set stand in the way.
func MayHoldMore(silent []cluster.NodeID) string {
	names := make([]string, len(silent))
	for i, id := range silent {
		names[i] = string(id)
	}
	verb := "does"
	if len(silent) > 1 {
		verb = "do"
	}
	return fmt.Sprintf("%s %s not answer and may hold commits that the others lack", strings.Join(names, ", "), verb)
}

func primaryRestarting(f *facts) (Decision, bool) {
	return Decision{CloseGate: true, Level: cluster.Warn,
		Reason: fmt.Sprintf("%s: %s; clients are held", f.primary.ID, f.lostWhy)}, f.lost == restarting
}

func primarySuspected(f *facts) (Decision, bool) {
	if f.lost != suspected {
		return Decision{}, false
	}
	// A refused or cut connection means that statements sent now would fail;
	// a mere silence may be load, and closing would turn it into a pause.
	hard := f.primary.Reach == cluster.ReachRefused || f.primary.Reach == cluster.ReachBroken
	return Decision{CloseGate: hard, Level: cluster.Warn,
		Reason: fmt.Sprintf("%s is suspected: %s", f.primary.ID, f.lostWhy)}, true
}

func primaryInRecovery(f *facts) (Decision, bool) {
	return Decision{CloseGate: true, Cut: true, Level: cluster.Error,
		Reason: fmt.Sprintf("%s is recorded as the primary and is in recovery: promote a node by hand", f.primary.ID)}, f.primary.Role == cluster.RoleStandby
}

func primaryLeftHistory(f *facts) (Decision, bool) {
	why := leftHistory(f.Record, f.primary)
	if why == "" && f.primary.Timeline == f.Record.Timeline {
		return Decision{}, false
	}
	return Decision{CloseGate: true, Cut: true, Level: cluster.Error,
		Reason: fmt.Sprintf("%s is on timeline %d, recorded is %d: somebody promoted or restored it behind our back (%s)", f.primary.ID, f.primary.Timeline, f.Record.Timeline,
			cmp.Or(why, "the recorded timeline is a later one"))}, true
}

// primaryLostWAL: what a standby has was flushed by the primary before it was
// sent, so a primary that lacks it was restored, or its disk forgot what it had
// confirmed. What it lacks may be acknowledged, and each write that it takes
// now makes a second history under the same timeline.
func primaryLostWAL(f *facts) (Decision, bool) {
	for _, n := range f.others {
		t, seen := f.Memory.Ahead[n.ID]
		if bytes := ahead(f.Record, f.primary, n); seen && bytes > 0 && f.now.Sub(t) >= patience(f.Policy) {
			return Decision{CloseGate: true, Cut: true, Level: cluster.Error, LossBytes: bytes,
				Reason: fmt.Sprintf("%s holds %d bytes of timeline %d that the primary %s lacks: it was restored, or lost what it had flushed; promote %s by hand, or move the data directory of %s aside to give up what it holds",
					n.ID, bytes, n.Timeline, f.primary.ID, n.ID, n.ID)}, true
		}
	}
	return Decision{}, false
}

// primaryRestarted: after a crash PostgreSQL shows every commit that waited for
// a standby as if it had been confirmed (PostgreSQL docs, 27.2.8.4). Whoever
// saw one would miss it after a failover, so nobody sees any before the sync
// set has confirmed all; opening the gate proves that.
func primaryRestarted(f *facts) (Decision, bool) {
	if !f.restartMatters() {
		return Decision{}, false
	}
	return Decision{CloseGate: true, Cut: true, Level: cluster.Warn,
		Reason: fmt.Sprintf("%s restarted at %s since the gate was opened to it: clients are held until its standbys have confirmed what it shows", f.primary.ID, f.primary.StartedAt.UTC().Format(time.RFC3339))}, true
}

func gateClosed(f *facts) (Decision, bool) {
	// What waits for servers that are not there is confirmed by nobody, and so
	// is what a restart has made visible.
	now := running(f)
	if f.GateOpen || len(f.possible(now).Members) < now.K {
		return Decision{}, false
	}
	// It may have been closed because of what is newer than the last look.
	if !after(f.primary.LastOK, f.GateSince, f.now) {
		return Decision{CloseGate: true, Reason: fmt.Sprintf("the gate was closed a moment ago: %s is looked at before it is opened", f.primary.ID)}, true
	}
	return Decision{Action: cluster.Reopen, Node: f.primary.ID,
		Reason: fmt.Sprintf("%s is the healthy primary of term %d", f.primary.ID, f.Record.Term)}, true
}

// first is the first decision of a list of nodes that can be tried now; where
// every one waits for its next attempt, the first at all. One node that cannot
// be helped must not keep the others from it.
func (f *facts) first(nodes []cluster.NodeFacts, of func(cluster.NodeFacts) (Decision, bool)) (Decision, bool) {
	var all []Decision
	for _, n := range nodes {
		if d, ok := of(n); ok {
			all = append(all, d)
		}
	}
	if i := slices.IndexFunc(all, func(d Decision) bool { return f.pause(d.Action, d.Node) == 0 }); i >= 0 {
		return all[i], true
	}
	if len(all) == 0 {
		return Decision{}, false
	}
	return all[0], true
}
