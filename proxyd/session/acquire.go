package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

const (
	firstPause = 10 * time.Millisecond // between attempts to reach a node
	lastPause  = 200 * time.Millisecond
)

var (
	errCanceled = errors.New("canceled")
	errHungUp   = errors.New("the client hung up while it waited")
	errHeld     = errors.New("held too long")
	errStopping = errors.New("the proxy is stopping")
)

// acquire links a server for a message. It says handled when there is none and
// the client has been told.
func (c *client) acquire(m *message) (handled bool, err error) {
	if err := c.decide(); err != nil {
		return false, err
	}
	n, err := c.obtain()
	switch {
	case err != nil:
		return true, err
	case n == nil:
		return false, nil
	}
	if c.reads != nil {
		c.reads.decided, c.reads.left = false, 0
	}
	switch {
	case n.Fatal():
		c.send(n) //nolint:errcheck // going anyway
		return true, n
	}
	return true, c.refuse(m, n)
}

func (c *client) request() Request { return Request{Database: c.group.Database, User: c.group.User} }

func (c *client) poolKey(t pool.Target) pool.Key {
	g := c.group
	if t.Standby {
		g.Standby = t.Node.ID
	}
	return pool.Key{Group: g, Node: t.Node.ID, Epoch: t.Epoch, Params: c.params}
}

// obtain links a server. n is what the client has to be told when there is
// none, err when there is nobody to tell.
func (c *client) obtain() (n *wire.Notice, err error) {
	if c.asked {
		return c.obtainSlow()
	}
	for {
		t, ok := c.whither()
		if !ok || !c.s.valve.open(c.group.Database) {
			break
		}
		srv := c.s.pool.Take(c.poolKey(t), c.loop.Number())
		if srv != nil && !c.fits(srv.Value.(*backend)) {
			c.s.pool.Release(srv, false)
			continue
		}
		if srv != nil && c.attach(srv) {
			return nil, nil
		}
		if !c.away {
			c.stand(t)
			return nil, errInLine
		}
		break
	}
	if !c.away {
		return nil, errAway
	}
	return c.obtainSlow()
}

// attach links a server that is active in the books for us. It says false when
// the server is lost meanwhile.
func (c *client) attach(srv *pool.Server) bool {
	b := srv.Value.(*backend)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.dead:
		return false
	case b.draining:
		b.severLocked()
		return false
	case !c.s.valve.open(c.group.Database):
		b.partLocked()
		return false
	}
	b.client, b.unshown = c, unshown{}
	b.counts.Assignments++
	c.link.Store(b)
	c.prelude = c.settings.setFrom(b.settings)
	if c.vars != b.vars {
		c.prelude += c.vars.setFrom(&b.vars)
	}
	return true
}

// waiting is one client's wait for a server.
type waiting struct {
	c      *client
	ctx    context.Context
	left   time.Duration // of hold_timeout
	pause  time.Duration
	last   error // why the last attempt failed
	unhold func()
}

// obtainSlow waits for the gate, for a place and for the server, as long as
// the client is there and its limits allow.
func (c *client) obtainSlow() (n *wire.Notice, err error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	c.endsBy(cancel)
	began := c.s.now()
	c.since.Store(began.UnixNano())
	w := &waiting{c: c, ctx: ctx, left: c.s.limits().HoldTimeout, pause: firstPause}
	err = w.run()
	w.released()
	cancel(nil)
	c.cancelMu.Lock()
	c.cancelWait, c.endWait = nil, nil
	c.cancelMu.Unlock()
	c.wait.Store(waitNone)
	c.since.Store(c.s.now().UnixNano())
	if err == nil {
		c.waited(c.s.now().Sub(began))
		return nil, nil
	}
	return c.excuse(err, w)
}

// endsBy makes the wait end when the client hangs up or cancels, and when the
// proxy stops, were it before now.
func (c *client) endsBy(cancel context.CancelCauseFunc) {
	c.cancelMu.Lock()
	defer c.cancelMu.Unlock()
	c.cancelWait, c.endWait = func() { cancel(errCanceled) }, cancel
	switch {
	case c.hungUp || c.gone.Load():
		cancel(errHungUp)
	case c.canceled:
		c.canceled = false
		cancel(errCanceled)
	case c.s.closing.Load():
		cancel(errStopping)
	}
}

// excuse turns the end of a wait into what the client is told.
func (c *client) excuse(err error, w *waiting) (*wire.Notice, error) {
	var n *wire.Notice
	switch {
	case errors.Is(err, errHungUp) || c.gone.Load():
		return nil, errClosed
	case c.refused.Load() != nil:
		return c.refused.Load(), nil
	case errors.Is(err, errStopping):
		return wire.Fatalf(wire.CodeAdminShutdown, "terminating connection due to administrator command").
			WithDetail("The proxy is stopping."), nil
	case errors.Is(err, errCanceled):
		return wire.Errorf(wire.CodeQueryCanceled, "canceling statement due to user request"), nil
	case errors.Is(err, errHeld) && wire.Code(w.last) == wire.CodeTooManyConnections:
		// It was no primary that was missing, but room: for a role or a
		// database with a CONNECTION LIMIT, or on the whole server.
		errors.As(w.last, &n)
		return &wire.Notice{Severity: wire.SevError, Code: n.Code, Message: n.Message, Detail: n.Detail, Hint: n.Hint}, nil
	case errors.Is(err, errHeld):
		why := c.s.opts.Gate.Reason()
		if why == "" && w.last != nil {
			why = w.last.Error()
		}
		return wire.Errorf(wire.CodeCannotConnectNow, "no primary is available; waited %v", c.s.limits().HoldTimeout).
			WithDetail("%s", why).WithHint("Try again later."), nil
	case errors.Is(err, context.DeadlineExceeded):
		return wire.Errorf(wire.CodeTooManyConnections, "no server connection became free; waited %v", c.terms().WaitTimeout).
			WithDetail("The pool of database \"%s\" and user \"%s\" is in use.", c.group.Database, c.group.User).
			WithHint("The proxy's wait_timeout limits this wait, and pool_size and max_servers what there is to wait for."), nil
	case errors.Is(err, errCredentials):
		c.s.verifiers.forget(c.group.User)
		c.s.log.Warn("a server refused a client's login", "user", c.group.User, "error", err)
		if errors.As(err, &n) {
			return &wire.Notice{Severity: wire.SevFatal, Code: n.Code, Message: n.Message, Detail: n.Detail, Hint: n.Hint}, nil
		}
		if errors.Is(err, wire.ErrOtherVerifier) {
			return wire.Fatalf(wire.CodeInvalidPassword, "password authentication failed for user \"%s\"", c.group.User), nil
		}
		return wire.Fatalf(wire.CodeInvalidAuthorization, "the proxy cannot log in to the server as user \"%s\"", c.group.User).
			WithDetail("%v", err), nil
	case errors.As(err, &n):
		return n, nil
	}
	c.s.log.Error("a client could not be given a server", "client", c.id, "error", err)
	return wire.Fatalf(wire.CodeInternalError, "the proxy could not give the session a server"), nil
}

// run goes round until there is a server.
func (w *waiting) run() error {
	for {
		if err := w.resumed(); err != nil {
			return err
		}
		t, err := w.route()
		if err != nil {
			return err
		}
		srv, err := w.place(t)
		if err != nil {
			return err
		}
		switch err = w.open(t, srv); {
		case err == nil:
			return nil
		case errors.Is(err, errMoved):
		case t.Standby && context.Cause(w.ctx) == nil:
			w.c.unopened(t, err)
		case errors.Is(err, errUnreachable) || wire.Code(err) == wire.CodeTooManyConnections:
			w.last = err
			if err := w.rest(t); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// held counts the client among the held.
func (w *waiting) held() {
	if w.unhold == nil {
		w.unhold = w.c.s.opts.Gate.Hold()
	}
	w.c.wait.Store(waitHeld)
}

func (w *waiting) released() {
	if w.unhold != nil {
		w.unhold()
		w.unhold = nil
	}
}

// cause is why the wait must end, or the given error.
func (w *waiting) cause(err error) error {
	if cause := context.Cause(w.ctx); cause != nil {
		return cause
	}
	return err
}

// resumed waits while the database is paused. That is a person's word, so it
// does not count against hold_timeout.
func (w *waiting) resumed() error {
	for {
		open, changed := w.c.s.valve.look(w.c.group.Database)
		if open {
			return nil
		}
		w.c.quitLine()
		w.held()
		select {
		case <-changed:
		case <-w.ctx.Done():
			return w.cause(w.ctx.Err())
		}
	}
}

// quitLine gives up the place in line: a pause waits until it is empty.
func (c *client) quitLine() {
	if !c.asked {
		return
	}
	c.leaveLine()
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.linkChanged()
}

// waited counts how long the client waited for the server it has now.
func (c *client) waited(d time.Duration) {
	if b := c.link.Load(); b != nil {
		b.mu.Lock()
		b.counts.WaitTime += d
		b.mu.Unlock()
	}
}

// route waits for a node.
func (w *waiting) route() (pool.Target, error) {
	if w.c.asked {
		return *w.c.askedFor, nil
	}
	if t, ok := w.c.whither(); ok {
		return t, nil
	}
	r := w.c.request()
	w.held()
	began := w.c.s.now()
	ctx, cancel := context.WithTimeout(w.ctx, w.left)
	defer cancel()
	t, err := w.c.s.opts.Router.Acquire(ctx, r)
	w.left -= w.c.s.now().Sub(began)
	if err != nil {
		return t, w.cause(errHeld)
	}
	return t, nil
}

// place waits for a server in the books, where need be in the place in line
// that the client has already.
func (w *waiting) place(t pool.Target) (*pool.Server, error) {
	waiter := w.c.waiter
	if w.c.asked {
		w.c.asked = false
	} else {
		waiter = pool.NewWaiter(nil)
		w.c.s.pool.Ask(waiter, w.c.poolKey(t))
	}
	ctx := w.ctx
	if limit := w.c.terms().WaitTimeout; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, waiter.Since.Add(limit))
		defer cancel()
	}
	if w.unhold == nil {
		w.c.wait.Store(waitServer)
	}
	srv, err := w.c.s.pool.Wait(ctx, waiter)
	if err != nil {
		return nil, w.cause(err)
	}
	return srv, nil
}

// errMoved: what was given is of no use any more; ask again.
var errMoved = errors.New("the gate has moved")

// open makes the place a linked server.
func (w *waiting) open(t pool.Target, srv *pool.Server) error {
	s := w.c.s
	if srv.Value != nil { // it is open already, and may be lost again by now
		if !w.c.fits(srv.Value.(*backend)) {
			s.pool.Release(srv, false)
			return errMoved
		}
		if w.c.attach(srv) {
			return nil
		}
		s.pool.Remove(srv)
		return errMoved
	}
	if !s.valve.open(w.c.group.Database) {
		s.giveUp(srv)
		return errMoved
	}
	began := s.now()
	d, err := s.dial(w.ctx, t, w.c.loginTo(t))
	if err != nil {
		s.giveUp(srv)
		if cause := context.Cause(w.ctx); cause != nil {
			return cause
		}
		w.left -= s.now().Sub(began)
		if errors.Is(err, errUnreachable) {
			s.failed(t.Node.ID, err)
		}
		return err
	}
	b := newBackend(s, d, t, srv)
	if t.Standby {
		b.opened = w.c.reads.of.monitor.Now()
	}
	srv.Lane = w.c.loop.Number()
	s.pool.Connected(srv, b)
	if !s.register(b) {
		if !s.valve.open(w.c.group.Database) {
			d.part()
		}
		d.conn.Close()
		s.giveUp(srv)
		return errMoved
	}
	if t.Standby {
		return w.openedStandby(b)
	}
	s.setWelcome(welcomeKey{w.c.group, w.c.params}, append(reports(nil), d.reports...))
	linked := w.c.attach(srv)
	if err := b.start(w.c.loop); err != nil {
		// Whoever closes all servers, for a pause or with the gate, closes this
		// one before it has a loop.
		if !w.c.detach(b) {
			return err
		}
		return errMoved
	}
	if !linked {
		return errMoved
	}
	return nil
}

// detach undoes attach for a server that never came to a loop. It says whether
// it was closed on purpose.
func (c *client) detach(b *backend) (severed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client == c {
		b.client, c.prelude = nil, ""
		c.link.Store(nil)
	}
	return b.severed
}

// rest waits a moment before the next attempt, or until the gate moves.
func (w *waiting) rest(t pool.Target) error {
	w.held()
	if w.left <= 0 {
		return fmt.Errorf("%w: %s", errHeld, t.Node.ID)
	}
	began := w.c.s.now()
	timer := time.NewTimer(min(w.pause, w.left))
	defer timer.Stop()
	w.pause = min(2*w.pause, lastPause)
	select {
	case <-timer.C:
	case <-w.c.s.opts.Gate.Changed():
	case <-w.ctx.Done():
		return w.cause(w.ctx.Err())
	}
	w.left -= w.c.s.now().Sub(began)
	return nil
}
