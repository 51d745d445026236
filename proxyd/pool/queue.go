package pool

import (
	"slices"
	"time"
)

// queue is a line of waiters, oldest first.
type queue struct {
	list  []*Waiter
	first int
}

func (q *queue) len() int       { return len(q.list) - q.first }
func (q *queue) head() *Waiter  { return q.list[q.first] }
func (q *queue) push(w *Waiter) { q.list = append(q.list, w) }

func (q *queue) pop() *Waiter {
	w := q.list[q.first]
	q.list[q.first] = nil
	q.first++
	if 2*q.first >= len(q.list) { // what was moved is paid for by what was popped
		n := copy(q.list, q.list[q.first:])
		clear(q.list[n:])
		q.list, q.first = q.list[:n], 0
	}
	return w
}

func (q *queue) remove(w *Waiter) {
	i := q.first + slices.Index(q.list[q.first:], w)
	q.list = slices.Delete(q.list, i, i+1)
}

// sated takes a group of which nobody waits any more from the hungry ones.
func (l *Ledger) sated(g *group) {
	if g.waiters.len() == 0 {
		delete(l.hungry, g)
	}
}

// serve grants what it can to the waiters of a group.
func (l *Ledger) serve(g *group, e *Effects, now time.Time) {
	for g.waiters.len() > 0 && l.grant(g, e, now) {
	}
}

// feed grants what it can to whoever waits, the oldest first.
func (l *Ledger) feed(e *Effects, now time.Time) {
	l.round++
	for {
		var next *group
		for g := range l.hungry {
			if g.blocked != l.round && (next == nil || g.waiters.head().turn < next.waiters.head().turn) {
				next = g
			}
		}
		switch {
		case next == nil:
			return
		case !l.grant(next, e, now):
			next.blocked = l.round
		}
	}
}

// grant gives the group's oldest waiter a server, where that can be. Where it
// cannot, no other waiter of the group can have one: none of its servers is
// idle.
func (l *Ledger) grant(g *group, e *Effects, now time.Time) bool {
	s := l.find(g, g.waiters.head(), e, now)
	if s == nil {
		return false
	}
	w := g.waiters.pop()
	w.queued = false
	l.sated(g)
	e.Grants = append(e.Grants, Grant{w, s})
	return true
}

// find gives an idle server of the waiter's key, or room for a new one, which
// may cost idle servers of other keys their places.
func (l *Ledger) find(g *group, w *Waiter, e *Effects, now time.Time) *Server {
	if s := l.Take(w.Key, AnyLane, now); s != nil {
		return s
	}
	if !g.roomFor(w, now) {
		if g.counts[Idle] == 0 {
			return nil
		}
		l.close(g.longestIdle(), e, now)
	}
	for _, a := range g.accounts {
		if a.full() && a.idle == 0 {
			return nil
		}
	}
	for _, a := range g.accounts {
		if a.full() {
			l.close(l.longestIdleOf(a), e, now)
		}
	}
	return l.place(w.Key, now)
}

// yield gives the place of an idle server to a waiter of another group that has
// waited longer than its own group's, where nothing but a limit that both share
// stands in the way: a busy group would keep all of its servers busy for ever.
// Every place that changes hands costs a login, so it does so only where the
// other group has none at all, or the two have shared less evenly before than
// after.
func (l *Ledger) yield(s *Server, e *Effects, now time.Time) bool {
	own := s.shelf.group
	if own.waiters.len() == 0 { // then it is idle, and anybody's
		return false
	}
	var rival *group
	for g := range l.hungry {
		w := g.waiters.head()
		if w.turn < own.waiters.head().turn && g.poorer(own) && g.roomFor(w, now) && g.wants(own) &&
			(rival == nil || w.turn < rival.waiters.head().turn) {
			rival = g
		}
	}
	if rival == nil {
		return false
	}
	l.close(s, e, now)
	return l.grant(rival, e, now)
}

func (g *group) poorer(other *group) bool {
	return g != other && (len(g.servers) == 0 || len(g.servers)+1 < len(other.servers))
}

// wants says whether the group lacks nothing but that the other had one server
// less.
func (g *group) wants(other *group) bool {
	for i, a := range g.accounts {
		if a.full() && a != other.accounts[i] {
			return false
		}
	}
	return g.accountsFull()
}
