package daemon

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/session"
)

// outcomes asks the primary what became of a COMMIT whose answer was lost.
//
// An id may be given out again: a primary knows only of those that it has seen
// in its WAL. So the position before the COMMIT is compared first. Where the
// history that serves now left the old one at or below it, the commit record,
// which lies above, is not in it. Where it left later, it has the transaction's
// own records, knows its id, and gives it to nobody else. The same holds for a
// primary that restarted in place, with the end of its recovery.
type outcomes struct {
	gate   *pool.Gate
	record func() cluster.Record
	dial   func(ctx context.Context, n cluster.Node) (*pgx.Conn, error)
}

var _ session.Outcomes = (*outcomes)(nil)

// askAgain is how long to wait before a primary that cannot tell yet is asked
// again.
const askAgain = 20 * time.Millisecond

// Outcome implements session.Outcomes.
func (o *outcomes) Outcome(ctx context.Context, q session.Commit) (session.Outcome, error) {
	var last error
	for {
		t, err := o.gate.Wait(ctx)
		if err != nil {
			return session.OutcomeUnknown, errors.Join(err, last)
		}
		changed := o.gate.Changed()
		r := o.record()
		if r.Term == t.Term && r.Primary == t.Node.ID {
			if t.Term > q.Term && leftBefore(r, q) {
				return session.OutcomeAborted, nil
			}
			out, err := o.ask(ctx, t, q)
			if err == nil && out != session.OutcomeUnknown || errors.Is(err, errForgotten) {
				return out, err
			}
			last = err
		}
		timer := time.NewTimer(askAgain)
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// leftBefore says that the recorded history left the term of a COMMIT at or
// below the position before it.
func leftBefore(r cluster.Record, q session.Commit) bool {
	for _, e := range r.History {
		if e.Term > q.Term && e.SwitchLSN <= q.LSN {
			return true
		}
	}
	return false
}

// status is pg_xact_status with what tells whether the server restarted since a
// connection to it was made, by its own clock, and where its recovery ended.
const status = `
SELECT pg_is_in_recovery(), coalesce(pg_xact_status($1::text::xid8), ''),
  extract(epoch FROM clock_timestamp() - (SELECT max(backend_start) FROM pg_stat_activity WHERE backend_type = 'checkpointer'))::float8,
  checkpoint_lsn::text
FROM pg_control_checkpoint()`

// barrier writes WAL and commits it: when that is confirmed, so is all before
// it. A commit that is seen may have been left by a backend that was ended while
// it waited for a standby.
const barrier = `SELECT pg_logical_emit_message(true, 'pgtandem', '')`

var errForgotten = errors.New("the primary does not know the transaction's id any more")

// ask asks one primary. Unknown without an error is not known yet.
func (o *outcomes) ask(ctx context.Context, t pool.Target, q session.Commit) (session.Outcome, error) {
	conn, err := o.dial(ctx, t.Node)
	if err != nil {
		return session.OutcomeUnknown, fmt.Errorf("ask %s what became of transaction %d: %w", t.Node.ID, q.XID, err)
	}
	defer hangUp(conn)
	var recovery bool
	var word, checkpoint string
	var age float64
	err = conn.QueryRow(ctx, status, strconv.FormatUint(q.XID, 10)).Scan(&recovery, &word, &age, &checkpoint)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "22023" { // "transaction ID is in the future"
		return session.OutcomeAborted, nil
	}
	if err != nil {
		return session.OutcomeUnknown, fmt.Errorf("ask %s what became of transaction %d: %w", t.Node.ID, q.XID, err)
	}
	ended, err := cluster.ParseLSN(checkpoint)
	restarted := t.Term == q.Term && age < time.Since(q.Connected).Seconds()
	switch {
	case err != nil || recovery || word == "in progress":
		return session.OutcomeUnknown, err
	case restarted && ended <= q.LSN, word == "aborted":
		return session.OutcomeAborted, nil
	case word == "":
		return session.OutcomeUnknown, errForgotten
	}
	if _, err := conn.Exec(ctx, barrier); err != nil {
		return session.OutcomeUnknown, fmt.Errorf("see that transaction %d is confirmed: %w", q.XID, err)
	}
	return session.OutcomeCommitted, nil
}
