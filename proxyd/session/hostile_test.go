package session

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// much is a query whose answer no socket takes at once.
const much = "SELECT repeat('x', 1000) FROM generate_series(1, 100000)"

// TestAClientThatDoesNotReadIsClosed in time, and what it kept is free.
func TestAClientThatDoesNotReadIsClosed(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode, func(o *Options) { o.Limits.PoolSize, o.Limits.WriteTimeout = 1, 200*time.Millisecond })
			if _, err := p.bare(t).Write(wire.AppendString(nil, wire.Query, much)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is closed", func() bool { return strings.Contains(p.log.String(), "does not read") })
			expect(t, "its server is free", p.raw(t).ask("SELECT 1"), "T D:1 C:SELECT 1 Z:I")
		})
	}
}

// TestAMessageIsAsLongAsAllowed: a longer one ends its session at its head, and
// no part of it reaches a server.
func TestAMessageIsAsLongAsAllowed(t *testing.T) {
	const limit = 100_000
	long := func(n int) string { return "SELECT length('" + strings.Repeat("x", n) + "')" }
	frame := len(long(0)) + 1 + 4 // its zero and its length
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode, func(o *Options) { o.Limits.PoolSize, o.Limits.MaxMessage = 1, limit })
			c := p.raw(t)
			expect(t, "just so long", c.ask(long(limit-frame)), fmt.Sprintf("T D:%d C:SELECT 1 Z:I", limit-frame))
			expect(t, "a byte more", c.ask(long(limit-frame+1)), "FATAL:54000 EOF")
			c = p.raw(t)
			c.ask("CREATE TEMP TABLE taken (a text)")
			c.ask("BEGIN")
			c.ask("COPY taken FROM STDIN")
			c.send(&pgproto3.CopyData{Data: []byte(strings.Repeat("x", limit))})
			expect(t, "in the middle of a COPY", c.story(1), "FATAL:54000 EOF")
			eventually(t, "its server is free", func() bool { return p.Stats().ServersActive == 0 })
			expect(t, "and goes on", p.raw(t).ask("SELECT 1"), "T D:1 C:SELECT 1 Z:I")
		})
	}
}

// TestASlowReaderIsNotTakenForADeafOne, though it may have as much before it
// whenever it is looked at: it gets all of it, however long that takes.
func TestASlowReaderIsNotTakenForADeafOne(t *testing.T) {
	const limit = time.Hour
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Limits.WriteTimeout = 0 }) // the test looks in place of sweep
	deaf, slow := p.bare(t), p.bare(t)
	inside := map[string]*client{}
	for _, conn := range []net.Conn{deaf, slow} {
		if _, err := conn.Write(wire.AppendString(nil, wire.Query, much)); err != nil {
			t.Fatal(err)
		}
		for _, c := range p.clientList() {
			inside[c.address] = c
		}
	}
	stuck, reads := inside[deaf.LocalAddr().String()], inside[slow.LocalAddr().String()]
	for _, c := range []*client{stuck, reads} {
		eventually(t, "there is something to take", func() bool { return c.sock.Pending() > 0 })
	}
	now, got, last := time.Unix(1000, 0), 0, ""
	read := func() {
		buf := make([]byte, 1<<20)
		n, err := slow.Read(buf)
		if err != nil {
			t.Fatalf("after %d bytes: %v", got, err)
		}
		got += n
		last = last + string(buf[:n])
		last = last[max(0, len(last)-len(ready)):]
	}
	for range 2 * looksPerTimeout {
		p.lookForDeaf(limit, now)
		now = now.Add(limit / looksPerTimeout)
		for n, drains := reads.sock.Pending(), reads.drains.Load(); last != ready && reads.sock.Pending() == n && reads.drains.Load() == drains; {
			read()
		}
		if reads.gone.Load() {
			t.Fatalf("it was closed after %d bytes", got)
		}
	}
	if !stuck.gone.Load() {
		t.Error("the other is not closed")
	}
	for last != ready {
		read()
	}
	if got < 100_000_000 {
		t.Errorf("it has %d bytes", got)
	}
}

// TestTheSameBytesLeftAreNoSilence where the client has caught up in between.
func TestTheSameBytesLeftAreNoSilence(t *testing.T) {
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Limits.WriteTimeout = 0 })
	conn := p.bare(t)
	if _, err := conn.Write(wire.AppendString(nil, wire.Query, much)); err != nil {
		t.Fatal(err)
	}
	c := p.clientList()[0]
	var left int
	eventually(t, "there is something to take, and always as much", func() bool {
		before := left
		left = c.sock.Pending()
		return left > 0 && left == before
	})
	const limit = time.Hour
	now := time.Unix(1000, 0)
	for range 2 * looksPerTimeout {
		now = now.Add(limit / looksPerTimeout)
		if c.isDeaf(limit, now) {
			t.Fatal("it is taken for deaf")
		}
		c.drains.Add(1) // as the loop does
	}
	if c.isDeaf(limit, now) || !c.isDeaf(limit, now.Add(limit)) {
		t.Error("it is not, once it takes nothing")
	}
}

// TestNobodyFromOneAddressHasAllThePlaces of those who have proved nothing.
func TestNobodyFromOneAddressHasAllThePlaces(t *testing.T) {
	d := newDoorman(time.Now)
	d.setLimits(10, 3)
	for range 50 {
		comes(t, d, "10.0.0.1")
	}
	if _, ok := comes(t, d, "10.0.0.2"); !ok {
		t.Error("another address finds no place")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.from[netip.MustParseAddr("10.0.0.1")]; n != 3 {
		t.Errorf("%d places are one address's", n)
	}
}

// TestAFloodLeavesRoomForOtherAddresses: as many connections as the proxy takes
// come from one address, or as many as may log in are in the middle of it.
// Somebody from another address gets in nevertheless.
func TestAFloodLeavesRoomForOtherAddresses(t *testing.T) {
	startup, err := wire.AppendStartup(nil, []wire.Param{{Name: "user", Value: "test1"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		story string
		says  []byte
		crowd int
		limit func(*Limits)
	}{
		{"connections that say nothing", nil, 5 + strangers, func(l *Limits) { l.MaxClients, l.MaxLogins, l.MaxLoginsPerAddress = 5, 3, 2 }},
		{"startup packets, and no proof", startup, 10, func(l *Limits) { l.MaxClients, l.MaxLogins, l.MaxLoginsPerAddress = 5, 20, 10 }},
	} {
		t.Run(c.story, func(t *testing.T) {
			p := startProxy(t, ModeTransaction, func(o *Options) { c.limit(&o.Limits); o.Limits.LoginTimeout = patience })
			for range c.crowd {
				if _, err := p.dialRaw(t).Write(c.says); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "all are there", func() bool {
				p.Server.mu.Lock()
				defer p.Server.mu.Unlock()
				return len(p.conns) == c.crowd && (c.says == nil || len(p.clients) == c.crowd)
			})
			cfg, err := pgx.ParseConfig(p.dsn(""))
			if err != nil {
				t.Fatal(err)
			}
			cfg.DialFunc = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext
			conn, err := pgx.ConnectConfig(within(t), cfg)
			if err != nil {
				t.Fatal(err)
			}
			conn.Close(within(t)) //nolint:errcheck // a test's connection
		})
	}
}

// TestWhoGivesWay when the line is full: the last of the address that has the
// most in it, for one that has fewer.
func TestWhoGivesWay(t *testing.T) {
	d := newDoorman(time.Now)
	d.setLimits(1, 0)
	inside, _ := comes(t, d, "10.0.0.9")
	var line []*visitor
	for _, from := range []string{"10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.2"} {
		v, _ := comes(t, d, from)
		line = append(line, v)
	}
	for _, c := range []struct {
		from string
		gone []int // whichever of them it is
	}{
		{"10.0.0.1", nil}, // of the crowd itself
		{"10.0.0.2", nil}, // with one more it would be as many
		{"10.0.0.3", []int{3}},
		{"10.0.0.3", []int{1, 4}}, // two each are left
		{"10.0.0.9", []int{1, 4}},
		{"10.0.0.3", nil},
	} {
		if gave := d.giveWay(netip.MustParseAddr(c.from)); gave != (c.gone != nil) {
			t.Errorf("for %s somebody gives way: %v", c.from, gave)
		}
		for i, v := range line {
			select {
			case <-v.out:
				if _, err := v.conn.Write([]byte{0}); err == nil || !slices.Contains(c.gone, i) {
					t.Errorf("for %s %d is gone, its connection %v", c.from, i, err)
				}
				line[i] = &visitor{}
			default:
			}
		}
	}
	d.leave(inside)
	if len(d.inside) != 1 || len(d.line) != 1 || len(d.waits) != 1 {
		t.Errorf("%d inside, %d in line, %v", len(d.inside), len(d.line), d.waits)
	}
	for _, from := range []string{"2001:db8::1", "2001:db8::2", "2001:db8::3"} { // one host
		comes(t, d, from)
	}
	for from, want := range map[string]bool{"2001:db8::4": false, "2001:db8:0:1::1": true} {
		if d.giveWay(netip.MustParseAddr(from)) != want {
			t.Errorf("for %s somebody gives way: %v", from, !want)
		}
	}
}

// TestAServerSaysTooMuch before it is ready: it is hung up on, and the client
// told so.
func TestAServerSaysTooMuch(t *testing.T) {
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Limits.HoldTimeout = 1 })
	plain := func(text string) func(string) string { return func(string) string { return text } }
	for story, says := range map[string]func(nonce string) string{
		"a giant parameter":            plain(packet('S', "a\x00"+strings.Repeat("b", wire.MaxAuth)+"\x00")),
		"notices without end":          plain(strings.Repeat(packet('N', "SNOTICE\x00C00000\x00Mwait\x00\x00"), 20000)),
		"a method that does not exist": plain(authRequest(99, "")),
		"more rounds than a processor does": func(nonce string) string {
			return authRequest(wire.AuthSASLContinue, "r="+nonce+"x,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=2147483647")
		},
		"a salt without end": func(nonce string) string {
			return authRequest(wire.AuthSASLContinue, "r="+nonce+"x,s="+strings.Repeat("AAAA", 10000)+",i=4096")
		},
	} {
		t.Run(story, func(t *testing.T) {
			p.lead(t, server(t, func(conn net.Conn) error {
				if _, err := wire.ReadStartup(conn); err != nil {
					return err
				}
				nonce := ""
				if says("") != says("1") { // it is about a SCRAM that has begun
					if _, err := io.WriteString(conn, authRequest(wire.AuthSASL, wire.ScramSHA256+"\x00\x00")); err != nil {
						return err
					}
					_, body, err := wire.ReadMessage(conn, nil, wire.MaxAuth)
					if err != nil {
						return err
					}
					_, nonce, _ = strings.Cut(string(body), ",r=")
				}
				if _, err := io.WriteString(conn, says(nonce)); err != nil {
					return err
				}
				_, err := io.Copy(io.Discard, conn)
				return err
			}))
			began := time.Now()
			e := pgError(t, p.dsn(fmt.Sprintf("application_name='%s'", story)))
			if e.Severity != wire.SevFatal || e.Code == "" || time.Since(began) > patience/2 {
				t.Errorf("%+v after %v", e, time.Since(began))
			}
		})
	}
}
