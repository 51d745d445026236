package admin

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// said is what an error tells: its SQLSTATE, and all of its words.
func said(err error) (code, words string) {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code, e.Message + "\n" + e.Detail + "\n" + e.Hint
	}
	if err != nil {
		return "?", err.Error()
	}
	return "", ""
}

// TestCommands: who may give what, and what is said of it.
func TestCommands(t *testing.T) {
	for _, c := range []struct {
		who, sql string
		code     string // SQLSTATE, "" for success
		words    string // in the message, detail or hint, or in a notice
		did      string
	}{
		{"alice", "PAUSE", "", "", "pause "},
		{"alice", "pause shop;", "", "", "pause shop"},
		{"alice", "PAUSE \"Shop \"\"1\"\"\"", "", "no client has used a database \"Shop \"1\"\" yet", "pause Shop \"1\""},
		{"alice", "PAUSE -- all of them\n;", "", "", "pause "},
		{"alice", "/* why? /* nested */ */ RESUME night", "", "", "resume night"},
		{"alice", "RESUME shop", "55000", "not paused", ""},
		{"alice", "DISABLE shop", "", "", "disable shop"},
		{"alice", "ENABLE shop", "", "", "enable shop"},
		{"alice", "RECONNECT", "", "", "reconnect "},
		{"alice", "RECONNECT shop", "", "", "reconnect shop"},
		{"alice", "WAIT_CLOSE shop", "", "", "wait_close shop"},
		{"alice", "KILL shop", "", "", "kill shop"},
		{"alice", "KILL_CLIENT 3", "", "", "kill_client"},
		{"alice", "KILL_CLIENT 99", "42704", "SHOW CLIENTS", "kill_client"},
		{"alice", "KILL_CLIENT all", "22023", "column id of SHOW CLIENTS", ""},
		{"alice", "KILL_CLIENT", "42601", "column id of SHOW CLIENTS", ""},
		{"alice", "DISABLE", "42601", "SHOW DATABASES", ""},
		{"alice", "PAUSE shop now", "42601", "does not take \"now\"", ""},
		{"alice", "PAUSE pgbouncer", "0A000", "not for the console itself", ""},
		{"alice", "RELOAD", "", "applied: proxy.max_clients", "reload by alice"},
		{"alice", "RELOAD", "", "needs a restart of proxyd: proxy.port", "reload by alice"},
		{"alice", "RELOAD shop", "42601", "", ""},
		{"alice", "SHUTDOWN", "0A000", "systemctl stop proxyd", ""},
		{"alice", "SHUTDOWN WAIT_FOR_CLIENTS", "0A000", "systemctl stop proxyd", ""},
		{"alice", "SUSPEND", "0A000", "PAUSE", ""},
		{"alice", "SHOW FDS", "0A000", "SHOW SOCKETS", ""},
		{"alice", "SET max_client_conn = 5", "0A000", "RELOAD", ""},
		{"alice", "FROBNICATE", "42601", "There are DISABLE database, ENABLE database, KILL [database]", ""},
		{"alice", "SHOW FROBS", "42704", "SHOW with ACTIVE_SOCKETS, CLIENTS, CONFIG", ""},
		{"alice", "\"PAUSE\"", "42601", "unknown command", ""},
		{"alice", "PAUSE 'shop", "42601", "unterminated", ""},

		{"bob", "SHOW POOLS", "", "", ""},
		{"bob", "SHOW pool_nodes", "", "", ""},
		{"bob", "PAUSE", "42501", "proxy.admin_users", ""},
		{"bob", "RESUME night", "42501", "stats_users", ""},
		{"bob", "DISABLE shop", "42501", "", ""},
		{"bob", "ENABLE shop", "42501", "", ""},
		{"bob", "RECONNECT", "42501", "", ""},
		{"bob", "WAIT_CLOSE", "42501", "", ""},
		{"bob", "KILL shop", "42501", "", ""},
		{"bob", "KILL_CLIENT 3", "42501", "", ""}, // CVE-2026-6667
		{"bob", "RELOAD", "42501", "", ""},

		// What drivers say by themselves.
		{"bob", "SELECT 1", "", "", ""},
		{"bob", "-- ping", "", "", ""},
		{"bob", "", "", "", ""},
		{"bob", "SET client_encoding TO 'UTF8'", "", "", ""},
		{"bob", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "", "", ""},
		{"bob", "SHOW TRANSACTION ISOLATION LEVEL", "", "", ""},
		{"bob", "DISCARD ALL", "", "", ""},
		{"bob", "SELECT pg_catalog.version()", "42601", "SHOW HELP", ""},
	} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeDescribeExec} {
			t.Run(c.who+" "+c.sql, func(t *testing.T) {
				l := listen(t)
				var notices string
				conn := l.connect(t, c.who, "")
				conn.Config().OnNotice = nil
				config := conn.Config()
				config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices += n.Message + "\n" }
				conn, err := pgx.ConnectConfig(t.Context(), config)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close(context.Background()) //nolint:errcheck // a test's connection
				_, err = conn.Exec(t.Context(), c.sql, mode)
				code, words := said(err)
				if code != c.code || !strings.Contains(words+notices, c.words) {
					t.Errorf("%s %s\n%s, want %s %q", code, words, notices, c.code, c.words)
				}
				if did := strings.Join(l.done(), ", "); did != c.did {
					t.Errorf("did %q, want %q", did, c.did)
				}
				if err := conn.Ping(t.Context()); err != nil {
					t.Errorf("the session is not alive afterwards: %v", err)
				}
			})
		}
	}
}

// TestEveryChangeIsForAdmins holds the rule for commands that are yet to come.
func TestEveryChangeIsForAdmins(t *testing.T) {
	c := New(Options{})
	for _, cmd := range commands() {
		text := cmd.word
		if cmd.arg == database || cmd.arg == clientID {
			text += " 1"
		}
		list, err := c.prepare(text)
		if err != nil || len(list) != 1 || list[0].needs != administrator || !list[0].audit {
			t.Errorf("%s: %+v, %v", text, list, err)
		}
	}
}

func TestChangesAreAudited(t *testing.T) {
	l := listen(t)
	for _, c := range []struct{ who, sql string }{{"alice", "PAUSE shop"}, {"bob", "KILL_CLIENT 3"}, {"bob", "SHOW POOLS"}, {"alice", "RESUME shop"}} {
		l.connect(t, c.who, "").Exec(t.Context(), c.sql) //nolint:errcheck // what it gives is not the question
	}
	want := []string{"ali PAUSE shop: accepted", "bob KILL_CLIENT 3: refused", "ali RESUME shop: refused"}
	if !slices.Equal(l.audited, want) {
		t.Errorf("audited %q, want %q", l.audited, want)
	}
}

func TestWhoIsNotNamedIsRefused(t *testing.T) {
	l := listen(t)
	_, err := pgx.Connect(t.Context(), "host=127.0.0.1 port="+l.addr[len("127.0.0.1:"):]+" sslmode=disable dbname=pgbouncer user=mallory")
	if code, words := said(err); code != "42501" || !strings.Contains(words, "proxy.admin_users or proxy.stats_users") {
		t.Errorf("%s %s", code, words)
	}
}

// TestRightsAreThoseOfTheConfigurationInForce: an administrator who is one no
// more loses the right in a session that is open.
func TestRightsAreThoseOfTheConfigurationInForce(t *testing.T) {
	l := listen(t)
	conn := l.connect(t, "alice", "")
	if _, err := conn.Exec(t.Context(), "PAUSE shop"); err != nil {
		t.Fatal(err)
	}
	set := func(r Rights) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.rights = r
	}
	set(Rights{Stats: []string{"alice"}})
	if _, err := conn.Exec(t.Context(), "PAUSE shop"); codeOf(err) != "42501" {
		t.Errorf("PAUSE: %v", err)
	}
	if _, err := conn.Exec(t.Context(), "SHOW POOLS"); err != nil {
		t.Errorf("SHOW: %v", err)
	}
	set(Rights{})
	if _, err := conn.Exec(t.Context(), "SHOW POOLS"); codeOf(err) != "42501" {
		t.Errorf("SHOW: %v", err)
	}
}

func codeOf(err error) string { code, _ := said(err); return code }

func TestABadFileIsToldOf(t *testing.T) {
	l := listen(t)
	l.reload = errBadFile
	_, err := l.connect(t, "alice", "").Exec(t.Context(), "RELOAD")
	if code, words := said(err); code != "F0000" || !strings.Contains(words, errBadFile.Error()) || !strings.Contains(words, "--check-config") {
		t.Errorf("%s %s", code, words)
	}
}

// TestAPauseThatIsCalledOff: in each way that a command which waits can be
// ended, the plane is told, and the client hears why.
func TestAPauseThatIsCalledOff(t *testing.T) {
	for _, c := range []struct {
		how, more string
		before    string
		act       func(l *listener, conn *pgx.Conn)
		code      string // SQLSTATE, "" where the client has gone
		words     string
	}{
		{"a cancel request", "", "", func(_ *listener, conn *pgx.Conn) { conn.PgConn().CancelRequest(context.Background()) }, //nolint:errcheck // seen below
			"57014", "user request"},
		{"SET statement_timeout", "", "SET statement_timeout = '30ms'", nil, "57014", "statement timeout"},
		{"a statement_timeout of the login", "statement_timeout=30ms", "", nil, "57014", "statement timeout"},
		{"PGOPTIONS", "options='-c statement_timeout=30'", "", nil, "57014", "SET statement_timeout = 0"},
		{"the proxy stops", "", "", func(l *listener, _ *pgx.Conn) { l.stop() }, "57P01", "The proxy is stopping."},
		{"the client is killed", "", "", func(_ *listener, conn *pgx.Conn) { conn.PgConn().Conn().Close() }, "?", ""},
	} {
		t.Run(c.how, func(t *testing.T) {
			l := listen(t)
			conn := l.connect(t, "alice", c.more)
			if c.before != "" {
				if _, err := conn.Exec(t.Context(), c.before); err != nil {
					t.Fatal(err)
				}
			}
			failed := make(chan error, 1)
			go func() {
				_, err := conn.Exec(context.Background(), "PAUSE busy")
				failed <- err
			}()
			await(t, "the pause", l.pausing)
			if c.act != nil {
				c.act(l, conn)
			}
			select {
			case err := <-failed:
				if code, words := said(err); code != c.code || !strings.Contains(words, c.words) {
					t.Errorf("%s %s", code, words)
				}
			case <-time.After(patience):
				t.Fatal("PAUSE waits on")
			}
			if c.code == "57014" {
				if _, err := conn.Exec(t.Context(), "SHOW POOLS"); err != nil {
					t.Errorf("afterwards: %v", err)
				}
				return
			}
			select {
			case err := <-l.ended:
				t.Logf("the visit ended: %v", err)
			case <-time.After(patience):
				t.Fatal("the visit does not end")
			}
			if did := l.done(); !slices.Contains(did, "pause taken back") {
				t.Errorf("did %q", did)
			}
		})
	}
}

func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("%s does not come", what)
	}
}

// TestBlocks: a driver that opens a transaction of its own accord sees one.
func TestBlocks(t *testing.T) {
	l := listen(t)
	conn := l.connect(t, "alice", "")
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if conn.PgConn().TxStatus() != 'T' {
		t.Errorf("status %c", conn.PgConn().TxStatus())
	}
	if _, err := tx.Exec(t.Context(), "SHOW NONSENSE"); codeOf(err) != "42704" {
		t.Error(err)
	}
	if _, err := tx.Exec(t.Context(), "SHOW POOLS"); codeOf(err) != "25P02" {
		t.Error(err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
	if conn.PgConn().TxStatus() != 'I' {
		t.Errorf("status %c", conn.PgConn().TxStatus())
	}
}
