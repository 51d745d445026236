package session

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// TestRetire: who is there stays for as long as he likes, nobody comes any
// more, and the end of the last one is the end.
func TestRetire(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			stays, goes := p.connect(t, ""), p.connect(t, "")
			do(t, stays, "BEGIN")
			short, cancel := context.WithCancel(within(t))
			first := started(func() error { return p.Retire(short) })
			eventually(t, "nobody is let in", func() bool {
				conn, err := net.Dial("tcp", p.addr)
				if err == nil {
					conn.Close()
				}
				return err != nil
			})
			goes.Close(within(t)) //nolint:errcheck // it goes
			do(t, stays, "SELECT 1")
			cancel()
			if err := awaited(t, "Retire that is given up", first); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			do(t, stays, "COMMIT")
			last := started(func() error { return p.Retire(within(t)) })
			do(t, stays, "SELECT 2")
			stays.Close(within(t)) //nolint:errcheck // it goes
			if err := awaited(t, "the end of the last client", last); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestACancelRequestForNobody is passed on: its client may be another
// process's. One with a wrong key is too, since pids are given twice.
func TestACancelRequestForNobody(t *testing.T) {
	type request struct {
		pid uint32
		key string
	}
	asked := make(chan request, 1)
	p := startProxy(t, ModeTransaction, func(o *Options) {
		o.Elsewhere = func(pid uint32, key wire.CancelKey) bool {
			asked <- request{pid, string(key)}
			return string(key) == "past"
		}
	})
	p.guessBy((&hand{at: time.Unix(1000, 0)}).now)
	conn := p.connect(t, "").PgConn()
	for _, want := range []request{{4711, "none"}, {conn.PID(), "none"}, {4711, "past"}} {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close() //nolint:errcheck // a test's connection
		if _, err := c.Write(wire.AppendCancel(nil, want.pid, wire.CancelKey(want.key))); err != nil {
			t.Fatal(err)
		}
		if got := awaited(t, "the request", asked); got != want {
			t.Errorf("asked for %v, want %v", got, want)
		}
	}
	eventually(t, "the one for another process's client counts as no guess", func() bool {
		p.guesses.mu.Lock()
		defer p.guesses.mu.Unlock()
		w := p.guesses.who[network(netip.MustParseAddr("127.0.0.1"))]
		return w != nil && w.left == guessesAtOnce-2
	})
	if err := conn.CancelRequest(within(t)); err != nil {
		t.Error(err)
	}
	select {
	case got := <-asked:
		t.Errorf("a client of ours is looked for elsewhere: %v", got)
	default:
	}
}
