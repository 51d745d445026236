package session

import (
	"errors"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/pool"
)

// Where more clients have something to ask than there are servers, waiting in
// line is the rule, and it is done in the loop. A client whose time is nearly up
// goes on waiting in the same place as an errand, which keeps to the limit.

// errInLine: the client waits in line. Nothing of the message at hand has been
// done.
var errInLine = errors.New("waiting in line for a server")

// lateness is how often the clients that wait are looked at, and how long before
// its time is up a client stops waiting in the loop.
const lateness = 100 * time.Millisecond

// stand lets the client wait in line for a server of the target.
func (c *client) stand(t pool.Target) {
	if c.waiter == nil {
		c.waiter = pool.NewWaiter(func() { c.loop.Post((*served)(c)) })
		c.outOfLine = func() { c.loop.Post((*canceled)(c)) }
		c.askedFor = new(pool.Target)
	}
	c.inLine, c.asked, *c.askedFor = true, true, t
	c.wait.Store(waitInLine)
	c.cancelMu.Lock()
	c.cancelWait = c.outOfLine
	c.cancelMu.Unlock()
	c.s.pool.Ask(c.waiter, c.poolKey(t))
	c.lookForLate()
}

// stepOut ends the waiting in the loop; the place in line stays.
func (c *client) stepOut() {
	c.inLine = false
	c.wait.Store(waitNone)
	c.cancelMu.Lock()
	c.cancelWait = nil
	c.cancelMu.Unlock()
}

// waitElsewhere makes an errand of the wait.
func (c *client) waitElsewhere() {
	c.stepOut()
	c.errand()
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
	case !c.fits(srv.Value.(*backend)):
		c.asked = false
		c.s.pool.Release(srv, false)
		c.errand()
		return
	case !c.attach(srv):
		c.asked = false
		c.s.pool.Remove(srv)
		c.errand()
		return
	}
	c.asked = false
	now := c.s.now()
	c.waited(now.Sub(time.Unix(0, c.since.Swap(now.UnixNano()))))
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
		c.waitElsewhere()
	}
}

// lookForLate arranges for those to be looked after who may wait for too long.
func (c *client) lookForLate() {
	if !c.s.looking.Load() && c.terms().WaitTimeout > 0 {
		c.s.lookForLate()
	}
}

func (s *Server) lookForLate() {
	if s.looking.CompareAndSwap(false, true) {
		time.AfterFunc(lateness, s.late)
	}
}

// late wakes the clients whose time is nearly up.
func (s *Server) late() {
	s.looking.Store(false)
	waiting := false
	for _, c := range s.clientList() {
		if c.wait.Load() == waitInLine {
			waiting = true
			if c.isLate() {
				c.wake()
			}
		}
	}
	if waiting {
		s.lookForLate()
	}
}

// isLate says whether what a client may wait is nearly over.
func (c *client) isLate() bool {
	limit := c.terms().WaitTimeout
	return limit > 0 && c.s.now().UnixNano()-c.since.Load() >= int64(limit-lateness)
}
