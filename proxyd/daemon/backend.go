package daemon

import (
	"context"
	"fmt"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/plan"
	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/control"
)

// operationsListed bounds the list of operations.
const operationsListed = 100

// backend answers the control socket from the parts.
type backend struct{ *Daemon }

var _ control.Backend = backend{}

// State implements control.Backend. The sequence number is read first: the
// state may hold more than it says, never less.
func (b backend) State(ctx context.Context) (api.State, error) {
	seq, err := b.store.LastSeq(ctx)
	if err != nil {
		return api.State{}, fmt.Errorf("read the event log: %w", err)
	}
	st := stateOf(sight{
		Version: b.opt.Version, Started: b.started, Seq: seq, Config: b.config(), View: b.engine.View(),
		Gate: b.gate.Status(), Pool: b.sessions.Stats(), Drift: *b.drift.Load(),
	})
	if st.Operation == nil {
		if op, ok := b.drills.running(""); ok {
			st.Operation = &op
		}
	}
	return st, nil
}

// Changed implements control.Backend.
func (b backend) Changed() <-chan struct{} { return b.bell.Changed() }

// Events implements control.Backend.
func (b backend) Events(ctx context.Context, after uint64, limit int) ([]api.Event, error) {
	es, err := b.store.Events(ctx, after, limit)
	return each(es, eventOf), err
}

// LastEvents implements control.Backend: numbers have no gaps.
func (b backend) LastEvents(ctx context.Context, limit int) ([]api.Event, error) {
	last, err := b.store.LastSeq(ctx)
	if err != nil {
		return nil, err
	}
	return b.Events(ctx, last-min(last, uint64(limit)), limit)
}

// Pools implements control.Backend.
func (b backend) Pools(context.Context) ([]api.Pool, error) { return b.sessions.Pools(), nil }

// Clients implements control.Backend.
func (b backend) Clients(context.Context) ([]api.Client, error) { return b.sessions.Clients(), nil }

// Config implements control.Backend.
func (b backend) Config(context.Context) (api.Config, error) {
	c := b.config()
	return api.Config{Path: c.Path, Text: c.Redacted()}, nil
}

// SyncFiles implements control.Backend.
func (b backend) SyncFiles(ctx context.Context) (api.SyncFiles, error) { return b.lookAtFiles(ctx) }

// Plan implements control.Backend.
func (b backend) Plan(ctx context.Context, by control.Caller, r api.PlanRequest) (api.Plan, error) {
	p, err := b.planFor(by, r)
	if err != nil {
		return api.Plan{}, told(err)
	}
	return b.PlanByID(ctx, p.ID)
}

func (b backend) planFor(by control.Caller, r api.PlanRequest) (plan.Plan, error) {
	if r.Action == string(cluster.Provision) {
		return b.provision.plan(b.config(), b.engine, by.User, r.Reason)
	}
	return b.engine.Plan(plan.Request{
		Action: cluster.Action(r.Action), Node: cluster.NodeID(r.Node), Mode: cluster.Mode(r.Mode), Force: r.Force, Reason: r.Reason, By: by.User,
	})
}

// PlanByID implements control.Backend. A plan that has run is found in its
// operation.
func (b backend) PlanByID(ctx context.Context, id string) (api.Plan, error) {
	p, created, err := b.engine.Proposed(id)
	if err == nil {
		return planOf(p, created), nil
	}
	if op, _, found := b.engine.Operation(ctx, id); found == nil {
		return planOf(op.Plan, op.Started), nil
	}
	return api.Plan{}, told(err)
}

// Run implements control.Backend.
func (b backend) Run(ctx context.Context, by control.Caller, planID, confirm string) (api.Operation, error) {
	op, err := b.engine.RunPlan(ctx, planID, confirm, by.User)
	if err != nil {
		return api.Operation{}, told(err)
	}
	return operationOf(op, "", b.now()), nil
}

// Operation implements control.Backend.
func (b backend) Operation(ctx context.Context, id string) (api.Operation, error) {
	if op, ok := b.drills.running(id); ok {
		return op, nil
	}
	op, progress, err := b.engine.Operation(ctx, id)
	if err != nil {
		return api.Operation{}, told(fmt.Errorf("operation %q: %w", id, err))
	}
	return operationOf(op, progress, b.now()), nil
}

// Operations implements control.Backend.
func (b backend) Operations(ctx context.Context) ([]api.Operation, error) {
	ops, err := b.engine.Operations(ctx, operationsListed)
	if err != nil {
		return nil, err
	}
	now := b.now()
	running := b.engine.View()
	return each(ops, func(op plan.Operation) api.Operation {
		if d, ok := b.drills.running(op.ID); ok {
			return d
		}
		if running.Operation != nil && running.Operation.ID == op.ID {
			return operationOf(*running.Operation, running.Progress, now)
		}
		return operationOf(op, "", now)
	}), nil
}

// Drills implements control.Backend.
func (b backend) Drills(context.Context) ([]api.DrillInfo, error) { return b.drills.list(), nil }

// StartDrill implements control.Backend.
func (b backend) StartDrill(ctx context.Context, by control.Caller, r api.DrillRequest) (api.Operation, error) {
	op, err := b.drills.start(ctx, by.User, r)
	return op, told(err)
}

// DrillReports implements control.Backend.
func (b backend) DrillReports(ctx context.Context) ([]api.DrillReport, error) {
	ops, err := b.engine.Operations(ctx, 0)
	if err != nil {
		return nil, err
	}
	rs := []api.DrillReport{}
	for _, op := range ops {
		if op.Plan.Action != cluster.Drill {
			continue
		}
		if r := reportOf(op); r != nil {
			rs = append(rs, *r)
		}
	}
	return rs, nil
}

// Reload implements control.Backend.
func (b backend) Reload(_ context.Context, by control.Caller) (api.ReloadResult, error) {
	r, err := b.reload(by.User)
	return r, told(err)
}

// Maintenance implements control.Backend.
func (b backend) Maintenance(ctx context.Context, by control.Caller, r api.MaintenanceRequest) (api.State, error) {
	if err := b.engine.SetMaintenance(ctx, r.On); err != nil {
		return api.State{}, told(fmt.Errorf("set maintenance: %w", err))
	}
	text := "maintenance is off: the engine acts again"
	if r.On {
		text = "maintenance is on: the engine watches and does nothing"
	}
	b.event(cluster.Event{Level: cluster.Warn, Kind: "maintenance", By: by.User, Text: withReason(text, r.Reason)})
	return b.State(ctx)
}

func withReason(text, reason string) string {
	if reason == "" {
		return text
	}
	return text + " (" + reason + ")"
}

// Audit implements control.Backend.
func (b backend) Audit(_ context.Context, a control.Audit) error {
	fields := map[string]string{"uid": a.By.UID, "action": a.Action, "outcome": a.Outcome}
	for k, v := range a.Fields {
		fields[k] = v
	}
	text := fmt.Sprintf("%s asked to %s: %s", a.By.User, a.Action, a.Outcome)
	if a.Detail != "" {
		text += ": " + a.Detail
	}
	b.engine.Audit(a.By.User, text, fields)
	return nil
}
