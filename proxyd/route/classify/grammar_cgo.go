//go:build cgo

package classify

import (
	"fmt"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"github.com/pganalyze/pg_query_go/v6/parser"
	"google.golang.org/protobuf/proto"
)

// parse gives the tree that PostgreSQL's own grammar makes of a text. The C
// code recurses as deeply as the tree is, so the caller bounds that.
func parse(text string) (*pg_query.ParseResult, error) {
	encoded, err := parser.ParseToProtobuf(text)
	if err != nil {
		return nil, fmt.Errorf("parse a statement: %w", err)
	}
	tree := &pg_query.ParseResult{}
	if err := proto.Unmarshal([]byte(encoded), tree); err != nil {
		return nil, fmt.Errorf("decode the tree of a statement: %w", err)
	}
	return tree, nil
}
