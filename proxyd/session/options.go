package session

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// Mode says how long a client keeps its server.
type Mode string

// Modes, as the configuration names them.
const (
	ModeSession     Mode = "session"
	ModeTransaction Mode = "transaction"
)

// Options is all a Server needs.
type Options struct {
	Listeners []net.Listener
	Limits    Limits

	Security Security

	// Loops is how many event loops, each with a thread of its own, serve the
	// connections that are logged in. Zero or less is one for every four
	// processors: one is the least work for each query, and enough until it
	// fills a processor, of which the servers need several by then.
	Loops int

	Verifiers Verifiers
	Router    Router
	Gate      *pool.Gate
	Console   Console // nil for none

	// Outcomes says what became of a COMMIT whose answer was lost with its
	// server. Without it that is in doubt.
	Outcomes Outcomes

	// BackendFailed is told at once, from any goroutine, when a connection to
	// a node breaks or cannot be made. It must not block.
	BackendFailed func(node cluster.NodeID, err error)

	// BackendLost is told the same way, and before BackendFailed, when a
	// connection that was made breaks.
	BackendLost func(node cluster.NodeID, err error)

	// Newest is the newest version of the protocol that clients are granted: the
	// servers', so that nobody gets another one here than by connecting to them.
	// Without it that is 3.2, which the proxy speaks with any of them.
	Newest func() uint32

	// Elsewhere is told of a CancelRequest that is for none of our clients. It
	// returns when the request has been dealt with, and says whether it was for
	// somebody else's.
	Elsewhere func(pid uint32, key wire.CancelKey) bool

	Log *slog.Logger
}

// Verifier is what the primary keeps of a role.
type Verifier struct {
	Secret     string    // pg_authid.rolpassword, "" for NULL
	ValidUntil time.Time // pg_authid.rolvaliduntil; zero for none
	CanLogin   bool      // pg_authid.rolcanlogin
	MemberOf   []string  // roles it is a member of, directly or not, itself left out
}

// Verifiers looks roles up on the primary.
type Verifiers interface {
	// Lookup gives ErrNoRole for a role that does not exist, and any other
	// error when the primary could not be asked.
	Lookup(ctx context.Context, user string) (Verifier, error)
}

// ErrNoRole means that there is no such role.
var ErrNoRole = errors.New("no such role")

// Commit is a COMMIT that was sent to a server which was lost before it answered.
type Commit struct {
	Node      cluster.NodeID
	Term      cluster.Term
	Connected time.Time   // when the lost connection was made
	XID       uint64      // pg_current_xact_id() of the transaction
	LSN       cluster.LSN // pg_current_wal_insert_lsn() before the COMMIT: the transaction's records lie below it, and its commit record above
}

// Outcome is what became of a COMMIT.
type Outcome uint8

// Outcomes.
const (
	OutcomeUnknown Outcome = iota
	OutcomeCommitted
	OutcomeAborted
)

// Outcomes finds out what became of COMMITs.
type Outcomes interface {
	// Outcome waits for a primary that can tell, until ctx is done. An error
	// says why it is unknown.
	Outcome(ctx context.Context, c Commit) (Outcome, error)
}

// Request is what a client asks a server for.
type Request struct {
	Database, User string
	// ReadOnly: the transaction said of itself that it writes nothing.
	ReadOnly bool
}

// Router says which node a request goes to. *pool.Gate behind GateRouter sends
// everything to the primary.
type Router interface {
	// Try is Acquire for when there is a node at once.
	Try(r Request) (t pool.Target, ok bool)
	// Acquire waits until there is a node for the request, or ctx is done.
	Acquire(ctx context.Context, r Request) (pool.Target, error)
}

// GateRouter sends every request to the node the gate is open to.
type GateRouter struct{ Gate *pool.Gate }

// Try implements Router.
func (r GateRouter) Try(Request) (pool.Target, bool) { return r.Gate.Target() }

// Acquire implements Router.
func (r GateRouter) Acquire(ctx context.Context, _ Request) (pool.Target, error) {
	return r.Gate.Wait(ctx)
}

// orDefault fills in what may be left out.
func (o Options) orDefault() Options {
	if o.Router == nil {
		o.Router = GateRouter{o.Gate}
	}
	if o.Console == nil {
		o.Console = noConsole{}
	}
	if o.BackendLost == nil {
		o.BackendLost = func(cluster.NodeID, error) {}
	}
	if o.BackendFailed == nil {
		o.BackendFailed = func(cluster.NodeID, error) {}
	}
	if o.Newest == nil {
		o.Newest = func() uint32 { return wire.Version32 }
	}
	if o.Elsewhere == nil {
		o.Elsewhere = func(uint32, wire.CancelKey) bool { return false }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Loops <= 0 {
		o.Loops = max(1, runtime.NumCPU()/4)
	}
	o.Limits = o.Limits.orDefault()
	return o
}
