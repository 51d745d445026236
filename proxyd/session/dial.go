package session

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// errUnreachable wraps why a node could not be reached: trying again later, or
// with another node, may help. What a server says against the client's login
// is a *wire.Notice instead.
var errUnreachable = errors.New("the server cannot be reached")

// errCredentials: the server refuses what the client proved itself with.
var errCredentials = errors.New("the server refuses the client's credentials")

// dialed is a server connection that is logged in.
type dialed struct {
	conn    net.Conn
	rest    []byte // bytes read behind the login
	reports reports
	vars    variables
	pid     uint32
	key     wire.CancelKey
}

// login is what opens a server for a client.
type login struct {
	params   []wire.Param // of the startup packet, user and database included
	verifier *wire.Verifier
	key      wire.Key
}

// dial opens and logs in to a server.
func (s *Server) dial(ctx context.Context, t pool.Target, l login) (*dialed, error) {
	ctx, cancel := context.WithTimeout(ctx, s.limits().ConnectTimeout)
	defer cancel()
	conn, err := s.dialNode(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("connect to %s at %s: %w: %w", t.Node.ID, t.Node.Addr(), errUnreachable, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	d, err := logIn(conn, l)
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("log in to %s at %s: %w", t.Node.ID, t.Node.Addr(), classify(err))
	}
	return d, nil
}

// classify tells a server that is not there, or not yet, from one that speaks
// against the login.
func classify(err error) error {
	var n *wire.Notice
	if errors.As(err, &n) {
		switch n.Code {
		case wire.CodeAdminShutdown, wire.CodeCrashShutdown, wire.CodeCannotConnectNow:
			return fmt.Errorf("%w: %w", errUnreachable, n)
		case wire.CodeInvalidPassword, wire.CodeInvalidAuthorization:
			return fmt.Errorf("%w: %w", errCredentials, n)
		}
		return err
	}
	if errors.Is(err, wire.ErrOtherVerifier) || errors.Is(err, errMethod) {
		return fmt.Errorf("%w: %w", errCredentials, err)
	}
	return fmt.Errorf("%w: %w", errUnreachable, err)
}

// dialNode connects and negotiates TLS.
func (s *Server) dialNode(ctx context.Context, t pool.Target) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", t.Node.Addr())
	if err != nil || s.opts.ServerTLSMode == TLSDisable {
		return conn, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	secure, err := s.startTLS(ctx, conn, t.Node.Host)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

func (s *Server) startTLS(ctx context.Context, conn net.Conn, host string) (net.Conn, error) {
	if _, err := conn.Write(wire.AppendRequest(nil, wire.SSLRequest)); err != nil {
		return nil, err
	}
	// One byte and not one more: what follows belongs to TLS (CVE-2021-23222).
	var answer [1]byte
	if _, err := conn.Read(answer[:]); err != nil {
		return nil, err
	}
	switch answer[0] {
	case 'S':
		secure := tls.Client(conn, s.serverTLS(host))
		return secure, secure.HandshakeContext(ctx)
	case 'N':
		if s.opts.ServerTLSMode == TLSPrefer {
			return conn, nil
		}
		return nil, fmt.Errorf("the server does not speak TLS and server_tls.mode is %q", s.opts.ServerTLSMode)
	}
	return nil, fmt.Errorf("%w: the server answered %q to an SSLRequest", wire.ErrProtocol, answer[0])
}

// serverTLS is the configuration for server_tls.mode, as libpq's sslmode has
// it: require checks the chain only when roots are given.
func (s *Server) serverTLS(host string) *tls.Config {
	c := &tls.Config{ServerName: host, RootCAs: s.opts.ServerRoots, MinVersion: tls.VersionTLS12}
	switch mode := s.opts.ServerTLSMode; {
	case mode == TLSVerifyFull:
		return c
	case mode == TLSVerifyCA || mode == TLSRequire && s.opts.ServerRoots != nil:
		c.VerifyConnection = func(state tls.ConnectionState) error {
			opts := x509.VerifyOptions{Roots: s.opts.ServerRoots, Intermediates: x509.NewCertPool()}
			for _, cert := range state.PeerCertificates[1:] {
				opts.Intermediates.AddCert(cert)
			}
			_, err := state.PeerCertificates[0].Verify(opts)
			return err
		}
	}
	c.InsecureSkipVerify = true // VerifyConnection above checks what the mode asks for
	return c
}

// logIn speaks the startup and authentication phase.
func logIn(conn net.Conn, l login) (*dialed, error) {
	packet, err := wire.AppendStartupFor(nil, wire.Version32, l.params)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(packet); err != nil {
		return nil, err
	}
	d := &dialed{conn: conn}
	r := bufio.NewReaderSize(conn, 4096)
	a := authentication{login: l}
	var buf []byte
	for {
		typ, body, err := wire.ReadMessage(r, buf, wire.MaxAuth)
		if err != nil {
			return nil, err
		}
		buf = body
		switch typ {
		case wire.Authentication:
			answer, err := a.step(body)
			if err != nil {
				return nil, err
			}
			if answer == nil {
				continue
			}
			if _, err := conn.Write(answer); err != nil {
				return nil, err
			}
		case wire.ReadyForQuery:
			if !a.ok {
				return nil, fmt.Errorf("%w: the server was ready before it authenticated", wire.ErrProtocol)
			}
			d.rest, _ = r.Peek(r.Buffered())
			return d, nil
		default:
			if err := d.startup(typ, body); err != nil {
				return nil, err
			}
		}
	}
}

// startup takes one message between the startup packet and ReadyForQuery.
func (d *dialed) startup(typ byte, body []byte) error {
	switch typ {
	case wire.ErrorResponse:
		return wire.ParseNotice(body)
	case wire.ParameterStatus:
		name, rest, ok1 := wire.CString(body)
		value, _, ok2 := wire.CString(rest)
		if !ok1 || !ok2 {
			return fmt.Errorf("%w: malformed ParameterStatus", wire.ErrProtocol)
		}
		d.reports.set(string(name), string(value))
		d.vars.set(string(name), string(value))
	case wire.BackendKeyData:
		var err error
		d.pid, d.key, err = wire.ParseKey(body)
		return err
	case wire.NoticeResponse, wire.NegotiateVersion:
	default:
		return fmt.Errorf("%w: the server sent a message of type %q while logging in", wire.ErrProtocol, typ)
	}
	return nil
}

// errMethod: the server wants a proof that a ClientKey cannot give.
var errMethod = errors.New("unsupported authentication method")

// authentication answers a server's AuthenticationRequests.
type authentication struct {
	login
	scram    *wire.ScramClient
	verified bool
	ok       bool
}

// step answers one request; nil is no answer.
func (a *authentication) step(body []byte) ([]byte, error) {
	if len(body) < 4 {
		return nil, fmt.Errorf("%w: malformed AuthenticationRequest", wire.ErrProtocol)
	}
	kind, data := binary.BigEndian.Uint32(body), body[4:]
	switch {
	case kind == wire.AuthOK:
		// A server that was challenged must have proved itself, too.
		if a.scram != nil && !a.verified {
			return nil, fmt.Errorf("%w: the server skipped its own proof", wire.ErrProtocol)
		}
		a.ok = true
		return nil, nil
	case kind == wire.AuthSASL && a.scram == nil:
		return a.first(data)
	case kind == wire.AuthSASLContinue && a.scram != nil:
		final, err := a.scram.Final(data)
		if err != nil {
			return nil, err
		}
		out, at := wire.Begin(nil, wire.Password)
		return wire.End(append(out, final...), at), nil
	case kind == wire.AuthSASLFinal && a.scram != nil:
		a.verified = true
		return nil, a.scram.Verify(data)
	}
	name, known := map[uint32]string{wire.AuthCleartext: "password", wire.AuthMD5: "md5", 7: "gss", 9: "sspi"}[kind]
	if !known {
		name = fmt.Sprintf("number %d", kind)
	}
	return nil, fmt.Errorf("%w: the server asks for method %s; pg_hba.conf must say scram-sha-256 (or trust) for connections from the proxy", errMethod, name)
}

func (a *authentication) first(mechanisms []byte) ([]byte, error) {
	if a.verifier == nil {
		return nil, fmt.Errorf("%w: the client's proof is not at hand", errMethod)
	}
	var random [18]byte
	rand.Read(random[:]) //nolint:errcheck // crypto/rand.Read never fails
	a.scram = wire.NewScramClient(a.verifier, a.key, random, nil)
	mechanism, first, err := a.scram.First(mechanisms)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMethod, err)
	}
	return wire.AppendSASLInitial(nil, mechanism, first), nil
}
