package session

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/relay"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// serve is one accepted connection up to the end of its login; from there on
// its loop has it. It says false when it ends here.
func (s *Server) serve(conn *relay.Conn) (kept bool) {
	c := &client{s: s, conn: conn, sock: conn, loop: s.loops.Next(), id: s.lastID.Add(1), started: s.now(), away: true}
	c.wait.Store(waitLogin)
	c.since.Store(c.started.UnixNano())
	c.identify(conn.NetConn())
	deadline := c.started.Add(s.limits().LoginTimeout)
	conn.SetDeadline(deadline) //nolint:errcheck // a closed connection is noticed at the next read
	place, ok := s.doorman.enter(conn, c.from, deadline)
	defer s.doorman.leave(place)
	if !ok {
		return false
	}
	start, err := c.startup()
	if err != nil || start == nil {
		s.log.Debug("a connection ended before its login", "client", c.address, "error", err)
		return false
	}
	if start.Code == wire.CancelCode {
		s.cancel(c.from, start.PID, start.Key)
		return false
	}
	if s.slots.Load() >= int64(s.limits().MaxClients) && !s.wantsConsole(start) {
		c.send(tooManyClients()) //nolint:errcheck // going anyway
		return false
	}
	looped, err := c.logIn(start, func() { s.doorman.leave(place) })
	if err != nil {
		s.log.Info("a login failed", "client", c.address, "user", c.group.User, "database", c.group.Database, "error", err)
	}
	if c.atConsole && err == nil {
		err = c.visit(start)
		s.log.Debug("a visitor of the console has gone", "client", c.address, "error", err)
	}
	if !looped {
		s.exit(c)
		return false
	}
	c.comeBack(err)
	return true
}

// identify notes what the socket says of the client.
func (c *client) identify(conn net.Conn) {
	c.address, c.from = conn.RemoteAddr().String(), addressOf(conn)
	switch conn := conn.(type) {
	case *net.TCPConn:
		conn.SetKeepAliveConfig(c.s.limits().KeepAlive.config()) //nolint:errcheck // best effort
	case *net.UnixConn:
		c.address, c.unix = "[local]", conn // as PostgreSQL names it
	}
}

// addressOf is where a connection comes from; zero for the Unix socket.
func addressOf(conn net.Conn) netip.Addr {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// startup reads up to the packet that says what the connection is for. nil
// means that the client was told why not.
func (c *client) startup() (*wire.Startup, error) {
	sec := c.s.sec.Load()
	first, err := c.direct(sec)
	if err != nil {
		return nil, err
	}
	var ssl, gss bool
	for {
		start, err := wire.ReadStartup(io.MultiReader(first, c.conn))
		if err != nil {
			if errors.Is(err, wire.ErrProtocol) {
				c.send(wire.Fatalf(wire.CodeProtocolViolation, "%s", plain(err))) //nolint:errcheck // going anyway
			}
			return nil, err
		}
		switch {
		case start.Code == wire.SSLRequest && !ssl && !c.secure:
			ssl = true
			if err := c.answerSSLRequest(sec); err != nil {
				return nil, err
			}
		case start.Code == wire.GSSENCRequest && !gss && !c.secure:
			gss = true
			if err := c.refuseEncryption("GSSAPI encryption"); err != nil {
				return nil, err
			}
		case start.Code == wire.CancelCode:
			return start, nil
		case start.Major() != 3:
			n := wire.Fatalf(wire.CodeFeatureNotSupported, "unsupported frontend protocol %d.%d: server supports 3.0 to 3.%d",
				start.Major(), start.Minor(), c.s.opts.Newest()&0xffff)
			return nil, c.send(n)
		case !c.secure && c.unix == nil && sec.ClientTLS.Mode == TLSRequire:
			n := wire.Fatalf(wire.CodeInvalidAuthorization, "this connection must be encrypted").WithHint("Use sslmode=require or better.")
			return nil, c.send(n)
		default:
			return start, nil
		}
	}
}

// plain is an error without the words that type it.
func plain(err error) string {
	return strings.TrimPrefix(err.Error(), wire.ErrProtocol.Error()+": ")
}

// buffered says whether the socket has bytes that were not read.
func (c *client) buffered() bool {
	some, err := c.sock.Peek()
	return err == nil && some
}

// logIn proves the client and links its first server where one is needed. It
// says whether its loop has the connection, and with it what is left to be done.
// proved is told when nothing is expected of the client any more.
func (c *client) logIn(start *wire.Startup, proved func()) (looped bool, err error) {
	if n := c.accept(start); n != nil {
		c.send(n) //nolint:errcheck // going anyway
		return false, n
	}
	newest := c.s.opts.Newest()
	granted := start.Granted(newest)
	if start.Negotiates(newest) {
		if err := c.write(wire.AppendNegotiate(nil, granted, start.Options)); err != nil {
			return false, err
		}
	}
	c.s.enter(c, granted)
	if err := c.authenticate(proved); err != nil {
		return false, err
	}
	proved()
	c.conn.SetDeadline(time.Time{}) //nolint:errcheck // a closed connection is noticed at the next read
	n := c.s.valve.refusal(c.group.Database)
	if n == nil {
		n = c.takeSlot()
	}
	if n == nil {
		n = c.s.count(c)
	}
	if n != nil {
		c.send(n) //nolint:errcheck // going anyway
		return false, n
	}
	if c.atConsole { // which greets by itself
		c.wait.Store(waitNone)
		return false, nil
	}
	if err := c.sock.Start(c.loop, c); err != nil {
		return false, err
	}
	if err := c.greet(); err != nil {
		return true, err
	}
	c.s.loggedIn(c.group.Database)
	c.wait.Store(waitNone)
	return true, nil
}

func (s *Server) loggedIn(database string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins[database]++
}

func tooManyClients() *wire.Notice {
	return wire.Fatalf(wire.CodeTooManyConnections, "sorry, too many clients already")
}

// takeSlot takes one of max_clients, which nobody has without a proof. Whoever
// looks after the proxy has one whether or not there are any left.
func (c *client) takeSlot() *wire.Notice {
	c.slot = true
	if c.s.slots.Add(1) > int64(c.s.limits().MaxClients) && !c.atConsole {
		return tooManyClients()
	}
	return nil
}

// terms are what holds for the client now.
func (c *client) terms() Terms { return c.s.limits().For(c.group) }

// count enters a client that has proved itself among those of its user and its
// database, where their limits allow it; whoever looks after the proxy is in
// nobody's way. The words and their order are PostgreSQL's, of a CONNECTION
// LIMIT.
func (s *Server) count(c *client) *wire.Notice {
	if c.atConsole {
		return nil
	}
	l := s.limits()
	_, ofUser := l.OfUser(c.group.User)
	_, ofDatabase := l.OfDatabase(c.group.Database)
	user, database := pool.Group{User: c.group.User}, pool.Group{Database: c.group.Database}
	const hint = "The proxy's %s for it is %d."
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case ofUser > 0 && s.crowd[user] >= ofUser:
		return wire.Fatalf(wire.CodeTooManyConnections, "too many connections for role \"%s\"", c.group.User).WithHint(hint, "max_clients_per_user", ofUser)
	case ofDatabase > 0 && s.crowd[database] >= ofDatabase:
		return wire.Fatalf(wire.CodeTooManyConnections, "too many connections for database \"%s\"", c.group.Database).WithHint(hint, "max_clients_per_database", ofDatabase)
	}
	s.crowd[user]++
	s.crowd[database]++
	c.counted = true
	return nil
}

// discount is the opposite. The lock is held.
func (s *Server) discount(c *client) {
	if !c.counted {
		return
	}
	c.counted = false
	for _, g := range []pool.Group{{User: c.group.User}, {Database: c.group.Database}} {
		if s.crowd[g]--; s.crowd[g] == 0 {
			delete(s.crowd, g)
		}
	}
}

// accept takes the startup parameters. What a server keeps for life, its
// startup parameters, decides which clients can share it.
func (c *client) accept(start *wire.Startup) *wire.Notice {
	c.group.User, c.group.Database = start.Get("user"), start.Get("database")
	if c.group.User == "" {
		return wire.Fatalf(wire.CodeInvalidAuthorization, "no PostgreSQL user name specified in startup packet")
	}
	if c.group.Database == "" {
		c.group.Database = c.group.User
	}
	var n *wire.Notice
	if c.walsender, n = walsenderOf(start); n != nil {
		return n
	}
	c.atConsole = c.s.opts.Console.Owns(c.group.Database)
	c.mode = c.terms().Mode
	c.login.params = []wire.Param{{Name: "user", Value: c.group.User}, {Name: "database", Value: c.group.Database}}
	var key []string
	if c.walsender != noWalsender { // it does what no cleaning undoes, and not all of SQL
		c.mode = ModeSession
	}
	for _, p := range start.Params {
		switch {
		case p.Name == "user" || p.Name == "database" || p.Name == "replication" && c.walsender == noWalsender:
			continue
		}
		c.login.params = append(c.login.params, p)
		if p.Name == "application_name" {
			c.vars[varApplication] = cleanName(p.Value)
			if c.mode == ModeTransaction {
				continue
			}
		}
		key = append(key, p.Name+"="+p.Value)
	}
	slices.Sort(key)
	c.params = strings.Join(key, "\x00")
	c.named()
	return nil
}

// walsender is what a client wants to be served by.
type walsender int

const (
	noWalsender       walsender = iota
	physicalWalsender           // connected to no database
	logicalWalsender            // connected to its database
)

// walsenderOf reads the parameter "replication", as ProcessStartupPacket() does.
func walsenderOf(start *wire.Startup) (walsender, *wire.Notice) {
	v := start.Get("replication")
	if v == "" {
		return noWalsender, nil
	}
	if v == "database" {
		return logicalWalsender, nil
	}
	on, ok := parseBool(v)
	switch {
	case !ok:
		return noWalsender, wire.Fatalf(wire.CodeInvalidParameter, "invalid value for parameter \"%s\": \"%s\"", "replication", v).
			WithHint("Valid values are: \"false\", 0, \"true\", 1, \"database\".")
	case on:
		return physicalWalsender, nil
	}
	return noWalsender, nil
}

// parseBool takes what parse_bool() in bool.c takes: whole words, and their
// beginnings where those are not another's.
func parseBool(v string) (on, ok bool) {
	v = strings.ToLower(v)
	for _, w := range []struct {
		word  string
		least int
		on    bool
	}{{"true", 1, true}, {"false", 1, false}, {"yes", 1, true}, {"no", 1, false}, {"on", 2, true}, {"off", 2, false}, {"1", 1, true}, {"0", 1, false}} {
		if len(v) >= w.least && strings.HasPrefix(w.word, v) {
			return w.on, true
		}
	}
	return false, false
}

// enter gives the client its pid and key and puts it into the list.
func (s *Server) enter(c *client, version uint32) {
	var b [4]byte
	c.key = make(wire.CancelKey, wire.KeyLen(version))
	rand.Read(c.key) //nolint:errcheck // crypto/rand.Read never fails
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		rand.Read(b[:]) //nolint:errcheck // crypto/rand.Read never fails
		c.pid = binary.BigEndian.Uint32(b[:]) & 0x7fffffff
		if c.pid != 0 && s.clients[c.pid] == nil {
			break
		}
	}
	s.clients[c.pid] = c
}

// adopt gives a client its server's own pid, so that pg_backend_pid(), the
// server's log and pg_terminate_backend() mean what they mean without a proxy.
// A pid that another client has, of a server that is gone or of another node,
// cannot be given: a cancel request would not know whom it means.
func (s *Server) adopt(c *client, pid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients[pid] != nil || s.clients[c.pid] != c {
		return
	}
	delete(s.clients, c.pid)
	c.pid = pid
	s.clients[pid] = c
}

// exit takes a client out of the list, and out of what it was counted in.
func (s *Server) exit(c *client) {
	if c.slot {
		s.slots.Add(-1)
	}
	c.forgetStatements(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.discount(c)
	if s.clients[c.pid] == c {
		delete(s.clients, c.pid)
		s.linkChanged()
	}
}

// greet gives the client its parameters. They are those of the server it is
// linked to, or in transaction mode of one that was opened the same way.
func (c *client) greet() error {
	var params reports
	key := welcomeKey{c.group, c.params}
	if c.mode == ModeTransaction {
		params = c.s.welcome(key)
	}
	if params == nil {
		n, err := c.obtain()
		if err != nil {
			return err
		}
		if n != nil {
			n.Severity = wire.SevFatal
			c.send(n) //nolint:errcheck // going anyway
			return n
		}
		if params, err = c.firstServer(); err != nil {
			return err
		}
	}
	out := c.adoptParameters(make([]byte, 0, 512), params)
	out = wire.AppendKey(out, c.pid, c.key)
	return c.write(wire.AppendReady(out, wire.TxIdle))
}

// adoptParameters makes a server's parameters the client's, and appends what
// tells it of them.
func (c *client) adoptParameters(out []byte, params reports) []byte {
	if b := c.link.Load(); b != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
	}
	for _, p := range params {
		if c.mode == ModeTransaction && strings.EqualFold(p.Name, "application_name") {
			p.Value = c.vars[varApplication]
		}
		c.vars.set(p.Name, p.Value)
		out = wire.AppendParameter(out, p.Name, p.Value)
	}
	return out
}

// firstServer reads the parameters of the first server. In transaction mode it
// is given back at once.
func (c *client) firstServer() (reports, error) {
	b := c.link.Load()
	if b == nil {
		return nil, errClosed
	}
	if c.mode == ModeSession {
		c.s.adopt(c, b.pid)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	params := append(reports(nil), b.reports...)
	c.prelude = ""
	if c.mode == ModeTransaction && b.client == c && !b.dead {
		b.unlink(false)
	} else if c.mode == ModeTransaction {
		c.link.Store(nil)
	}
	return params, nil
}
