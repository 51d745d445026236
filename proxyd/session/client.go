package session

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/session/statement"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// Why a client waits.
const (
	waitNone = iota
	waitLogin
	waitHeld   // at the closed gate, or for a node that cannot be reached
	waitServer // for a free server
)

// client is one client's connection.
type client struct {
	s       *Server
	id      uint64
	pid     uint32 // what we gave it as BackendKeyData
	key     uint32
	conn    net.Conn
	tcp     *net.TCPConn // under conn, nil when it is no TCP
	secure  bool
	address string
	started time.Time

	// Set by the login, then constant.
	atConsole bool
	owner     bool // the operating system vouches for it
	mode      Mode
	group     pool.Group
	params    string // canonical, part of the pool's key
	login     login

	link    atomic.Pointer[backend]
	wait    atomic.Int32
	since   atomic.Int64 // of the state, unix nanoseconds
	appName atomic.Pointer[string]
	stmtsN  atomic.Int32                // statements it has named, as of its last message
	refused atomic.Pointer[wire.Notice] // why it must be closed
	woken   atomic.Bool
	gone    atomic.Bool

	cancelMu   sync.Mutex
	cancelWait func() // ends its waiting for a server

	// Guarded by the lock of the server it is linked to, and otherwise of the
	// client's own goroutine.
	vars       variables
	settings   settings
	change     *change
	traits     statement.Trait // why it keeps its server
	stmts      map[string]*prepared
	unnamed    []byte // body of its last unnamed Parse, behind the name
	unnamedIs  statement.Info
	unnamedSeq uint64
	hasUnnamed bool
	portal     statement.Class // of the unnamed portal
	portalInfo statement.Info
	portalText []byte

	// Of its own goroutine alone.
	in      *[]byte // bytes read and not judged yet lie in (*in)[r:w]
	r, w    int
	rest    int64 // bytes of a message that is being passed on or dropped
	restTo  bool  // passed on to the server
	out     []byte
	runFrom int // (*in)[runFrom:r] goes out as it is
	locked  *backend
	prelude string // goes to the server before anything else

	skip   bool // ignore everything up to Sync
	failed txState
	reader func(fd uintptr) bool
	raw    syscall.RawConn // nil where the bytes on the socket are not the client's own
	peek   syscall.RawConn // the socket itself
	readN  int
	readE  error
}

// txState is what is left of a transaction whose server was lost.
type txState uint8

const (
	txNone txState = iota
	txLost         // the client has not been told
	txTold         // it has; only the end of the block is left
)

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

var (
	errClosed    = errors.New("the client closed the connection")
	errTerminate = errors.New("the client said goodbye")
)

// wake makes the client's goroutine look around, from anywhere.
func (c *client) wake() {
	c.woken.Store(true)
	c.conn.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // a closed connection wakes by itself
}

// abort ends the connection, from anywhere.
func (c *client) abort() {
	c.gone.Store(true)
	c.cancelMu.Lock()
	if c.cancelWait != nil {
		c.cancelWait()
	}
	c.cancelMu.Unlock()
	hangUp(c.conn)
}

// hangUp closes a connection without TLS's farewell, which could wait for a
// peer that does not read.
func hangUp(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	conn.Close() //nolint:errcheck // whoever reads it sees the end
}

// write sends bytes to the client. Only who owns the link may call it.
func (c *client) write(b []byte) error {
	_, err := c.conn.Write(b)
	return err
}

// send writes an error that we make ourselves.
func (c *client) send(n *wire.Notice, more ...byte) error {
	c.s.note(n)
	return c.write(append(wire.AppendError(nil, n), more...))
}

// run serves a client that is logged in, until it goes.
func (c *client) run() error {
	defer c.leave()
	if c.s.closing.Load() { // it missed the call while it logged in
		c.wake()
	}
	for {
		err := c.fill()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.conn.SetReadDeadline(time.Time{}) //nolint:errcheck // see wake
			c.woken.Store(false)
			if err := c.look(); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		c.since.Store(c.s.now().UnixNano())
		if err := c.process(); err != nil {
			return err
		}
	}
}

// look is what a woken client does: it sees whether its server is lost, and
// whether the proxy stops.
func (c *client) look() error {
	if c.gone.Load() {
		return errClosed
	}
	if b := c.link.Load(); b != nil {
		b.mu.Lock()
		dead := b.dead
		b.mu.Unlock()
		if dead {
			if err := c.lose(b); err != nil {
				return err
			}
		}
	}
	if n := c.refused.Load(); n != nil && c.link.Load() == nil {
		c.send(n) //nolint:errcheck // it is going anyway
		return n
	}
	return c.stopIfIdle()
}

// stopIfIdle ends the session when the proxy stops and no transaction is open.
func (c *client) stopIfIdle() error {
	if !c.s.closing.Load() || c.w > c.r || c.rest > 0 {
		return nil
	}
	if b := c.link.Load(); b != nil {
		b.mu.Lock()
		idle := b.pipe.Idle() && !b.partial
		b.mu.Unlock()
		if !idle {
			return nil
		}
	}
	n := wire.Fatalf(wire.CodeAdminShutdown, "terminating connection due to administrator command").WithDetail("The proxy is stopping.")
	c.send(n) //nolint:errcheck // it is going anyway
	return n
}

// leave ends the client: its server goes to somebody else when nothing is
// open, and is closed otherwise.
func (c *client) leave() {
	c.giveBuffer()
	b := c.link.Load()
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client != c {
		return
	}
	if b.dead || b.partial || !b.pipe.Idle() {
		b.client = nil
		b.reason = "its client has gone"
		if !b.dead && !b.partial && b.pipe.Quiet() { // the socket has room
			b.conn.Write(wire.AppendEmpty(nil, wire.Terminate)) //nolint:errcheck // a courtesy: the server rolls back either way
		}
		b.severLocked()
		return
	}
	b.unlink(c.mode == ModeSession || c.traits != 0)
}

// fill reads what the client sends, keeping no buffer while there is nothing.
func (c *client) fill() error {
	if c.r < c.w || c.raw == nil {
		return c.fillKept()
	}
	c.giveBuffer()
	c.r, c.w = 0, 0
	c.readN, c.readE = 0, nil
	if err := c.raw.Read(c.reader); err != nil {
		return err
	}
	if c.readE != nil {
		return c.readE
	}
	if c.readN == 0 {
		return io.EOF
	}
	c.w = c.readN
	return nil
}

// tryRead is called when the socket may have something. It borrows a buffer
// only for as long as that takes, or until what came is judged.
func (c *client) tryRead(fd uintptr) bool {
	buf := buffers.Get().(*[]byte)
	for {
		n, err := syscall.Read(int(fd), *buf)
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			buffers.Put(buf)
			return false
		}
		if err != nil {
			buffers.Put(buf)
			c.readE = os.NewSyscallError("read", err)
			return true
		}
		c.in, c.readN = buf, n
		return true
	}
}

// giveBuffer returns the input buffer, unless it had to grow.
func (c *client) giveBuffer() {
	if c.in != nil && len(*c.in) == bufferSize {
		buffers.Put(c.in)
	}
	c.in = nil
}

// fillKept reads on behind bytes that are not judged yet, and whatever comes
// through TLS.
func (c *client) fillKept() error {
	if c.in == nil {
		c.in = buffers.Get().(*[]byte)
	}
	if c.r == c.w {
		c.r, c.w = 0, 0
	} else if c.r > 0 {
		c.w = copy(*c.in, (*c.in)[c.r:c.w])
		c.r = 0
	}
	if c.w == len(*c.in) { // a named Parse that must be had whole
		grown := make([]byte, min(2*len(*c.in), maxNamedParse+bufferSize))
		copy(grown, (*c.in)[:c.w])
		c.in = &grown
	}
	n, err := c.conn.Read((*c.in)[c.w:])
	c.w += n
	if n > 0 {
		return nil
	}
	return err
}

// named keeps the application_name for whoever looks at the list of clients.
func (c *client) named() {
	if p := c.appName.Load(); p == nil || *p != c.vars[varApplication] {
		v := c.vars[varApplication]
		c.appName.Store(&v)
	}
}

// forgetStatements drops all named statements: DEALLOCATE ALL.
func (c *client) forgetStatements() {
	for _, p := range c.stmts {
		c.s.texts.release(p.text)
	}
	clear(c.stmts)
}

// undoParse takes a named Parse back that the server did not execute.
func (c *client) undoParse(p parse) {
	if now := c.stmts[p.name]; now != nil && now.text == p.text {
		delete(c.stmts, p.name)
		c.s.texts.release(p.text)
	}
}
