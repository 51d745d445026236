//go:build !linux || portable

package relay

import (
	"io"
	"net"
	"sync"
	"time"
)

// Loop is a goroutine that does what is posted to it, one thing at a time. The
// waiting is done by two goroutines for each connection, one that reads ahead
// and one that writes what was kept.
type Loop struct {
	number int
	mu     sync.Mutex
	inbox  []Task
	ended  bool
	bell   chan struct{} // capacity 1
	done   chan struct{}
}

// mostKept bounds the inbox that is used again, in tasks: a burst is not kept.
const mostKept = 1024

func newLoop() (*Loop, error) {
	l := &Loop{bell: make(chan struct{}, 1), done: make(chan struct{})}
	go l.run()
	return l, nil
}

// Post lets the loop run t soon, after what was posted before. It may be
// called from anywhere, the loop included, and does not block.
func (l *Loop) Post(t Task) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.inbox = append(l.inbox, t)
		l.ring()
	}
}

func (l *Loop) ring() {
	select {
	case l.bell <- struct{}{}:
	default:
	}
}

func (l *Loop) close() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.ring()
	<-l.done
}

func (l *Loop) run() {
	defer close(l.done)
	var spare []Task // the inbox before, so that the steady state allocates nothing
	for range l.bell {
		l.mu.Lock()
		tasks, ended := l.inbox, l.ended
		l.inbox = spare[:0]
		l.mu.Unlock()
		for _, t := range tasks {
			t.Run()
		}
		clear(tasks) // what was done is not held on to
		if spare = tasks; cap(spare) > mostKept {
			spare = nil
		}
		if ended {
			return
		}
	}
}

// readAhead is how much a connection reads before its handler takes it.
const readAhead = 16 << 10

// Conn is a connection that begins as an ordinary one and is given to a loop
// by Start.
type Conn struct {
	nc      net.Conn
	loop    *Loop
	handler Handler

	mu      sync.Mutex
	changed sync.Cond // something below is not as it was
	closed  bool
	paused  bool
	ending  bool // Finish: close when out is empty
	told    bool // Readable is in the loop's inbox
	deaf    bool // a write failed: the peer takes no more
	in      []byte
	inErr   error
	out     []byte
	sending int    // bytes taken out of out that are being written
	spare   []byte // to become out
	limit   *time.Timer
	workers sync.WaitGroup
}

// Wrap makes a connection that can be started later.
func Wrap(nc net.Conn) *Conn {
	c := &Conn{nc: nc}
	c.changed.L = &c.mu
	return c
}

// Start gives the connection to a loop. Nobody may be reading or writing
// meanwhile.
func (c *Conn) Start(l *Loop, h Handler) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.nc.SetDeadline(time.Time{})
	c.loop, c.handler = l, h
	c.workers.Go(c.reader)
	c.workers.Go(c.writer)
	c.tell()
	return nil
}

// tell lets the handler know that there is something. The lock is held.
func (c *Conn) tell() {
	if !c.told && !c.paused && !c.closed {
		c.told = true
		c.loop.Post((*readable)(c))
	}
}

type readable Conn

// Run tells the handler, again and again while something is left.
func (t *readable) Run() {
	c := (*Conn)(t)
	c.mu.Lock()
	c.told = false
	skip := c.closed || c.paused
	c.mu.Unlock()
	if skip {
		return
	}
	c.handler.Readable()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.in) > 0 || c.inErr != nil {
		c.tell()
	}
}

func (c *Conn) reader() {
	buf := make([]byte, readAhead)
	for {
		n, err := c.nc.Read(buf)
		c.mu.Lock()
		c.in, c.inErr = buf[:n], err
		c.tell()
		for len(c.in) > 0 && !c.closed {
			c.changed.Wait()
		}
		over := c.closed || err != nil
		c.mu.Unlock()
		if over {
			return
		}
	}
}

func (c *Conn) writer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.closed || len(c.out) > 0 {
		if len(c.out) == 0 {
			c.changed.Wait()
			continue
		}
		batch := c.out
		c.out, c.sending, c.spare = c.spare[:0], len(batch), nil
		c.mu.Unlock()
		_, err := c.nc.Write(batch)
		c.mu.Lock()
		c.sending = 0
		if cap(batch) <= 4*readAhead {
			c.spare = batch[:0]
		}
		if err != nil {
			c.refused()
			return
		}
		if len(c.out) > 0 {
			continue
		}
		if c.closed {
			return
		}
		if c.ending {
			c.closeLocked()
			return
		}
		c.loop.Post((*drained)(c))
	}
}

// lastWords is how long the end of a peer that takes no more is waited for. One
// that is gone has it already.
const lastWords = time.Second

// refused gives up what the peer does not take. What it had said before is still
// read, and then the end. The lock is held.
func (c *Conn) refused() {
	c.out, c.deaf = nil, true
	if c.closed || c.paused || c.ending {
		c.closeLocked()
		return
	}
	c.nc.SetReadDeadline(time.Now().Add(lastWords))
}

type drained Conn

// Run tells the handler that nothing is kept any more.
func (t *drained) Run() {
	c := (*Conn)(t)
	c.mu.Lock()
	skip := c.closed || c.pending() > 0
	c.mu.Unlock()
	if !skip {
		c.handler.Drained()
	}
}

// Write sends b and, once started, keeps what the peer does not take yet. It
// may be called from anywhere. Whoever writes more than a little looks at
// Pending, and stops until Drained.
func (c *Conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loop == nil {
		return c.nc.Write(b)
	}
	if c.closed || c.ending || c.deaf {
		return 0, net.ErrClosed
	}
	c.out = append(c.out, b...)
	c.changed.Broadcast()
	return len(b), nil
}

// Pending is how many bytes the peer has not taken yet.
func (c *Conn) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending()
}

func (c *Conn) pending() int { return len(c.out) + c.sending }

// Read reads what there is, once started without waiting for it: ErrAgain says
// that there is nothing. It is then for the handler alone.
func (c *Conn) Read(b []byte) (int, error) {
	if c.loop == nil {
		return c.nc.Read(b)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := copy(b, c.in); n > 0 {
		if c.in = c.in[n:]; len(c.in) == 0 {
			c.changed.Broadcast()
		}
		return n, nil
	}
	if c.inErr != nil {
		return 0, c.inErr
	}
	return 0, ErrAgain
}

// Peek says whether there are bytes to be read; an error, io.EOF for one, says
// that there will be none. What lies in a layer above is not seen. It may be
// called from anywhere.
func (c *Conn) Peek() (some bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.loop == nil:
		return peekBefore(c.nc)
	case c.closed:
		return false, io.EOF
	case len(c.in) > 0:
		return true, nil
	}
	return false, c.inErr
}

// Pause stops Readable until Resume. Both may be called from anywhere; what is
// under way meanwhile is still told.
func (c *Conn) Pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paused = true; c.deaf { // nothing would tell of the end
		c.closeLocked()
	}
}

// Resume ends Pause.
func (c *Conn) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paused = false; c.loop != nil && (len(c.in) > 0 || c.inErr != nil) {
		c.tell()
	}
}

// Finish closes the connection once the peer has taken what was written, and
// at the latest after limit.
func (c *Conn) Finish(limit time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loop == nil || c.pending() == 0 {
		c.closeLocked()
		return
	}
	if !c.ending && !c.closed {
		c.ending, c.paused = true, true
		c.limit = time.AfterFunc(limit, func() { c.Close() })
	}
}

// Close ends the connection, from anywhere and as often as one likes.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked()
	return nil
}

func (c *Conn) closeLocked() {
	if c.closed {
		return
	}
	c.closed = true
	if c.limit != nil {
		c.limit.Stop()
	}
	if c.loop == nil {
		c.nc.Close()
		return
	}
	if c.pending() > 0 { // as much of it as the socket takes
		c.nc.SetReadDeadline(time.Unix(1, 0))
		c.nc.SetWriteDeadline(time.Now().Add(time.Second))
	} else {
		c.nc.Close()
	}
	c.changed.Broadcast()
	go func() {
		c.workers.Wait()
		c.nc.Close()
		c.loop.Post((*end)(c))
	}()
}

type end Conn

// Run is the last task of a connection in its loop.
func (t *end) Run() { t.handler.Closed() }
