package session

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// TestWaitingInLine: the only server is taken, and something happens to a
// client that waits for it: in its loop, and as an errand.
func TestWaitingInLine(t *testing.T) {
	for name, state := range map[string]int32{"in the loop": waitInLine, "as an errand": waitServer} {
		t.Run(name, func(t *testing.T) {
			for what, story := range map[string]func(t *testing.T, l line){
				"its turn comes":  itsTurnComes,
				"it cancels":      itCancels,
				"it hangs up":     itHangsUp,
				"the gate closes": theGateCloses,
				"the proxy stops": theProxyStops,
			} {
				t.Run(what, func(t *testing.T) { story(t, queue(t, state)) })
			}
		})
	}
}

// line is a proxy with one server, the client that has it in a transaction, and
// one that waits for it.
type line struct {
	*proxy
	holder, waiter *raw
	waiting        *client
	conn           net.Conn // the waiter's
}

func queue(t *testing.T, state int32) line {
	t.Helper()
	l := line{proxy: startProxy(t, ModeTransaction, func(o *Options) { o.Limits.PoolSize = 1 })}
	l.holder = l.raw(t)
	l.holder.send(&pgproto3.Query{String: "BEGIN"})
	l.holder.until(t, 'T')
	l.conn = l.bare(t)
	l.waiter = &raw{t, pgproto3.NewFrontend(l.conn, l.conn)}
	l.conn.SetDeadline(time.Now().Add(patience))
	l.waiter.send(&pgproto3.Query{String: "SELECT 42"})
	eventually(t, "it waits", func() bool {
		for _, c := range l.clientList() {
			if c.wait.Load() == waitInLine {
				l.waiting = c
				return true
			}
		}
		return false
	})
	if state == waitServer {
		l.waiting.loop.Post((*impatient)(l.waiting))
		eventually(t, "it waits elsewhere", func() bool { return l.waiting.wait.Load() == waitServer })
	}
	return l
}

// impatient is a client whose time is nearly up.
type impatient client

func (t *impatient) Run() { (*client)(t).waitElsewhere() }

// until reads up to a ReadyForQuery, which must have the status, and gives the
// SQLSTATE of an error before it.
func (r *raw) until(t *testing.T, status byte) (code string) {
	t.Helper()
	for {
		msg, err := r.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := msg.(type) {
		case *pgproto3.ErrorResponse:
			code = m.Code
		case *pgproto3.ReadyForQuery:
			if m.TxStatus != status {
				t.Fatalf("transaction state %c, not %c", m.TxStatus, status)
			}
			return code
		}
	}
}

func itsTurnComes(t *testing.T, l line) {
	l.holder.send(&pgproto3.Query{String: "COMMIT"})
	expect(t, "the waiter", l.waiter.until(t, 'I'), "")
	expect(t, "the holder", l.holder.until(t, 'I'), "")
}

func itCancels(t *testing.T, l line) {
	canceler := l.dialRaw(t)
	if _, err := canceler.Write(wire.AppendCancel(nil, l.waiting.pid, l.waiting.key)); err != nil {
		t.Fatal(err)
	}
	expect(t, "the waiter", l.waiter.until(t, 'I'), "57014")
	itGoesOn(t, l)
}

// itGoesOn: nothing of the wait is left, for either.
func itGoesOn(t *testing.T, l line) {
	t.Helper()
	l.waiter.send(&pgproto3.Query{String: "SELECT 42"})
	l.holder.send(&pgproto3.Query{String: "COMMIT"})
	expect(t, "the holder", l.holder.until(t, 'I'), "")
	expect(t, "the waiter", l.waiter.until(t, 'I'), "")
	if n := l.Stats().Waiting; n != 0 {
		t.Errorf("%d still wait", n)
	}
}

func itHangsUp(t *testing.T, l line) {
	l.conn.Close()
	eventually(t, "nobody waits", func() bool { return l.Stats().Waiting == 0 && l.Stats().Clients == 1 })
	l.holder.send(&pgproto3.Query{String: "COMMIT"})
	expect(t, "the holder", l.holder.until(t, 'I'), "")
}

func theGateCloses(t *testing.T, l line) {
	if _, err := l.gate.Close(within(t), "rehearsal", true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the waiter is held", func() bool { return l.waiting.wait.Load() == waitHeld })
	l.open(t, 2)
	expect(t, "the waiter", l.waiter.until(t, 'I'), "")
	l.holder.send(&pgproto3.Query{String: "COMMIT"})
	expect(t, "the holder", l.holder.until(t, 'I'), "40001")
}

func theProxyStops(t *testing.T, l line) {
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- l.Shutdown(ctx) }()
	msg, err := l.waiter.Receive()
	if e, ok := msg.(*pgproto3.ErrorResponse); !ok || e.Code != "57P01" {
		t.Errorf("the waiter got %T %v", msg, err)
	}
	cancel()
	if err := <-stopped; !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown with an open transaction: %v", err)
	}
}

// TestASlowReaderHoldsUpNobody: it has asked for much and takes nothing. What
// is kept for it is bounded, and those that share its loop do not notice.
func TestASlowReaderHoldsUpNobody(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode, func(o *Options) { o.Loops = 1 })
			slow := p.raw(t)
			slow.send(&pgproto3.Query{String: "SELECT repeat('x', 1000) FROM generate_series(1, 100000)"})
			var stuck *client
			eventually(t, "it takes nothing more", func() bool {
				for _, c := range p.clientList() {
					if c.sock.Pending() > 0 {
						stuck = c
						return true
					}
				}
				return false
			})
			pgbench(t, p.port, "-n", "-M", "prepared", "-f", selectOne(t), "-c", "2", "-t", "200")
			if n := stuck.sock.Pending(); n == 0 || n > 4*bulkSize {
				t.Errorf("%d bytes are kept for it", n)
			}
			rows := 0
			for {
				msg, err := slow.Receive()
				if err != nil {
					t.Fatal(err)
				}
				if _, ok := msg.(*pgproto3.DataRow); ok {
					rows++
				}
				if _, ok := msg.(*pgproto3.ReadyForQuery); ok {
					break
				}
			}
			if rows != 100000 {
				t.Errorf("%d rows", rows)
			}
		})
	}
}

// TestABusyServerHoldsUpItsClient: a client that sends more than its server
// takes is not read, as the server itself would not read it.
func TestABusyServerHoldsUpItsClient(t *testing.T) {
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Loops = 1 })
	conn := p.bare(t)
	if _, err := conn.Write(wire.AppendString(nil, wire.Query, "SELECT pg_sleep(60)")); err != nil {
		t.Fatal(err)
	}
	sleeping(t)
	chunk := wire.AppendString(nil, wire.Query, "SELECT '"+strings.Repeat("x", 1<<20)+"'")
	sent := 0
	for {
		conn.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		n, err := conn.Write(chunk)
		sent += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil || sent > 256<<20 {
			t.Fatalf("after %d bytes: %v", sent, err)
		}
	}
	for _, c := range p.clientList() {
		if b := c.link.Load(); b == nil || b.sock.Pending() > 4*bulkSize {
			t.Errorf("after %d bytes %+v is linked", sent, b)
		}
	}
}

func selectOne(t *testing.T) string {
	t.Helper()
	path := t.TempDir() + "/one.sql"
	if err := os.WriteFile(path, []byte("SELECT 1;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
