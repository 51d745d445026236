package statement

// Name is where a text uses a prepared statement by its name.
type Name struct {
	Name       string // as PostgreSQL understands it
	Start, End int    // text[Start:End] is how it is written
}

// Names finds every name that follows an EXECUTE or a DEALLOCATE, in order. It
// is for texts of which Scan says that they have some.
func Names(text []byte, escapes bool) (names []Name) {
	s := scanner{lexer: lexer{text: text, escapes: escapes}}
	for {
		t, w := s.next()
		switch t {
		case tokEnd:
			return names
		case tokSemicolon:
			s.first, s.prev = nil, nil
			continue
		case tokWord:
		default:
			if s.first == nil {
				s.first = []byte{}
			}
			s.prev = nil
			continue
		}
		begins := s.first == nil
		if begins {
			s.first = w
		}
		if begins && foldAny(w, "execute", "deallocate") || fold(w, "execute") && s.executes() {
			if n, ok := s.operand(); ok {
				names = append(names, n)
			}
		}
		s.prev = w
	}
}

// operand reads the name behind EXECUTE or DEALLOCATE [PREPARE].
func (s *scanner) operand() (n Name, ok bool) {
	s.skipSpace()
	n.Start = s.pos
	t, w := s.next()
	if fold(w, "prepare") && t == tokWord {
		s.skipSpace()
		n.Start = s.pos
		t, w = s.next()
	}
	n.End = s.pos
	switch t {
	case tokWord:
		n.Name = lower(w)
		return n, n.Name != "all"
	case tokQuoted:
		n.Name = string(w)
		return n, true
	}
	return n, false
}
