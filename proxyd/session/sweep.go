package session

import (
	"context"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// One timer serves all clients and servers: a sweep looks at each of them, and
// says when the next has to. Who begins something after it cannot be late before
// the shortest of the timeouts has passed, so that a sweep is late by no more
// than briefest, whatever the timeouts are.
const (
	sweepPeriod = time.Second          // at the latest
	briefest    = 5 * time.Millisecond // between two sweeps
)

// sweep looks after whatever has a limit in time, and gives how long the next
// sweep can wait.
func (s *Server) sweep() time.Duration {
	due := s.pool.Expire()
	now := s.now()
	wait := sweepPeriod
	if !due.IsZero() {
		wait = min(wait, due.Sub(now))
	}
	l := s.limits()
	if l.WriteTimeout > 0 {
		wait = min(wait, s.lookForDeaf(l.WriteTimeout, now))
	}
	if l.shortest == 0 && !l.fills {
		return max(wait, briefest)
	}
	terms := make(map[pool.Group]*Terms)
	for _, c := range s.clientList() {
		if c.atConsole || c.walsender != noWalsender || c.wait.Load() != waitNone {
			continue
		}
		t := terms[c.group]
		if t == nil {
			own := l.For(c.group)
			t = &own
			terms[c.group] = t
			s.fill(c, t)
		}
		if left := s.watch(c, t, now.UnixNano()); left > 0 {
			wait = min(wait, left)
		}
	}
	if l.shortest > 0 {
		wait = min(wait, l.shortest)
	}
	return max(wait, briefest)
}

// looksPerTimeout is how often within its time a client that takes nothing is
// looked at: it is closed late by one look at the most.
const looksPerTimeout = 8

// lookForDeaf closes the clients that have taken nothing of what they were sent
// for too long: each keeps a server, and its transaction, from everybody else.
// It gives how long the next look can wait.
func (s *Server) lookForDeaf(limit time.Duration, now time.Time) time.Duration {
	if wait := s.deafLook.Sub(now); wait > 0 && wait <= limit/looksPerTimeout {
		return wait
	}
	s.deafLook = now.Add(limit / looksPerTimeout)
	for _, c := range s.clientList() {
		if !c.isDeaf(limit, now) {
			continue
		}
		s.log.Info("a client was closed that does not read", "client", c.address, "user", c.group.User, "database", c.group.Database, "unread", c.deaf.bytes)
		c.abort()
	}
	return limit / looksPerTimeout
}

// deafness is what a client had not taken when it was last looked at. One that
// reads slowly may well have as much before it at every look, and has caught up
// in between.
type deafness struct {
	bytes  int
	drains uint32
	since  time.Time // nothing was taken
}

func (c *client) isDeaf(limit time.Duration, now time.Time) bool {
	n, drains := c.sock.Pending(), c.drains.Load()
	if d := &c.deaf; n == 0 || n != d.bytes || drains != d.drains {
		*d = deafness{n, drains, now}
		return false
	}
	return now.Sub(c.deaf.since) >= limit
}

// overrun is which of a client's times is over, or will be first.
type overrun uint8

const (
	none overrun = iota
	ofStatement
	ofTransaction
	ofIdleTransaction
	ofSession
)

// notice is what the client is told, in PostgreSQL's words.
func (o overrun) notice(t *Terms) *wire.Notice {
	const hint = "The proxy's %s is %v."
	switch o {
	case ofStatement:
		return wire.Errorf(wire.CodeQueryCanceled, "canceling statement due to statement timeout").WithHint(hint, "statement_timeout", t.StatementTimeout)
	case ofTransaction:
		return wire.Fatalf(wire.CodeTransactionTimeout, "terminating connection due to transaction timeout").WithHint(hint, "transaction_timeout", t.TransactionTimeout)
	case ofIdleTransaction:
		return wire.Fatalf(wire.CodeIdleInTransaction, "terminating connection due to idle-in-transaction timeout").
			WithHint(hint, "idle_in_transaction_session_timeout", t.IdleInTransactionTimeout)
	}
	return wire.Fatalf(wire.CodeIdleSession, "terminating connection due to idle-session timeout").WithHint(hint, "idle_session_timeout", t.IdleSessionTimeout)
}

// watch does what is due for one client, and gives how long it has left where
// nothing is.
func (s *Server) watch(c *client, t *Terms, now int64) (left time.Duration) {
	b := c.link.Load()
	if b == nil {
		if t.IdleSessionTimeout <= 0 {
			return 0
		}
		if left = c.restingUntil(t, 0, now); left <= 0 {
			c.loop.Post((*tired)(c))
		}
		return left
	}
	b.mu.Lock()
	over, left := b.late(c, t, now)
	if left > 0 || over == none {
		b.mu.Unlock()
		return left
	}
	cancel := false
	switch {
	case over == ofSession:
		c.loop.Post((*tired)(c))
	case b.pipe.Quiet():
		c.refused.Store(over.notice(t))
		b.leave(c, "its client was too slow")
	case b.lateSince == 0:
		b.lateSince, b.lateNotice, cancel = now, over.notice(t), true
	case now-b.lateSince >= int64(cancelTimeout):
		b.leave(c, "it did not end a statement that took too long")
	}
	b.mu.Unlock()
	if cancel {
		s.going(func() { s.cancelLate(b, c) })
	}
	return 0
}

// leave severs the link to a client, who is to look what became of it. The lock
// is held.
func (b *backend) leave(c *client, reason string) {
	b.reason = reason
	b.severLocked()
	c.wake()
}

// late finds the time of the client that is over, or will be first, and how
// much is left of it. A commit that is awaited has all the time it needs: it may
// have been done. The lock is held.
func (b *backend) late(c *client, t *Terms, now int64) (over overrun, left time.Duration) {
	if b.client != c || b.dead || b.pipe.Committing() {
		return none, 0
	}
	first := func(o overrun, limit time.Duration, since int64) {
		if limit <= 0 || since == 0 {
			return
		}
		if l := limit - time.Duration(now-since); over == none || l < left {
			over, left = o, l
		}
	}
	m := &b.counts
	switch quiet := b.pipe.Quiet() && !b.partial; {
	case !quiet:
		first(ofStatement, t.StatementTimeout, m.queryAt)
		first(ofTransaction, t.TransactionTimeout, m.txAt)
	case b.pipe.Status() != wire.TxIdle:
		first(ofIdleTransaction, t.IdleInTransactionTimeout, m.answeredAt)
		first(ofTransaction, t.TransactionTimeout, m.txAt)
	case t.IdleSessionTimeout > 0:
		return ofSession, c.restingUntil(t, m.answeredAt, now)
	}
	return over, left
}

// restingUntil is how long an idle client may still be idle. answered is when
// its server last had nothing left to answer.
func (c *client) restingUntil(t *Terms, answered, now int64) time.Duration {
	since := max(c.since.Load(), c.rested.Load(), answered)
	return t.IdleSessionTimeout - time.Duration(now-since)
}

// tired ends a client that was idle for too long. It is done in the loop, where
// nothing can come from the client meanwhile.
type tired client

func (x *tired) Run() {
	c := (*client)(x)
	if c.over || c.away || c.inLine || c.w > c.r || c.rest > 0 || c.buffered() {
		return
	}
	t := c.terms()
	now := c.s.now().UnixNano()
	if b := c.link.Load(); b == nil {
		if t.IdleSessionTimeout <= 0 || c.restingUntil(&t, 0, now) > 0 {
			return
		}
	} else {
		b.mu.Lock()
		over, left := b.late(c, &t, now)
		b.mu.Unlock()
		if over != ofSession || left > 0 {
			return
		}
	}
	n := ofSession.notice(&t)
	c.send(n) //nolint:errcheck // it is going anyway
	c.end(n)
}

// cancelLate has the server end what takes too long. What it answers to that is
// told in the words of the timeout; one that answers nothing is given up by a
// later sweep.
func (s *Server) cancelLate(b *backend, c *client) {
	if b.beginCancel(c) {
		defer b.endCancel()
		s.deliverCancel(b)
	}
}

// timedOut says whether an error is the answer to cancelLate, and puts what the
// client is told in its place. The lock is held.
func (b *backend) timedOut(c *client, n *wire.Notice) (instead, fatal *wire.Notice) {
	if b.lateNotice == nil || c == nil || n.Code != wire.CodeQueryCanceled {
		return nil, nil
	}
	own := b.lateNotice
	b.lateNotice = nil
	if !own.Fatal() {
		return own, nil
	}
	c.refused.Store(own)
	b.severed, b.reason = true, "its client's transaction took too long"
	return nil, own
}

// going starts a goroutine that Serve waits for, unless it is about to end.
func (s *Server) going(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopping {
		s.wg.Go(f)
	}
}

// fillAgain is how long a minimum is left alone after a server could not be
// opened for it.
const fillAgain = 15 * time.Second

// fill opens the servers that the client's database and user are short of their
// minimum, with what the client proved itself by.
func (s *Server) fill(c *client, t *Terms) {
	if t.MinPoolSize <= 0 {
		return
	}
	target, ok := s.opts.Router.Try(c.request())
	if !ok || !s.valve.open(c.group.Database) || s.fillBlocked(c.group) {
		return
	}
	for _, srv := range s.pool.Fill(c.poolKey(target)) {
		s.going(func() {
			if err := s.fillOne(srv, target, c); err != nil {
				s.giveUp(srv)
				s.blockFill(c.group)
				s.log.Warn("a server of the minimum could not be opened", "database", c.group.Database, "user", c.group.User, "error", err)
			}
		})
	}
}

func (s *Server) fillOne(srv *pool.Server, t pool.Target, c *client) error {
	ctx, cancel := context.WithTimeout(s.visits, s.limits().ConnectTimeout)
	defer cancel()
	d, err := s.dial(ctx, t, c.login)
	if err != nil {
		return err
	}
	b := newBackend(s, d, t, srv)
	loop := s.loops.Next()
	srv.Lane = loop.Number()
	s.pool.Connected(srv, b)
	if !s.register(b) {
		d.conn.Close()
		return errMoved
	}
	if err := b.start(loop); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.giveBack()
	return nil
}

func (s *Server) fillBlocked(g pool.Group) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, blocked := s.unfilled[g]
	if blocked && !s.now().Before(until) {
		delete(s.unfilled, g)
		return false
	}
	return blocked
}

func (s *Server) blockFill(g pool.Group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unfilled[g] = s.now().Add(fillAgain)
}
