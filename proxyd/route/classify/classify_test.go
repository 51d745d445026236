package classify

import (
	"strings"
	"testing"
)

// fake is a catalog in which what is listed is not harmless and the rest is.
type fake map[string]string

func (fake) Unready() string                        { return "" }
func (f fake) Function(schema, name string) string  { return f["function "+qualified(schema, name)] }
func (f fake) Relation(schema, name string) string  { return f["relation "+qualified(schema, name)] }
func (f fake) Operator(schema, name string) string  { return f["operator "+qualified(schema, name)] }
func (f fake) Type(schema, name string) string      { return f["type "+qualified(schema, name)] }
func (f fake) Attribute(name string) string         { return f["attribute "+name] }
func qualified(schema, name string) (joined string) { return strings.TrimPrefix(schema+"."+name, ".") }

var world = fake{
	"function nextval":            "calls nextval, which is volatile",
	"function pg_catalog.nextval": "calls nextval, which is volatile",
	"function set_config":         "calls set_config, which is volatile",
	"function pg_notify":          "calls pg_notify, which is volatile",
	"function pg_advisory_lock":   "calls pg_advisory_lock, which is volatile",
	"function audit":              "calls audit, which is volatile",
	"relation audited":            "reads audited, which calls audit, which is volatile",
	"relation fast":               "reads fast, which is unlogged",
	"operator <<<":                "uses <<<, which calls audit, which is volatile",
	"operator =":                  "",
	"type checked":                "casts to checked, which calls audit, which is volatile",
	"attribute audit":             "calls audit, which is volatile",
}

func TestClassify(t *testing.T) {
	c := New(1 << 20)
	c.Use(world)
	r := c.Reader()
	for _, story := range []struct {
		text   string
		kind   Kind
		reason string
	}{
		// Plain reads.
		{"", Read, ""},
		{"-- a comment\n ; /* and /* nested */ another */ ;", Read, ""},
		{"SELECT 1", Read, ""},
		{"select abalance from pgbench_accounts where aid = 12345;", Read, ""},
		{"/*+ hint */ (SELECT 1) UNION ALL (SELECT 2) ORDER BY 1 LIMIT 3", Read, ""},
		{"VALUES (1, 'a'), (2, 'b')", Read, ""},
		{"TABLE accounts", Read, ""},
		{"SELECT count(*) FILTER (WHERE a > 1), sum(x) OVER (PARTITION BY y ORDER BY z) FROM t GROUP BY GROUPING SETS ((a), ())", Read, ""},
		{"SELECT a[1:2], (b).c, ROW(1,2), ARRAY[1,2], CASE a WHEN 1 THEN 2 ELSE 3 END, coalesce(a, b), greatest(a, b) FROM t, LATERAL f(t.a) WITH ORDINALITY AS g(x, n)", Read, ""},
		{"SELECT current_date, localtimestamp(3), current_user, extract(year FROM now()), 'x'::text COLLATE \"C\", interval '1 day', x AT TIME ZONE 'UTC' FROM t", Read, ""},
		{"SELECT * FROM t TABLESAMPLE system (10) REPEATABLE (1)", Read, ""},
		{"SELECT xmlelement(name a, b), x.* FROM t, xmltable('/r' PASSING d COLUMNS a int PATH '@a') x", Read, ""},
		{"SELECT json_object('a': b), json_array(1, 2), jt.* FROM t, json_table(j, '$' COLUMNS (a int PATH '$.a')) jt", Read, ""},
		{"SELECT 1 WHERE EXISTS (SELECT 1 FROM t WHERE t.a IN (SELECT b FROM u) AND t.c = ANY ($1))", Read, ""},
		{"SELECT $1, $2::int", Read, ""},
		{"SELECT DISTINCT ON (a) a, b FROM t ORDER BY a USING < NULLS LAST OFFSET 5 FETCH FIRST 10 ROWS WITH TIES", Read, ""},
		{"SELECT 'nextval(''s''); DROP TABLE t', E'\\'; DROP TABLE t; --', $$ nextval('s') $$, $a$ $$ $a$", Read, ""},
		{"SELECT 1; SELECT 2; ", Read, ""},
		{"SELECT 'a'\n  'b'", Read, ""},
		{"SELECT \"nextval\" FROM t", Read, ""},
		{"EXPLAIN (ANALYZE, BUFFERS) SELECT 1", Read, ""},
		{"COPY t TO STDOUT", Read, ""},
		{"COPY (SELECT 1) TO STDOUT WITH (FORMAT csv)", Read, ""},

		// WITH.
		{"WITH a AS (SELECT 1) SELECT * FROM a", Read, ""},
		{"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SEARCH DEPTH FIRST BY i SET o SELECT * FROM n", Read, ""},
		{"WITH a AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM a", Write, "writes in its WITH clause"},
		{"SELECT (WITH a AS (DELETE FROM t RETURNING 1) SELECT 1 FROM a)", Write, "writes in its WITH clause"},
		{"WITH a AS (SELECT 1) UPDATE t SET x = 1", Write, "writes behind its WITH clause"},
		{"WITH a AS (SELECT 1) MERGE INTO t USING a ON true WHEN MATCHED THEN DELETE", Write, "writes behind its WITH clause"},
		{"WITH audited AS (SELECT 1) SELECT * FROM audited", Read, ""},
		{"WITH audited AS (SELECT * FROM audited) SELECT 1", Write, "reads audited, which calls audit, which is volatile"},
		{"SELECT 1 FROM (WITH audited AS (SELECT 1) SELECT 1 FROM audited) x, audited", Write, "reads audited, which calls audit, which is volatile"},
		{"WITH audited AS (SELECT 1) SELECT * FROM public.audited", Read, ""},

		// Row locks, and tables made by SELECT.
		{"SELECT * FROM t FOR UPDATE", Write, "is SELECT ... FOR UPDATE, which locks rows"},
		{"SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED", Write, "is SELECT ... FOR NO KEY UPDATE, which locks rows"},
		{"SELECT * FROM t FOR SHARE OF t NOWAIT", Write, "is SELECT ... FOR SHARE, which locks rows"},
		{"SELECT * FROM t FOR KEY SHARE", Write, "is SELECT ... FOR KEY SHARE, which locks rows"},
		{"SELECT 1 FROM (SELECT * FROM t FOR UPDATE) x", Write, "is SELECT ... FOR UPDATE, which locks rows"},
		{"SELECT 1 WHERE EXISTS (SELECT 1 FROM t FOR SHARE)", Write, "is SELECT ... FOR SHARE, which locks rows"},
		{"SELECT 1 INTO t2", Write, "is SELECT INTO, which makes a table"},
		{"SELECT 1 INTO TEMP t2 FROM t", Write, "is SELECT INTO, which makes a table"},

		// What the catalog says.
		{"SELECT nextval('s')", Write, "calls nextval, which is volatile"},
		{"SELECT NEXTVAL('s')", Write, "calls nextval, which is volatile"},
		{"SELECT pg_catalog.nextval('s')", Write, "calls nextval, which is volatile"},
		{"SELECT mydb.pg_catalog.nextval('s')", Write, "calls nextval, which is volatile"},
		{`SELECT U&"\006Eextval"('s')`, Write, "calls nextval, which is volatile"},
		{`SELECT U & "\006Eextval"('s')`, Read, ""},
		{"SELECT count(*) FILTER (WHERE audit()) FROM t", Write, "calls audit, which is volatile"},
		{"SELECT string_agg(a, ',' ORDER BY audit()) FROM t", Write, "calls audit, which is volatile"},
		{"SELECT 1 FROM t WINDOW w AS (ORDER BY audit())", Write, "calls audit, which is volatile"},
		{"SELECT 1 LIMIT audit()", Write, "calls audit, which is volatile"},
		{"SELECT * FROM ROWS FROM (audit(), g(1))", Write, "calls audit, which is volatile"},
		{"SELECT * FROM t JOIN u ON audit()", Write, "calls audit, which is volatile"},
		{"VALUES (audit())", Write, "calls audit, which is volatile"},
		{"SELECT a.audit FROM a", Write, "calls audit, which is volatile"},
		{"SELECT (f(1)).audit", Write, "calls audit, which is volatile"},
		{"SELECT audit FROM a", Read, ""},
		{"SELECT a[audit()] FROM t", Write, "calls audit, which is volatile"},
		{"SELECT * FROM t TABLESAMPLE bernoulli (audit())", Write, "calls audit, which is volatile"},
		{"SELECT * FROM t TABLESAMPLE tsm_own (1)", Write, "samples a table by a method that is not PostgreSQL's own"},
		{"EXPLAIN SELECT nextval('s')", Write, "calls nextval, which is volatile"},
		{"COPY (SELECT nextval('s')) TO STDOUT", Write, "calls nextval, which is volatile"},
		{"SELECT set_config('a.b', 'c', false)", Write, "calls set_config, which is volatile"},
		{"SELECT pg_notify('a', 'b')", Write, "calls pg_notify, which is volatile"},
		{"SELECT pg_advisory_lock(1)", Write, "calls pg_advisory_lock, which is volatile"},
		{"SELECT * FROM audited", Write, "reads audited, which calls audit, which is volatile"},
		{"TABLE fast", Write, "reads fast, which is unlogged"},
		{"COPY fast TO STDOUT", Write, "reads fast, which is unlogged"},
		{"SELECT 1 <<< 2", Write, "uses <<<, which calls audit, which is volatile"},
		{"SELECT 1 OPERATOR(<<<) 2", Write, "uses <<<, which calls audit, which is volatile"},
		{"SELECT 1 <<< ANY (ARRAY[1])", Write, "uses <<<, which calls audit, which is volatile"},
		{"SELECT ROW(1) <<< ALL (SELECT 1)", Write, "uses <<<, which calls audit, which is volatile"},
		{"SELECT 1 FROM t ORDER BY a USING <<<", Write, "uses <<<, which calls audit, which is volatile"},
		{"SELECT 1::checked", Write, "casts to checked, which calls audit, which is volatile"},
		{"SELECT CAST(1 AS checked[])", Write, "casts to checked, which calls audit, which is volatile"},
		{"SELECT checked '1'", Write, "casts to checked, which calls audit, which is volatile"},
		{"SELECT * FROM f() AS (a checked)", Write, "casts to checked, which calls audit, which is volatile"},
		{"SELECT xmlserialize(content x AS checked)", Write, "casts to checked, which calls audit, which is volatile"},
		{"SELECT * FROM pg_temp.a", Write, "reads a temporary table"},
		{"SELECT * FROM pg_temp_3.a", Write, "reads a temporary table"},

		// Several statements.
		{"SELECT 1; INSERT INTO t VALUES (1)", Write, "has several statements, of which one writes behind its WITH clause"},
		{"SELECT 1; SELECT nextval('s')", Write, "calls nextval, which is volatile"},
		{"BEGIN READ ONLY; SELECT 1; COMMIT", Write, "has several statements, of which one "},
		{"SELECT 1; SET x = 1", Write, "has several statements, of which one is SET, which changes one server session"},
		{"SELECT 1; COMMIT", Write, "has several statements, of which one ends or marks a transaction, and none is open"},

		// Transactions.
		{"BEGIN", Begin, "begins a transaction that was not said to be READ ONLY"},
		{"begin isolation level repeatable read", Begin, "begins a transaction that was not said to be READ ONLY"},
		{"BEGIN READ WRITE", BeginWrite, "begins a transaction READ WRITE"},
		{"BEGIN READ ONLY", BeginRead, ""},
		{"START TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ", BeginRead, ""},
		{"begin transaction read only deferrable", BeginRead, ""},
		{"BEGIN READ ONLY, READ WRITE", BeginWrite, "begins a transaction READ WRITE"},
		{"BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", BeginWrite, "begins a transaction SERIALIZABLE, which a standby refuses"},
		{"COMMIT", Local, "ends or marks a transaction, and none is open"},
		{"END", Local, "ends or marks a transaction, and none is open"},
		{"ROLLBACK AND CHAIN", Local, "ends or marks a transaction, and none is open"},
		{"SAVEPOINT a", Local, "ends or marks a transaction, and none is open"},
		{"ROLLBACK TO a", Local, "ends or marks a transaction, and none is open"},
		{"COMMIT PREPARED 'x'", Write, "is a step of a two-phase commit, which writes"},
		{"SET TRANSACTION READ ONLY", Local, "is SET, which changes one server session"},
		{"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", Local, "is SET, which changes one server session"},

		// One server's or one session's.
		{"SHOW server_version", Local, "is SHOW, whose answer is that of one server"},
		{"SET work_mem = '1GB'", Local, "is SET, which changes one server session"},
		{"RESET ALL", Local, "is SET, which changes one server session"},
		{"PREPARE p AS SELECT 1", Write, "is PREPARE, whose statement one server session holds"},
		{"EXECUTE p(1)", Write, "is EXECUTE, whose statement one server session holds"},
		{"DECLARE c CURSOR WITH HOLD FOR SELECT 1", Write, "is DECLARE, whose cursor one server session holds"},
		{"FETCH 10 FROM c", Write, "is FETCH, whose cursor one server session holds"},
		{"CLOSE c", Write, "is CLOSE, whose cursor one server session holds"},
		{"LISTEN a", Write, "is LISTEN, which a standby refuses"},
		{"DISCARD ALL", Write, "is DISCARD, which works on one server session"},
		{"LOAD 'auto_explain'", Write, "is LOAD, which works on one server session"},

		// Writes.
		{"insert into t values (1)", Write, "is INSERT, which writes"},
		{" UPDATE t SET a = 1", Write, "is UPDATE, which writes"},
		{"/* c */ DELETE FROM t", Write, "is DELETE, which writes"},
		{"MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE", Write, "is MERGE, which writes"},
		{"TRUNCATE t", Write, "is TRUNCATE, which writes"},
		{"COPY t FROM STDIN", Write, "is COPY FROM, which writes"},
		{"COPY t TO '/tmp/x'", Write, "is COPY to a file or a program of the server"},
		{"COPY t TO PROGRAM 'cat'", Write, "is COPY to a file or a program of the server"},
		{"COPY (DELETE FROM t RETURNING 1) TO STDOUT", Write, "is COPY of what is no plain query"},
		{"EXPLAIN ANALYZE INSERT INTO t VALUES (1)", Write, "is EXPLAIN of what is no plain query"},
		{"EXPLAIN ANALYZE EXECUTE p", Write, "is EXPLAIN of what is no plain query"},
		{"EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1", Write, "is EXPLAIN of what is no plain query"},
		{"EXPLAIN ANALYZE SELECT 1 INTO x", Write, "is SELECT INTO, which makes a table"},
		{"DO $$ BEGIN PERFORM 1; END $$", Write, "is DO, which runs code that cannot be looked into"},
		{"CALL p()", Write, "is CALL, which runs code that cannot be looked into"},
		{"LOCK TABLE t", Write, "is LOCK, which locks on the primary alone"},
		{"NOTIFY a", Write, "is NOTIFY, which a standby refuses"},
		{"VACUUM", Write, "is VACUUM, which writes"},
		{"CREATE TEMP TABLE x (a int)", Write, "is CREATE, which changes the schema"},
		{"REFRESH MATERIALIZED VIEW m", Write, "is REFRESH MATERIALIZED VIEW, which writes"},

		// What is not understood.
		{"SELEC 1", Write, "begins with a word that is not known"},
		{"abcdefghijklmnop", Write, "begins with a word that is not known"},
		{"SELECT FROM WHERE", Write, "is not understood by the grammar of PostgreSQL 17"},
		{"SELECT 'not closed", Write, "is written in a way that is not followed"},
		{"SELECT 1 /* not closed", Write, "is written in a way that is not followed"},
		{"SELECT E'a'\n'b\\'", Write, "is written in a way that is not followed"},
		{"SELECT 'a\x00b'", Write, "is written in a way that is not followed"},
		{"SELECT 1 \x01", Write, "is written in a way that is not followed"},
		{"SELECT '\xff'", Read, ""},
		{"SELECT a\xff", Write, "is not understood by the grammar of PostgreSQL 17"},
		{"SELECT \"a\x01\"", Write, "is written in a way that is not followed"},
		{"SELECT '" + strings.Repeat("a", MaxText) + "'", Write, "is longer than 64 KiB, which is not parsed"},
		{"SELECT 1" + strings.Repeat(" + 1", 30000/2), Write, "has more than 2000 words and signs, which is not parsed"},
		{"SELECT 1 WHERE 1 IN (1" + strings.Repeat(",1", 30000) + ")", Read, ""},
	} {
		for range 2 { // parsed, and then from the cache
			v := r.Classify([]byte(story.text), Rules{})
			if v.Kind != story.kind || v.Reason != story.reason {
				t.Errorf("%.200s\n\tgot  %s: %q\n\twant %s: %q", story.text, v.Kind, v.Reason, story.kind, story.reason)
			}
		}
	}
}

// TestDeepTrees: what nests as deeply as MaxWords lets it is parsed, or given
// up, and neither the C stack nor ours ends the process.
func TestDeepTrees(t *testing.T) {
	c := New(1 << 22)
	c.Use(world)
	r := c.Reader()
	for _, shape := range []struct {
		begin, again, middle, close, end string
		words                            int // that one level has
	}{
		{"SELECT 1", " + a", "", "", "", 2},
		{"SELECT ", "(", "1", ")", "", 2},
		{"SELECT ", "f(", "1", ")", "", 3},
		{"SELECT ", "NOT ", "true", "", "", 1},
		{"SELECT ", "- ", "a", "", "", 1},
		{"SELECT a", "::b", "", "", "", 2},
		{"SELECT a", "[1]", "", "", "", 2},
		{"SELECT (a)", ".b", "", "", "", 2},
		{"SELECT ", "(SELECT ", "1", ")", "", 3},
		{"SELECT 1", " UNION SELECT 1", "", "", "", 2},
		{"SELECT 1 FROM a", " CROSS JOIN a", "", "", "", 3},
		{"SELECT ", "CASE WHEN true THEN ", "1", " END", "", 5},
		{"SELECT ", "ARRAY[", "1", "]", "", 3},
		{"", "WITH a AS (", "SELECT 1", ") SELECT 1", "", 7},
		{"SELECT * FROM ", "(SELECT * FROM ", "a", ") b", "", 7},
	} {
		n := (MaxWords - 10) / shape.words
		text := shape.begin + strings.Repeat(shape.again, n) + shape.middle + strings.Repeat(shape.close, n) + shape.end
		v := r.Classify([]byte(text), Rules{})
		t.Logf("%5d levels of %-20q %s %s", n, shape.again+shape.close, v.Kind, v.Reason)
		if len(text) < MaxText && strings.Contains(v.Reason, "words") {
			t.Errorf("%q is not as deep as this test means it to be", shape.again)
		}
	}
}
