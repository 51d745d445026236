package cluster

import "time"

// Policy is what is wanted, as configured. It is explicit: nothing in the
// engine has a default of its own.
type Policy struct {
	Cluster string
	Nodes   []Node

	Failover      Automation // what to do when the primary is lost
	Rejoin        Automation // what to do with an old primary that returns
	Degrade       WhenShort  // what to do when too few standbys confirm
	UnsafePromote bool       // promote a standby that is not eligible; default false: hold
	BrokenPath    PathBroken // what to do when we do not reach the primary and a standby does

	// AsyncLimit ends an async that a person asked for after so long; 0 never.
	AsyncLimit time.Duration

	// DampingWindow is how far back failovers and losses of a standby are
	// counted: each one in it makes the next automatic one need longer
	// evidence, and a returning standby a longer stretch of streaming. 0 is no
	// damping. Proof is never damped.
	DampingWindow time.Duration

	SwapMethod SwapMethod
	SyncK      int    // how many standbys must confirm in sync mode
	SyncMethod string // "FIRST" or "ANY"

	// Slots gives every standby a replication slot on its primary. PostgreSQL
	// counts connections, not standbys: one that comes back while the primary
	// has not noticed the loss of its former connection would be counted twice,
	// and a slot is what only one of the two can hold. So where two or more must
	// confirm, a standby without its slot does not count.
	Slots bool

	// A node that gives no answer is lost after CheckRetries failed attempts,
	// CheckPeriod apart, each at most CheckTimeout long. Proof (refused, and
	// ssh says stopped) needs no retries.
	CheckPeriod  time.Duration
	CheckTimeout time.Duration
	CheckRetries int

	HoldTimeout time.Duration // how long a client waits at the closed gate
	DrainLimit  time.Duration // how long a switchover waits for open transactions
}

// Automation says who acts.
type Automation string

// Kinds of automation.
const (
	Automatic Automation = "automatic" // the engine acts
	Manual    Automation = "manual"    // the engine reports and waits for a person
)

// PathBroken says what a primary that only its standby still hears from is
// worth. Either way nothing is acknowledged by it once the standbys have
// promised; the question is whether service moves.
type PathBroken string

// What to do with a broken path.
const (
	PathHold    PathBroken = "hold"    // clients wait, a person decides
	PathPromote PathBroken = "promote" // the standbys promise, then one is promoted
)

// WhenShort says whether commits may go on without a confirming standby.
type WhenShort string

// Kinds of degradation.
const (
	DegradeAsync WhenShort = "async" // turn to async, so that writes go on unprotected
	DegradeNever WhenShort = "never" // strict: commits wait until a standby is back
)

// Node finds a configured node.
func (p Policy) Node(id NodeID) (Node, bool) {
	for _, n := range p.Nodes {
		if n.ID == id {
			return n, true
		}
	}
	return Node{}, false
}
