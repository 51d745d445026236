package classify

import "bytes"

// lead is what a text's first word says of it.
type lead struct {
	kind   leadKind
	schema bool
	reason string
}

type leadKind uint8

const (
	unknownLead leadKind = iota
	certain              // a write, whatever follows
	plain                // for the grammar; its literals do not matter
	utility              // for the grammar, with its literals
)

// leads are the first words that PostgreSQL knows (its grammar's stmt). What
// is certain needs no parsing: it is a write even where more follows behind a
// semicolon.
var leads = map[string]lead{
	"select":  {kind: plain},
	"with":    {kind: plain},
	"values":  {kind: plain},
	"table":   {kind: plain},
	"explain": {kind: utility},
	"copy":    {kind: utility},
	"begin":   {kind: utility}, "start": {kind: utility},
	"commit": {kind: utility}, "end": {kind: utility}, "rollback": {kind: utility}, "abort": {kind: utility},
	"savepoint": {kind: utility}, "release": {kind: utility},
	"set": {kind: utility}, "reset": {kind: utility}, "show": {kind: utility},

	"insert": {certain, false, "is INSERT, which writes"},
	"update": {certain, false, "is UPDATE, which writes"},
	"delete": {certain, false, "is DELETE, which writes"},
	"merge":  {certain, false, "is MERGE, which writes"},

	"create": {certain, true, "is CREATE, which changes the schema"},
	"alter":  {certain, true, "is ALTER, which changes the schema"},
	"drop":   {certain, true, "is DROP, which changes the schema"},
	"import": {certain, true, "is IMPORT FOREIGN SCHEMA, which changes the schema"},

	"do":      {certain, false, "is DO, which runs code that cannot be looked into"},
	"call":    {certain, false, "is CALL, which runs code that cannot be looked into"},
	"execute": {certain, false, "is EXECUTE, whose statement one server session holds"},
	"prepare": {certain, false, "is PREPARE, whose statement one server session holds"},

	"declare":    {certain, false, "is DECLARE, whose cursor one server session holds"},
	"fetch":      {certain, false, "is FETCH, whose cursor one server session holds"},
	"move":       {certain, false, "is MOVE, whose cursor one server session holds"},
	"close":      {certain, false, "is CLOSE, whose cursor one server session holds"},
	"deallocate": {certain, false, "is DEALLOCATE, which works on one server session"},
	"discard":    {certain, false, "is DISCARD, which works on one server session"},
	"load":       {certain, false, "is LOAD, which works on one server session"},
	"listen":     {certain, false, "is LISTEN, which a standby refuses"},
	"unlisten":   {certain, false, "is UNLISTEN, which works on one server session"},
	"notify":     {certain, false, "is NOTIFY, which a standby refuses"},
	"lock":       {certain, false, "is LOCK, which locks on the primary alone"},
	"truncate":   {certain, false, "is TRUNCATE, which writes"},
	"refresh":    {certain, false, "is REFRESH MATERIALIZED VIEW, which writes"},
	"vacuum":     {certain, false, "is VACUUM, which writes"},
	"analyze":    {certain, false, "is ANALYZE, which writes"},
	"analyse":    {certain, false, "is ANALYZE, which writes"},
	"cluster":    {certain, false, "is CLUSTER, which writes"},
	"repack":     {certain, false, "is REPACK, which writes"},
	"reindex":    {certain, false, "is REINDEX, which writes"},
	"checkpoint": {certain, false, "is CHECKPOINT, which writes"},
	"grant":      {certain, false, "is GRANT, which writes"},
	"revoke":     {certain, false, "is REVOKE, which writes"},
	"comment":    {certain, false, "is COMMENT, which writes"},
	"security":   {certain, false, "is SECURITY LABEL, which writes"},
	"reassign":   {certain, false, "is REASSIGN OWNED, which writes"},
	"wait":       {certain, false, "is WAIT FOR, which waits on one server"},
}

// leading finds the first word, behind comments, semicolons and parentheses.
// empty: the text holds no statement.
func leading(text []byte) (found lead, empty bool) {
	l := lexer{text: text}
	for l.skip(); l.pos < len(text) && text[l.pos] == ';'; l.skip() {
		l.pos++
	}
	if l.pos >= len(text) && !l.odd {
		return lead{}, true
	}
	if l.at(0) == '(' {
		return lead{kind: plain}, false
	}
	var word [10]byte // as long as "deallocate" and "checkpoint"
	n := 0
	for l.pos < len(text) && wordPart(text[l.pos]) {
		if n == len(word) {
			return lead{}, false
		}
		c := text[l.pos]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		word[n] = c
		n++
		l.pos++
	}
	found = leads[string(word[:n])]
	if found.schema && l.temporary() {
		found.schema = false
	}
	return found, false
}

// ChangesSchema says, by the first words of its statements, whether a text may
// change what the catalog says of names: what a session asks of what runs
// inside a transaction. It parses nothing.
func ChangesSchema(text []byte) bool {
	if first, _ := leading(text); first.schema {
		return true
	}
	if len(text) > MaxText || !more(text) {
		return false
	}
	l := lexer{text: text, mute: true}
	for l.skip(); l.pos < len(text) && !l.odd; l.skip() {
		if text[l.pos] != ';' {
			l.token()
			continue
		}
		l.pos++
		if next, _ := leading(text[l.pos:]); next.schema {
			return true
		}
	}
	return false
}

// more says whether a second statement may follow: there is a semicolon, and
// something behind it.
func more(text []byte) bool {
	i := bytes.IndexByte(text, ';')
	return i >= 0 && len(bytes.TrimSpace(text[i+1:])) > 0
}

// temporary says whether what is created lasts no longer than its session, so
// that the catalog of everybody else stays as it is.
func (l *lexer) temporary() bool {
	for range 2 { // LOCAL or GLOBAL may stand before it
		l.skip()
		start := l.pos
		for l.pos < len(l.text) && wordPart(l.text[l.pos]) {
			l.pos++
		}
		switch w := l.text[start:l.pos]; {
		case equalFold(w, "temp") || equalFold(w, "temporary"):
			return true
		case !equalFold(w, "local") && !equalFold(w, "global"):
			return false
		}
	}
	return false
}

// equalFold compares with a word in lower-case ASCII.
func equalFold(s []byte, lower string) bool {
	if len(s) != len(lower) {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
