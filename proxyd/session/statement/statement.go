package statement

// Class is what a statement does to the transaction around it.
type Class uint8

// Classes.
const (
	Other    Class = iota
	Begin          // BEGIN, START TRANSACTION
	Commit         // COMMIT, END, PREPARE TRANSACTION: afterwards no transaction is open
	Rollback       // ROLLBACK, ABORT: afterwards no transaction is open
	Unknown        // several statements, or not seen whole: it may commit
)

// Trait is what a statement leaves in the session.
type Trait uint16

// Traits.
const (
	Listen Trait = 1 << iota
	Prepare
	HoldCursor
	Temporary
	AdvisoryLock
	Load
	Setting
)

// Reason names the first trait in words for a person; "" for none.
func (t Trait) Reason() string {
	for _, r := range [...]struct {
		t Trait
		s string
	}{
		{Temporary, "a temporary table"},
		{AdvisoryLock, "a session advisory lock"},
		{Listen, "LISTEN"},
		{HoldCursor, "a cursor WITH HOLD"},
		{Prepare, "a statement of SQL PREPARE"},
		{Load, "a library of LOAD"},
		{Setting, "a setting of SET"},
	} {
		if t&r.t != 0 {
			return r.s
		}
	}
	return ""
}

// Info is what Scan found.
type Info struct {
	Class  Class
	First  Class // of the first of several statements
	Traits Trait
	// Commits: a lone COMMIT or END, after which no transaction is open.
	Commits bool
	// Writes: it may write, or lock rows. What the functions of a SELECT do is
	// not seen.
	Writes bool
	// Notifies: by NOTIFY or pg_notify(). Its transaction gets an id when it
	// commits, and not before.
	Notifies bool
	// Deallocate is the name in a lone DEALLOCATE name, "" otherwise.
	Deallocate string
	// DeallocateAll: a lone DEALLOCATE ALL or DISCARD ALL.
	DeallocateAll bool
	// Names: it uses prepared statements by name, in EXECUTE or DEALLOCATE;
	// see Names.
	Names bool
	// Database: it makes, changes or drops a database, which nobody else may
	// be connected to.
	Database bool
	// Set is the parameter that a lone SET gives a value for the session, and
	// Reset the one that a lone RESET takes it from, "all" for every one; both
	// in lower case unless quoted. Not set for what the server reports.
	Set, Reset string
}

// Scan reads a text. whole says that no statement follows behind it: what
// lies beyond may do anything to the transaction, and its traits are not seen.
// escapes: standard_conforming_strings is off.
func Scan(text []byte, whole, escapes bool) Info {
	s := scanner{lexer: lexer{text: text, escapes: escapes}}
	count := 0
	for s.statement() {
		count++
		s.merge(count)
	}
	if !whole {
		s.info.Class, s.info.Writes = Unknown, true
	}
	s.info.Commits = s.info.Commits && count == 1 && whole && s.info.Class == Commit
	if count != 1 || !whole {
		s.info.Deallocate, s.info.DeallocateAll, s.info.Set, s.info.Reset = "", false, "", ""
	}
	return s.info
}

// scanner reads one statement after the other.
type scanner struct {
	lexer
	info  Info
	class Class // of the statement just read
	prev  []byte
	first []byte
}

// merge joins the class of the n-th statement to that of those before it.
func (s *scanner) merge(n int) {
	switch {
	case n == 1:
		s.info.Class, s.info.First = s.class, s.class
	case s.info.Class == s.class && s.class == Other:
	case s.info.Class == Begin && s.class == Other:
	default:
		s.info.Class = Unknown
	}
}

// statement reads up to a semicolon. It says whether there was a statement.
func (s *scanner) statement() bool {
	s.class, s.prev, s.first = Other, nil, nil
	for {
		t, w := s.next()
		switch t {
		case tokEnd:
			return s.first != nil
		case tokSemicolon:
			if s.first != nil {
				return true
			}
			continue
		case tokWord:
			if s.first == nil {
				s.first = w
				s.info.Writes = s.info.Writes || !reads(w)
				s.leading(w)
			} else {
				s.inner(w)
			}
			s.prev = w
			continue
		}
		if s.first == nil {
			s.first = []byte{} // a parenthesis, say
		}
		s.prev = nil
	}
}

// peek reads a word without consuming it.
func (s *scanner) peek() []byte {
	save := s.pos
	t, w := s.next()
	s.pos = save
	if t != tokWord && t != tokQuoted {
		return nil
	}
	return w
}

// reads says whether a statement that begins with a word writes nothing unless
// by another one.
func reads(w []byte) bool {
	switch len(w) {
	case 3:
		return foldAny(w, "set", "end")
	case 4:
		return fold(w, "show")
	case 5:
		return foldAny(w, "begin", "start", "fetch", "table", "close", "abort", "reset")
	case 6:
		return foldAny(w, "select", "commit", "values")
	case 7:
		return foldAny(w, "release", "declare", "prepare")
	case 8:
		return fold(w, "rollback")
	case 9:
		return fold(w, "savepoint")
	}
	return false
}

// leading judges a statement by its first word.
func (s *scanner) leading(w []byte) {
	switch len(w) {
	case 3:
		if fold(w, "set") {
			s.set()
		} else if fold(w, "end") {
			s.finish(Commit)
		}
	case 4:
		if fold(w, "load") {
			s.info.Traits |= Load
		} else if fold(w, "drop") {
			s.info.Database = s.info.Database || fold(s.peek(), "database")
		}
	case 5:
		switch {
		case fold(w, "begin"):
			s.class = Begin
		case fold(w, "abort"):
			s.finish(Rollback)
		case fold(w, "start") && fold(s.peek(), "transaction"):
			s.class = Begin
		case fold(w, "reset"):
			s.reset()
		case fold(w, "alter"):
			s.info.Database = s.info.Database || fold(s.peek(), "database")
		}
	case 6:
		switch {
		case fold(w, "commit"):
			s.finish(Commit)
		case fold(w, "listen"):
			s.info.Traits |= Listen
		case fold(w, "notify"):
			s.info.Notifies = true
		case fold(w, "create"):
			s.info.Database = s.info.Database || fold(s.peek(), "database")
		}
	case 7:
		switch {
		case fold(w, "prepare"):
			if fold(s.peek(), "transaction") {
				s.class = Commit
			} else {
				s.info.Traits |= Prepare
			}
		case fold(w, "execute"):
			s.info.Names = true
		case fold(w, "discard"):
			s.info.DeallocateAll = fold(s.peek(), "all")
		}
	case 8:
		if fold(w, "rollback") {
			s.finish(Rollback)
		}
	case 10:
		if fold(w, "deallocate") {
			s.deallocate()
		}
	}
}

// finish reads what follows COMMIT, END, ROLLBACK or ABORT.
func (s *scanner) finish(class Class) {
	s.class, s.info.Commits = class, class == Commit
	save := s.pos
	defer func() { s.pos = save }()
	for {
		t, w := s.next()
		switch {
		case t != tokWord:
			return
		case foldAny(w, "work", "transaction", "and", "no"):
			if fold(w, "no") { // AND NO CHAIN
				return
			}
		case fold(w, "chain"): // the next transaction is open at once
			if s.class = Other; class == Commit {
				s.class = Unknown
			}
			return
		case foldAny(w, "to", "prepared"):
			s.class = Other
			return
		default:
			return
		}
	}
}

// set finds out which parameter is set, and whether it outlives the
// transaction. Those that the server reports are followed by their reports.
func (s *scanner) set() {
	save := s.pos
	defer func() { s.pos = save }()
	t, w := s.next()
	if fold(w, "session") {
		if t, w = s.next(); foldAny(w, "characteristics", "authorization") {
			s.info.Traits |= Setting
			return
		}
	}
	if t != tokWord && t != tokQuoted {
		return
	}
	switch {
	case foldAny(w, "local", "transaction", "constraints"):
	case fold(w, "time") && fold(s.peek(), "zone"), fold(w, "names"), Reported(string(w)):
	default:
		s.info.Traits |= Setting
		s.info.Set = s.assigned(t, w)
	}
}

// assigned is the name of the parameter in "name = value" or "name TO value",
// "" for the other forms and for parameters that are more than a value.
func (s *scanner) assigned(t token, w []byte) string {
	if foldAny(w, "role", "session_authorization", "seed", "transaction_isolation", "transaction_read_only", "transaction_deferrable") {
		return ""
	}
	name := s.name(t, w)
	for s.pos < len(s.text) && s.text[s.pos] == '.' {
		s.pos++
		t, w = s.next()
		if t != tokWord && t != tokQuoted {
			return ""
		}
		name += "." + s.name(t, w)
	}
	s.skipSpace()
	if s.at(0) == '=' || fold(s.peek(), "to") {
		return name
	}
	return ""
}

// name is an identifier as it can be written in another statement.
func (s *scanner) name(t token, w []byte) string {
	if t == tokQuoted {
		return `"` + string(w) + `"`
	}
	return lower(w)
}

// reset finds out which parameter is reset.
func (s *scanner) reset() {
	save := s.pos
	defer func() { s.pos = save }()
	t, w := s.next()
	if t != tokWord && t != tokQuoted {
		return
	}
	s.info.Reset = s.name(t, w)
	for s.pos < len(s.text) && s.text[s.pos] == '.' {
		s.pos++
		if t, w = s.next(); t == tokWord || t == tokQuoted {
			s.info.Reset += "." + s.name(t, w)
		}
	}
}

// Reported says whether a parameter is one whose value every supported server
// reports when it changes, and which a session may set.
func Reported(name string) bool {
	return foldAny([]byte(name), "client_encoding", "datestyle", "timezone", "intervalstyle",
		"standard_conforming_strings", "application_name")
}

func (s *scanner) deallocate() {
	s.info.Names = true
	save := s.pos
	defer func() { s.pos = save }()
	t, w := s.next()
	if t == tokWord && fold(w, "prepare") {
		t, w = s.next()
	}
	switch {
	case t == tokWord && fold(w, "all"):
		s.info.DeallocateAll = true
	case t == tokWord:
		s.info.Deallocate = lower(w)
	case t == tokQuoted:
		s.info.Deallocate = string(w)
	}
}

// lower folds an unquoted identifier as PostgreSQL does.
func lower(w []byte) string {
	b := make([]byte, len(w))
	for i, c := range w {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		b[i] = c
	}
	return string(b)
}

// inner judges a word inside a statement.
func (s *scanner) inner(w []byte) {
	switch len(w) {
	case 4:
		if fold(w, "temp") {
			s.temporary()
		} else if fold(w, "hold") && fold(s.prev, "with") && fold(s.first, "declare") {
			s.info.Traits |= HoldCursor
		} else if fold(w, "into") {
			s.info.Writes = true
		}
	case 6:
		s.info.Writes = s.info.Writes || fold(w, "update") // FOR UPDATE
	case 5:
		s.info.Writes = s.info.Writes || fold(w, "share") // FOR SHARE
	case 9:
		if fold(w, "temporary") {
			s.temporary()
		}
		s.info.Notifies = s.info.Notifies || fold(w, "pg_notify")
	case 7:
		if fold(w, "execute") && s.executes() {
			s.info.Names = true
		} else if fold(w, "pg_temp") {
			s.info.Traits |= Temporary
		} else if fold(w, "setseed") {
			s.info.Traits |= Setting
		}
	case 10:
		if fold(w, "set_config") {
			s.info.Traits |= Setting
		}
	default:
		if len(w) >= 16 && w[2] == '_' && foldContains(w, "advisory_lock") {
			s.info.Traits |= AdvisoryLock
		}
	}
}

// executes says whether an EXECUTE inside a statement runs a prepared one, as
// in EXPLAIN EXECUTE and CREATE TABLE AS EXECUTE, and not in GRANT EXECUTE ON.
func (s *scanner) executes() bool {
	return fold(s.first, "explain") || fold(s.first, "create") && fold(s.prev, "as")
}

func (s *scanner) temporary() {
	if foldAny(s.prev, "create", "replace", "local", "global", "into") {
		s.info.Traits |= Temporary
	}
}
