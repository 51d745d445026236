package classify

import (
	"strings"
	"testing"
)

func keyOf(text string) (string, bool) {
	l := lexer{text: []byte(text)}
	l.normalize()
	return string(l.key), !l.odd
}

func TestTextsThatDifferInLiteralsHaveOneKey(t *testing.T) {
	for _, same := range [][]string{
		{"SELECT 1", "SELECT 2", "SELECT  99999 -- x", "/* trace=7 */SELECT 0"},
		{"SELECT 1.5", "SELECT .5", "SELECT 1.", "SELECT 1e10", "SELECT 1.5E-3"},
		{"SELECT 'a'", "SELECT ''''", "SELECT E'\\''", "SELECT $$a$$", "SELECT $x$ $$ $x$", "SELECT U&'a'", "SELECT N'a'", "SELECT 'a'\n'b'"},
		{"SELECT b'1'", "SELECT X'ff'"},
		{"SELECT a FROM t WHERE b IN (1, 2)", "SELECT a FROM t WHERE b IN (1,2,3,4,5)"},
		{"SELECT a FROM t WHERE b IN ($1, $2)", "SELECT a FROM t WHERE b IN ($1,$2,$3)"},
	} {
		want, _ := keyOf(same[0])
		for _, text := range same[1:] {
			if got, ok := keyOf(text); got != want || !ok {
				t.Errorf("%q has the key %q, and %q has %q", text, got, same[0], want)
			}
		}
	}
}

func TestTextsThatDifferInMoreHaveKeysOfTheirOwn(t *testing.T) {
	seen := map[string]string{}
	for _, text := range []string{
		"SELECT 1", "SELECT 1.0", "SELECT '1'", "SELECT b'1'", "SELECT $1", "SELECT a", `SELECT "1"`, "SELECT 1a", "SELECT 0x1", "SELECT 1_0",
		"SELECT 1, 2", "SELECT 1, '2'", "SELECT a, b", "SELECT a, a, a", "SELECT a, a", "SELECT (1), (2)",
		"SELECT E 'a'", "SELECT a.b", "SELECT a b", `SELECT U&"a"`, `SELECT U & "a"`, `SELECT "a"" "`, `SELECT "a" " "`,
		"SELECT 1 + - 2", "SELECT 1 +- 2",
	} {
		key, ok := keyOf(text)
		if !ok {
			t.Errorf("%q is odd", text)
		}
		if other, taken := seen[key]; taken {
			t.Errorf("%q and %q have one key: %q", text, other, key)
		}
		seen[key] = text
	}
}

// TestUtilityKeepsItsLiterals: what SET and BEGIN do lies in them.
func TestUtilityKeepsItsLiterals(t *testing.T) {
	keys := map[string]bool{}
	for _, text := range []string{"SET a = 1", "SET a = 2", "SET a = 'x'", "SET a = $$x$$"} {
		l := lexer{text: []byte(text), literals: true}
		l.normalize()
		keys[string(l.key)] = true
	}
	if len(keys) != 4 {
		t.Errorf("4 texts have %d keys", len(keys))
	}
}

var seeds = []string{
	"SELECT 1", "SELECT 'a''b', E'c\\'d', $$e$$, $f$g$f$, U&'h' UESCAPE '!', b'1', x'f', N'i'",
	"SELECT a.b, \"c\"\"d\", U&\"e\" FROM t -- x\n WHERE a<>-1 AND b::int >= 1.5e3 /* y /* z */ */",
	"SELECT 'a'\n'b'", "SELECT E'a'\n'b\\''", "SELECT b'1'''", "SELECT 1$a$b$a$", "SELECT $1$a$b$a$", "SELECT foo$bar$baz",
	"SELECT 1..2, 1.e5, 1e, 0x1F, 1_000, 12abc, .5.5, 1.a", "SELECT a/*b*/-/**/-1 -- -", "SELECT 1+--2\n3", "SELECT a*/**/b",
	"WITH RECURSIVE a AS (SELECT 1) SELECT nextval('s') FROM a FOR UPDATE", "BEGIN READ ONLY", "SET a TO 'b'",
	"COPY (SELECT 1) TO STDOUT", "EXPLAIN ANALYZE SELECT 1", "VALUES (1,2,3),(4,5,6)", "select $1,$2,$3, 'é' as \"ü\"", "SELECT 'a' 'b'", "SELECT :a, a:b, a::-1, a:--b\n",
}

// FuzzClassify holds what a key gives to what the text itself gives: a text
// goes to a standby by another's verdict only where it would by its own, or
// where it is no SQL at all.
func FuzzClassify(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	for s := range leads {
		f.Add(s + " a")
	}
	c := New(1 << 20)
	c.Use(world)
	f.Fuzz(func(t *testing.T, text string) {
		r := c.Reader()
		v := r.Classify([]byte(text), Rules{})
		if v.Kind != Read && v.Kind != BeginRead && v.Reason == "" {
			t.Errorf("%q is a %s, and nobody knows why", text, v.Kind)
		}
		if again := r.Classify([]byte(text), Rules{}); again != v {
			t.Errorf("%q is %+v, and then %+v", text, v, again)
		}
		if !v.Standby() || len(text) > MaxText {
			return
		}
		own := look(text).against(world)
		if !own.Standby() && !strings.HasPrefix(own.Reason, "is not understood") {
			t.Errorf("%q is a %s by its key and a %s (%s) by itself", text, v.Kind, own.Kind, own.Reason)
		}
	})
}
