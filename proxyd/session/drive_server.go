package session

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/relay"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// A server is always driven by a loop, the one of the client that opened it,
// whoever it is linked to later.

// start gives the connection to a loop, which reads it for as long as it lives.
func (b *backend) start(l *relay.Loop) error {
	b.loop = l
	err := b.sock.Start(l, b)
	if err != nil {
		b.fail(err)
		b.Closed()
	}
	return err
}

// Readable implements relay.Handler.
func (b *backend) Readable() {
	if !b.greeted { // it may have said something behind its login
		b.greeted = true
		if err := b.deliver(); err != nil {
			b.fail(err)
			return
		}
	}
	for range turns {
		err := b.fill()
		if err == nil {
			err = b.deliver()
		}
		if errors.Is(err, relay.ErrAgain) {
			return
		}
		if err != nil {
			b.fail(err)
			return
		}
		// The loop tells of what is left on a plain socket; TLS may have more.
		if b.clogged() || !b.secure {
			return
		}
	}
	b.loop.Post((*more)(b))
}

// fill reads what the server sends, behind what is not judged yet.
func (b *backend) fill() error {
	if b.r == b.w {
		b.r, b.w = 0, 0
		b.suit()
	} else if b.r > 0 {
		b.w = copy(b.buf, b.buf[b.r:b.w])
		b.r = 0
	}
	n, err := b.conn.Read(b.buf[b.w:])
	b.w += n
	b.full = b.w == len(b.buf)
	if n > 0 {
		return nil
	}
	return err
}

// suit takes a larger buffer, or gives it back, after what the last reading
// was like. The buffer is empty.
func (b *backend) suit() {
	switch {
	case b.full && b.bulk == nil:
		b.bulk = takeBuffer(true)
		b.own, b.buf = b.buf, *b.bulk
	case !b.full && b.bulk != nil:
		putBuffer(b.bulk)
		b.bulk, b.buf = nil, b.own
	}
}

// lastWords is the end of a server that takes nothing more.
type lastWords struct {
	b   *backend
	err error // of the write
}

// Run reads what the server had said before: the answer to a COMMIT may be among
// it.
func (t *lastWords) Run() {
	b := t.b
	if b.lost() {
		hangUp(b.conn)
		return
	}
	for {
		err := b.fill()
		if err == nil {
			err = b.deliver()
		}
		switch {
		case errors.Is(err, relay.ErrAgain): // it is not gone, and of no use all the same
			b.fail(t.err)
			return
		case err != nil:
			b.fail(err)
			return
		}
	}
}

// fail ends the connection for a reason that was met while reading.
func (b *backend) fail(err error) {
	if b.cause == nil {
		b.cause = err
	}
	hangUp(b.conn)
}

// Closed implements relay.Handler: the server is lost, or was severed.
func (b *backend) Closed() {
	b.mu.Lock()
	b.dead = true
	expected, c := b.severed || b.farewell, b.client
	b.truncated = b.rest > 0 && !b.restDrop
	if b.parted != nil {
		b.parted.Stop()
	}
	b.mu.Unlock()
	close(b.done)
	if !expected {
		err := b.cause
		if err == nil {
			err = net.ErrClosed // a write met it first
		}
		b.s.opts.BackendLost(b.node, err)
		b.s.doubt(b.node)
		b.s.wg.Go(func() { b.s.failed(b.node, fmt.Errorf("read from %s: %w", b.node, err)) })
	}
	b.s.unregister(b)
	if c != nil {
		c.wake()
	}
}

// partLocked ends the link, too, but leaves it to the server to hang up, which
// it does when its process ends. Whoever waits for the connection to be gone
// finds that PostgreSQL does not know of it any more, either: a socket that is
// just closed is seen by it some time later.
func (b *backend) partLocked() {
	if b.dead {
		return
	}
	if b.partial || b.sock.Pending() > 0 { // it could not be told
		b.severLocked()
		return
	}
	b.dead, b.severed, b.parting = true, true, true
	b.unstallLocked()
	b.s.pool.Remove(b.server)
	if _, err := b.conn.Write(wire.AppendEmpty(nil, wire.Terminate)); err != nil {
		hangUp(b.conn)
		return
	}
	b.parted = time.AfterFunc(partTime, func() { hangUp(b.conn) })
}

// lost says that the server is of no use any more.
func (b *backend) lost() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dead
}

// clogged pauses a server whose client has yet to take what it was sent.
func (b *backend) clogged() bool {
	b.mu.Lock()
	c := b.client
	if c == nil || c.sock.Pending() == 0 {
		b.mu.Unlock()
		return false
	}
	b.stalled = true
	b.sock.Pause()
	b.mu.Unlock()
	if c.sock.Pending() > 0 {
		return true
	}
	b.unstall() // it has just taken it
	return false
}

// unstall ends the pause, from anywhere.
func (b *backend) unstall() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unstallLocked()
}

func (b *backend) unstallLocked() {
	if b.stalled {
		b.stalled = false
		b.sock.Resume()
		if b.secure {
			b.loop.Post((*more)(b))
		}
	}
}

type more backend

// Run reads on where the socket has nothing to tell.
func (t *more) Run() { (*backend)(t).Readable() }

// Drained implements relay.Handler: the server has taken all it was sent.
func (b *backend) Drained() {
	b.mu.Lock()
	c := b.client
	b.mu.Unlock()
	if c != nil {
		c.unstall()
	}
}

// socket finds what was wrapped under a connection.
func socket(conn net.Conn) (sock *relay.Conn, secure bool) {
	if over, ok := conn.(*tls.Conn); ok {
		conn, secure = over.NetConn(), true
	}
	return conn.(*relay.Conn), secure
}
