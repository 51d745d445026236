package session

import "errors"

// Sometimes what a client sends next has to wait for the answers to what was sent
// before: a flight of reads that may have to be sent once more, and a COMMIT whose
// transaction has no name yet. The client waits in its loop.

// errBehind: what comes next has to wait for the answers to what was sent.
// Nothing of the message at hand has been done.
var errBehind = errors.New("waiting for the answers to what was sent before")

// behind makes the client wait for answers.
func (c *client) behind() {
	c.inLine = true
	c.waits.Store(true)
	if b := c.link.Load(); b == nil || b.still() {
		c.wake()
	}
}

// ahead ends that.
func (c *client) ahead() {
	if c.waits.Swap(false) {
		c.stepOut()
	}
}

// again says that a flight is to be sent once more.
func (c *client) again() bool { return c.reads != nil && c.reads.again.Load() != nil }

// resumes goes on with a client that waited for answers, or whose flight has to
// be sent once more. In the loop.
func (c *client) resumes() bool {
	if !c.waits.Load() && !c.again() {
		return false
	}
	if b := c.link.Load(); b != nil {
		b.mu.Lock()
		mine, dead, still := b.client == c, b.dead, b.pipe.Still()
		b.mu.Unlock()
		switch {
		case dead:
			c.ahead()
			return false // it is given up first
		case mine && (!still || c.again()):
			return true // we are woken again
		}
	}
	c.ahead()
	if c.reads != nil {
		c.rewind()
	}
	c.sock.Resume()
	c.advance()
	if c.secure && !c.over && !c.away && !c.inLine {
		c.Readable()
	}
	return true
}

// parted wakes a client that waits for its server to have done with it.
func (c *client) parted() {
	if c.waits.Load() || c.again() {
		c.wake()
	}
}

// still says that nothing more is to be expected of the server.
func (b *backend) still() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dead || b.pipe.Still()
}
