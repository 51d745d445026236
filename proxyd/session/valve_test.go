package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/proxyd/session/internal/pgtest"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// serverCount asks PostgreSQL itself how many connections the role has there.
func serverCount(t testing.TB) (n int) {
	t.Helper()
	conn, err := pgx.Connect(within(t), pg.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(within(t)) //nolint:errcheck // a test's connection
	if err := conn.QueryRow(within(t), "SELECT count(*) FROM pg_stat_activity WHERE usename = $1", pgtest.User).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// started runs something that takes its time.
func started[T any](f func() T) <-chan T {
	out := make(chan T, 1)
	go func() { out <- f() }()
	return out
}

// awaited is the end of it.
func awaited[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("not within %v: %s", patience, what)
	}
	return v
}

func (p *proxy) pausing(ctx context.Context, database string) <-chan error {
	return started(func() error { return p.Pause(ctx, database) })
}

func (p *proxy) held(n int) func() bool {
	return func() bool { return p.gate.Status().Held == n }
}

func pidOf(t testing.TB, conn *pgx.Conn) (pid int) {
	t.Helper()
	if err := conn.QueryRow(within(t), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

func do(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(within(t), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// TestPause is what an administrator does before a server is restarted: who is
// in a transaction ends it, who asks for a new one waits, and nobody sees an
// error, be it a minute later than hold_timeout.
func TestPause(t *testing.T) {
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Limits.HoldTimeout = 50 * time.Millisecond })
	busy, idle := p.connect(t, ""), p.connect(t, "")
	do(t, idle, "SELECT 1")
	do(t, busy, "BEGIN")
	paused := p.pausing(within(t), "test1")
	eventually(t, "the pause begins", func() bool { return !p.valve.open("test1") })
	asking := started(func() error { _, err := idle.Exec(context.Background(), "SELECT 2"); return err })
	eventually(t, "the client is held", p.held(1))
	late := started(func() error { return loginAndAsk(p) })
	eventually(t, "the newcomer is held", p.held(2))
	select {
	case err := <-paused:
		t.Fatalf("PAUSE did not wait for the open transaction: %v", err)
	default:
	}
	do(t, busy, "SELECT 3")
	do(t, busy, "COMMIT")
	if err := awaited(t, "PAUSE", paused); err != nil {
		t.Fatal(err)
	}
	if n := serverCount(t); n != 0 {
		t.Errorf("%d servers are left", n)
	}
	last := started(func() error { _, err := busy.Exec(context.Background(), "SELECT 4"); return err })
	eventually(t, "all are held", p.held(3))
	eventually(t, "hold_timeout is over", func() bool { return p.gate.Status().OldestHeldMS > 100 })
	if err := p.Resume("test1"); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]<-chan error{"held": asking, "new": late, "last": last} {
		if err := awaited(t, what, c); err != nil {
			t.Errorf("the %s client: %v", what, err)
		}
	}
}

// loginAndAsk is a whole client.
func loginAndAsk(p *proxy) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.dsn(""))
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // a test's connection
	_, err = conn.Exec(ctx, "SELECT 1")
	return err
}

// TestPauseInSessionMode: a session gives its server back between two
// transactions, unless it holds what it would lose.
func TestPauseInSessionMode(t *testing.T) {
	p := startProxy(t, ModeSession)
	plain, holding := p.connect(t, ""), p.connect(t, "")
	do(t, plain, "SET work_mem = '7MB'")
	do(t, holding, "CREATE TEMP TABLE mine (id int)")
	was := pidOf(t, plain)
	paused := p.pausing(within(t), "")
	eventually(t, "the plain session's server is closed", func() bool { return serverCount(t) == 1 })
	do(t, holding, "INSERT INTO mine VALUES (1)")
	select {
	case err := <-paused:
		t.Fatalf("PAUSE did not wait for the session with a temporary table: %v", err)
	default:
	}
	holding.Close(within(t)) //nolint:errcheck // it goes
	if err := awaited(t, "PAUSE", paused); err != nil {
		t.Fatal(err)
	}
	asking := started(func() error {
		var v string
		err := plain.QueryRow(context.Background(), "SHOW work_mem").Scan(&v)
		if err == nil && v != "7MB" {
			err = errors.New("work_mem is " + v)
		}
		return err
	})
	eventually(t, "it is held", p.held(1))
	if err := p.Resume(""); err != nil {
		t.Fatal(err)
	}
	if err := awaited(t, "the session goes on", asking); err != nil {
		t.Error(err)
	}
	if pidOf(t, plain) == was {
		t.Error("it is on the server that was closed")
	}
}

func TestAPauseOfOneDatabaseLeavesTheOthers(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	if err := p.Pause(within(t), "another"); err != nil {
		t.Fatal(err)
	}
	do(t, p.connect(t, ""), "SELECT 1")
	if err := p.Resume("test1"); wire.Code(err) != wire.CodeNotInPrerequisiteState {
		t.Errorf("RESUME of what is not paused: %v", err)
	}
	if err := p.Resume(""); wire.Code(err) != wire.CodeNotInPrerequisiteState {
		t.Errorf("RESUME of all: %v", err)
	}
	if err := p.Resume("another"); err != nil {
		t.Error(err)
	}
	if err := p.Pause(within(t), ""); err != nil {
		t.Error(err)
	}
	if err := p.Pause(within(t), ""); wire.Code(err) != wire.CodeNotInPrerequisiteState {
		t.Errorf("PAUSE twice: %v", err)
	}
}

// TestAPauseThatIsGivenUp is no pause: what was held goes on.
func TestAPauseThatIsGivenUp(t *testing.T) {
	for _, c := range []struct {
		what string
		end  func(p *proxy, cancel context.CancelFunc) error
	}{
		{"it is canceled", func(_ *proxy, cancel context.CancelFunc) error { cancel(); return nil }},
		{"somebody else gives RESUME", func(p *proxy, _ context.CancelFunc) error { return p.Resume("test1") }},
	} {
		t.Run(c.what, func(t *testing.T) {
			p := startProxy(t, ModeTransaction)
			busy, idle := p.connect(t, ""), p.connect(t, "")
			do(t, busy, "BEGIN")
			ctx, cancel := context.WithCancel(within(t))
			defer cancel()
			paused := p.pausing(ctx, "test1")
			eventually(t, "the pause begins", func() bool { return !p.valve.open("test1") })
			asking := started(func() error { _, err := idle.Exec(context.Background(), "SELECT 2"); return err })
			eventually(t, "the client is held", p.held(1))
			if err := c.end(p, cancel); err != nil {
				t.Fatal(err)
			}
			if err := awaited(t, "PAUSE", paused); err == nil {
				t.Error("PAUSE says that all is paused")
			}
			if err := awaited(t, "the held client", asking); err != nil {
				t.Error(err)
			}
			do(t, busy, "COMMIT")
		})
	}
}

// TestAPauseOutlastsAFailover: clients that an administrator holds are not let
// go because a new primary is there.
func TestAPauseOutlastsAFailover(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	conn := p.connect(t, "")
	do(t, conn, "SELECT 1")
	if err := p.Pause(within(t), "test1"); err != nil {
		t.Fatal(err)
	}
	asking := started(func() error { _, err := conn.Exec(context.Background(), "SELECT 2"); return err })
	eventually(t, "the client is held", p.held(1))
	if _, err := p.gate.Close(within(t), "the primary is lost", true); err != nil {
		t.Fatal(err)
	}
	p.open(t, 2)
	if err := loginOnly(p); err != nil { // in transaction mode that needs no server
		t.Errorf("a login while all is paused: %v", err)
	}
	if n := serverCount(t); n != 0 || !p.held(1)() {
		t.Errorf("%d servers, %d held", n, p.gate.Status().Held)
	}
	if _, err := p.gate.Close(within(t), "the primary is lost again", true); err != nil {
		t.Fatal(err)
	}
	if err := p.Resume("test1"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-asking:
		t.Fatalf("the gate is closed, and the client has gone on: %v", err)
	default:
	}
	p.open(t, 3)
	if err := awaited(t, "the client goes on", asking); err != nil {
		t.Error(err)
	}
}

func loginOnly(p *proxy) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.dsn(""))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// TestPauseUnderLoad: clients come, ask and go while all is paused and resumed
// again and again. None sees an error, those whose server is just logging in
// included, and no server is there while PAUSE stands (PgBouncer's issue 420).
func TestPauseUnderLoad(t *testing.T) {
	for _, mode := range []Mode{ModeTransaction, ModeSession} {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode, func(o *Options) { o.Limits.PoolSize = 4 })
			var over atomic.Bool
			var asked atomic.Int64
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for !over.Load() {
						if err := loginAndAsk(p); err != nil {
							t.Error(err)
							return
						}
						asked.Add(1)
					}
				})
			}
			for range 15 {
				if err := p.Pause(within(t), ""); err != nil {
					t.Fatal(err)
				}
				if n := serverCount(t); n != 0 {
					t.Errorf("%d servers are there while all is paused", n)
				}
				before := asked.Load()
				if err := p.Resume(""); err != nil {
					t.Fatal(err)
				}
				eventually(t, "clients go on", func() bool { return asked.Load() > before || t.Failed() })
			}
			over.Store(true)
			wg.Wait()
		})
	}
}

func TestDisable(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	conn := p.connect(t, "")
	p.Disable("test1")
	if err := loginOnly(p); code(err) != wire.CodeNotInPrerequisiteState || !strings.Contains(err.Error(), "not currently accepting connections") {
		t.Errorf("a login: %v", err)
	}
	do(t, conn, "SELECT 1") // who is in may stay
	p.Enable("test1")
	if err := loginOnly(p); err != nil {
		t.Errorf("a login afterwards: %v", err)
	}
}

// TestReconnect: every server is another one, but not before its transaction
// has ended.
func TestReconnect(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	busy, idle := p.connect(t, ""), p.connect(t, "")
	do(t, busy, "BEGIN")
	was, idleWas := pidOf(t, busy), pidOf(t, idle)
	p.Reconnect("test1")
	if now := pidOf(t, idle); now == idleWas {
		t.Error("the idle server is still used")
	}
	closed := started(func() error { return p.WaitClose(within(t), "test1") })
	if now := pidOf(t, busy); now != was {
		t.Error("a transaction was moved")
	}
	select {
	case err := <-closed:
		t.Fatalf("WAIT_CLOSE did not wait: %v", err)
	default:
	}
	do(t, busy, "COMMIT")
	if err := awaited(t, "WAIT_CLOSE", closed); err != nil {
		t.Error(err)
	}
	if now := pidOf(t, busy); now == was {
		t.Error("the server is still used")
	}
	ctx, cancel := context.WithCancel(within(t))
	do(t, busy, "BEGIN")
	p.Reconnect("")
	cancel()
	if err := p.WaitClose(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("WAIT_CLOSE that is given up: %v", err)
	}
	if err := p.WaitClose(within(t), "another"); err != nil {
		t.Error(err)
	}
}

// TestKill: a client is ended in whatever state it is, and told why.
func TestKill(t *testing.T) {
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Limits.PoolSize = 2 })
	idle, inTx, active := p.connect(t, ""), p.connect(t, ""), p.connect(t, "")
	do(t, inTx, "BEGIN")
	sleeping := started(func() error { _, err := active.Exec(context.Background(), "SELECT pg_sleep(600)"); return err })
	eventually(t, "two servers are busy", func() bool { return p.Stats().ServersActive == 2 })
	waiting := p.connect(t, "")
	asking := started(func() error { _, err := waiting.Exec(context.Background(), "SELECT 1"); return err })
	eventually(t, "one waits", func() bool { return p.Stats().Waiting == 1 })
	p.Kill("test1")
	if err := awaited(t, "the active one", sleeping); code(err) != wire.CodeAdminShutdown {
		t.Errorf("active: %v", err)
	}
	if err := awaited(t, "the waiting one", asking); code(err) != wire.CodeAdminShutdown {
		t.Errorf("waiting: %v", err)
	}
	for what, conn := range map[string]*pgx.Conn{"idle": idle, "in a transaction": inTx} {
		if _, err := conn.Exec(within(t), "SELECT 1"); err == nil {
			t.Errorf("the client that was %s lives", what)
		}
	}
	eventually(t, "no server is left", func() bool { return serverCount(t) == 0 })
	next := started(func() error { return loginAndAsk(p) })
	eventually(t, "who comes now is held", p.held(1))
	if err := p.Resume("test1"); err != nil {
		t.Fatal(err)
	}
	if err := awaited(t, "RESUME", next); err != nil {
		t.Error(err)
	}
}

func TestKillClient(t *testing.T) {
	p := startProxy(t, ModeSession)
	one, other := p.connect(t, "application_name=one"), p.connect(t, "application_name=other")
	for _, c := range p.Look().Clients {
		if c.Application == "one" && !p.KillClient(c.ID) {
			t.Error("it is not found")
		}
	}
	if _, err := one.Exec(within(t), "SELECT 1"); err == nil {
		t.Error("it lives")
	}
	do(t, other, "SELECT 1")
	if p.KillClient(1 << 40) {
		t.Error("a client that is not there is ended")
	}
	eventually(t, "its server is gone", func() bool { return serverCount(t) == 1 })
}

// TestCounters: what SHOW STATS is made of.
func TestCounters(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	conn := p.connect(t, "")
	for range 3 {
		do(t, conn, "SELECT 1")
	}
	tx, err := conn.Begin(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Prepare(within(t), "s", "SELECT pg_sleep(0.05)"); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(within(t), "s"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(within(t)); err != nil {
		t.Fatal(err)
	}
	l := p.Look()
	c := l.Counters[CounterKey{"test1", "pgsql1"}]
	// A client that asks at once after an answer may find its server not yet
	// given back, and keeps it.
	if c.Transactions != 4 || c.Queries != 7 || c.Assignments < 2 || c.Assignments > 5 || c.ClientParses != 1 || c.ServerParses != 1 || c.Binds != 1 {
		t.Errorf("%+v", c)
	}
	if c.Received < 50 || c.Received > 1000 || c.Sent < 50 || c.Sent > 2000 {
		t.Errorf("%d bytes in, %d out", c.Received, c.Sent)
	}
	if c.QueryTime < 50*time.Millisecond || c.TransactionTime < c.QueryTime || c.WaitTime <= 0 {
		t.Errorf("times: %v, %v, %v", c.QueryTime, c.TransactionTime, c.WaitTime)
	}
	if l.Logins["test1"] != 1 || len(l.Clients) != 1 || l.Clients[0].Prepared != 1 || len(l.Servers) != 1 || l.Servers[0].Prepared != 1 {
		t.Errorf("%+v", l)
	}
	p.Reconnect("")
	eventually(t, "the server is closed", func() bool { return serverCount(t) == 0 })
	eventually(t, "what it counted stays", func() bool { return p.Look().Counters[CounterKey{"test1", "pgsql1"}] == c })
}

func TestMeter(t *testing.T) {
	var m meter
	m.asked(10, 100)
	m.asked(0, 150) // nothing was sent
	m.asked(5, 200) // behind it in the pipeline
	m.answered(wire.TxOpen, false, 300)
	m.answered(wire.TxOpen, true, 400)
	m.asked(1, 1000)
	m.answered(wire.TxIdle, true, 1100)
	want := Counters{Transactions: 1, Queries: 3, Received: 16, QueryTime: 400, TransactionTime: 1000}
	if m.Counters != want || m.queryAt != 0 || m.txAt != 0 {
		t.Errorf("%+v", m)
	}
}

func TestLookNamesWhatIsPausedAndDisabled(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	p.Disable("b")
	p.Disable("a")
	for _, db := range []string{"y", "x"} {
		if err := p.Pause(within(t), db); err != nil {
			t.Fatal(err)
		}
	}
	l := p.Look()
	if got := fmt.Sprint(l.PausedAll, l.Paused, l.Disabled); got != "false [x y] [a b]" {
		t.Error(got)
	}
}
