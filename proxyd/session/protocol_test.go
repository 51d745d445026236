package session

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

func TestCopyBothWays(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			conn := p.connect(t, "")
			ctx := within(t)
			if _, err := conn.Exec(ctx, "DROP TABLE IF EXISTS copied"); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(ctx, "CREATE TABLE copied (id int PRIMARY KEY, v text)"); err != nil {
				t.Fatal(err)
			}
			const rows = 50000
			n, err := conn.CopyFrom(ctx, pgx.Identifier{"copied"}, []string{"id", "v"},
				pgx.CopyFromSlice(rows, func(i int) ([]any, error) { return []any{i, strings.Repeat("v", i%200)}, nil }))
			if err != nil || n != rows {
				t.Fatalf("%d rows, %v", n, err)
			}
			var out bytes.Buffer
			tag, err := conn.PgConn().CopyTo(ctx, &out, "COPY copied TO STDOUT")
			if err != nil || tag.RowsAffected() != rows || bytes.Count(out.Bytes(), []byte{'\n'}) != rows {
				t.Errorf("%v, %v", tag, err)
			}
			// The server fails in the middle, while the client still sends.
			_, err = conn.CopyFrom(ctx, pgx.Identifier{"copied"}, []string{"id", "v"},
				pgx.CopyFromSlice(rows, func(i int) ([]any, error) { return []any{rows + i/2, "twice"}, nil }))
			expect(t, "a duplicate key", code(err), "23505")
			var count int
			if err := conn.QueryRow(ctx, "SELECT count(*) FROM copied").Scan(&count); err != nil || count != rows {
				t.Errorf("%d rows, %v", count, err)
			}
			eventually(t, "no server is left active", func() bool { return mode == ModeSession || p.Stats().ServersActive == 0 })
		})
	}
}

func TestCopyOfTheExtendedProtocol(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			c := p.raw(t)
			start := func() {
				c.send(&pgproto3.Parse{Query: "COPY table1 FROM STDIN"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
				expect(t, "start", c.story(1), "1 2 G")
			}
			c.ask("DELETE FROM table1")
			// libpq's order: the first Sync is eaten by the COPY.
			start()
			c.send(&pgproto3.CopyData{Data: []byte("1\ta\n")}, &pgproto3.CopyDone{}, &pgproto3.Sync{})
			expect(t, "done", c.story(1), "C:COPY 1 Z:I")
			start()
			c.send(&pgproto3.CopyFail{Message: "no"}, &pgproto3.Sync{})
			expect(t, "the client fails", c.story(1), "ERROR:57014 Z:I")
			start()
			c.send(&pgproto3.CopyData{Data: []byte("not a number\n")}, &pgproto3.CopyData{Data: []byte("1\tb\n")}, &pgproto3.CopyDone{}, &pgproto3.Sync{})
			expect(t, "the server fails", c.story(1), "ERROR:22P02 Z:I")
			expect(t, "and on", c.ask("SELECT count(*) FROM table1"), "T D:1 C:SELECT 1 Z:I")
			// pgx's order would be without the early Sync.
			c.send(&pgproto3.Parse{Query: "COPY table1 FROM STDIN"}, &pgproto3.Bind{}, &pgproto3.Execute{},
				&pgproto3.CopyData{Data: []byte("2\tb\n")}, &pgproto3.CopyDone{}, &pgproto3.Sync{})
			expect(t, "at once", c.story(1), "1 2 G")
			expect(t, "at once, end", c.story(1), "C:COPY 1 Z:I")
			c.ask("DELETE FROM table1")
		})
	}
}

func TestACopyThatFailsBeforeItReads(t *testing.T) {
	pg.Exec(t, "test1", "DROP TABLE IF EXISTS guarded", "CREATE TABLE guarded (id int)", "GRANT ALL ON guarded TO test1",
		`CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$`,
		"CREATE TRIGGER g BEFORE INSERT ON guarded EXECUTE FUNCTION refuse()")
	p := startProxy(t, ModeTransaction)
	c := p.raw(t)
	for range 3 {
		c.send(&pgproto3.Parse{Query: "COPY guarded FROM STDIN"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
		expect(t, "start", c.story(1), "1 2 G")
		expect(t, "fails at once", c.story(1), "ERROR:P0001 Z:I")
		c.send(&pgproto3.CopyData{Data: []byte("1\n")}, &pgproto3.CopyDone{}, &pgproto3.Sync{})
		expect(t, "a late end", c.story(1), "Z:I")
	}
	expect(t, "and on", c.ask("SELECT 1"), "T D:1 C:SELECT 1 Z:I")
}

func TestPipelines(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			c := p.raw(t)
			var msgs []pgproto3.FrontendMessage
			var want []string
			const depth = 200
			for i := range depth {
				msgs = append(msgs, &pgproto3.Parse{Query: "SELECT $1::text"}, &pgproto3.Bind{Parameters: [][]byte{[]byte(fmt.Sprint(i))}}, &pgproto3.Execute{}, &pgproto3.Sync{})
				want = append(want, fmt.Sprintf("1 2 D:%d C:SELECT 1 Z:I", i))
			}
			c.send(msgs...)
			expect(t, "deep", c.story(depth), strings.Join(want, " "))

			c.send(&pgproto3.Parse{Query: "SELECT 1/0"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Parse{Name: "skipped", Query: "SELECT 1"},
				query("SELECT 'ignored'"), &pgproto3.Sync{}, query("SELECT 7"), query("SELECT 8"))
			expect(t, "skip until Sync", c.story(3), "1 ERROR:22012 Z:I T D:7 C:SELECT 1 Z:I T D:8 C:SELECT 1 Z:I")
			c.send(&pgproto3.Bind{PreparedStatement: "skipped"}, &pgproto3.Sync{})
			expect(t, "a skipped Parse made nothing", c.story(1), "ERROR:26000 Z:I")

			c.send(&pgproto3.Parse{Query: "SELECT 1"}, &pgproto3.Flush{})
			c.send(&pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Flush{})
			c.send(&pgproto3.Sync{})
			expect(t, "Flush", c.story(1), "1 2 D:1 C:SELECT 1 Z:I")
			expect(t, "an empty query", c.ask(""), "I Z:I")
			expect(t, "several statements", c.ask("SELECT 1; SELECT 2"), "T D:1 C:SELECT 1 T D:2 C:SELECT 1 Z:I")
			expect(t, "an error in a transaction", c.ask("BEGIN; SELECT 1/0"), "C:BEGIN ERROR:22012 Z:E")
			expect(t, "rollback", c.ask("ROLLBACK"), "C:ROLLBACK Z:I")
		})
	}
}

func TestNamedStatements(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode, func(o *Options) { o.Limits.PoolSize = 3 })
			a, b := p.raw(t), p.raw(t)
			for _, c := range []*raw{a, b} { // the same name for different statements
				text := "SELECT 'a'"
				if c == b {
					text = "SELECT 'b'"
				}
				c.send(&pgproto3.Parse{Name: "s", Query: text}, &pgproto3.Describe{ObjectType: 'S', Name: "s"}, &pgproto3.Sync{})
				expect(t, "prepare", c.story(1), "1 t T Z:I")
			}
			for range 3 {
				for _, c := range []*raw{a, b} {
					want := "2 D:a C:SELECT 1 Z:I"
					if c == b {
						want = "2 D:b C:SELECT 1 Z:I"
					}
					c.send(&pgproto3.Bind{PreparedStatement: "s"}, &pgproto3.Execute{}, &pgproto3.Sync{})
					expect(t, "execute", c.story(1), want)
				}
			}
			a.send(&pgproto3.Parse{Name: "s", Query: "SELECT 2"}, &pgproto3.Sync{})
			expect(t, "a name in use", a.story(1), "ERROR:42P05 Z:I")
			a.send(&pgproto3.Parse{Name: "t", Query: "SELECT 'b'"}, &pgproto3.Bind{PreparedStatement: "t"}, &pgproto3.Execute{}, &pgproto3.Sync{})
			expect(t, "another's text", a.story(1), "1 2 D:b C:SELECT 1 Z:I")
			a.send(&pgproto3.Close{ObjectType: 'S', Name: "s"}, &pgproto3.Sync{})
			expect(t, "close", a.story(1), "3 Z:I")
			a.send(&pgproto3.Bind{PreparedStatement: "s"}, &pgproto3.Execute{}, &pgproto3.Sync{})
			expect(t, "closed", a.story(1), "ERROR:26000 Z:I")
			b.send(&pgproto3.Bind{PreparedStatement: "s"}, &pgproto3.Execute{}, &pgproto3.Sync{})
			expect(t, "the other's stays", b.story(1), "2 D:b C:SELECT 1 Z:I")
			a.send(&pgproto3.Parse{Name: "bad", Query: "SELEKT"}, &pgproto3.Sync{})
			expect(t, "a Parse that fails", a.story(1), "ERROR:42601 Z:I")
			a.send(&pgproto3.Parse{Name: "bad", Query: "SELECT 9"}, &pgproto3.Bind{PreparedStatement: "bad"}, &pgproto3.Execute{}, &pgproto3.Sync{})
			expect(t, "its name is free", a.story(1), "1 2 D:9 C:SELECT 1 Z:I")
			expect(t, "DEALLOCATE", a.ask("DEALLOCATE bad"), "C:DEALLOCATE Z:I")
			a.send(&pgproto3.Bind{PreparedStatement: "bad"}, &pgproto3.Sync{})
			expect(t, "deallocated", a.story(1), "ERROR:26000 Z:I")
			expect(t, "DEALLOCATE ALL", b.ask("DEALLOCATE ALL"), "C:DEALLOCATE ALL Z:I")
			b.send(&pgproto3.Bind{PreparedStatement: "s"}, &pgproto3.Sync{})
			expect(t, "all deallocated", b.story(1), "ERROR:26000 Z:I")
			a.send(&pgproto3.Bind{PreparedStatement: "t"}, &pgproto3.Execute{}, &pgproto3.Sync{})
			expect(t, "but not the first's", a.story(1), "2 D:b C:SELECT 1 Z:I")
		})
	}
}

func TestTheUnnamedStatementOutlivesATransaction(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	a, b := p.raw(t), p.raw(t)
	a.send(&pgproto3.Parse{Query: "SELECT 'a'"}, &pgproto3.Sync{})
	expect(t, "parse", a.story(1), "1 Z:I")
	b.send(&pgproto3.Parse{Query: "SELECT 'b'"}, &pgproto3.Sync{})
	expect(t, "parse", b.story(1), "1 Z:I")
	a.send(&pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
	expect(t, "its own", a.story(1), "2 D:a C:SELECT 1 Z:I")
	a.ask("SELECT 1")
	a.send(&pgproto3.Bind{}, &pgproto3.Sync{})
	expect(t, "a simple query destroys it", a.story(1), "ERROR:26000 Z:I")
}

func TestMoreStatementsThanAServerKeeps(t *testing.T) {
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Limits.PoolSize = 1 })
	c := p.raw(t)
	name := func(i int) string { return fmt.Sprintf("s%d", i) }
	const count = maxServerStmts + 50
	for i := range count {
		c.send(&pgproto3.Parse{Name: name(i), Query: fmt.Sprintf("SELECT %d", i)}, &pgproto3.Sync{})
		expect(t, "parse", c.story(1), "1 Z:I")
	}
	for i := range count {
		c.send(&pgproto3.Bind{PreparedStatement: name(i)}, &pgproto3.Execute{}, &pgproto3.Sync{})
		expect(t, "execute", c.story(1), fmt.Sprintf("2 D:%d C:SELECT 1 Z:I", i))
	}
	var n int
	if err := p.connect(t, "default_query_exec_mode=exec").QueryRow(within(t), "SELECT count(*) FROM pg_prepared_statements").Scan(&n); err != nil || n > maxServerStmts {
		t.Errorf("the server keeps %d statements, %v", n, err)
	}
}

func TestDDLUnderAPreparedStatement(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			conn := p.connect(t, "")
			ctx := within(t)
			for _, q := range []string{"DROP TABLE IF EXISTS changing", "CREATE TABLE changing (a int)", "INSERT INTO changing VALUES (1)"} {
				if _, err := conn.Exec(ctx, q); err != nil {
					t.Fatal(err)
				}
			}
			read := func() error {
				rows, err := conn.Query(ctx, "SELECT * FROM changing")
				if err != nil {
					return err
				}
				rows.Close()
				return rows.Err()
			}
			if err := read(); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(ctx, "ALTER TABLE changing ADD b text"); err != nil {
				t.Fatal(err)
			}
			err := read()
			if err != nil && code(err) != "0A000" {
				t.Errorf("after DDL: %v", err)
			}
			if err := read(); err != nil {
				t.Errorf("after the driver prepared anew: %v", err)
			}
		})
	}
}

func TestSettingsFollowAClient(t *testing.T) {
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Limits.PoolSize = 1 })
	a, b := p.raw(t), p.raw(t)
	a.ask("SET TimeZone = 'Asia/Tokyo'")
	a.ask(`SET application_name = 'it''s \ a'`)
	b.ask("SET DateStyle = 'German'")
	expect(t, "a", a.ask("SHOW TimeZone"), "T D:Asia/Tokyo C:SHOW Z:I")
	expect(t, "b", b.ask("SELECT current_setting('DateStyle')"), "T D:German, DMY C:SELECT 1 Z:I")
	expect(t, "a", a.ask("SHOW application_name"), `T D:it's \ a C:SHOW Z:I`)
	expect(t, "a", a.ask("SELECT current_setting('DateStyle')"), "T D:ISO, MDY C:SELECT 1 Z:I")
	if got := b.ask("SHOW TimeZone"); strings.Contains(got, "Tokyo") {
		t.Errorf("b has a's time zone: %s", got)
	}
}

func TestStartupParameters(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			a := p.connect(t, "application_name=one timezone=Asia/Tokyo options='-c search_path=pg_catalog -c work_mem=1MB'")
			b := p.connect(t, "application_name=two")
			ctx := within(t)
			for range 3 {
				for _, c := range []struct {
					conn             *pgx.Conn
					name, zone, path string
				}{{a, "one", "Asia/Tokyo", "pg_catalog"}, {b, "two", "", `"$user", public`}} {
					var name, zone, path string
					err := c.conn.QueryRow(ctx, "SELECT current_setting('application_name'), current_setting('timezone'), current_setting('search_path')").Scan(&name, &zone, &path)
					if err != nil || name != c.name || c.zone != "" && zone != c.zone || path != c.path {
						t.Errorf("%q %q %q, %v; want %+v", name, zone, path, err, c)
					}
				}
			}
			expect(t, "reported", a.PgConn().ParameterStatus("TimeZone"), "Asia/Tokyo")
			expect(t, "reported", b.PgConn().ParameterStatus("application_name"), "two")
		})
	}
}

func TestNothingIsLeftForTheNextClient(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode, func(o *Options) { o.Limits.PoolSize = 1 })
			first := p.connect(t, "")
			for _, q := range []string{"CREATE TEMP TABLE mine (a int)", "SET work_mem = '123kB'", "LISTEN mine", "SELECT pg_advisory_lock(99)"} {
				if _, err := first.Exec(within(t), q); err != nil {
					t.Fatal(err)
				}
			}
			if mode == ModeTransaction {
				// It is pinned: what it made is there in its next transaction.
				if _, err := first.Exec(within(t), "SELECT * FROM mine"); err != nil {
					t.Errorf("pinned: %v", err)
				}
			}
			first.Close(within(t)) //nolint:errcheck // a test's connection
			next := p.connect(t, "")
			var left int
			err := next.QueryRow(within(t), `SELECT (SELECT count(*) FROM pg_class WHERE relname = 'mine') +
				(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') + (SELECT count(*) FROM pg_listening_channels()) +
				(current_setting('work_mem') = '123kB')::int`).Scan(&left)
			if err != nil || left != 0 {
				t.Errorf("%d things are left, %v", left, err)
			}
		})
	}
}

func TestAClientThatGoesInATransaction(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode, func(o *Options) { o.Limits.PoolSize = 1 })
			first := p.connect(t, "")
			for _, q := range []string{"BEGIN", "INSERT INTO table1 VALUES (777, 'gone')"} {
				if _, err := first.Exec(within(t), q); err != nil {
					t.Fatal(err)
				}
			}
			first.PgConn().Conn().Close()
			var n int
			if err := p.connect(t, "").QueryRow(within(t), "SELECT count(*) FROM table1 WHERE id = 777").Scan(&n); err != nil || n != 0 {
				t.Errorf("%d rows, %v", n, err)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode, func(o *Options) { o.Limits.PoolSize = 1 })
			if mode == ModeSession {
				p.Apply(Limits{Terms: Terms{Mode: mode, PoolSize: 2}, MaxClients: 10})
			}
			conn, other := p.connect(t, ""), p.connect(t, "")
			for range 3 {
				ran := make(chan error, 1)
				go func() {
					_, err := conn.Exec(within(t), "SELECT pg_sleep(60)")
					ran <- err
				}()
				sleeping(t)
				if mode == ModeTransaction {
					if v := p.Clients(); v[0].State != "active" || v[1].State != "idle" {
						t.Errorf("%+v", v)
					}
				}
				if err := conn.PgConn().CancelRequest(within(t)); err != nil {
					t.Fatal(err)
				}
				expect(t, "canceled", code(<-ran), "57014")
				if err := conn.PgConn().CancelRequest(within(t)); err != nil { // nothing runs: it must hit nobody
					t.Fatal(err)
				}
				if _, err := other.Exec(within(t), "SELECT pg_sleep(0.02)"); err != nil {
					t.Errorf("a late cancel hit another client: %v", err)
				}
			}
		})
	}
}

// sleeping waits until a backend is in pg_sleep.
func sleeping(t *testing.T) {
	t.Helper()
	conn, err := pgx.Connect(within(t), pg.URL("test1"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background()) //nolint:errcheck // a test's connection
	eventually(t, "it sleeps", func() bool {
		var n int
		if err := conn.QueryRow(within(t), "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n == 1
	})
}

func TestCancelOfAHeldStatement(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	conn := p.connect(t, "")
	if _, err := p.gate.Close(within(t), "rehearsal", true); err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() {
		_, err := conn.Exec(within(t), "SELECT 1")
		ran <- err
	}()
	eventually(t, "it is held", func() bool { return p.Stats().Held == 1 })
	if err := conn.PgConn().CancelRequest(within(t)); err != nil {
		t.Fatal(err)
	}
	expect(t, "canceled", code(<-ran), "57014")
	p.open(t, 2)
	if _, err := conn.Exec(within(t), "SELECT 1"); err != nil {
		t.Errorf("the session is kept: %v", err)
	}
}

func TestAHeldClientThatHangsUp(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	c := p.raw(t)
	if _, err := p.gate.Close(within(t), "rehearsal", true); err != nil {
		t.Fatal(err)
	}
	c.send(query("SELECT 1"))
	eventually(t, "it is held", func() bool { return p.Stats().Held == 1 })
	conn := p.bare(t)
	if _, err := conn.Write(wire.AppendString(nil, wire.Query, "SELECT 1")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "two are held", func() bool { return p.Stats().Held == 2 })
	conn.Close()
	eventually(t, "one is held", func() bool { return p.Stats().Held == 1 && p.Stats().Clients == 1 })
}

func TestClientsWaitForAServer(t *testing.T) {
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Limits.PoolSize, o.Limits.WaitTimeout = 1, 50*time.Millisecond })
	a, b := p.raw(t), p.raw(t)
	a.ask("BEGIN")
	expect(t, "no server", b.ask("SELECT 1"), "ERROR:53300 Z:I")
	p.Apply(Limits{Terms: Terms{Mode: ModeTransaction, PoolSize: 1}, MaxClients: 10})
	b.send(query("SELECT 2"))
	eventually(t, "it waits", func() bool { return p.Stats().Waiting == 1 })
	a.ask("COMMIT")
	expect(t, "served", b.story(1), "T D:2 C:SELECT 1 Z:I")
}

func TestBigValues(t *testing.T) {
	const size = 100 << 20
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			conn := p.bare(t)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			// One value of 100 MB in, its length out; then it comes back.
			sent := make(chan error, 1)
			go func() { sent <- sendBig(conn, size) }()
			got, err := readAnswer(conn)
			if err != nil || !strings.Contains(got, fmt.Sprint(size)) {
				t.Fatalf("%q, %v", got, err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write(wire.AppendString(nil, wire.Query, "SELECT repeat('y', 104857600)")); err != nil {
				t.Fatal(err)
			}
			if n, err := countAnswer(conn); err != nil || n < size {
				t.Errorf("%d bytes, %v", n, err)
			}
			runtime.ReadMemStats(&after)
			if grown := after.TotalAlloc - before.TotalAlloc; grown > size/2 {
				t.Errorf("%d bytes were allocated to pass %d on", grown, size)
			}
		})
	}
}

// sendBig sends Parse, Bind with one value of that size, Execute and Sync.
func sendBig(w io.Writer, size int) error {
	text := "SELECT length($1::text)\x00\x00\x00"
	head := append([]byte{'P', 0, 0, 0, byte(4 + 1 + len(text)), 0}, text...)
	n := 4 + 2 + 2 + 2 + 4 + size + 2
	head = append(head, 'B', byte(n>>24), byte(n>>16), byte(n>>8), byte(n), 0, 0, 0, 0, 0, 1,
		byte(size>>24), byte(size>>16), byte(size>>8), byte(size))
	if _, err := w.Write(head); err != nil {
		return err
	}
	chunk := bytes.Repeat([]byte{'x'}, 1<<16)
	for left := size; left > 0; left -= len(chunk) {
		if _, err := w.Write(chunk[:min(left, len(chunk))]); err != nil {
			return err
		}
	}
	_, err := w.Write([]byte("\x00\x00E\x00\x00\x00\x09\x00\x00\x00\x00\x00S\x00\x00\x00\x04"))
	return err
}

// readAnswer reads up to a ReadyForQuery.
func readAnswer(r io.Reader) (string, error) {
	var all []byte
	buf := make([]byte, 1<<16)
	for !bytes.HasSuffix(all, []byte("Z\x00\x00\x00\x05I")) {
		n, err := r.Read(buf)
		if err != nil {
			return string(all), err
		}
		all = append(all, buf[:n]...)
	}
	return string(all), nil
}

// countAnswer reads up to a ReadyForQuery and keeps only the end.
func countAnswer(r io.Reader) (int, error) {
	var tail []byte
	total := 0
	buf := make([]byte, 1<<16)
	for !bytes.HasSuffix(tail, []byte("Z\x00\x00\x00\x05I")) {
		n, err := r.Read(buf)
		if err != nil {
			return total, err
		}
		total += n
		tail = append(tail, buf[max(0, n-6):n]...)
		tail = tail[max(0, len(tail)-6):]
	}
	return total, nil
}

func TestShutdown(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	idle, busy := p.raw(t), p.raw(t)
	busy.ask("BEGIN")
	done := make(chan error, 1)
	go func() { done <- p.Shutdown(within(t)) }()
	expect(t, "idle", idle.story(1), "FATAL:57P01 EOF")
	expect(t, "a transaction goes on", busy.ask("SELECT 1"), "T D:1 C:SELECT 1 Z:T")
	busy.send(query("COMMIT"))
	expect(t, "and ends", busy.story(2), "C:COMMIT Z:I FATAL:57P01 EOF")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPsql(t *testing.T) {
	for _, mode := range bothModes {
		p := startProxy(t, mode)
		out, err := psql(t, p.port, "\\d table1\nSELECT 1\\;\n\\copy table1 FROM PROGRAM 'printf \"501\\\\tx\\\\n\"'\nDELETE FROM table1 WHERE id = 501;\n")
		if err != nil || !strings.Contains(out, "DELETE 1") {
			t.Errorf("%s: %v\n%s", mode, err, out)
		}
	}
}
