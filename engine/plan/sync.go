package plan

import (
	"fmt"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
)

// ineligible records that nodes may lack acknowledged commits from now on, each
// with its own reason where there is one.
func (b *builder) ineligible(nodes []cluster.NodeID, why string, each map[cluster.NodeID]string) {
	if len(nodes) == 0 {
		return
	}
	args := map[string]string{"nodes": join(nodes), "reason": why}
	for _, n := range nodes {
		if r, ok := each[n]; ok && r != why {
			args[ReasonOf(n)] = r
		}
	}
	b.add(Step{Kind: RecordIneligible, Title: fmt.Sprintf("record that %s is not eligible", join(nodes)), Args: args,
		Post: "the record is on disk: it will not be promoted", Deadline: 5 * time.Second, Expect: 3 * time.Millisecond})
}

// ReasonOf is the argument of a RecordIneligible with a node's own reason.
func ReasonOf(n cluster.NodeID) string { return "reason:" + string(n) }

// syncSet changes what a primary waits for. Its postcondition is of the running
// server: the value, taken up by the checkpointer, which publishes it to the
// backends, and by every walsender, which is what releases a commit.
func (b *builder) syncSet(p cluster.NodeID, set cluster.SyncSet) {
	names := decide.FormatSyncNames(set)
	cmd := fmt.Sprintf("ALTER SYSTEM SET synchronous_standby_names = '%s'; SELECT pg_reload_conf()", names)
	if b.in.Policy.SwapMethod == cluster.SwapFiles {
		cmd = fmt.Sprintf("postgresql.conf.%s -> postgresql.conf (write beside, fsync, rename); reload", modeOf(set))
	}
	b.add(Step{Kind: SyncSet, Node: p, Title: fmt.Sprintf("turn %s to %s", p, describe(set)), Command: cmd, Args: setArgs(set),
		Post: fmt.Sprintf("the running server says synchronous_standby_names = %q", names), Deadline: 10 * time.Second, Expect: 20 * time.Millisecond})
}

func (b *builder) syncCheck(set cluster.SyncSet) {
	p := b.in.Record.Primary
	b.add(Step{Kind: SyncCheck, Node: p, Title: fmt.Sprintf("see that the configuration of %s may be swapped", p), Args: setArgs(set),
		Post: "nobody has edited what would be written over", Deadline: 5 * time.Second, Expect: 10 * time.Millisecond})
}

func (b *builder) barrier(set cluster.SyncSet, title string) {
	b.add(Step{Kind: SyncBarrier, Node: b.in.Record.Primary, Title: title, Args: map[string]string{"nodes": join(set.Members), "k": fmt.Sprint(set.K)},
		Command: "SELECT pg_current_wal_flush_lsn(); SELECT flush_lsn FROM pg_stat_replication",
		Post:    "their flush_lsn has reached the primary's, read after the setting", Deadline: 15 * time.Second, Expect: 20 * time.Millisecond})
}

// degrade stops waiting for standbys. The record comes first: emptying
// synchronous_standby_names wakes every waiting commit, so the change of the
// setting is itself an acknowledgement.
//
// Where a smaller set goes on confirming, the record asks for the promises of
// the wider one until the smaller is proved, and the order is what makes every
// moment between safe. Let (V, k) be the recorded set and (W, j) the one it
// shrinks to, W within V and j at most k.
//
//   - Until the setting is in force, commits are acknowledged by k of V, and a
//     walsender that has not read it yet goes on releasing them so: a promotion
//     must find n-k+1 promises of V, which meet every k of V.
//   - While some walsenders have read it and others have not, a commit is
//     acknowledged by k of V or by j of W, so by j of V at the least. Where j
//     is smaller than k, n-k+1 promises would not meet them; so then (V, j) is
//     recorded before the setting changes, and n-j+1 promises are asked for.
//   - Those who leave are not eligible from the first step on. They still give
//     promises, and one of them that holds more than the others keeps them from
//     being promoted: it may be the only one with the last commits.
//   - Then the setting is seen in the server, in its checkpointer and in every
//     walsender, and only then is a position read that j of W must confirm.
//     What anybody acknowledged before lies below it, and what comes after
//     needs j of W.
//   - Only now is (W, j) recorded: every acknowledged commit is on j of W, so m-j+1
//     promises of its m members meet it. Those who left are not asked any more.
//
// A primary that dies between the first and the last of these is not replaced
// while one who left is silent, unless enough of V promise. That is the price
// of not guessing, and lasts as long as the barrier does.
func (b *builder) degrade(d decide.Decision) {
	out := b.leaving(d.Target)
	for _, m := range d.Target.Members {
		if _, named := d.Why[m]; named {
			out = append(out, m)
		}
	}
	if !d.InForce {
		b.syncCheck(d.Target)
	}
	b.ineligible(out, b.p.Reason, d.Why)
	p, was := b.in.Record.Primary, b.in.Record.SyncSet
	if len(d.Target.Members) > 0 && d.Target.K < was.K {
		b.widen(cluster.SyncSet{Method: was.Method, K: d.Target.K, Members: was.Members})
	}
	b.syncSet(p, d.Target)
	if len(d.Target.Members) > 0 {
		b.barrier(d.Target, fmt.Sprintf("%s confirm everything acknowledged before", join(d.Target.Members)))
	}
	b.recordSet(d.Target)
}

// leaving are the nodes that no longer are waited for.
func (b *builder) leaving(target cluster.SyncSet) []cluster.NodeID {
	var out []cluster.NodeID
	for _, n := range b.in.Policy.Nodes {
		if n.ID != b.in.Record.Primary && !slices.Contains(target.Members, n.ID) {
			out = append(out, n.ID)
		}
	}
	return out
}

func (b *builder) recordSet(set cluster.SyncSet) {
	args := setArgs(set)
	b.add(Step{Kind: RecordSyncSet, Title: fmt.Sprintf("record that the mode is %s", args["mode"]), Args: args,
		Post: "the record is on disk", Deadline: 5 * time.Second, Expect: 3 * time.Millisecond})
}

// widen records a set that asks for more promises than the one before, while
// the mode stays what it is.
func (b *builder) widen(set cluster.SyncSet) {
	args := setArgs(set)
	args["mode"] = string(b.in.Record.Mode)
	who := join(set.Members)
	if set.K < len(set.Members) {
		who = fmt.Sprintf("%d of %s", set.K, who)
	}
	b.add(Step{Kind: RecordSyncSet, Title: fmt.Sprintf("record that commits will wait for %s", who), Args: args,
		Post: "the record is on disk", Deadline: 5 * time.Second, Expect: 3 * time.Millisecond})
}

func (b *builder) want(m cluster.Mode) {
	b.add(Step{Kind: RecordWant, Title: fmt.Sprintf("record that %s is wanted", m), Args: map[string]string{"mode": string(m)},
		Post: "the record is on disk", Deadline: 5 * time.Second})
}

// restore takes standbys in. A set that covers the old and the new one is
// recorded first: all members of both, of whom no more must confirm than of the
// one that asks for less. Every k of either is as many of it, so the promises
// that it asks for meet whatever the old setting, the new one, or a walsender
// between the two lets through. Then comes the setting, then the wait, and
// eligibility last.
func (b *builder) restore(target cluster.SyncSet) {
	union := target
	for _, m := range b.in.Record.SyncSet.Members {
		if !slices.Contains(union.Members, m) {
			union.Members = append(slices.Clone(union.Members), m)
		}
	}
	if r := b.in.Record.SyncSet; len(r.Members) > 0 {
		union.K = min(union.K, r.K)
	}
	b.syncCheck(target)
	out := slices.DeleteFunc(b.leaving(target), func(n cluster.NodeID) bool { return !b.in.Record.Members[n].Eligible })
	b.ineligible(out, b.p.Reason, nil)
	b.widen(union)
	b.syncSet(b.in.Record.Primary, target)
	all := target
	all.K = len(target.Members)
	b.barrier(all, fmt.Sprintf("%s confirms everything the primary has flushed", join(target.Members)))
	b.add(Step{Kind: RecordEligible, Title: fmt.Sprintf("record that %s is eligible", join(target.Members)), Args: setArgs(target),
		Post: "the record is on disk", Deadline: 5 * time.Second, Expect: 3 * time.Millisecond})
}

func modeOf(set cluster.SyncSet) cluster.Mode {
	if len(set.Members) == 0 {
		return cluster.ModeAsync
	}
	return cluster.ModeSync
}

func setArgs(set cluster.SyncSet) map[string]string {
	return map[string]string{"names": decide.FormatSyncNames(set), "mode": string(modeOf(set)), "nodes": join(set.Members)}
}

func describe(set cluster.SyncSet) string {
	if len(set.Members) == 0 {
		return "async: commits wait for nobody"
	}
	return "sync: commits wait for " + decide.FormatSyncNames(set)
}
