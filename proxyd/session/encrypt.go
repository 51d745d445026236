package session

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// direct reads the first byte. Where it begins a TLS handshake the client asked
// for none (sslnegotiation=direct, PostgreSQL 17); else it is given back.
func (c *client) direct(sec *security) (rest io.Reader, err error) {
	first := make([]byte, 1)
	if _, err := io.ReadFull(c.conn, first); err != nil {
		return nil, err
	}
	if first[0] != wire.TLSHandshake || c.unix != nil || sec.clientTLS == nil {
		return bytes.NewReader(first), nil
	}
	if err := c.handshake(&unread{Conn: c.conn, head: first}, sec); err != nil {
		return nil, err
	}
	// The protocol must be named, so that what another one's client was talked
	// into sending here is never read as ours (ALPACA).
	if got := c.tls.NegotiatedProtocol; got != wire.ALPN {
		return nil, errors.New("received direct SSL connection request without ALPN protocol negotiation extension")
	}
	return bytes.NewReader(nil), nil
}

// unread is a connection of which something was read too early.
type unread struct {
	net.Conn
	head []byte
}

func (u *unread) Read(b []byte) (int, error) {
	if len(u.head) > 0 {
		n := copy(b, u.head)
		u.head = u.head[n:]
		return n, nil
	}
	return u.Conn.Read(b)
}

// answerSSLRequest speaks TLS where the mode allows it. Bytes that came with
// the request were not protected and must not be taken for what is
// (CVE-2021-23214).
func (c *client) answerSSLRequest(sec *security) error {
	if sec.clientTLS == nil || c.unix != nil {
		return c.refuseEncryption("SSL")
	}
	if err := c.nothingBehind("SSL"); err != nil {
		return err
	}
	if err := c.write([]byte{'S'}); err != nil {
		return err
	}
	return c.handshake(c.conn, sec)
}

func (c *client) refuseEncryption(what string) error {
	if err := c.nothingBehind(what); err != nil {
		return err
	}
	return c.write([]byte{'N'})
}

// nothingBehind refuses bytes that were sent without waiting for the answer to
// a request of encryption.
func (c *client) nothingBehind(what string) error {
	if !c.buffered() {
		return nil
	}
	n := wire.Fatalf(wire.CodeProtocolViolation, "received unencrypted data after %s request", what).
		WithDetail("This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.")
	c.send(n) //nolint:errcheck // going anyway
	return fmt.Errorf("%w: bytes behind a request of encryption", wire.ErrProtocol)
}

// handshake makes the connection a TLS one.
func (c *client) handshake(conn net.Conn, sec *security) error {
	secure := tls.Server(conn, sec.clientTLS)
	if err := secure.HandshakeContext(context.Background()); err != nil { // the connection's deadline holds
		return fmt.Errorf("TLS handshake: %w", err)
	}
	state := secure.ConnectionState()
	c.conn, c.secure = secure, true
	c.tls = tlsFacts{NegotiatedProtocol: state.NegotiatedProtocol, endpoint: sec.endpoint}
	if len(state.VerifiedChains) > 0 {
		c.tls.certificate = state.PeerCertificates[0]
	}
	return nil
}
