package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine/assemble"
	"github.com/pgtandem/pgtandem/engine/clock"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/plan"
	"github.com/pgtandem/pgtandem/engine/provision"
	"github.com/pgtandem/pgtandem/engine/store/memory"
)

// provision sets the nodes up by the plan that sets up real hosts.
func (l *Lab) provision(ctx context.Context, cfg *config.Config) error {
	assemble.ForgetLibpq()
	m := assemble.Machines(cfg)
	defer func() { _ = m.Close() }() // what it was for is done
	spec := assemble.ProvisionSpec(cfg)
	spec.Primary = cluster.NodeID(l.state.Nodes[0].Name)
	spec.Init = true
	spec.Sample = &provision.SampleSpec{Database: Database, User: User, Table: "table1"}
	for i := range spec.Nodes {
		spec.Nodes[i].Extra = l.extra(string(spec.Nodes[i].ID))
	}
	p, err := provision.Build(spec)
	if err != nil {
		return err
	}
	r := &execute.Runner{Doers: provision.Doers(assemble.ProvisionWorld(cfg, spec, m)), Journal: memory.New(1), Clock: clock.System{}, Verify: 20 * time.Millisecond,
		Changed: l.reportSteps()}
	op, err := r.Run(ctx, plan.Operation{ID: "provision", Plan: p, Started: time.Now()})
	if err != nil {
		return err
	}
	if op.Outcome != plan.Done {
		return fmt.Errorf("set up the nodes: %s", op.Error)
	}
	return nil
}

// extra are settings that make sense on a lab only: one address, a socket of
// its own, and little memory.
func (l *Lab) extra(node string) [][2]string {
	listen := loopback
	if n, err := l.node(node); err == nil {
		listen = n.listen()
	}
	return [][2]string{
		{"listen_addresses", listen},
		{"unix_socket_directories", l.path(node, "socket")},
		{"shared_buffers", "64MB"},
		{"max_connections", "200"},
		{"max_wal_size", "256MB"},
		{"wal_keep_size", "128MB"},
		{"max_slot_wal_keep_size", "192MB"},
	}
}

// reportSteps says each step once, when it ends.
func (l *Lab) reportSteps() func(plan.Operation, string) {
	said := map[int]bool{}
	return func(op plan.Operation, progress string) {
		for i, s := range op.Steps {
			if (s.Outcome == plan.Done || s.Outcome == plan.Skipped || s.Outcome == plan.Failed) && !said[i] {
				said[i] = true
				l.say(fmt.Sprintf("%-7s %6.2f s  %s", s.Outcome, s.Took.Seconds(), op.Plan.Steps[i].Title))
			}
		}
		if progress != "" {
			l.say("                  " + progress)
		}
	}
}

// startNodes starts the servers of a lab that was down: first whoever is no
// standby, so that the others find somebody to follow.
func (l *Lab) startNodes(ctx context.Context, cfg *config.Config) error {
	m := assemble.Machines(cfg)
	defer func() { _ = m.Close() }() // what it was for is done
	first, then := []cluster.NodeID{}, []cluster.NodeID{}
	for _, n := range assemble.Nodes(cfg) {
		_, err := m.Hosts[n.ID].ReadFile(ctx, path.Join(n.DataDirectory, "standby.signal"))
		switch {
		case err == nil:
			then = append(then, n.ID)
		case errors.Is(err, fs.ErrNotExist):
			first = append(first, n.ID)
		default:
			return fmt.Errorf("look at %s: %w", n.ID, err)
		}
	}
	if len(first) > 1 {
		// A former primary that never came back as a standby: proxyd decides
		// by its record and brings it back itself.
		keep, err := l.newest(ctx, m, first)
		if err != nil {
			return err
		}
		first = []cluster.NodeID{keep}
	}
	for _, id := range append(first, then...) {
		state, _, err := m.Hosts[id].Postmaster(ctx)
		if err != nil {
			return fmt.Errorf("look at %s: %w", id, err)
		}
		if state == cluster.PostmasterRunning {
			continue
		}
		if state == cluster.PostmasterAbsent {
			l.say(fmt.Sprintf("left %s to proxyd: its data directory is gone", id))
			continue
		}
		err = m.Hosts[id].Start(ctx)
		if errors.Is(err, execute.ErrRefused) || errors.Is(err, execute.ErrRetry) { // half rewound, or being rewound still
			l.say(fmt.Sprintf("left %s to proxyd: %v", id, err))
			continue
		}
		if err != nil {
			return fmt.Errorf("start %s: %w", id, err)
		}
		l.say("started " + string(id))
	}
	return nil
}

// newest is the one on the highest timeline. A directory that is gone, or that
// an interrupted rewind left half done, holds no timeline.
func (l *Lab) newest(ctx context.Context, m *assemble.MachineSet, ids []cluster.NodeID) (best cluster.NodeID, err error) {
	var high cluster.Timeline
	for _, id := range ids {
		if state, _, err := m.Hosts[id].Postmaster(ctx); err == nil && state == cluster.PostmasterAbsent {
			continue
		}
		cd, err := m.Hosts[id].ControlData(ctx)
		if errors.Is(err, execute.ErrRefused) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("look at %s: %w", id, err)
		}
		if cd.Timeline > high {
			best, high = id, cd.Timeline
		}
	}
	if best == "" {
		return "", fmt.Errorf("none of %v has a data directory that can be started: begin anew with pgtandem lab destroy --dir %s", ids, l.Dir)
	}
	return best, nil
}

// Connect opens a superuser's connection to a node, past the proxy.
func (l *Lab) Connect(ctx context.Context, node, database string) (*pgx.Conn, error) {
	cfg, err := config.Load(l.Config())
	if err != nil {
		return nil, err
	}
	assemble.ForgetLibpq()
	for _, n := range assemble.Nodes(cfg) {
		if string(n.ID) != node {
			continue
		}
		c, err := assemble.ConnConfig(cfg, n, cfg.Recovery.Credential, database)
		if err != nil {
			return nil, err
		}
		return pgx.ConnectConfig(ctx, c)
	}
	return nil, fmt.Errorf("there is no node %q in the lab", node)
}
