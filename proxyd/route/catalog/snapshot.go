package catalog

import "fmt"

// Snapshot is what a database's catalog said at one moment. It does not change
// and may be read by all. Its methods give "" for a harmless name, and for
// another the end of the sentence "this went to the primary because it ...".
type Snapshot struct {
	unready    string
	functions  names
	relations  names
	operators  names
	types      names
	attributes map[string]string
}

// names gives the places in which a name stands for something.
type names map[string][]place

// place is a name's meaning in one schema, and why it is not harmless.
type place struct{ schema, why string }

// Unready makes a catalog of which nothing is known, for this reason.
func Unready(why string) *Snapshot { return &Snapshot{unready: why} }

// Unready is why nothing can be said; "" where something can.
func (s *Snapshot) Unready() string { return s.unready }

// Function judges a call.
func (s *Snapshot) Function(schema, name string) string {
	return s.functions.why(schema, name, "calls %s, which %s")
}

// Relation judges what stands in FROM.
func (s *Snapshot) Relation(schema, name string) string {
	return s.relations.why(schema, name, "reads %s, which %s")
}

// Operator judges an operator.
func (s *Snapshot) Operator(schema, name string) string {
	return s.operators.why(schema, name, "uses the operator %s, which %s")
}

// Type judges a cast, or a typed literal.
func (s *Snapshot) Type(schema, name string) string {
	return s.types.why(schema, name, "casts to %s, which %s")
}

// Attribute judges what stands behind a dot. It need not be known: a column is
// no function.
func (s *Snapshot) Attribute(name string) string {
	if why := s.attributes[name]; why != "" {
		return fmt.Sprintf("may call %s, which %s", name, why)
	}
	return ""
}

// why judges a name by all its places: which of them the session's search_path
// leads to is not known.
func (n names) why(schema, name, form string) string {
	found := false
	for _, p := range n[name] {
		if schema != "" && p.schema != schema {
			continue
		}
		found = true
		if p.why != "" {
			return fmt.Sprintf(form, name, p.why)
		}
	}
	if !found {
		return fmt.Sprintf(form, name, "the catalog does not know")
	}
	return ""
}

// add takes a row of schema, name and reason.
func (n names) add(row []string) { n[row[1]] = append(n[row[1]], place{row[0], row[2]}) }

// thing is a relation or a type before its reason is settled.
type thing struct {
	schema, name, why string
}

// graph is what is reached from what: a view reaches what it reads, a table
// its partitions, a domain its base type.
type graph struct {
	things map[string]*thing   // by oid
	above  map[string][]string // an oid -> those that reach it
}

func newGraph() graph { return graph{map[string]*thing{}, map[string][]string{}} }

// settle lets every thing share the reason of what it reaches, and gives the
// names.
func (g graph) settle() names {
	var queue []string
	for oid, t := range g.things {
		if t.why != "" {
			queue = append(queue, oid)
		}
	}
	root := map[string]*thing{}
	for len(queue) > 0 {
		oid := queue[0]
		queue = queue[1:]
		t := g.things[oid]
		if root[oid] == nil {
			root[oid] = t
		}
		for _, up := range g.above[oid] {
			if above := g.things[up]; above != nil && above.why == "" && root[up] == nil {
				root[up] = root[oid]
				queue = append(queue, up)
			}
		}
	}
	out := names{}
	for oid, t := range g.things {
		why := t.why
		if r := root[oid]; why == "" && r != nil {
			why = fmt.Sprintf("reaches %s, which %s", r.name, r.why)
		}
		out[t.name] = append(out[t.name], place{t.schema, why})
	}
	return out
}
