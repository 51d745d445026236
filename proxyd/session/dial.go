package session

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/auth"
	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/relay"
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

// part ends what never had a loop, and waits until the server has.
func (d *dialed) part() {
	d.conn.SetDeadline(time.Now().Add(partTime)) //nolint:errcheck // a closed connection ends the read
	if _, err := d.conn.Write(wire.AppendEmpty(nil, wire.Terminate)); err == nil {
		io.Copy(io.Discard, io.LimitReader(d.conn, maxGreeting)) //nolint:errcheck // only its end matters
	}
}

// login is what opens a server for a client.
type login struct {
	params []wire.Param // of the startup packet, user and database included
	auth.Credential
}

// dial opens and logs in to a server, with or without TLS as the mode says and
// libpq does it: what the server's rules refuse one way may pass the other.
func (s *Server) dial(ctx context.Context, t pool.Target, l login) (*dialed, error) {
	ctx, cancel := context.WithTimeout(ctx, s.limits().ConnectTimeout)
	defer cancel()
	sec := s.sec.Load().ServerTLS
	ways := sec.ways()
	var err error
	for i, encrypted := range ways {
		var d *dialed
		if d, err = s.dialOnce(ctx, t, l, sec, encrypted); err == nil {
			return d, nil
		}
		last := i == len(ways)-1
		if last || ctx.Err() != nil || !errors.Is(err, errHandshake) && wire.Code(err) != wire.CodeInvalidAuthorization {
			break
		}
	}
	return nil, err
}

func (s *Server) dialOnce(ctx context.Context, t pool.Target, l login, sec ServerTLS, encrypted bool) (*dialed, error) {
	conn, endpoint, err := s.dialNode(ctx, t, sec, encrypted)
	if err != nil {
		return nil, fmt.Errorf("connect to %s at %s: %w: %w", t.Node.ID, t.Node.Addr(), errUnreachable, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	proof := auth.NewProof(l.Credential, endpoint, sec.ChannelBinding)
	if sec.RequireSCRAM {
		proof.RequireSCRAM()
	}
	d, err := logIn(conn, l.params, proof)
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		hangUp(conn)
		return nil, fmt.Errorf("log in to %s at %s: %w", t.Node.ID, t.Node.Addr(), blame(err))
	}
	return d, nil
}

// blame tells a server that is not there, or not yet, from one that speaks
// against the login.
func blame(err error) error {
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
	if errors.Is(err, wire.ErrOtherVerifier) || errors.Is(err, auth.ErrMethod) {
		return fmt.Errorf("%w: %w", errCredentials, err)
	}
	return fmt.Errorf("%w: %w", errUnreachable, err)
}

// errHandshake: TLS did not come about; the server is there.
var errHandshake = errors.New("TLS handshake with the server")

// dialNode connects, encrypted where that is asked for and, with "prefer",
// where the server can. endpoint is what binds a login to the TLS channel.
func (s *Server) dialNode(ctx context.Context, t pool.Target, sec ServerTLS, encrypted bool) (conn net.Conn, endpoint []byte, err error) {
	d := net.Dialer{KeepAlive: -1, KeepAliveConfig: s.limits().KeepAlive.config()} // -1: none but those
	plain, err := d.DialContext(ctx, "tcp", t.Node.Addr())
	if err != nil {
		return nil, nil, err
	}
	conn = relay.Wrap(plain)
	if !encrypted {
		return conn, nil, nil
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	secure, err := startTLS(ctx, conn, sec, t.Node.Host)
	switch {
	case err != nil:
		conn.Close()
		return nil, nil, err
	case secure == nil: // the server has no TLS, and need not
		return conn, nil, nil
	}
	return secure, wire.EndPoint(secure.ConnectionState().PeerCertificates[0]), nil
}

// startTLS asks for TLS, unless it is spoken from the first byte. nil: the
// server has none, and the mode allows it.
func startTLS(ctx context.Context, conn net.Conn, sec ServerTLS, host string) (*tls.Conn, error) {
	if !sec.Direct {
		if _, err := conn.Write(wire.AppendRequest(nil, wire.SSLRequest)); err != nil {
			return nil, err
		}
		// One byte and not one more: what follows belongs to TLS (CVE-2021-23222).
		var answer [1]byte
		if _, err := conn.Read(answer[:]); err != nil {
			return nil, err
		}
		switch {
		case answer[0] == 'S':
		case answer[0] == 'N' && !sec.strict():
			return nil, nil
		case answer[0] == 'N':
			return nil, fmt.Errorf("the server does not speak TLS and server_tls.mode is %q", sec.Mode)
		default: // an error, perhaps; what is not encrypted is not to be shown (CVE-2024-10977)
			return nil, fmt.Errorf("%w: %w: it answered %q to an SSLRequest", errHandshake, wire.ErrProtocol, answer[0])
		}
	}
	secure := tls.Client(conn, sec.config(host))
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", errHandshake, err)
	}
	if sec.Direct && secure.ConnectionState().NegotiatedProtocol != wire.ALPN {
		return nil, fmt.Errorf("%w: %w: direct TLS, but the server did not name the protocol %s", errHandshake, wire.ErrProtocol, wire.ALPN)
	}
	return secure, nil
}

// maxGreeting bounds in bytes what a server may say until it is ready: beside a
// few parameters there is nothing to say.
const maxGreeting = 256 << 10

// logIn speaks the startup and authentication phase.
func logIn(conn net.Conn, params []wire.Param, proof *auth.Proof) (*dialed, error) {
	packet, err := wire.AppendStartupFor(nil, wire.Version32, params)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(packet); err != nil {
		return nil, err
	}
	d := &dialed{conn: conn}
	r := bufio.NewReaderSize(conn, 4096)
	var buf []byte
	for left := maxGreeting; ; left -= wire.HeaderLen + len(buf) {
		if left <= 0 {
			return nil, fmt.Errorf("%w: the server says more than %d bytes before it is ready", wire.ErrProtocol, maxGreeting)
		}
		typ, body, err := wire.ReadMessage(r, buf, wire.MaxAuth)
		if err != nil {
			return nil, err
		}
		buf = body
		switch typ {
		case wire.Authentication:
			answer, err := proof.Step(body)
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
			if !proof.Done() {
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
	case wire.NegotiateVersion:
		return wire.CheckNegotiate(body, wire.Version32)
	case wire.NoticeResponse:
	default:
		return fmt.Errorf("%w: the server sent a message of type %q while logging in", wire.ErrProtocol, typ)
	}
	return nil
}
