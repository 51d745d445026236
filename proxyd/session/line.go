package session

import (
	"errors"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/pool"
)

// Where more clients have something to ask than there are servers, waiting in
// line for a moment is the rule, and it is done in the loop. A client that waits
// for longer goes on waiting in the same place as an errand, which knows of all
// limits.

// errInLine: the client waits in line. Nothing of the message at hand has been
// done.
var errInLine = errors.New("waiting in line for a server")

// lineTime is how long a client may wait in the loop.
const lineTime = 100 * time.Millisecond

// stand lets the client wait in line for a server of the target.
func (c *client) stand(t pool.Target) {
	if c.waiter == nil {
		c.waiter = pool.NewWaiter(func() { c.loop.Post((*served)(c)) })
		c.outOfLine = func() { c.loop.Post((*canceled)(c)) }
	}
	c.inLine, c.asked, c.askedFor = true, true, t
	c.wait.Store(waitInLine)
	c.cancelMu.Lock()
	c.cancelWait = c.outOfLine
	c.cancelMu.Unlock()
	c.s.pool.Ask(c.waiter, c.poolKey(t))
	c.s.lookForLate()
}

// stepOut ends the waiting in the loop; the place in line stays.
func (c *client) stepOut() {
	c.inLine = false
	c.wait.Store(waitNone)
	c.cancelMu.Lock()
	c.cancelWait = nil
	c.cancelMu.Unlock()
}

// leaveLine gives up the place, and what was granted at the same moment.
func (c *client) leaveLine() {
	if c.inLine {
		c.stepOut()
	}
	if c.asked {
		c.asked = false
		c.s.pool.Leave(c.waiter)
	}
}

type served client

// Run goes on with a client whose turn it is. One that waits as an errand takes
// what it is given itself.
func (t *served) Run() {
	c := (*client)(t)
	if !c.inLine {
		return
	}
	var srv *pool.Server
	select {
	case srv = <-c.waiter.Ready:
	default:
		return
	}
	c.stepOut()
	switch {
	case srv.Value == nil: // to be opened
		c.waiter.Ready <- srv
		c.errand()
		return
	case !c.attach(srv):
		c.asked = false
		c.s.pool.Remove(srv)
		c.errand()
		return
	}
	c.asked = false
	c.sock.Resume()
	c.advance()
	if c.secure && !c.over && !c.away && !c.inLine {
		c.Readable()
	}
}

type canceled client

// Run lets a client hear that it was canceled while it waited.
func (t *canceled) Run() {
	c := (*client)(t)
	if c.inLine {
		c.cancelMu.Lock()
		c.canceled = true
		c.cancelMu.Unlock()
		c.stepOut()
		c.errand()
	}
}

// lookForLate arranges for those who wait for long to be looked after.
func (s *Server) lookForLate() {
	if s.looking.CompareAndSwap(false, true) {
		time.AfterFunc(lineTime, s.late)
	}
}

// late wakes the clients that have waited in their loops for long.
func (s *Server) late() {
	s.looking.Store(false)
	now, waiting := s.now().UnixNano(), false
	for _, c := range s.clientList() {
		if c.wait.Load() != waitInLine {
			continue
		}
		waiting = true
		if now-c.since.Load() >= int64(lineTime) {
			c.wake()
		}
	}
	if waiting {
		s.lookForLate()
	}
}

// overdue says whether the client has waited in the loop for long enough.
func (c *client) overdue() bool {
	return c.inLine && (c.s.closing.Load() || c.s.now().UnixNano()-c.since.Load() >= int64(lineTime))
}
