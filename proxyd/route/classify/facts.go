package classify

// facts are what a text shows by itself. They hold whatever the catalog says.
type facts struct {
	verdict Verdict
	refs    []ref // what the catalog is asked where the verdict is a Read
}

type refKind uint8

const (
	function refKind = iota
	relation
	operator
	typeName
	attribute
)

func (k refKind) String() string {
	return [...]string{"function", "relation", "operator", "type", "attribute"}[k]
}

// ref is a name that stands for something in the catalog. The schema is ""
// where none was given.
type ref struct {
	kind         refKind
	schema, name string
}

// against asks the catalog about what may go to a standby.
func (f facts) against(c Catalog) Verdict {
	if !f.verdict.Standby() {
		return f.verdict
	}
	because := c.Unready()
	for _, r := range f.refs {
		if because != "" {
			break
		}
		switch r.kind {
		case function:
			because = c.Function(r.schema, r.name)
		case relation:
			because = c.Relation(r.schema, r.name)
		case operator:
			because = c.Operator(r.schema, r.name)
		case typeName:
			because = c.Type(r.schema, r.name)
		case attribute:
			because = c.Attribute(r.name)
		}
	}
	switch {
	case because != "" && f.verdict.Kind == BeginRead:
		return Verdict{Kind: BeginWrite, Reason: because}
	case because != "":
		return Verdict{Kind: Write, Schema: f.verdict.Schema, Reason: because}
	}
	return f.verdict
}

// size is about what it takes in memory, in bytes.
func (f facts) size() int {
	n := len(f.verdict.Reason)
	for _, r := range f.refs {
		n += 40 + len(r.schema) + len(r.name)
	}
	return n
}
