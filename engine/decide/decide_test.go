package decide_test

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const system = 7000000000000000001

// healthy is a pair in sync: pgsql1 leads term 1, pgsql2 confirms its commits.
func healthy() decide.Input {
	p := cluster.Policy{
		Cluster: "pair", Failover: cluster.Automatic, Rejoin: cluster.Automatic, Degrade: cluster.DegradeAsync,
		SyncK: 1, SyncMethod: "FIRST", CheckPeriod: time.Second, CheckTimeout: 2 * time.Second, CheckRetries: 3,
		Nodes: []cluster.Node{{ID: "pgsql1", FailoverAllowed: true, Weight: 1}, {ID: "pgsql2", FailoverAllowed: true, Weight: 1}},
	}
	up := func(id cluster.NodeID, role cluster.Role) cluster.NodeFacts {
		return cluster.NodeFacts{ID: id, Reach: cluster.ReachOK, ReachSince: epoch, LastTry: epoch, LastOK: epoch, Role: role,
			SystemIdentifier: system, Timeline: 1, StartedAt: epoch,
			Host: cluster.HostFacts{Reachable: true, LastTry: epoch, LastOK: epoch, Postmaster: cluster.PostmasterRunning}}
	}
	one, two := up("pgsql1", cluster.RolePrimary), up("pgsql2", cluster.RoleStandby)
	one.FlushLSN, one.SyncStandbyNames = 1000, `FIRST 1 ("pgsql2")`
	one.Senders = []cluster.Sender{{ApplicationName: "pgsql2", State: "streaming", SyncState: "sync", SyncPriority: 1, FlushLSN: 1000}}
	two.ReceiveLSN, two.ReplayLSN, two.Conninfo = 1000, 1000, "host=pgsql1"
	two.Receiver = &cluster.Receiver{Status: "streaming", ReceivedTLI: 1, LastMsgReceipt: epoch}
	return decide.Input{
		Snapshot: cluster.Snapshot{Now: epoch, Nodes: []cluster.NodeFacts{one, two}}, Policy: p, GateOpen: true,
		Record: cluster.Record{Revision: 9, Cluster: "pair", SystemIdentifier: system, Term: 1, Primary: "pgsql1", Timeline: 1,
			Mode: cluster.ModeSync, WantMode: cluster.ModeSync,
			SyncSet: cluster.SyncSet{Method: "FIRST", K: 1, Members: []cluster.NodeID{"pgsql2"}},
			Members: map[cluster.NodeID]cluster.Member{"pgsql1": {Eligible: true}, "pgsql2": {Eligible: true}},
			History: []cluster.HistoryEntry{{SystemIdentifier: system, Timeline: 1, Node: "pgsql1", Term: 1}}},
	}
}

// The words of the stories below.
type change func(*decide.Input)

func node(in *decide.Input, id cluster.NodeID) *cluster.NodeFacts {
	for i := range in.Snapshot.Nodes {
		if in.Snapshot.Nodes[i].ID == id {
			return &in.Snapshot.Nodes[i]
		}
	}
	panic("no node " + string(id))
}

func down(id cluster.NodeID, r cluster.Reach, failures int) change {
	return func(in *decide.Input) {
		n := node(in, id)
		n.Reach, n.Failures, n.ReachSince = r, failures, epoch
		n.Host.Reachable, n.Host.Postmaster = false, cluster.PostmasterUnknown
		unlink(id)(in)
	}
}

func unlink(id cluster.NodeID) change {
	return func(in *decide.Input) {
		for i := range in.Snapshot.Nodes {
			n := &in.Snapshot.Nodes[i]
			var keep []cluster.Sender
			for _, s := range n.Senders {
				if s.ApplicationName != string(id) {
					keep = append(keep, s)
				}
			}
			n.Senders = keep
		}
	}
}

func stopped(id cluster.NodeID) change {
	return func(in *decide.Input) {
		down(id, cluster.ReachRefused, 1)(in)
		n := node(in, id)
		n.Host.Reachable, n.Host.Postmaster, n.Host.LastTry = true, cluster.PostmasterStopped, epoch
	}
}

func later(d time.Duration) change {
	return func(in *decide.Input) { in.Snapshot.Now = in.Snapshot.Now.Add(d) }
}

// watched lets time pass while the world stays as it is, deciding as often as
// the daemon does, and gives the last decision.
func watched(in *decide.Input, d time.Duration) decide.Decision {
	const tick = 100 * time.Millisecond
	got, mem, _ := decide.Decide(*in)
	for in.Memory = mem; d > 0; d -= tick {
		later(tick)(in)
		for i := range in.Snapshot.Nodes {
			n := &in.Snapshot.Nodes[i]
			if n.Up() {
				n.LastTry, n.LastOK = in.Snapshot.Now, in.Snapshot.Now
			}
			if n.SyncWaiters > 0 {
				n.OldestWait += tick
			}
		}
		got, in.Memory, _ = decide.Decide(*in)
	}
	return got
}

func ineligible(id cluster.NodeID, why string) change {
	return func(in *decide.Input) { in.Record.Members[id] = cluster.Member{Reason: why} }
}

func async(in *decide.Input) {
	node(in, "pgsql1").SyncStandbyNames = ""
	in.Record.Mode, in.Record.SyncSet = cluster.ModeAsync, cluster.SyncSet{}
	ineligible("pgsql2", "pgsql2 is lost")(in)
}

// promisedAt: the node promised for the next term and held so much.
func promisedAt(id cluster.NodeID, at cluster.LSN, eligible bool) change {
	return func(in *decide.Input) {
		in.Record.Members[id] = cluster.Member{Eligible: eligible, Promised: in.Record.Term + 1, PromisedLSN: at, Reason: "it is being taken in"}
		n := node(in, id)
		n.Receiver, n.Conninfo = nil, ""
	}
}

// two standbys must confirm.
func two(in *decide.Input) {
	in.Record.SyncSet.K, in.Policy.SyncK, node(in, "pgsql1").SyncStandbyNames = 2, 2, `FIRST 2 ("pgsql2", "pgsql3")`
}

func fenced(id cluster.NodeID) change {
	return func(in *decide.Input) {
		in.Record.Members[id] = cluster.Member{Fenced: true, Reason: "a former primary"}
	}
}

func set(f func(*decide.Input)) change { return f }

// four has two more standbys like the first.
func four(in *decide.Input) {
	for _, id := range []cluster.NodeID{"pgsql3", "pgsql4"} {
		n := *node(in, "pgsql2")
		n.ID = id
		in.Snapshot.Nodes = append(in.Snapshot.Nodes, n)
		in.Policy.Nodes = append(in.Policy.Nodes, cluster.Node{ID: id, FailoverAllowed: true, Weight: 1})
		in.Record.SyncSet.Members = append(in.Record.SyncSet.Members, id)
		in.Record.Members[id] = cluster.Member{Eligible: true}
	}
}

// three has a third node like the second.
func three(in *decide.Input) {
	four(in)
	in.Snapshot.Nodes, in.Policy.Nodes = in.Snapshot.Nodes[:3], in.Policy.Nodes[:3]
	in.Record.SyncSet.Members = in.Record.SyncSet.Members[:2]
	delete(in.Record.Members, "pgsql4")
	one := node(in, "pgsql1")
	row := one.Senders[0]
	row.ApplicationName = "pgsql3"
	one.Senders = append(one.Senders, row)
	one.SyncStandbyNames = `FIRST 1 ("pgsql2", "pgsql3")`
}

// silentStandby: the path from us to the standby is broken, and no other.
func silentStandby(in *decide.Input) {
	senders := node(in, "pgsql1").Senders
	down("pgsql2", cluster.ReachTimeout, 9)(in)
	node(in, "pgsql1").Senders = senders
}

// unrecorded: pgsql2 was promoted by us, and the record was never written.
func unrecorded(in *decide.Input) {
	n := node(in, "pgsql2")
	n.Role, n.Timeline, n.Receiver, n.Conninfo, n.FlushLSN = cluster.RolePrimary, 2, nil, "", 1200
	in.Record.Members["pgsql2"] = cluster.Member{Eligible: true, Promised: 2, PromisedLSN: 1000}
}

func TestDecide(t *testing.T) {
	for _, tt := range []struct {
		story  string
		world  []change
		rule   int
		action cluster.Action
		node   cluster.NodeID
		closed bool
		says   string
	}{
		{story: "all is well", rule: 99, says: `waits for FIRST 1 ("pgsql2")`},
		{story: "maintenance: nothing is done although the primary is gone", world: []change{stopped("pgsql1"), set(func(in *decide.Input) { in.Record.Maintenance = true })}, rule: 1},

		{story: "nothing is recorded and one node takes writes: adopt it", world: []change{set(func(in *decide.Input) { in.Record = cluster.Record{} })},
			rule: 10, action: cluster.Adopt, node: "pgsql1", closed: true},
		{story: "nothing is recorded and two nodes take writes: wait for a person", world: []change{set(func(in *decide.Input) { in.Record = cluster.Record{}; node(in, "pgsql2").Role = cluster.RolePrimary })},
			rule: 10, closed: true, says: "2 nodes take writes"},
		{story: "nothing is recorded and the other node is another system", world: []change{set(func(in *decide.Input) { in.Record = cluster.Record{}; node(in, "pgsql2").SystemIdentifier = 5 })},
			rule: 10, closed: true, says: "different database systems"},
		{story: "nothing is recorded and of the other node nothing is known: it may be the real primary", world: []change{set(func(in *decide.Input) { in.Record = cluster.Record{} }), down("pgsql2", cluster.ReachTimeout, 9)},
			rule: 10, closed: true, says: "nothing is known of pgsql2"},
		{story: "nothing is recorded and the other node runs and does not answer: it may be the real primary", world: []change{set(func(in *decide.Input) { in.Record = cluster.Record{} }), down("pgsql2", cluster.ReachTimeout, 9),
			set(func(in *decide.Input) { node(in, "pgsql2").Host = node(in, "pgsql1").Host })}, rule: 10, closed: true, says: "nothing is known of pgsql2"},

		{story: "the primary was stopped and its host proves it: promote at once, without retries", world: []change{stopped("pgsql1")},
			rule: 31, action: cluster.Promote, node: "pgsql2", closed: true},
		{story: "the primary refuses connections and ssh is silent: not enough for a promotion, but clients are held", world: []change{down("pgsql1", cluster.ReachRefused, 1)},
			rule: 35, closed: true},
		{story: "the same, three times: lost", world: []change{down("pgsql1", cluster.ReachRefused, 3)}, rule: 31, action: cluster.Promote, node: "pgsql2", closed: true},
		{story: "one timeout under load: clients are not even held", world: []change{down("pgsql1", cluster.ReachTimeout, 1)}, rule: 35},
		{story: "three timeouts: lost", world: []change{down("pgsql1", cluster.ReachTimeout, 3)}, rule: 31, action: cluster.Promote, node: "pgsql2", closed: true},
		{story: "evidence from before the silence began proves nothing", world: []change{stopped("pgsql1"), set(func(in *decide.Input) { node(in, "pgsql1").Host.LastTry = epoch.Add(-time.Second) })},
			rule: 35, closed: true},
		{story: "it answers and refuses our password: that is not death", world: []change{down("pgsql1", cluster.ReachRejected, 2)}, rule: 35},
		{story: "it restarts in place: clients are held, nothing is promoted", world: []change{down("pgsql1", cluster.ReachStarting, 1)}, rule: 34, closed: true},
		{story: "we cannot reach it and its standby can: our path is broken", world: []change{down("pgsql1", cluster.ReachTimeout, 9), later(20 * time.Second),
			set(func(in *decide.Input) { node(in, "pgsql2").Receiver.LastMsgReceipt = epoch.Add(10 * time.Second) })}, rule: 30, closed: true, says: "nothing is promoted"},
		{story: "the standby is not eligible: nothing is promoted, and the loss is told in bytes", world: []change{async, stopped("pgsql1"), set(func(in *decide.Input) { node(in, "pgsql1").FlushLSN = 5096 })},
			rule: 33, closed: true, says: "at least 4096 bytes"},
		{story: "both are gone: nothing is promoted", world: []change{stopped("pgsql1"), stopped("pgsql2")}, rule: 33, closed: true, says: "it does not answer"},
		{story: "of three standbys two answer: the third may alone hold what was acknowledged last", world: []change{four, stopped("pgsql1"), stopped("pgsql3")},
			rule: 33, closed: true, says: "pgsql2 is not promoted (pgsql3 does not answer and may hold commits that the others lack)"},
		{story: "the third promised before it went silent", world: []change{four, stopped("pgsql1"), stopped("pgsql3"), set(func(in *decide.Input) { in.Record.Members["pgsql3"] = cluster.Member{Eligible: true, Promised: 2} })},
			rule: 31, action: cluster.Promote, node: "pgsql2", closed: true},
		{story: "two must confirm, and one of three is silent: every commit is on a standby that answers", world: []change{four, stopped("pgsql1"), stopped("pgsql3"), set(func(in *decide.Input) { in.Record.SyncSet.K = 2 })},
			rule: 31, action: cluster.Promote, node: "pgsql2", closed: true},
		{story: "the policy is manual", world: []change{stopped("pgsql1"), set(func(in *decide.Input) { in.Policy.Failover = cluster.Manual })}, rule: 32, closed: true, says: "promote pgsql2 by hand"},
		{story: "the standby may not be failed over to", world: []change{stopped("pgsql1"), set(func(in *decide.Input) { in.Policy.Nodes[1].FailoverAllowed = false })}, rule: 33, closed: true},
		{story: "the policy promotes a standby that is behind, and says what is lost", world: []change{async, stopped("pgsql1"), set(func(in *decide.Input) { in.Policy.UnsafePromote = true; node(in, "pgsql1").FlushLSN = 2000 })},
			rule: 31, action: cluster.Promote, node: "pgsql2", closed: true, says: "up to 1000 bytes"},
		{story: "the standby left the recorded history", world: []change{stopped("pgsql1"), set(func(in *decide.Input) { node(in, "pgsql2").Timeline = 4 })}, rule: 33, closed: true},
		{story: "a switchover stopped the primary, then the standby died: start the primary again", world: []change{stopped("pgsql1"), stopped("pgsql2"), set(func(in *decide.Input) { in.Record.Stopping = "pgsql1" })},
			rule: 38, action: cluster.Restart, node: "pgsql1", closed: true},

		{story: "an old primary was started by hand: it is stopped before it harms", world: []change{fenced("pgsql2"), set(func(in *decide.Input) { node(in, "pgsql2").Role = cluster.RolePrimary })},
			rule: 20, action: cluster.Fence, node: "pgsql2"},
		{story: "somebody promoted the standby while the primary is gone: a person must choose", world: []change{stopped("pgsql1"), set(func(in *decide.Input) { node(in, "pgsql2").Role = cluster.RolePrimary })},
			rule: 21, closed: true},
		{story: "we promoted the standby and could not record it: it is gone on with", world: []change{stopped("pgsql1"), unrecorded}, rule: 31, action: cluster.Promote, node: "pgsql2", closed: true},
		{story: "the same, and the primary is back: what we promoted served nobody and is stopped", world: []change{unrecorded}, rule: 20, action: cluster.Fence, node: "pgsql2"},
		{story: "the same, and the primary is suspected: clients are held", world: []change{down("pgsql1", cluster.ReachRefused, 1), unrecorded}, rule: 35, closed: true},
		{story: "the same, of a standby that has followed since it promised", world: []change{stopped("pgsql1"), unrecorded, set(func(in *decide.Input) { in.Record.Members["pgsql2"] = cluster.Member{Eligible: true} })}, rule: 21, closed: true},
		{story: "the address answers with another system", world: []change{set(func(in *decide.Input) { node(in, "pgsql1").SystemIdentifier = 5 })}, rule: 12, closed: true},
		{story: "the primary was turned into a standby behind our back", world: []change{set(func(in *decide.Input) { node(in, "pgsql1").Role = cluster.RoleStandby })}, rule: 36, closed: true},
		{story: "the primary is on a timeline that nobody recorded", world: []change{set(func(in *decide.Input) { node(in, "pgsql1").Timeline = 2 })}, rule: 37, closed: true},

		{story: "a standby was made to receive again by hand after it had promised", world: []change{set(func(in *decide.Input) { in.Record.Members["pgsql2"] = cluster.Member{Eligible: true, Promised: 2} })},
			rule: 71, action: cluster.Rejoin, node: "pgsql2", says: "taken back"},
		{story: "the standby was stopped: degrade at once", world: []change{stopped("pgsql2")}, rule: 50, action: cluster.Degrade, node: "pgsql2"},
		{story: "the standby is silent once: wait", world: []change{down("pgsql2", cluster.ReachTimeout, 1)}, rule: 61},
		{story: "the standby is silent three times: degrade", world: []change{down("pgsql2", cluster.ReachTimeout, 3)}, rule: 50, action: cluster.Degrade, node: "pgsql2"},
		{story: "the standby is stopped and the policy is strict: commits wait", world: []change{stopped("pgsql2"), set(func(in *decide.Input) { in.Policy.Degrade = cluster.DegradeNever })}, rule: 51},
		{story: "we do not reach the standby, and it confirms commits: it stays", world: []change{silentStandby}, rule: 61, says: "the primary streams to it"},
		{story: "we do not reach the standby, and commits wait for it: degrade", world: []change{silentStandby, set(func(in *decide.Input) {
			node(in, "pgsql1").SyncWaiters, node(in, "pgsql1").OldestWait = 1, 2*time.Second
		})},
			rule: 50, action: cluster.Degrade, node: "pgsql2"},
		{story: "the standby lives and its replication does not: patience first", world: []change{unlink("pgsql2")}, rule: 61},
		{story: "two servers claim its name: neither counts", world: []change{set(func(in *decide.Input) {
			n := node(in, "pgsql1")
			n.Senders = append(n.Senders, n.Senders[0])
		})}, rule: 61},
		{story: "somebody emptied the setting: the standby is no longer eligible", world: []change{set(func(in *decide.Input) { node(in, "pgsql1").SyncStandbyNames = "" })},
			rule: 52, action: cluster.Degrade, node: "pgsql2"},

		{story: "commits are local by default: the names mean nothing, and no standby is eligible", world: []change{set(func(in *decide.Input) { node(in, "pgsql1").SynchronousCommit = "off" })},
			rule: 52, action: cluster.Degrade, node: "pgsql2", says: "synchronous_commit on pgsql1 is off"},
		{story: "commits are local by default: the standby does not become eligible", world: []change{async, set(func(in *decide.Input) { node(in, "pgsql1").SynchronousCommit = "local" })},
			rule: 91, says: "no commit waits for a standby"},
		{story: "the primary is healthy and the gate is closed", world: []change{set(func(in *decide.Input) { in.GateOpen = false })}, rule: 60, action: cluster.Reopen, node: "pgsql1"},
		{story: "a former primary's host answers: bring it back", world: []change{fenced("pgsql2"), async, fenced("pgsql2"), stopped("pgsql2")}, rule: 70, action: cluster.Rejoin, node: "pgsql2"},
		{story: "the same, by hand", world: []change{async, fenced("pgsql2"), stopped("pgsql2"), set(func(in *decide.Input) { in.Policy.Rejoin = cluster.Manual })}, rule: 72},
		{story: "one former primary is away for good: the other standbys are not kept from coming back", world: []change{three, fenced("pgsql2"), down("pgsql2", cluster.ReachTimeout, 9), set(func(in *decide.Input) {
			node(in, "pgsql1").SyncStandbyNames = ""
			in.Record.Mode, in.Record.SyncSet = cluster.ModeAsync, cluster.SyncSet{}
		}), ineligible("pgsql3", "it has not confirmed the new primary's position yet")}, rule: 80, action: cluster.Restore, node: "pgsql3"},
		{story: "a standby was told to follow the former primary: it follows the new one", world: []change{three, fenced("pgsql2"), down("pgsql2", cluster.ReachTimeout, 9), unlink("pgsql3"), set(func(in *decide.Input) {
			node(in, "pgsql1").SyncStandbyNames = ""
			in.Record.Mode, in.Record.SyncSet = cluster.ModeAsync, cluster.SyncSet{}
			in.Record.Term, in.Record.Timeline, node(in, "pgsql1").Timeline = 2, 2, 2
			in.Record.History = []cluster.HistoryEntry{{SystemIdentifier: system, Timeline: 1, Node: "pgsql2", Term: 1}, {SystemIdentifier: system, Timeline: 2, SwitchLSN: 1000, Node: "pgsql1", Term: 2}}
			in.Policy.Nodes[1].Host, in.Policy.Nodes[1].Port = "two", 5433
			n := node(in, "pgsql3")
			n.Receiver, n.Conninfo = nil, "host=two port=5433 user=replication application_name=pgsql3"
		}), ineligible("pgsql3", "it has not confirmed the new primary's position yet")}, rule: 71, action: cluster.Rejoin, node: "pgsql3", says: "told to follow pgsql2"},
		{story: "a former primary could be brought back, and a standby that streams is not waited for yet: it comes first", world: []change{three, stopped("pgsql2"), fenced("pgsql2"), set(func(in *decide.Input) {
			node(in, "pgsql1").SyncStandbyNames = ""
			in.Record.Mode, in.Record.SyncSet = cluster.ModeAsync, cluster.SyncSet{}
		}), ineligible("pgsql3", "it has not confirmed the new primary's position yet")}, rule: 80, action: cluster.Restore, node: "pgsql3"},
		{story: "the same, and another standby confirms commits already: the former primary is brought back", world: []change{four, stopped("pgsql2"), fenced("pgsql2"), set(func(in *decide.Input) {
			p := node(in, "pgsql1")
			p.SyncStandbyNames = `FIRST 1 ("pgsql3")`
			p.Senders = []cluster.Sender{{ApplicationName: "pgsql3", State: "streaming", FlushLSN: 1000}, {ApplicationName: "pgsql4", State: "streaming", FlushLSN: 1000}}
			in.Record.SyncSet.Members = []cluster.NodeID{"pgsql3"}
		}), ineligible("pgsql4", "it is back")}, rule: 70, action: cluster.Rejoin, node: "pgsql2"},

		{story: "both standbys promised, and the second holds more: it is promoted, whatever its position seems to be now", world: []change{three, stopped("pgsql1"), promisedAt("pgsql2", 1000, true), promisedAt("pgsql3", 1400, true)},
			rule: 31, action: cluster.Promote, node: "pgsql3", closed: true},
		{story: "the same, and the one that holds more was just being taken in", world: []change{three, stopped("pgsql1"), promisedAt("pgsql2", 1000, true), promisedAt("pgsql3", 1400, false)},
			rule: 31, action: cluster.Promote, node: "pgsql3", closed: true},
		{story: "the same, and it promised nothing: what it holds beyond the other may be nobody's", world: []change{three, stopped("pgsql1"), promisedAt("pgsql2", 1000, true), ineligible("pgsql3", "it is catching up")},
			rule: 31, action: cluster.Promote, node: "pgsql2", closed: true},
		{story: "the one that holds more promised and is gone: nothing is promoted in its place", world: []change{three, stopped("pgsql1"), promisedAt("pgsql2", 1000, true), promisedAt("pgsql3", 1400, true), stopped("pgsql3")},
			rule: 33, closed: true, says: "pgsql3 is not promoted (it does not answer)"},
		{story: "the one that holds more may not be promoted", world: []change{three, stopped("pgsql1"), promisedAt("pgsql2", 1000, true), promisedAt("pgsql3", 1400, true), set(func(in *decide.Input) { in.Policy.Nodes[2].FailoverAllowed = false })},
			rule: 33, closed: true, says: "allow_failover = false"},
		{story: "both hold the same: the heavier one", world: []change{three, stopped("pgsql1"), set(func(in *decide.Input) { in.Policy.Nodes[2].Weight = 5 })}, rule: 31, action: cluster.Promote, node: "pgsql3", closed: true},
		{story: "the lighter one holds more: weight decides among equals only", world: []change{three, stopped("pgsql1"), set(func(in *decide.Input) { in.Policy.Nodes[2].Weight = 5; node(in, "pgsql2").ReceiveLSN = 1001 })},
			rule: 31, action: cluster.Promote, node: "pgsql2", closed: true},
		{story: "one was promoted by us and not recorded: no other is promoted, whatever it weighs", world: []change{three, stopped("pgsql1"), unrecorded, promisedAt("pgsql3", 1000, true), set(func(in *decide.Input) { in.Policy.Nodes[2].Weight = 5 })},
			rule: 31, action: cluster.Promote, node: "pgsql2", closed: true},
		{story: "two must confirm and one of two is lost: one goes on confirming", world: []change{three, two, stopped("pgsql3")}, rule: 50, action: cluster.Degrade, node: "pgsql3", says: "commits wait for 1 instead of 2 standbys"},
		{story: "two must confirm, one is there: it confirms rather than nobody", world: []change{three, two, async, stopped("pgsql3"), ineligible("pgsql3", "it was lost")}, rule: 80, action: cluster.Restore, node: "pgsql2"},
		{story: "the same, strict: commits wait", world: []change{three, two, stopped("pgsql3"), set(func(in *decide.Input) { in.Policy.Degrade = cluster.DegradeNever })}, rule: 51},
		{story: "strict, and the others are enough: the set shrinks and nobody waits", world: []change{three, stopped("pgsql3"), set(func(in *decide.Input) { in.Policy.Degrade = cluster.DegradeNever })}, rule: 50, action: cluster.Degrade, node: "pgsql3"},
		{story: "both standbys are lost at once, each for its own reason", world: []change{three, stopped("pgsql2"), down("pgsql3", cluster.ReachTimeout, 3)}, rule: 50, action: cluster.Degrade, node: "pgsql2", says: "so were pgsql3 (3 failed checks, the last: connection timeout)"},
		{story: "fewer confirm than wanted, and nobody else is there", world: []change{three, unlink("pgsql3"), ineligible("pgsql3", "it was lost"), set(func(in *decide.Input) {
			node(in, "pgsql1").SyncStandbyNames = `FIRST 1 ("pgsql2")`
			in.Record.SyncSet.Members, in.Policy.SyncK = []cluster.NodeID{"pgsql2"}, 2
		})}, rule: 92, says: "the policy wants 2"},
		{story: "a standby streams from another standby: it is seen and never counted", world: []change{three, unlink("pgsql3"), ineligible("pgsql3", "it follows pgsql2"), set(func(in *decide.Input) {
			node(in, "pgsql1").SyncStandbyNames = `FIRST 1 ("pgsql2")`
			in.Record.SyncSet.Members = []cluster.NodeID{"pgsql2"}
			in.Policy.Nodes[1].Host, in.Policy.Nodes[1].Port = "two", 5433
			node(in, "pgsql3").Conninfo = "host=two port=5433 application_name=pgsql3"
		})}, rule: 99, says: "pgsql3 streams from pgsql2 and is never counted"},
		{story: "somebody demoted the primary and promoted the standby: neither is stopped, a person must choose", world: []change{set(func(in *decide.Input) {
			node(in, "pgsql1").Role = cluster.RoleStandby
			n := node(in, "pgsql2")
			n.Role, n.Timeline = cluster.RolePrimary, 2
		})}, rule: 21, closed: true, says: "takes no writes"},
		{story: "a fenced node takes writes and cannot be stopped: the promotion does not wait for it", world: []change{three, stopped("pgsql1"), fenced("pgsql3"), set(func(in *decide.Input) {
			node(in, "pgsql3").Role = cluster.RolePrimary
			in.Record.SyncSet.Members = []cluster.NodeID{"pgsql2"}
			in.Memory = in.Memory.Failed(cluster.Fence, "pgsql3", epoch)
		})}, rule: 31, action: cluster.Promote, node: "pgsql2", closed: true},
		{story: "the policy promotes what is behind, and the one there is of another system", world: []change{async, stopped("pgsql1"), set(func(in *decide.Input) { in.Policy.UnsafePromote = true; node(in, "pgsql2").SystemIdentifier = 5 })}, rule: 33, closed: true},
		{story: "maintenance says what is not done", world: []change{stopped("pgsql1"), set(func(in *decide.Input) { in.Record.Maintenance = true })}, rule: 1, says: "without maintenance rule 31 (primary lost) would hold: promote pgsql2"},
		{story: "what was seen before the sync set was recorded does not speak against it", world: []change{set(func(in *decide.Input) {
			in.Record.SyncSet.K, in.Record.SyncSince = 2, epoch
		})}, rule: 99},
		{story: "the clock was set back since a standby was recorded eligible: an emptied setting is seen all the same", world: []change{set(func(in *decide.Input) {
			in.Record.Members["pgsql2"] = cluster.Member{Eligible: true, Since: epoch.Add(time.Hour)}
			node(in, "pgsql1").SyncStandbyNames = ""
		})}, rule: 52, action: cluster.Degrade, node: "pgsql2"},
		{story: "a standby whose WAL is gone, while the primary is not well, is not touched", world: []change{async, stopped("pgsql1"), set(func(in *decide.Input) { node(in, "pgsql1").OldestWAL = 5000 })}, rule: 33, closed: true},
		{story: "recipe's files, one of two standbys is lost: the file names both, so the record goes on asking for both", world: []change{three, stopped("pgsql3"), set(func(in *decide.Input) { in.Policy.SwapMethod = cluster.SwapFiles })}, rule: 51, says: "the others go on confirming"},
		{story: "a standby has no data directory: it is copied", world: []change{async, stopped("pgsql2"), set(func(in *decide.Input) {
			n := node(in, "pgsql2")
			n.Host.Postmaster, n.Failures = cluster.PostmasterAbsent, 3
		})},
			rule: 77, action: cluster.Rejoin, node: "pgsql2"},
		{story: "the same, seen once: its file system may be mounted late", world: []change{async, stopped("pgsql2"), set(func(in *decide.Input) { node(in, "pgsql2").Host.Postmaster = cluster.PostmasterAbsent })}, rule: 91},
		{story: "the same, by hand", world: []change{async, stopped("pgsql2"), set(func(in *decide.Input) {
			n := node(in, "pgsql2")
			n.Host.Postmaster, n.Failures, in.Policy.Rejoin = cluster.PostmasterAbsent, 3, cluster.Manual
		})}, rule: 91},
		{story: "a stopped standby is somebody's decision: it is not started", world: []change{async, stopped("pgsql2")}, rule: 91},
		{story: "the standby promised and was not promoted: it follows again", world: []change{async, unlink("pgsql2"), set(func(in *decide.Input) { n := node(in, "pgsql2"); n.Receiver, n.Conninfo = nil, "" })},
			rule: 71, action: cluster.Rejoin, node: "pgsql2"},
		{story: "the standby streams again: sync", world: []change{async}, rule: 80, action: cluster.Restore, node: "pgsql2"},
		{story: "the standby streams and is far behind: not yet", world: []change{async, set(func(in *decide.Input) { node(in, "pgsql1").FlushLSN = 1 << 30 })}, rule: 81},
		{story: "a person asked for async: the standby stays out", world: []change{async, set(func(in *decide.Input) { in.Record.WantMode = cluster.ModeAsync })}, rule: 90},
	} {
		t.Run(tt.story, func(t *testing.T) {
			in := healthy()
			for _, c := range tt.world {
				c(&in)
			}
			before := fmt.Sprintf("%+v", in)
			d, _, _ := decide.Decide(in)
			if d.Rule != tt.rule || d.Action != tt.action || d.Node != tt.node && tt.action != "" || d.CloseGate != tt.closed {
				t.Errorf("rule %d (%s), action %q on %q, gate closed %v: %s\nwant rule %d, action %q on %q, gate closed %v",
					d.Rule, d.Name, d.Action, d.Node, d.CloseGate, d.Reason, tt.rule, tt.action, tt.node, tt.closed)
			}
			if !strings.Contains(d.Reason, tt.says) {
				t.Errorf("reason %q does not say %q", d.Reason, tt.says)
			}
			if after := fmt.Sprintf("%+v", in); after != before {
				t.Errorf("the input was changed:\n%s\n%s", before, after)
			}
		})
	}
}

func TestReplicationMissingTooLongIsLoss(t *testing.T) {
	in := healthy()
	unlink("pgsql2")(&in)
	if d := watched(&in, 4*time.Second); d.Rule != 50 {
		t.Errorf("rule %d (%s), want 50: commits have waited for a standby without a sender for 4 s", d.Rule, d.Reason)
	}
}

func TestCatchingUpTooLongIsLoss(t *testing.T) {
	in := healthy()
	node(&in, "pgsql1").Senders[0].State = "catchup"
	if d := watched(&in, 0); d.Rule != 61 {
		t.Errorf("rule %d (%s), want 61: it has just begun", d.Rule, d.Reason)
	}
	if d := watched(&in, 4*time.Second); d.Rule != 50 {
		t.Errorf("rule %d (%s), want 50: commits have waited for 4 s for a standby that confirms nothing", d.Rule, d.Reason)
	}
}

// What failed and is tried again later must not keep the rest from being done.
func TestWhatWaitsForItsNextAttemptHoldsUpNothing(t *testing.T) {
	promised := func(in *decide.Input) {
		unlink("pgsql2")(in)
		n := node(in, "pgsql2")
		n.Receiver, n.Conninfo = nil, ""
		in.Memory.SenderMissing = map[cluster.NodeID]time.Time{"pgsql2": epoch.Add(-time.Minute)}
	}
	closed := set(func(in *decide.Input) { in.GateOpen = false })
	strict := set(func(in *decide.Input) { in.Policy.Degrade = cluster.DegradeNever })
	for _, tt := range []struct {
		story  string
		world  []change
		failed decide.Attempt
		rule   int
		action cluster.Action
	}{
		{"an old primary cannot be stopped, and the gate is closed", []change{closed, set(func(in *decide.Input) { node(in, "pgsql2").Role = cluster.RolePrimary }), fenced("pgsql2"), async, fenced("pgsql2")},
			decide.Attempt{Action: cluster.Fence, Node: "pgsql2"}, 60, cluster.Reopen},
		{"an old primary cannot be stopped, and nothing else is to be done", []change{set(func(in *decide.Input) { node(in, "pgsql2").Role = cluster.RolePrimary }), async, fenced("pgsql2"), set(func(in *decide.Input) { in.Policy.Rejoin = cluster.Manual })},
			decide.Attempt{Action: cluster.Fence, Node: "pgsql2"}, 20, ""},
		{"strict: the only standby promised, and the gate does not open before it follows", []change{closed, strict, promised}, decide.Attempt{Action: cluster.Reopen, Node: "pgsql1"}, 71, cluster.Rejoin},
		{"strict: the same with the gate open", []change{strict, promised}, decide.Attempt{}, 71, cluster.Rejoin},
		{"strict: one of two standbys is gone and the gate is closed", []change{closed, strict, three, two, stopped("pgsql3")}, decide.Attempt{}, 60, cluster.Reopen},
		{"a promotion failed: clients are held, and nothing else is begun", []change{stopped("pgsql1"), set(func(in *decide.Input) { in.Record.Stopping = "pgsql1" })},
			decide.Attempt{Action: cluster.Promote, Node: "pgsql2"}, 31, ""},
	} {
		t.Run(tt.story, func(t *testing.T) {
			in := healthy()
			for _, c := range tt.world {
				c(&in)
			}
			in.Memory = in.Memory.Failed(tt.failed.Action, tt.failed.Node, epoch)
			if d, _, _ := decide.Decide(in); d.Rule != tt.rule || d.Action != tt.action {
				t.Errorf("rule %d (%s), action %q: %s\nwant rule %d, action %q", d.Rule, d.Name, d.Action, d.Reason, tt.rule, tt.action)
			}
		})
	}
}

// A node that does not come back by what differs is copied whole in the end.
func TestTheThirdReturnIsACopy(t *testing.T) {
	in := healthy()
	async(&in)
	stopped("pgsql2")(&in)
	fenced("pgsql2")(&in)
	for failed := range 3 {
		if d, _, _ := decide.Decide(in); d.Rule != 70 || d.Clone != (failed >= 2) {
			t.Errorf("after %d failures: rule %d, clone %v", failed, d.Rule, d.Clone)
		}
		in.Memory = in.Memory.Failed(cluster.Rejoin, "pgsql2", epoch.Add(-time.Minute))
	}
}

func TestFailedActionIsNotRepeatedAtOnce(t *testing.T) {
	in := healthy()
	stopped("pgsql1")(&in)
	in.Memory = decide.Memory{}.Failed(cluster.Promote, "pgsql2", epoch)
	d, _, _ := decide.Decide(in)
	if d.Acts() || !d.CloseGate {
		t.Errorf("action %q, gate closed %v: want clients held and no second attempt within a second", d.Action, d.CloseGate)
	}
	later(time.Second)(&in)
	if d, _, _ := decide.Decide(in); d.Action != cluster.Promote {
		t.Errorf("action %q after the pause, want promote", d.Action)
	}
}

func TestIfDies(t *testing.T) {
	for _, tt := range []struct {
		story string
		world []change
		node  cluster.NodeID
		says  string
	}{
		{"in sync, the primary", nil, "pgsql1", "pgsql2 is promoted, nothing acknowledged is lost"},
		{"in sync, the standby", nil, "pgsql2", "writes go on in async"},
		{"async, the primary", []change{async}, "pgsql1", "nothing is promoted"},
		{"three standbys of which one is silent, the primary", []change{four, down("pgsql3", cluster.ReachTimeout, 1)}, "pgsql1", "nothing is promoted"},
		{"two standbys, one of them", []change{three}, "pgsql3", "the other standbys go on confirming"},
		{"two standbys, the primary", []change{three}, "pgsql1", "pgsql2 is promoted, nothing acknowledged is lost"},
		{"two must confirm, one of them", []change{three, two}, "pgsql2", "commits wait for 1 instead of 2 standbys"},
		{"the primary is gone already, the standby", []change{stopped("pgsql1")}, "pgsql2", "nothing is promoted and clients are held"},
		{"the primary is gone already, one of two that both may hold the last commit", []change{three, stopped("pgsql1")}, "pgsql2", "nothing is promoted and clients are held"},
		{"the primary is gone already, one of two that both must confirm", []change{three, two, stopped("pgsql1")}, "pgsql2", "pgsql3 is promoted, nothing acknowledged is lost"},
		{"a standby that no commit waits for", []change{three, ineligible("pgsql3", "it was lost"), set(func(in *decide.Input) {
			node(in, "pgsql1").SyncStandbyNames = `FIRST 1 ("pgsql2")`
			in.Record.SyncSet.Members = []cluster.NodeID{"pgsql2"}
		})}, "pgsql3", "nothing changes: no commit waits for it"},
		{"maintenance", []change{set(func(in *decide.Input) { in.Record.Maintenance = true })}, "pgsql1", "maintenance: the engine watches and does nothing"},
		{"a former primary that is not back yet", []change{async, fenced("pgsql2"), stopped("pgsql2")}, "pgsql2", "nothing changes"},
		{"strict, the standby", []change{set(func(in *decide.Input) { in.Policy.Degrade = cluster.DegradeNever })}, "pgsql2", "commits wait until a standby is back"},
	} {
		t.Run(tt.story, func(t *testing.T) {
			in := healthy()
			for _, c := range tt.world {
				c(&in)
			}
			if s := decide.Sentence(tt.node, decide.IfDies(in, tt.node)); strings.Count(s, tt.says) != 1 || strings.HasPrefix(s, "maintenance: maintenance") {
				t.Errorf("%q does not say %q once", s, tt.says)
			}
		})
	}
}

func TestSyncNames(t *testing.T) {
	for in, want := range map[string]cluster.SyncSet{
		"":                       {},
		"pgsql2":                 {Method: "FIRST", K: 1, Members: []cluster.NodeID{"pgsql2"}},
		"a, b":                   {Method: "FIRST", K: 1, Members: []cluster.NodeID{"a", "b"}},
		`FIRST 1 ("pgsql2")`:     {Method: "FIRST", K: 1, Members: []cluster.NodeID{"pgsql2"}},
		`any 2 (s1, "s""2", s3)`: {Method: "ANY", K: 2, Members: []cluster.NodeID{"s1", `s"2`, "s3"}},
		"2 (s1, s2)":             {Method: "FIRST", K: 2, Members: []cluster.NodeID{"s1", "s2"}},
	} {
		got := decide.ParseSyncNames(in)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("ParseSyncNames(%q) = %+v, want %+v", in, got, want)
		}
		if again := decide.ParseSyncNames(decide.FormatSyncNames(got)); !decide.SameSet(again, got) {
			t.Errorf("%q does not survive a round trip: %+v", in, again)
		}
	}
}

// The table is read by people; a change of it should be read as one.
func TestRuleTable(t *testing.T) {
	var b strings.Builder
	seen := map[int]bool{}
	for _, r := range decide.Rules() {
		if seen[r.Number] {
			t.Errorf("rule number %d stands twice", r.Number)
		}
		seen[r.Number] = true
		fmt.Fprintf(&b, "%2d  %-28s %s\n", r.Number, r.Name, r.Text)
	}
	const golden = "testdata/rules.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("the table differs from %s (go test -update rewrites it):\n%s", golden, b.String())
	}
}
