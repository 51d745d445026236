package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgtandem/pgtandem/engine/execute"
)

// crash stops the server under the clients as a crash does, closes the gate
// with a cut, and starts the server again, the gate still closed.
func (p *proxy) crash(t *testing.T) {
	t.Helper()
	if err := pg.Stop("immediate"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.gate.Close(within(t), "pgsql1 is lost", true); err != nil {
		t.Fatal(err)
	}
	if err := pg.StartServer(); err != nil {
		t.Fatal(err)
	}
}

// raw is a client that speaks the protocol word by word.
type raw struct {
	t testing.TB
	*pgproto3.Frontend
}

func (p *proxy) raw(t testing.TB) *raw {
	t.Helper()
	return rawTo(t, p.dsn(""))
}

func rawTo(t testing.TB, dsn string) *raw {
	t.Helper()
	conn, err := pgx.Connect(within(t), dsn)
	if err != nil {
		t.Fatal(err)
	}
	h, err := conn.PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Conn.Close() })
	if err := h.Conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &raw{t, h.Frontend}
}

// dial connects and says nothing; nil where that fails.
func (p *proxy) dial() net.Conn {
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		return nil
	}
	return conn
}

func (r *raw) send(msgs ...pgproto3.FrontendMessage) {
	r.t.Helper()
	for _, m := range msgs {
		r.Send(m)
	}
	if err := r.Flush(); err != nil {
		r.t.Fatal(err)
	}
}

// story reads n ReadyForQuery and tells what came, one word each. It ends early
// where the server begins to take a COPY.
func (r *raw) story(n int) string {
	r.t.Helper()
	var words []string
	for n > 0 {
		word := r.word()
		switch {
		case word == "EOF" || word == "G":
			return strings.Join(append(words, word), " ")
		case strings.HasPrefix(word, "Z:"):
			n--
		}
		if word != "" {
			words = append(words, word)
		}
	}
	return strings.Join(words, " ")
}

// answers reads n messages.
func (r *raw) answers(n int) string {
	r.t.Helper()
	var words []string
	for len(words) < n {
		word := r.word()
		if word != "" {
			words = append(words, word)
		}
		if word == "EOF" {
			break
		}
	}
	return strings.Join(words, " ")
}

// word reads a message and tells what came, "" for what the server may say at
// any time.
func (r *raw) word() string {
	r.t.Helper()
	msg, err := r.Receive()
	if err != nil {
		return "EOF"
	}
	switch m := msg.(type) {
	case *pgproto3.ReadyForQuery:
		return "Z:" + string(m.TxStatus)
	case *pgproto3.ErrorResponse:
		return m.Severity + ":" + m.Code
	case *pgproto3.CommandComplete:
		return "C:" + string(m.CommandTag)
	case *pgproto3.DataRow:
		if len(m.Values) == 0 {
			return "D"
		}
		return "D:" + string(m.Values[0])
	case *pgproto3.ParseComplete:
		return "1"
	case *pgproto3.BindComplete:
		return "2"
	case *pgproto3.CloseComplete:
		return "3"
	case *pgproto3.NoData:
		return "n"
	case *pgproto3.ParameterDescription:
		return "t"
	case *pgproto3.RowDescription:
		return "T"
	case *pgproto3.CopyInResponse:
		return "G"
	case *pgproto3.CopyOutResponse:
		return "H"
	case *pgproto3.CopyData:
		return "d:" + strings.TrimSpace(string(m.Data))
	case *pgproto3.CopyDone:
		return "c"
	case *pgproto3.PortalSuspended:
		return "s"
	case *pgproto3.EmptyQueryResponse:
		return "I"
	case *pgproto3.FunctionCallResponse:
		return "V:" + string(m.Result)
	case *pgproto3.NotificationResponse:
		return "A:" + m.Channel + ":" + m.Payload
	case *pgproto3.ParameterStatus, *pgproto3.NoticeResponse:
		return ""
	}
	return fmt.Sprintf("%T", msg)
}

// run lets a statement succeed, by the extended protocol where it begins with
// a zero byte.
func (r *raw) run(statement string) {
	r.t.Helper()
	if text, extended := strings.CutPrefix(statement, "\x00"); extended {
		r.send(&pgproto3.Parse{Query: text}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
	} else {
		r.send(query(text))
	}
	if got := r.story(1); strings.Contains(got, "ERROR") || !strings.HasSuffix(got, "Z:I") {
		r.t.Fatalf("%s: %s", statement, got)
	}
}

// close says goodbye and waits until the proxy has let the client go.
func (r *raw) close() {
	r.t.Helper()
	r.send(&pgproto3.Terminate{})
	if got := r.story(1); got != "EOF" {
		r.t.Fatalf("after Terminate: %s", got)
	}
}

// unanswered is the story without what a dying server may still have sent
// ahead of the rows.
func (r *raw) unanswered(n int) string {
	r.t.Helper()
	words := r.story(n)
	for _, head := range []string{"1 ", "2 ", "T "} {
		words = strings.TrimPrefix(words, head)
	}
	return words
}

func query(q string) *pgproto3.Query { return &pgproto3.Query{String: q} }

func (r *raw) ask(q string) string {
	r.t.Helper()
	r.send(query(q))
	return r.story(1)
}

func expect(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestAnIdleClientSeesNothing(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			c := p.raw(t)
			expect(t, "before", c.ask("SELECT 1"), "T D:1 C:SELECT 1 Z:I")
			expect(t, "a reported setting", c.ask("SET application_name = 'carried'"), "C:SET Z:I")
			p.crash(t)
			p.open(t, 2)
			expect(t, "after", c.ask("SELECT 2"), "T D:2 C:SELECT 1 Z:I")
			expect(t, "carried", c.ask("SHOW application_name"), "T D:carried C:SHOW Z:I")
		})
	}
}

func TestAStatementIsHeldWhileTheGateIsClosed(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			c := p.raw(t)
			p.crash(t)
			c.send(query("SELECT 3"))
			eventually(t, "one client is held", func() bool { return p.Stats().Held == 1 })
			if s := p.Clients(); len(s) != 1 || s[0].State != "held" {
				t.Errorf("clients: %+v", s)
			}
			login := make(chan error, 1)
			go func() {
				conn, err := pgx.Connect(context.Background(), p.dsn("application_name=late timezone=Asia/Tokyo"))
				if err == nil {
					err = conn.Close(context.Background())
				}
				login <- err
			}()
			eventually(t, "the new connection is held", func() bool { return p.gate.Status().Held == 2 })
			p.open(t, 2)
			expect(t, "held", c.story(1), "T D:3 C:SELECT 1 Z:I")
			if err := <-login; err != nil {
				t.Errorf("a login during the failover: %v", err)
			}
		})
	}
}

func TestHoldTimeout(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode, func(o *Options) { o.Limits.HoldTimeout = 50 * time.Millisecond })
			c := p.raw(t)
			if _, err := p.gate.Close(within(t), "rehearsal", true); err != nil {
				t.Fatal(err)
			}
			expect(t, "simple", c.ask("SELECT 1"), "ERROR:57P03 Z:I")
			c.send(&pgproto3.Parse{Query: "SELECT 1"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
			expect(t, "extended", c.story(1), "ERROR:57P03 Z:I")
			_, err := pgx.Connect(within(t), p.dsn("datestyle=German"))
			if code(err) != "57P03" {
				t.Errorf("a login: %v, want 57P03", err)
			}
			p.open(t, 2)
			expect(t, "the session is kept", c.ask("SELECT 1"), "T D:1 C:SELECT 1 Z:I")
		})
	}
}

func TestATransactionIsLost(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			again, commit, rollback, extended := p.raw(t), p.raw(t), p.raw(t), p.raw(t)
			for _, c := range []*raw{again, commit, rollback, extended} {
				expect(t, "begin", c.ask("BEGIN"), "C:BEGIN Z:T")
				expect(t, "work", c.ask("SELECT 1"), "T D:1 C:SELECT 1 Z:T")
			}
			p.crash(t)
			p.open(t, 2)
			expect(t, "the next statement", again.ask("SELECT 1"), "ERROR:40001 Z:E")
			expect(t, "one more", again.ask("SELECT 1"), "ERROR:25P02 Z:E")
			expect(t, "a savepoint is gone, too", again.ask("ROLLBACK TO a"), "ERROR:25P02 Z:E")
			expect(t, "the end", again.ask("COMMIT"), "C:ROLLBACK Z:I")
			expect(t, "and on", again.ask("SELECT 1"), "T D:1 C:SELECT 1 Z:I")

			expect(t, "an untold COMMIT", commit.ask("COMMIT"), "ERROR:40001 Z:I")
			expect(t, "and on", commit.ask("SELECT 1"), "T D:1 C:SELECT 1 Z:I")
			expect(t, "ROLLBACK", rollback.ask("ROLLBACK"), "C:ROLLBACK Z:I")

			extended.send(&pgproto3.Parse{Query: "SELECT 1"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
			expect(t, "extended", extended.story(1), "ERROR:40001 Z:E")
			extended.send(&pgproto3.Parse{Query: "ROLLBACK"}, &pgproto3.Describe{ObjectType: 'S'}, &pgproto3.Bind{},
				&pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}, &pgproto3.Sync{})
			expect(t, "extended end", extended.story(1), "1 t n 2 n C:ROLLBACK Z:I")
			extended.send(&pgproto3.Parse{Query: "SELECT 5"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
			expect(t, "extended on", extended.story(1), "1 2 D:5 C:SELECT 1 Z:I")
		})
	}
}

// blocked makes a statement wait in the server for as long as done is not
// called.
func blocked(t *testing.T, p *proxy) {
	t.Helper()
	conn, err := pgx.Connect(within(t), pg.URL("test1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) }) //nolint:errcheck // a test's connection
	for _, q := range []string{"BEGIN", "SELECT pg_advisory_xact_lock(77)"} {
		if _, err := conn.Exec(within(t), q); err != nil {
			t.Fatal(err)
		}
	}
}

func inFlight(t *testing.T, n int) {
	t.Helper()
	eventually(t, "statements are in flight", func() bool {
		conn, err := pgx.Connect(within(t), pg.URL("test1"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background()) //nolint:errcheck // a test's connection
		var count int
		if err := conn.QueryRow(within(t), "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = 'test1'").Scan(&count); err != nil {
			t.Fatal(err)
		}
		return count == n
	})
}

func TestAStatementIsInFlight(t *testing.T) {
	const wait = "SELECT pg_advisory_xact_lock(77)"
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			auto, autoExtended, inTx, piped := p.raw(t), p.raw(t), p.raw(t), p.raw(t)
			expect(t, "begin", inTx.ask("BEGIN"), "C:BEGIN Z:T")
			expect(t, "begin", piped.ask("BEGIN"), "C:BEGIN Z:T")
			blocked(t, p)
			auto.send(query(wait))
			autoExtended.send(&pgproto3.Parse{Query: wait}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
			inTx.send(query(wait))
			piped.send(query(wait), query("COMMIT"))
			inFlight(t, 4)
			p.crash(t)
			p.open(t, 2)
			expect(t, "a statement of its own", auto.unanswered(1), "ERROR:08007 Z:I")
			expect(t, "extended", autoExtended.unanswered(1), "ERROR:08007 Z:I")
			expect(t, "in a transaction", inTx.unanswered(1), "ERROR:40001 Z:E")
			expect(t, "in a transaction, on", inTx.ask("SELECT 1"), "ERROR:25P02 Z:E")
			expect(t, "in a transaction, end", inTx.ask("ROLLBACK"), "C:ROLLBACK Z:I")
			expect(t, "a COMMIT behind it", piped.unanswered(2), "ERROR:08007 Z:E ERROR:08007 Z:I")
			for _, c := range []*raw{auto, autoExtended, inTx, piped} {
				expect(t, "the session stays", c.ask("SELECT 1"), "T D:1 C:SELECT 1 Z:I")
			}
		})
	}
}

// deferring makes a COMMIT wait for blocked: a trigger that runs with it does.
func deferring(t *testing.T) {
	t.Helper()
	pg.Exec(t, "test1", "DROP TABLE IF EXISTS deferred", "CREATE TABLE deferred (id int)",
		`CREATE OR REPLACE FUNCTION wait77() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(77); RETURN NULL; END $$`,
		"CREATE CONSTRAINT TRIGGER w AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait77()",
		"GRANT ALL ON deferred TO test1")
}

func TestACommitIsInFlight(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	deferring(t)
	c := p.raw(t)
	c.ask("BEGIN")
	expect(t, "insert", c.ask("INSERT INTO deferred VALUES (1)"), "C:INSERT 0 1 Z:T")
	blocked(t, p)
	c.send(query("COMMIT"))
	inFlight(t, 1)
	p.crash(t)
	p.open(t, 2)
	expect(t, "commit", c.story(1), "ERROR:08007 Z:I")
	expect(t, "and on", c.ask("SELECT 1"), "T D:1 C:SELECT 1 Z:I")
}

func TestWhatCannotBeCarried(t *testing.T) {
	for _, mode := range bothModes {
		for _, q := range []string{
			"CREATE TEMP TABLE a (b int)", "LISTEN a", "SELECT pg_advisory_lock(5)", "PREPARE a (pg_class) AS SELECT 1",
			"BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT", "SET ROLE test1", "BEGIN; SET search_path = pg_catalog; COMMIT",
		} {
			t.Run(string(mode)+"/"+q, func(t *testing.T) {
				p := startProxy(t, mode)
				c := p.raw(t)
				c.ask(q)
				if _, err := p.gate.Close(within(t), "rehearsal", true); err != nil {
					t.Fatal(err)
				}
				expect(t, "at once", c.story(1), "FATAL:57P01 EOF")
			})
		}
	}
}

func TestSettingsAreCarried(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode, func(o *Options) { o.Limits.PoolSize = 2 })
			c, other := p.raw(t), p.raw(t)
			expect(t, "set", c.ask("SET search_path = pg_catalog"), "C:SET Z:I")
			c.send(&pgproto3.Parse{Query: "SET work_mem TO '321kB'"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
			expect(t, "set", c.story(1), "1 2 C:SET Z:I")
			expect(t, "set", c.ask("SET my.own = 'x;y'"), "C:SET Z:I")
			expect(t, "refused", c.ask("SET work_mem = 'nonsense'"), "ERROR:22023 Z:I")
			expect(t, "set and reset", c.ask("SET geqo = off"), "C:SET Z:I")
			expect(t, "set and reset", c.ask("RESET geqo"), "C:RESET Z:I")
			look := "SELECT concat_ws(' ', current_setting('search_path'), current_setting('work_mem'), current_setting('my.own', true), current_setting('geqo'))"
			check := func() {
				t.Helper()
				expect(t, "its own", c.ask(look), "T D:pg_catalog 321kB x;y on C:SELECT 1 Z:I")
				got := other.ask(look)
				if strings.Contains(got, "321kB") || strings.Contains(got, "x;y") || !strings.Contains(got, "public") {
					t.Errorf("another's: %s", got)
				}
			}
			check()
			check()
			p.crash(t)
			p.open(t, 2)
			check()
			check()
		})
	}
}

func TestDiscardAllMakesASessionCarriable(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			c := p.raw(t)
			c.ask("LISTEN a")
			expect(t, "discard", c.ask("DISCARD ALL"), "C:DISCARD ALL Z:I")
			if _, err := p.gate.Close(within(t), "rehearsal", true); err != nil {
				t.Fatal(err)
			}
			p.open(t, 2)
			expect(t, "and on", c.ask("SELECT 1"), "T D:1 C:SELECT 1 Z:I")
		})
	}
}

func TestNamedStatementsSurviveAFailover(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			c := p.raw(t)
			c.send(&pgproto3.Parse{Name: "s1", Query: "SELECT $1::text"}, &pgproto3.Sync{})
			expect(t, "parse", c.story(1), "1 Z:I")
			p.crash(t)
			p.open(t, 2)
			c.send(&pgproto3.Bind{PreparedStatement: "s1", Parameters: [][]byte{[]byte("x")}}, &pgproto3.Execute{}, &pgproto3.Sync{})
			expect(t, "bind", c.story(1), "2 D:x C:SELECT 1 Z:I")

			expect(t, "by SQL", c.ask("PREPARE s2 (text) AS SELECT $1 || '!'"), "C:PREPARE Z:I")
			expect(t, "its name is given away", c.ask("DEALLOCATE s1"), "C:DEALLOCATE Z:I")
			c.send(&pgproto3.Parse{Name: "s1", Query: "SELECT 'new'"}, &pgproto3.Sync{})
			expect(t, "parse", c.story(1), "1 Z:I")
			p.crash(t)
			p.open(t, 3)
			expect(t, "execute", c.ask("EXECUTE s2 ('y')"), "T D:y! C:SELECT 1 Z:I")
			c.send(&pgproto3.Bind{PreparedStatement: "s1"}, &pgproto3.Execute{}, &pgproto3.Sync{})
			expect(t, "the later one", c.story(1), "2 D:new C:SELECT 1 Z:I")
		})
	}
}

func TestACopyInIsLost(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			c := p.raw(t)
			expect(t, "copy", c.ask("COPY table1 FROM STDIN"), "G")
			c.send(&pgproto3.CopyData{Data: []byte("100\tx\n")})
			p.crash(t)
			p.open(t, 2)
			c.send(&pgproto3.CopyData{Data: []byte("101\tx\n")}, &pgproto3.CopyDone{})
			expect(t, "lost", c.story(1), "ERROR:40001 Z:I")
			expect(t, "and on", c.ask("SELECT count(*) FROM table1 WHERE id IN (100, 101)"), "T D:0 C:SELECT 1 Z:I")
		})
	}
}

func TestDrain(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			c, idle := p.raw(t), p.raw(t)
			idle.ask("SELECT 1")
			c.ask("BEGIN")
			short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			if open, err := p.gate.Close(short, "switchover", false); err != nil || open != 1 {
				t.Errorf("Close: %d open, %v; want 1", open, err)
			}
			expect(t, "the transaction goes on", c.ask("SELECT 1"), "T D:1 C:SELECT 1 Z:T")
			closed := make(chan int, 1)
			go func() {
				open, _ := p.gate.Close(within(t), "switchover", false)
				closed <- open
			}()
			expect(t, "and commits", c.ask("COMMIT"), "C:COMMIT Z:I")
			if open := <-closed; open != 0 {
				t.Errorf("%d transactions are open after the drain", open)
			}
			idle.send(query("SELECT 2"))
			c.send(query("SELECT 3"))
			eventually(t, "both are held", func() bool { return p.Stats().Held == 2 })
			p.open(t, 2)
			expect(t, "idle", idle.story(1), "T D:2 C:SELECT 1 Z:I")
			expect(t, "drained", c.story(1), "T D:3 C:SELECT 1 Z:I")
		})
	}
}

func TestALowerTermIsRefused(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	p.open(t, 7)
	if err := p.gate.Open(within(t), 6, pg.Node("pgsql1")); !errors.Is(err, execute.ErrRefused) {
		t.Errorf("term 6 after 7: %v", err)
	}
	if err := p.gate.Open(within(t), 7, pg.Node("pgsql2")); !errors.Is(err, execute.ErrRefused) {
		t.Errorf("term 7 for another node: %v", err)
	}
}

func TestTheEngineIsToldAtOnce(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	p.raw(t).ask("SELECT 1")
	if err := pg.Stop("immediate"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "BackendFailed", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.failed) > 0
	})
	if err := pg.StartServer(); err != nil {
		t.Fatal(err)
	}
}

// A server that goes down kills its backends one after another. Once one is
// lost, none that waits in the pool is given to a client.
func TestALostConnectionDoubtsThoseThatWait(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	pidOf := func(c *pgx.Conn) (pid int) {
		if err := c.QueryRow(within(t), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	one, two := p.connect(t, ""), p.connect(t, "")
	tx, err := one.Begin(within(t))
	if err != nil {
		t.Fatal(err)
	}
	first, second := pidOf(one), pidOf(two) // the first is taken, so there are two
	if err := tx.Commit(within(t)); err != nil {
		t.Fatal(err)
	}
	pg.Exec(t, "postgres", fmt.Sprintf("SELECT pg_terminate_backend(%d)", first))
	eventually(t, "the loss is noticed", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.failed) > 0
	})
	if now := pidOf(two); now == first || now == second {
		t.Errorf("a statement was given to backend %d, which waited beside the lost one", now)
	}
}
