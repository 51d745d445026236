package admin

import (
	"strings"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// words is one statement: its words, and which of them stood in quotes.
type words struct {
	text   []string
	quoted []bool
}

// is says whether the word at i is that keyword.
func (w words) is(i int, keyword string) bool {
	return i < len(w.text) && !w.quoted[i] && strings.EqualFold(w.text[i], keyword)
}

// rest joins the words from i on, as a person would read them.
func (w words) rest(i int) string {
	if i >= len(w.text) {
		return ""
	}
	return strings.Join(w.text[i:], " ")
}

const (
	blank   = " \t\r\n\f\v"
	special = `"'=;,()`
)

// split cuts a text into statements and these into words, as PostgreSQL's
// lexer does: comments are blanks, a doubled quote inside of quotes is one
// quote. Names keep their case, quoted or not, as PgBouncer has it.
func split(text string) ([]words, error) {
	var all []words
	var now words
	end := func() {
		if len(now.text) > 0 {
			all = append(all, now)
		}
		now = words{}
	}
	for text != "" {
		switch c := text[0]; {
		case strings.IndexByte(blank, c) >= 0:
			text = text[1:]
		case strings.HasPrefix(text, "--"):
			_, text, _ = strings.Cut(text, "\n")
		case strings.HasPrefix(text, "/*"):
			rest, ok := comment(text)
			if !ok {
				return nil, wire.Errorf(wire.CodeSyntaxError, "unterminated /* comment")
			}
			text = rest
		case c == ';':
			end()
			text = text[1:]
		case c == '"' || c == '\'':
			word, rest, ok := unquote(text)
			if !ok {
				return nil, wire.Errorf(wire.CodeSyntaxError, "unterminated quote: %s", text)
			}
			now.text, now.quoted = append(now.text, word), append(now.quoted, true)
			text = rest
		default:
			n := 1
			if strings.IndexByte(special, c) < 0 {
				n = wordLen(text)
			}
			now.text, now.quoted = append(now.text, text[:n]), append(now.quoted, false)
			text = text[n:]
		}
	}
	end()
	return all, nil
}

func wordLen(text string) int {
	n := strings.IndexAny(text, blank+special)
	if n < 0 {
		n = len(text)
	}
	return n
}

// comment skips a comment, which may hold others.
func comment(text string) (rest string, ok bool) {
	depth := 0
	for text != "" {
		switch {
		case strings.HasPrefix(text, "/*"):
			depth++
			text = text[2:]
		case strings.HasPrefix(text, "*/"):
			text = text[2:]
			if depth--; depth == 0 {
				return text, true
			}
		default:
			text = text[1:]
		}
	}
	return "", false
}

// unquote reads what the quote at the head of text encloses.
func unquote(text string) (word, rest string, ok bool) {
	quote := text[0]
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		if text[i] != quote {
			b.WriteByte(text[i])
			continue
		}
		if i+1 < len(text) && text[i+1] == quote {
			b.WriteByte(quote)
			i++
			continue
		}
		return b.String(), text[i+1:], true
	}
	return "", "", false
}
