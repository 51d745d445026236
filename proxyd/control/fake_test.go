package control_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/client"
	"github.com/pgtandem/pgtandem/proxyd/control"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// fake is a Backend whose whole world is in its fields.
type fake struct {
	mu      sync.Mutex
	changed chan struct{}
	st      api.State
	log     []api.Event
	ops     map[string]api.Operation
	audits  []control.Audit
	calls   []string
	fail    error // returned by every method that asks for something
	states  int   // how often the state was asked for
}

func newFake() *fake {
	return &fake{
		changed: make(chan struct{}),
		st: api.State{
			Schema: api.Version, Seq: 2, At: noon, Cluster: "main", Version: "0.1.0", Started: noon,
			Term: 4, Primary: "pgsql1", Mode: "sync", WantMode: "sync", GateState: "open",
			Gate:    api.Gate{State: "open", Node: "pgsql1", Term: 4, Since: noon},
			Verdict: api.Verdict{Level: "ok", Text: "in sync"},
			Nodes:   []api.Node{{Name: "pgsql1", Host: "127.0.0.1", Port: 5432, Role: "primary", Reachable: true, LagBytes: 0}},
		},
		log: []api.Event{
			{Seq: 1, At: noon, Level: "info", Kind: "start", Text: "proxyd started"},
			{Seq: 2, At: noon, Level: "info", Kind: "gate.opened", Node: "pgsql1", Term: 4, Text: "the gate is open to pgsql1"},
		},
		ops: map[string]api.Operation{},
	}
}

// happen changes the fake's world and wakes who waits.
func (f *fake) happen(change func(*fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fake) addEvent(text string) {
	f.happen(func(f *fake) {
		f.st.Seq++
		f.log = append(f.log, api.Event{Seq: f.st.Seq, At: noon, Level: "info", Kind: "test", Text: text})
	})
}

func (f *fake) said(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	return f.fail
}

func (f *fake) State(context.Context) (api.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.states++
	return f.st, f.fail
}

func (f *fake) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *fake) Events(_ context.Context, after uint64, limit int) ([]api.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var es []api.Event
	for _, e := range f.log {
		if e.Seq > after && len(es) < limit {
			es = append(es, e)
		}
	}
	return es, f.fail
}

func (f *fake) LastEvents(_ context.Context, limit int) ([]api.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log[max(0, len(f.log)-limit):], f.fail
}

func (f *fake) Pools(context.Context) ([]api.Pool, error) {
	return []api.Pool{{Database: "test1", User: "test1", Mode: "session", ServersIdle: 1, Size: 20}}, f.said("pools")
}

func (f *fake) Clients(context.Context) ([]api.Client, error) {
	return nil, f.said("clients")
}

func (f *fake) Config(context.Context) (api.Config, error) {
	return api.Config{Path: "/etc/pgtandem/pgtandem.toml", Text: "[cluster]\nname = \"main\"\n"}, f.said("config")
}

func (f *fake) SyncFiles(context.Context) (api.SyncFiles, error) {
	return api.SyncFiles{Node: "pgsql1", Method: "files", InForce: "sync", Diff: "-a\n+b <&>\n"}, f.said("sync-files")
}

func (f *fake) Plan(_ context.Context, by control.Caller, r api.PlanRequest) (api.Plan, error) {
	return api.Plan{ID: "p1", Action: r.Action, Node: r.Node, By: by.User, Confirm: r.Node, Created: noon,
		Steps: []api.Step{{ID: "1-close-gate", Kind: "gate.close", Title: "close the gate", DeadlineMS: 1000, State: "pending"}},
		Facts: []api.Fact{{Name: "term", Value: "4"}}}, f.said("plan %s %s", r.Action, r.Node)
}

func (f *fake) PlanByID(_ context.Context, id string) (api.Plan, error) {
	return api.Plan{ID: id, Action: "switchover", Created: noon}, f.said("plan-by-id %s", id)
}

func (f *fake) Run(_ context.Context, _ control.Caller, planID, confirm string) (api.Operation, error) {
	return api.Operation{ID: "o1", State: api.OpRunning, Started: noon, Plan: api.Plan{ID: planID, Created: noon}}, f.said("run %s %s", planID, confirm)
}

func (f *fake) Operation(_ context.Context, id string) (api.Operation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	op, ok := f.ops[id]
	if !ok {
		return op, fmt.Errorf("operation %q: %w", id, &api.Error{Code: api.CodeNotFound, Message: "there is no operation " + id})
	}
	return op, nil
}

func (f *fake) Operations(context.Context) ([]api.Operation, error) {
	return nil, f.said("operations")
}

func (f *fake) Drills(context.Context) ([]api.DrillInfo, error) {
	return []api.DrillInfo{{Name: "primary-stop", Title: "the primary is stopped", Allowed: true}}, f.said("drills")
}

func (f *fake) StartDrill(_ context.Context, _ control.Caller, r api.DrillRequest) (api.Operation, error) {
	return api.Operation{ID: "o2", State: api.OpRunning, Started: noon}, f.said("drill %s", r.Name)
}

func (f *fake) DrillReports(context.Context) ([]api.DrillReport, error) {
	return nil, f.said("drill-reports")
}

func (f *fake) Reload(context.Context, control.Caller) (api.ReloadResult, error) {
	return api.ReloadResult{Applied: []string{"log.level"}, Restart: []string{"proxy.port"}}, f.said("reload")
}

func (f *fake) Maintenance(_ context.Context, _ control.Caller, r api.MaintenanceRequest) (api.State, error) {
	st := f.st
	st.Maintenance = r.On
	return st, f.said("maintenance %v", r.On)
}

func (f *fake) Audit(_ context.Context, a control.Audit) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.audits = append(f.audits, a)
	return nil
}

func (f *fake) audited() []control.Audit {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]control.Audit(nil), f.audits...)
}

var errPeer = errors.New("no credentials")

// serve runs a server over b on a socket of its own. as is who callers are;
// nil means who they really are.
func serve(t *testing.T, b control.Backend, group string, as *control.Caller) (*client.Client, *control.Server) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "s")
	l, err := control.Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	o := control.Options{Backend: b, Version: "0.1.0", OperatorGroup: group, Heartbeat: 10 * time.Millisecond, Log: quiet(), Metrics: figures}
	if as != nil {
		o.Peer = func(net.Conn) (control.Caller, error) {
			if as.UID == "" {
				return control.Caller{}, errPeer
			}
			return *as, nil
		}
	}
	s := control.New(o)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	c := client.New(path)
	t.Cleanup(func() {
		c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left behind: %v", err)
		}
	})
	return c, s
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// figures is what stands at the place of the metrics.
var figures = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	fmt.Fprintln(w, "pgtandem_gate_open 1") //nolint:errcheck // a test's answer
})
