package statement

// lexer walks over a text by PostgreSQL's lexical rules (docs 4.1).
type lexer struct {
	text []byte
	pos  int
	// escapes: backslashes escape in plain '...' (standard_conforming_strings off).
	escapes bool
}

// Kinds of token.
type token uint8

const (
	tokEnd token = iota
	tokWord
	tokSemicolon
	tokOther  // a symbol, number or string
	tokQuoted // a quoted identifier
)

func isWordStart(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}

func isWord(c byte) bool { return isWordStart(c) || c >= '0' && c <= '9' || c == '$' }

// next gives the next token; word is its text when it is a word or a quoted
// identifier (without its quotes).
func (l *lexer) next() (t token, word []byte) {
	l.skipSpace()
	if l.pos >= len(l.text) {
		return tokEnd, nil
	}
	c := l.text[l.pos]
	switch {
	case isWordStart(c):
		return l.word()
	case c == ';':
		l.pos++
		return tokSemicolon, nil
	case c == '\'':
		l.quoted('\'', l.escapes)
		return tokOther, nil
	case c == '"':
		start := l.pos + 1
		l.quoted('"', false)
		return tokQuoted, l.text[start:max(start, min(l.pos, len(l.text))-1)]
	case c == '$':
		l.dollar()
		return tokOther, nil
	case c >= '0' && c <= '9':
		for l.pos < len(l.text) && isWord(l.text[l.pos]) {
			l.pos++
		}
		return tokOther, nil
	}
	l.pos++
	return tokOther, nil
}

func (l *lexer) word() (token, []byte) {
	start := l.pos
	for l.pos < len(l.text) && isWord(l.text[l.pos]) {
		l.pos++
	}
	w := l.text[start:l.pos]
	if len(w) == 1 && l.pos < len(l.text) && l.text[l.pos] == '\'' {
		switch w[0] | 0x20 {
		case 'e':
			l.quoted('\'', true)
			return tokOther, nil
		case 'b', 'x', 'n':
			l.quoted('\'', l.escapes)
			return tokOther, nil
		}
	}
	return tokWord, w
}

func (l *lexer) skipSpace() {
	for l.pos < len(l.text) {
		switch c := l.text[l.pos]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v' || c == 0:
			l.pos++
		case c == '-' && l.at(1) == '-':
			for l.pos < len(l.text) && l.text[l.pos] != '\n' && l.text[l.pos] != '\r' {
				l.pos++
			}
		case c == '/' && l.at(1) == '*':
			l.comment()
		default:
			return
		}
	}
}

func (l *lexer) at(n int) byte {
	if l.pos+n < len(l.text) {
		return l.text[l.pos+n]
	}
	return 0
}

// comment skips a block comment; they nest.
func (l *lexer) comment() {
	depth := 0
	for l.pos < len(l.text) {
		switch {
		case l.text[l.pos] == '/' && l.at(1) == '*':
			depth++
			l.pos += 2
		case l.text[l.pos] == '*' && l.at(1) == '/':
			depth--
			l.pos += 2
			if depth == 0 {
				return
			}
		default:
			l.pos++
		}
	}
}

// quoted skips a quoted text that begins at pos.
func (l *lexer) quoted(quote byte, escapes bool) {
	for l.pos++; l.pos < len(l.text); l.pos++ {
		switch c := l.text[l.pos]; {
		case c == '\\' && escapes:
			l.pos++
		case c == quote:
			if l.at(1) != quote {
				l.pos++
				return
			}
			l.pos++
		}
	}
	l.pos = len(l.text)
}

// dollar skips a dollar-quoted string, or the dollar of a parameter.
func (l *lexer) dollar() {
	end := l.pos + 1
	for end < len(l.text) && isWord(l.text[end]) && l.text[end] != '$' {
		end++
	}
	if end >= len(l.text) || l.text[end] != '$' || end > l.pos+1 && l.text[l.pos+1] >= '0' && l.text[l.pos+1] <= '9' {
		l.pos++
		return
	}
	tag := l.text[l.pos : end+1]
	for l.pos = end + 1; l.pos < len(l.text); l.pos++ {
		if l.text[l.pos] == '$' && len(l.text)-l.pos >= len(tag) && string(l.text[l.pos:l.pos+len(tag)]) == string(tag) {
			l.pos += len(tag)
			return
		}
	}
}

// fold says whether a word is the given lower-case ASCII word.
func fold(word []byte, lower string) bool {
	if len(word) != len(lower) {
		return false
	}
	for i := range len(lower) {
		c := word[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// foldAny says whether a word is one of the given lower-case words.
func foldAny(word []byte, lower ...string) bool {
	for _, w := range lower {
		if fold(word, w) {
			return true
		}
	}
	return false
}

// foldContains says whether a word contains the given lower-case ASCII text.
func foldContains(word []byte, lower string) bool {
	for i := 0; i+len(lower) <= len(word); i++ {
		if fold(word[i:i+len(lower)], lower) {
			return true
		}
	}
	return false
}
