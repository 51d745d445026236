package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/drill"
	"github.com/pgtandem/pgtandem/engine/plan"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

// Clients of a drill, and how long they go on once the cluster has recovered.
const (
	drillClients = 6
	drillMost    = 200
	drillAfter   = time.Second
)

// drills runs one drill at a time. The engine must stay free to deal with the
// fault, so a drill is not one of its operations; it is kept in the same
// journal.
type drills struct {
	world   drill.World
	config  func() *config.Config
	put     func(ctx context.Context, op plan.Operation) error
	event   func(cluster.Event)
	changed func()
	now     func() time.Time
	log     *slog.Logger

	ctx    context.Context // ends when the daemon does
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	count    int
	current  *plan.Operation
	progress string
}

// allowed says whether drills may be run here, and what must be typed for it.
func (d *drills) allowed() (confirm, whyNot string) {
	c := d.config()
	switch {
	case c.Drill.User == "":
		return "", "drill.user is not set: a drill needs a role for its clients to log in as"
	case c.Cluster.Lab:
		return "", ""
	case !c.Drill.Allow:
		return c.Cluster.Name, "this is no lab, and drill.allow is false in the configuration"
	}
	return c.Cluster.Name, ""
}

func (d *drills) list() []api.DrillInfo {
	confirm, whyNot := d.allowed()
	return each(drill.Scenarios(), func(s drill.Scenario) api.DrillInfo {
		i := api.DrillInfo{Name: s.Name, Title: s.Title, Fault: s.Fault, Expects: s.Expects, Allowed: whyNot == "", WhyNot: whyNot, Confirm: confirm}
		if whyNot == "" {
			if err := drill.Ready(d.world, s); err != nil {
				i.Allowed, i.WhyNot = false, err.Error()
			}
		}
		return i
	})
}

// start begins a drill, or says why not.
func (d *drills) start(ctx context.Context, by string, r api.DrillRequest) (api.Operation, error) {
	s, err := drill.Find(r.Name)
	if err != nil {
		return api.Operation{}, err
	}
	confirm, whyNot := d.allowed()
	switch {
	case whyNot != "":
		return api.Operation{}, &api.Error{Code: api.CodePrecondition, Message: "no drill can be run: " + whyNot}
	case confirm != r.Confirm:
		return api.Operation{}, &api.Error{Code: api.CodeConfirm, Message: "a drill stops a server on purpose, and the confirmation does not match", Remedy: fmt.Sprintf("type the cluster's name, %q", confirm)}
	case r.Clients < 0 || r.Clients > drillMost:
		return api.Operation{}, &api.Error{Code: api.CodeUsage, Message: fmt.Sprintf("%d clients", r.Clients), Remedy: fmt.Sprintf("from 1 to %d, or 0 for %d", drillMost, drillClients)}
	}
	if err := drill.Ready(d.world, s); err != nil {
		return api.Operation{}, err
	}
	op, err := d.begin(by, s)
	if err != nil {
		return api.Operation{}, err
	}
	if err := d.put(ctx, op); err != nil {
		d.end()
		return api.Operation{}, fmt.Errorf("write the journal: %w", err)
	}
	d.event(cluster.Event{Level: cluster.Info, Kind: "drill.started", Op: op.ID, By: by, Text: "drill " + s.Name + ": " + s.Title})
	d.wg.Add(1)
	go func() {
		defer d.wg.Done()
		d.run(op, s, r.Clients)
	}()
	return operationOf(op, "", d.now()), nil
}

func (d *drills) begin(by string, s drill.Scenario) (plan.Operation, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current != nil {
		return plan.Operation{}, fmt.Errorf("%w: a drill", engine.ErrBusy)
	}
	d.count++
	now := d.now()
	op := plan.Operation{
		ID: fmt.Sprintf("%s-drill%d", now.UTC().Format("20060102T150405.000"), d.count), Outcome: plan.Running, Started: now,
		Plan: plan.Plan{Action: cluster.Drill, Reason: s.Name + ": " + s.Title, By: by, Effects: []string{s.Fault, s.Expects}},
	}
	op.Plan.ID = op.ID
	d.current, d.progress = &op, ""
	return op, nil
}

func (d *drills) end() {
	d.mu.Lock()
	d.current, d.progress = nil, ""
	d.mu.Unlock()
	d.changed()
}

func (d *drills) run(op plan.Operation, s drill.Scenario, clients int) {
	if clients == 0 {
		clients = drillClients
	}
	r, err := drill.Run(d.ctx, d.world, s, drill.Options{
		ID: op.ID, Cluster: d.config().Cluster.Name, Lasting: clients - clients/3, Connecting: clients / 3, After: drillAfter, Progress: d.tell,
	})
	op.Outcome, op.Ended = plan.Done, d.now()
	if err != nil {
		op.Outcome, op.Error = plan.Failed, err.Error()
	}
	if op.Extra, err = json.Marshal(r); err != nil {
		d.log.Error("encode a drill's report", "operation", op.ID, "error", err)
	}
	// The daemon may be stopping: what was measured is kept all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), 5*time.Second)
	defer cancel()
	if err := d.put(ctx, op); err != nil {
		d.log.Error("write the journal", "operation", op.ID, "error", err)
	}
	d.event(drillEvent(op, r))
	d.end()
}

func drillEvent(op plan.Operation, r drill.Report) cluster.Event {
	e := cluster.Event{Level: cluster.Info, Kind: "drill.done", Op: op.ID, By: op.Plan.By,
		Text: fmt.Sprintf("drill %s: %s; %d rows acknowledged, %d lost, longest pause %.0f ms", r.Name, r.Verdict, r.Acknowledged, r.Lost, r.LongestPauseMS),
		Fields: map[string]string{"verdict": r.Verdict, "acknowledged": fmt.Sprint(r.Acknowledged), "lost": fmt.Sprint(r.Lost),
			"longest_pause_ms": fmt.Sprintf("%.1f", r.LongestPauseMS), "connect_errors": fmt.Sprint(r.ConnectErrors)}}
	switch {
	case op.Outcome == plan.Failed:
		e.Level, e.Kind, e.Text = cluster.Error, "drill.failed", "drill "+r.Name+" could not be finished: "+op.Error
	case r.Verdict != "pass":
		e.Level = cluster.Error
	}
	return e
}

func (d *drills) tell(line string) {
	d.mu.Lock()
	d.progress = line
	d.mu.Unlock()
	d.changed()
}

// running is the drill in progress, if it is the one with this id; an empty id
// means any.
func (d *drills) running(id string) (api.Operation, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current == nil || id != "" && d.current.ID != id {
		return api.Operation{}, false
	}
	return operationOf(*d.current, d.progress, d.now()), true
}

// stop cuts the drill in progress short. It puts the cluster back first, which
// is waited for until ctx ends.
func (d *drills) stop(ctx context.Context) {
	d.cancel()
	over := make(chan struct{})
	go func() { d.wg.Wait(); close(over) }()
	select {
	case <-over:
	case <-ctx.Done():
		d.log.Error("the drill in progress did not end; the cluster may not be as it was before it")
	}
}
