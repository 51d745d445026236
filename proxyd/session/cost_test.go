//go:build !race

package session

import (
	"io"
	"net"
	"runtime"
	"testing"
)

// used is the memory that heap and stacks have in use, in bytes.
func used() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// TestWhoHasProvedNothingCostsLittle: connections that say nothing, or half of a
// startup packet that claims to be long, with a place or in line.
func TestWhoHasProvedNothingCostsLittle(t *testing.T) {
	const crowd, each = 1000, 8 << 10
	for _, c := range []struct {
		story, says string
		places      int
	}{
		{"silent", "", 0},
		{"silent, in line", "", 100},
		{"half a startup packet", "\x00\x00\x27\x10\x00\x03\x00\x00user\x00x", 0},
		{"half a startup packet, in line", "\x00\x00\x27\x10\x00\x03\x00\x00user\x00x", 100},
	} {
		t.Run(c.story, func(t *testing.T) {
			nobody, err := net.Listen("tcp", "127.0.0.1:0") // accepts none: what our own ends cost
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { nobody.Close() })
			own := crowdCost(t, nobody.Addr().String(), crowd, "")
			p := startProxy(t, ModeTransaction, func(o *Options) {
				o.Limits.MaxClients, o.Limits.MaxLogins, o.Limits.LoginTimeout = 2*crowd, c.places, patience
			})
			per := crowdCost(t, p.addr, crowd, c.says, func() bool {
				p.Server.mu.Lock()
				defer p.Server.mu.Unlock()
				return len(p.conns) == crowd
			}) - own
			t.Logf("%d bytes for each of %d", per, crowd)
			if per > each {
				t.Errorf("each costs %d bytes", per)
			}
		})
	}
}

// crowdCost is what each of so many connections costs in bytes, its own end
// included, once they are there.
func crowdCost(t *testing.T, addr string, n int64, says string, there ...func() bool) int64 {
	t.Helper()
	conns := make([]net.Conn, 0, n)
	before := used()
	for range n {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conns = append(conns, conn)
		if _, err := io.WriteString(conn, says); err != nil {
			t.Fatal(err)
		}
	}
	for _, ok := range there {
		eventually(t, "all are there", ok)
	}
	after := used()
	runtime.KeepAlive(conns)
	return (after - before) / n
}
