package observe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// suspicion is how a node is looked at once something seems wrong.
const (
	suspicionPause = 20 * time.Millisecond
	suspicionLasts = 2 * time.Second
)

// Every so many looks, one is made on a new connection: a postmaster that hangs
// lets the old ones live and admits nobody.
const looksOnOneConnection = 10

// Every so many looks, the configuration files are asked for errors, which
// makes the server read them.
const looksBetweenFiles = 10

// link is the kept connection to one node.
type link struct {
	conn  *pgx.Conn
	looks int // on this connection
}

func (l *link) hangUp() {
	hangUp(l.conn)
	*l = link{}
}

func hangUp(conn *pgx.Conn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx) // it is given up either way
}

// watchSQL looks at one node over SQL, on a connection that is kept.
func (o *Observer) watchSQL(ctx context.Context, w *watch) {
	var l link
	defer l.hangUp()
	var until time.Time // suspicion lasts
	for ctx.Err() == nil {
		o.look(ctx, w, &l)
		pause := o.checks().pause()
		if o.opt.Now().Before(until) {
			pause = suspicionPause
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-w.suspect:
			until = o.opt.Now().Add(suspicionLasts)
		case done := <-w.asks:
			o.look(ctx, w, &l)
			done <- struct{}{}
		}
		t.Stop()
	}
}

// look makes one attempt, bounded by the timeout, and files how it ended.
func (o *Observer) look(ctx context.Context, w *watch, l *link) {
	began := o.opt.Now()
	bounded, cancel := context.WithTimeout(ctx, o.checks().Timeout)
	defer cancel()
	facts, err := o.ask(bounded, w, l)
	switch {
	case ctx.Err() != nil: // cut short by our own end, which says nothing
	case err != nil:
		o.failed(w, began, err)
	default:
		o.answered(w, facts)
	}
}

// ask gathers the facts on the kept connection. Where that has been cut, as by
// a restart, only a new one tells whether the server is there.
func (o *Observer) ask(ctx context.Context, w *watch, l *link) (cluster.NodeFacts, error) {
	if l.conn != nil && !l.conn.IsClosed() {
		if err := o.renew(ctx, w, l); err != nil {
			return cluster.NodeFacts{}, err
		}
		facts, err := o.gather(ctx, w, l)
		if err == nil || ctx.Err() != nil {
			return facts, err
		}
	}
	l.hangUp()
	conn, err := o.dial(ctx, w.node, Replication)
	if err != nil {
		return cluster.NodeFacts{}, err
	}
	l.conn = conn
	return o.gather(ctx, w, l)
}

// renew changes a connection that was used long enough for a new one. A server
// that answers the new one with an error, as one that is full does, keeps the
// old.
func (o *Observer) renew(ctx context.Context, w *watch, l *link) error {
	if l.looks%looksOnOneConnection != 0 {
		return nil
	}
	conn, err := o.dial(ctx, w.node, Replication)
	switch {
	case err == nil:
		hangUp(l.conn)
		l.conn = conn
	case classify(err) != cluster.ReachRejected:
		l.hangUp()
		return err
	}
	return nil
}

// gather asks everything, and lets go of a connection that failed.
func (o *Observer) gather(ctx context.Context, w *watch, l *link) (cluster.NodeFacts, error) {
	asked := o.opt.Now()
	facts, mayReadFiles, err := gather(ctx, l.conn, asked)
	if code(err) == notInState {
		// It was promoted between two expressions of the query.
		facts, mayReadFiles, err = gather(ctx, l.conn, asked)
	}
	if err == nil && mayReadFiles {
		if l.looks%looksBetweenFiles == 0 {
			facts.ConfigErrors, err = fileErrors(ctx, l.conn)
		} else {
			o.mu.Lock()
			facts.ConfigErrors = o.facts[w.node.ID].ConfigErrors
			o.mu.Unlock()
		}
	}
	if err != nil {
		l.hangUp()
		return facts, err
	}
	l.looks++
	facts.LastTry, facts.LastOK = asked, asked
	return facts, nil
}

// SQLSTATEs (PostgreSQL docs, appendix A).
const (
	notInState = "55000" // object_not_in_prerequisite_state: "recovery is in progress", or is not
	notAllowed = "42501" // insufficient_privilege
)

func code(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}

func (o *Observer) dial(ctx context.Context, n cluster.Node, role Role) (*pgx.Conn, error) {
	cfg, err := o.opt.Config(n, role)
	if err != nil {
		return nil, fmt.Errorf("make a connection to %s: %w", n.ID, err)
	}
	cfg.RuntimeParams["application_name"] = "pgtandem observer"
	return pgx.ConnectConfig(ctx, cfg)
}

// answered files a successful look.
func (o *Observer) answered(w *watch, saw cluster.NodeFacts) {
	o.mu.Lock()
	was := o.facts[w.node.ID]
	f := Answered(was, saw)
	o.facts[w.node.ID] = f
	o.mu.Unlock()
	if Notable(was, f) {
		poke(o.changed)
	}
	if was.Reach != cluster.ReachOK {
		poke(w.host)
	}
}

// failed files an attempt without facts.
func (o *Observer) failed(w *watch, began time.Time, err error) {
	o.mu.Lock()
	was := o.facts[w.node.ID]
	f, counted := Failed(was, classify(err), began, err.Error(), w.counted, o.check.Period)
	o.facts[w.node.ID], w.counted = f, counted
	o.mu.Unlock()
	if was.Reach != f.Reach {
		poke(w.host)
		if was.Reach == cluster.ReachOK {
			poke(w.suspect)
		}
	}
	if Notable(was, f) {
		poke(o.changed)
	}
}

// sentinel keeps an idle connection and does nothing but wait on it: when the
// server dies, its end is seen within a millisecond and not at the next look.
func (o *Observer) sentinel(ctx context.Context, w *watch) {
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, o.checks().Timeout)
		conn, err := o.dial(bounded, w.node, Health)
		cancel()
		if err == nil {
			_, err = conn.WaitForNotification(ctx)
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

// pause is how long to wait between two looks at a node that answers.
func (c Check) pause() time.Duration {
	if c.Positions > 0 {
		return min(c.Period, c.Positions)
	}
	return c.Period
}
