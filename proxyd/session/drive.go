package session

import (
	"errors"

	"github.com/pgtandem/pgtandem/proxyd/relay"
)

// A client is driven by its loop as long as nothing has to be waited for. What
// may wait (for the gate, for a server to be opened, for a lost one to be given
// up) is an errand: a goroutine has the client until it is done, and the loop
// does nothing for it but hear whether it hangs up.

// errAway says that what comes next may have to wait. Nothing of the message at
// hand has been done.
var errAway = errors.New("this cannot be done in the loop")

// turns is how often in a row a connection with TLS is read before others have
// theirs.
const turns = 8

// Readable implements relay.Handler. Who does not take what it is sent is not
// read either, and nor is a client whose server takes no more.
func (c *client) Readable() {
	switch {
	case c.over:
	case c.away || c.inLine:
		c.overhear()
	case c.sock.Pending() > 0:
		c.sock.Pause()
	case c.clogged():
	default:
		c.turn()
	}
}

// clogged pauses a client whose server has yet to take what was sent.
func (c *client) clogged() bool {
	b := c.link.Load()
	if b == nil || b.sock.Pending() == 0 {
		return false
	}
	c.stalled.Store(true)
	c.sock.Pause()
	if c.link.Load() == b && b.sock.Pending() > 0 {
		return true
	}
	c.sock.Resume() // it has just taken it
	return false
}

// unstall ends the pause, from anywhere.
func (c *client) unstall() {
	if c.stalled.Swap(false) {
		c.sock.Resume()
		if c.secure { // TLS may hold what the socket knows nothing of
			c.loop.Post((*again)(c))
		}
	}
}

type again client

// Run reads on where the socket has nothing to tell.
func (t *again) Run() { (*client)(t).Readable() }

// Drained implements relay.Handler: the client has taken all it was sent, and
// both sides may go on.
func (c *client) Drained() {
	c.drains.Add(1)
	if b := c.link.Load(); b != nil {
		b.unstall()
	}
	if c.over || c.away || c.inLine {
		return
	}
	c.sock.Resume()
	if c.secure {
		c.Readable()
	}
}

// turn reads what there is, and does it.
func (c *client) turn() {
	for range turns {
		err := c.fill()
		if errors.Is(err, relay.ErrAgain) {
			return
		}
		if err != nil {
			c.end(err)
			return
		}
		c.since.Store(c.s.now().UnixNano())
		c.advance()
		// The loop tells of what is left on a plain socket; TLS may have more.
		if !c.secure || c.over || c.away || c.inLine || c.sock.Pending() > 0 || c.clogged() {
			return
		}
	}
	c.loop.Post((*again)(c))
}

// advance judges what has been read, in the loop.
func (c *client) advance() {
	err := c.process()
	switch {
	case err == nil:
		if c.r == c.w {
			c.giveBuffer()
		}
	case errors.Is(err, errAway):
		c.errand()
	case errors.Is(err, errInLine):
	case errors.Is(err, errBehind):
		c.behind()
	default:
		c.end(err)
	}
}

// errand lets a goroutine go on.
func (c *client) errand() {
	c.away = true
	go func() {
		err := c.look()
		if err == nil {
			err = c.process()
		}
		c.comeBack(err)
	}()
}

// comeBack gives the client to its loop.
func (c *client) comeBack(err error) {
	c.result = err
	c.loop.Post((*back)(c))
}

type back client

// Run takes the client over from the goroutine that had it.
func (t *back) Run() {
	c := (*client)(t)
	c.away = false
	c.cancelMu.Lock()
	c.hungUp, c.canceled = false, false
	c.cancelMu.Unlock()
	switch {
	case errors.Is(c.result, errBehind) && !c.shut:
		c.behind()
	case c.result != nil:
		c.end(c.result)
		return
	case c.shut:
		c.end(errClosed)
		return
	}
	if c.r == c.w {
		c.giveBuffer()
	}
	if c.woken.Load() {
		c.roused()
	}
	if c.over || c.away || c.inLine {
		return
	}
	c.sock.Resume()
	if c.secure {
		c.Readable()
	}
}

// overhear ends the wait of a client that hangs up. What it sends while it
// waits stays in the socket.
func (c *client) overhear() {
	some, err := c.sock.Peek()
	if some || err != nil {
		c.sock.Pause()
	}
	switch {
	case err != nil && c.inLine:
		c.end(errHungUp)
	case err != nil:
		c.cancelMu.Lock()
		defer c.cancelMu.Unlock()
		c.hungUp = true
		if c.endWait != nil {
			c.endWait(errHungUp)
		}
	}
}

// wake makes the client look around, from anywhere.
func (c *client) wake() {
	if !c.woken.Swap(true) {
		c.loop.Post((*rouse)(c))
	}
}

type rouse client

// Run looks around in the loop.
func (t *rouse) Run() { (*client)(t).roused() }

// roused sees whether the server is lost, and whether the proxy stops. A client
// that is away does so when it comes back.
func (c *client) roused() {
	if c.over {
		return
	}
	if c.away {
		if c.s.closing.Load() {
			c.cancelMu.Lock()
			defer c.cancelMu.Unlock()
			if c.endWait != nil {
				c.endWait(errStopping)
			}
		}
		return
	}
	c.woken.Store(false)
	if c.resumes() {
		return
	}
	if c.inLine {
		if c.s.closing.Load() || c.isLate() {
			c.waitElsewhere()
		}
		return
	}
	b := c.link.Load()
	if b != nil && b.lost() || b == nil && c.refused.Load() != nil {
		c.errand()
	} else if err := c.stopIfIdle(); err != nil {
		c.end(err)
	}
}

// Closed implements relay.Handler.
func (c *client) Closed() {
	c.shut = true
	switch {
	case c.over:
		c.s.gone(c)
	case !c.away:
		c.end(errClosed)
	}
}

// end is the end of a client's session. Its connection lasts until it has taken
// what it was told last.
func (c *client) end(err error) {
	if c.over {
		return
	}
	c.over = true
	c.leaveLine()
	c.leave()
	c.s.exit(c)
	c.s.log.Debug("a client has gone", "client", c.address, "error", err)
	if c.shut {
		c.s.gone(c)
		return
	}
	c.sock.Finish(farewellTime)
}
