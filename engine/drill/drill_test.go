package drill_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/drill"
	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/labtest"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// stage is a cluster whose servers are real and whose engine is played: what it
// does about a fault is written in the test.
type stage struct {
	t      *testing.T
	lab    *labtest.Lab
	target drill.Target

	// fault is what happens when the drill stops a node.
	fault func(s *stage, node cluster.NodeID) error
	// deal is what the engine then records; nil when it does nothing.
	deal func(r *cluster.Record)

	mu      sync.Mutex
	record  cluster.Record
	ops     []plan.Operation
	did     []string
	changed chan struct{}
}

func newStage(t *testing.T, l *labtest.Lab) *stage {
	s := l.Status()
	return &stage{t: t, lab: l, changed: make(chan struct{}, 1),
		target: drill.Target{Host: s.Nodes[0].Host, Port: s.Nodes[0].Port, Database: s.Database, User: s.User, Password: s.Password},
		record: cluster.Record{Term: 1, Primary: "pgsql1", Mode: cluster.ModeSync, SyncSet: cluster.SyncSet{K: 1, Members: []cluster.NodeID{"pgsql2"}},
			Members: map[cluster.NodeID]cluster.Member{"pgsql1": {Eligible: true}, "pgsql2": {Eligible: true}}}}
}

func (s *stage) Proxy() (drill.Target, error)     { return s.target, nil }
func (s *stage) Snapshot() cluster.Snapshot       { return cluster.Snapshot{} }
func (s *stage) GateOpen() bool                   { return true }
func (s *stage) Watch() (<-chan struct{}, func()) { return s.changed, func() {} }

func (s *stage) Record() cluster.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record.Clone()
}

func (s *stage) Operations(context.Context) ([]plan.Operation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ops), nil
}

func (s *stage) change(what string, f func(*cluster.Record)) {
	s.mu.Lock()
	s.did = append(s.did, what)
	f(&s.record)
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *stage) Stop(_ context.Context, node cluster.NodeID, mode string) error {
	if err := s.fault(s, node); err != nil {
		return err
	}
	deal := s.deal
	if deal == nil {
		deal = func(*cluster.Record) {}
	} else {
		s.acted()
	}
	s.change(fmt.Sprintf("stop %s %s", node, mode), deal)
	return nil
}

// acted puts into the journal what the engine did.
func (s *stage) acted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range []cluster.Action{cluster.Promote, cluster.Degrade} {
		now := time.Now()
		s.ops = append(s.ops, plan.Operation{ID: string(a), Started: now, Outcome: plan.Done,
			Plan:  plan.Plan{Action: a, Rule: 30, Reason: "it is gone", Steps: []plan.Step{{ID: "1-gate.close", Kind: "gate.close", Title: "hold clients"}, {ID: "2-x", Title: "and the rest"}}},
			Steps: []plan.StepRun{{Outcome: plan.Done, Started: now, Took: 2 * time.Millisecond}}})
	}
}

func (s *stage) Start(_ context.Context, node cluster.NodeID) error {
	s.change("start "+string(node), func(r *cluster.Record) { r.Mode = cluster.ModeSync; eligible(r) })
	return nil
}

func (s *stage) Switchover(_ context.Context, node cluster.NodeID) error {
	s.change("switchover "+string(node), func(r *cluster.Record) { r.Primary = node; r.Term++; eligible(r) })
	return nil
}

func eligible(r *cluster.Record) {
	for id := range r.Members {
		r.Members[id] = cluster.Member{Eligible: true}
	}
}

// Direct always reaches the one server that there is.
func (s *stage) Direct(ctx context.Context, _ cluster.NodeID) (*pgx.Conn, error) {
	return s.lab.Connect(ctx, "pgsql1", s.target.Database)
}

func nothing(*stage, cluster.NodeID) error { return nil }

// sql runs a statement as the superuser.
func (s *stage) sql(query string) error {
	c, err := s.Direct(context.Background(), "pgsql1")
	if err != nil {
		return err
	}
	_, err = c.Exec(context.Background(), query)
	return errors.Join(err, c.Close(context.Background()))
}

func promoted(r *cluster.Record) { r.Term, r.Primary = 2, "pgsql2"; eligible(r) }

func degraded(r *cluster.Record) {
	r.Mode = cluster.ModeAsync
	r.Members["pgsql2"] = cluster.Member{Reason: "it is gone"}
}

// losesARow takes away a row whose acknowledgement has been seen by a client.
func losesARow(s *stage, _ cluster.NodeID) error {
	return s.sql("DELETE FROM pgtandem_drill_d1 WHERE (client, n) = (0, 1)")
}

func cutsClientsOff(s *stage, _ cluster.NodeID) error {
	return s.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgtandem drill'")
}

// Without synchronous_standby_names on the server, as an engine that turned it
// off would leave it.
func async(s *stage, _ cluster.NodeID) error {
	return errors.Join(s.sql("ALTER SYSTEM SET synchronous_standby_names = ''"), s.sql("SELECT pg_reload_conf()"))
}

func TestDrill(t *testing.T) {
	l := labtest.Up(t, lab.Options{Nodes: 2, WithoutDaemon: true})
	names := syncNames(t, l)
	putBack := []string{"stop pgsql2 immediate", "start pgsql2"}
	for _, tt := range []struct {
		story    string
		scenario string
		fault    func(*stage, cluster.NodeID) error
		deal     func(*cluster.Record)
		verdict  string
		says     string
		did      []string
	}{
		{"the standby takes over, and the pair is put back", "primary-stop", nothing, promoted, "pass", "",
			[]string{"stop pgsql1 immediate", "start pgsql1", "switchover pgsql1"}},
		{"a former primary that is fenced is left to the engine to start", "primary-stop", nothing, func(r *cluster.Record) {
			promoted(r)
			r.Members["pgsql1"] = cluster.Member{Fenced: true, Eligible: true}
		}, "pass", "", []string{"stop pgsql1 immediate", "switchover pgsql1"}},
		{"the primary goes on alone", "standby-stop", async, degraded, "pass", "", putBack},
		{"the engine says async, and the server still waits", "standby-stop", nothing, degraded, "fail", "check failed: synchronous_standby_names is off on pgsql1", putBack},
		{"an acknowledged row is gone", "primary-stop", losesARow, promoted, "fail", "1 acknowledged rows are missing", []string{"stop pgsql1 immediate", "start pgsql1", "switchover pgsql1"}},
		{"clients are cut off although only the standby was stopped", "standby-stop", func(s *stage, n cluster.NodeID) error {
			return errors.Join(async(s, n), cutsClientsOff(s, n))
		}, degraded, "fail", "statements failed that were not in flight", putBack},
	} {
		t.Run(tt.story, func(t *testing.T) {
			s := newStage(t, l)
			s.fault, s.deal = tt.fault, tt.deal
			t.Cleanup(func() {
				if err := errors.Join(s.sql("ALTER SYSTEM SET synchronous_standby_names = '"+names+"'"), s.sql("SELECT pg_reload_conf()")); err != nil {
					t.Error(err)
				}
			})
			r, err := run(t.Context(), t, s, tt.scenario)
			if err != nil {
				t.Fatal(err)
			}
			if r.Verdict != tt.verdict || !strings.Contains(strings.Join(r.Why, "; "), tt.says) {
				t.Errorf("%s: %q; want %s, saying %q", r.Verdict, r.Why, tt.verdict, tt.says)
			}
			if !slices.Equal(s.did, tt.did) {
				t.Errorf("it did %q, want %q", s.did, tt.did)
			}
			measured(t, r)
			gone(t, s)
		})
	}
	t.Run("it is cut short before the fault is dealt with, and puts the pair back all the same", func(t *testing.T) { cutShort(t, newStage(t, l)) })
	t.Run("the node cannot be stopped", func(t *testing.T) { unstoppable(t, newStage(t, l)) })
	t.Run("the drill is cut short before its fault: nothing is started", func(t *testing.T) { beforeTheFault(t, newStage(t, l)) })
}

func syncNames(t *testing.T, l *labtest.Lab) (v string) {
	t.Helper()
	if err := l.SQL("pgsql1", "postgres").QueryRow(t.Context(), "SHOW synchronous_standby_names").Scan(&v); err != nil || v == "" {
		t.Fatalf("the lab is not synchronous: %q, %v", v, err)
	}
	return v
}

func run(ctx context.Context, t *testing.T, s *stage, scenario string) (drill.Report, error) {
	t.Helper()
	sc, err := drill.Find(scenario)
	if err != nil {
		t.Fatal(err)
	}
	return drill.Run(ctx, s, sc, drill.Options{ID: "d1", Cluster: "stage", Lasting: 2, Connecting: 1, After: 200 * time.Millisecond,
		Progress: func(line string) { t.Log(line) }})
}

// measured: the figures of a report agree with each other.
func measured(t *testing.T, r drill.Report) {
	t.Helper()
	acks, errs, kinds := 0, 0, map[string]int{}
	for _, c := range r.Clients {
		acks += c.Acknowledged
		kinds[c.Kind]++
		errs += len(c.Errors)
		if c.Acknowledged == 0 || c.LongestPauseMS <= 0 {
			t.Errorf("client %s: %d acknowledged, longest pause %.1f ms", c.Name, c.Acknowledged, c.LongestPauseMS)
		}
	}
	buckets := 0
	for _, n := range r.Acks {
		buckets += n
	}
	counted := r.ConnectErrors
	for _, n := range r.Errors {
		counted += n
	}
	if acks != r.Acknowledged || buckets != acks || errs != counted || kinds["lasting"] != 2 || kinds["connecting"] != 1 {
		t.Errorf("%d acknowledged, %d by client, %d by time; %d errors, %d by client; kinds %v", r.Acknowledged, acks, buckets, counted, errs, kinds)
	}
	if len(r.Steps) != 2 || r.Steps[0].State != "done" || r.Steps[0].TookMS != 2 || r.Steps[1].State != "pending" {
		t.Errorf("the engine's steps: %+v", r.Steps)
	}
	if r.FaultAtMS <= 0 || r.TookMS <= r.FaultAtMS || r.LongestConnectMS <= 0 || len(r.Checks) != 3 {
		t.Errorf("fault at %.1f ms of %.1f, longest connect %.1f, checks %+v", r.FaultAtMS, r.TookMS, r.LongestConnectMS, r.Checks)
	}
	if !slices.IsSortedFunc(r.Marks, func(a, b drill.Mark) int { return int(a.AtMS*1000) - int(b.AtMS*1000) }) {
		t.Errorf("the timeline is out of order: %+v", r.Marks)
	}
}

// gone: the drill's table was dropped.
func gone(t *testing.T, s *stage) {
	t.Helper()
	if err := s.sql("SELECT 1 FROM pgtandem_drill_d1"); err == nil || !strings.Contains(err.Error(), "42P01") {
		t.Errorf("the drill's table: %v", err)
	}
}

func cutShort(t *testing.T, s *stage) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.fault = func(*stage, cluster.NodeID) error { cancel(); return nil }
	r, err := run(ctx, t, s, "primary-stop")
	if !errors.Is(err, context.Canceled) || r.Verdict != "fail" || !strings.Contains(strings.Join(r.Why, "; "), "did not get to its end") {
		t.Errorf("%s, %q, %v", r.Verdict, r.Why, err)
	}
	if want := []string{"stop pgsql1 immediate", "start pgsql1"}; !slices.Equal(s.did, want) {
		t.Errorf("it did %q, want %q", s.did, want)
	}
	if r.Acknowledged == 0 || r.Lost != 0 {
		t.Errorf("%d acknowledged, %d lost: the rows are read back all the same", r.Acknowledged, r.Lost)
	}
	gone(t, s)
}

func unstoppable(t *testing.T, s *stage) {
	s.fault = func(*stage, cluster.NodeID) error { return errors.New("ssh: no route to host") }
	r, err := run(t.Context(), t, s, "standby-stop")
	if err == nil || r.Verdict != "fail" || !strings.Contains(strings.Join(r.Why, "; "), "no route to host") {
		t.Errorf("%s, %q, %v", r.Verdict, r.Why, err)
	}
	// It may have been stopped for all that the drill knows.
	if want := []string{"start pgsql2"}; !slices.Equal(s.did, want) {
		t.Errorf("it did %q, want %q", s.did, want)
	}
	gone(t, s)
}

func beforeTheFault(t *testing.T, s *stage) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.target.Password = "wrong"
	r, err := run(ctx, t, s, "primary-stop")
	if err == nil || len(s.did) > 0 {
		t.Errorf("%s, %v; it did %q", r.Verdict, err, s.did)
	}
}

func TestReady(t *testing.T) {
	for _, tt := range []struct {
		story    string
		scenario string
		change   func(*cluster.Record)
		says     string
	}{
		{"a healthy pair", "primary-stop", func(*cluster.Record) {}, ""},
		{"in maintenance", "primary-stop", func(r *cluster.Record) { r.Maintenance = true }, "in maintenance"},
		{"in async", "standby-stop", func(r *cluster.Record) { r.Mode = cluster.ModeAsync }, "it is async"},
		{"a standby that may not be promoted", "primary-stop", func(r *cluster.Record) { r.Members["pgsql2"] = cluster.Member{Reason: "it lags"} }, "pgsql2 is not eligible: it lags"},
		{"two standbys, of which the drill knows no one to stop", "standby-stop", func(r *cluster.Record) { r.SyncSet.Members = append(r.SyncSet.Members, "pgsql3") }, "2 standbys confirm"},
	} {
		t.Run(tt.story, func(t *testing.T) {
			s := &stage{record: cluster.Record{Term: 1, Primary: "pgsql1", Mode: cluster.ModeSync, SyncSet: cluster.SyncSet{K: 1, Members: []cluster.NodeID{"pgsql2"}},
				Members: map[cluster.NodeID]cluster.Member{"pgsql1": {Eligible: true}, "pgsql2": {Eligible: true}}}}
			tt.change(&s.record)
			sc, err := drill.Find(tt.scenario)
			if err != nil {
				t.Fatal(err)
			}
			err = drill.Ready(s, sc)
			if tt.says == "" && err != nil || tt.says != "" && (!errors.Is(err, drill.ErrPrecondition) || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("%v; want %q", err, tt.says)
			}
		})
	}
}
