// Package execute runs plans: for each step it writes the journal, looks
// again, does, and verifies by observing. It owns the order of these and
// nothing of what a step means; that belongs to the Doer of the step's kind,
// in a package below (sql/, ssh/) or beside (provision).
//
// It must never decide what to do next: the plan says so.
package execute

import (
	"context"
	"errors"
	"io"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// Doer knows one kind of step. Both methods may be called again for a step
// that was interrupted, so Do must be safe to repeat once Check has said no.
type Doer interface {
	// Check looks whether the step's postcondition holds already. detail says
	// what was seen, for the journal ("TL 8 at 0/5000148").
	Check(ctx context.Context, s plan.Step) (done bool, detail string, err error)

	// Do makes it hold. progress may be called with a line for a person.
	Do(ctx context.Context, s plan.Step, progress func(string)) error
}

// Errors a Doer or a Host returns, by what the caller may do about them.
var (
	// ErrRetry: nothing was changed; the same call may succeed later.
	ErrRetry = errors.New("not now")
	// ErrUnknown: it was sent and no answer came. Look before anything else.
	ErrUnknown = errors.New("outcome unknown")
	// ErrRefused: it would be unsafe, or a person must settle it first.
	ErrRefused = errors.New("refused")
	// ErrUnreachable: the host or server gave no answer; nothing was sent.
	ErrUnreachable = errors.New("unreachable")
)

// Gate is the switch that lets client traffic reach the writable node.
type Gate interface {
	// Close stops traffic; clients are held. With cut, links in use are
	// severed at once (the node is lost); without, open transactions may end.
	// It returns when no further statement can reach a server, or with the
	// count of transactions still open at ctx's deadline.
	Close(ctx context.Context, reason string, cut bool) (open int, err error)

	// Open lets traffic to node. A term lower than one it has been opened
	// with is refused.
	Open(ctx context.Context, term cluster.Term, node cluster.Node) error
}

// Command is a program to run on a node's host, as an argument vector: it is
// quoted for the remote shell word by word and never built from a string.
type Command struct {
	Argv  []string
	Stdin io.Reader    // nil for none
	Lines func(string) // when set, called with each line of output as it comes (stdout and stderr)
}

// Result is what a finished command left. A non-zero exit is not an error.
type Result struct {
	Stdout, Stderr []byte
	Exit           int
}

// Host runs commands on a node's machine. Errors wrap ErrUnreachable when
// nothing was started and ErrUnknown when the connection was lost after it.
type Host interface {
	Run(ctx context.Context, c Command) (Result, error)
}
