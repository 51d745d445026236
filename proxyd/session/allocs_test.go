//go:build !race

package session

import (
	"net"
	"runtime"
	"testing"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// TestTheSteadyStateAllocatesNothing: what every query costs, simple and
// prepared, leaves nothing for the garbage collector.
func TestTheSteadyStateAllocatesNothing(t *testing.T) {
	simple := wire.AppendString(nil, wire.Query, "SELECT 1")
	parse := wire.AppendEmpty(appendParse(nil, "one", []byte("SELECT 1\x00\x00\x00")), wire.Sync)
	prepared, at := wire.Begin(nil, wire.Bind)
	prepared = wire.End(append(prepared, "\x00one\x00\x00\x00\x00\x00\x00\x00"...), at)
	prepared, at = wire.Begin(prepared, wire.Execute)
	prepared = wire.AppendEmpty(wire.End(append(prepared, 0, 0, 0, 0, 0), at), wire.Sync)

	conn := startProxy(t, ModeTransaction, quiet).bare(t)
	buf := make([]byte, 4096)
	ask(t, conn, parse, buf)
	for name, query := range map[string][]byte{"simple": simple, "prepared": prepared} {
		const rounds = 2000
		var before, after runtime.MemStats
		ask(t, conn, query, buf)
		runtime.ReadMemStats(&before)
		for range rounds {
			ask(t, conn, query, buf)
		}
		runtime.ReadMemStats(&after)
		if n := after.Mallocs - before.Mallocs; n > rounds/10 {
			t.Errorf("%s: %d allocations for %d queries", name, n, rounds)
		}
	}
}

// ask sends bytes and reads up to ReadyForQuery.
func ask(t *testing.T, conn net.Conn, b, buf []byte) {
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	const ready = wire.HeaderLen + 1
	for n := 0; n < ready || buf[n-ready] != wire.ReadyForQuery; {
		m, err := conn.Read(buf[n:])
		if n += m; err != nil || n == len(buf) {
			t.Fatalf("after %d bytes of the answer: %v", n, err)
		}
	}
}
