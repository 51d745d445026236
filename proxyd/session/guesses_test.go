package session

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

func TestGuesses(t *testing.T) {
	clock := &hand{at: time.Unix(1000, 0)}
	g := newGuesses(clock.now)
	guess := func(from string, n int) (tried int) {
		for range n {
			if a, _ := netip.ParseAddr(from); g.mayTry(a) {
				g.failed(a)
				tried++
			}
		}
		return tried
	}
	for _, c := range []struct {
		story, from string
		wait        time.Duration
		n, want     int
	}{
		{"a few", "10.0.0.1", 0, 40, 40},
		{"too many", "10.0.0.1", 0, 1000, guessesAtOnce - 40},
		{"another address", "10.0.0.2", 0, 10, 10},
		{"a second later", "10.0.0.1", time.Second, 1000, guessesPerSecond},
		{"a host of IPv6", "2001:db8::1", 0, 1000, guessesAtOnce},
		{"with another of its addresses", "2001:db8::2", 0, 1000, 0},
		{"its neighbour's network", "2001:db8:0:1::1", 0, 1, 1},
		{"the Unix socket", "", 0, 1000, guessesAtOnce},
		{"a day later", "10.0.0.1", 24 * time.Hour, 1000, guessesAtOnce},
	} {
		clock.turn(c.wait)
		if got := guess(c.from, c.n); got != c.want {
			t.Errorf("%s: %d tried, want %d", c.story, got, c.want)
		}
	}
	for i := range 2 * guessersKept {
		g.failed(netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}))
	}
	if len(g.who) > guessersKept {
		t.Errorf("%d addresses are remembered", len(g.who))
	}
}

// guessBy gives another clock to those who guess.
func (p *proxy) guessBy(now func() time.Time) {
	p.guesses.mu.Lock()
	defer p.guesses.mu.Unlock()
	p.guesses.now = now
}

// TestWhoHasGuessedTooOftenCancelsNothing, though he may know the key by then;
// a moment later he may again.
func TestWhoHasGuessedTooOftenCancelsNothing(t *testing.T) {
	clock := &hand{at: time.Unix(1000, 0)}
	p := startProxy(t, ModeTransaction)
	p.guessBy(clock.now)
	conn := p.connect(t, "")
	pid, key := conn.PgConn().PID(), wire.CancelKey(conn.PgConn().SecretKey())
	here := netip.MustParseAddr("127.0.0.1")
	for range guessesAtOnce {
		p.cancel(here, pid, append(wire.CancelKey{key[0] + 1}, key[1:]...))
	}
	admin, err := pgx.Connect(within(t), pg.URL("test1"))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background()) //nolint:errcheck // a test's connection
	do(t, admin, "SELECT pg_advisory_lock(4711)")
	for _, c := range []struct{ story, want string }{{"it runs to its end", ""}, {"a moment later", "57014"}} {
		waited := make(chan error, 1)
		go func() { _, err := conn.Exec(within(t), "SELECT pg_advisory_xact_lock(4711)"); waited <- err }()
		eventually(t, "it waits", func() bool {
			var n int
			if err := admin.QueryRow(within(t), "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n == 1
		})
		p.cancel(here, pid, key)
		if c.want == "" {
			do(t, admin, "SELECT pg_advisory_unlock(4711)")
		}
		expect(t, c.story, code(<-waited), c.want)
		do(t, admin, "SELECT pg_advisory_lock(4711)")
		clock.turn(time.Second)
	}
}
