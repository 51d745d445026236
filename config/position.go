package config

import (
	"fmt"
	"strings"
)

// positions gives the line of every key of a TOML text. The TOML library
// reports a line only for a syntax error, and a problem without a line sends
// its reader searching.
type positions map[string]int

// line finds the line of path, or of the nearest table that contains it.
func (p positions) line(path string) int {
	for path != "" {
		if n, ok := p[path]; ok {
			return n
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return 0
		}
		path = path[:i]
	}
	return 0
}

// locate reads a text that has been parsed already, so it need not complain:
// of anything it does not know it skips the line.
func locate(text string) positions {
	s := scanner{text: text, line: 1, found: positions{}, count: map[string]int{}}
	for s.skipBlank() {
		if s.peek() == '[' {
			s.header()
			continue
		}
		s.pair()
	}
	return s.found
}

type scanner struct {
	text   string
	pos    int
	line   int
	prefix string
	found  positions
	count  map[string]int // tables seen of each array of tables
}

func (s *scanner) peek() byte {
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

func (s *scanner) next() byte {
	c := s.peek()
	if c == '\n' {
		s.line++
	}
	s.pos++
	return c
}

// skipBlank goes to the next line's content; false at the end of the text.
func (s *scanner) skipBlank() bool {
	for s.pos < len(s.text) {
		switch c := s.peek(); {
		case c == '#':
			s.skipLine()
		case c == ' ' || c == '\t' || c == '\r' || c == '\n' || strings.HasPrefix(s.text[s.pos:], "\ufeff"):
			s.next()
		case c >= 0x80:
			s.next()
		default:
			return true
		}
	}
	return false
}

func (s *scanner) skipLine() {
	for s.pos < len(s.text) && s.next() != '\n' {
	}
}

// header reads [table] or [[array]].
func (s *scanner) header() {
	line := s.line
	s.next()
	array := s.peek() == '['
	if array {
		s.next()
	}
	name := s.key(']')
	if array {
		s.setIfNew(name, line)
		s.prefix = fmt.Sprintf("%s[%d]", name, s.count[name])
		s.count[name]++
	} else {
		s.prefix = name
	}
	s.setIfNew(s.prefix, line)
	s.skipLine()
}

// pair reads key = value, and skips the value.
func (s *scanner) pair() {
	line := s.line
	name := s.key('=')
	if s.prefix != "" {
		name = s.prefix + "." + name
	}
	s.setIfNew(name, line)
	s.next()
	s.value()
}

func (s *scanner) setIfNew(path string, line int) {
	if _, ok := s.found[path]; !ok {
		s.found[path] = line
	}
}

// key reads dotted and quoted names up to, and not including, end.
func (s *scanner) key(end byte) string {
	var b strings.Builder
	for s.pos < len(s.text) && s.peek() != end && s.peek() != '\n' {
		switch c := s.next(); c {
		case ' ', '\t':
		case '"', '\'':
			for s.pos < len(s.text) && s.peek() != c && s.peek() != '\n' {
				b.WriteByte(s.next())
			}
			s.next()
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// value skips to the end of the line on which the value ends.
func (s *scanner) value() {
	depth := 0
	for s.pos < len(s.text) {
		switch c := s.peek(); c {
		case '#':
			s.skipLine()
			if depth == 0 {
				return
			}
			continue
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case '"', '\'':
			s.str(c)
			continue
		case '\n':
			if depth == 0 {
				s.next()
				return
			}
		}
		s.next()
	}
}

// str skips a string of any of TOML's four kinds.
func (s *scanner) str(quote byte) {
	end := string(quote)
	if long := strings.Repeat(end, 3); strings.HasPrefix(s.text[s.pos:], long) {
		end = long
	}
	s.pos += len(end)
	for s.pos < len(s.text) && !strings.HasPrefix(s.text[s.pos:], end) {
		if s.peek() == '\\' && quote == '"' {
			s.next()
		}
		s.next()
	}
	s.pos += len(end)
}
