package history

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Codes that are no SQLSTATE.
const (
	CodeConnect    = "connect"    // no connection was made, so nothing was sent
	CodeConnection = "connection" // the connection was lost, or given up
)

// refusals are the SQLSTATEs (or their classes, of two characters) after which
// nothing of the statement can have happened. Whatever is not here may have:
// a server that is stopped while a commit waits for its standby, for one, says
// 57P01 of a transaction that it has committed.
var refusals = map[string]bool{
	"22":    true, // a value that does not fit
	"23":    true, // a constraint
	"25":    true, // read-only, or in a failed transaction
	"26":    true, // no such prepared statement
	"28":    true, // the login
	"40001": true, // the contract: rolled back, safe to repeat
	"40P01": true, // deadlock
	"42":    true, // syntax, rights
	"53100": true, // disk full, before the commit was written
	"53300": true, // too many connections
	"55":    true, // not in the state for it
	"57014": true, // cancelled before the commit
	"57P03": true, // held to the limit, never sent
}

// CodeOf is an error's SQLSTATE, or CodeConnection where no server said one.
func CodeOf(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeConnection
}

// OutcomeOf reads the answer to a statement that commits, or to a COMMIT. An
// error that is not known to be a refusal leaves the outcome unknown.
func OutcomeOf(err error) Outcome {
	if err == nil {
		return OK
	}
	code := CodeOf(err)
	if refusals[code] || len(code) == 5 && !strings.HasPrefix(code, "XX") && refusals[code[:2]] {
		return Failed
	}
	return Unknown
}
