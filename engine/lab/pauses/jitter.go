package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/drill"
	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/fault"
)

// shaky is the network on which packets can be delayed, and as root dropped.
func shaky() lab.Network {
	if os.Geteuid() == 0 {
		return lab.NamespaceRelayedNetwork
	}
	return lab.RelayedNetwork
}

// shake runs a load over a bad network and counts what the engine did about
// it. Nothing has failed, so nothing should be done to the primary.
func (r *rig) shake(ctx context.Context) error {
	before, err := r.control.Whole(ctx)
	if err != nil {
		return err
	}
	progress("filling pgbench's tables")
	if out, err := r.pgbench(ctx, "-i", "-q", "-s", "5"); err != nil {
		return fmt.Errorf("fill pgbench's tables: %w\n%s", err, out)
	}
	b, err := drill.Begin(ctx, r.target, "jitter", 1)
	if err != nil {
		return err
	}
	loss := r.percent
	err = b.Fault(func() error {
		if err := r.faults.Loss(ctx, r.percent); errors.Is(err, fault.ErrNotOffered) {
			progress("no packets are dropped: %v", err)
			loss = 0
		} else if err != nil {
			return err
		}
		return r.faults.Jitter(ctx, r.jitter)
	})
	var out string
	var tally tally
	if err == nil {
		out, err = r.load(ctx, before.Seq, &tally)
	}
	repair, cancel := context.WithTimeout(context.WithoutCancel(ctx), boutLimit)
	defer cancel()
	err = errors.Join(err, r.faults.Repair(repair))
	after, e := r.control.Whole(repair)
	err = errors.Join(err, e)
	m, e := b.End(repair, false, func(ctx context.Context) (*pgx.Conn, error) {
		return r.lab.Connect(ctx, after.Primary, r.target.Database)
	})
	if err = errors.Join(err, e); err != nil {
		return err
	}
	fmt.Printf("%d minutes of pgbench and one client of our own, %d %% of packets dropped, up to %s added at random\n\n%s\n"+
		"failovers: %d (goal 0)   degradations: %d   restorations: %d   terms: %d to %d\n"+
		"our client: %d rows, %d lost, longest pause %.0f ms, errors %v\n",
		r.minutes, loss, r.jitter, out, tally.promotions, tally.degradations, tally.restorations, before.Term, after.Term, m.Acknowledged, m.Lost, m.WorstClientMS, m.Errors)
	if m.Lost > 0 || m.Lies > 0 || tally.promotions > 0 || after.Term != before.Term || after.Halted != "" {
		r.wrong = append(r.wrong, fmt.Sprintf("%d failovers, %d rows lost, %d lies; %s", tally.promotions, m.Lost, m.Lies, after.Halted))
	}
	return nil
}

// load runs pgbench for the time, and follows the daemon's events meanwhile.
func (r *rig) load(ctx context.Context, since uint64, t *tally) (string, error) {
	type result struct {
		out string
		err error
	}
	over := make(chan result, 1)
	go func() { // ends with pgbench, or with ctx
		out, err := r.pgbench(ctx, "-n", "-c", strconv.Itoa(r.clients), "-j", "1", "-T", strconv.Itoa(r.minutes*60))
		over <- result{out, err}
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	t.since = since
	for {
		select {
		case res := <-over:
			if err := r.follow(ctx, t); err != nil {
				return res.out, err
			}
			if res.err != nil {
				// A client of pgbench gives up at its first error: that is a
				// finding, and what the others did counts still.
				progress("pgbench: %v", res.err)
			}
			return res.out, ctx.Err()
		case <-tick.C:
			if err := r.follow(ctx, t); err != nil {
				return "", err
			}
		}
	}
}

// tally counts what the engine began to do.
type tally struct {
	since                                  uint64
	promotions, degradations, restorations int
}

func (r *rig) follow(ctx context.Context, t *tally) error {
	events, err := r.control.Events(ctx, t.since, 1000)
	if err != nil {
		return err
	}
	for _, e := range events {
		t.since = e.Seq
		if e.Kind != "operation.started" {
			continue
		}
		progress("%s", e.Text)
		action, _, _ := strings.Cut(e.Text, " ")
		switch action {
		case "promote":
			t.promotions++
		case "degrade":
			t.degradations++
		case "restore":
			t.restorations++
		}
	}
	return nil
}

// pgbench runs it through the proxy and gives what it printed.
func (r *rig) pgbench(ctx context.Context, args ...string) (string, error) {
	program := filepath.Join(r.lab.Status().Nodes[0].BinDirectory, "pgbench")
	c := exec.CommandContext(ctx, program, append(args, "-h", r.target.Host, "-p", strconv.Itoa(r.target.Port), "-U", r.target.User, r.target.Database)...)
	c.Env = append(os.Environ(), "PGPASSWORD="+r.target.Password, "PGSSLMODE=disable", "LC_ALL=C")
	out, err := c.CombinedOutput()
	return string(out), err
}
