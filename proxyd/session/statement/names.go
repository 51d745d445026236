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

// typeOIDs are the types by whose names a PREPARE may declare its parameters
// and be understood here, from pg_type.dat. What is declared unknown is inferred,
// as is what is not declared.
var typeOIDs = map[string]uint32{
	"unknown": 0, "bool": 16, "boolean": 16, "bytea": 17, "int8": 20, "bigint": 20, "int2": 21, "smallint": 21,
	"int4": 23, "int": 23, "integer": 23, "text": 25, "oid": 26, "json": 114, "float4": 700, "real": 700,
	"float8": 701, "double precision": 701, "varchar": 1043, "character varying": 1043, "date": 1082, "time": 1083,
	"timestamp": 1114, "timestamptz": 1184, "timestamp with time zone": 1184, "timestamp without time zone": 1114,
	"interval": 1186, "numeric": 1700, "decimal": 1700, "uuid": 2950, "jsonb": 3802,
}

// Preparation is a lone PREPARE name (types) AS statement.
type Preparation struct {
	Name
	Types []uint32 // OIDs, as a Parse has them
	Text  []byte   // of what is prepared
}

// Preparing reads a text of which Scan says that it prepares something. It says
// false for what else stands in such a text, and for types that it cannot name.
func Preparing(text []byte, escapes bool) (p Preparation, ok bool) {
	s := scanner{lexer: lexer{text: text, escapes: escapes}}
	if t, w := s.next(); t != tokWord || !fold(w, "prepare") {
		return p, false
	}
	if p.Name, ok = s.operand(); !ok {
		return p, false
	}
	t, w := s.next()
	if t == tokOther && s.text[s.pos-1] == '(' {
		if p.Types, ok = s.types(); !ok {
			return p, false
		}
		t, w = s.next()
	}
	if t != tokWord || !fold(w, "as") {
		return p, false
	}
	start, end := s.pos, s.pos
	for {
		switch t, _ := s.next(); t {
		case tokSemicolon:
			t, _ := s.next()
			p.Text = text[start:end]
			return p, t == tokEnd
		case tokEnd:
			p.Text = text[start:end]
			return p, true
		}
		end = s.pos
	}
}

// types reads what stands between parentheses, behind the first of them.
func (s *scanner) types() (oids []uint32, ok bool) {
	words := ""
	for {
		t, w := s.next()
		switch {
		case t == tokWord && words == "":
			words = lower(w)
		case t == tokWord:
			words += " " + lower(w)
		case t == tokOther && (s.text[s.pos-1] == ',' || s.text[s.pos-1] == ')'):
			oid, known := typeOIDs[words]
			if !known {
				return nil, false
			}
			if oids = append(oids, oid); s.text[s.pos-1] == ')' {
				return oids, true
			}
			words = ""
		default:
			return nil, false
		}
	}
}
