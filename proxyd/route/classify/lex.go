package classify

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

const (
	// MaxText is the longest text that is looked into, in bytes.
	MaxText = 64 << 10
	// MaxWords bounds what can nest: each level of a parse tree costs at least
	// one token that is neither a literal nor a comma. The grammar's C code
	// walks the tree by recursion and needs about 300 bytes of stack a level.
	MaxWords = 2000
)

// In a key these stand for a literal of their kind. No SQL text outside of a
// quoted part holds them but by mistake.
const (
	keyInteger = 0x01
	keyNumber  = 0x02
	keyString  = 0x03
	keyBits    = 0x04
	keyParam   = 0x05
)

// lexer walks over a text by PostgreSQL's lexical rules (docs 4.1) with
// standard_conforming_strings on, and writes its key.
type lexer struct {
	text  []byte
	pos   int
	key   []byte
	words int
	// literals: they stand in the key as they are.
	literals bool
	// mute: no key is written.
	mute bool
	// odd: the rules here may not be PostgreSQL's for this text.
	odd bool
}

// What a byte can be, by PostgreSQL's scanner (scan.l).
const (
	isWordStart = 1 << iota
	isDigit
	isDollar
	isSpace
	isOperator
)

var classes = func() (table [256]uint8) {
	for i := range table {
		if c := byte(i); c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= utf8.RuneSelf {
			table[i] = isWordStart
		}
	}
	for class, set := range map[uint8]string{isDigit: "0123456789", isDollar: "$", isSpace: " \t\n\r\f\v", isOperator: "+-*/<>=~!@#%^&|`?:"} {
		for _, c := range []byte(set) {
			table[c] = class
		}
	}
	return table
}()

func wordStart(c byte) bool    { return classes[c]&isWordStart != 0 }
func digit(c byte) bool        { return classes[c]&isDigit != 0 }
func wordPart(c byte) bool     { return classes[c]&(isWordStart|isDigit|isDollar) != 0 }
func space(c byte) bool        { return classes[c]&isSpace != 0 }
func operatorPart(c byte) bool { return classes[c]&isOperator != 0 }

// normalize writes the whole text's key.
func (l *lexer) normalize() {
	for {
		l.skip()
		if l.odd || l.words > MaxWords || l.pos >= len(l.text) {
			return
		}
		l.token()
	}
}

func (l *lexer) at(n int) byte {
	if l.pos+n < len(l.text) {
		return l.text[l.pos+n]
	}
	return 0
}

// skip passes white space and comments.
func (l *lexer) skip() {
	for l.pos < len(l.text) {
		switch c := l.text[l.pos]; {
		case space(c):
			l.pos++
		case c == '-' && l.at(1) == '-':
			l.lineComment()
		case c == '/' && l.at(1) == '*':
			l.blockComment()
		default:
			return
		}
	}
}

func (l *lexer) lineComment() {
	for l.pos < len(l.text) && l.text[l.pos] != '\n' && l.text[l.pos] != '\r' {
		l.pos++
	}
}

// blockComment passes a comment; they nest. One that does not end is odd.
func (l *lexer) blockComment() {
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
	l.odd = true
}

func (l *lexer) token() {
	start := l.pos
	switch c := l.text[l.pos]; {
	case wordStart(c):
		l.word()
	case digit(c) || c == '.' && digit(l.at(1)):
		l.number()
		l.odd = l.odd || l.at(0) == '.' // 1..2, 1.2.3
	case c == '\'':
		l.quoted(false)
		l.literal(keyString, start)
	case c == '"':
		l.identifier()
		l.emit(l.text[start:l.pos])
	case c == '$':
		l.dollar()
	case c == ',':
		l.pos++
		if !l.mute {
			l.key = append(l.key, ' ', ',')
		}
	case operatorPart(c):
		l.operator()
		l.emit(l.text[start:l.pos])
	case c < ' ' || c == 0x7f || c == '.' && l.at(1) == '.':
		l.odd = true
	default:
		l.pos++
		l.emit(l.text[start:l.pos])
	}
}

// emit adds a token as it is, behind a space.
func (l *lexer) emit(token []byte) {
	l.words++
	if !l.mute {
		l.key = append(append(l.key, ' '), token...)
	}
}

// literal adds the mark of the literal that began at start. Of a list of
// literals of one kind the first two count, or one behind another comma, and of
// the parts of a text on several lines the first.
func (l *lexer) literal(kind byte, start int) {
	if l.mute {
		return
	}
	if l.literals {
		l.key = append(append(l.key, ' '), l.text[start:l.pos]...)
		return
	}
	n := len(l.key)
	switch {
	case (kind == keyString || kind == keyBits) && n >= 2 && l.key[n-1] == kind:
	case n >= 6 && l.key[n-1] == ',' && l.key[n-3] == kind && l.key[n-5] == ',' && l.key[n-2] == ' ' && l.key[n-4] == ' ' && l.key[n-6] == ' ':
		l.key = l.key[:n-2]
	default:
		l.key = append(l.key, ' ', kind)
	}
}

// stands are the literals that stand for those of a key.
var stands = strings.NewReplacer(
	string(rune(keyInteger)), "1",
	string(rune(keyNumber)), "1.0",
	string(rune(keyString)), "''",
	string(rune(keyBits)), "b'0'",
	string(rune(keyParam)), "$1",
)

// example is the shortest text with a key. What is found out about the key is
// found out about it, so that no text can lend its verdict to another, and
// nothing that a literal hides is parsed.
func example(key []byte) string { return stands.Replace(string(key)) }

// word reads an unquoted word, or the literal or identifier that a prefix
// begins: E”, B”, X”, N”, U&” and U&"".
func (l *lexer) word() {
	start := l.pos
	if l.at(1) == '\'' {
		switch l.text[l.pos] | 0x20 {
		case 'e':
			l.pos++
			l.quoted(true)
			l.literal(keyString, start)
			return
		case 'n':
			l.pos++
			l.quoted(false)
			l.literal(keyString, start)
			return
		case 'b', 'x':
			l.pos++
			l.quoted(false)
			l.literal(keyBits, start)
			return
		}
	}
	if l.text[l.pos]|0x20 == 'u' && l.at(1) == '&' && (l.at(2) == '\'' || l.at(2) == '"') {
		l.pos += 2
		if l.text[l.pos] == '"' {
			l.identifier()
			l.emit(l.text[start:l.pos])
			return
		}
		l.quoted(false)
		l.literal(keyString, start)
		return
	}
	for l.pos < len(l.text) && wordPart(l.text[l.pos]) {
		l.pos++
	}
	l.emit(l.text[start:l.pos])
}

// quoted passes a text in quotes that begins at pos. A second part on another
// line goes on under the rules of the first; with backslashes that is odd.
func (l *lexer) quoted(backslash bool) {
	for l.pos++; l.pos < len(l.text); l.pos++ {
		switch c := l.text[l.pos]; {
		case c == '\\' && backslash:
			l.pos++
		case c == '\'' && l.at(1) == '\'':
			l.pos++
		case c == '\'':
			l.pos++
			if backslash {
				save := l.pos
				l.skip()
				l.odd = l.odd || l.at(0) == '\''
				l.pos = save
			}
			return
		}
	}
	l.odd, l.pos = true, len(l.text)
}

// identifier passes a quoted identifier that begins at pos.
func (l *lexer) identifier() {
	for l.pos++; l.pos < len(l.text); l.pos++ {
		if c := l.text[l.pos]; c != '"' {
			l.odd = l.odd || c < ' ' // as the marks of literals are
			continue
		}
		if l.at(1) != '"' {
			l.pos++
			return
		}
		l.pos++
	}
	l.odd = true
}

// number reads a numeric literal. What is none by the rules that all versions
// share (0x1F, 1_000, 12abc) stays in the key as it is.
func (l *lexer) number() {
	start, kind := l.pos, byte(keyInteger)
	digits := func() {
		for l.pos < len(l.text) && digit(l.text[l.pos]) {
			l.pos++
		}
	}
	digits()
	if l.at(0) == '.' && l.at(1) != '.' {
		kind = keyNumber
		l.pos++
		digits()
	}
	if l.at(0)|0x20 == 'e' {
		sign := 1
		if l.at(1) == '+' || l.at(1) == '-' {
			sign = 2
		}
		if digit(l.at(sign)) {
			kind = keyNumber
			l.pos += sign
			digits()
		}
	}
	if l.pos >= len(l.text) || !wordStart(l.text[l.pos]) {
		l.literal(kind, start)
		return
	}
	for l.pos < len(l.text) && wordPart(l.text[l.pos]) {
		l.pos++
	}
	l.emit(l.text[start:l.pos])
}

// dollar reads a parameter or a dollar-quoted text.
func (l *lexer) dollar() {
	start, end := l.pos, l.pos+1
	if end < len(l.text) && digit(l.text[end]) {
		for end < len(l.text) && digit(l.text[end]) {
			end++
		}
		l.pos = end
		l.odd = l.odd || end < len(l.text) && wordStart(l.text[end])
		l.literal(keyParam, start)
		return
	}
	for end < len(l.text) && wordPart(l.text[end]) && l.text[end] != '$' {
		end++
	}
	if end >= len(l.text) || l.text[end] != '$' {
		l.odd = true
		return
	}
	tag := l.text[l.pos : end+1]
	for i := end + 1; i+len(tag) <= len(l.text); i++ {
		if l.text[i] == '$' && bytes.Equal(l.text[i:i+len(tag)], tag) {
			l.pos = i + len(tag)
			l.literal(keyString, start)
			return
		}
	}
	l.odd = true
}

// operator passes a run of operator characters, which a comment ends.
func (l *lexer) operator() {
	for l.pos < len(l.text) && operatorPart(l.text[l.pos]) {
		if c := l.text[l.pos]; c == '-' && l.at(1) == '-' || c == '/' && l.at(1) == '*' {
			return
		}
		l.pos++
	}
}
