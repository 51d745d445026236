package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/drill"
	"github.com/pgtandem/pgtandem/engine/lab/control"
)

// scene is one fault that clients live through.
type scene struct {
	name    string
	title   string
	goal    string
	mayFail bool // a statement in flight may end in an error
	// refused: while the daemon is down nobody can connect, which is no error
	// of anybody's beyond that.
	refused bool
	fault   func(ctx context.Context, r *rig, s control.State) error
	// after undoes what the engine does not, once clients write again.
	after func(ctx context.Context, r *rig, before control.State) error
	// right says what is wrong with the state at the end; nothing if nothing.
	right func(before, now control.State) string
}

func scenes() []scene {
	return []scene{
		{name: "stopped", title: "primary stopped (immediate)", goal: "250 ms", mayFail: true, right: another,
			fault: func(ctx context.Context, r *rig, s control.State) error {
				return r.faults.StopImmediate(ctx, s.Primary)
			}},
		{name: "killed", title: "primary killed (SIGKILL of all)", goal: "250 ms", mayFail: true, right: another,
			fault: func(ctx context.Context, r *rig, s control.State) error { return r.faults.KillAll(ctx, s.Primary) }},
		{name: "frozen", title: "primary frozen, later woken", goal: "3 s", mayFail: true, right: another,
			fault: func(ctx context.Context, r *rig, s control.State) error { return r.faults.Freeze(ctx, s.Primary) },
			after: func(ctx context.Context, r *rig, s control.State) error { return r.faults.Wake(ctx, s.Primary) }},
		{name: "standby", title: "standby killed", goal: "150 ms", right: same,
			fault: func(ctx context.Context, r *rig, s control.State) error {
				return r.faults.KillAll(ctx, s.Standbys()[0])
			},
			after: func(ctx context.Context, r *rig, s control.State) error {
				return r.faults.Start(ctx, s.Standbys()[0])
			}},
		{name: "switchover", title: "switchover there", goal: "500 ms", right: another, fault: handOver},
		{name: "back", title: "switchover back", goal: "500 ms", right: another, fault: handOver},
		{name: "proxyd", title: "proxyd killed, started again", goal: "its downtime", mayFail: true, refused: true, right: same,
			fault: func(ctx context.Context, r *rig, _ control.State) error {
				if err := r.faults.KillDaemon(ctx); err != nil {
					return err
				}
				return r.faults.StartDaemon(ctx)
			}},
	}
}

func handOver(ctx context.Context, r *rig, s control.State) error {
	return r.control.Switchover(ctx, s.Standbys()[0])
}

func another(before, now control.State) string {
	if now.Primary == before.Primary || now.Term != before.Term+1 {
		return fmt.Sprintf("the primary was %s of term %d and is %s of term %d", before.Primary, before.Term, now.Primary, now.Term)
	}
	return ""
}

func same(before, now control.State) string {
	if now.Primary != before.Primary || now.Term != before.Term {
		return fmt.Sprintf("the primary was %s of term %d and is %s of term %d, although it was well", before.Primary, before.Term, now.Primary, now.Term)
	}
	return ""
}

func names() (out []string) {
	for _, s := range scenes() {
		out = append(out, s.name)
	}
	return out
}

// choose finds scenes by their names.
func choose(list string) ([]scene, error) {
	all := scenes()
	if list == "" {
		return all, nil
	}
	if list == "wakings" {
		list = "frozen"
	}
	var out []scene
	for _, name := range strings.Split(list, ",") {
		i := slices.IndexFunc(all, func(s scene) bool { return s.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("there is no fault %q: %s, wakings, jitter", name, strings.Join(names(), ", "))
		}
		out = append(out, all[i])
	}
	return out, nil
}

// How long a bout may take in all, and how long clients go on once the cluster
// is whole again.
const (
	boutLimit = 3 * time.Minute
	boutAfter = time.Second
)

// measure runs the scenes, interleaved, so that what drifts on the machine
// falls on all of them alike, and prints the table.
func (r *rig) measure(ctx context.Context, chosen []scene) error {
	got := make([][]drill.Measured, len(chosen))
	for round := range r.runs {
		for i, s := range chosen {
			m, err := r.bout(ctx, s)
			if err != nil {
				fmt.Print(table(chosen, got))
				return fmt.Errorf("%s, run %d: %w", s.title, round+1, err)
			}
			progress("run %d of %d: %-32s %6.0f ms, %d lost, %d errors beyond %s", round+1, r.runs, s.title, m.WorstClientMS, m.Lost, beyond(s, m), seen(m))
			got[i] = append(got[i], m)
			r.explain(ctx, m.Started)
		}
	}
	fmt.Printf("%d clients, default health checks, medians of %d interleaved runs; the pause is that of the client that waited longest\n\n%s", r.clients, r.runs, table(chosen, got))
	return nil
}

// beyond counts what no statement in flight excuses.
func beyond(s scene, m drill.Measured) int {
	if s.refused {
		return m.Beyond
	}
	return m.Beyond + m.ConnectErrors
}

// seen are the errors by their codes, to be read.
func seen(m drill.Measured) string {
	if len(m.Errors) == 0 && m.ConnectErrors == 0 {
		return ""
	}
	return fmt.Sprintf("(%v, %d connections refused)", m.Errors, m.ConnectErrors)
}

// bout lives through one scene and checks what is left.
func (r *rig) bout(ctx context.Context, s scene) (drill.Measured, error) {
	ctx, cancel := context.WithTimeout(ctx, boutLimit)
	defer cancel()
	if _, err := r.control.Whole(ctx); err != nil {
		return drill.Measured{}, fmt.Errorf("before: %w", err)
	}
	r.bouts++
	b, err := drill.Begin(ctx, r.target, fmt.Sprintf("%s-%d", s.name, r.bouts), r.clients)
	if err != nil {
		return drill.Measured{}, err
	}
	before, liveErr := r.live(ctx, s, b)
	// The rows are read back also where something went wrong: whether any was
	// lost is the question that matters most.
	last, end := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer end()
	now, stateErr := r.control.State(last)
	m, err := b.End(last, s.mayFail, func(ctx context.Context) (*pgx.Conn, error) {
		return r.lab.Connect(ctx, now.Primary, r.target.Database)
	})
	r.blame(s, m.Lost > 0, "%d rows were lost", m.Lost)
	r.blame(s, m.Lies > 0, "%d rows are there although the client was told that they were not written", m.Lies)
	r.blame(s, now.Halted != "", "the engine halted: %s", now.Halted)
	if liveErr == nil && stateErr == nil {
		why := s.right(before, now)
		r.blame(s, why != "", "%s", why)
	}
	for _, err := range []error{liveErr, stateErr, err} {
		if err != nil {
			return m, err
		}
	}
	return m, nil
}

// live makes the fault at some moment between two health checks, and waits
// until the cluster is whole.
func (r *rig) live(ctx context.Context, s scene, b *drill.Bout) (before control.State, err error) {
	if err := b.Settled(ctx, rand.N(time.Second)); err != nil {
		return before, err
	}
	if before, err = r.control.Whole(ctx); err != nil {
		return before, fmt.Errorf("before: %w", err)
	}
	if err := b.Fault(func() error { return s.fault(ctx, r, before) }); err != nil {
		return before, err
	}
	if err := b.Settled(ctx, boutAfter); err != nil {
		return before, err
	}
	if s.after != nil {
		if err := s.after(ctx, r, before); err != nil {
			return before, err
		}
	}
	if _, err := r.control.Whole(ctx); err != nil {
		return before, fmt.Errorf("after: %w", err)
	}
	return before, b.Settled(ctx, boutAfter)
}

// explain tells what the daemon did since some moment, and how long each step
// took: where a pause went.
func (r *rig) explain(ctx context.Context, since time.Time) {
	ops, err := r.control.Operations(ctx)
	if err != nil {
		progress("%v", err)
		return
	}
	slices.Reverse(ops)
	for _, op := range ops {
		if op.Started.Before(since) {
			continue
		}
		var steps []string
		for _, s := range op.Plan.Steps {
			if s.TookMS >= 1 {
				steps = append(steps, fmt.Sprintf("%s %s %.0f", s.Kind, s.Node, s.TookMS))
			}
		}
		progress("      %s %s, %s in %.0f ms by rule %d: %s", op.Plan.Action, op.Plan.Node, op.State, op.TookMS, op.Plan.Rule, strings.Join(steps, ", "))
	}
}

func (r *rig) blame(s scene, when bool, format string, args ...any) {
	if when {
		what := fmt.Sprintf("%s, bout %d: %s", s.title, r.bouts, fmt.Sprintf(format, args...))
		progress("%s", what)
		r.wrong = append(r.wrong, what)
	}
}
