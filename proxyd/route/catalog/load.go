package catalog

import (
	"context"
	"errors"
	"fmt"
)

// Session is a connection to a node, at best to the primary, as a role that
// may read the catalog: any role may.
type Session interface {
	// Query runs one statement and gives each row's values as text, NULL as "".
	// The row is valid until each returns.
	Query(ctx context.Context, sql string, each func(row []string) error) error
	// Close ends the connection.
	Close()
}

// MostRelations is how many relations a database may have for its reads to be
// routed: each takes about 150 bytes here.
const MostRelations = 500_000

// errFull ends the reading of too many rows.
var errFull = errors.New("more relations than are kept")

// Fingerprint gives a text that changes whenever Load would read something
// else. It takes about a tenth of Load's time.
func Fingerprint(ctx context.Context, s Session) (string, error) {
	var print string
	err := within(ctx, s, func() error {
		return s.Query(ctx, fingerprintQuery, func(row []string) error {
			print = row[0]
			return nil
		})
	})
	if err != nil {
		return "", fmt.Errorf("read the fingerprint of the catalog: %w", err)
	}
	return print, nil
}

// Load reads the catalog as it is at one moment.
func Load(ctx context.Context, s Session) (*Snapshot, error) {
	l := loader{ctx: ctx, session: s, out: &Snapshot{
		functions: names{}, operators: names{}, attributes: map[string]string{},
	}}
	if err := within(ctx, s, l.load); err != nil {
		if errors.Is(err, errFull) {
			return Unready(fmt.Sprintf("runs in a database of more than %d relations, which are not kept", MostRelations)), nil
		}
		return nil, fmt.Errorf("read the catalog: %w", err)
	}
	return l.out, nil
}

// within runs what reads in a transaction that sees one moment, and in which
// every name is PostgreSQL's own.
func within(ctx context.Context, s Session, read func() error) error {
	for _, sql := range []string{begin, path} {
		if err := s.Query(ctx, sql, func([]string) error { return nil }); err != nil {
			return err
		}
	}
	if err := read(); err != nil {
		return err // whoever opened the session closes it, and the transaction with it
	}
	return s.Query(ctx, commit, func([]string) error { return nil })
}

type loader struct {
	ctx     context.Context
	session Session
	out     *Snapshot
}

func (l *loader) load() error {
	relations, types := newGraph(), newGraph()
	for _, q := range []struct {
		what, sql string
		columns   int
		each      func(row []string) error
	}{
		{"implicit casts", implicitQuery, 3, func(r []string) error {
			l.out.unready = fmt.Sprintf("may use the implicit cast from %s to %s, which calls %s", r[0], r[1], r[2])
			return nil
		}},
		{"defaults", serializableQuery, 1, func([]string) error {
			l.out.unready = "runs where transactions are SERIALIZABLE by a default of the server, the database or a role, which a standby refuses"
			return nil
		}},
		{"functions", functionsQuery, 3, func(r []string) error { l.out.functions.add(r); return nil }},
		{"attributes", attributesQuery, 2, func(r []string) error { l.out.attributes[r[0]] = r[1]; return nil }},
		{"operators", operatorsQuery, 3, func(r []string) error { l.out.operators.add(r); return nil }},
		{"types", typesQuery, 4, types.thing},
		{"types of types", basesQuery, 2, types.edge},
		{"relations", relationsQuery, 4, relations.thing},
		{"what relations call", callsQuery, 2, relations.cause},
		{"what relations read", readsQuery, 2, relations.edge},
	} {
		if err := l.query(q.what, q.sql, q.columns, q.each); err != nil {
			return err
		}
	}
	l.out.types = types.settle()
	if err := l.query("what relations cast", castsQuery, 2, func(r []string) error {
		if t := types.things[r[1]]; t != nil {
			if why := l.out.types.why(t.schema, t.name, "casts to %s, which %s"); why != "" {
				return relations.cause([]string{r[0], why})
			}
		}
		return nil
	}); err != nil {
		return err
	}
	l.out.relations = relations.settle()
	return nil
}

func (l *loader) query(what, sql string, columns int, each func(row []string) error) error {
	err := l.session.Query(l.ctx, sql, func(row []string) error {
		if len(row) != columns {
			return fmt.Errorf("%d columns, want %d", len(row), columns)
		}
		return each(row)
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	return nil
}

// thing takes a row of oid, schema, name and reason.
func (g graph) thing(row []string) error {
	if len(g.things) >= MostRelations {
		return errFull
	}
	g.things[row[0]] = &thing{row[1], row[2], row[3]}
	return nil
}

// cause takes a row of oid and reason.
func (g graph) cause(row []string) error {
	if t := g.things[row[0]]; t != nil && t.why == "" {
		t.why = row[1]
	}
	return nil
}

// edge takes a row of an oid and one that is reached from it.
func (g graph) edge(row []string) error {
	g.above[row[1]] = append(g.above[row[1]], row[0])
	return nil
}
