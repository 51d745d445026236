package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgtandem/pgtandem/engine/chaos/check"
	"github.com/pgtandem/pgtandem/engine/chaos/history"
	"github.com/pgtandem/pgtandem/engine/chaos/schedule"
	"github.com/pgtandem/pgtandem/engine/chaos/workload"
	"github.com/pgtandem/pgtandem/engine/lab/control"
)

const (
	convergence = 60 * time.Second // from the last fault's undoing until all is whole
	service     = 20 * time.Second // from then on until each client is served
	registerMax = 20 * time.Second // for the search of one register's order
)

// What can be wrong beside what the histories show.
const (
	notWhole  = "did not converge"
	notServed = "clients are not served"
	unread    = "not readable"
)

// result is what came of one run.
type result struct {
	seed       uint64
	nodes      int
	plan       schedule.Schedule
	failovers  uint64 // changes of primary, as terms count them
	ok         int
	failed     int
	unknown    int
	pause      time.Duration
	converged  time.Duration // after everything was undone
	took       time.Duration
	reads      bool        // go to standbys as well
	landed     map[int]int // how many the nodes have served, by their ports
	directAcks int         // writes past the proxy that an older timeline took after a newer one's first
	violations []check.Violation
	held       map[string]workload.Content // by node, in the end
	evidence   string
}

func (r result) passed() bool { return len(r.violations) == 0 }

// oneRun makes one schedule on a whole cluster. An error means that the run
// could not be made; what it found is in the result.
func oneRun(ctx context.Context, c *cluster, seed uint64, o options) (result, error) {
	r := result{seed: seed, nodes: o.nodes}
	plan, err := schedule.Make(seed, o.nodes, c.faults.Offered())
	if err != nil {
		return r, err
	}
	r.plan = plan
	begun := time.Now()
	ready, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	before, err := c.daemon.Whole(ready)
	if err != nil {
		return r, err
	}
	r.reads = readsOf(c.build, seed)
	if err := c.balance(ready, r.reads); err != nil {
		return r, err
	}
	if err := c.prepare(ready, r.reads); err != nil {
		return r, err
	}
	log := history.New()
	proxy, nodes := c.proxy()
	load, err := workload.Start(ctx, log, proxy, nodes, seed, r.reads)
	if err != nil {
		return r, err
	}
	d := &driver{c: c, log: log, last: before, told: func(a act) {
		if o.verbose {
			fmt.Println("   ", a)
		}
	}}
	d.drive(ctx, plan)
	after, found := c.recover(ctx, d, load, log, &r)
	r.violations = append(r.violations, found...)
	ended, cancel := within(workloadEnd)
	defer cancel()
	if err := load.Stop(ended); err != nil {
		return r, err
	}
	if ctx.Err() != nil {
		return r, ctx.Err()
	}
	ops := log.Ops()
	r.count(ops)
	if after.Term > before.Term {
		r.failovers = after.Term - before.Term
	}
	if r.passed() {
		r.held, found = c.judge(ctx, after, ops)
		r.violations = append(r.violations, found...)
	} else {
		r.violations = append(r.violations, check.Terms(ops)...)
	}
	r.took = time.Since(begun)
	if !r.passed() || r.directAcks > 0 || o.keep {
		r.evidence, err = keep(c, r, d.acts, ops, before.Seq, o)
	}
	return r, err
}

// workloadEnd is how long the clients' last requests may take.
const workloadEnd = 40 * time.Second

// recover undoes every fault and waits until the cluster is whole and serves.
func (c *cluster) recover(ctx context.Context, d *driver, load *workload.Load, log *history.Log, r *result) (after control.State, out []check.Violation) {
	bounded, cancel := context.WithTimeout(ctx, convergence)
	defer cancel()
	a := act{At: log.Now(), Gesture: "heal", Step: "undo everything"}
	if err := errors.Join(c.faults.Heal(bounded), c.startWhatEnded(bounded)); err != nil {
		a.Note = err.Error()
	}
	a.Took = log.Now() - a.At
	d.acts = append(d.acts, a)
	d.told(a)
	healed := log.Now()
	after, err := c.whole(bounded)
	if err == nil && c.settled(bounded, log, healed) == nil {
		after, err = c.whole(bounded)
	}
	if err != nil {
		return after, []check.Violation{{What: notWhole, Text: fmt.Sprintf("within %s of the last fault's end: %v", convergence, err)}}
	}
	r.converged = log.Now() - healed
	serving, done := context.WithTimeout(ctx, service)
	defer done()
	if err := load.Served(serving, log.Now()); err != nil {
		out = append(out, check.Violation{What: notServed, Text: fmt.Sprintf("within %s of the cluster being whole: %v", service, err)})
	}
	return after, out
}

// whole waits until the cluster is. Where files are swapped, an entry that
// somebody made by ALTER SYSTEM wins over them and is refused with the advice to
// remove it; a person who heals follows that, as soon as the node that has the
// entry runs.
func (c *cluster) whole(ctx context.Context) (control.State, error) {
	for {
		if c.build.swap == "files" {
			c.resetByHand(ctx)
		}
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		s, err := c.daemon.Whole(bounded)
		cancel()
		if err == nil || ctx.Err() != nil {
			return s, err
		}
	}
}

func (c *cluster) resetByHand(ctx context.Context) {
	for _, node := range c.faults.Nodes() {
		for _, statement := range []string{"ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"} {
			if _, err := c.faults.SQL(ctx, node, statement); err != nil {
				break // it does not run yet, and the cluster is not whole before it does
			}
		}
	}
}

// startWhatEnded starts the servers that ended by themselves, as a standby
// does whose startup process was killed: a person would. Those that the daemon
// has fenced are its own to bring back.
func (c *cluster) startWhatEnded(ctx context.Context) error {
	s, err := c.daemon.State(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range c.Status().Nodes {
		if seen, ok := s.Node(n.Name); ok && n.PID == 0 && !seen.Fenced {
			errs = append(errs, c.faults.Start(ctx, n.Name))
		}
	}
	return errors.Join(errs...)
}

// settle is three of the lab's health checks: what the daemon says of a node
// that was mended just now may be older than that.
const settle = 1500 * time.Millisecond

func (c *cluster) settled(ctx context.Context, log *history.Log, healed time.Duration) error {
	t := time.NewTimer(healed + settle - log.Now())
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// judge reads what the servers hold and lets the checkers judge it.
func (c *cluster) judge(ctx context.Context, s control.State, ops []history.Op) (held map[string]workload.Content, out []check.Violation) {
	held = map[string]workload.Content{}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	unreadable := func(err error) (map[string]workload.Content, []check.Violation) {
		return held, append(out, check.Violation{What: unread, Text: err.Error()})
	}
	holds, end, err := c.content(ctx, s.Primary, "")
	if err != nil {
		return unreadable(err)
	}
	held[s.Primary] = holds
	out = append(out, check.Set(ops, holds.Set)...)
	out = append(out, check.Bank(ops, workload.Deposits(), holds.Ledger)...)
	out = append(out, check.Register(ops, holds.Registers, registerMax)...)
	out = append(out, check.Terms(ops)...)
	out = append(out, check.Reads(ops, holds.Seen, lagLimit)...)
	for _, standby := range s.Standbys() {
		follows, _, err := c.content(ctx, standby, end)
		if err != nil {
			return unreadable(err)
		}
		held[standby] = follows
		for _, d := range holds.Differences(follows) {
			out = append(out, check.Violation{What: check.Differs, Text: fmt.Sprintf("%s against the primary %s: %s", standby, s.Primary, d)})
		}
	}
	now, err := c.daemon.State(ctx)
	if err != nil {
		return unreadable(err)
	}
	if now.Term != s.Term {
		err := errors.New("there was a change of primary after everything was undone")
		return unreadable(fmt.Errorf("term %d, and then %d: %w", s.Term, now.Term, err))
	}
	return held, out
}

// count fills in what the clients saw.
func (r *result) count(ops []history.Op) {
	for _, op := range ops {
		if op.Kind == history.DirectWrite {
			continue
		}
		switch op.Outcome {
		case history.OK:
			r.ok++
		case history.Failed:
			r.failed++
		case history.Unknown:
			r.unknown++
		}
	}
	r.landed = check.Landed(ops)
	r.pause = history.LongestPause(ops)
	r.directAcks = check.Strays(ops)
}
