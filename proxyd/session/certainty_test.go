package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgtandem/pgtandem/proxyd/relay"
	"github.com/pgtandem/pgtandem/proxyd/session/pipeline"
	"github.com/pgtandem/pgtandem/proxyd/session/statement"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// asking asks the server itself, once the gate is open again.
type asking struct{ p *proxy }

func (a asking) Outcome(ctx context.Context, q Commit) (Outcome, error) {
	for {
		changed := a.p.gate.Changed()
		t, err := a.p.gate.Wait(ctx)
		if err != nil {
			return OutcomeUnknown, err
		}
		if t.Term > q.Term {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return OutcomeUnknown, ctx.Err()
		}
	}
	conn, err := pgx.Connect(ctx, pg.URL("postgres"))
	if err != nil {
		return OutcomeUnknown, err
	}
	defer conn.Close(ctx) //nolint:errcheck // a test's connection
	var word string
	err = conn.QueryRow(ctx, "SELECT coalesce(pg_xact_status($1::text::xid8), '')", strconv.FormatUint(q.XID, 10)).Scan(&word)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "22023" {
		return OutcomeAborted, nil
	}
	return map[string]Outcome{"committed": OutcomeCommitted, "aborted": OutcomeAborted}[word], err
}

// certain is a proxy that can find out.
func certain(t *testing.T, mode Mode) *proxy {
	t.Helper()
	var p proxy
	q := startProxy(t, mode, func(o *Options) { o.Outcomes = asking{&p} })
	p.gate = q.gate
	return q
}

// lonely makes every COMMIT that writes wait for a standby that there is not.
func lonely(t *testing.T) {
	t.Helper()
	set := func(names string) {
		pg.Exec(t, "postgres", "ALTER SYSTEM SET synchronous_standby_names = '"+names+"'", "SELECT pg_reload_conf()")
	}
	set("nobody")
	t.Cleanup(func() { set("") })
	eventually(t, "commits wait", func() bool {
		conn, err := pgx.Connect(within(t), pg.URL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background()) //nolint:errcheck // a test's connection
		var names string
		if err := conn.QueryRow(within(t), "SHOW synchronous_standby_names").Scan(&names); err != nil {
			t.Fatal(err)
		}
		return names == "nobody"
	})
}

func waiting4standby(t *testing.T, n int) {
	t.Helper()
	eventually(t, "commits wait for a standby", func() bool {
		conn, err := pgx.Connect(within(t), pg.URL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background()) //nolint:errcheck // a test's connection
		var count int
		if err := conn.QueryRow(within(t), "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").Scan(&count); err != nil {
			t.Fatal(err)
		}
		return count == n
	})
}

// A COMMIT that was written is one that was committed, whoever lost its answer.
func TestACommitWhoseAnswerIsLostIsToldTruly(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			pg.Exec(t, "test1", "DROP TABLE IF EXISTS truth", "CREATE TABLE truth (who text)", "GRANT ALL ON truth TO test1")
			p := certain(t, mode)
			simple, extended, unsynced := p.raw(t), p.raw(t), p.raw(t)
			for who, c := range map[string]*raw{"simple": simple, "extended": extended, "unsynced": unsynced} {
				expect(t, "begin", c.ask("BEGIN"), "C:BEGIN Z:T")
				expect(t, "insert", c.ask("INSERT INTO truth VALUES ('"+who+"')"), "C:INSERT 0 1 Z:T")
			}
			lonely(t)
			commit := []pgproto3.FrontendMessage{&pgproto3.Parse{Query: "commit"}, &pgproto3.Bind{}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}}
			simple.send(query("COMMIT"))
			extended.send(append(commit, &pgproto3.Sync{})...)
			unsynced.send(append(commit, &pgproto3.Flush{})...)
			waiting4standby(t, 3)
			p.crash(t)
			p.open(t, 2)
			expect(t, "simple", simple.story(1), "C:COMMIT Z:I")
			expect(t, "extended", extended.story(1), "1 2 n C:COMMIT Z:I")
			unsynced.send(&pgproto3.Sync{})
			expect(t, "without its Sync", unsynced.story(1), "1 2 n C:COMMIT Z:I")
			for _, c := range []*raw{simple, extended, unsynced} {
				expect(t, "the session stays", c.ask("SELECT count(*) FROM truth"), "T D:3 C:SELECT 1 Z:I")
			}
		})
	}
}

// What had no commit record is not there, and the client may repeat it.
func TestACommitThatWasNotWrittenIsToldTruly(t *testing.T) {
	p := certain(t, ModeTransaction)
	deferring(t)
	wrote, read := p.raw(t), p.raw(t)
	wrote.ask("BEGIN")
	expect(t, "insert", wrote.ask("INSERT INTO deferred VALUES (1)"), "C:INSERT 0 1 Z:T")
	blocked(t, p)
	wrote.send(query("COMMIT"))
	inFlight(t, 1)
	p.crash(t)
	p.open(t, 2)
	expect(t, "commit", wrote.story(1), "ERROR:40001 Z:I")
	expect(t, "and on", wrote.ask("SELECT 1"), "T D:1 C:SELECT 1 Z:I")
	expect(t, "another", read.ask("SELECT count(*) FROM deferred"), "T D:0 C:SELECT 1 Z:I")
}

// A server that is killed before it has said what the transaction is called was not
// sent the COMMIT: nothing is left open, whatever became of the connection.
func TestACommitWaitsForItsName(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			pg.Exec(t, "test1", "DROP TABLE IF EXISTS named", "CREATE TABLE named (who text)", "GRANT ALL ON named TO test1")
			p := certain(t, mode)
			simple, extended := p.raw(t), p.raw(t)
			var pids []int
			for _, c := range []*raw{simple, extended} {
				c.ask("BEGIN")
				expect(t, "insert", c.ask("INSERT INTO named VALUES ('a')"), "C:INSERT 0 1 Z:T")
				var pid int
				if _, err := fmt.Sscanf(c.ask("SELECT pg_backend_pid()"), "T D:%d", &pid); err != nil {
					t.Fatal(err)
				}
				pids = append(pids, pid)
			}
			for _, pid := range pids {
				if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			simple.send(query("COMMIT"))
			extended.send(&pgproto3.Parse{Query: "COMMIT"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
			eventually(t, "both wait", func() bool {
				waiting := 0
				for _, c := range p.clientList() {
					if c.waits.Load() {
						waiting++
					}
				}
				return waiting == 2
			})
			for _, pid := range pids { // what it was sent lies unread: its end is a reset
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			p.crash(t)
			p.open(t, 2)
			expect(t, "simple", simple.story(1), "ERROR:40001 Z:I")
			expect(t, "extended", extended.story(1), "ERROR:40001 Z:E")
			expect(t, "its end", extended.ask("ROLLBACK"), "C:ROLLBACK Z:I")
			for _, c := range []*raw{simple, extended} {
				expect(t, "and on", c.ask("SELECT count(*) FROM named"), "T D:0 C:SELECT 1 Z:I")
			}
		})
	}
}

// A COMMIT that came before the answers to what precedes it waits for those, too.
func TestACommitInAPipelineIsToldTruly(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			pg.Exec(t, "test1", "DROP TABLE IF EXISTS piped", "CREATE TABLE piped (who text)", "GRANT ALL ON piped TO test1")
			p := certain(t, mode)
			step := func(q string) []pgproto3.FrontendMessage {
				return []pgproto3.FrontendMessage{&pgproto3.Parse{Query: q}, &pgproto3.Bind{}, &pgproto3.Execute{}}
			}
			simple, each, one := p.raw(t), p.raw(t), p.raw(t)
			lonely(t)
			simple.send(query("BEGIN"), query("INSERT INTO piped VALUES ('simple')"), query("COMMIT"))
			for _, q := range []string{"BEGIN", "INSERT INTO piped VALUES ('each')", "COMMIT"} {
				each.send(append(step(q), &pgproto3.Sync{})...)
				one.send(step(strings.Replace(q, "each", "one", 1))...)
			}
			one.send(&pgproto3.Sync{})
			waiting4standby(t, 3)
			p.crash(t)
			p.open(t, 2)
			expect(t, "simple", simple.story(3), "C:BEGIN Z:T C:INSERT 0 1 Z:T C:COMMIT Z:I")
			expect(t, "each", each.story(3), "1 2 C:BEGIN Z:T 1 2 C:INSERT 0 1 Z:T 1 2 C:COMMIT Z:I")
			expect(t, "one", one.story(1), "1 2 C:BEGIN 1 2 C:INSERT 0 1 1 2 C:COMMIT Z:I")
			for _, c := range []*raw{simple, each, one} {
				expect(t, "all are there", c.ask("SELECT count(*) FROM piped"), "T D:3 C:SELECT 1 Z:I")
			}
		})
	}
}

// A client's cancel request has nothing to do with our question.
func TestTheQuestionIsNotCanceled(t *testing.T) {
	b := &backend{}
	c := &client{}
	b.client = c
	b.pipe.Send(pipeline.Sent{Kind: pipeline.Query, Hidden: true, Asks: true})
	if b.beginCancel(c) {
		t.Error("a question can be canceled")
	}
	b.pipe.Send(pipeline.Sent{Kind: pipeline.Query})
	if !b.beginCancel(c) {
		t.Error("a statement cannot be canceled")
	}
}

// What was learnt of a COMMIT is not told of the PREPARE TRANSACTION after it.
func TestAPreparedTransactionIsNotTakenForTheCommitBefore(t *testing.T) {
	const prepare = "PREPARE TRANSACTION 'certain'"
	for _, mode := range bothModes {
		for _, before := range []string{"INSERT INTO plain VALUES (1)", "SELECT 1"} { // with an id, and without
			t.Run(string(mode)+"/"+before, func(t *testing.T) {
				p := certain(t, mode)
				deferring(t)
				pg.Exec(t, "test1", "DROP TABLE IF EXISTS plain", "CREATE TABLE plain (id int)", "GRANT ALL ON plain TO test1")
				simple, extended := p.raw(t), p.raw(t)
				for _, c := range []*raw{simple, extended} {
					for _, q := range []string{"BEGIN", before, "COMMIT", "BEGIN", "INSERT INTO deferred VALUES (1)"} {
						c.ask(q)
					}
				}
				blocked(t, p)
				simple.send(query(prepare))
				extended.send(&pgproto3.Parse{Query: prepare}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
				inFlight(t, 2)
				p.crash(t)
				p.open(t, 2)
				for says, c := range map[string]*raw{"simple": simple, "extended": extended} {
					expect(t, says, c.unanswered(1), "ERROR:08007 Z:I")
					expect(t, "and on", c.ask("SELECT 5"), "T D:5 C:SELECT 1 Z:I")
				}
			})
		}
	}
}

// What never left for the server was done by none.
func TestWhatNeverLeftIsNotInDoubt(t *testing.T) {
	alone := pipeline.Loss{Outcome: pipeline.InDoubt}
	for _, tt := range []struct {
		says   string
		first  []bool // of each failed write, whether nothing was unanswered before
		wrote  int
		secure bool
		want   pipeline.Outcome
	}{
		{"no write failed", nil, 0, false, pipeline.InDoubt},
		{"nothing of the only one left", []bool{true}, 0, false, pipeline.RolledBack},
		{"nor of what came behind it", []bool{true, false}, 0, false, pipeline.RolledBack},
		{"some of it left", []bool{true}, 1, false, pipeline.InDoubt},
		{"something before it had left", []bool{false}, 0, false, pipeline.InDoubt},
		{"encrypted, some may have left", []bool{true}, 0, true, pipeline.InDoubt},
	} {
		b := backend{secure: tt.secure, cause: io.EOF}
		for _, first := range tt.first {
			b.unwritten(tt.wrote, first)
		}
		if got := b.certain(alone).Outcome; got != tt.want {
			t.Errorf("%s: %v, want %v", tt.says, got, tt.want)
		}
		if b.orderly() != (len(tt.first) == 0) {
			t.Errorf("%s: the end that is read counts as orderly: %v", tt.says, b.orderly())
		}
	}
}

func TestWhatAnEndProves(t *testing.T) {
	reset, farewell := syscall.ECONNRESET, wire.Fatalf(wire.CodeAdminShutdown, "bye")
	for _, tt := range []struct {
		says   string
		cause  error
		broken bool
		want   bool
	}{
		{"it went", io.EOF, false, true},
		{"it said so", farewell, false, true},
		{"it said so, and did not take the last", farewell, true, true},
		{"a write met the reset, and the reading an end", io.EOF, true, false},
		{"it was reset", reset, false, false},
		{"an error that is not its last", wire.Errorf(wire.CodeProtocolViolation, "no"), false, false},
	} {
		b := &backend{cause: tt.cause, broken: tt.broken}
		if got := b.orderly(); got != tt.want {
			t.Errorf("%s: orderly %v", tt.says, got)
		}
		if why := b.nameless(question{asked: true}); (why == "") != tt.want {
			t.Errorf("%s: nobody can be asked, because %q", tt.says, why)
		}
		if b.nameless(question{asked: true, known: true}) != "" || b.nameless(question{}) == "" {
			t.Errorf("%s: what has a name can be asked about, and what was not asked for has none", tt.says)
		}
	}
}

// reset is a connection that was reset behind what the peer had said.
type reset struct {
	sink
	said []byte
}

func (*reset) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func (r *reset) Read(b []byte) (int, error) {
	n := copy(b, r.said)
	if r.said = r.said[n:]; n == 0 {
		return 0, syscall.ECONNRESET
	}
	return n, nil
}

// kept is a connection that keeps what it was sent.
type kept struct {
	sink
	got []byte
}

func (k *kept) Write(b []byte) (int, error) {
	k.got = append(k.got, b...)
	return len(b), nil
}

// What a server had answered before it was gone is told, also where that is met by
// writing to it.
func TestTheLastWordsOfAServerAreHeard(t *testing.T) {
	c, b := pair(t, ModeSession)
	answer := wire.AppendReady(wire.AppendString(nil, wire.CommandComplete, "COMMIT"), wire.TxIdle)
	client := &kept{}
	b.conn, c.conn = &reset{said: answer}, client
	loops, err := relay.New(1)
	if err != nil {
		t.Fatal(err)
	}
	b.loop = loops.Next()
	b.pipe.Send(pipeline.Sent{Kind: pipeline.Query, Class: statement.Commit})
	c.in = buffers.Get().(*[]byte)
	c.w = copy(*c.in, wire.AppendString(nil, wire.Query, "SELECT 1"))
	if err := c.process(); err != nil {
		t.Fatal(err)
	}
	loops.Close() // once its inbox is empty
	if !bytes.Equal(client.got, answer) {
		t.Errorf("the client was told %q", client.got)
	}
	if !errors.Is(b.cause, syscall.ECONNRESET) || b.pipe.Depth() != 1 {
		t.Errorf("the end is %v, %d unanswered", b.cause, b.pipe.Depth())
	}
}

// The question is nobody's business: no answer of a client's changes with it.
func TestTheQuestionIsNotSeen(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			pg.Exec(t, "test1", "DROP TABLE IF EXISTS unseen", "CREATE TABLE unseen (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)", "GRANT ALL ON unseen TO test1",
				"DROP SEQUENCE IF EXISTS unseen_s", "CREATE SEQUENCE unseen_s", "GRANT ALL ON unseen_s TO test1")
			p := certain(t, mode)
			c := p.raw(t)
			for _, tt := range []struct{ say, want string }{
				{"COMMIT", "C:COMMIT Z:I"}, // outside a transaction: a warning
				{"BEGIN", "C:BEGIN Z:T"},
				{"COMMIT", "C:COMMIT Z:I"},
				{"BEGIN; INSERT INTO unseen VALUES (1)", "C:BEGIN C:INSERT 0 1 Z:T"},
				{"END WORK", "C:COMMIT Z:I"},
				{"BEGIN; INSERT INTO unseen VALUES (1)", "C:BEGIN C:INSERT 0 1 Z:T"},
				{"COMMIT", "ERROR:23505 Z:I"},
				{"BEGIN", "C:BEGIN Z:T"},
				{"SELECT 1/0", "T ERROR:22012 Z:E"},
				{"COMMIT", "C:ROLLBACK Z:I"},
				{"BEGIN", "C:BEGIN Z:T"},
				{"COMMIT AND CHAIN", "C:COMMIT Z:T"},
				{"COMMIT", "C:COMMIT Z:I"},
				{"SELECT 5", "T D:5 C:SELECT 1 Z:I"},
			} {
				got := c.ask(tt.say)
				if tt.say == "SELECT 1/0" {
					got, tt.want = strings.TrimPrefix(got, "T "), strings.TrimPrefix(tt.want, "T ")
				}
				expect(t, tt.say, got, tt.want)
			}
			for range 2 {
				c.send(&pgproto3.Parse{Query: "BEGIN"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
				expect(t, "extended begin", c.story(1), "1 2 C:BEGIN Z:T")
				c.send(&pgproto3.Parse{Query: "COMMIT"}, &pgproto3.Describe{ObjectType: 'S'}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
				expect(t, "extended commit", c.story(1), "1 t n 2 C:COMMIT Z:I")
				expect(t, "discard", c.ask("DISCARD ALL"), "C:DISCARD ALL Z:I")
			}
			c.send(query("BEGIN"), query("SELECT 1"), query("COMMIT"), query("SELECT 2"))
			expect(t, "piped", c.story(4), "C:BEGIN Z:T T D:1 C:SELECT 1 Z:T C:COMMIT Z:I T D:2 C:SELECT 1 Z:I")
			for range 2 { // the second COMMIT waits, for the first has shown that a function writes
				c.send(query("BEGIN"), query("SELECT nextval('unseen_s')"), query("COMMIT"), query("BEGIN"), query("SELECT 1/0"), query("COMMIT"))
				if got := c.story(6); !strings.Contains(got, "C:COMMIT Z:I C:BEGIN Z:T") || !strings.HasSuffix(got, "ERROR:22012 Z:E C:ROLLBACK Z:I") {
					t.Error(got)
				}
			}
		})
	}
}

func TestTheAnswerIsRead(t *testing.T) {
	row := func(fields ...string) []byte {
		b := []byte{0, byte(len(fields))}
		for _, f := range fields {
			if f == "NULL" {
				b = append(b, 0xff, 0xff, 0xff, 0xff)
				continue
			}
			b = append(append(b, 0, 0, 0, byte(len(f))), f...)
		}
		return b
	}
	for _, tt := range []struct {
		row   []byte
		known bool
		xid   uint64
	}{
		{row("734", "0/4457670"), true, 734},
		{row("4294968030", "A/1"), true, 4294968030},
		{row("NULL", "0/1"), true, 0},
		{row("734", "NULL"), false, 734},
		{row("x", "0/1"), false, 0},
		{row("734"), false, 0},
		{row("734", "0/1")[:9], false, 0},
		{nil, false, 0},
	} {
		var q question
		q.learn(tt.row)
		if q.known != tt.known || q.known && q.xid != tt.xid {
			t.Errorf("%q: %+v, want known %v, id %d", tt.row, q, tt.known, tt.xid)
		}
	}
}
