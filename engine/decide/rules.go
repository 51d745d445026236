package decide

import (
	"fmt"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// Rule is one row of the table.
type Rule struct {
	Number int
	Name   string
	// Text says in one sentence what the rule is for, for the console's help
	// and the table's golden dump.
	Text string
	When func(*facts) (Decision, bool)
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
		{40, "broken path, promote", "only a standby still hears from the primary, for twice the usual time: the standbys promise to take no more from it, and one is promoted", brokenPathPromote},
		{30, "broken path", "the primary does not answer us, but a standby still hears from it: our path is broken, not the primary", brokenPath},
		{31, "primary lost", "the primary is gone and an eligible standby holds every acknowledged commit: promote it", primaryLost},
		{38, "primary stopped by us", "a switchover stopped the primary and got no further: start it again", primaryStoppedByUs},
		{32, "primary lost, by hand", "the primary is gone and the policy leaves the promotion to a person", primaryLostManual},
		{33, "primary lost, none eligible", "the primary is gone and no reachable standby is known to hold every acknowledged commit: nothing is promoted", primaryLostNoCandidate},
		{34, "primary restarting", "the primary says that it is starting up or shutting down: clients are held", primaryRestarting},
		{35, "primary suspected", "the primary did not answer, not often enough to be called lost", primarySuspected},
		{36, "primary in recovery", "the recorded primary is a standby now: somebody changed it behind our back", primaryInRecovery},
		{37, "primary left history", "the primary is on a timeline that was not recorded: it does not serve", primaryLeftHistory},
		{41, "primary lost WAL", "a standby holds WAL of the recorded timeline that the primary lacks: it does not serve, and a person must choose", primaryLostWAL},
		{39, "primary restarted", "the primary began anew since the gate was opened: it is closed until the standbys have confirmed what it shows", primaryRestarted},
		{53, "name claimed twice", "two servers claim the name of a standby that commits wait for: either may have confirmed, so it is not eligible", nameClaimedTwice},
		{50, "standby lost", "a standby that commits wait for is gone: recorded ineligible, then the primary stops waiting for it", standbyLost},
		{52, "setting changed", "what commits wait for was changed behind our back: what it says is recorded, and who left it is not eligible", settingChanged},
		{60, "gate closed", "the primary is healthy and the gate is closed: open it", gateClosed},
		{61, "standby suspected", "a standby that commits wait for did not answer, not often enough to be called lost", standbySuspected},
		{71, "standby not following", "a standby was told to stop receiving, or to follow a former primary: it follows the primary again", notFollowing},
		{74, "slot missing", "a standby does not use its replication slot, or the primary has lost it, or a standby keeps slots from when it was the primary", slotMissing},
		{75, "WAL gone", "a standby needs WAL that the primary no longer has: it is copied anew", walGone},
		{77, "standby empty", "a standby's host says that it has no data directory: it is copied from the primary", standbyEmpty},
		{73, "another history", "a standby's history is not the recorded one: it never counts, and is rewound or copied", anotherHistory},
		{70, "old primary back", "a former primary's host answers: it is rewound or cloned and follows", oldPrimaryBack},
		{82, "async by hand is over", "an async that a person asked for has reached its limit: sync is wanted again", asyncIsOver},
		{80, "standby back", "a standby streams again: commits wait for it, and it is eligible once it has confirmed all", standbyBack},
		{51, "standby lost, strict", "a standby that commits wait for is gone and the policy lets them wait", standbyLostStrict},
		{81, "standby catching up", "a standby is back and not close enough yet, or not for long enough", catchingUp},
		{72, "old primary away", "a former primary cannot be brought back, or not without a person", oldPrimaryAway},
		{76, "standby cannot follow", "a standby could only follow after a change that the engine must not make by itself", cannotFollow},
		{63, "name claimed", "two replication connections claim the name of a standby: it is not taken into the sync set", nameClaimed},
		{64, "replay lags", "a standby confirms commits and replays them late, or its replay is paused: a promotion would have to wait for it", replayLags},
		{90, "async by hand", "a person asked for async: nothing waits for a standby, none is eligible", asyncByHand},
		{91, "unprotected", "the primary runs alone", unprotected},
		{92, "fewer than wanted", "fewer standbys confirm a commit than the policy wants", fewerThanWanted},
		{99, "all is well", "every commit is on the standbys it waits for", allIsWell},
	}
}

// maintenance says honestly what is not done because of it.
func maintenance(f *facts) (Decision, bool) {
	if !f.Record.Maintenance {
		return Decision{}, false
	}
	d := Decision{Reason: "the engine watches and does nothing", Level: cluster.Warn}
	without := *f
	without.Record.Maintenance = false
	would, _ := judge(&without)
	if f.known && f.lost != present {
		d.Level = would.Level
		d.Reason += fmt.Sprintf("; %s does not answer (%s)", f.primary.ID, f.lostWhy)
	}
	if would.Acts() || would.CloseGate {
		d.LossBytes = would.LossBytes
		d.Reason += fmt.Sprintf("; without maintenance rule %d (%s) would hold", would.Rule, would.Name)
		if would.Acts() {
			d.Reason += fmt.Sprintf(": %s %s", would.Action, would.Node)
		}
	}
	return d, true
}

func notAdopted(f *facts) (Decision, bool) {
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

func notConfigured(f *facts) (Decision, bool) {
	return Decision{CloseGate: true, Level: cluster.Error,
		Reason: fmt.Sprintf("the recorded primary %s is not in the configuration: put it back, or remove the state to adopt anew", f.Record.Primary)}, !f.known
}

func allIsWell(f *facts) (Decision, bool) {
	return Decision{Reason: fmt.Sprintf("every commit on %s waits for %s", f.primary.ID, f.primary.SyncStandbyNames) + cascaded(f)}, true
}
