package session

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

const cancelTimeout = 5 * time.Second

// Cancel serves a CancelRequest that another process was sent, and says whether
// its key is a client's.
func (s *Server) Cancel(pid uint32, key wire.CancelKey) (known bool) {
	if !s.takeCancel() {
		return false
	}
	defer s.endTaken()
	c := s.keyed(pid, key)
	if c == nil {
		return s.opts.Elsewhere(pid, key)
	}
	s.cancelClient(c)
	return true
}

// cancel serves a CancelRequest: it goes to the server that runs the client's
// statement at this moment, and to none otherwise. Nobody is told whether the
// key was right.
func (s *Server) cancel(from netip.Addr, pid uint32, key wire.CancelKey) {
	if !s.guesses.mayTry(from) {
		s.log.Debug("a cancel request was dropped: too many from there had a wrong key", "address", from)
		return
	}
	if !s.takeCancel() {
		return
	}
	defer s.endTaken()
	c := s.keyed(pid, key)
	if c == nil {
		s.guesses.failed(from)
		if s.opts.Elsewhere(pid, key) {
			s.guesses.forgive(from)
		}
		return
	}
	s.cancelClient(c)
}

// takeCancel takes one of the places for requests that are under way.
func (s *Server) takeCancel() bool {
	select {
	case s.cancels <- struct{}{}:
		return true
	default:
		s.log.Warn("a cancel request was dropped: too many are under way")
		return false
	}
}

func (s *Server) endTaken() { <-s.cancels }

// keyed finds the client that was given the pid and the key.
func (s *Server) keyed(pid uint32, key wire.CancelKey) *client {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.clients[pid]; c != nil && c.key.Equal(key) {
		return c
	}
	return nil
}

func (s *Server) cancelClient(c *client) {
	c.cancelMu.Lock()
	if c.cancelWait != nil && c.wait.Load() != waitLogin {
		c.cancelWait()
	}
	c.cancelMu.Unlock()
	b := c.link.Load()
	if b == nil || !b.beginCancel(c) {
		return
	}
	defer b.endCancel()
	s.deliverCancel(b)
}

// beginCancel keeps the server from the next client until endCancel, and says
// whether there is something to cancel. While a commit is awaited there is
// not: a canceled wait for a synchronous standby is answered as a commit that
// the standby has, which it has not.
func (b *backend) beginCancel(c *client) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client != c || b.dead || b.pipe.Ours() || b.pipe.Committing() {
		return false
	}
	b.cancels++
	return true
}

func (b *backend) endCancel() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cancels--; b.cancels == 0 && b.parked {
		b.giveBack()
	}
}

// deliverCancel sends the request and waits until the server has acted: it
// closes the connection after it has signalled the backend.
func (s *Server) deliverCancel(b *backend) {
	ctx, cancel := context.WithTimeout(context.Background(), cancelTimeout)
	defer cancel()
	conn, err := s.dialForCancel(ctx, b)
	if err != nil {
		s.log.Warn("a cancel request could not be delivered", "node", b.node, "error", err)
		return
	}
	defer conn.Close()
	conn.SetDeadline(s.now().Add(cancelTimeout)) //nolint:errcheck // a closed connection ends the read
	if _, err := conn.Write(wire.AppendCancel(nil, b.pid, b.key)); err != nil {
		return
	}
	io.Copy(io.Discard, io.LimitReader(conn, 4096)) //nolint:errcheck // only its end matters
}

// dialForCancel connects as b is connected: a server may take nothing else.
func (s *Server) dialForCancel(ctx context.Context, b *backend) (net.Conn, error) {
	_, encrypted := b.conn.(*tls.Conn)
	conn, _, err := s.dialNode(ctx, b.target, s.sec.Load().ServerTLS, encrypted)
	return conn, err
}
