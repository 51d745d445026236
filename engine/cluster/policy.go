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

	SwapMethod SwapMethod
	SyncK      int    // how many standbys must confirm in sync mode
	SyncMethod string // "FIRST" or "ANY"

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
