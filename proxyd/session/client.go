package session

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/relay"
	"github.com/pgtandem/pgtandem/proxyd/session/statement"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// Why a client waits.
const (
	waitNone = iota
	waitLogin
	waitHeld   // at the closed gate, or for a node that cannot be reached
	waitServer // for a free server
	waitInLine // the same, in the loop
)

// client is one client's connection.
type client struct {
	s       *Server
	id      uint64
	pid     uint32 // what we gave it as BackendKeyData
	key     wire.CancelKey
	conn    net.Conn    // sock, or TLS over it
	sock    *relay.Conn // of loop once the client has proved itself
	loop    *relay.Loop
	unix    *net.UnixConn
	from    netip.Addr // zero through the Unix socket
	secure  bool
	tls     tlsFacts
	address string
	started time.Time

	// Set by the login, then constant.
	atConsole bool
	owner     bool // the operating system vouches for it
	mode      Mode
	group     pool.Group
	params    string // canonical, part of the pool's key
	walsender walsender
	login     login
	slot      bool // it has one of max_clients
	counted   bool // among those of its database and its user

	link    atomic.Pointer[backend]
	wait    atomic.Int32
	since   atomic.Int64 // of the state, unix nanoseconds
	rested  atomic.Int64 // when its last server had nothing left to answer
	appName atomic.Pointer[string]
	stmtsN  atomic.Int32                // statements it has named, as of its last message
	refused atomic.Pointer[wire.Notice] // why it must be closed
	routed  atomic.Pointer[reading]     // reads, for others to see
	woken   atomic.Bool
	waits   atomic.Bool // for the answers to what it has sent
	gone    atomic.Bool
	stalled atomic.Bool   // not read until its server has taken what was sent
	drains  atomic.Uint32 // how often it has caught up with what it was sent

	deaf deafness // of sweep alone

	cancelMu   sync.Mutex
	cancelWait func()                  // ends its waiting for a server
	endWait    context.CancelCauseFunc // the same, for another reason
	hungUp     bool                    // while it was away
	canceled   bool                    // while it waited in line

	// Guarded by the lock of the server it is linked to, and otherwise of
	// whoever drives the client.
	vars       variables
	settings   settings
	change     *change
	traits     statement.Trait // why it keeps its server
	wary       bool            // it has written by what looked like reading
	stmts      map[string]*prepared
	unnamed    []byte // body of its last unnamed Parse, behind the name
	unnamedIs  statement.Info
	unnamedSeq uint64
	hasUnnamed bool
	portal     statement.Class // of the unnamed portal
	portalInfo statement.Info
	portalText []byte

	// Of its loop alone, but for result.
	away   bool  // a goroutine has what follows
	over   bool  // end has been called
	shut   bool  // the connection is closed
	result error // of the goroutine that had the client
	inLine bool  // it waits for a server

	waiter    *pool.Waiter
	outOfLine func()

	// Of whoever drives the client: its loop, or the goroutine that has it.
	in       *[]byte // bytes read and not judged yet lie in (*in)[r:w]
	r, w     int
	rest     int64 // bytes of a message that is being passed on or dropped
	restTo   bool  // passed on to the server
	out      []byte
	runFrom  int // (*in)[runFrom:r] goes out as it is
	locked   *backend
	bulk     bool         // the buffer was filled at the last reading
	asked    bool         // waiter waits for a server of askedFor, or has been given one
	askedFor *pool.Target // nil until it has waited once: it is large, and most never wait
	first    bool         // nothing was unanswered when it was locked
	prelude  string       // goes to the server before anything else
	vacates  bool         // servers that nobody uses are to be closed before this goes out

	reads  *reading // nil where nothing is read from standbys
	skip   bool     // ignore everything up to Sync
	failed txState
}

// txState is what is left of a transaction whose server was lost.
type txState uint8

const (
	txNone txState = iota
	txLost         // the client has not been told
	txTold         // it has; only the end of the block is left
)

var (
	errClosed    = errors.New("the client closed the connection")
	errTerminate = errors.New("the client said goodbye")
)

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

// look is what a woken client does: it sees whether its server is lost, and
// whether the proxy stops.
func (c *client) look() error {
	if c.gone.Load() {
		return errClosed
	}
	if b := c.link.Load(); b != nil {
		if b.lost() {
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
	if b.dead || b.partial || !b.pipe.Idle() || c.walsender != noWalsender {
		b.client = nil
		b.reason = "its client has gone"
		if b.retiring { // somebody waits for its end
			b.partLocked()
			return
		}
		if !b.dead && !b.partial && b.pipe.Quiet() { // the socket has room
			b.conn.Write(wire.AppendEmpty(nil, wire.Terminate)) //nolint:errcheck // a courtesy: the server rolls back either way
		}
		b.severLocked()
		return
	}
	b.stained = c.stains()
	b.unlink(c.mode == ModeSession || c.traits != 0)
}

// fill reads what the client sends, behind what is not judged yet. It keeps no
// buffer while there is nothing.
func (c *client) fill() error {
	if c.in == nil {
		c.in = takeBuffer(c.bulk)
		c.r, c.w = 0, 0
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
	c.bulk = c.w == len(*c.in)
	if n > 0 {
		return nil
	}
	if c.r == c.w {
		c.giveBuffer()
	}
	return err
}

// giveBuffer returns the input buffer.
func (c *client) giveBuffer() {
	if c.in != nil {
		putBuffer(c.in)
	}
	c.in, c.r, c.w, c.runFrom = nil, 0, 0, 0
}

// named keeps the application_name for whoever looks at the list of clients.
func (c *client) named() {
	if p := c.appName.Load(); p == nil || *p != c.vars[varApplication] {
		v := c.vars[varApplication]
		c.appName.Store(&v)
	}
}

// forgetStatements drops all named statements but those of the texts.
func (c *client) forgetStatements(but map[uint64]bool) {
	for name, p := range c.stmts {
		if _, stays := but[p.text.id]; !stays {
			c.s.texts.release(p.text)
			delete(c.stmts, name)
		}
	}
}
