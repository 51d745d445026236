package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine"
	"github.com/pgtandem/pgtandem/engine/assemble"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/drill"
	"github.com/pgtandem/pgtandem/engine/execute/steps"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// drillWorld is the cluster as a drill sees it.
type drillWorld struct {
	config func() *config.Config
	engine *engine.Engine
	gate   steps.Gate
	hosts  map[cluster.NodeID]steps.Host
}

var _ drill.World = (*drillWorld)(nil)

// Proxy is where a client on this host reaches us.
func (w *drillWorld) Proxy() (drill.Target, error) {
	c := w.config()
	password, err := c.Drill.Resolve()
	if err != nil {
		return drill.Target{}, fmt.Errorf("drill.user: %w", err)
	}
	return drill.Target{Host: reachable(c.Proxy.ListenAddresses), Port: c.Proxy.Port, Database: c.Drill.Database, User: c.Drill.User, Password: password}, nil
}

// reachable is an address at which we listen, as a client on this host dials
// it.
func reachable(listen []string) string {
	if len(listen) == 0 {
		return "127.0.0.1"
	}
	switch a := listen[0]; a {
	case "*", "0.0.0.0":
		return "127.0.0.1"
	case "::":
		return "::1"
	default:
		return a
	}
}

func (w *drillWorld) Record() cluster.Record { return w.engine.Input().Record }

func (w *drillWorld) Snapshot() cluster.Snapshot { return w.engine.Input().Snapshot }

func (w *drillWorld) GateOpen() bool {
	open, _, _ := w.gate.Passing()
	return open
}

func (w *drillWorld) Operations(ctx context.Context) ([]plan.Operation, error) {
	return w.engine.Operations(ctx, 20)
}

func (w *drillWorld) Watch() (<-chan struct{}, func()) { return w.engine.Watch() }

func (w *drillWorld) host(id cluster.NodeID) (steps.Host, error) {
	h, ok := w.hosts[id]
	if !ok {
		return nil, fmt.Errorf("there is no host for node %q", id)
	}
	return h, nil
}

func (w *drillWorld) Stop(ctx context.Context, id cluster.NodeID, mode string) error {
	h, err := w.host(id)
	if err != nil {
		return err
	}
	return h.Stop(ctx, mode)
}

func (w *drillWorld) Start(ctx context.Context, id cluster.NodeID) error {
	h, err := w.host(id)
	if err != nil {
		return err
	}
	return h.Start(ctx)
}

// Direct connects as the recovery role, past the proxy.
func (w *drillWorld) Direct(ctx context.Context, id cluster.NodeID) (*pgx.Conn, error) {
	c := w.config()
	for _, n := range assemble.Nodes(c) {
		if n.ID == id {
			return dialNode(ctx, c, n, c.Recovery.Credential, c.Drill.Database, "pgtandem drill")
		}
	}
	return nil, fmt.Errorf("there is no node %q", id)
}

// Switchover hands over as a person would ask for it. What the engine does by
// itself meanwhile has the right of way.
func (w *drillWorld) Switchover(ctx context.Context, id cluster.NodeID) error {
	changed, stop := w.engine.Watch()
	defer stop()
	for {
		op, err := w.switchover(ctx, id)
		var stale *engine.StaleError
		if err == nil {
			return w.wait(ctx, op.ID, changed)
		}
		if !errors.Is(err, engine.ErrBusy) && !errors.As(err, &stale) {
			return err
		}
		select {
		case <-changed:
		case <-time.After(time.Second):
		case <-ctx.Done():
			return fmt.Errorf("%w, last: %w", ctx.Err(), err)
		}
	}
}

func (w *drillWorld) switchover(ctx context.Context, id cluster.NodeID) (plan.Operation, error) {
	p, err := w.engine.Plan(plan.Request{Action: cluster.Switchover, Node: id, By: "drill", Reason: "the drill puts the pair back"})
	if err != nil {
		return plan.Operation{}, err
	}
	return w.engine.RunPlan(ctx, p.ID, p.Confirm, "drill")
}

func (w *drillWorld) wait(ctx context.Context, id string, changed <-chan struct{}) error {
	for {
		op, _, err := w.engine.Operation(ctx, id)
		if err != nil {
			return err
		}
		if !op.Ended.IsZero() {
			if op.Outcome != plan.Done {
				return fmt.Errorf("the switchover is %s: %s", op.Outcome, op.Error)
			}
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the switchover: %w", ctx.Err())
		}
	}
}

// dialNode connects to a node as a role, by what the configuration says now.
func dialNode(ctx context.Context, c *config.Config, n cluster.Node, cred config.Credential, database, application string) (*pgx.Conn, error) {
	cfg, err := assemble.ConnConfig(c, n, cred, database)
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams["application_name"] = application
	return pgx.ConnectConfig(ctx, cfg)
}
