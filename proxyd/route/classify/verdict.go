package classify

// Kind is what a text does, as far as routing needs it. The zero Kind is Write.
type Kind uint8

// Kinds.
const (
	// Write may write, or is not understood. It needs the primary, and what it
	// wrote must be seen by its client from then on.
	Write Kind = iota
	// Local writes nothing, but its answer is that of one server or session, as
	// SHOW's: it needs the primary.
	Local
	// Read may run on a standby.
	Read
	// Begin begins a transaction whose access mode is the session's default.
	Begin
	// BeginRead begins a transaction READ ONLY, which may run on a standby whole.
	BeginRead
	// BeginWrite begins a transaction that a standby cannot run.
	BeginWrite
)

func (k Kind) String() string {
	return [...]string{"write", "local", "read", "begin", "begin read only", "begin read write"}[k]
}

// Verdict is what is known of a text. It is a value: copying it costs nothing,
// and its Reason was made when the text was first seen.
type Verdict struct {
	Kind Kind
	// Schema: the text may change what the catalog says of names.
	Schema bool
	// Reason ends the sentence "this went to the primary because it ...": "calls
	// nextval, which is volatile". "" for a Read.
	Reason string
}

// Standby says whether it may go to a standby.
func (v Verdict) Standby() bool { return v.Kind == Read || v.Kind == BeginRead }

// And joins the verdicts of what must run on one server, as all statements of
// an extended-protocol batch up to its Sync: a write decides, or else the first
// that is more than a read. What is local behind BEGIN READ ONLY, as its COMMIT,
// is local to where that went.
func (v Verdict) And(w Verdict) Verdict {
	both := v
	if v.Kind == Read || w.Kind == Write && v.Kind != Write {
		both = w
	}
	both.Schema = v.Schema || w.Schema
	return both
}

// Catalog answers for one database, at one moment, whether a name is harmless
// on a standby: each gives "" where it is, and otherwise the end of the
// sentence "this went to the primary because it ...". An empty schema stands
// for any, since the search_path of the session is not known.
type Catalog interface {
	// Unready is why nothing can go to a standby now, as when the catalog is being
	// read again.
	Unready() string
	Function(schema, name string) string
	Relation(schema, name string) string
	Operator(schema, name string) string
	Type(schema, name string) string
	// Attribute: name stands behind a dot, where PostgreSQL also calls a
	// function of one composite argument.
	Attribute(name string) string
}
