package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/drill"
	"github.com/pgtandem/pgtandem/engine/plan"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

// brokenProxy is a healthy cluster through which no client can be sent.
type brokenProxy struct {
	drill.World
	record  cluster.Record
	entered chan struct{}
	goOn    chan struct{}
}

func (w *brokenProxy) Record() cluster.Record { return w.record }
func (w *brokenProxy) GateOpen() bool         { return true }
func (w *brokenProxy) Proxy() (drill.Target, error) {
	close(w.entered)
	<-w.goOn
	return drill.Target{}, errors.New("drill.user has no password")
}

func newDrills(t *testing.T, change func(*config.Config)) (*drills, *brokenProxy, *[]plan.Operation, *[]cluster.Event) {
	c := config.Default()
	c.Cluster.Name, c.Drill.User = "main", "test1"
	change(c)
	w := &brokenProxy{record: healthy().Record, entered: make(chan struct{}), goOn: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	var journal []plan.Operation
	var events []cluster.Event
	return &drills{
		world: w, config: func() *config.Config { return c }, now: func() time.Time { return noon }, log: silent(), ctx: ctx, cancel: cancel,
		put:   func(_ context.Context, op plan.Operation) error { journal = append(journal, op); return nil },
		event: func(e cluster.Event) { events = append(events, e) }, changed: func() {},
	}, w, &journal, &events
}

func lab(c *config.Config) { c.Cluster.Lab = true }

func TestWhoMayRehearse(t *testing.T) {
	for _, tc := range []struct {
		story   string
		change  func(*config.Config)
		ask     api.DrillRequest
		code    string
		allowed bool
		confirm string
	}{
		{"on a lab, without a word", lab, api.DrillRequest{Name: "meteor"}, api.CodeNotFound, true, ""},
		{"no lab, not allowed", func(*config.Config) {}, api.DrillRequest{Name: "primary-stop", Confirm: "main"}, api.CodePrecondition, false, "main"},
		{"allowed, the name not typed", func(c *config.Config) { c.Drill.Allow = true }, api.DrillRequest{Name: "primary-stop"}, api.CodeConfirm, true, "main"},
		{"nobody to log in as", func(c *config.Config) { c.Cluster.Lab, c.Drill.User = true, "" }, api.DrillRequest{Name: "primary-stop"}, api.CodePrecondition, false, ""},
		{"too many clients", lab, api.DrillRequest{Name: "primary-stop", Clients: 201}, api.CodeUsage, true, ""},
	} {
		t.Run(tc.story, func(t *testing.T) {
			d, _, journal, _ := newDrills(t, tc.change)
			for _, i := range d.list() {
				if i.Allowed != tc.allowed || i.Confirm != tc.confirm || (i.WhyNot == "") != tc.allowed {
					t.Errorf("listed as %+v", i)
				}
			}
			_, err := d.start(t.Context(), "ann", tc.ask)
			var e *api.Error
			if !errors.As(told(err), &e) || e.Code != tc.code {
				t.Errorf("start: %v, want %s", err, tc.code)
			}
			if len(*journal) != 0 {
				t.Errorf("the journal has %+v", *journal)
			}
		})
	}
}

func TestAClusterThatIsNotReadyIsNamed(t *testing.T) {
	d, w, _, _ := newDrills(t, lab)
	w.record.Mode = cluster.ModeAsync
	if i := d.list()[0]; i.Allowed || !strings.Contains(i.WhyNot, "it is async") {
		t.Errorf("listed as %+v", i)
	}
	if _, err := d.start(t.Context(), "ann", api.DrillRequest{Name: "primary-stop"}); !errors.Is(err, drill.ErrPrecondition) {
		t.Errorf("start: %v", err)
	}
}

func TestOneDrillAtATimeAndItsEndIsKept(t *testing.T) {
	d, w, journal, events := newDrills(t, lab)
	op, err := d.start(t.Context(), "ann", api.DrillRequest{Name: "primary-stop"})
	if err != nil {
		t.Fatal(err)
	}
	<-w.entered
	if now, ok := d.running(op.ID); !ok || now.State != api.OpRunning || now.Ended != nil {
		t.Errorf("while it runs: %+v, %v", now, ok)
	}
	if _, err := d.start(t.Context(), "bob", api.DrillRequest{Name: "standby-stop"}); !errors.Is(err, engine.ErrBusy) {
		t.Errorf("a second one: %v", err)
	}
	close(w.goOn)
	d.wg.Wait()
	if _, ok := d.running(""); ok {
		t.Error("it still runs")
	}
	if len(*journal) != 2 || (*journal)[0].Outcome != plan.Running {
		t.Fatalf("the journal has %+v", *journal)
	}
	end := operationOf((*journal)[1], "", noon)
	if end.State != api.OpFailed || !strings.Contains(end.Error, "no password") || end.Ended == nil || end.Drill == nil || end.Drill.Name != "primary-stop" || end.Plan.By != "ann" {
		t.Errorf("it ended as %+v", end)
	}
	if len(*events) != 2 || (*events)[1].Kind != "drill.failed" || (*events)[1].Level != cluster.Error {
		t.Errorf("events %+v", *events)
	}
}

// TestAReportIsTheSameOnBothSides: the engine's report travels as JSON into
// the control socket's, and nothing is lost on the way.
func TestAReportIsTheSameOnBothSides(t *testing.T) {
	const report = `{"id":"o1","name":"primary-stop","cluster":"main","started":"2026-01-02T12:00:00Z","took_ms":1,"verdict":"pass","why":["w"],` +
		`"fault_at_ms":2,"longest_pause_ms":3,"errors":{"40001":4},"in_flight":5,"connect_errors":6,"acknowledged":7,"lost":8,"unknown":9,"unknown_present":10,"longest_connect_ms":11,` +
		`"steps":[{"id":"1","kind":"gate.close","node":"n","title":"t","command":"c","state":"done","detail":"d","started":"2026-01-02T12:00:00Z","took_ms":12}],` +
		`"checks":[{"name":"n","ok":true,"saw":"s"}],"clients":[{"name":"n","kind":"lasting","acknowledged":13,"longest_pause_ms":14,"errors":[{"at_ms":15,"code":"c","text":"t","outcome":"absent"}]}],` +
		`"marks":[{"at_ms":16,"who":"fault","text":"t"}],"acks_per_100ms":[17]}`
	mine, theirs := sameJSON[drill.Report](t, report), sameJSON[api.DrillReport](t, report)
	for k, v := range mine {
		if k == "steps" {
			continue // a plan's step has more to say; what a report has of it is below
		}
		if string(theirs[k]) != string(v) {
			t.Errorf("%s is %s there and %s here", k, v, theirs[k])
		}
	}
	r := reportOf(plan.Operation{Extra: []byte(report)})
	if s := r.Steps[0]; s.ID != "1" || s.Kind != "gate.close" || s.Node != "n" || s.Title != "t" || s.Command != "c" || s.State != "done" || s.Detail != "d" || s.Started == nil || s.TookMS != 12 {
		t.Errorf("the step came as %+v", s)
	}
}

// sameJSON reads a text as T and gives what T writes, field by field.
func sameJSON[T any](t *testing.T, text string) map[string]json.RawMessage {
	t.Helper()
	var v T
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}
