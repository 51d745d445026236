package engine

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/clock"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/engine/plan"
	"github.com/pgtandem/pgtandem/engine/store/memory"
)

// still is an observer to whom nothing happens.
type still struct{ s cluster.Snapshot }

func (o still) Snapshot() cluster.Snapshot { return o.s }
func (still) Changed() <-chan struct{}     { return nil }
func (still) Suspect(cluster.NodeID)       {}

// stopped is a clock that stands still.
type stopped struct {
	clock.System
	now time.Time
}

func (c stopped) Now() time.Time { return c.now }

// shut is a gate that stays as it is.
type shut struct{}

func (shut) Close(context.Context, string, bool) (int, error)             { return 0, nil }
func (shut) Open(context.Context, cluster.Term, cluster.Node) error       { return nil }
func (shut) Since() time.Time                                             { return time.Time{} }
func (shut) Passing() (open bool, node cluster.NodeID, term cluster.Term) { return false, "", 0 }

// fullDisk is a store whose journal cannot be written for a while.
type fullDisk struct {
	*memory.Store
	mu   sync.Mutex
	full bool
}

func (d *fullDisk) PutOperation(ctx context.Context, op plan.Operation) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return errors.New("no space left on device")
	}
	return d.Store.PutOperation(ctx, op)
}

// inSync is a healthy pair.
func inSync() decide.Input {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	up := func(id cluster.NodeID, role cluster.Role) cluster.NodeFacts {
		return cluster.NodeFacts{ID: id, Reach: cluster.ReachOK, LastTry: now, LastOK: now, Role: role, SystemIdentifier: 7, Timeline: 1,
			Host: cluster.HostFacts{Reachable: true, LastTry: now, Postmaster: cluster.PostmasterRunning}}
	}
	one, two := up("pgsql1", cluster.RolePrimary), up("pgsql2", cluster.RoleStandby)
	one.SyncStandbyNames = `FIRST 1 ("pgsql2")`
	one.Senders = []cluster.Sender{{ApplicationName: "pgsql2", State: "streaming"}}
	two.Conninfo, two.Receiver = "host=one", &cluster.Receiver{Status: "streaming"}
	return decide.Input{GateOpen: true, Snapshot: cluster.Snapshot{Now: now, Nodes: []cluster.NodeFacts{one, two}},
		Policy: cluster.Policy{Failover: cluster.Automatic, Rejoin: cluster.Automatic, Degrade: cluster.DegradeAsync, SyncK: 1, SyncMethod: "FIRST",
			CheckPeriod: time.Second, CheckRetries: 3, Nodes: []cluster.Node{{ID: "pgsql1", FailoverAllowed: true}, {ID: "pgsql2", FailoverAllowed: true}}},
		Record: cluster.Record{Term: 1, Primary: "pgsql1", Timeline: 1, SystemIdentifier: 7, Mode: cluster.ModeSync, WantMode: cluster.ModeSync,
			SyncSet: cluster.SyncSet{Method: "FIRST", K: 1, Members: []cluster.NodeID{"pgsql2"}},
			Members: map[cluster.NodeID]cluster.Member{"pgsql1": {Eligible: true}, "pgsql2": {Eligible: true}},
			History: []cluster.HistoryEntry{{SystemIdentifier: 7, Timeline: 1, Node: "pgsql1", Term: 1}}}}
}

func quietEngine(t *testing.T, in decide.Input, s Store) *Engine {
	t.Helper()
	e, err := New(Options{Policy: in.Policy, Store: s, Observer: still{in.Snapshot}, Gate: shut{}, Clock: stopped{now: in.Snapshot.Now}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// reached is an operation that was interrupted in its first step of a kind.
func reached(t *testing.T, d decide.Decision, kind plan.Kind) plan.Operation {
	t.Helper()
	p, err := plan.FromDecision(d, inSync())
	if err != nil {
		t.Fatal(err)
	}
	return interrupted(t, p, kind)
}

func interrupted(t *testing.T, p plan.Plan, kind plan.Kind) plan.Operation {
	t.Helper()
	op := plan.Operation{ID: "1", Plan: p, Outcome: plan.Running}
	at := false
	for _, s := range p.Steps {
		run := plan.StepRun{Outcome: plan.Done}
		switch {
		case at:
			run.Outcome = plan.Pending
		case s.Kind == kind:
			at, run.Outcome = true, plan.Running
		}
		op.Steps = append(op.Steps, run)
	}
	if !at {
		t.Fatalf("the plan has no step of kind %s", kind)
	}
	return op
}

func TestWhatIsGoneOnWithAfterARestart(t *testing.T) {
	promote := decide.Decision{Action: cluster.Promote, Node: "pgsql2"}
	degrade := decide.Decision{Action: cluster.Degrade, Node: "pgsql2"}
	member := func(m cluster.Member) func(*decide.Input) {
		return func(in *decide.Input) { in.Record.Members["pgsql2"] = m }
	}
	mode, err := plan.ForRequest(plan.Request{Action: cluster.SetMode, Mode: cluster.ModeAsync, By: "anna"}, inSync())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		story string
		op    plan.Operation
		world func(*decide.Input)
		says  string // why not; empty: it goes on
	}{
		{story: "a promotion whose promise stands", op: reached(t, promote, plan.NodePromote), world: member(cluster.Member{Eligible: true, Promised: 2})},
		{story: "a promotion of long ago: the standby has followed since", op: reached(t, promote, plan.NodePromote), world: member(cluster.Member{}), says: "promised for term 0"},
		{story: "a promotion of an earlier term", op: reached(t, promote, plan.RecordPrimary), world: func(in *decide.Input) {
			member(cluster.Member{Promised: 2})(in)
			in.Record.Term = 3
		}, says: "not for the one after 3"},
		{story: "a promotion that was recorded, with the gate still closed", op: reached(t, promote, plan.GateOpen), world: func(in *decide.Input) {
			member(cluster.Member{Eligible: true, Promised: 2})(in)
			in.Record.Term, in.Record.Primary = 2, "pgsql2"
		}},
		{story: "a promotion that had not come so far, and the primary is back", op: reached(t, promote, plan.PromisesCount), says: "would not be decided"},
		{story: "a degradation half done", op: reached(t, degrade, plan.SyncSet), world: member(cluster.Member{Reason: "lost"})},
		{story: "a degradation that had recorded nothing, and the standby is back", op: reached(t, degrade, plan.RecordIneligible), says: "would not be decided"},
		{story: "a degradation of long ago: the standby is eligible again", op: reached(t, degrade, plan.SyncSet), says: "would not be decided"},
		{story: "a change of mode half done", op: interrupted(t, mode, plan.SyncSet), world: func(in *decide.Input) { in.Record.WantMode = cluster.ModeAsync }},
		{story: "a change of mode, and another was asked for since", op: interrupted(t, mode, plan.SyncSet), says: "sync was asked for since"},
	} {
		t.Run(tt.story, func(t *testing.T) {
			in := inSync()
			if tt.world != nil {
				tt.world(&in)
			}
			why := quietEngine(t, in, memory.New(0)).outdated(tt.op, in)
			if tt.says == "" && why != "" || !strings.Contains(why, tt.says) {
				t.Errorf("%q, want it to say %q", why, tt.says)
			}
		})
	}
}

// What a step saw before the daemon ended proves nothing after it: a standby
// would be recorded eligible upon a confirmation of long ago.
func TestConfirmationsAreLookedForAgain(t *testing.T) {
	in := inSync()
	in.Record.Members["pgsql2"] = cluster.Member{}
	p, err := plan.FromDecision(decide.Decision{Action: cluster.Restore, Node: "pgsql2", Target: in.Record.SyncSet}, in)
	if err != nil {
		t.Fatal(err)
	}
	if op := again(interrupted(t, p, plan.RecordEligible)); len(op.Steps) != 0 {
		t.Errorf("steps are passed over: %+v", op.Steps)
	}
	op := interrupted(t, p, plan.RecordEligible)
	op.Plan.Action = cluster.Rejoin
	if len(again(op).Steps) == 0 {
		t.Error("a rejoin begins anew, and would stop and overwrite what runs")
	}
}

// An operation that ended because the journal could not be written is not gone
// on with by a daemon of another day.
func TestAnOperationWithoutAJournalIsOver(t *testing.T) {
	in := inSync()
	s := &fullDisk{Store: memory.New(0)}
	e := quietEngine(t, in, s)
	op := reached(t, decide.Decision{Action: cluster.Promote, Node: "pgsql2"}, plan.NodePromote)
	if err := s.PutOperation(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	s.full = true
	end, err := e.runner.Run(t.Context(), op)
	if err == nil {
		t.Fatal("it went on without a journal")
	}
	s.mu.Lock()
	s.full = false
	s.mu.Unlock()
	e.finish(ended{end, err})
	left, err := s.Unfinished(t.Context())
	if err != nil || len(left) != 0 {
		t.Errorf("left for the next daemon: %+v, %v", left, err)
	}
}

// deaf is a store whose answer to a write gets lost.
type deaf struct {
	*memory.Store
	lost bool
}

func (d *deaf) Save(ctx context.Context, r cluster.Record) (cluster.Record, error) {
	next, err := d.Store.Save(ctx, r)
	if err == nil && d.lost {
		return r, errors.New("no answer")
	}
	return next, err
}

// A write whose outcome is not known must not be the last one.
func TestARecordThatMayHaveBeenWritten(t *testing.T) {
	s := &deaf{Store: memory.New(0), lost: true}
	e := quietEngine(t, inSync(), s)
	if err := e.SetMaintenance(t.Context(), true); err == nil {
		t.Fatal("a lost answer is taken for a good one")
	}
	if !e.records.Record().Maintenance {
		t.Error("what is on disk is not what decisions are made from")
	}
	s.lost = false
	if err := e.SetMaintenance(t.Context(), false); err != nil {
		t.Errorf("nothing can be written any more: %v", err)
	}
}

func TestWhatTheRecordRefuses(t *testing.T) {
	before := cluster.Record{Term: 2, Primary: "pgsql1", Members: map[cluster.NodeID]cluster.Member{"pgsql2": {Promised: 3, PromisedLSN: 100}, "pgsql3": {Promised: 2}}}
	for _, tt := range []struct {
		story  string
		change func(*cluster.Record)
		broken string
	}{
		{"the term falls", func(r *cluster.Record) { r.Term = 1 }, "the term would fall"},
		{"another primary in one term", func(r *cluster.Record) { r.Primary = "pgsql2" }, "would change from pgsql1 to pgsql2"},
		{"a promise for a term that has begun is taken back", func(r *cluster.Record) { r.Members["pgsql3"] = cluster.Member{} }, "would take back its promise for term 2"},
		{"a promise is lowered", func(r *cluster.Record) { r.Members["pgsql2"] = cluster.Member{Promised: 1} }, "would take back its promise for term 3"},
		{"a promise for a term that has not begun is taken back", func(r *cluster.Record) { r.Members["pgsql2"] = cluster.Member{} }, ""},
		{"it begins with the change that takes it back", func(r *cluster.Record) { r.Term, r.Members["pgsql2"] = 3, cluster.Member{} }, "would take back its promise for term 3"},
	} {
		t.Run(tt.story, func(t *testing.T) {
			after := before.Clone()
			tt.change(&after)
			if why := broken(before, after); tt.broken == "" && why != "" || !strings.Contains(why, tt.broken) {
				t.Errorf("%q, want %q", why, tt.broken)
			}
		})
	}
}
