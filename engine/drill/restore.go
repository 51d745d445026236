package drill

import (
	"context"
	"fmt"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// restore puts both nodes back as they were: the stopped one runs again as a
// standby, commits wait for it, and the primary is the one it was.
func (d *drill) restore(ctx context.Context) error {
	d.mark("restore", "putting the pair back")
	// A stopped standby is not started by the engine: somebody may have
	// stopped it on purpose. Here that was the drill. A former primary is the
	// engine's to start, once it is rewound.
	if d.stopped && !d.w.Record().Members[d.faulted].Fenced {
		if err := d.w.Start(ctx, d.faulted); err != nil {
			return fmt.Errorf("start %s: %w", d.faulted, err)
		}
	}
	if err := d.healthy(ctx); err != nil {
		return err
	}
	if d.w.Record().Primary != d.before.Primary {
		d.mark("restore", "in sync again; switching over to %s", d.before.Primary)
		if err := d.w.Switchover(ctx, d.before.Primary); err != nil {
			return fmt.Errorf("switch over to %s: %w", d.before.Primary, err)
		}
		if err := d.healthy(ctx); err != nil {
			return err
		}
	}
	d.mark("restore", "the pair is as it was")
	return nil
}

// healthy waits until every node that was eligible is so again.
func (d *drill) healthy(ctx context.Context) error {
	changed, unwatch := d.w.Watch()
	defer unwatch()
	for {
		missing := d.missing()
		if missing == "" {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait until the pair is in sync: %s: %w", missing, ctx.Err())
		}
	}
}

func (d *drill) missing() string {
	r := d.w.Record()
	if r.Mode != cluster.ModeSync {
		return "the mode is " + string(r.Mode)
	}
	for id, m := range d.before.Members {
		if m.Eligible && !r.Members[id].Eligible {
			return fmt.Sprintf("%s is not eligible: %s", id, r.Members[id].Reason)
		}
	}
	if !d.w.GateOpen() {
		return "the gate is closed"
	}
	return ""
}

func (d *drill) tearDown(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := d.through(ctx, "DROP TABLE IF EXISTS "+d.load.table); err != nil {
		d.mark("restore", "the drill's table was left: %v", err)
	}
}

func promotedChecks(ctx context.Context, w World, before cluster.Record) []Check {
	r := w.Record()
	c := Check{Name: fmt.Sprintf("pg_is_in_recovery() is false on %s", r.Primary)}
	var recovery bool
	c.Saw = ask(ctx, w, r.Primary, "SELECT pg_is_in_recovery()", &recovery)
	if c.Saw == "" {
		c.OK, c.Saw = !recovery, fmt.Sprint(recovery)
	}
	return []Check{c, {Name: "another node is the primary, of a higher term", OK: r.Primary != before.Primary && r.Term > before.Term,
		Saw: fmt.Sprintf("%s, term %d", r.Primary, r.Term)}}
}

func asyncChecks(ctx context.Context, w World, before cluster.Record) []Check {
	c := Check{Name: fmt.Sprintf("synchronous_standby_names is off on %s", before.Primary)}
	var v string
	c.Saw = ask(ctx, w, before.Primary, "SELECT current_setting('synchronous_standby_names')", &v)
	if c.Saw == "" {
		c.OK, c.Saw = v == "", fmt.Sprintf("%q", v)
	}
	return []Check{c, {Name: "the primary is the same", OK: w.Record().Primary == before.Primary, Saw: string(w.Record().Primary)}}
}

// ask reads one value from a node; what it returns is the error's text, or
// nothing.
func ask(ctx context.Context, w World, node cluster.NodeID, query string, to any) string {
	c, err := w.Direct(ctx, node)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = c.Close(ctx) }()
	if err := c.QueryRow(ctx, query).Scan(to); err != nil {
		return err.Error()
	}
	return ""
}
