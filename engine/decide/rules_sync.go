package decide

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// without is the set after some members are gone. The rest confirm as before
// where they still make K; where they do not, the policy says whether as many
// as there are go on confirming, and in the end nobody.
func (f *facts) without(s cluster.SyncSet, gone func(cluster.NodeID) bool) (rest cluster.SyncSet, enough bool) {
	rest = cluster.SyncSet{Method: s.Method, K: s.K}
	for _, m := range s.Members {
		if !gone(m) {
			rest.Members = append(rest.Members, m)
		}
	}
	enough = len(rest.Members) > 0 && len(rest.Members) >= s.K
	if len(rest.Members) == 0 {
		return cluster.SyncSet{}, false
	}
	rest.K = min(rest.K, len(rest.Members))
	return rest, enough
}

// goOn says in words what commits wait for afterwards.
func goOn(was, target cluster.SyncSet) string {
	switch {
	case len(target.Members) == 0:
		return "commits go on without a standby"
	case target.K < was.K:
		return fmt.Sprintf("commits wait for %d instead of %d standbys", target.K, was.K)
	}
	return "the other standbys go on confirming"
}

// standbyLost shrinks the set. A strict policy keeps commits waiting where too
// few are left, and not where the rest make as many as before.
func standbyLost(f *facts) (Decision, bool) {
	now := running(f)
	target, enough := f.without(now, f.isAbsent)
	if len(f.absent) == 0 || f.Policy.Degrade != cluster.DegradeAsync && !enough || f.bound(target) {
		return Decision{}, false
	}
	l := f.absent[0]
	d := Decision{Action: cluster.Degrade, Node: l.ID, Target: target, Was: now, Level: cluster.Warn, Why: map[cluster.NodeID]string{}}
	var others []string
	for i, a := range f.absent {
		// It is recorded with the node, which may be back when it is read.
		d.Why[a.ID] = fmt.Sprintf("%s was lost (%s); %s", a.ID, a.why, goOn(now, target))
		if i > 0 {
			others = append(others, fmt.Sprintf("%s (%s)", a.ID, a.why))
		}
	}
	d.Reason = d.Why[l.ID]
	if len(others) > 0 {
		d.Reason += "; so were " + strings.Join(others, ", ")
	}
	return d, true
}

func (f *facts) isAbsent(id cluster.NodeID) bool {
	return slices.ContainsFunc(f.absent, func(l lostStandby) bool { return l.ID == id })
}

// bound: the recipe's files know one sync set and none, so what is left of it
// cannot be put in force. PostgreSQL goes on with those that are left by
// itself, and the record goes on asking for the promises of all.
func (f *facts) bound(target cluster.SyncSet) bool {
	return f.Policy.SwapMethod == cluster.SwapFiles && len(target.Members) > 0
}

func standbyLostStrict(f *facts) (Decision, bool) {
	now := running(f)
	if len(f.absent) == 0 || len(now.Members) == 0 {
		return Decision{}, false
	}
	l := f.absent[0]
	d := Decision{Level: cluster.Error,
		Reason: fmt.Sprintf("%s is lost (%s); the policy is strict: commits wait until a standby is back", l.ID, l.why)}
	if target, enough := f.without(now, f.isAbsent); enough && f.bound(target) {
		d.Level = cluster.Warn
		d.Reason = fmt.Sprintf("%s is lost (%s); the others go on confirming, but postgresql.conf.sync names it still, so nothing could be promoted without it", l.ID, l.why)
	}
	return d, true
}

// nameClaimedTwice: PostgreSQL takes a confirmation from whoever has the name,
// so the standby may lack what the other has confirmed. That is known at once,
// and no patience makes it better.
func nameClaimedTwice(f *facts) (Decision, bool) {
	now := running(f)
	for _, c := range f.claimed {
		if !c.two() || !f.counted(c.id) {
			continue
		}
		target, enough := f.without(now, func(id cluster.NodeID) bool { return id == c.id })
		if f.Policy.Degrade != cluster.DegradeAsync && !enough || f.bound(target) {
			target = now // commits go on waiting; that they do proves nothing
		}
		if SameSet(target, now) && !f.Record.Members[c.id].Eligible {
			continue
		}
		why := fmt.Sprintf("%s: what was confirmed under it may be on either; %s", c.why, goOn(now, target))
		return Decision{Action: cluster.Degrade, Node: c.id, Target: target, Was: now, InForce: SameSet(target, now), Level: cluster.Error, Reason: why, Why: map[cluster.NodeID]string{c.id: why}}, true
	}
	return Decision{}, false
}

// settingChanged compares what the primary has in force with what is recorded.
// Somebody who is eligible and no longer waited for may lack the next commit.
// Somebody who is waited for and not recorded, or fewer who suffice, may make a
// commit acknowledged of which the promises that a promotion would count know
// nothing. Either way what is in force is recorded, so that what is counted is
// what was waited for.
func settingChanged(f *facts) (Decision, bool) {
	now := running(f)
	d := Decision{Action: cluster.Degrade, Target: now, Was: f.Record.SyncSet, InForce: true, Level: cluster.Warn, Why: map[cluster.NodeID]string{}}
	for _, n := range f.others {
		m := f.Record.Members[n.ID]
		if !m.Eligible || slices.Contains(now.Members, n.ID) || !after(f.primary.LastOK, m.Since, f.now) {
			continue // the last: what was seen is older than what is recorded
		}
		why := fmt.Sprintf("synchronous_standby_names on %s is %q (%s), so commits no longer wait for %s", f.primary.ID, f.primary.SyncStandbyNames, f.primary.SyncNamesSource, n.ID)
		if commitsAreLocal(f.primary) {
			why = fmt.Sprintf("synchronous_commit on %s is %s, so commits do not wait for %s", f.primary.ID, f.primary.SynchronousCommit, n.ID)
		}
		d.Why[n.ID] = why
		if d.Node == "" {
			d.Node, d.Reason = n.ID, why
		}
	}
	if d.Node == "" && len(now.Members) > 0 && !covers(f.Record.SyncSet, now) && f.Record.Mode == cluster.ModeSync && after(f.primary.LastOK, f.Record.SyncSince, f.now) {
		d.Node = now.Members[0]
		d.Reason = fmt.Sprintf("synchronous_standby_names on %s is %q (%s), recorded is %q: what is in force is recorded, because it says who may have confirmed a commit",
			f.primary.ID, f.primary.SyncStandbyNames, f.primary.SyncNamesSource, FormatSyncNames(f.Record.SyncSet))
	}
	if can := f.possible(now); d.Node != "" && len(can.Members) < now.K {
		if f.Policy.Degrade != cluster.DegradeAsync {
			return d, len(d.Why) > 0 // the rest is for the standbys that come back
		}
		can.K = len(can.Members)
		d.Target, d.InForce = can, false
		d.Reason += "; it names fewer servers than must confirm, so commits would wait for ever"
	}
	return d, d.Node != ""
}

// possible is the part of a set that configured standbys could make.
func (f *facts) possible(set cluster.SyncSet) cluster.SyncSet {
	can := cluster.SyncSet{Method: set.Method, K: set.K}
	for _, n := range f.others {
		if _, ok := f.Policy.Node(n.ID); ok && slices.Contains(set.Members, n.ID) {
			can.Members = append(can.Members, n.ID)
		}
	}
	return can
}

// covers says whether every commit that the set in force lets through is one
// that the promises counted for the recorded set would find: all who can
// confirm are in it, and no fewer of them must.
func covers(recorded, inForce cluster.SyncSet) bool {
	return inForce.K >= recorded.K && !slices.ContainsFunc(inForce.Members, func(m cluster.NodeID) bool { return !slices.Contains(recorded.Members, m) })
}

func standbySuspected(f *facts) (Decision, bool) {
	if len(f.waiting) == 0 {
		return Decision{}, false
	}
	l := f.waiting[0]
	return Decision{Level: cluster.Warn, Reason: fmt.Sprintf("%s is suspected: %s", l.ID, l.why)}, true
}

// asyncIsOver ends an async that a person asked for. A moment that was recorded
// before the clock was set back lies in the future; then it counts from when
// this daemon first saw it.
func asyncIsOver(f *facts) (Decision, bool) {
	limit := f.Policy.AsyncLimit
	if f.Record.WantMode != cluster.ModeAsync || limit <= 0 {
		return Decision{}, false
	}
	lasted := f.now.Sub(f.Memory.AsyncSince)
	if since := f.Record.WantSince; !since.IsZero() && !since.After(f.now) {
		lasted = max(lasted, f.now.Sub(since))
	}
	if lasted < limit {
		return Decision{}, false
	}
	return Decision{Action: cluster.SetMode, Mode: cluster.ModeSync, Level: cluster.Info,
		Reason: fmt.Sprintf("async was asked for and has lasted %s: its limit is reached, and sync is wanted again", limit)}, true
}

func asyncByHand(f *facts) (Decision, bool) {
	d := Decision{Level: cluster.Warn,
		Reason: "async was asked for: if the primary dies now, commits that no standby has are lost, so nothing would be promoted"}
	if f.Policy.AsyncLimit > 0 {
		d.Reason += fmt.Sprintf("; it ends by itself after %s", f.Policy.AsyncLimit)
	}
	return d, f.Record.WantMode == cluster.ModeAsync
}

func unprotected(f *facts) (Decision, bool) {
	if len(running(f).Members) > 0 {
		return Decision{}, false
	}
	if commitsAreLocal(f.primary) {
		return Decision{Level: cluster.Warn, Reason: fmt.Sprintf("synchronous_commit on %s is %s: no commit waits for a standby", f.primary.ID, f.primary.SynchronousCommit)}, true
	}
	return Decision{Level: cluster.Warn, Reason: fmt.Sprintf("%s runs alone: no standby confirms its commits", f.primary.ID) + cascaded(f)}, true
}

func fewerThanWanted(f *facts) (Decision, bool) {
	now := running(f)
	return Decision{Level: cluster.Warn, Reason: fmt.Sprintf("commits on %s wait for %d of %d standbys, and the policy wants %d", f.primary.ID, now.K, len(now.Members), f.Policy.SyncK) + cascaded(f)},
		now.K < f.Policy.SyncK
}

// RestoreTarget is the sync set that the standbys which stream now would make.
func RestoreTarget(in Input) cluster.SyncSet {
	mem := in.Memory.Clone()
	_, target := returning(gather(in, &mem))
	return target
}
