package daemon

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute/sql"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

// How often the primary's files are looked at unasked, and for how long.
const (
	driftPeriod = 30 * time.Second
	driftLimit  = 10 * time.Second
)

// lookAtFiles reads the primary's sync and async configuration, over a
// connection of its own: the engine's is kept free for what cannot wait.
func (d *Daemon) lookAtFiles(ctx context.Context) (api.SyncFiles, error) {
	in := d.engine.Input()
	n, ok := in.Policy.Node(in.Record.Primary)
	if !ok {
		return api.SyncFiles{}, &api.Error{Code: api.CodePrecondition, Message: "no primary is recorded, so there is nothing to look at", Remedy: "wait until one is proved"}
	}
	ctx, cancel := context.WithTimeout(ctx, driftLimit)
	defer cancel()
	server := sql.New(n.ID, func(ctx context.Context) (*pgx.Conn, error) { return d.dialEngine(ctx, n) })
	defer server.Close()
	f := syncFiles(ctx, in.Policy, in.Record, n, d.hosts[n.ID], server.Show)
	if f.Error == "" {
		d.noteDrift(n.ID, driftSentence(f))
	}
	return f, nil
}

// noteDrift keeps what is wrong for the state, and tells when that changes.
func (d *Daemon) noteDrift(n cluster.NodeID, now string) {
	if was := d.drift.Swap(&now); *was == now {
		return
	}
	e := cluster.Event{Level: cluster.Warn, Kind: "config.drift", Node: n, Text: now}
	if now == "" {
		e.Level, e.Text = cluster.Info, "the configuration of "+string(n)+" is as it should be again"
	}
	d.event(e)
}

// watchDrift looks at the files from time to time, so that an edit is known
// before a failure needs the swap.
func (d *Daemon) watchDrift(ctx context.Context) {
	t := time.NewTicker(driftPeriod)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if d.gate.Status().State != "open" || d.engine.View().Operation != nil {
			continue // what is being changed is no drift
		}
		if _, err := d.lookAtFiles(ctx); err != nil {
			d.log.Debug("look at the primary's files", "error", err)
		}
	}
}
