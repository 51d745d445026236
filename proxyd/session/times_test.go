package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgtandem/pgtandem/proxyd/pool"
)

// complaint reads up to an error and gives it whole.
func (r *raw) complaint() string {
	r.t.Helper()
	for {
		msg, err := r.Receive()
		if err != nil {
			return "EOF"
		}
		if e, ok := msg.(*pgproto3.ErrorResponse); ok {
			return fmt.Sprintf("%s %s: %s (%s)", e.Severity, e.Code, e.Message, e.Hint)
		}
	}
}

// TestTimes: what PostgreSQL has a timeout for ends with its code and its
// words, and names the setting of the proxy.
func TestTimes(t *testing.T) {
	const brief = 150 * time.Millisecond
	statement := func(l *Limits) { l.StatementTimeout = brief }
	transaction := func(l *Limits) { l.TransactionTimeout = brief }
	idleInTransaction := func(l *Limits) { l.IdleInTransactionTimeout = brief }
	idle := func(l *Limits) { l.IdleSessionTimeout = brief }
	const (
		canceled      = "ERROR 57014: canceling statement due to statement timeout (The proxy's statement_timeout is 150ms.)"
		tooLong       = "FATAL 25P04: terminating connection due to transaction timeout (The proxy's transaction_timeout is 150ms.)"
		idleTooLong   = "FATAL 25P03: terminating connection due to idle-in-transaction timeout (The proxy's idle_in_transaction_session_timeout is 150ms.)"
		doesNothing   = "FATAL 57P05: terminating connection due to idle-session timeout (The proxy's idle_session_timeout is 150ms.)"
		takesTooLong  = "SELECT pg_sleep(60)"
		rowsAndAPause = "SELECT 1 UNION ALL SELECT 2 FROM pg_sleep(60)"
	)
	extended := []pgproto3.FrontendMessage{prep("", takesTooLong), bind(""), perform("", 0), endSync, prep("", "SELECT 7"), bind(""), perform("", 0), endSync}
	for _, c := range []struct {
		what  string
		limit func(*Limits)
		first []string // succeed
		send  []pgproto3.FrontendMessage
		told  string
		then  string // the rest of its story; "EOF" for the end of the session
	}{
		{"a statement", statement, nil, chain(query(takesTooLong)), canceled, "Z:I"},
		{"a statement that has given rows", statement, nil, chain(query(rowsAndAPause)), canceled, "Z:I"},
		{"a statement in a transaction", statement, []string{"BEGIN"}, chain(query(takesTooLong)), canceled, "Z:E"},
		{"a statement, and another behind it", statement, nil, extended, canceled, "Z:I"},
		{"a transaction whose client waits", transaction, []string{"BEGIN"}, nil, tooLong, "EOF"},
		{"a transaction of short statements", transaction, []string{"BEGIN", "SELECT 1", "SELECT 1"}, nil, tooLong, "EOF"},
		{"a transaction in a statement", transaction, []string{"BEGIN"}, chain(query(takesTooLong)), tooLong, "EOF"},
		{"a statement that is a transaction", transaction, nil, chain(query(takesTooLong)), tooLong, "EOF"},
		{"idle in a transaction", idleInTransaction, []string{"BEGIN", "SELECT 1"}, nil, idleTooLong, "EOF"},
		{"idle in a failed transaction", idleInTransaction, []string{"BEGIN", "SELECT 1/0"}, nil, idleTooLong, "EOF"},
		{"idle from the beginning", idle, nil, nil, doesNothing, "EOF"},
		{"idle after a statement", idle, []string{"SELECT 1"}, nil, doesNothing, "EOF"},
		{"idle with what keeps it on its server", idle, []string{"CREATE TEMPORARY TABLE kept (a int)"}, nil, doesNothing, "EOF"},
	} {
		for _, mode := range bothModes {
			t.Run(fmt.Sprintf("%s, %s", c.what, mode), func(t *testing.T) {
				p := startProxy(t, mode, func(o *Options) { c.limit(&o.Limits); o.Limits.PoolSize = 1 })
				r := p.raw(t)
				for _, q := range c.first {
					r.ask(q)
				}
				if c.send != nil {
					r.send(c.send...)
				}
				expect(t, "it is told", r.complaint(), c.told)
				expect(t, "and then", r.story(1), c.then)
				if c.then == "EOF" { // and what it had is whoever's
					next := p.raw(t)
					expect(t, "the next one", next.ask("SELECT 8"), "T D:8 C:SELECT 1 Z:I")
					return
				}
				if len(c.send) > 4 {
					expect(t, "what was sent behind it", r.story(1), "1 2 D:7 C:SELECT 1 Z:I")
				}
				r.ask("ROLLBACK")
				expect(t, "it goes on", r.ask("SELECT 9"), "T D:9 C:SELECT 1 Z:I")
			})
		}
	}
}

// TestWhatIsInTime: nothing is ended that is not late, and a COMMIT never is.
func TestWhatIsInTime(t *testing.T) {
	for _, mode := range bothModes {
		p := startProxy(t, mode, func(o *Options) {
			o.Limits.IdleSessionTimeout, o.Limits.IdleInTransactionTimeout = 400*time.Millisecond, 400*time.Millisecond
		})
		r := p.raw(t)
		expect(t, "a long statement is not idle", r.ask("SELECT 1 FROM pg_sleep(0.6)"), "T D:1 C:SELECT 1 Z:I")
		expect(t, "and its time begins behind it", r.ask("BEGIN"), "C:BEGIN Z:T")
		expect(t, "nor is one in a transaction", r.ask("SELECT 1 FROM pg_sleep(0.6)"), "T D:1 C:SELECT 1 Z:T")
		expect(t, "the end", r.ask("COMMIT"), "C:COMMIT Z:I")

		pg.Exec(t, "test1", "DROP TABLE IF EXISTS slow", "CREATE TABLE slow (a int)",
			"CREATE OR REPLACE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.6); RETURN NULL; END'",
			"CREATE CONSTRAINT TRIGGER slowly AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slowly()",
			"GRANT ALL ON slow TO PUBLIC")
		l := *p.limits()
		l.Terms = Terms{Mode: mode, PoolSize: 20, StatementTimeout: 300 * time.Millisecond, TransactionTimeout: 300 * time.Millisecond}
		p.Apply(l)
		r.ask("BEGIN")
		r.ask("INSERT INTO slow VALUES (1)")
		expect(t, "a COMMIT has the time it needs", r.ask("COMMIT"), "C:COMMIT Z:I")
	}
}

// TestWhoseTimes: a user's own word goes before that of his database, and both
// together before either.
func TestWhoseTimes(t *testing.T) {
	change := func(d time.Duration) func(*Terms) { return func(t *Terms) { t.StatementTimeout = d } }
	l := Limits{Terms: Terms{StatementTimeout: 1}, Overrides: []Override{
		{Database: "a", User: "x", Change: change(4)}, {User: "x", Change: change(3)}, {Database: "a", Change: change(2)},
		{Database: "b", Change: func(t *Terms) { t.Mode = ModeTransaction }},
	}}.orDefault()
	for _, c := range []struct {
		database, user string
		want           time.Duration
		mode           Mode
	}{{"c", "y", 1, ModeSession}, {"a", "y", 2, ModeSession}, {"c", "x", 3, ModeSession}, {"a", "x", 4, ModeSession}, {"b", "x", 3, ModeTransaction}} {
		if got := l.For(pool.Group{Database: c.database, User: c.user}); got.StatementTimeout != c.want || got.Mode != c.mode {
			t.Errorf("%s in %s: %+v", c.user, c.database, got)
		}
	}
}

// TestHowManyMayComeIn: of a user and of a database, in PostgreSQL's words. A
// reload that lowers the limit puts nobody out.
func TestHowManyMayComeIn(t *testing.T) {
	one, two := 1, 2
	pg.Exec(t, "postgres", "DROP ROLE IF EXISTS other", "CREATE ROLE other LOGIN PASSWORD 'x'")
	p := startProxy(t, ModeTransaction, func(o *Options) {
		o.Limits.MaxClientsPerDatabase = 1
		o.Limits.Overrides = []Override{{Database: "test1", MaxClients: &two}, {User: "other", MaxClients: &one}}
	})
	login := func(dsn string) (*pgx.Conn, string) {
		conn, err := pgx.Connect(within(t), dsn)
		var e *pgconn.PgError
		if errors.As(err, &e) {
			return nil, e.Code + " " + e.Message
		}
		t.Cleanup(func() { conn.Close(context.Background()) }) //nolint:errcheck // a test's connection, which has to be there until then
		return conn, ""
	}
	const fullRole, full, narrow = `53300 too many connections for role "other"`, `53300 too many connections for database "test1"`, `53300 too many connections for database "postgres"`
	first, _ := login(p.as("other", "x", "test1", ""))
	_, told := login(p.as("other", "x", "postgres", ""))
	expect(t, "the role's second", told, fullRole)
	second, told := login(p.dsn(""))
	expect(t, "another role's", told, "")
	_, told = login(p.dsn(""))
	expect(t, "the database's third", told, full)
	third, told := login(p.dsn("dbname=postgres"))
	expect(t, "another database", told, "")
	defer third.Close(context.Background()) //nolint:errcheck // what nobody holds is closed at any time
	_, told = login(p.dsn("dbname=postgres"))
	expect(t, "its second", told, narrow)

	l := *p.limits()
	l.Overrides = []Override{{Database: "test1", MaxClients: &one}}
	p.Apply(l)
	for _, conn := range []*pgx.Conn{first, second} {
		if _, err := conn.Exec(within(t), "SELECT 1"); err != nil {
			t.Errorf("who is in stays: %v", err)
		}
	}
	first.Close(context.Background()) //nolint:errcheck // a test's connection
	eventually(t, "it has gone", func() bool { return len(p.Clients()) == 2 })
	_, told = login(p.dsn(""))
	expect(t, "one is in still", told, full)
	second.Close(context.Background()) //nolint:errcheck // a test's connection
	eventually(t, "it has gone", func() bool { return len(p.Clients()) == 1 })
	_, told = login(p.dsn(""))
	expect(t, "nobody is in any more", told, "")
}

// TestTheMinimumIsKept: as soon as there is a client, and again when servers
// are lost; and it is there for whoever comes.
func TestTheMinimumIsKept(t *testing.T) {
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Limits.MinPoolSize, o.Limits.IdleTimeout = 3, 50*time.Millisecond })
	idle := func() int { return p.Stats().ServersIdle }
	r := p.raw(t)
	eventually(t, "three are open", func() bool { return idle() == 3 })
	p.Reconnect("")
	eventually(t, "and again", func() bool { return idle() == 3 })
	before := p.Look().Servers[0].ID
	for range 3 {
		p.sweep()
	}
	if now := p.Look().Servers; len(now) != 3 || now[0].ID != before {
		t.Errorf("they are not left alone: %+v", now)
	}
	expect(t, "one of them serves", r.ask("SELECT 1"), "T D:1 C:SELECT 1 Z:I")
	if n := len(p.Look().Servers); n != 3 {
		t.Errorf("%d servers", n)
	}
}

// TestTheReserve: who has waited gets a server more, which goes when nobody
// waits any longer.
func TestTheReserve(t *testing.T) {
	p := startProxy(t, ModeTransaction, func(o *Options) {
		o.Limits.PoolSize, o.Limits.ReserveSize, o.Limits.ReserveDelay = 1, 1, 100*time.Millisecond
	})
	a, b := p.raw(t), p.raw(t)
	a.ask("BEGIN")
	began := time.Now()
	expect(t, "it is served", b.ask("BEGIN"), "C:BEGIN Z:T")
	if waited := time.Since(began); waited < 100*time.Millisecond {
		t.Errorf("after %v", waited)
	}
	a.ask("COMMIT")
	b.ask("COMMIT")
	eventually(t, "one server is left", func() bool { return p.Stats().ServersIdle == 1 })
}

// TestADatabaseAndAUserHaveTheirServers: beside the limit of the pool.
func TestADatabaseAndAUserHaveTheirServers(t *testing.T) {
	one := 1
	for _, o := range []Override{{Database: "test1", MaxServers: &one}, {User: "test1", MaxServers: &one}} {
		p := startProxy(t, ModeTransaction, func(opt *Options) {
			opt.Limits.Overrides, opt.Limits.WaitTimeout = []Override{o}, 50*time.Millisecond
		})
		a, b := p.raw(t), p.raw(t)
		a.ask("BEGIN")
		b.send(query("SELECT 1"))
		if got := b.complaint(); !strings.Contains(got, "53300") || !strings.Contains(got, "wait_timeout") {
			t.Errorf("%+v: %s", o, got)
		}
		b.story(1)
		a.ask("COMMIT")
		expect(t, "it is free", b.ask("SELECT 1"), "T D:1 C:SELECT 1 Z:I")
		if other := p.raw(t); o.User == "" {
			expect(t, "its neighbour", other.ask("SELECT 1"), "T D:1 C:SELECT 1 Z:I")
		}
	}
}

// TestWaitingInLineIsCounted: as waiting, and not as the statement's own time.
func TestWaitingInLineIsCounted(t *testing.T) {
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Limits.PoolSize, o.Limits.StatementTimeout = 1, 400*time.Millisecond })
	a, b := p.raw(t), p.raw(t)
	a.ask("BEGIN")
	b.send(query("SELECT 1 FROM pg_sleep(0.2)"))
	eventually(t, "it waits", func() bool { return p.Stats().Waiting == 1 })
	a.ask("SELECT pg_sleep(0.3)")
	a.ask("COMMIT")
	expect(t, "half a second has passed", b.story(1), "T D:1 C:SELECT 1 Z:I")
	for _, c := range p.Look().Counters {
		if c.WaitTime < 300*time.Millisecond {
			t.Errorf("%v of waiting were counted", c.WaitTime)
		}
	}
}

// TestAServerThatDoesNotAnswer: one that does not even cancel a statement is
// given up, and its client learns what can be known.
func TestAServerThatDoesNotAnswer(t *testing.T) {
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Limits.StatementTimeout = 100 * time.Millisecond })
	inside, outside := p.raw(t), p.raw(t)
	inside.ask("BEGIN")
	outside.ask("SELECT 1") // its server is the other one
	for _, s := range p.Look().Servers {
		if err := syscall.Kill(s.PID, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer syscall.Kill(s.PID, syscall.SIGCONT) //nolint:errcheck // it is there
	}
	inside.send(query("SELECT 2"))
	outside.send(query("SELECT 2"))
	expect(t, "in a transaction", inside.story(1), "ERROR:40001 Z:E")
	expect(t, "outside of one", outside.story(1), "ERROR:08007 Z:I")
	expect(t, "and on", outside.ask("SELECT 3"), "T D:3 C:SELECT 1 Z:I")
}

// BenchmarkSweep is one look at ten thousand clients.
func BenchmarkSweep(b *testing.B) {
	s, err := New(Options{Gate: pool.NewGate(time.Now), Verifiers: sqlVerifiers{}, Limits: Limits{Terms: Terms{
		IdleSessionTimeout: time.Hour, IdleInTransactionTimeout: time.Minute, StatementTimeout: time.Minute, TransactionTimeout: time.Minute}}})
	if err != nil {
		b.Fatal(err)
	}
	for i := range uint32(10000) {
		c := &client{s: s, group: pool.Group{Database: "d", User: fmt.Sprint("u", i%10)}}
		c.since.Store(s.now().UnixNano())
		s.clients[i] = c
		if i%10 == 0 {
			back := &backend{s: s, client: c}
			c.link.Store(back)
		}
	}
	for b.Loop() {
		s.sweep()
	}
}
