package plan_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/engine/plan"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// pair is in sync: pgsql1 leads term 1, pgsql2 confirms its commits.
func pair() decide.Input {
	host := cluster.HostFacts{Reachable: true, LastTry: epoch, Postmaster: cluster.PostmasterRunning}
	one := cluster.NodeFacts{ID: "pgsql1", Reach: cluster.ReachOK, Role: cluster.RolePrimary, SystemIdentifier: 7, Timeline: 1,
		FlushLSN: 1000, SyncStandbyNames: `FIRST 1 ("pgsql2")`, Host: host,
		Senders: []cluster.Sender{{ApplicationName: "pgsql2", State: "streaming", SyncState: "sync", SyncPriority: 1, FlushLSN: 1000}}}
	two := cluster.NodeFacts{ID: "pgsql2", Reach: cluster.ReachOK, Role: cluster.RoleStandby, SystemIdentifier: 7, Timeline: 1,
		ReceiveLSN: 1000, ReplayLSN: 1000, Conninfo: "host=one", Receiver: &cluster.Receiver{Status: "streaming"}, Host: host}
	node := func(id cluster.NodeID, port int) cluster.Node {
		return cluster.Node{ID: id, Host: "127.0.0.1", Port: port, SSHHost: string(id), FailoverAllowed: true, DataDirectory: "/data/" + string(id)}
	}
	return decide.Input{
		Snapshot: cluster.Snapshot{Now: epoch, Nodes: []cluster.NodeFacts{one, two}}, GateOpen: true,
		Policy: cluster.Policy{Cluster: "pair", Failover: cluster.Automatic, Rejoin: cluster.Automatic, Degrade: cluster.DegradeAsync,
			SwapMethod: cluster.SwapAlterSystem, SyncK: 1, SyncMethod: "FIRST", CheckPeriod: time.Second, CheckRetries: 3, DrainLimit: 5 * time.Second,
			Nodes: []cluster.Node{node("pgsql1", 5432), node("pgsql2", 5433)}},
		Record: cluster.Record{Term: 1, Primary: "pgsql1", Timeline: 1, SystemIdentifier: 7, Mode: cluster.ModeSync, WantMode: cluster.ModeSync,
			SyncSet: cluster.SyncSet{Method: "FIRST", K: 1, Members: []cluster.NodeID{"pgsql2"}},
			Members: map[cluster.NodeID]cluster.Member{"pgsql1": {Eligible: true}, "pgsql2": {Eligible: true}},
			History: []cluster.HistoryEntry{{SystemIdentifier: 7, Timeline: 1, Node: "pgsql1", Term: 1}}},
	}
}

func degraded() decide.Input {
	in := pair()
	in.Snapshot.Nodes[0].SyncStandbyNames = ""
	in.Record.Mode, in.Record.SyncSet = cluster.ModeAsync, cluster.SyncSet{}
	in.Record.Members["pgsql2"] = cluster.Member{Reason: "pgsql2 was lost"}
	return in
}

// three3 has a third node that confirms commits as the second does; any one of
// the two is enough.
func three3() decide.Input {
	in := pair()
	in.Policy.Nodes = append(in.Policy.Nodes, cluster.Node{ID: "pgsql3", FailoverAllowed: true})
	third := in.Snapshot.Nodes[1]
	third.ID = "pgsql3"
	in.Snapshot.Nodes = append(in.Snapshot.Nodes, third)
	in.Record.SyncSet.Members = []cluster.NodeID{"pgsql2", "pgsql3"}
	in.Record.Members["pgsql3"] = cluster.Member{Eligible: true}
	one := &in.Snapshot.Nodes[0]
	one.SyncStandbyNames = `FIRST 1 ("pgsql2", "pgsql3")`
	row := one.Senders[0]
	row.ApplicationName = "pgsql3"
	one.Senders = append(one.Senders, row)
	return in
}

func text(p plan.Plan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s\nconfirm: %q\n", p.Action, p.Node, p.Mode, p.Confirm)
	for _, e := range p.Effects {
		fmt.Fprintf(&b, "effect: %s\n", e)
	}
	for _, w := range p.Warn {
		fmt.Fprintf(&b, "warning: %s\n", w)
	}
	for _, s := range p.Steps {
		opt := ""
		if s.Optional {
			opt = " (may fail)"
		}
		fmt.Fprintf(&b, "%s: %s%s\n", s.ID, s.Title, opt)
		if s.Command != "" {
			fmt.Fprintf(&b, "    $ %s\n", s.Command)
		}
		fmt.Fprintf(&b, "    then: %s; within %s\n", s.Post, s.Deadline)
	}
	return b.String()
}

// Each golden file is a plan as a person would be shown it; the order of its
// steps is the contract.
func TestPlans(t *testing.T) {
	files := pair()
	files.Policy.SwapMethod = cluster.SwapFiles
	three := pair()
	three.Policy.Nodes = append(three.Policy.Nodes, cluster.Node{ID: "pgsql3", FailoverAllowed: true})
	three.Record.SyncSet.Members = []cluster.NodeID{"pgsql2", "pgsql3"}
	for _, tt := range []struct {
		name string
		make func() (plan.Plan, error)
	}{
		{"primary-lost", func() (plan.Plan, error) {
			return plan.FromDecision(decide.Decision{Rule: 31, Action: cluster.Promote, Node: "pgsql2", Reason: "pgsql1 is lost"}, pair())
		}},
		{"standby-lost", func() (plan.Plan, error) {
			return plan.FromDecision(decide.Decision{Rule: 50, Action: cluster.Degrade, Node: "pgsql2", Reason: "pgsql2 is lost"}, pair())
		}},
		{"standby-lost-files", func() (plan.Plan, error) {
			return plan.FromDecision(decide.Decision{Rule: 50, Action: cluster.Degrade, Node: "pgsql2", Reason: "pgsql2 is lost"}, files)
		}},
		{"one-of-two-standbys-lost", func() (plan.Plan, error) {
			return plan.FromDecision(decide.Decision{Rule: 50, Action: cluster.Degrade, Node: "pgsql2", Reason: "pgsql2 is lost",
				Target: cluster.SyncSet{Method: "FIRST", K: 1, Members: []cluster.NodeID{"pgsql3"}}}, three)
		}},
		{"two-of-three-standbys-lost-two-must-confirm", func() (plan.Plan, error) {
			in := pair()
			in.Policy.Nodes = append(in.Policy.Nodes, cluster.Node{ID: "pgsql3", FailoverAllowed: true}, cluster.Node{ID: "pgsql4", FailoverAllowed: true})
			in.Record.SyncSet = cluster.SyncSet{Method: "ANY", K: 2, Members: []cluster.NodeID{"pgsql2", "pgsql3", "pgsql4"}}
			return plan.FromDecision(decide.Decision{Rule: 50, Action: cluster.Degrade, Node: "pgsql3", Reason: "pgsql3 was stopped",
				Why:    map[cluster.NodeID]string{"pgsql3": "pgsql3 was stopped", "pgsql4": "pgsql4 is silent"},
				Target: cluster.SyncSet{Method: "ANY", K: 1, Members: []cluster.NodeID{"pgsql2"}}}, in)
		}},
		{"setting-changed", func() (plan.Plan, error) {
			return plan.FromDecision(decide.Decision{Rule: 52, Action: cluster.Degrade, Node: "pgsql2", Reason: "somebody emptied it", InForce: true}, files)
		}},
		{"name-claimed-twice-strict", func() (plan.Plan, error) {
			in := pair()
			return plan.FromDecision(decide.Decision{Rule: 53, Action: cluster.Degrade, Node: "pgsql2", Reason: "two servers claim pgsql2", InForce: true,
				Target: in.Record.SyncSet, Why: map[cluster.NodeID]string{"pgsql2": "two servers claim pgsql2"}}, in)
		}},
		{"primary-host-silent", func() (plan.Plan, error) {
			in := three3()
			one := &in.Snapshot.Nodes[0]
			one.Reach, one.ReachSince, one.Host = cluster.ReachTimeout, epoch, cluster.HostFacts{LastTry: epoch.Add(time.Second)}
			return plan.FromDecision(decide.Decision{Rule: 31, Action: cluster.Promote, Node: "pgsql2", Reason: "pgsql1 is lost"}, in)
		}},
		{"primary-frozen-strict", func() (plan.Plan, error) {
			in := three3()
			in.Policy.Degrade = cluster.DegradeNever
			one := &in.Snapshot.Nodes[0]
			one.Reach, one.ReachSince, one.Host.LastTry = cluster.ReachTimeout, epoch, epoch.Add(time.Second)
			return plan.FromDecision(decide.Decision{Rule: 31, Action: cluster.Promote, Node: "pgsql2", Reason: "pgsql1 is lost"}, in)
		}},
		{"switchover-of-three", func() (plan.Plan, error) {
			return plan.ForRequest(plan.Request{Action: cluster.Switchover, Node: "pgsql3", By: "anna"}, three3())
		}},
		{"wal-gone", func() (plan.Plan, error) {
			in := degraded()
			return plan.FromDecision(decide.Decision{Rule: 75, Action: cluster.Rejoin, Node: "pgsql2", Clone: true}, in)
		}},
		{"standby-with-another-history", func() (plan.Plan, error) {
			in := degraded()
			in.Snapshot.Nodes[1].Timeline = 3
			return plan.FromDecision(decide.Decision{Rule: 73, Action: cluster.Rejoin, Node: "pgsql2"}, in)
		}},
		{"standby-told-to-follow", func() (plan.Plan, error) {
			return plan.FromDecision(decide.Decision{Rule: 71, Action: cluster.Rejoin, Node: "pgsql2"}, degraded())
		}},
		{"async-is-over", func() (plan.Plan, error) {
			return plan.FromDecision(decide.Decision{Rule: 82, Action: cluster.SetMode, Mode: cluster.ModeSync, Reason: "its limit is reached"}, degraded())
		}},
		{"standby-back", func() (plan.Plan, error) {
			return plan.FromDecision(decide.Decision{Rule: 80, Action: cluster.Restore, Node: "pgsql2",
				Target: cluster.SyncSet{Method: "FIRST", K: 1, Members: []cluster.NodeID{"pgsql2"}}}, degraded())
		}},
		{"old-primary-back", func() (plan.Plan, error) {
			in := degraded()
			in.Record.Members["pgsql2"] = cluster.Member{Fenced: true}
			in.Snapshot.Nodes[1].Host.Postmaster = cluster.PostmasterStopped
			return plan.FromDecision(decide.Decision{Rule: 70, Action: cluster.Rejoin, Node: "pgsql2"}, in)
		}},
		{"gate-closed", func() (plan.Plan, error) {
			return plan.FromDecision(decide.Decision{Rule: 60, Action: cluster.Reopen, Node: "pgsql1"}, pair())
		}},
		{"switchover", func() (plan.Plan, error) {
			return plan.ForRequest(plan.Request{Action: cluster.Switchover, Node: "pgsql2", By: "anna"}, pair())
		}},
		{"promote-by-hand", func() (plan.Plan, error) {
			return plan.ForRequest(plan.Request{Action: cluster.Promote, Node: "pgsql2", By: "anna"}, pair())
		}},
		{"set-mode-async", func() (plan.Plan, error) {
			return plan.ForRequest(plan.Request{Action: cluster.SetMode, Mode: cluster.ModeAsync, By: "anna"}, pair())
		}},
		{"set-mode-sync", func() (plan.Plan, error) {
			return plan.ForRequest(plan.Request{Action: cluster.SetMode, Mode: cluster.ModeSync, By: "anna"}, degraded())
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := tt.make()
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", tt.name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(text(p)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if text(p) != string(want) {
				t.Errorf("the plan differs from %s (go test -update rewrites it):\n%s", golden, text(p))
			}
			wellFormed(t, p)
		})
	}
}

// wellFormed holds what must be so in every plan, whatever its golden says.
func wellFormed(t *testing.T, p plan.Plan) {
	t.Helper()
	at := map[plan.Kind]int{}
	ids := map[string]bool{}
	for i, s := range p.Steps {
		if ids[s.ID] {
			t.Errorf("step ID %s stands twice", s.ID)
		}
		ids[s.ID] = true
		if s.Deadline <= 0 || s.Title == "" {
			t.Errorf("step %s has no deadline or no title", s.ID)
		}
		if _, seen := at[s.Kind]; !seen {
			at[s.Kind] = i
		}
	}
	before := func(a, b plan.Kind, why string) {
		i, haveA := at[a]
		j, haveB := at[b]
		if haveB && (!haveA || i > j) {
			t.Errorf("%s must come before %s: %s", a, b, why)
		}
	}
	before(plan.NodePromise, plan.NodePromote, "nothing is promoted without promises")
	before(plan.PromisesCount, plan.NodePromote, "nothing is promoted without promises")
	before(plan.NodePromote, plan.RecordPrimary, "the term is of a primary that exists")
	before(plan.SyncBarrier, plan.RecordEligible, "eligible only after everything was confirmed")
	before(plan.SyncSet, plan.RecordEligible, "eligible only after the setting is in force")
	before(plan.RecordFence, plan.NodeRewind, "what is overwritten must not be eligible")
	if p.Action == cluster.Degrade || p.Action == cluster.SetMode && p.Mode == cluster.ModeAsync {
		before(plan.RecordIneligible, plan.SyncSet, "emptying the setting acknowledges every waiting commit")
	}
	if p.Action == cluster.Promote || p.Action == cluster.Switchover {
		if p.Steps[len(p.Steps)-1].Kind != plan.GateOpen {
			t.Errorf("the gate is not what opens last")
		}
		before(plan.RecordPrimary, plan.GateOpen, "the gate opens only with a higher term")
	}
}

func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		story  string
		world  func(*decide.Input)
		q      plan.Request
		usage  bool
		unsafe bool
		says   string
	}{
		{story: "no such node", q: plan.Request{Action: cluster.Promote, Node: "pgsql9"}, usage: true, says: "nodes: pgsql1,pgsql2"},
		{story: "no such mode", q: plan.Request{Action: cluster.SetMode, Mode: "half"}, usage: true, says: "sync or async"},
		{story: "no such action", q: plan.Request{Action: "dance"}, usage: true, says: "promote, switchover"},
		{story: "it is the primary", q: plan.Request{Action: cluster.Promote, Node: "pgsql1"}, says: "already"},
		{story: "not eligible", world: func(in *decide.Input) {
			*in = degraded()
			in.Snapshot.Nodes[0].FlushLSN = 1500
		}, q: plan.Request{Action: cluster.Promote, Node: "pgsql2"}, unsafe: true, says: "at least 500 bytes of WAL would be lost"},
		{story: "switchover to a standby that is not eligible", world: func(in *decide.Input) { *in = degraded() },
			q: plan.Request{Action: cluster.Switchover, Node: "pgsql2"}, unsafe: true, says: "not eligible: pgsql2 was lost"},
		{story: "a silent standby may hold more", world: silentThird, q: plan.Request{Action: cluster.Promote, Node: "pgsql2"}, unsafe: true, says: "pgsql3 does not answer and may hold"},
		{story: "switchover while the promises would not suffice", world: silentThird, q: plan.Request{Action: cluster.Switchover, Node: "pgsql2"}, says: "start pgsql3"},
		{story: "switchover from a primary that is gone", world: func(in *decide.Input) { in.Snapshot.Nodes[0].Reach = cluster.ReachRefused },
			q: plan.Request{Action: cluster.Switchover, Node: "pgsql2"}, says: "promote instead"},
		{story: "switchover while replay is paused", world: func(in *decide.Input) { in.Snapshot.Nodes[1].ReplayPaused = true },
			q: plan.Request{Action: cluster.Switchover, Node: "pgsql2"}, says: "pg_wal_replay_resume"},
		{story: "switchover when ssh is gone", world: func(in *decide.Input) { in.Snapshot.Nodes[0].Host.Reachable = false },
			q: plan.Request{Action: cluster.Switchover, Node: "pgsql2"}, says: "could not be stopped cleanly"},
		{story: "rejoin of the last good copy", world: func(in *decide.Input) { in.Snapshot.Nodes[0].Reach = cluster.ReachRefused },
			q: plan.Request{Action: cluster.Rejoin, Node: "pgsql2"}, unsafe: true, says: "last good copy"},
		{story: "rejoin of a node of another system", world: func(in *decide.Input) { in.Snapshot.Nodes[1].SystemIdentifier = 9; in.Snapshot.Nodes[0].Senders = nil },
			q: plan.Request{Action: cluster.Rejoin, Node: "pgsql2"}, unsafe: true, says: "another database system"},
		{story: "rejoin of a standby that holds what the primary lacks", world: func(in *decide.Input) {
			in.Snapshot.Nodes[0].Senders, in.Snapshot.Nodes[0].FlushLSN, in.Snapshot.Nodes[1].Receiver = nil, 400, nil
		}, q: plan.Request{Action: cluster.Rejoin, Node: "pgsql2"}, unsafe: true, says: "holds 600 bytes of timeline 1 that the primary pgsql1 lacks"},
		{story: "rejoin under a primary that is on another timeline", world: func(in *decide.Input) { in.Snapshot.Nodes[0].Timeline = 4 },
			q: plan.Request{Action: cluster.Rejoin, Node: "pgsql2"}, unsafe: true, says: "last good copy"},
		{story: "promotion of the one that holds less", world: func(in *decide.Input) {
			*in = three3()
			in.Snapshot.Nodes[0].Reach = cluster.ReachRefused
			for id, at := range map[cluster.NodeID]cluster.LSN{"pgsql2": 1000, "pgsql3": 1400} {
				in.Record.Members[id] = cluster.Member{Eligible: true, Promised: 2, PromisedLSN: at}
			}
		}, q: plan.Request{Action: cluster.Promote, Node: "pgsql2"}, unsafe: true, says: "promote pgsql3"},
		{story: "switchover to a standby that would replay for longer than clients may be held", world: func(in *decide.Input) {
			in.Policy.HoldTimeout, in.Snapshot.Nodes[0].FlushLSN = 2*time.Second, 200<<20
		}, q: plan.Request{Action: cluster.Switchover, Node: "pgsql2"}, says: "about 6s, which would hold clients too long"},
		{story: "switchover while a transaction is open that will not end in time", world: func(in *decide.Input) { in.Snapshot.Nodes[0].OldestXact = time.Hour },
			q: plan.Request{Action: cluster.Switchover, Node: "pgsql2"}, says: "has been open for 1h0m0s"},
		{story: "switchover to a standby with another history", world: func(in *decide.Input) { in.Snapshot.Nodes[1].Timeline = 2 },
			q: plan.Request{Action: cluster.Switchover, Node: "pgsql2"}, unsafe: true, says: "is not the recorded one"},
		{story: "rejoin of the primary", q: plan.Request{Action: cluster.Rejoin, Node: "pgsql1"}, unsafe: true, says: "is the primary"},
		{story: "sync without a standby", world: func(in *decide.Input) { *in = degraded(); in.Snapshot.Nodes[0].Senders = nil },
			q: plan.Request{Action: cluster.SetMode, Mode: cluster.ModeSync}, says: "only 0 standbys"},
		{story: "nothing is recorded yet", world: func(in *decide.Input) { in.Record = cluster.Record{} }, q: plan.Request{Action: cluster.Promote, Node: "pgsql2"}, says: "no primary is recorded"},
	} {
		t.Run(tt.story, func(t *testing.T) {
			in := pair()
			if tt.world != nil {
				tt.world(&in)
			}
			_, err := plan.ForRequest(tt.q, in)
			var r *plan.Refusal
			if !errors.As(err, &r) {
				t.Fatalf("not refused: %v", err)
			}
			if r.Usage != tt.usage || r.Unsafe != tt.unsafe || !strings.Contains(r.Error(), tt.says) {
				t.Errorf("usage %v, unsafe %v: %q; want %v, %v, saying %q", r.Usage, r.Unsafe, r.Error(), tt.usage, tt.unsafe, tt.says)
			}
		})
	}
}

// Who leaves the sync set is recorded ineligible before the setting changes,
// and no fewer promises are needed than the setting in force asks for.
func TestRestoreLeavesNobodyEligibleBehind(t *testing.T) {
	in := pair()
	silentThird(&in)
	in.Record.Members["pgsql2"] = cluster.Member{}
	p, err := plan.FromDecision(decide.Decision{Rule: 80, Action: cluster.Restore, Node: "pgsql2",
		Target: cluster.SyncSet{Method: "ANY", K: 2, Members: []cluster.NodeID{"pgsql2", "pgsql4"}}}, in)
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, p)
	var order []plan.Kind
	for _, s := range p.Steps {
		order = append(order, s.Kind)
		if s.Kind == plan.RecordIneligible && s.Args["nodes"] != "pgsql3" {
			t.Errorf("ineligible: %s", s.Args["nodes"])
		}
		if s.Kind == plan.RecordSyncSet && s.Args["names"] != `ANY 1 ("pgsql2", "pgsql4", "pgsql3")` {
			t.Errorf("recorded before the setting: %s", s.Args["names"])
		}
	}
	if i := slices.Index(order, plan.RecordIneligible); i < 0 || i > slices.Index(order, plan.SyncSet) {
		t.Errorf("the steps are %v", order)
	}
}

// A promotion whose record was never written is gone on with, by a person too.
func TestUnrecordedPromotionCanBeGoneOnWith(t *testing.T) {
	in := pair()
	in.Snapshot.Nodes[0].Reach = cluster.ReachRefused
	two := &in.Snapshot.Nodes[1]
	two.Role, two.Timeline, two.Receiver, two.Conninfo = cluster.RolePrimary, 2, nil, ""
	if _, err := plan.ForRequest(plan.Request{Action: cluster.Promote, Node: "pgsql2"}, in); err == nil {
		t.Error("somebody else's promotion is taken for ours")
	}
	in.Record.Members["pgsql2"] = cluster.Member{Eligible: true, Promised: 2}
	if _, err := plan.ForRequest(plan.Request{Action: cluster.Promote, Node: "pgsql2"}, in); err != nil {
		t.Error(err)
	}
}

// The one that was being taken in is promoted where it holds more, and its
// promises are counted like everybody's.
func TestPromotionOfTheOneBeingTakenInIsCounted(t *testing.T) {
	in := three3()
	in.Record.Members["pgsql2"] = cluster.Member{Eligible: true, Promised: 2, PromisedLSN: 1000}
	in.Record.Members["pgsql3"] = cluster.Member{Promised: 2, PromisedLSN: 1400}
	p, err := plan.FromDecision(decide.Decision{Rule: 31, Action: cluster.Promote, Node: "pgsql3"}, in)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Steps {
		if s.Kind == plan.PromisesCount && s.Args["force"] != "false" {
			t.Error("nothing is counted")
		}
	}
}

// A voter whose replay is paused must go on, or nobody knows what it holds.
func TestAPausedVoterIsResumed(t *testing.T) {
	in := three3()
	in.Snapshot.Nodes[2].ReplayPaused = true
	p, err := plan.FromDecision(decide.Decision{Rule: 31, Action: cluster.Promote, Node: "pgsql2"}, in)
	if err != nil {
		t.Fatal(err)
	}
	promises := 0
	for _, s := range p.Steps {
		if s.Kind == plan.NodePromise {
			promises++
			if s.Args["resume"] != "true" {
				t.Errorf("%s: %v", s.ID, s.Args)
			}
		}
	}
	if promises != 2 {
		t.Errorf("%d promises", promises)
	}
}

func TestNoPlanOverwritesTheLastGoodCopy(t *testing.T) {
	in := degraded()
	in.Record.Members["pgsql2"] = cluster.Member{Fenced: true}
	in.Snapshot.Nodes[0].Reach = cluster.ReachTimeout
	if p, err := plan.FromDecision(decide.Decision{Rule: 70, Action: cluster.Rejoin, Node: "pgsql2"}, in); err == nil {
		t.Errorf("a plan of %d steps", len(p.Steps))
	}
}

func TestForcedPromotionTellsTheLoss(t *testing.T) {
	in := degraded()
	in.Snapshot.Nodes[0].FlushLSN = 1500
	p, err := plan.ForRequest(plan.Request{Action: cluster.Promote, Node: "pgsql2", Force: true}, in)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(p.Effects, "\n"), "last 500 bytes") {
		t.Errorf("effects do not tell the loss: %q", p.Effects)
	}
}

// silentThird: commits wait for one of two standbys, and one does not answer.
func silentThird(in *decide.Input) {
	in.Policy.Nodes = append(in.Policy.Nodes, cluster.Node{ID: "pgsql3", FailoverAllowed: true, Weight: 1})
	in.Snapshot.Nodes = append(in.Snapshot.Nodes, cluster.NodeFacts{ID: "pgsql3", Reach: cluster.ReachTimeout})
	in.Record.SyncSet.Members = append(slices.Clone(in.Record.SyncSet.Members), "pgsql3")
	in.Record.Members["pgsql3"] = cluster.Member{Eligible: true}
}

// Whoever accepts the loss is not held up by a count that cannot be reached.
func TestForcedPromotionPastASilentStandby(t *testing.T) {
	in := pair()
	silentThird(&in)
	p, err := plan.ForRequest(plan.Request{Action: cluster.Promote, Node: "pgsql2", Force: true}, in)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Steps {
		if s.Kind == plan.PromisesCount && s.Args["force"] != "true" {
			t.Errorf("the promises are counted: %v", s.Args)
		}
	}
}

func TestMovedFactsAreNamed(t *testing.T) {
	in := pair()
	want := plan.FactsOf(in, "pgsql2")
	in.Record.Members["pgsql2"] = cluster.Member{}
	moved := plan.Moved(want, plan.FactsOf(in, "pgsql2"))
	if len(moved) != 1 || !strings.Contains(moved[0], "pgsql2.eligible was true and is false") {
		t.Errorf("moved: %q", moved)
	}
}
