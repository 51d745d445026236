package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// serve is one accepted connection from beginning to end.
func (s *Server) serve(conn net.Conn) {
	c := &client{s: s, conn: conn, id: s.lastID.Add(1), address: conn.RemoteAddr().String(), started: s.now()}
	c.wait.Store(waitLogin)
	c.since.Store(c.started.UnixNano())
	c.tcp, _ = conn.(*net.TCPConn)
	if c.tcp != nil {
		c.tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveIdle, Count: 4}) //nolint:errcheck // best effort
		if raw, err := c.tcp.SyscallConn(); err == nil {
			c.raw, c.peek = raw, raw
		}
	}
	c.reader = c.tryRead
	conn.SetDeadline(c.started.Add(s.limits().LoginTimeout)) //nolint:errcheck // a closed connection is noticed at the next read
	start, err := c.startup()
	if err != nil || start == nil {
		s.log.Debug("a connection ended before its login", "client", c.address, "error", err)
		return
	}
	if start.Code == wire.CancelCode {
		s.cancel(start.PID, start.Key)
		return
	}
	if s.slots.Add(1) > int64(s.limits().MaxClients) && !s.wantsConsole(start) {
		s.slots.Add(-1)
		c.send(wire.Fatalf(wire.CodeTooManyConnections, "sorry, too many clients already")) //nolint:errcheck // going anyway
		return
	}
	defer s.slots.Add(-1)
	defer s.exit(c)
	if err := c.logIn(start); err != nil {
		s.log.Info("a login failed", "client", c.address, "user", c.group.User, "database", c.group.Database, "error", err)
		return
	}
	if c.atConsole {
		err = c.visit(start)
	} else {
		err = c.run()
	}
	s.log.Debug("a client has gone", "client", c.address, "error", err)
}

// startup reads up to the packet that says what the connection is for. nil
// means that the client was told why not.
func (c *client) startup() (*wire.Startup, error) {
	var ssl, gss bool
	for {
		start, err := wire.ReadStartup(c.conn)
		if err != nil {
			if errors.Is(err, wire.ErrProtocol) {
				c.send(wire.Fatalf(wire.CodeProtocolViolation, "%s", plain(err))) //nolint:errcheck // going anyway
			}
			return nil, err
		}
		switch {
		case start.Code == wire.SSLRequest && !ssl && !c.secure:
			ssl = true
			if err := c.encrypt(); err != nil {
				return nil, err
			}
		case start.Code == wire.GSSENCRequest && !gss:
			gss = true
			if err := c.write([]byte{'N'}); err != nil {
				return nil, err
			}
		case start.Code == wire.CancelCode:
			return start, nil
		case start.Major() != 3:
			n := wire.Fatalf(wire.CodeFeatureNotSupported, "unsupported frontend protocol %d.%d: server supports 3.0 to 3.0", start.Major(), start.Minor())
			return nil, c.send(n)
		case !c.secure && c.s.opts.ClientTLSMode == TLSRequire:
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

// encrypt answers an SSLRequest. Bytes that came with it were not protected
// and must not be taken for what is (CVE-2021-23214).
func (c *client) encrypt() error {
	if c.buffered() {
		c.send(wire.Fatalf(wire.CodeProtocolViolation, "received unencrypted data after SSL request")) //nolint:errcheck // going anyway
		return fmt.Errorf("%w: bytes behind an SSLRequest", wire.ErrProtocol)
	}
	if c.s.opts.ClientTLSMode == TLSDisable {
		return c.write([]byte{'N'})
	}
	if err := c.write([]byte{'S'}); err != nil {
		return err
	}
	secure := tls.Server(c.conn, c.s.opts.ClientTLS)
	if err := secure.HandshakeContext(context.Background()); err != nil { // the connection's deadline holds
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.conn, c.raw, c.secure = secure, nil, true
	return nil
}

// buffered says whether the socket has bytes that were not read.
func (c *client) buffered() (yes bool) {
	if c.peek == nil {
		return false
	}
	var b [1]byte
	c.peek.Control(func(fd uintptr) { //nolint:errcheck // a closed socket has none
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		yes = err == nil && n > 0
	})
	return yes
}

// logIn proves the client and links its first server where one is needed.
func (c *client) logIn(start *wire.Startup) error {
	if n := c.accept(start); n != nil {
		c.send(n) //nolint:errcheck // going anyway
		return n
	}
	if start.Minor() > 0 || len(start.Options) > 0 {
		if err := c.write(wire.AppendNegotiate(nil, start.Options)); err != nil {
			return err
		}
	}
	c.s.enter(c)
	if err := c.authenticate(); err != nil {
		return err
	}
	c.conn.SetDeadline(time.Time{}) //nolint:errcheck // a closed connection is noticed at the next read
	if n := c.s.valve.refusal(c.group.Database); n != nil {
		c.send(n) //nolint:errcheck // going anyway
		return n
	}
	if !c.atConsole { // which greets by itself
		if err := c.greet(); err != nil {
			c.leave()
			return err
		}
		c.s.loggedIn(c.group.Database)
	}
	c.wait.Store(waitNone)
	return nil
}

func (s *Server) loggedIn(database string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins[database]++
}

// accept takes the startup parameters. What a server keeps for life, its
// startup parameters, decides which clients can share it.
func (c *client) accept(start *wire.Startup) *wire.Notice {
	c.mode = c.s.limits().Mode
	c.group.User, c.group.Database = start.Get("user"), start.Get("database")
	if c.group.User == "" {
		return wire.Fatalf(wire.CodeInvalidAuthorization, "no PostgreSQL user name specified in startup packet")
	}
	if c.group.Database == "" {
		c.group.Database = c.group.User
	}
	if r := start.Get("replication"); r != "" && !slices.Contains([]string{"false", "off", "no", "0"}, strings.ToLower(r)) {
		return wire.Fatalf(wire.CodeFeatureNotSupported, "replication connections do not go through the proxy").
			WithHint("Connect to the node itself.")
	}
	c.atConsole = c.s.opts.Console.Owns(c.group.Database)
	c.login.params = []wire.Param{{Name: "user", Value: c.group.User}, {Name: "database", Value: c.group.Database}}
	var key []string
	for _, p := range start.Params {
		switch p.Name {
		case "user", "database", "replication":
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

// enter gives the client its pid and key and puts it into the list.
func (s *Server) enter(c *client) {
	var b [8]byte
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		rand.Read(b[:]) //nolint:errcheck // crypto/rand.Read never fails
		c.pid, c.key = binary.BigEndian.Uint32(b[:])&0x7fffffff, binary.BigEndian.Uint32(b[4:])
		if c.pid != 0 && s.clients[c.pid] == nil {
			break
		}
	}
	s.clients[c.pid] = c
}

func (s *Server) exit(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients[c.pid] == c {
		delete(s.clients, c.pid)
		s.linkChanged()
	}
}

// authenticate lets the client prove itself against the server's verifier. Its
// proof reveals the ClientKey that opens the servers.
func (c *client) authenticate() error {
	if c.owner = c.atConsole && c.s.opts.Console.Owner(c.conn, c.group.User); c.owner {
		return c.write(wire.AppendAuth(nil, wire.AuthOK, nil))
	}
	role, n := c.role()
	if n != nil {
		c.send(n) //nolint:errcheck // going anyway
		return n
	}
	verifier, why := c.s.verifiers.verifier(c.group.User, role)
	key, final, err := c.exchange(verifier)
	switch {
	case errors.Is(err, wire.ErrProof):
		if why == "" {
			c.s.verifiers.forget(c.group.User) // the password may have been changed just now
			why = "wrong password"
		}
		n = wire.Fatalf(wire.CodeInvalidPassword, "password authentication failed for user \"%s\"", c.group.User)
		c.send(n) //nolint:errcheck // going anyway
		return fmt.Errorf("%w (%s)", n, why)
	case errors.Is(err, wire.ErrProtocol):
		n = wire.Fatalf(wire.CodeProtocolViolation, "%s", plain(err))
		c.send(n) //nolint:errcheck // going anyway
		return n
	case err != nil:
		return err
	case !role.canLogin:
		n = wire.Fatalf(wire.CodeInvalidAuthorization, "role \"%s\" is not permitted to log in", c.group.User)
		c.send(n) //nolint:errcheck // going anyway
		return n
	}
	c.login.verifier, c.login.key = verifier, key
	return c.write(wire.AppendAuth(wire.AppendAuth(nil, wire.AuthSASLFinal, final), wire.AuthOK, nil))
}

// role looks the role up, held like everybody else while the primary that
// would know it is away.
func (c *client) role() (*role, *wire.Notice) {
	limits := c.s.limits()
	ctx, cancel := context.WithTimeout(context.Background(), limits.HoldTimeout)
	defer cancel()
	gate := c.s.opts.Gate
	var unhold func()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		_, open := gate.Target()
		changed := gate.Changed()
		r, err := c.s.verifiers.get(context.Background(), c.group.User, open)
		if err == nil {
			if unhold != nil {
				unhold()
				c.conn.SetDeadline(c.s.now().Add(limits.LoginTimeout)) //nolint:errcheck // what was held does not count
			}
			return r, nil
		}
		if unhold == nil {
			unhold = gate.Hold()
			defer unhold()
			c.conn.SetDeadline(time.Time{}) //nolint:errcheck // it is we who let it wait
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil || c.s.closing.Load() {
			c.s.log.Warn("a role could not be looked up", "user", c.group.User, "error", err)
			return nil, wire.Fatalf(wire.CodeCannotConnectNow, "no primary is available to check the login; waited %v", limits.HoldTimeout).
				WithDetail("%s", gate.Reason())
		}
	}
}

// exchange is the SASL exchange.
func (c *client) exchange(v *wire.Verifier) (key wire.Key, final []byte, err error) {
	var random [18]byte
	rand.Read(random[:]) //nolint:errcheck // crypto/rand.Read never fails
	scram := wire.NewScramServer(v, random)
	if err := c.write(wire.AppendAuth(nil, wire.AuthSASL, []byte(wire.ScramSHA256+"\x00\x00"))); err != nil {
		return key, nil, err
	}
	body, err := c.password()
	if err != nil {
		return key, nil, err
	}
	mechanism, data, err := wire.ParseSASLInitial(body)
	if err != nil {
		return key, nil, err
	}
	if mechanism != wire.ScramSHA256 {
		return key, nil, fmt.Errorf("%w: client selected an invalid SASL authentication mechanism", wire.ErrProtocol)
	}
	first, err := scram.First(data)
	if err != nil {
		return key, nil, err
	}
	if err := c.write(wire.AppendAuth(nil, wire.AuthSASLContinue, first)); err != nil {
		return key, nil, err
	}
	if body, err = c.password(); err != nil {
		return key, nil, err
	}
	final, key, err = scram.Final(body)
	return key, final, err
}

// password reads one SASL message.
func (c *client) password() ([]byte, error) {
	typ, body, err := wire.ReadMessage(c.conn, nil, wire.MaxAuth)
	if err == nil && typ != wire.Password {
		err = fmt.Errorf("%w: expected SASL response, got message type %d", wire.ErrProtocol, typ)
	}
	return bytes.Clone(body), err
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
	out := make([]byte, 0, 512)
	for _, p := range params {
		if c.mode == ModeTransaction && strings.EqualFold(p.Name, "application_name") {
			p.Value = c.vars[varApplication]
		}
		c.vars.set(p.Name, p.Value)
		out = wire.AppendParameter(out, p.Name, p.Value)
	}
	out = wire.AppendKey(out, c.pid, c.key)
	return c.write(wire.AppendReady(out, wire.TxIdle))
}

// firstServer reads the parameters of the first server. In transaction mode it
// is given back at once.
func (c *client) firstServer() (reports, error) {
	b := c.link.Load()
	if b == nil {
		return nil, errClosed
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
