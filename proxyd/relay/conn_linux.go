//go:build linux && !portable

package relay

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Conn is a connection that begins as an ordinary one and is given to a loop
// by Start.
type Conn struct {
	nc      net.Conn // until Start
	loop    *Loop
	handler Handler
	slot    int32

	mu     sync.Mutex // over what follows, and over writes
	fd     int        // of the loop's; -1 before Start and at the end
	closed bool
	paused bool
	armed  bool         // epoll watches it
	events uint32       // what it watches for
	out    []byte       // what the peer has not taken yet
	left   atomic.Int64 // its length, for those without the lock
	limit  *time.Timer
	ending bool // Finish: close when out is empty
}

// Wrap makes a connection that can be started later.
func Wrap(nc net.Conn) *Conn { return &Conn{nc: nc, fd: -1, slot: -1} }

// Start gives the connection to a loop. The socket is taken from Go's poller,
// which would be woken by every arrival as well. Nobody may be reading or
// writing meanwhile.
func (c *Conn) Start(l *Loop, h Handler) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fmt.Errorf("give a connection to an event loop: %w", net.ErrClosed)
	}
	fd, err := duplicate(c.nc)
	if err != nil {
		return fmt.Errorf("give a connection to an event loop: %w", err)
	}
	c.loop, c.handler, c.fd = l, h, fd
	c.nc.Close()
	l.Post((*begin)(c))
	return nil
}

// duplicate gives another descriptor of the same socket, as non-blocking as
// that is.
func duplicate(nc net.Conn) (int, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return -1, fmt.Errorf("a %T has no descriptor", nc)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	var fd uintptr
	var errno syscall.Errno
	err = raw.Control(func(old uintptr) {
		fd, _, errno = syscall.RawSyscall(syscall.SYS_FCNTL, old, syscall.F_DUPFD_CLOEXEC, 0)
	})
	if err == nil && errno != 0 {
		err = os.NewSyscallError("dup", errno)
	}
	return int(fd), err
}

type begin Conn

// Run is the first task of a connection in its loop.
func (t *begin) Run() {
	c := (*Conn)(t)
	c.slot = c.loop.slot(c)
	c.mu.Lock()
	if !c.closed {
		c.watch()
	}
	c.mu.Unlock()
	c.handler.Readable()
}

// wanted is what epoll is to watch for. A peer that has both hung up and is
// paused would be reported without end, so a paused connection with nothing to
// write is not watched at all.
func (c *Conn) wanted() (events uint32) {
	if !c.paused {
		events = syscall.EPOLLIN | syscall.EPOLLRDHUP
	}
	if len(c.out) > 0 {
		events |= syscall.EPOLLOUT
	}
	return events
}

// watch brings epoll up to date. The lock is held.
func (c *Conn) watch() {
	if c.fd < 0 || c.slot < 0 {
		return
	}
	want := c.wanted()
	op := syscall.EPOLL_CTL_MOD
	switch {
	case c.armed && want == c.events, !c.armed && want == 0:
		return
	case !c.armed:
		op = syscall.EPOLL_CTL_ADD
	case want == 0:
		op = syscall.EPOLL_CTL_DEL
	}
	ev := syscall.EpollEvent{Events: want, Fd: c.slot}
	if err := syscall.EpollCtl(c.loop.epoll, op, c.fd, &ev); err != nil { // no memory
		c.closeLocked()
		return
	}
	c.armed, c.events = want != 0, want
}

// event is told by the loop what epoll saw.
func (c *Conn) event(seen uint32) {
	c.mu.Lock()
	if c.closed || !c.armed {
		c.mu.Unlock()
		return
	}
	// Of a peer that is gone it is read first what it had said: to write would
	// only end the connection. The reading meets the end, too.
	gone := seen&(syscall.EPOLLERR|syscall.EPOLLHUP) != 0
	reads := !c.paused && !c.ending
	drained := (gone && !reads || !gone && seen&syscall.EPOLLOUT != 0) && len(c.out) > 0 && c.drain()
	readable := !c.paused && !c.ending && seen&^syscall.EPOLLOUT != 0
	c.mu.Unlock()
	if drained {
		c.handler.Drained()
	}
	if readable {
		c.handler.Readable()
	}
}

// drain writes what was kept. It says whether nothing is left. The lock is
// held.
func (c *Conn) drain() bool {
	n, err := c.write(c.out)
	c.out = c.out[n:]
	c.left.Store(int64(len(c.out)))
	if err != nil {
		c.closeLocked()
		return false
	}
	if len(c.out) > 0 {
		return false
	}
	c.out = nil
	c.watch()
	if c.ending {
		c.closeLocked()
	}
	return true
}

// write writes what the socket takes. The lock is held.
func (c *Conn) write(b []byte) (n int, err error) {
	for n < len(b) {
		m, _, errno := syscall.RawSyscall6(sysSend, uintptr(c.fd), uintptr(unsafe.Pointer(&b[n])), uintptr(len(b)-n), syscall.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			n += int(m)
		case syscall.EINTR:
		case syscall.EAGAIN:
			return n, nil
		default:
			return n, os.NewSyscallError("send", errno)
		}
	}
	return n, nil
}

// Write sends b and, once started, keeps what the peer does not take yet. It
// may be called from anywhere. Whoever writes more than a little looks at
// Pending, and stops until Drained.
func (c *Conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	if c.loop == nil {
		c.mu.Unlock()
		return c.nc.Write(b)
	}
	defer c.mu.Unlock()
	if c.closed || c.ending {
		return 0, net.ErrClosed
	}
	n := 0
	if len(c.out) == 0 {
		var err error
		if n, err = c.write(b); err != nil {
			return n, err
		}
	}
	if n < len(b) {
		c.out = append(c.out, b[n:]...)
		c.left.Store(int64(len(c.out)))
		c.watch()
	}
	return len(b), nil
}

// Pending is how many bytes the peer has not taken yet.
func (c *Conn) Pending() int { return int(c.left.Load()) }

// Read reads what there is, once started without waiting for it: ErrAgain says
// that there is nothing. It is then for the handler alone.
func (c *Conn) Read(b []byte) (int, error) {
	if c.slot < 0 {
		return c.nc.Read(b)
	}
	if len(b) == 0 {
		return 0, nil
	}
	for {
		// The descriptor is closed by this very thread.
		n, _, errno := syscall.RawSyscall6(sysReceive, uintptr(c.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0, 0, 0)
		switch {
		case errno == syscall.EINTR:
			continue
		case errno == syscall.EAGAIN:
			return 0, ErrAgain
		case errno != 0:
			return 0, os.NewSyscallError("recv", errno)
		case n == 0:
			return 0, io.EOF
		}
		return int(n), nil
	}
}

// Peek says whether there are bytes to be read; an error, io.EOF for one, says
// that there will be none. What lies in a layer above is not seen. It may be
// called from anywhere.
func (c *Conn) Peek() (some bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loop != nil {
		if c.fd < 0 {
			return false, io.EOF
		}
		return peek(c.fd)
	}
	return peekBefore(c.nc)
}

// Pause stops Readable until Resume. Both may be called from anywhere; what is
// under way meanwhile is still told.
func (c *Conn) Pause() { c.setPaused(true) }

// Resume ends Pause.
func (c *Conn) Resume() { c.setPaused(false) }

func (c *Conn) setPaused(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paused != yes {
		c.paused = yes
		c.watch()
	}
}

// Finish closes the connection once the peer has taken what was written, and
// at the latest after limit.
func (c *Conn) Finish(limit time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loop == nil || len(c.out) == 0 {
		c.closeLocked()
		return
	}
	if !c.ending && !c.closed {
		c.ending, c.paused = true, true
		c.limit = time.AfterFunc(limit, func() { c.Close() })
		c.watch()
	}
}

// Close ends the connection, from anywhere and as often as one likes.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked()
	return nil
}

// closeLocked lets the peer see the end at once. The descriptor itself is
// closed by the loop, because that may be about to read it.
func (c *Conn) closeLocked() {
	if c.closed {
		return
	}
	c.closed = true
	if c.loop == nil {
		c.nc.Close()
		return
	}
	syscall.Shutdown(c.fd, syscall.SHUT_RDWR) //nolint:errcheck // the peer may have gone first
	if c.limit != nil {
		c.limit.Stop()
	}
	c.loop.Post((*end)(c))
}

type end Conn

// Run is the last task of a connection in its loop.
func (t *end) Run() {
	c := (*Conn)(t)
	c.mu.Lock()
	if c.armed { // a fork may keep the socket alive beyond its closing
		syscall.EpollCtl(c.loop.epoll, syscall.EPOLL_CTL_DEL, c.fd, &syscall.EpollEvent{}) //nolint:errcheck // closed right now
	}
	syscall.Close(c.fd) //nolint:errcheck // nothing is left to be said
	c.fd, c.armed, c.out = -1, false, nil
	c.left.Store(0)
	c.mu.Unlock()
	c.loop.unslot(c.slot)
	c.handler.Closed()
}
