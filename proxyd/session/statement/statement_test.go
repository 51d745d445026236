package statement

import (
	"slices"
	"strings"
	"testing"
)

func TestScan(t *testing.T) {
	for _, c := range []struct {
		text   string
		class  Class
		traits Trait
	}{
		{"", Other, 0},
		{"SELECT 1", Other, 0},
		{"select 1;", Other, 0},
		{"/* begin */ -- commit\n select 1", Other, 0},
		{"begin", Begin, 0},
		{"BEGIN ISOLATION LEVEL SERIALIZABLE;", Begin, 0},
		{"start transaction read only", Begin, 0},
		{"begin; update t set a = 1", Begin, 0},
		{"commit", Commit, 0},
		{"/* a */ COMMIT ;", Commit, 0},
		{"end", Commit, 0},
		{"END TRANSACTION", Commit, 0},
		{"prepare transaction 'x'", Commit, 0},
		{"commit prepared 'x'", Other, 0},
		{"rollback prepared 'x'", Other, 0},
		{"COMMIT AND CHAIN", Unknown, 0},
		{"COMMIT AND NO CHAIN", Commit, 0},
		{"ROLLBACK AND CHAIN", Other, 0},
		{"rollback", Rollback, 0},
		{"abort work", Rollback, 0},
		{"rollback to savepoint a", Other, 0},
		{"rollback work to a", Other, 0},
		{"update t set a = 1; commit", Unknown, 0},
		{"select 1; select 2", Other, 0},
		{"insert into t values ('; commit; ')", Other, 0},
		{"do $$ begin commit; end $$", Other, 0},
		{"do $x$ begin $$;commit;$$; end $x$; commit", Unknown, 0},
		{`select E'\'; commit; '`, Other, 0},
		{`select "; commit;"`, Other, 0},
		{"select $1; ", Other, 0},
		{"/* /* nested */ commit; */ select 1", Other, 0},
	} {
		got := Scan([]byte(c.text), true, false)
		if got.Class != c.class || got.Traits != c.traits {
			t.Errorf("%q: class %d traits %b, want %d %b", c.text, got.Class, got.Traits, c.class, c.traits)
		}
	}
}

func TestWhatMayWrite(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "SELECT 1": false, "select * from t where a = 'insert into'": false, "begin; select 1": false, "SHOW all": false,
		"VALUES (1)": false, "FETCH 5 FROM c": false, "DECLARE c CURSOR FOR SELECT 1": false, "SAVEPOINT a": false, "ROLLBACK TO a": false,
		"SET LOCAL a.b = '1'": false, "COMMIT": false, "END": false,
		"INSERT INTO t VALUES (1)": true, "select 1; delete from t": true, "WITH x AS (SELECT 1) SELECT 1": true, "CALL p()": true,
		"DO $$ begin end $$": true, "SELECT 1 INTO t": true, "SELECT * FROM t FOR UPDATE": true, "SELECT * FROM t FOR KEY SHARE": true,
		"EXECUTE a": true, "COPY t FROM STDIN": true, "EXPLAIN ANALYZE DELETE FROM t": true, "CREATE TABLE t ()": true, "TRUNCATE t": true,
	} {
		if got := Scan([]byte(text), true, false).Writes; got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	for text, want := range map[string]bool{"NOTIFY a": true, "select 1; notify a, 'b'": true, "SELECT pg_notify('a', 'b')": true, "SELECT 'notify'": false, "LISTEN notify": false} {
		if got := Scan([]byte(text), true, false).Notifies; got != want {
			t.Errorf("%q notifies: %v", text, got)
		}
	}
	if !Scan([]byte("SELECT 1"), false, false).Writes {
		t.Error("what is not seen whole may write")
	}
}

func TestScanTraits(t *testing.T) {
	for _, c := range []struct {
		text   string
		class  Class
		traits Trait
	}{
		{"listen a", Other, Listen},
		{"select setseed(0.5)", Other, Setting},
		{"prepare a as select 1", Other, Prepare},
		{"declare c cursor with hold for select 1", Other, HoldCursor},
		{"declare c cursor for select 1", Other, 0},
		{"create temp table a (b int)", Other, Temporary},
		{"CREATE LOCAL TEMPORARY TABLE a (b int)", Other, Temporary},
		{"create or replace temp view a as select 1", Other, Temporary},
		{"select 1 into temp x", Other, Temporary},
		{"select temp from weather", Other, 0},
		{"create table pg_temp.a (b int)", Other, Temporary},
		{"select pg_advisory_lock(1)", Other, AdvisoryLock},
		{"select pg_catalog.PG_TRY_ADVISORY_LOCK_SHARED(1)", Other, AdvisoryLock},
		{"select pg_advisory_xact_lock(1)", Other, 0},
		{"load 'auto_explain'", Other, Load},
		{"set search_path = a", Other, Setting},
		{"set session statement_timeout to 5", Other, Setting},
		{"set local search_path = a", Other, 0},
		{"set transaction read only", Other, 0},
		{"set session characteristics as transaction read only", Other, Setting},
		{"set role x", Other, Setting},
		{"SET TIME ZONE 'UTC'", Other, 0},
		{"set names 'utf8'", Other, 0},
		{"set DateStyle = 'ISO'", Other, 0},
		{"set application_name = 'x'", Other, 0},
		{`set "search_path" = a`, Other, Setting},
		{"select set_config('a.b', 'c', false)", Other, Setting},
		{"set application_name = 'x'; set search_path = a", Other, Setting},
		{"(select 1)", Other, 0},
		{";;commit;", Commit, 0},
	} {
		got := Scan([]byte(c.text), true, false)
		if got.Class != c.class || got.Traits != c.traits {
			t.Errorf("%q: class %d traits %b, want %d %b", c.text, got.Class, got.Traits, c.class, c.traits)
		}
	}
}

func TestScanDeallocate(t *testing.T) {
	for _, c := range []struct {
		text, name string
		all        bool
	}{
		{"DEALLOCATE pdo_stmt_00000001", "pdo_stmt_00000001", false},
		{"deallocate prepare Abc;", "abc", false},
		{`deallocate "Abc"`, "Abc", false},
		{"deallocate all", "", true},
		{"discard all", "", true},
		{"discard plans", "", false},
		{"deallocate a; deallocate b", "", false},
	} {
		got := Scan([]byte(c.text), true, false)
		if got.Deallocate != c.name || got.DeallocateAll != c.all {
			t.Errorf("%q: %q %v, want %q %v", c.text, got.Deallocate, got.DeallocateAll, c.name, c.all)
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct{ text, marked string }{
		{"EXECUTE s", "EXECUTE <s>"},
		{"execute S (1, 'EXECUTE x')", "execute <s> (1, 'EXECUTE x')"},
		{`DEALLOCATE "S t"`, `DEALLOCATE <S t>`},
		{"DEALLOCATE PREPARE s;", "DEALLOCATE PREPARE <s>;"},
		{"DEALLOCATE ALL; EXECUTE a; SELECT 1; deallocate b", "DEALLOCATE ALL; EXECUTE <a>; SELECT 1; deallocate <b>"},
		{"EXPLAIN ANALYZE EXECUTE s(1)", "EXPLAIN ANALYZE EXECUTE <s>(1)"},
		{"CREATE TABLE t AS EXECUTE s", "CREATE TABLE t AS EXECUTE <s>"},
		{"GRANT EXECUTE ON FUNCTION f() TO x", ""},
		{"CREATE TRIGGER a AFTER INSERT ON b EXECUTE FUNCTION f()", ""},
		{"DO $$ begin EXECUTE s; end $$", ""},
		{"SELECT 'EXECUTE s' -- EXECUTE s", ""},
	} {
		got, at := "", 0
		for _, n := range Names([]byte(c.text), false) {
			got += c.text[at:n.Start] + "<" + n.Name + ">"
			at = n.End
		}
		if at > 0 {
			got += c.text[at:]
		}
		if got != c.marked || Scan([]byte(c.text), true, false).Names != (at > 0 || strings.Contains(c.text, "ALL")) {
			t.Errorf("%s: %s, and Scan says %v", c.text, got, Scan([]byte(c.text), true, false).Names)
		}
	}
}

func TestScanSet(t *testing.T) {
	for _, c := range []struct{ text, set, reset string }{
		{"SET search_path = a, b", "search_path", ""},
		{"set Session Statement_Timeout to 5;", "statement_timeout", ""},
		{`SET "Strange.Name" = 1`, `"Strange.Name"`, ""},
		{"SET my.app TO 'x; y'", "my.app", ""},
		{"SET LOCAL search_path = a", "", ""},
		{"SET application_name = 'x'", "", ""}, // the server reports it
		{"SET TIME ZONE 'UTC'", "", ""},
		{"SET SCHEMA 'x'", "", ""},
		{"SET ROLE x", "", ""},
		{"SET role = x", "", ""},
		{"SET SESSION AUTHORIZATION x", "", ""},
		{"SET a.b = 1; SET c = 2", "", ""},
		{"RESET search_path", "", "search_path"},
		{"reset ALL;", "", "all"},
		{"RESET my.app", "", "my.app"},
		{"select 'SET a = 1'", "", ""},
	} {
		got := Scan([]byte(c.text), true, false)
		if got.Set != c.set || got.Reset != c.reset {
			t.Errorf("%q: set %q reset %q, want %q %q", c.text, got.Set, got.Reset, c.set, c.reset)
		}
	}
}

func TestWhatIsNotSeenWholeMayCommit(t *testing.T) {
	for _, text := range []string{"begin; insert into t values (", "insert into t values ("} {
		if got := Scan([]byte(text), false, false).Class; got != Unknown {
			t.Errorf("%q cut short: class %d, want Unknown", text, got)
		}
	}
}

func FuzzScan(f *testing.F) {
	for _, s := range []string{"select 1", "begin;commit", "$$", "$a$;$a$", "'", `E'\`, "/*", "--", `"`, "set session", "commit and", "deallocate prepare"} {
		f.Add([]byte(s), true, false)
	}
	f.Fuzz(func(t *testing.T, text []byte, whole, escapes bool) {
		Scan(text, whole, escapes)
	})
}

func TestPreparing(t *testing.T) {
	for _, c := range []struct {
		text, name, written string
		types               []uint32
		body                string
		ok                  bool
	}{
		{"PREPARE s AS SELECT 1", "s", "s", nil, " SELECT 1", true},
		{"prepare /* a ; */ S (int, Double  Precision,varchar) as select $1;\n -- the end", "s", "S", []uint32{23, 701, 1043}, " select $1", true},
		{`PREPARE "S t"(unknown)AS SELECT ';'`, "S t", `"S t"`, []uint32{0}, " SELECT ';'", true},
		{"PREPARE s (int) AS SELECT 1; SELECT 2", "", "", nil, "", false},
		{"PREPARE s (numeric(10, 2)) AS SELECT 1", "", "", nil, "", false},
		{"PREPARE s (int[]) AS SELECT 1", "", "", nil, "", false},
		{"PREPARE s (my_type) AS SELECT 1", "", "", nil, "", false},
		{"PREPARE s (", "", "", nil, "", false},
		{"PREPARE s", "", "", nil, "", false},
		{"PREPARE TRANSACTION 's'", "", "", nil, "", false},
		{"SELECT 1; PREPARE s AS SELECT 1", "", "", nil, "", false},
	} {
		p, ok := Preparing([]byte(c.text), false)
		if ok != c.ok {
			t.Errorf("%q: %v", c.text, ok)
		}
		if ok && (p.Name.Name != c.name || c.text[p.Start:p.End] != c.written || !slices.Equal(p.Types, c.types) || string(p.Text) != c.body) {
			t.Errorf("%q: %+v, %q", c.text, p, p.Text)
		}
	}
}
