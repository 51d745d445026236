package sql

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/execute"
)

// Application is the application_name of every connection over which a Server
// makes changes.
const Application = "pgtandem engine"

// named makes sure that a connection is known to the next one as ours.
func named(ctx context.Context, c *pgx.Conn) error {
	if c.PgConn().ParameterStatus("application_name") == Application {
		return nil
	}
	_, err := c.Exec(ctx, "SELECT set_config('application_name', $1, false)", Application)
	return err
}

// ownOthers ends the sessions of ours but this one, and counts those that are
// still there. A session that is to end executes nothing more that waits in
// its socket: the signal is looked at before the next command is.
const ownOthers = `
SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = $1 AND usename = current_user AND backend_type = 'client backend' AND pid <> pg_backend_pid()`

// alone ends all that we may have sent before on other connections, and waits
// until its sessions are gone. A backend that is stopped, or whose network is
// stuck, would execute it at a time of its own choosing, after a newer and
// contrary statement. As long as one is there, nothing new is sent.
func alone(ctx context.Context, c *pgx.Conn) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		pids, err := others(ctx, c)
		if err == nil && len(pids) == 0 {
			return nil
		}
		if err == nil {
			t := time.NewTimer(wait)
			select {
			case <-t.C:
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
			t.Stop()
		}
		if len(pids) > 0 {
			err = fmt.Errorf("process %v of an earlier connection of ours does not end, and may yet execute what it was sent; continue it (kill -CONT) or end it (kill -KILL restarts the server): %w", pids, err)
		}
		return fmt.Errorf("%w: nothing was sent: end our earlier sessions: %w", execute.ErrRetry, err)
	}
}

func others(ctx context.Context, c *pgx.Conn) ([]int32, error) {
	rows, err := c.Query(ctx, ownOthers, Application)
	if err != nil {
		return nil, err
	}
	var pids []int32
	var pid int32
	var sent bool
	_, err = pgx.ForEachRow(rows, []any{&pid, &sent}, func() error { pids = append(pids, pid); return nil })
	return pids, err
}
