package catalog_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/labtest"
	"github.com/pgtandem/pgtandem/proxyd/route/catalog"
	"github.com/pgtandem/pgtandem/proxyd/route/classify"
)

// session is a connection of pgx as the catalog sees one.
type session struct{ conn *pgconn.PgConn }

func (s session) Query(ctx context.Context, sql string, each func([]string) error) error {
	results := s.conn.Exec(ctx, sql)
	for results.NextResult() {
		rows := results.ResultReader()
		for rows.NextRow() {
			row := make([]string, len(rows.Values()))
			for i, v := range rows.Values() {
				row[i] = string(v)
			}
			if err := each(row); err != nil {
				_ = results.Close()
				return err
			}
		}
		if _, err := rows.Close(); err != nil {
			_ = results.Close()
			return err
		}
	}
	return results.Close()
}

func (s session) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx) // a test's connection
}

const world = `
	CREATE SCHEMA other;
	CREATE TABLE plain (id int, name text);
	INSERT INTO plain VALUES (1, 'one');
	CREATE UNLOGGED TABLE fast (id int);
	CREATE TABLE parted (id int) PARTITION BY LIST (id);
	CREATE UNLOGGED TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
	CREATE TABLE whole (id int) PARTITION BY LIST (id);
	CREATE TABLE whole_1 PARTITION OF whole FOR VALUES IN (1);
	CREATE SEQUENCE numbers;
	CREATE FUNCTION pure(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
	CREATE FUNCTION writing(int) RETURNS int LANGUAGE sql AS 'INSERT INTO plain VALUES ($1, NULL) RETURNING id';
	CREATE FUNCTION mixed(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1';
	CREATE FUNCTION mixed(text) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
	CREATE FUNCTION split(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1';
	CREATE FUNCTION other.split(int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT $1';
	CREATE FUNCTION label(plain) RETURNS text LANGUAGE sql VOLATILE AS 'SELECT $1.name';
	CREATE FUNCTION title(plain) RETURNS text LANGUAGE sql STABLE AS 'SELECT $1.name';
	CREATE FUNCTION step(int, int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT $1 + $2';
	CREATE AGGREGATE total(int) (sfunc = step, stype = int);
	CREATE AGGREGATE pure_total(int) (sfunc = int4pl, stype = int);
	CREATE FUNCTION loud(int, int) RETURNS bool LANGUAGE sql VOLATILE AS 'SELECT $1 < $2';
	CREATE OPERATOR <<< (leftarg = int, rightarg = int, function = loud);
	CREATE VIEW simple AS SELECT * FROM plain;
	CREATE VIEW counting AS SELECT nextval('numbers') AS n;
	CREATE VIEW above AS SELECT * FROM (SELECT * FROM counting) c;
	CREATE VIEW shouting AS SELECT * FROM plain WHERE id <<< 3;
	CREATE VIEW fast_view AS SELECT * FROM fast;
	CREATE VIEW summing AS SELECT total(id) FROM plain;
	CREATE MATERIALIZED VIEW kept AS SELECT writing(2) AS w;
	CREATE TABLE guarded (id int);
	CREATE TABLE secrets (id int);
	ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
	CREATE POLICY p ON guarded USING (writing(id) > 0);
	CREATE TABLE fenced (id int);
	ALTER TABLE fenced ENABLE ROW LEVEL SECURITY;
	CREATE POLICY p ON fenced USING (EXISTS (SELECT FROM fast WHERE fast.id = fenced.id));
	CREATE DOMAIN checked AS int CHECK (writing(VALUE) > 0);
	CREATE DOMAIN rechecked AS checked;
	CREATE DOMAIN positive AS int CHECK (VALUE > 0);
	CREATE TYPE pair AS (a int, b checked);
	CREATE TYPE mood AS ENUM ('sad', 'happy');
	CREATE VIEW casting AS SELECT id::checked AS c FROM plain;
	CREATE TYPE colour AS (r int);
	CREATE FUNCTION mix(int) RETURNS colour LANGUAGE sql VOLATILE AS 'SELECT ROW($1)::colour';
	CREATE CAST (int AS colour) WITH FUNCTION mix(int);
	CREATE FOREIGN DATA WRAPPER elsewhere;
	CREATE SERVER away FOREIGN DATA WRAPPER elsewhere;
	CREATE FOREIGN TABLE far (line text) SERVER away;
	CREATE TEMP TABLE mine (id int);
`

var stories = []struct {
	text   string
	reason string // "" for a read
}{
	{"SELECT * FROM plain WHERE id = 1 AND name LIKE 'o%' ORDER BY id", ""},
	{"SELECT count(*), max(id), now(), lower(name), current_setting('work_mem') FROM public.plain GROUP BY name", ""},
	{"SELECT pure(1), split(1) FROM generate_series(1, 3)", "calls split, which is volatile"},
	{"SELECT public.split(1)", ""},
	{"SELECT other.split(1)", "calls split, which is volatile"},
	{"SELECT pure(1)", ""},
	{"SELECT clock_timestamp(), gen_random_uuid(), pg_sleep(0)", ""},
	{"SELECT random()", "calls random, which is volatile"},
	{"SELECT writing(1)", "calls writing, which is volatile"},
	{"SELECT mixed(1)", "calls mixed, which is volatile"},
	{"SELECT nextval('numbers')", "calls nextval, which is volatile"},
	{"SELECT currval('numbers')", "calls currval, which is volatile"},
	{"SELECT pg_advisory_lock(1)", "calls pg_advisory_lock, which is volatile"},
	{"SELECT set_config('a.b', 'c', false)", "calls set_config, which is volatile"},
	{"SELECT pg_notify('a', 'b')", "calls pg_notify, which is volatile"},
	{"SELECT txid_current()", "calls txid_current, which tells of one server or session"},
	{"SELECT pg_backend_pid()", "calls pg_backend_pid, which tells of one server or session"},
	{"SELECT pg_is_in_recovery()", "calls pg_is_in_recovery, which is volatile"},
	{"SELECT no_such_function()", "calls no_such_function, which the catalog does not know"},
	{"SELECT other.pure(1)", "calls pure, which the catalog does not know"},

	{"SELECT total(id) FROM plain", "calls total, which has a volatile part"},
	{"SELECT pure_total(id) OVER (ORDER BY id) FROM plain", ""},
	{"SELECT 1 <<< 2", "uses the operator <<<, which calls loud, which is volatile"},
	{"SELECT plain.label FROM plain", "may call label, which is volatile"},
	{"SELECT p.title, p.id FROM plain p", ""},

	{"TABLE simple", ""},
	{"TABLE whole", ""},
	{"TABLE kept", ""},
	{"TABLE fast", "reads fast, which is unlogged"},
	{"TABLE fast_view", "reads fast_view, which reaches fast, which is unlogged"},
	{"TABLE parted", "reads parted, which reaches parted_1, which is unlogged"},
	{"TABLE counting", "reads counting, which calls nextval, which is volatile"},
	{"TABLE above", "reads above, which reaches counting, which calls nextval, which is volatile"},
	{"TABLE shouting", "reads shouting, which calls loud, which is volatile"},
	{"TABLE summing", "reads summing, which calls total, which has a volatile part"},
	{"TABLE guarded", "reads guarded, which calls writing, which is volatile"},
	{"TABLE fenced", "reads fenced, which reaches fast, which is unlogged"},
	{"TABLE casting", "reads casting, which casts to checked, which has a constraint that calls writing, which is volatile"},
	{"TABLE far", "reads far, which is a foreign table"},
	{"SELECT last_value FROM numbers", "reads numbers, which is a sequence, which runs ahead on a standby"},
	{"TABLE mine", "reads mine, which the catalog does not know"},
	{"TABLE no_such_table", "reads no_such_table, which the catalog does not know"},
	{"TABLE other.plain", "reads plain, which the catalog does not know"},

	{"SELECT 1::checked", "casts to checked, which has a constraint that calls writing, which is volatile"},
	{"SELECT 1::rechecked", "casts to rechecked, which reaches checked, which has a constraint that calls writing, which is volatile"},
	{"SELECT '(1,2)'::pair", "casts to pair, which reaches checked, which has a constraint that calls writing, which is volatile"},
	{"SELECT 1::colour", "casts to colour, which has a cast that calls mix, which is volatile"},
	{"SELECT 1::positive, 'sad'::mood, '{1,2}'::int[], 1.5::numeric(10, 2), '2020-01-01'::date::timestamptz, interval '1 day'", ""},
	{"SELECT 'plain'::regclass, 1::no_such_type", "casts to no_such_type, which the catalog does not know"},

	// What consoles and drivers ask.
	{"SELECT n.nspname, c.relname FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace " +
		"WHERE c.relkind IN ('r','p','') AND n.nspname <> 'pg_catalog' AND n.nspname !~ '^pg_toast' AND pg_catalog.pg_table_is_visible(c.oid) ORDER BY 1,2", ""},
	{"SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'", ""},
	{"SELECT * FROM pg_tables", ""},
	{"SELECT pid FROM pg_stat_activity", "reads pg_stat_activity, which calls pg_stat_get_activity, which tells of one server or session"},
	{"SELECT setting FROM pg_settings", "reads pg_settings, which calls pg_show_all_settings, which tells of one server or session"},
	{"SELECT slot_name FROM pg_replication_slots", "reads pg_replication_slots, which calls pg_get_replication_slots, which tells of one server or session"},
	{"SELECT name FROM pg_available_extensions", "reads pg_available_extensions, which calls pg_available_extensions, which tells of one server or session"},
	{"SELECT lastval()", "calls lastval, which is volatile"},
	{"SELECT count(*) FROM pg_locks", "reads pg_locks, which calls pg_lock_status, which is volatile"},
}

// TestAgainstPostgreSQL reads the catalog of a real pair, judges by it, and
// has the standby itself say whether what was called a read is one.
func TestAgainstPostgreSQL(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	pair := labtest.Up(t, lab.Options{WithoutDaemon: true})
	primary, standby := pair.SQL("pgsql1", "postgres"), pair.SQL("pgsql2", "postgres")
	if _, err := primary.PgConn().Exec(ctx, world).ReadAll(); err != nil {
		t.Fatal(err)
	}
	read := session{pair.SQL("pgsql1", "postgres").PgConn()}

	start := time.Now()
	snapshot, err := catalog.Load(ctx, read)
	if err != nil {
		t.Fatal(err)
	}
	loaded := time.Since(start)
	print, err := catalog.Fingerprint(ctx, read)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("load %v, fingerprint %v", loaded, time.Since(start)-loaded)

	caughtUp(ctx, t, primary, standby)
	c := classify.New(1 << 20)
	c.Use(snapshot)
	r := c.Reader()
	for _, story := range stories {
		v := r.Classify([]byte(story.text), classify.Rules{})
		if v.Reason != story.reason || v.Standby() != (story.reason == "") {
			t.Errorf("%s\n\tgot  %s: %q\n\twant %q", story.text, v.Kind, v.Reason, story.reason)
		}
		if !v.Standby() {
			continue
		}
		if _, err := standby.PgConn().Exec(ctx, story.text).ReadAll(); err != nil {
			t.Errorf("%s: called a read, and the standby says: %v", story.text, err)
		}
	}

	t.Run("all of PostgreSQL's own", func(t *testing.T) { everything(ctx, t, primary, standby, r) })
	t.Run("the fingerprint", func(t *testing.T) { fingerprint(ctx, t, primary, read, print) })
	t.Run("SERIALIZABLE by default", func(t *testing.T) { serializable(ctx, t, primary, read) })
	t.Run("an implicit cast", func(t *testing.T) {
		if _, err := primary.PgConn().Exec(ctx, `CREATE FUNCTION loud_id(plain) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT $1.id';
			CREATE CAST (plain AS int) WITH FUNCTION loud_id(plain) AS IMPLICIT`).ReadAll(); err != nil {
			t.Fatal(err)
		}
		snapshot, err := catalog.Load(ctx, read)
		if err != nil {
			t.Fatal(err)
		}
		const want = "may use the implicit cast from public.plain to integer, which calls loud_id, which is volatile"
		if got := snapshot.Unready(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// serializable: that of another database is nothing to this one.
func serializable(ctx context.Context, t *testing.T, primary *pgx.Conn, read session) {
	for _, step := range []struct{ sql, part string }{
		{"ALTER DATABASE test1 SET default_transaction_isolation = 'serializable'", ""},
		{"ALTER DATABASE postgres SET default_transaction_isolation = 'serializable'", "SERIALIZABLE by a default"},
		{"ALTER DATABASE postgres RESET default_transaction_isolation", ""},
		{"ALTER ROLE test1 SET default_transaction_isolation = 'serializable'", "SERIALIZABLE by a default"},
		{"ALTER ROLE test1 RESET default_transaction_isolation", ""},
	} {
		if _, err := primary.Exec(ctx, step.sql); err != nil {
			t.Fatalf("%s: %v", step.sql, err)
		}
		snapshot, err := catalog.Load(ctx, read)
		if err != nil {
			t.Fatal(err)
		}
		if got := snapshot.Unready(); !strings.Contains(got, step.part) || step.part == "" && got != "" {
			t.Errorf("after %s: %q, want %q", step.sql, got, step.part)
		}
	}
}

// everything has the standby run whatever came with PostgreSQL, can be called
// without arguments and is called a read: what the primary can do, it can.
func everything(ctx context.Context, t *testing.T, primary, standby *pgx.Conn, r *classify.Reader) {
	rows, err := primary.Query(ctx, `
		SELECT format('SELECT * FROM %I.%I LIMIT 1', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname IN ('pg_catalog', 'information_schema') AND c.relkind IN ('r', 'v')
		UNION ALL SELECT format('SELECT %I.%I()', n.nspname, p.proname) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
		WHERE n.nspname IN ('pg_catalog', 'information_schema') AND p.pronargs = 0 AND p.prokind = 'f'`)
	if err != nil {
		t.Fatal(err)
	}
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	reads := 0
	for _, text := range texts {
		if v := r.Classify([]byte(text), classify.Rules{}); !v.Standby() {
			continue
		}
		reads++
		if _, refused := standby.PgConn().Exec(ctx, text).ReadAll(); refused != nil {
			if _, err := primary.PgConn().Exec(ctx, text).ReadAll(); err == nil {
				t.Errorf("%s: called a read, and the standby says: %v", text, refused)
			}
		}
	}
	t.Logf("%d of %d are reads", reads, len(texts))
	if reads < len(texts)/4 {
		t.Error("too few to prove anything")
	}
}

// fingerprint holds that whatever changes what Load reads changes it, and that
// what passes all day does not.
func fingerprint(ctx context.Context, t *testing.T, primary *pgx.Conn, read session, before string) {
	for _, step := range []struct {
		sql     string
		changes bool
	}{
		{"INSERT INTO plain VALUES (7, 'x')", false},
		{"CREATE TEMP TABLE passing (id int)", false},
		{"ANALYZE plain", false},
		{"CREATE INDEX ON plain (id)", false},
		{"ALTER FUNCTION pure(int) VOLATILE", true},
		{"ALTER TABLE plain SET UNLOGGED", true},
		{"CREATE OR REPLACE VIEW simple AS SELECT id, name FROM plain WHERE writing(id) > 0", true},
		{"CREATE TABLE fresh (id int)", true},
		{"ALTER TABLE fresh RENAME TO stale", true},
		{"ALTER TABLE stale SET SCHEMA other", true},
		{"CREATE POLICY q ON plain USING (writing(id) > 0)", true},
		{"CREATE DOMAIN odd AS int", true},
		{"ALTER DOMAIN odd ADD CHECK (writing(VALUE) > 0)", true},
		{"ALTER SCHEMA other RENAME TO another", true},
		{"DROP FUNCTION mixed(text)", true},
		{"ALTER DATABASE test1 SET default_transaction_isolation = 'serializable'", true},
	} {
		if _, err := primary.Exec(ctx, step.sql); err != nil {
			t.Fatalf("%s: %v", step.sql, err)
		}
		after, err := catalog.Fingerprint(ctx, read)
		if err != nil {
			t.Fatal(err)
		}
		if (after != before) != step.changes {
			t.Errorf("%s: changed is %v\n\t%s\n\t%s", step.sql, after != before, before, after)
		}
		before = after
	}
}

// caughtUp waits until the standby has replayed what the primary has now.
func caughtUp(ctx context.Context, t *testing.T, primary, standby *pgx.Conn) {
	t.Helper()
	var lsn string
	if err := primary.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&lsn); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var there bool
		if err := standby.QueryRow(ctx, "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", lsn).Scan(&there); err != nil {
			t.Fatal(err)
		}
		if there {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the standby has not replayed %s: %v", lsn, ctx.Err())
		}
	}
}

func TestASessionThatFails(t *testing.T) {
	_, err := catalog.Load(context.Background(), broken{})
	if err == nil || !strings.Contains(err.Error(), "read the catalog") {
		t.Errorf("%v", err)
	}
}

type broken struct{}

func (broken) Query(context.Context, string, func([]string) error) error {
	return context.DeadlineExceeded
}
func (broken) Close() {}
