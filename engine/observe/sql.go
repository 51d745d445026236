package observe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
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

// Every so many looks, a new connection is made: a postmaster that hangs lets
// the old ones live and admits nobody. It also is when gatherMore asks.
const looksOnOneConnection = 10

// A postmaster that hangs is one that did not admit us so many times in a row.
const admissionsTried = 2

// answer is what became of one question.
type answer struct {
	from  *kept
	began time.Time
	facts cluster.NodeFacts
	err   error
	late  bool // it was given up at its limit
}

// kept is a connection on which looks are made.
type kept struct {
	line   line
	conn   *pgx.Conn // nil until it is dialled
	cancel context.CancelFunc
}

// sight looks at one node over SQL. A question that is not answered in time is
// not given up: it counts as a failure, and its answer, when it comes, ends the
// silence. Meanwhile another connection is tried.
type sight struct {
	o   *Observer
	w   *watch
	ctx context.Context
	wg  sync.WaitGroup

	answers chan answer
	conn    *kept // answered last; nil where there is none
	asking  bool  // on conn
	dialled *kept // under way

	looks      int // answered since a connection was made
	unadmitted int // connections that could not be made in time, in a row
	next       time.Time
	hasty      time.Time // suspicion lasts until then
	vigil      vigil
	hung       bool // it speaks and does not answer
	waiting    []waiter
}

// waiter wants a look that begins after since, and waits no longer than until.
type waiter struct {
	since, until time.Time
	done         chan<- struct{}
}

// watchSQL looks at one node over SQL until ctx ends.
func (o *Observer) watchSQL(ctx context.Context, w *watch) {
	ctx, cancel := context.WithCancel(ctx)
	s := &sight{o: o, w: w, ctx: ctx, answers: make(chan answer)}
	defer func() {
		cancel()
		s.wg.Wait()
		s.drop()
	}()
	for ctx.Err() == nil {
		t := time.NewTimer(s.act(o.opt.Now()))
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-w.pulse.stirred:
		case a := <-s.answers:
			s.take(a)
		case <-w.suspect:
			now := o.opt.Now()
			s.next, s.hasty = now, now.Add(suspicionLasts)
		case done := <-w.asks:
			now := o.opt.Now()
			s.waiting = append(s.waiting, waiter{now, now.Add(o.checks().Timeout), done})
		}
		t.Stop()
	}
}

// act does what is due at now and says after what time there will be more.
func (s *sight) act(now time.Time) time.Duration {
	check := s.o.checks()
	again := now.Add(time.Hour)
	sooner := func(t time.Time) {
		if t.Before(again) {
			again = t
		}
	}
	if due := !now.Before(s.next) || len(s.waiting) > 0; due && s.idle() {
		s.look(now)
	} else if s.idle() {
		sooner(s.next)
	}
	since := s.w.pulse.silence()
	if s.vigil.spoken(since) && !s.hung {
		s.o.spoke(s.w)
	}
	if !since.IsZero() {
		if spare := since.Add(check.Timeout / 2); s.dialled == nil && !now.Before(spare) {
			s.dial(now)
		} else if s.dialled == nil {
			sooner(spare)
		}
		for at, began := s.vigil.due(check.Timeout, check.step()); ; at, began = s.vigil.due(check.Timeout, check.step()) {
			if now.Before(at) {
				sooner(at)
				break
			}
			s.vigil.counted++
			s.o.failed(s.w, began, fmt.Errorf("no answer for %s: %w", now.Sub(since).Round(time.Millisecond), context.DeadlineExceeded))
		}
	}
	s.serve(now, sooner)
	return again.Sub(now)
}

// idle: nothing is under way that a look would have to wait for.
func (s *sight) idle() bool {
	if s.conn == nil {
		return s.dialled == nil
	}
	return !s.asking
}

// look asks on the kept connection, and makes a new one where there is none or
// it has been used for long enough.
func (s *sight) look(now time.Time) {
	if s.conn != nil {
		s.ask(s.conn, now)
		s.asking = true
	}
	if s.dialled == nil && (s.conn == nil || s.looks >= looksOnOneConnection) {
		s.dial(now)
	}
}

func (s *sight) dial(began time.Time) {
	s.looks = 0
	s.dialled = &kept{line: line{s.w.pulse}}
	s.ask(s.dialled, began)
}

// ask asks everything on a connection, which it makes first where there is
// none, and gives up at the limit.
func (s *sight) ask(k *kept, began time.Time) {
	ctx, cancel := context.WithTimeout(s.ctx, s.o.checks().limit())
	k.cancel = cancel
	k.line.ask()
	s.wg.Go(func() {
		defer cancel()
		a := answer{from: k, began: began}
		fresh := k.conn == nil
		if fresh {
			k.conn, a.err = s.o.dial(ctx, s.w.node, Replication, &k.line)
		}
		tell := s.o.witness(s.w.node.ID)
		if a.err == nil {
			a.facts, a.err = s.o.gather(ctx, s.w, k.conn, fresh)
		}
		k.line.settle()
		tell(a.facts, a.err)
		a.late = a.err != nil && ctx.Err() != nil
		if a.err != nil {
			hangUp(k.conn)
		}
		select {
		case s.answers <- a:
		case <-s.ctx.Done():
			hangUp(k.conn)
		}
	})
}

// take files an answer.
func (s *sight) take(a answer) {
	now := s.o.opt.Now()
	s.next = now.Add(s.pause(now))
	switch a.from {
	case s.dialled:
		s.dialled = nil
		s.admitted(a)
	case s.conn:
		s.asking = false
		switch {
		case a.err == nil:
			s.looks++
			s.answered(a)
		case a.late:
			s.drop()
			s.failed(a, true)
		default:
			// It has been cut, as by a restart; only a new one tells whether
			// the server is there.
			s.drop()
			if s.dialled == nil {
				s.dial(a.began)
			}
		}
	default: // given up before
		hangUp(a.from.conn)
	}
}

// admitted files what became of a new connection. A server that answers it with
// an error, as one that is full does, keeps the old.
func (s *sight) admitted(a answer) {
	reach := classify(a.err)
	switch {
	case a.err == nil:
		s.drop()
		s.conn, s.asking, s.unadmitted = a.from, false, 0
		s.answered(a)
		return
	case s.conn != nil && !a.late && reach == cluster.ReachRejected:
		s.unadmitted = 0
		return
	case a.late:
		s.unadmitted++
		if s.conn != nil && s.unadmitted < admissionsTried {
			s.dial(s.o.opt.Now())
			return
		}
		poke(s.w.anew) // what the sentinel still hears says nothing
	default:
		s.unadmitted = 0
	}
	s.drop()
	s.failed(a, a.late)
}

func (s *sight) answered(a answer) {
	s.hung = false
	s.o.answered(s.w, a.facts)
	s.tell(a.facts.LastOK)
}

func (s *sight) failed(a answer, late bool) {
	s.hung = s.hung || late
	s.o.failed(s.w, a.began, a.err)
	s.tell(a.began)
}

// drop lets go of the kept connection. One with an open question comes back as
// an answer, and is closed then.
func (s *sight) drop() {
	if s.conn == nil {
		return
	}
	if s.asking {
		s.conn.cancel()
		s.conn.line.settle()
	} else {
		hangUp(s.conn.conn)
	}
	s.conn, s.asking = nil, false
}

func (s *sight) pause(now time.Time) time.Duration {
	if now.Before(s.hasty) {
		return suspicionPause
	}
	return s.o.checks().pause()
}

// tell wakes those who waited for a look that began at began.
func (s *sight) tell(began time.Time) {
	left := s.waiting[:0]
	for _, w := range s.waiting {
		if began.Before(w.since) {
			left = append(left, w)
		} else {
			w.done <- struct{}{}
		}
	}
	s.waiting = left
}

// serve wakes those who have waited long enough.
func (s *sight) serve(now time.Time, sooner func(time.Time)) {
	left := s.waiting[:0]
	for _, w := range s.waiting {
		if now.Before(w.until) {
			left = append(left, w)
			sooner(w.until)
		} else {
			w.done <- struct{}{}
		}
	}
	s.waiting = left
}

func hangUp(conn *pgx.Conn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx) // it is given up either way
}

// gather asks everything. What costs the server more is asked on a connection
// that is new, and when the node has come to another timeline.
func (o *Observer) gather(ctx context.Context, w *watch, conn *pgx.Conn, fresh bool) (cluster.NodeFacts, error) {
	asked := o.opt.Now()
	facts, err := gather(ctx, conn, asked)
	if code(err) == notInState {
		// It was promoted between two expressions of the query.
		facts, err = gather(ctx, conn, asked)
	}
	if err != nil {
		return facts, err
	}
	o.mu.Lock()
	was := o.facts[w.node.ID]
	o.mu.Unlock()
	if fresh || was.Timeline != facts.Timeline || was.Role != facts.Role {
		err = gatherMore(ctx, conn, &facts)
	} else {
		facts.ConfigErrors, facts.SwitchHistory, facts.OldestWAL = was.ConfigErrors, was.SwitchHistory, was.OldestWAL
	}
	facts.LastTry, facts.LastOK = asked, asked
	return facts, err
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

// dial logs in, and lets the line hear what the server says.
func (o *Observer) dial(ctx context.Context, n cluster.Node, role Role, l *line) (*pgx.Conn, error) {
	cfg, err := o.opt.Config(n, role)
	if err != nil {
		return nil, fmt.Errorf("make a connection to %s: %w", n.ID, err)
	}
	cfg.RuntimeParams["application_name"] = "pgtandem observer"
	cfg.ConnectTimeout = 0 // ctx says how long
	connect := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := connect(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return attentive{c, l}, nil
	}
	return pgx.ConnectConfig(ctx, cfg)
}

// answered files a successful look. One that was asked before something newer
// was learnt is too late to say anything, but for an end of a silence.
func (o *Observer) answered(w *watch, saw cluster.NodeFacts) {
	o.mu.Lock()
	was := o.facts[w.node.ID]
	if saw.LastOK.Before(was.LastOK) || saw.LastOK.Before(was.LastTry) && was.Reach != cluster.ReachTimeout {
		o.mu.Unlock()
		return
	}
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

// failed files an attempt without facts. The end of one that began before the
// silence was last counted adds nothing to it.
func (o *Observer) failed(w *watch, began time.Time, err error) {
	o.mu.Lock()
	was := o.facts[w.node.ID]
	if was.Reach == cluster.ReachTimeout && classify(err) == was.Reach && began.Before(was.LastTry) {
		o.mu.Unlock()
		return
	}
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

// spoke files a sign of life that is no answer.
func (o *Observer) spoke(w *watch) {
	o.mu.Lock()
	was := o.facts[w.node.ID]
	f := Spoke(was)
	o.facts[w.node.ID] = f
	o.mu.Unlock()
	if Notable(was, f) {
		poke(o.changed)
	}
}
