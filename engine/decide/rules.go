package decide

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// Rule is one row of the table.
type Rule struct {
	Number int
	Name   string
	// Text says in one sentence what the rule is for, for the console's help
	// and the table's golden dump.
	Text string
	When func(facts) (Decision, bool)
}

// Rules is the table, in order. Numbers are stable: they stand in journals.
func Rules() []Rule {
	return []Rule{
		{1, "maintenance", "a person told the engine to keep its hands off", maintenance},
		{10, "not adopted", "no primary is recorded: one healthy primary is adopted, anything else waits for a person", notAdopted},
		{11, "primary not configured", "the recorded primary is not in the configuration", notConfigured},
		{12, "another system", "the primary's address answers with another database system: it never serves", anotherSystem},
		{20, "old primary writable", "a node that is not the primary takes writes: it is stopped before anything else", oldPrimaryWritable},
		{21, "unknown primary", "a node that we did not promote takes writes while the primary is gone: a person must choose", unknownPrimary},
		{30, "broken path", "the primary does not answer us, but a standby still hears from it: our path is broken, not the primary", brokenPath},
		{31, "primary lost", "the primary is gone and an eligible standby holds every acknowledged commit: promote it", primaryLost},
		{38, "primary stopped by us", "a switchover stopped the primary and got no further: start it again", primaryStoppedByUs},
		{32, "primary lost, by hand", "the primary is gone and the policy leaves the promotion to a person", primaryLostManual},
		{33, "primary lost, none eligible", "the primary is gone and no reachable standby is known to hold every acknowledged commit: nothing is promoted", primaryLostNoCandidate},
		{34, "primary restarting", "the primary says that it is starting up or shutting down: clients are held", primaryRestarting},
		{35, "primary suspected", "the primary did not answer, not often enough to be called lost", primarySuspected},
		{36, "primary in recovery", "the recorded primary is a standby now: somebody changed it behind our back", primaryInRecovery},
		{37, "primary left history", "the primary is on a timeline that was not recorded: it does not serve", primaryLeftHistory},
		{50, "standby lost", "a standby that commits wait for is gone: recorded ineligible, then the primary stops waiting for it", standbyLost},
		{52, "setting changed", "the primary stopped waiting for an eligible standby behind our back: it is recorded ineligible", settingChanged},
		{60, "gate closed", "the primary is healthy and the gate is closed: open it", gateClosed},
		{61, "standby suspected", "a standby that commits wait for did not answer, not often enough to be called lost", standbySuspected},
		{71, "standby not following", "a standby was told to stop receiving, or to follow a former primary: it follows the primary again", notFollowing},
		{70, "old primary back", "a former primary's host answers: it is rewound or cloned and follows", oldPrimaryBack},
		{80, "standby back", "a standby streams again: commits wait for it, and it is eligible once it has confirmed all", standbyBack},
		{51, "standby lost, strict", "a standby that commits wait for is gone and the policy lets them wait", standbyLostStrict},
		{81, "standby catching up", "a standby is back and not close enough yet", catchingUp},
		{72, "old primary away", "a former primary cannot be brought back, or not without a person", oldPrimaryAway},
		{90, "async by hand", "a person asked for async: nothing waits for a standby, none is eligible", asyncByHand},
		{91, "unprotected", "the primary runs alone", unprotected},
		{99, "all is well", "every commit is on the standbys it waits for", allIsWell},
	}
}

func maintenance(f facts) (Decision, bool) {
	return Decision{Reason: "the engine watches and does nothing", Level: cluster.Warn}, f.Record.Maintenance
}

func notAdopted(f facts) (Decision, bool) {
	if f.Record.Term != 0 {
		return Decision{}, false
	}
	wait := Decision{CloseGate: true, Level: cluster.Warn}
	if len(f.writable) == 0 {
		wait.Reason = "no primary is recorded yet and none was found"
		return wait, true
	}
	if len(f.writable) > 1 {
		wait.Level = cluster.Error
		wait.Reason = fmt.Sprintf("no primary is recorded yet and %d nodes take writes: stop all but the right one", len(f.writable))
		return wait, true
	}
	p := f.writable[0]
	for _, n := range f.others {
		if n.Up() && n.SystemIdentifier != p.SystemIdentifier {
			wait.Level = cluster.Error
			wait.Reason = fmt.Sprintf("%s and %s belong to different database systems (identifiers %d and %d)", n.ID, p.ID, n.SystemIdentifier, p.SystemIdentifier)
			return wait, true
		}
		if n.ID != p.ID && !n.Up() && n.Host.Postmaster != cluster.PostmasterStopped && n.Host.Postmaster != cluster.PostmasterAbsent {
			wait.Reason = fmt.Sprintf("%s takes writes, but nothing is known of %s yet", p.ID, n.ID)
			return wait, true
		}
	}
	return Decision{Action: cluster.Adopt, Node: p.ID, CloseGate: true, Reason: fmt.Sprintf("%s is the only node that takes writes", p.ID)}, true
}

func notConfigured(f facts) (Decision, bool) {
	return Decision{CloseGate: true, Level: cluster.Error,
		Reason: fmt.Sprintf("the recorded primary %s is not in the configuration: put it back, or remove the state to adopt anew", f.Record.Primary)}, !f.known
}

func anotherSystem(f facts) (Decision, bool) {
	p := f.primary
	if !p.Up() || p.SystemIdentifier == f.Record.SystemIdentifier {
		return Decision{}, false
	}
	return Decision{CloseGate: true, Cut: true, Level: cluster.Error,
		Reason: fmt.Sprintf("%s has system identifier %d, recorded is %d", p.ID, p.SystemIdentifier, f.Record.SystemIdentifier)}, true
}

func oldPrimaryWritable(f facts) (Decision, bool) {
	for _, n := range f.writable {
		spec, _ := f.Policy.Node(n.ID)
		// While the primary is healthy any second writer is wrong; while it is
		// gone only one that we fenced is known to be.
		if !spec.FailoverAllowed || f.lost != present && !f.Record.Members[n.ID].Fenced {
			continue
		}
		return Decision{Action: cluster.Fence, Node: n.ID, Level: cluster.Error,
			Reason: fmt.Sprintf("%s takes writes on timeline %d, but %s is the primary of term %d", n.ID, n.Timeline, f.Record.Primary, f.Record.Term)}, true
	}
	return Decision{}, false
}

func unknownPrimary(f facts) (Decision, bool) {
	if len(f.writable) == 0 || f.lost == present {
		return Decision{}, false
	}
	n := f.writable[0]
	if Unrecorded(f.Record, n) && f.Record.Members[n.ID].Eligible {
		return Decision{}, false // it is ours, and the promotion is gone on with
	}
	return Decision{CloseGate: true, Cut: true, Level: cluster.Error,
		Reason: fmt.Sprintf("%s takes writes on timeline %d and was not promoted by us, while %s is gone: stop it, or promote it here by hand", n.ID, n.Timeline, f.Record.Primary)}, true
}

func brokenPath(f facts) (Decision, bool) {
	if f.lost != lost || f.alive == "" {
		return Decision{}, false
	}
	return Decision{CloseGate: true, Level: cluster.Error,
		Reason: fmt.Sprintf("%s does not answer us (%s), but %s: it may be acknowledging commits, so nothing is promoted without a person", f.primary.ID, f.lostWhy, f.alive)}, true
}

func gone(f facts) bool { return f.lost == lost || f.lost == proven }

func primaryLost(f facts) (Decision, bool) {
	if !gone(f) || f.Policy.Failover != cluster.Automatic || !f.spec.FailoverAllowed {
		return Decision{}, false
	}
	if len(f.candidates) > 0 && len(f.silent) == 0 {
		c := f.candidates[0]
		return Decision{Action: cluster.Promote, Node: c.ID, CloseGate: true, Cut: true, Level: cluster.Error,
			Reason: fmt.Sprintf("%s is lost (%s); %s holds every acknowledged commit", f.primary.ID, f.lostWhy, c.ID)}, true
	}
	if b, loss, ok := f.best(); f.Policy.UnsafePromote && ok && b.Up() {
		return Decision{Action: cluster.Promote, Node: b.ID, CloseGate: true, Cut: true, Level: cluster.Error, LossBytes: loss,
			Reason: fmt.Sprintf("%s is lost (%s); the policy promotes %s although up to %d bytes may be missing", f.primary.ID, f.lostWhy, b.ID, loss)}, true
	}
	return Decision{}, false
}

func primaryStoppedByUs(f facts) (Decision, bool) {
	if f.Record.Stopping != f.Record.Primary || f.lost != proven {
		return Decision{}, false
	}
	return Decision{Action: cluster.Restart, Node: f.primary.ID, CloseGate: true, Level: cluster.Warn,
		Reason: fmt.Sprintf("%s was stopped for a switchover that did not get further, and no standby can take over", f.primary.ID)}, true
}

func primaryLostManual(f facts) (Decision, bool) {
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

func primaryLostNoCandidate(f facts) (Decision, bool) {
	if !gone(f) {
		return Decision{}, false
	}
	d := Decision{CloseGate: true, Cut: true, Level: cluster.Error,
		Reason: fmt.Sprintf("%s is lost (%s) and no standby is known to hold every acknowledged commit; clients are held", f.primary.ID, f.lostWhy)}
	if b, loss, ok := f.best(); ok {
		d.LossBytes = loss
		d.Reason += fmt.Sprintf("; %s is not promoted (%s)", b.ID, whyNot(f, b))
		if loss > 0 {
			d.Reason += fmt.Sprintf(": at least %d bytes of WAL would be lost", loss)
		}
	}
	return d, true
}

// whyNot says what keeps a standby from being promoted.
func whyNot(f facts, n cluster.NodeFacts) string {
	spec, _ := f.Policy.Node(n.ID)
	m := f.Record.Members[n.ID]
	switch {
	case !m.Eligible:
		return m.Reason
	case !n.Up():
		return "it does not answer"
	case !spec.FailoverAllowed:
		return "allow_failover = false"
	case len(f.silent) > 0:
		return MayHoldMore(f.silent)
	}
	return "its history is not the recorded one"
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

func primaryRestarting(f facts) (Decision, bool) {
	return Decision{CloseGate: true, Level: cluster.Warn,
		Reason: fmt.Sprintf("%s: %s; clients are held", f.primary.ID, f.lostWhy)}, f.lost == restarting
}

func primarySuspected(f facts) (Decision, bool) {
	if f.lost != suspected {
		return Decision{}, false
	}
	// A refused or cut connection means that statements sent now would fail;
	// a mere silence may be load, and closing would turn it into a pause.
	hard := f.primary.Reach == cluster.ReachRefused || f.primary.Reach == cluster.ReachBroken
	return Decision{CloseGate: hard, Level: cluster.Warn,
		Reason: fmt.Sprintf("%s is suspected: %s", f.primary.ID, f.lostWhy)}, true
}

func primaryInRecovery(f facts) (Decision, bool) {
	return Decision{CloseGate: true, Cut: true, Level: cluster.Error,
		Reason: fmt.Sprintf("%s is recorded as the primary and is in recovery: promote a node by hand", f.primary.ID)}, f.primary.Role == cluster.RoleStandby
}

func primaryLeftHistory(f facts) (Decision, bool) {
	if InHistory(f.Record, f.primary) && f.primary.Timeline == f.Record.Timeline {
		return Decision{}, false
	}
	return Decision{CloseGate: true, Cut: true, Level: cluster.Error,
		Reason: fmt.Sprintf("%s is on timeline %d, recorded is %d: somebody promoted or restored it behind our back", f.primary.ID, f.primary.Timeline, f.Record.Timeline)}, true
}

// running is the sync set that the primary has in force. Nobody is waited for,
// whatever the names say, where commits are local by default.
func running(f facts) cluster.SyncSet {
	if commitsAreLocal(f.primary) {
		return cluster.SyncSet{}
	}
	return ParseSyncNames(f.primary.SyncStandbyNames)
}

func commitsAreLocal(n cluster.NodeFacts) bool {
	return n.SynchronousCommit == "off" || n.SynchronousCommit == "local"
}

// without is the set after some members are gone; empty when the rest cannot
// make K any more.
func without(s cluster.SyncSet, gone []lostStandby) cluster.SyncSet {
	rest := cluster.SyncSet{Method: s.Method, K: s.K}
	for _, m := range s.Members {
		if !slices.ContainsFunc(gone, func(l lostStandby) bool { return l.ID == m }) {
			rest.Members = append(rest.Members, m)
		}
	}
	if len(rest.Members) < s.K {
		return cluster.SyncSet{}
	}
	return rest
}

func standbyLost(f facts) (Decision, bool) {
	if len(f.absent) == 0 || f.Policy.Degrade != cluster.DegradeAsync {
		return Decision{}, false
	}
	l := f.absent[0]
	target := without(running(f), f.absent)
	to := "commits go on without a standby"
	if len(target.Members) > 0 {
		to = "the other standbys go on confirming"
	}
	return Decision{Action: cluster.Degrade, Node: l.ID, Target: target, Level: cluster.Warn,
		// It is recorded with the node, which may be back when it is read.
		Reason: fmt.Sprintf("%s was lost (%s); %s", l.ID, l.why, to)}, true
}

func standbyLostStrict(f facts) (Decision, bool) {
	if len(f.absent) == 0 || len(running(f).Members) == 0 {
		return Decision{}, false
	}
	l := f.absent[0]
	return Decision{Level: cluster.Error,
		Reason: fmt.Sprintf("%s is lost (%s); the policy is strict: commits wait until a standby is back", l.ID, l.why)}, true
}

func settingChanged(f facts) (Decision, bool) {
	now := running(f)
	for _, n := range f.others {
		m := f.Record.Members[n.ID]
		if !m.Eligible || slices.Contains(now.Members, n.ID) && now.K >= f.Record.SyncSet.K {
			continue
		}
		if !f.primary.LastOK.After(m.Since) {
			continue // what was seen is older than what is recorded
		}
		if commitsAreLocal(f.primary) {
			return Decision{Action: cluster.Degrade, Node: n.ID, Target: now, Level: cluster.Warn,
				Reason: fmt.Sprintf("synchronous_commit on %s is %s, so commits do not wait for %s", f.primary.ID, f.primary.SynchronousCommit, n.ID)}, true
		}
		return Decision{Action: cluster.Degrade, Node: n.ID, Target: now, Level: cluster.Warn,
			Reason: fmt.Sprintf("synchronous_standby_names on %s is %q (%s), so commits no longer wait for %s", f.primary.ID, f.primary.SyncStandbyNames, f.primary.SyncNamesSource, n.ID)}, true
	}
	return Decision{}, false
}

func gateClosed(f facts) (Decision, bool) {
	if f.GateOpen {
		return Decision{}, false
	}
	return Decision{Action: cluster.Reopen, Node: f.primary.ID,
		Reason: fmt.Sprintf("%s is the healthy primary of term %d", f.primary.ID, f.Record.Term)}, true
}

func standbySuspected(f facts) (Decision, bool) {
	if len(f.waiting) == 0 {
		return Decision{}, false
	}
	l := f.waiting[0]
	return Decision{Level: cluster.Warn, Reason: fmt.Sprintf("%s is suspected: %s", l.ID, l.why)}, true
}

func oldPrimaryBack(f facts) (Decision, bool) {
	for _, n := range f.others {
		spec, ok := f.Policy.Node(n.ID)
		if !ok || !f.Record.Members[n.ID].Fenced || !n.Host.Reachable || !spec.FailoverAllowed || f.Policy.Rejoin != cluster.Automatic {
			continue
		}
		return Decision{Action: cluster.Rejoin, Node: n.ID,
			Reason: fmt.Sprintf("%s is a former primary whose host answers: it returns as a standby of %s", n.ID, f.primary.ID)}, true
	}
	return Decision{}, false
}

func oldPrimaryAway(f facts) (Decision, bool) {
	for _, n := range f.others {
		spec, ok := f.Policy.Node(n.ID)
		if !ok || !f.Record.Members[n.ID].Fenced {
			continue
		}
		why := "; the policy leaves its return to a person"
		switch {
		case !n.Host.Reachable:
			why = " and its host does not answer over ssh"
		case !spec.FailoverAllowed:
			why = " and may not be touched (allow_failover = false)"
		}
		return Decision{Level: cluster.Warn, Reason: fmt.Sprintf("%s is a former primary%s", n.ID, why)}, true
	}
	return Decision{}, false
}

func notFollowing(f facts) (Decision, bool) {
	for _, n := range f.others {
		if !n.Up() || n.Role != cluster.RoleStandby || f.Record.Members[n.ID].Fenced || f.Policy.Rejoin != cluster.Automatic {
			continue
		}
		if n.Receiver == nil && n.Conninfo == "" {
			return Decision{Action: cluster.Rejoin, Node: n.ID,
				Reason: fmt.Sprintf("%s is a standby without a primary_conninfo: it follows %s", n.ID, f.primary.ID)}, true
		}
		if n.Receiver != nil && f.Record.Members[n.ID].Promised > f.Record.Term {
			return Decision{Action: cluster.Rejoin, Node: n.ID,
				Reason: fmt.Sprintf("%s receives again although it promised not to: its promise is taken back", n.ID)}, true
		}
		spec, _ := f.Policy.Node(n.ID)
		if old := followsFormer(f, n); old != "" && spec.FailoverAllowed {
			return Decision{Action: cluster.Rejoin, Node: n.ID,
				Reason: fmt.Sprintf("%s is told to follow %s, a former primary: it follows %s", n.ID, old, f.primary.ID)}, true
		}
	}
	return Decision{}, false
}

var conninfoWord = regexp.MustCompile(`(?:^|\s)(host|port)\s*=\s*'?([^'\s]+)'?`)

// followsFormer names the former primary that a standby's primary_conninfo
// points at; "" where it points elsewhere, as at a standby on purpose.
func followsFormer(f facts, n cluster.NodeFacts) cluster.NodeID {
	var host, port string
	for _, m := range conninfoWord.FindAllStringSubmatch(n.Conninfo, -1) {
		if m[1] == "host" {
			host = m[2]
		} else {
			port = m[2]
		}
	}
	for _, h := range f.Record.History {
		old, ok := f.Policy.Node(h.Node)
		if ok && old.ID != f.primary.ID && old.ID != n.ID && old.Host == host && fmt.Sprint(old.Port) == port {
			return old.ID
		}
	}
	return ""
}

// CatchUpBytes is how close a returning standby must be before commits wait
// for it: one WAL segment, so that turning to sync costs no long pause.
const CatchUpBytes = 16 << 20

func standbyBack(f facts) (Decision, bool) {
	if f.Record.WantMode == cluster.ModeAsync || commitsAreLocal(f.primary) {
		return Decision{}, false
	}
	back, target := returning(f)
	if back == "" || len(target.Members) < target.K {
		return Decision{}, false
	}
	return Decision{Action: cluster.Restore, Node: back, Target: target,
		Reason: fmt.Sprintf("%s streams from %s again: commits wait for it", back, f.primary.ID)}, true
}

// returning finds a standby that could become eligible, and the sync set that
// all close standbys would make, in the order of the configuration, which is
// the order of priority.
func returning(f facts) (back cluster.NodeID, target cluster.SyncSet) {
	target = cluster.SyncSet{Method: f.Policy.SyncMethod, K: f.Policy.SyncK}
	for _, n := range f.others {
		m := f.Record.Members[n.ID]
		if !streams(f, n) || m.Fenced {
			continue
		}
		row, _ := f.primary.SenderTo(n.ID)
		if !m.Eligible && row.FlushLSN.Behind(f.primary.FlushLSN) > CatchUpBytes {
			continue
		}
		target.Members = append(target.Members, n.ID)
		if !m.Eligible && back == "" {
			back = n.ID
		}
	}
	return back, target
}

// streams: it is up, and the primary has exactly one sender with its name that
// is past catching up.
func streams(f facts, n cluster.NodeFacts) bool {
	row, ok := f.primary.SenderTo(n.ID)
	return ok && row.State == "streaming" && n.Up() && n.Role == cluster.RoleStandby &&
		n.SystemIdentifier == f.Record.SystemIdentifier
}

func catchingUp(f facts) (Decision, bool) {
	if f.Record.WantMode == cluster.ModeAsync || commitsAreLocal(f.primary) {
		return Decision{}, false
	}
	for _, n := range f.others {
		row, ok := f.primary.SenderTo(n.ID)
		if !ok || f.Record.Members[n.ID].Eligible || !n.Up() {
			continue
		}
		return Decision{Level: cluster.Warn,
			Reason: fmt.Sprintf("%s is catching up (%s): %d bytes behind", n.ID, row.State, row.FlushLSN.Behind(f.primary.FlushLSN))}, true
	}
	return Decision{}, false
}

func asyncByHand(f facts) (Decision, bool) {
	return Decision{Level: cluster.Warn,
		Reason: "async was asked for: if the primary dies now, commits that no standby has are lost, so nothing would be promoted"}, f.Record.WantMode == cluster.ModeAsync
}

func unprotected(f facts) (Decision, bool) {
	if len(running(f).Members) > 0 {
		return Decision{}, false
	}
	if commitsAreLocal(f.primary) {
		return Decision{Level: cluster.Warn, Reason: fmt.Sprintf("synchronous_commit on %s is %s: no commit waits for a standby", f.primary.ID, f.primary.SynchronousCommit)}, true
	}
	return Decision{Level: cluster.Warn, Reason: fmt.Sprintf("%s runs alone: no standby confirms its commits", f.primary.ID)}, true
}

func allIsWell(f facts) (Decision, bool) {
	return Decision{Reason: fmt.Sprintf("every commit on %s waits for %s", f.primary.ID, f.primary.SyncStandbyNames)}, true
}

// RestoreTarget is the sync set that the standbys which stream now would make.
func RestoreTarget(in Input) cluster.SyncSet {
	mem := in.Memory.Clone()
	_, target := returning(gather(in, &mem))
	return target
}
