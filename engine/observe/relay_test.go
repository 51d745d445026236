package observe_test

import (
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine/assemble"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/observe"
)

// relay stands between the observer and a server and is the network: it delays
// what passes and holds what is not to pass.
type relay struct {
	to    string
	delay func() time.Duration
	port  uint16

	mu    sync.Mutex
	moved *sync.Cond
	held  map[int]bool // by the number of the connection
	all   bool         // hold new ones as well
	made  int
}

func newRelay(t *testing.T, to string, delay func() time.Duration) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{to: to, delay: delay, port: uint16(l.Addr().(*net.TCPAddr).Port), held: map[int]bool{}}
	r.moved = sync.NewCond(&r.mu)
	var wg sync.WaitGroup
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			if err != nil {
				_ = c.Close() // the observer sees it cut
				continue
			}
			r.mu.Lock()
			n := r.made
			r.made++
			r.held[n] = r.all
			open = append(open, c, s)
			r.mu.Unlock()
			wg.Go(func() { r.pump(n, s, c) })
			wg.Go(func() { r.pump(n, c, s) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		r.hold(false, false)
		r.mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		r.mu.Unlock()
		wg.Wait()
	})
	return r
}

func (r *relay) pump(n int, to io.WriteCloser, from io.Reader) {
	defer func() { _ = to.Close() }()
	b := make([]byte, 64<<10)
	for {
		k, err := from.Read(b)
		time.Sleep(r.delay())
		r.mu.Lock()
		for r.held[n] {
			r.moved.Wait()
		}
		r.mu.Unlock()
		if _, werr := to.Write(b[:k]); err != nil || werr != nil {
			return
		}
	}
}

// hold stops what passes on the connections there are, and on new ones, or lets
// it go on.
func (r *relay) hold(those, all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := range r.made {
		r.held[n] = those
	}
	r.all = all
	r.moved.Broadcast()
}

func (r *relay) connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.made
}

// through watches pgsql2 by way of a relay, and the others without.
func (w *world) through(t *testing.T, check observe.Check, delay func() time.Duration) (*observe.Observer, *relay) {
	t.Helper()
	var r *relay
	for _, n := range assemble.Nodes(w.config) {
		if n.ID == "pgsql2" {
			r = newRelay(t, n.Addr(), delay)
		}
	}
	return w.watchAs(t, check, func(n cluster.Node, _ observe.Role) (*pgx.ConnConfig, error) {
		cfg, err := assemble.ConnConfig(w.config, n, config.Credential{User: watcher, Password: config.Secret(secret)}, "postgres")
		if err == nil && n.ID == "pgsql2" {
			cfg.Port = r.port
		}
		return cfg, err
	}), r
}

func none() time.Duration { return 0 }

// An answer that comes after its failure was counted ends the silence.
func (w *world) lateAnswer(t *testing.T) {
	o, r := w.through(t, observe.Check{Period: 50 * time.Millisecond, Timeout: 300 * time.Millisecond}, none)
	until(t, o, "pgsql2", "up", up)
	r.hold(true, true)
	n := until(t, o, "pgsql2", "a failure", func(n cluster.NodeFacts) bool { return n.Failures >= 1 })
	if n.Reach != cluster.ReachTimeout || !strings.Contains(n.LastError, "no answer for") {
		t.Errorf("%s: %s", n.Reach, n.LastError)
	}
	r.hold(false, false)
	n = until(t, o, "pgsql2", "an answer", up)
	if n.Failures != 0 || n.LastError != "" {
		t.Errorf("%d failures are left: %s", n.Failures, n.LastError)
	}
}

// The path of every connection there is goes dead, as when a firewall forgets
// them; new ones pass.
func (w *world) deadPaths(t *testing.T) {
	o, r := w.through(t, observe.Check{Period: 50 * time.Millisecond, Timeout: 2 * time.Second}, none)
	until(t, o, "pgsql2", "up", up)
	r.hold(true, false)
	dead := time.Now()
	for n := look(t, o, "pgsql2"); !n.Up() || n.LastOK.Before(dead); n = look(t, o, "pgsql2") {
		if n.Failures > 1 {
			t.Fatalf("lost on account of its connections: %+v", n)
		}
	}
}

// Everything is late, by up to 200 ms each way, and now and then by a
// retransmission more. A login takes longer than the timeout.
func (w *world) jitter(t *testing.T) {
	var mu sync.Mutex
	chance := rand.New(rand.NewPCG(1, 2))
	o, r := w.through(t, observe.Check{Period: 50 * time.Millisecond, Timeout: time.Second}, func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		late := time.Duration(chance.Int64N(int64(200 * time.Millisecond)))
		if chance.IntN(100) == 0 {
			late += 600 * time.Millisecond
		}
		return late
	})
	until(t, o, "pgsql2", "up", up)
	for have := r.connections(); r.connections() < have+3; {
		if n := look(t, o, "pgsql2"); n.Failures > 1 {
			t.Fatalf("lost on account of jitter: %+v", n)
		}
	}
}
