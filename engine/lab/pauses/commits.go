package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgtandem/pgtandem/engine/clock"
	"github.com/pgtandem/pgtandem/engine/lab/fault"
)

// told is what a client was told of its COMMIT.
type told int

const (
	toldCommitted told = iota
	toldAborted
	toldNothing // 08007, or the end of the connection
)

var toldWords = []string{"committed", "not committed", "nothing"}

// truths are the COMMITs since they were last compared with what is there.
type truths struct {
	mu   sync.Mutex
	last int64
	by   map[int64]told
	sum  [3]int
	odd  map[string]int // errors that are not the contract's
}

func (t *truths) next() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	return t.last
}

func (t *truths) note(id int64, w told) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.by[id] = w
	t.sum[w]++
}

func (t *truths) strange(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.odd[err.Error()]++
}

// take gives what was noted since the last time.
func (t *truths) take() map[int64]told {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.by
	t.by = map[int64]told{}
	return was
}

// commits kills the primary again and again while clients commit, and compares
// what each was told with what is there. Every other time the server restarts in
// place, as after a crash of one of its processes.
func (r *rig) commits(ctx context.Context) error {
	s, err := r.control.Whole(ctx)
	if err != nil {
		return err
	}
	err = r.onPrimary(ctx, s.Primary, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, "CREATE TABLE truths (id bigint PRIMARY KEY); GRANT ALL ON truths TO "+pgx.Identifier{r.target.User}.Sanitize())
		return err
	})
	if err != nil {
		return fmt.Errorf("make a table: %w", err)
	}
	t := &truths{by: map[int64]told{}, odd: map[string]int{}}
	work, stop := context.WithCancel(ctx)
	var crew sync.WaitGroup
	for i := range r.clients {
		crew.Go(func() { r.committing(work, t, i%2 == 0) })
	}
	err = r.killing(ctx, t)
	stop()
	crew.Wait()
	fmt.Printf("%d kills: %d COMMITs told as committed, %d as not committed, %d not known; %d lies\n", r.bouts, t.sum[toldCommitted], t.sum[toldAborted], t.sum[toldNothing], len(r.wrong))
	for e, n := range t.odd {
		fmt.Printf("  %d times: %s\n", n, e)
	}
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

func (r *rig) killing(ctx context.Context, t *truths) error {
	for r.bouts < r.runs {
		bout, cancel := context.WithTimeout(ctx, boutLimit)
		err := r.killed(bout, t)
		cancel()
		if err != nil {
			return err
		}
		if r.bouts%10 == 0 {
			progress("%d of %d kills: %v committed, not committed, not known", r.bouts, r.runs, t.sum)
		}
	}
	return nil
}

func (r *rig) killed(ctx context.Context, t *truths) error {
	s, err := r.control.Whole(ctx)
	if err != nil {
		return err
	}
	wait := time.NewTimer(100*time.Millisecond + rand.N(200*time.Millisecond))
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	if r.bouts++; r.bouts%2 == 0 {
		err = r.faults.KillOne(ctx, s.Primary, fault.Checkpointer)
	} else {
		err = r.faults.KillAll(ctx, s.Primary)
	}
	if err != nil {
		return err
	}
	was := t.take()
	return clock.Every(ctx, clock.System{}, 50*time.Millisecond, func() (bool, string, error) {
		s, err := r.control.Whole(ctx)
		if err != nil {
			return false, "", err
		}
		// It may not have been noticed yet that the server restarts.
		err = r.compare(ctx, s.Primary, was)
		return err == nil, fmt.Sprint(err), nil
	})
}

// compare reads back what was told of.
func (r *rig) compare(ctx context.Context, node string, was map[int64]told) error {
	ids := make([]int64, 0, len(was))
	for id := range was {
		ids = append(ids, id)
	}
	there := map[int64]bool{}
	err := r.onPrimary(ctx, node, func(c *pgx.Conn) error {
		rows, err := c.Query(ctx, "SELECT id FROM truths WHERE id = ANY($1)", ids)
		if err != nil {
			return err
		}
		var id int64
		_, err = pgx.ForEachRow(rows, []any{&id}, func() error { there[id] = true; return nil })
		return err
	})
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	for id, w := range was {
		if w != toldNothing && there[id] != (w == toldCommitted) {
			what := fmt.Sprintf("kill %d: %d was told as %s, and is there: %v", r.bouts, id, toldWords[w], there[id])
			progress("%s", what)
			r.wrong = append(r.wrong, what)
		}
	}
	return nil
}

// committing is one client.
func (r *rig) committing(ctx context.Context, t *truths, extended bool) {
	var c *pgx.Conn
	for ctx.Err() == nil {
		if c == nil || c.IsClosed() {
			var err error
			dsn := fmt.Sprintf("host=%s port=%d dbname=%s user=%s password=%s sslmode=disable", r.target.Host, r.target.Port, r.target.Database, r.target.User, r.target.Password)
			if c, err = pgx.Connect(ctx, dsn); err != nil {
				if ctx.Err() == nil {
					t.strange(fmt.Errorf("connect: %w", err))
				}
				continue
			}
		}
		r.commitOnce(ctx, c, t, extended)
	}
	if c != nil {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = c.Close(last)
	}
}

func (r *rig) commitOnce(ctx context.Context, c *pgx.Conn, t *truths, extended bool) {
	id := t.next()
	for _, q := range []string{"BEGIN", fmt.Sprintf("INSERT INTO truths VALUES (%d)", id)} {
		if _, err := c.Exec(ctx, q); err != nil {
			if ctx.Err() != nil {
				return
			}
			t.note(id, toldAborted) // nothing was asked to be committed
			if sqlstate(err) != "40001" {
				t.strange(fmt.Errorf("%s: %w", strings.Fields(q)[0], err))
			}
			_, _ = c.Exec(ctx, "ROLLBACK")
			return
		}
	}
	var tag pgconn.CommandTag
	var err error
	if extended {
		tag, err = c.PgConn().ExecParams(ctx, "COMMIT", nil, nil, nil, nil).Close()
	} else {
		tag, err = c.Exec(ctx, "COMMIT")
	}
	switch {
	case err == nil && tag.String() == "COMMIT":
		t.note(id, toldCommitted)
	case err == nil || sqlstate(err) == "40001":
		t.note(id, toldAborted)
	default:
		t.note(id, toldNothing)
		if ctx.Err() == nil && sqlstate(err) != "08007" {
			t.strange(fmt.Errorf("COMMIT: %w", err))
		}
	}
}

func sqlstate(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
