//go:build cgo

package classify

import (
	"strings"
	"testing"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// FuzzLexer holds the lexer to PostgreSQL's own scanner: both see the same
// literals, and the same text around them.
func FuzzLexer(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 || strings.ContainsRune(text, 0) {
			return
		}
		key, ok := keyOf(text)
		if !ok {
			return
		}
		scanned, err := pg_query.Scan(text)
		if err != nil {
			return
		}
		if want := skeleton(text, scanned); want != squeeze(key) {
			t.Errorf("%q:\n\tthe key is     %q\n\tthe scanner has %q", text, squeeze(key), want)
		}
	})
}

// skeleton is a text's tokens without space, with marks in place of literals.
func skeleton(text string, scanned *pg_query.ScanResult) string {
	var out strings.Builder
	for _, token := range scanned.GetTokens() {
		word := text[token.GetStart():token.GetEnd()]
		switch token.GetToken() {
		case pg_query.Token_SQL_COMMENT, pg_query.Token_C_COMMENT:
		case pg_query.Token_SCONST, pg_query.Token_USCONST, pg_query.Token_BCONST, pg_query.Token_XCONST:
			out.WriteByte('?')
		case pg_query.Token_PARAM, pg_query.Token_ICONST, pg_query.Token_FCONST:
			if strings.ContainsAny(word, "_xXoO") || word[0] == '0' && strings.ContainsAny(word, "bB") {
				out.WriteString(word) // a number that only newer versions know
				continue
			}
			out.WriteByte('?')
		case pg_query.Token_NCHAR:
			if word != "N" && word != "n" {
				out.WriteString(word)
			}
		default:
			out.WriteString(word)
		}
	}
	return collapse(out.String())
}

// squeeze takes the space between tokens from a key, and the kinds of literals.
func squeeze(key string) string {
	var out strings.Builder
	for i := 0; i < len(key); i++ {
		switch c := key[i]; c {
		case keyInteger, keyNumber, keyString, keyBits, keyParam:
			out.WriteByte('?')
		case ' ':
		case '"':
			end := i + 1 + strings.IndexByte(key[i+1:], '"')
			out.WriteString(key[i : end+1])
			i = end
		default:
			out.WriteByte(c)
		}
	}
	return collapse(out.String())
}

// collapse counts literals side by side as one, as which the scanner sees the
// parts of a text on several lines, and a long list as a short one.
func collapse(s string) string {
	for strings.Contains(s, "??") {
		s = strings.ReplaceAll(s, "??", "?")
	}
	for strings.Contains(s, ",?,?") {
		s = strings.ReplaceAll(s, ",?,?", ",?")
	}
	return s
}
