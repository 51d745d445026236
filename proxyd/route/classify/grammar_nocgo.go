//go:build !cgo

package classify

import (
	"errors"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// parse has no grammar: PostgreSQL's is written in C. Every query then goes to
// the primary.
func parse(string) (*pg_query.ParseResult, error) {
	return nil, errors.New("this proxyd was built without cgo, and so without PostgreSQL's grammar")
}
