package session

import (
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/relay"
	"github.com/pgtandem/pgtandem/proxyd/session/pipeline"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// sink is a connection to nowhere.
type sink struct{ net.Conn }

func (sink) Write(b []byte) (int, error)     { return len(b), nil }
func (sink) Read([]byte) (int, error)        { return 0, io.EOF }
func (sink) Close() error                    { return nil }
func (sink) SetDeadline(time.Time) error     { return nil }
func (sink) SetReadDeadline(time.Time) error { return nil }

func (sink) SetWriteDeadline(time.Time) error { return nil }

// pair is a client linked to a server, both without sockets.
func pair(t testing.TB, mode Mode) (*client, *backend) {
	t.Helper()
	s, err := New(Options{Gate: pool.NewGate(time.Now), Verifiers: sqlVerifiers{}, Limits: Limits{Terms: Terms{Mode: mode}}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := s.pool.Get(t.Context(), pool.Key{})
	if err != nil {
		t.Fatal(err)
	}
	b := newBackend(s, &dialed{conn: relay.Wrap(sink{})}, pool.Target{}, srv)
	close(b.done)
	s.pool.Connected(srv, b)
	sock := relay.Wrap(sink{})
	c := &client{s: s, id: 1, conn: sock, sock: sock, away: true, mode: mode}
	if !c.attach(srv) {
		t.Fatal("not linked")
	}
	return c, b
}

// FuzzClientBytes feeds a linked session what a client may send, in pieces.
func FuzzClientBytes(f *testing.F) {
	msg := func(typ byte, body string) []byte {
		b, at := wire.Begin(nil, typ)
		return wire.End(append(b, body...), at)
	}
	join := func(parts ...[]byte) (all []byte) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	f.Add(msg('Q', "SELECT 1\x00"), uint8(3), true)
	f.Add(join(msg('P', "s\x00SELECT 1\x00\x00\x00"), msg('B', "\x00s\x00\x00\x00\x00\x00\x00\x00"), msg('E', "\x00\x00\x00\x00\x00"), msg('S', "")), uint8(7), true)
	f.Add(join(msg('P', "s\x00SELECT 1\x00\x00\x00"), msg('P', "s\x00SELECT 2\x00\x00\x00"), msg('D', "Ss\x00"), msg('C', "Ss\x00"), msg('H', "")), uint8(200), true)
	f.Add(join(msg('Q', "DEALLOCATE s\x00"), msg('d', "x"), msg('c', ""), msg('f', "no\x00"), msg('F', "\x00")), uint8(1), false)
	f.Add([]byte{'Q', 0xff, 0xff, 0xff, 0xff}, uint8(1), false)
	f.Add(msg('B', "no end"), uint8(1), true)
	f.Add(msg('D', ""), uint8(1), true)
	f.Fuzz(func(t *testing.T, data []byte, step uint8, transaction bool) {
		mode := ModeSession
		if transaction {
			mode = ModeTransaction
		}
		c, b := pair(t, mode)
		c.in = buffers.Get().(*[]byte)
		for len(data) > 0 && c.link.Load() == b {
			if c.r > 0 {
				c.w = copy(*c.in, (*c.in)[c.r:c.w])
				c.r, c.runFrom = 0, 0
			}
			n := copy((*c.in)[c.w:], data[:min(len(data), int(step)+1)])
			if n == 0 {
				break
			}
			c.w, data = c.w+n, data[n:]
			if err := c.process(); err != nil {
				break
			}
			if c.locked != nil {
				t.Fatal("the server's lock is kept")
			}
			b.mu.Lock()
			dead := b.dead
			b.mu.Unlock()
			if dead {
				break
			}
		}
		c.giveBuffer()
	})
}

// FuzzServerBytes feeds a linked session what a server may send, in pieces.
func FuzzServerBytes(f *testing.F) {
	f.Add(wire.AppendReady(wire.AppendString(nil, wire.CommandComplete, "SELECT 1"), 'I'), uint8(4))
	f.Add(wire.AppendError(nil, wire.Fatalf("57P01", "bye")), uint8(9))
	f.Add(wire.AppendParameter(nil, "TimeZone", "UTC"), uint8(3))
	f.Add(append(wire.AppendEmpty(nil, wire.ParseComplete), wire.AppendEmpty(nil, wire.CloseComplete)...), uint8(1))
	f.Add([]byte{'D', 0x7f, 0xff, 0xff, 0xff, 1, 2, 3}, uint8(1))
	f.Add([]byte{'Z', 0, 0, 0, 4}, uint8(1))
	f.Add([]byte{'C', 0, 0, 0, 4}, uint8(1))
	f.Add([]byte{'S', 0, 0, 0, 4, 'E', 0, 0, 0, 4, 'N', 0, 0, 0, 4}, uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		c, b := pair(t, ModeTransaction)
		for _, s := range []pipeline.Sent{{Kind: pipeline.Query, Hidden: true}, {Kind: pipeline.Parse, Named: true}, {Kind: pipeline.CloseAsParse, Named: true}, {Kind: pipeline.Execute}, {Kind: pipeline.Sync}} {
			b.pipe.Send(s)
		}
		b.naming = []naming{{text: &text{}, client: c, name: "s"}, {what: aliasing, text: &text{}, client: c, name: "s"}}
		for len(data) > 0 {
			if b.r > 0 {
				b.w = copy(b.buf, b.buf[b.r:b.w])
				b.r = 0
			}
			n := copy(b.buf[b.w:], data[:min(len(data), int(step)+1)])
			if n == 0 {
				t.Fatal("the buffer is full and nothing is judged")
			}
			b.w, data = b.w+n, data[n:]
			if b.deliver() != nil {
				return
			}
		}
	})
}
