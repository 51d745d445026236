package classify

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

func TestAHitAllocatesNothing(t *testing.T) {
	c := New(1 << 20)
	c.Use(world)
	r := c.Reader()
	text := []byte("SELECT abalance FROM pgbench_accounts WHERE aid = 12345 AND b IN ('a', 'b', 'c');")
	r.Classify(text, Rules{})
	if n := testing.AllocsPerRun(100, func() {
		if v, known := r.Lookup(text, Rules{}); !known || !v.Standby() {
			t.Fatalf("%+v, %v", v, known)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a hit", n)
	}
}

func TestTheCacheStaysWithinItsBytes(t *testing.T) {
	const limit = 1 << 20
	c := New(limit)
	c.Use(world)
	r := c.Reader()
	favourite := []byte("SELECT favourite")
	r.Classify(favourite, Rules{})
	for i := range 20000 {
		name := fmt.Sprintf("c%d", i)
		key := []byte("SELECT " + name + strings.Repeat(" ", i%10))
		now := c.now.Load()
		l := lexer{text: key}
		l.normalize()
		c.cache.keep(l.key, facts{verdict: Verdict{Kind: Read}, refs: []ref{{relation, "", name}}}, Verdict{Kind: Read}, now)
		if _, known := r.Lookup(favourite, Rules{}); !known {
			t.Fatalf("what is used all the time was dropped after %d others", i)
		}
	}
	texts, bytes := c.Usage()
	if bytes > limit || bytes < limit/2 || texts < 1000 {
		t.Errorf("%d texts take %d of %d bytes", texts, bytes, limit)
	}
	if _, known := r.Lookup([]byte("SELECT c0"), Rules{}); known {
		t.Error("what was used least recently is still there")
	}
	c.cache.keep([]byte(strings.Repeat("x", limit)), facts{}, Verdict{}, c.now.Load())
	if after, _ := c.Usage(); after != texts {
		t.Errorf("a key larger than the cache drove out %d others", texts-after)
	}
}

// TestANewCatalogJudgesAnew: nothing is parsed again for it.
func TestANewCatalogJudgesAnew(t *testing.T) {
	c := New(1 << 20)
	r := c.Reader()
	text := []byte("SELECT audit()")
	check := func(when, reason string) {
		t.Helper()
		if v, known := r.Lookup(text, Rules{}); !known || v.Reason != reason {
			t.Errorf("%s: %+v, known %v; want %q", when, v, known, reason)
		}
	}
	r.Classify(text, Rules{})
	check("before there is a catalog", "came before the catalog was read")
	c.Use(fake{})
	check("audit is stable", "")
	c.Use(world)
	check("audit has become volatile", "calls audit, which is volatile")
	c.Use(fake{})
	check("audit is stable again", "")
}

func TestAStampChangesWithTheCatalog(t *testing.T) {
	c := New(1 << 20)
	before := c.Stamp()
	if before != c.Stamp() {
		t.Error("it changes by itself")
	}
	c.Use(world)
	if before == c.Stamp() {
		t.Error("it does not change with the catalog")
	}
}

func TestNothingGoesToAStandbyWithoutACatalog(t *testing.T) {
	r := New(1 << 20).Reader()
	for text, kind := range map[string]Kind{"SELECT 1": Write, "BEGIN READ ONLY": BeginWrite, "SHOW port": Local} {
		if v := r.Classify([]byte(text), Rules{}); v.Kind != kind || v.Reason == "" {
			t.Errorf("%s: %+v", text, v)
		}
	}
}

func TestRules(t *testing.T) {
	c := New(1 << 20)
	c.Use(world)
	r := c.Reader()
	for _, story := range []struct {
		text  string
		rules Rules
		kind  Kind
	}{
		{`SELECT 'a\'`, Rules{}, Read},
		{`SELECT 'a\'`, Rules{Backslashes: true}, Write},
		{`SELECT 'a'`, Rules{Backslashes: true}, Read},
		{"SELECT 'ä'", Rules{}, Read},
		{"SELECT 'ä'", Rules{Encoding: true}, Write},
		{"SELECT 'a'", Rules{Encoding: true}, Read},
	} {
		if v := r.Classify([]byte(story.text), story.rules); v.Kind != story.kind {
			t.Errorf("%s under %+v: %+v, want a %s", story.text, story.rules, v, story.kind)
		}
	}
}

func TestSchemaChangesAreTold(t *testing.T) {
	r := New(1 << 20).Reader()
	for text, want := range map[string]bool{
		"CREATE TABLE a (b int)": true, "ALTER TABLE a ADD b int": true, "DROP VIEW a": true, "SELECT 1 INTO a": true,
		"CREATE TEMP TABLE a (b int)": false, "create local temporary table a (b int)": false, "INSERT INTO a VALUES (1)": false,
		"CREATE temperature": true, "SELECT 1": false, "import foreign schema a from server b into c": true,
		"INSERT INTO a VALUES (1); CREATE TABLE b (c int)": true, "INSERT INTO a VALUES ('; CREATE TABLE b'); ": false,
		"BEGIN; INSERT INTO a VALUES (1); /* x */ DROP TABLE b; COMMIT": true, "SELECT 1; SELECT 2; alter table a add b int": true,
		"UPDATE a SET b = $$; DROP TABLE b;$$; SELECT 1": false, "BEGIN; CREATE TEMP TABLE a (b int)": false,
		"EXPLAIN ANALYZE CREATE TABLE a AS SELECT 1": true, "COMMIT PREPARED 'a'": true, "SELECT a FROM b; SELECT 1 INTO c": true,
	} {
		if v := r.Classify([]byte(text), Rules{}); v.Schema != want {
			t.Errorf("%s: %v", text, v.Schema)
		}
	}
}

func TestAnd(t *testing.T) {
	read, local := Verdict{Kind: Read}, Verdict{Kind: Local, Reason: "local"}
	write, ddl := Verdict{Kind: Write, Reason: "write"}, Verdict{Kind: Write, Schema: true, Reason: "ddl"}
	for _, story := range []struct{ a, b, want Verdict }{
		{read, read, read},
		{read, local, local},
		{local, read, local},
		{local, write, write},
		{write, local, write},
		{write, ddl, Verdict{Kind: Write, Schema: true, Reason: "write"}},
		{ddl, read, ddl},
		{Verdict{Kind: BeginRead}, read, Verdict{Kind: BeginRead}},
		{Verdict{Kind: BeginRead}, local, Verdict{Kind: BeginRead}},
		{Verdict{Kind: BeginRead}, write, write},
		{local, Verdict{Kind: BeginRead}, local},
	} {
		if got := story.a.And(story.b); got != story.want {
			t.Errorf("%+v and %+v is %+v, want %+v", story.a, story.b, got, story.want)
		}
	}
}

func TestManyReadersAtOnce(t *testing.T) {
	c := New(1 << 18)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			r := c.Reader()
			for j := range 300 {
				if j%50 == i {
					c.Use(world)
				}
				text := fmt.Appendf(nil, "SELECT c%d FROM audited", (i+j)%40)
				if v := r.Classify(text, Rules{}); v.Standby() {
					t.Errorf("%s: %+v", text, v)
				}
			}
		})
	}
	all.Wait()
}

func BenchmarkHit(b *testing.B) {
	for name, text := range benchTexts {
		b.Run(name, func(b *testing.B) {
			c := New(1 << 20)
			c.Use(world)
			r := c.Reader()
			bytes := []byte(text)
			r.Classify(bytes, Rules{})
			b.ReportAllocs()
			for b.Loop() {
				r.Lookup(bytes, Rules{})
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	for name, text := range benchTexts {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l := lexer{text: []byte(text)}
				l.normalize()
				look(example(l.key)).against(world)
			}
		})
	}
}

var benchTexts = map[string]string{
	"write":   "UPDATE pgbench_accounts SET abalance = abalance + -1 WHERE aid = 12345;",
	"pgbench": "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
	"report": "SELECT a.id, b.name, count(*) FROM accounts a JOIN branches b ON a.bid=b.bid LEFT JOIN (SELECT x, max(y) AS m FROM z GROUP BY x) q ON q.x=a.id " +
		"WHERE a.created > now() - interval '1 day' AND b.name LIKE 'foo%' GROUP BY 1,2 HAVING count(*) > 3 ORDER BY 3 DESC LIMIT 10",
	"list of 1000": "SELECT a FROM t WHERE b IN (12345" + strings.Repeat(", 12345", 999) + ")",
}
