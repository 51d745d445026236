package observe

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// sentinel keeps a connection and waits on it: when the server dies, its end is
// seen within a millisecond and not at the next look. Twice in a period it asks
// for nothing, so that one connection that is stuck is not a node that is.
func (o *Observer) sentinel(ctx context.Context, w *watch) {
	for ctx.Err() == nil {
		l := &line{w.pulse}
		bounded, cancel := context.WithTimeout(ctx, o.checks().limit())
		l.ask()
		conn, err := o.dial(bounded, w.node, Health, l)
		l.settle()
		cancel()
		if err == nil {
			err = o.listen(ctx, w, l, conn)
			hangUp(conn)
			if err != nil && ctx.Err() == nil {
				o.Suspect(w.node.ID)
			}
		}
		t := time.NewTimer(o.checks().Period)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// listen waits on the connection until it ends, or until it is not wanted any
// more, which is no error.
func (o *Observer) listen(ctx context.Context, w *watch, l *line, conn *pgx.Conn) error {
	for {
		check := o.checks()
		wait, cancel := context.WithTimeout(ctx, check.Period/2)
		_, err := conn.WaitForNotification(wait)
		cancel()
		if err != nil && (conn.IsClosed() || !errors.Is(err, context.DeadlineExceeded) && classify(err) != cluster.ReachTimeout) {
			return err
		}
		select {
		case <-w.anew:
			return nil
		default:
		}
		bounded, cancel := context.WithTimeout(ctx, check.limit())
		l.ask()
		err = conn.Ping(bounded)
		l.settle()
		cancel()
		if err != nil {
			return err
		}
	}
}
