package session

import (
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgtandem/pgtandem/proxyd/session/internal/pgtest"
)

// step is what a client sends in one packet, and how much it reads then: up to
// so many ReadyForQuery, or so many messages.
type step struct {
	send    []pgproto3.FrontendMessage
	ready   int
	answers int
}

// upTo reads up to n ReadyForQuery, or to where the server begins a COPY.
func upTo(n int, msgs ...pgproto3.FrontendMessage) step { return step{send: msgs, ready: n} }

// just reads n messages.
func just(n int, msgs ...pgproto3.FrontendMessage) step { return step{send: msgs, answers: n} }

func prep(name, text string) *pgproto3.Parse {
	return &pgproto3.Parse{Name: name, Query: text}
}

func bind(statement string, params ...string) *pgproto3.Bind {
	b := &pgproto3.Bind{PreparedStatement: statement}
	for _, p := range params {
		b.Parameters = append(b.Parameters, []byte(p))
	}
	return b
}

// at is the same for a portal with a name.
func at(portal string, b *pgproto3.Bind) *pgproto3.Bind {
	b.DestinationPortal = portal
	return b
}

func perform(portal string, rows uint32) *pgproto3.Execute {
	return &pgproto3.Execute{Portal: portal, MaxRows: rows}
}

func describe(what byte, name string) *pgproto3.Describe {
	return &pgproto3.Describe{ObjectType: what, Name: name}
}

func shut(what byte, name string) *pgproto3.Close {
	return &pgproto3.Close{ObjectType: what, Name: name}
}

const textlen = 1257 // the function's oid: length in characters

func copied(text string) *pgproto3.CopyData { return &pgproto3.CopyData{Data: []byte(text)} }

// once runs a statement in the extended protocol, without Sync.
func once(text string, params ...string) []pgproto3.FrontendMessage {
	return []pgproto3.FrontendMessage{prep("", text), bind("", params...), perform("", 0)}
}

// chain joins messages and lists of them.
func chain(parts ...any) (out []pgproto3.FrontendMessage) {
	for _, p := range parts {
		switch p := p.(type) {
		case pgproto3.FrontendMessage:
			out = append(out, p)
		case []pgproto3.FrontendMessage:
			out = append(out, p...)
		}
	}
	return out
}

var (
	endSync  = &pgproto3.Sync{}
	flushing = &pgproto3.Flush{}
	copyDone = &pgproto3.CopyDone{}
)

// A client that tells the server the same story through the proxy as direct
// hears the same answers, message by message.
func TestEveryStoryIsAnsweredAsWithoutTheProxy(t *testing.T) {
	session, transaction := startProxy(t, ModeSession), startProxy(t, ModeTransaction, func(o *Options) { o.Limits.PoolSize = 2 })
	direct := "host=127.0.0.1 port=" + strconv.Itoa(pg.Port) + " user=" + pgtest.User + " password=" + pgtest.Password + " dbname=" + pgtest.Database + " sslmode=disable"
	for _, s := range stories {
		t.Run(s.name, func(t *testing.T) {
			want := tell(t, direct, s.steps)
			if s.expects != "" && !strings.Contains(want, s.expects) {
				t.Errorf("direct: %q does not show %q: the story is not about what it says", want, s.expects)
			}
			expect(t, "session mode", tell(t, session.dsn(""), s.steps), want)
			if !s.session {
				expect(t, "transaction mode", tell(t, transaction.dsn(""), s.steps), want)
				if s.name == keptByTheServer {
					return
				}
				n := neighbour{raw: transaction.raw(t)}
				expect(t, "transaction mode, beside a neighbour", tell(t, transaction.dsn(""), s.steps, n.stir), want)
				n.close()
			}
		})
	}
}

// keptByTheServer is the one story that needs the same server from one
// transaction to the next and does not get it: what nextval() leaves for
// currval() cannot be carried, and an INSERT that calls it does not show it.
const keptByTheServer = "a sequence's last value"

// neighbour is another client of the same two servers. It leaves in them what
// nobody else may see, and takes the one that was used last, so that whoever
// comes next has the other.
type neighbour struct {
	*raw
	inside bool
}

func (n *neighbour) stir() {
	if n.inside = !n.inside; !n.inside {
		n.ask("COMMIT")
		return
	}
	for _, q := range []string{"SET work_mem = '77kB'", "SET search_path = pg_catalog", "SET DateStyle = 'German'", "PREPARE s AS SELECT 'the neighbour''s'", "BEGIN"} {
		n.ask(q)
	}
	n.send(prep("pdo_stmt_00000001", "SELECT 'the neighbour''s'"), endSync)
	n.story(1)
}

// tell plays a story on an empty table and gives all answers; the last of them
// show that the connection is of use afterwards.
func tell(t *testing.T, dsn string, steps []step, between ...func()) string {
	t.Helper()
	pg.Exec(t, pgtest.Database, "DROP TABLE IF EXISTS told", "SET ROLE test1", "CREATE TABLE told (id int PRIMARY KEY, v text)")
	c := rawTo(t, dsn)
	var words []string
	for _, s := range steps {
		for _, f := range between {
			f()
		}
		c.send(s.send...)
		if s.ready > 0 {
			words = append(words, c.story(s.ready))
		} else if s.answers > 0 {
			words = append(words, c.answers(s.answers))
		}
	}
	if told := strings.Join(words, " "); strings.HasSuffix(told, "EOF") {
		return told
	}
	words = append(words, "|", c.ask("ROLLBACK; SELECT count(*) FROM told"))
	c.close()
	return strings.Join(words, " ")
}

type story struct {
	name    string
	expects string // part of the answers, for the story to be worth telling
	session bool   // only session mode can do it
	steps   []step
}

var stories = append(append(append(extendedStories, copyStories...), transactionStories...), statementStories...)

var extendedStories = []story{
	{"Sync alone, and twice", "Z:I Z:I", false, []step{upTo(2, endSync, endSync)}},
	{"Flush alone says nothing", "", false, []step{upTo(1, flushing, flushing, endSync)}},
	{"answers come with Flush, and ReadyForQuery only with Sync", "1 2 D:7 C:SELECT 1 Z:I", false, []step{
		just(1, prep("", "SELECT 7"), flushing), just(1, bind(""), flushing), just(2, perform("", 0), flushing), upTo(1, endSync)}},
	{"LISTEN is answered before Sync without a ReadyForQuery", "1 2 C:LISTEN Z:I", false, []step{
		just(3, chain(once("LISTEN told"), flushing)...), upTo(1, endSync), upTo(1, query("NOTIFY told, 'hello'")), upTo(1, query("UNLISTEN told"))}},
	{"an empty statement", "1 2 I Z:I", false, []step{upTo(1, chain(once(""), endSync)...), upTo(1, query(" ; "))}},
	{"a simple query between an error and Sync is ignored", "ERROR:22012 Z:I T D:8", false, []step{
		upTo(2, chain(once("SELECT 1/0"), query("SELECT 'ignored'"), endSync, query("SELECT 8"))...)}},
	{"a simple query behind extended ones that have no Sync", "", false, []step{
		upTo(1, chain(once("INSERT INTO told VALUES (1)"), query("SELECT 8"))...), upTo(1, endSync)}},
	{"a pipeline goes on behind the Sync of a failed part", "ERROR:22P02 Z:I 1 2 D:3", false, []step{
		upTo(3, chain(once("SELECT 1"), endSync, once("SELECT 'x'::int"), once("SELECT 2"), endSync, once("SELECT 3"), endSync)...)}},
	{"an error undoes all that its Sync covers", "ERROR:23505 Z:I", false, []step{
		upTo(1, chain(once("INSERT INTO told VALUES (1)"), once("INSERT INTO told VALUES (2)"), once("INSERT INTO told VALUES (1)"), endSync)...),
		upTo(1, query("SELECT count(*) FROM told"))}},
	{"parts with a Sync each commit each", "", false, []step{
		upTo(3, chain(once("INSERT INTO told VALUES (1)"), endSync, once("INSERT INTO told VALUES (1)"), endSync, once("INSERT INTO told VALUES (2)"), endSync)...)}},
	{"a block in one pipeline", "C:BEGIN", false, []step{
		upTo(1, chain(once("BEGIN"), once("INSERT INTO told VALUES (1)"), once("COMMIT"), endSync)...),
		upTo(2, chain(once("BEGIN"), endSync, once("INSERT INTO told VALUES (1)"), once("SELECT 1"), endSync)...)}},
	{"a driver's pipeline: statements are prepared, described, used and closed on the way", "Z:T", false, []step{
		upTo(3, chain(once("BEGIN"), endSync, prep("_pg3_0", "INSERT INTO told VALUES ($1)"), bind("_pg3_0", "1"), describe('P', ""), perform("", 0),
			prep("_pg3_1", "SELECT $1::int + 1"), bind("_pg3_1", "1"), describe('P', ""), perform("", 0), endSync,
			bind("_pg3_0", "1"), perform("", 0), bind("_pg3_1", "5"), perform("", 0), shut('S', "_pg3_0"), endSync)...),
		upTo(2, chain(once("ROLLBACK"), endSync, bind("_pg3_1", "6"), perform("", 0), bind("_pg3_0", "1"), perform("", 0), endSync)...)}},
	{"rows in portions", "D:1 D:2 s Z:T D:3 C:SELECT 1", false, []step{
		upTo(1, query("BEGIN")),
		upTo(1, prep("", "SELECT * FROM generate_series(1, 3)"), at("p", bind("")), describe('P', "p"), perform("p", 2), endSync),
		upTo(1, perform("p", 2), shut('P', "p"), endSync), upTo(1, perform("p", 2), endSync)}},
	{"a portal does not outlive its transaction", "ERROR:34000", false, []step{
		upTo(1, prep("", "SELECT * FROM generate_series(1, 3)"), bind(""), perform("", 2), endSync), upTo(1, perform("", 2), endSync)}},
	{"two portals in turns", "", false, []step{
		upTo(1, query("BEGIN")),
		upTo(1, prep("s", "SELECT * FROM generate_series($1::int, 9)"), at("a", bind("s", "1")), at("b", bind("s", "5")),
			perform("a", 1), perform("b", 1), perform("a", 1), perform("b", 0), perform("a", 0), endSync)}},
	{"what does not exist", "ERROR:26000", false, []step{
		upTo(1, bind("none"), endSync), upTo(1, describe('S', "none"), endSync), upTo(1, describe('P', "none"), endSync),
		upTo(1, perform("none", 0), endSync), upTo(1, shut('S', "none"), shut('P', "none"), endSync)}},
	{"a function call", "V:4 Z:I", false, []step{
		upTo(1, &pgproto3.FunctionCall{Function: textlen, Arguments: [][]byte{[]byte("told")}, ArgFormatCodes: []uint16{0}}),
		upTo(1, &pgproto3.FunctionCall{Function: 1, Arguments: nil}), upTo(1, query("BEGIN")),
		upTo(1, &pgproto3.FunctionCall{Function: textlen, Arguments: [][]byte{[]byte("told")}, ArgFormatCodes: []uint16{0}})}},
	{"several statements in one query", "D:1 C:SELECT 1 T D:2", false, []step{
		upTo(1, query("SELECT 1; SELECT 2; INSERT INTO told VALUES (1)")), upTo(1, query("INSERT INTO told VALUES (2); SELECT 1/0; SELECT 3"))}},
	{"a command without rows is described", "t n", false, []step{
		upTo(1, prep("", "INSERT INTO told VALUES ($1)"), describe('S', ""), bind("", "1"), describe('P', ""), perform("", 0), endSync)}},
	{"parameters of the wrong number", "ERROR:08P01", false, []step{upTo(1, prep("", "SELECT $1::int"), bind(""), perform("", 0), endSync)}},
}

var copyStories = []story{
	{"COPY in", "G C:COPY 2 Z:I", false, []step{upTo(1, query("COPY told FROM STDIN")), upTo(1, copied("1\ta\n"), copied("2\tb\n"), copyDone)}},
	{"COPY in that the client gives up", "ERROR:57014", false, []step{upTo(1, query("COPY told FROM STDIN")), upTo(1, copied("1\ta\n"), &pgproto3.CopyFail{Message: "no"})}},
	{"COPY in that fails on the server while the client still sends", "ERROR:22P02", false, []step{
		upTo(1, query("COPY told FROM STDIN")), upTo(1, copied("x\ta\n"), copied(strings.Repeat("1\ta\n", 50000)), copied("2\tb\n"), copyDone), upTo(1, query("SELECT 1"))}},
	{"COPY in, Flush and Sync on the way mean nothing", "C:COPY 2 Z:I", false, []step{
		upTo(1, chain(once("COPY told FROM STDIN"), flushing)...), upTo(1, copied("1\ta\n"), flushing, copied("2\tb\n"), endSync, flushing, copyDone, endSync)}},
	{"COPY in of a pipeline", "1 2 G", false, []step{
		upTo(1, chain(once("COPY told FROM STDIN"), copied("1\ta\n"), copyDone, endSync)...), upTo(1), upTo(1, query("SELECT 1"))}},
	{"COPY in of a pipeline that fails", "1 2 G ERROR:22P02", false, []step{
		upTo(1, chain(once("COPY told FROM STDIN"), copied("x\ta\n"), copyDone, endSync)...), upTo(1), upTo(1, query("SELECT 1"))}},
	{"COPY in between other statements of a query", "C:COPY 1 T D:2", false, []step{
		upTo(1, query("SELECT 1; COPY told FROM STDIN; SELECT 2")), upTo(1, copied("1\ta\n"), copyDone)}},
	{"COPY in twice in one query", "G C:COPY 1 G", false, []step{
		upTo(1, query("COPY told FROM STDIN; COPY told FROM STDIN")), upTo(1, copied("1\ta\n"), copyDone), upTo(1, copied("2\ta\n"), copyDone)}},
	{"COPY in inside a block", "Z:T", false, []step{
		upTo(1, query("BEGIN")), upTo(1, query("COPY told FROM STDIN")), upTo(1, copied("1\ta\n"), copyDone), upTo(1, query("COMMIT"))}},
	{"COPY in that fails inside a block", "Z:E", false, []step{
		upTo(1, query("BEGIN")), upTo(1, query("COPY told FROM STDIN")), upTo(1, copied("x\n"), copyDone), upTo(1, query("SELECT 1")), upTo(1, query("ROLLBACK"))}},
	{"COPY of nothing", "C:COPY 0", false, []step{upTo(1, query("COPY told FROM STDIN")), upTo(1, copyDone)}},
	{"CopyData, CopyDone and CopyFail without a COPY", "", false, []step{
		upTo(1, copied("1\ta\n"), copyDone, &pgproto3.CopyFail{Message: "no"}, query("SELECT 1"))}},
	{"another message instead of CopyData", "ERROR:08P01", false, []step{
		upTo(1, query("COPY told FROM STDIN")), upTo(2, query("SELECT 1"))}},
	{"COPY out", "H d:1 d:2 d:3 c C:COPY 3", false, []step{
		upTo(1, query("COPY (SELECT * FROM generate_series(1, 3)) TO STDOUT")), upTo(1, chain(once("COPY (SELECT * FROM generate_series(1, 3)) TO STDOUT"), endSync)...)}},
	{"COPY out that fails on the way", "d:1 ERROR:22012", false, []step{
		upTo(1, query("COPY (SELECT 1/(2-g) FROM generate_series(1, 3) g) TO STDOUT")),
		upTo(2, chain(once("COPY (SELECT 1/(2-g) FROM generate_series(1, 3) g) TO STDOUT"), endSync, query("SELECT 1"))...)}},
	{"COPY out and in of one query", "C:COPY 1 G", false, []step{
		upTo(1, query("COPY (SELECT 1) TO STDOUT; COPY told FROM STDIN")), upTo(1, copied("1\ta\n"), copyDone)}},
}

var transactionStories = []story{
	{"an error inside a block", "Z:E ERROR:25P02", false, []step{
		upTo(1, query("BEGIN")), upTo(1, query("INSERT INTO told VALUES (1)")), upTo(1, query("SELECT 1/0")), upTo(1, query("SELECT 1")), upTo(1, query("COMMIT"))}},
	{"savepoints", "", false, []step{
		upTo(1, query("BEGIN; SAVEPOINT a; INSERT INTO told VALUES (1)")), upTo(1, query("SELECT 1/0")), upTo(1, query("ROLLBACK TO a")), upTo(1, query("INSERT INTO told VALUES (2)")), upTo(1, query("COMMIT"))}},
	{"a COMMIT that fails", "ERROR:23503 Z:I", false, []step{
		upTo(1, query("CREATE TABLE IF NOT EXISTS told_of (id int REFERENCES told DEFERRABLE INITIALLY DEFERRED)")),
		upTo(1, query("BEGIN")), upTo(1, query("INSERT INTO told_of VALUES (1)")), upTo(1, query("COMMIT")), upTo(1, query("DROP TABLE told_of"))}},
	{"a Sync that fails to commit", "ERROR:23503 Z:I", false, []step{
		upTo(1, query("CREATE TABLE IF NOT EXISTS told_of (id int REFERENCES told DEFERRABLE INITIALLY DEFERRED)")),
		upTo(1, chain(once("INSERT INTO told_of VALUES (1)"), endSync)...), upTo(1, query("DROP TABLE told_of"))}},
	{"AND CHAIN", "Z:T", false, []step{
		upTo(1, query("BEGIN ISOLATION LEVEL SERIALIZABLE")), upTo(1, query("INSERT INTO told VALUES (1)")), upTo(1, query("COMMIT AND CHAIN")),
		upTo(1, query("SHOW transaction_isolation")), upTo(1, query("ROLLBACK AND CHAIN")), upTo(1, query("ROLLBACK"))}},
	{"BEGIN and COMMIT where they do nothing", "C:COMMIT Z:I", false, []step{upTo(1, query("COMMIT")), upTo(1, query("BEGIN; BEGIN")), upTo(1, query("ROLLBACK; ROLLBACK"))}},
	{"SET in a transaction that is rolled back", "D:4MB", false, []step{
		upTo(1, query("BEGIN")), upTo(1, query("SET work_mem = '1MB'")), upTo(1, query("ROLLBACK")), upTo(1, query("SHOW work_mem")),
		upTo(1, query("SET work_mem = '2MB'")), upTo(1, query("BEGIN; SET LOCAL work_mem = '3MB'")), upTo(1, query("COMMIT")), upTo(1, query("SHOW work_mem"))}},
	{"a setting in the extended protocol", "D:2MB", false, []step{
		upTo(1, chain(once("SET work_mem = '2MB'"), endSync)...), upTo(1, query("SHOW work_mem")), upTo(1, chain(once("RESET work_mem"), endSync)...), upTo(1, query("SHOW work_mem"))}},
	{"SET ROLE and SESSION AUTHORIZATION", "", false, []step{
		upTo(1, query("SET ROLE test1")), upTo(1, query("SELECT current_user")), upTo(1, query("RESET ROLE")), upTo(1, query("SET SESSION AUTHORIZATION DEFAULT"))}},
	{"a read-only session", "ERROR:25006", false, []step{
		upTo(1, query("SET default_transaction_read_only = on")), upTo(1, query("INSERT INTO told VALUES (1)")),
		upTo(1, query("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")), upTo(1, query("INSERT INTO told VALUES (1)"))}},
	{"what a session keeps", "", false, []step{
		upTo(1, query("CREATE TEMP TABLE kept AS SELECT 1 AS a")), upTo(1, query("SELECT a FROM kept")), upTo(1, query("CREATE SEQUENCE pg_temp.s; SELECT nextval('pg_temp.s')")),
		upTo(1, query("SELECT currval('pg_temp.s')")), upTo(1, query("DECLARE c CURSOR WITH HOLD FOR SELECT 5")), upTo(1, query("FETCH c"))}},
	{"a sequence's last value", "D:1", false, []step{
		upTo(1, query("DROP SEQUENCE IF EXISTS told_seq; CREATE SEQUENCE told_seq")), upTo(1, query("SELECT nextval('told_seq')")), upTo(1, query("SELECT currval('told_seq')")),
		upTo(1, query("SELECT lastval()"))}},
}

var statementStories = []story{
	{"a Parse that fails leaves its name free", "ERROR:42601 Z:I 1 2 D:9", false, []step{
		upTo(1, prep("s", "SELEKT"), endSync), upTo(1, prep("s", "SELECT 9"), bind("s"), perform("", 0), endSync), upTo(1, prep("s", "SELECT 8"), endSync)}},
	{"a name in use, in the middle of a pipeline", "ERROR:42P05", false, []step{
		upTo(2, prep("s", "SELECT 1"), prep("s", "SELECT 2"), bind("s"), perform("", 0), endSync, bind("s"), perform("", 0), endSync)}},
	{"closed and named again at once", "3 1 2 D:2", false, []step{
		upTo(1, prep("s", "SELECT 1"), shut('S', "s"), prep("s", "SELECT 2"), bind("s"), perform("", 0), endSync)}},
	{"DEALLOCATE by a query", "C:DEALLOCATE Z:I ERROR:26000", false, []step{
		upTo(1, prep("pdo_stmt_00000001", "SELECT 1"), endSync), upTo(1, query("DEALLOCATE pdo_stmt_00000001")), upTo(1, bind("pdo_stmt_00000001"), endSync),
		upTo(1, query("DEALLOCATE pdo_stmt_00000001"))}},
	{"DEALLOCATE in the extended protocol", "C:DEALLOCATE Z:I ERROR:26000", false, []step{
		upTo(1, prep("s", "SELECT 1"), endSync), upTo(1, chain(once("DEALLOCATE PREPARE s"), endSync)...), upTo(1, bind("s"), endSync)}},
	{"DEALLOCATE among others in a query", "", false, []step{
		upTo(1, prep("s", "SELECT 1"), endSync), upTo(1, query("SELECT 1; DEALLOCATE s; SELECT 2")), upTo(1, bind("s"), endSync)}},
	{"a DEALLOCATE that is skipped or refused takes nothing", "ERROR:25P02", false, []step{
		upTo(1, prep("s", "SELECT 5"), endSync), upTo(1, chain(once("SELECT 1/0"), once("DEALLOCATE s"), endSync)...),
		upTo(1, query("BEGIN")), upTo(1, query("SELECT 1/0")), upTo(1, query("DEALLOCATE s")), upTo(1, query("ROLLBACK")),
		upTo(1, bind("s"), perform("", 0), endSync)}},
	{"EXECUTE inside other statements", "C:SELECT 1 Z:I", false, []step{
		upTo(1, prep("s", "SELECT 1 AS a"), endSync), upTo(1, query("CREATE TEMP TABLE executed AS EXECUTE s; SELECT a FROM executed")),
		upTo(1, query(`EXECUTE "s"; SELECT 'EXECUTE s', $$EXECUTE s$$ -- EXECUTE s`)), upTo(1, chain(once("EXPLAIN (COSTS off) EXECUTE s"), endSync)...)}},
	{"DEALLOCATE ALL", "ERROR:26000", false, []step{
		upTo(1, prep("s", "SELECT 1"), endSync), upTo(1, query("DEALLOCATE ALL")), upTo(1, bind("s"), endSync), upTo(1, prep("s", "SELECT 2"), bind("s"), perform("", 0), endSync)}},
	{"DEALLOCATE ALL, and statements behind it at once", "C:DEALLOCATE ALL Z:I 1 Z:I", false, []step{
		upTo(1, prep("s", "SELECT 1"), prep("u", "SELECT 3"), endSync), upTo(4, query("DEALLOCATE ALL"), prep("v", "SELECT 5"), endSync, query("PREPARE t AS SELECT 6"), query("EXECUTE t")),
		upTo(1, bind("v"), perform("", 0), endSync), upTo(1, query("EXECUTE t")), upTo(1, bind("u"), endSync)}},
	{"DISCARD ALL in the extended protocol", "ERROR:26000", false, []step{
		upTo(1, prep("s", "SELECT 1"), endSync), upTo(1, chain(once("DISCARD ALL"), endSync)...), upTo(1, bind("s"), endSync)}},
	{"EXECUTE of what the protocol has prepared", "D:5", false, []step{
		upTo(1, prep("s", "SELECT $1::int"), endSync), upTo(1, query("EXECUTE s (5)")), upTo(1, chain(once("EXECUTE s (6)"), endSync)...)}},
	{"PREPARE and EXECUTE", "D:7 C:SELECT 1", false, []step{
		upTo(1, query("PREPARE s (int, text) AS SELECT $1 + length($2);")), upTo(1, query("EXECUTE s (4, 'abc')")), upTo(1, query("EXPLAIN (COSTS OFF) EXECUTE s (1, '')")),
		upTo(1, query("SELECT 1; EXECUTE s (5, 'ab'); SELECT 2")), upTo(1, query("DEALLOCATE s")), upTo(1, query("EXECUTE s (1, '')"))}},
	{"a PREPARE outlives its transaction", "C:ROLLBACK Z:I T D:1", false, []step{
		upTo(1, query("BEGIN")), upTo(1, query("PREPARE s AS SELECT 1")), upTo(1, query("ROLLBACK")), upTo(1, query("EXECUTE s")), upTo(1, query("EXECUTE s"))}},
	{"so does a DEALLOCATE", "C:ROLLBACK Z:I ERROR:26000", false, []step{
		upTo(1, query("PREPARE s AS SELECT 1")), upTo(1, query("BEGIN")), upTo(1, query("DEALLOCATE s")), upTo(1, query("ROLLBACK")), upTo(1, query("EXECUTE s"))}},
	{"a PREPARE that fails takes no name", "ERROR:42703 Z:I C:PREPARE Z:I", false, []step{
		upTo(1, query("PREPARE s AS SELECT nothing")), upTo(1, query("PREPARE s AS SELECT 1")), upTo(1, query("EXECUTE s")),
		upTo(1, query("PREPARE s AS SELECT 2")), upTo(1, query("EXECUTE s"))}},
	{"a PREPARE in a failed transaction takes no name", "ERROR:25P02", false, []step{
		upTo(1, query("BEGIN")), upTo(1, query("SELECT 1/0")), upTo(1, query("PREPARE s AS SELECT 1")), upTo(1, query("ROLLBACK")),
		upTo(1, query("EXECUTE s")), upTo(1, query("PREPARE s AS SELECT 2")), upTo(1, query("EXECUTE s"))}},
	{"PREPARE among others", "D:5", false, []step{upTo(1, query("SELECT 1; PREPARE s AS SELECT 5")), upTo(1, query("EXECUTE s")), upTo(1, query("DEALLOCATE ALL")), upTo(1, query("EXECUTE s"))}},
	{"PREPARE with types of one's own", "D:told", false, []step{
		upTo(1, query("PREPARE s (regclass) AS SELECT $1")), upTo(1, query("EXECUTE s ('told')")), upTo(1, query("DISCARD ALL")), upTo(1, query("EXECUTE s ('told')"))}},
	{"PREPARE and what the protocol has prepared", "ERROR:42P05", false, []step{
		upTo(1, prep("s", "SELECT 1"), endSync), upTo(1, query("PREPARE s AS SELECT 2")), upTo(1, query("EXECUTE s")),
		upTo(1, query("BEGIN")), upTo(1, query("PREPARE s AS SELECT 2")), upTo(1, query("ROLLBACK"))}},
	{"EXECUTE of what cannot be prepared any more", "ERROR:42P01 Z:E", false, []step{
		upTo(1, query("PREPARE s AS SELECT * FROM told")), upTo(1, query("DROP TABLE told")), upTo(1, query("EXECUTE s")),
		upTo(1, query("BEGIN")), upTo(1, query("EXECUTE s")), upTo(1, query("ROLLBACK")), upTo(1, query("CREATE TABLE told (id int PRIMARY KEY, v text)")), upTo(1, query("EXECUTE s"))}},
	{"the protocol uses what PREPARE has prepared", "D:5", false, []step{
		upTo(1, query("PREPARE s AS SELECT $1::int")), upTo(1, bind("s", "5"), perform("", 0), endSync), upTo(1, query("EXECUTE s (6)")), upTo(1, shut('S', "s"), endSync), upTo(1, query("EXECUTE s (6)"))}},
	{"a statement whose result changes under it", "ERROR:0A000", false, []step{
		upTo(1, prep("s", "SELECT * FROM told"), bind("s"), perform("", 0), endSync), upTo(1, query("DROP TABLE told; CREATE TABLE told (id text)")),
		upTo(1, bind("s"), perform("", 0), endSync), upTo(1, shut('S', "s"), prep("s", "SELECT * FROM told"), bind("s"), perform("", 0), endSync)}},
	{"a failed transaction takes no statement with it", "", false, []step{
		upTo(1, query("BEGIN")), upTo(1, query("SELECT 1/0")), upTo(1, prep("s", "SELECT 1"), endSync), upTo(1, query("ROLLBACK")), upTo(1, bind("s"), endSync),
		upTo(1, prep("s", "SELECT 2"), bind("s"), perform("", 0), endSync)}},
	{"a statement prepared in a transaction that is rolled back stays", "D:1", false, []step{
		upTo(1, query("BEGIN")), upTo(1, prep("s", "SELECT 1"), endSync), upTo(1, query("ROLLBACK")), upTo(1, bind("s"), perform("", 0), endSync)}},
	{"pg_prepared_statements tells the client's own names", "D:s", true, []step{
		upTo(1, prep("s", "SELECT 1"), endSync), upTo(1, query("SELECT name FROM pg_prepared_statements"))}},
}
