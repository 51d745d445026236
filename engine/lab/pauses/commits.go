package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/clock"
	"github.com/pgtandem/pgtandem/engine/lab/fault"
)

// killing is one way to kill a primary.
type killing struct {
	name string
	do   func(ctx context.Context, r *rig, node string) error
}

// Where one process of a server is killed its postmaster ends all the others,
// and recovers: the server restarts in place. A postmaster that is gone makes
// the standby take over.
var (
	inPlace = []killing{
		{"a server process in its COMMIT killed", func(ctx context.Context, r *rig, node string) error {
			return r.whileWorking(ctx, func() error { return r.faults.KillOne(ctx, node, fault.Committer) })
		}},
		{"the checkpointer killed", func(ctx context.Context, r *rig, node string) error {
			return r.faults.KillOne(ctx, node, fault.Checkpointer)
		}},
	}
	takeOver = []killing{
		{"all processes killed", func(ctx context.Context, r *rig, node string) error { return r.faults.KillAll(ctx, node) }},
		{"stopped (immediate)", func(ctx context.Context, r *rig, node string) error { return r.faults.StopImmediate(ctx, node) }},
		{"the postmaster killed", func(ctx context.Context, r *rig, node string) error { return r.faults.KillPostmaster(ctx, node) }},
	}
)

// whileWorking repeats what found nobody in a COMMIT.
func (r *rig) whileWorking(ctx context.Context, do func() error) error {
	return clock.Every(ctx, clock.System{}, time.Millisecond, func() (bool, string, error) {
		err := do()
		if errors.Is(err, fault.ErrNothing) {
			return false, err.Error(), nil
		}
		return err == nil, fmt.Sprint(err), err
	})
}

// next chooses how the next kill is made.
func (r *rig) next() killing {
	if rand.N(100) < r.takeovers {
		return takeOver[rand.N(len(takeOver))]
	}
	return inPlace[rand.N(len(inPlace))]
}

// commits kills the primary again and again while clients commit, and compares
// what each was told with what is there. Clients work in shifts, around the kill
// alone, so that the machine is left to who mends it in between.
func (r *rig) commits(ctx context.Context) error {
	s, err := r.control.Whole(ctx)
	if err != nil {
		return err
	}
	err = r.onPrimary(ctx, s.Primary, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, strings.Join(truthsTable(r.target.User), ";"))
		return err
	})
	if err != nil {
		return fmt.Errorf("make a table: %w", err)
	}
	t, made := newTruths(), map[string]int{}
	work, stop := context.WithCancel(ctx)
	var crew sync.WaitGroup
	r.shift.Lock()
	all := shapes()
	for i := range max(r.clients, len(all)) {
		crew.Go(func() { r.work(work, t, all[i%len(all)]) })
	}
	err = r.killing(ctx, t, made)
	stop()
	r.shift.Unlock()
	crew.Wait()
	fmt.Printf("%d kills in pool mode %s:\n", r.bouts, r.mode)
	for _, name := range slices.Sorted(maps.Keys(made)) {
		fmt.Printf("%6d  %s\n", made[name], name)
	}
	fmt.Printf("%d lies\n%s", len(r.wrong), t)
	return err
}

func (r *rig) onPrimary(ctx context.Context, node string, do func(*pgx.Conn) error) error {
	c, err := r.lab.Connect(ctx, node, r.target.Database)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }()
	return do(c)
}

// killing makes the kills. No client works when it begins and when it ends.
func (r *rig) killing(ctx context.Context, t *truths, made map[string]int) error {
	end := time.Now().Add(time.Duration(r.minutes) * time.Minute)
	for r.bouts < r.runs && time.Now().Before(end) {
		how := r.next()
		bout, cancel := context.WithTimeout(ctx, boutLimit)
		err := r.killed(bout, t, how)
		cancel()
		if err != nil {
			return fmt.Errorf("kill %d, %s: %w", r.bouts, how.name, err)
		}
		if made[how.name]++; r.bouts%10 == 0 {
			progress("%d of %d kills: %s", r.bouts, r.runs, t.brief())
		}
	}
	last, cancel := context.WithTimeout(ctx, boutLimit)
	defer cancel()
	return r.compared(last, t.all) // once more, after all that came behind
}

func (r *rig) killed(ctx context.Context, t *truths, how killing) error {
	s, err := r.control.Whole(ctx)
	if err != nil {
		return err
	}
	r.bouts++
	t.shift()
	r.shift.Unlock()
	err = wait(ctx, 50*time.Millisecond+rand.N(150*time.Millisecond))
	if err == nil {
		t.strike()
		err = how.do(ctx, r, s.Primary)
	}
	r.shift.Lock() // once every client was told
	if err != nil {
		return err
	}
	return r.compared(ctx, t.take())
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// compared compares what was told with what the primary has.
func (r *rig) compared(ctx context.Context, was map[int64]outcome) error {
	return clock.Every(ctx, clock.System{}, 50*time.Millisecond, func() (bool, string, error) {
		s, err := r.control.State(ctx)
		if err != nil {
			return false, "", err
		}
		there, err := r.there(ctx, s.Primary)
		if err != nil { // it may not have been noticed yet that the server restarts
			return false, err.Error(), nil
		}
		for _, lie := range lies(was, there) {
			if !slices.Contains(r.wrong, lie) {
				progress("%s", lie)
				r.wrong = append(r.wrong, lie)
			}
		}
		return true, "", nil
	})
}

// there reads back what is in the table.
func (r *rig) there(ctx context.Context, node string) (map[int64]bool, error) {
	there := map[int64]bool{}
	err := r.onPrimary(ctx, node, func(c *pgx.Conn) error {
		rows, err := c.Query(ctx, "SELECT id FROM truths")
		if err != nil {
			return err
		}
		var id int64
		_, err = pgx.ForEachRow(rows, []any{&id}, func() error { there[id] = true; return nil })
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read back: %w", err)
	}
	return there, nil
}
