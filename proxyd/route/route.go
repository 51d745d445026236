package route

import (
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/route/choose"
	"github.com/pgtandem/pgtandem/proxyd/route/classify"
)

// Situation is what a decision is made from beside the client itself.
type Situation struct {
	View *choose.View
	// Now is the time by the clock that the Monitor is told.
	Now time.Time
	// Random is 64 random bits.
	Random uint64
	// Pinned is why the client cannot leave the server it has, "a temporary
	// table"; "" where it can. A client that has set its
	// default_transaction_isolation to serializable counts as pinned: a standby
	// has none.
	Pinned string
	// ReadOnly: the session's default_transaction_read_only is on.
	ReadOnly bool
}

// Cause is the kind of reason behind a decision.
type Cause uint8

// Causes.
const (
	None      Cause = iota // nothing has been decided yet
	ByText                 // what the text says, or what its names stand for
	ByPin                  // the client is pinned
	ByNodes                // it may be read anywhere: the nodes decided
	ByRefusal              // a standby could not serve it
)

func (c Cause) String() string {
	return [...]string{"none", "text", "pin", "nodes", "refusal"}[c]
}

// Decision is where something goes, and why. It is a value that is made
// without allocating.
type Decision struct {
	// Node is "" where there is no node for it now, and it has to wait for a
	// primary.
	Node    cluster.NodeID
	Standby bool
	At      time.Time
	Cause   Cause

	detail string
	choice choose.Choice
}

// Holds says whether it holds on a connection that was opened at this tick: see
// choose.Choice.
func (d Decision) Holds(opened choose.Tick) bool { return d.choice.Holds(opened) }

// Reason says in words why it went there: "it calls nextval, which is
// volatile".
func (d Decision) Reason() string {
	switch d.Cause {
	case ByText:
		return "it " + d.detail
	case ByPin:
		return "the client is pinned by " + d.detail
	case ByNodes:
		return d.choice.Cause.String()
	case ByRefusal:
		return d.detail + "; now " + d.choice.Cause.String()
	}
	return ""
}

// Label is the reason as a word, of which there are few: the label of a metric.
func (d Decision) Label() string {
	switch {
	case d.Cause == ByNodes && d.choice.Cause == choose.ByWeight && d.Standby:
		return "standby"
	case d.Cause == ByNodes && d.choice.Cause == choose.ByWeight:
		return "primary_by_weight"
	case d.Cause == ByNodes:
		return labels[d.choice.Cause]
	}
	return d.Cause.String()
}

var labels = map[choose.Cause]string{
	choose.NoStandby: "no_standby", choose.OptedOut: "no_standby_allowed", choose.Failed: "failed",
	choose.TooFar: "lag", choose.OwnWrites: "own_writes",
}

// String is the whole: "primary pgsql1: it calls nextval, which is volatile".
func (d Decision) String() string {
	if d.Cause == None {
		return "nothing has been decided yet"
	}
	where := "primary " + string(d.Node)
	switch {
	case d.Standby:
		where = "standby " + string(d.Node)
	case d.Node == "":
		where = "no node yet"
	}
	return where + ": " + d.Reason()
}

// Client is what routing remembers of one client. The zero value has written
// nothing. It is not safe for concurrent use: its owner gives Last to others.
type Client struct {
	wrote  choose.Tick
	writes bool // what was begun may write
	schema bool // and may change the schema
	last   Decision
}

// Last is the latest decision, for SHOW CLIENTS and the control socket.
func (c *Client) Last() Decision { return c.last }

// Decide says where what a client begins goes: a statement, a batch, or a
// whole transaction by its BEGIN.
func (c *Client) Decide(v classify.Verdict, s Situation) Decision {
	standby := v.Standby() || v.Kind == classify.Begin && s.ReadOnly
	c.writes = c.writes || !standby && v.Kind != classify.Local
	c.schema = c.schema || v.Schema
	switch {
	case s.Pinned != "":
		return c.decided(s, Decision{Cause: ByPin, detail: s.Pinned, choice: primary(s)})
	case !standby:
		return c.decided(s, Decision{Cause: ByText, detail: v.Reason, choice: primary(s)})
	}
	return c.decided(s, Decision{Cause: ByNodes, choice: s.View.Pick(choose.Read{Wrote: c.wrote, Now: s.Now, Random: s.Random})})
}

// Again decides anew for a read that failed on nodes before its first row.
// why is what RefusedByStandby said, or that the node was lost.
func (c *Client) Again(why string, failed []cluster.NodeID, s Situation) Decision {
	return c.decided(s, Decision{Cause: ByRefusal, detail: why,
		choice: s.View.Pick(choose.Read{Wrote: c.wrote, Now: s.Now, Random: s.Random, Not: failed})})
}

// Primary decides for the primary what had been decided for a standby, where
// that does not hold, or where a standby has refused it for what it is. The
// client may then be writing for all that is known.
func (c *Client) Primary(why string, s Situation) Decision {
	c.writes = true
	return c.decided(s, Decision{Cause: ByRefusal, detail: why, choice: primary(s)})
}

func primary(s Situation) choose.Choice {
	return choose.Choice{Node: s.View.Primary(), Cause: choose.OnPrimary}
}

func (c *Client) decided(s Situation, d Decision) Decision {
	d.Node, d.Standby, d.At = d.choice.Node, d.choice.Standby, s.Now
	c.last = d
	return d
}

// Within says of what runs in the transaction that is open whether it may
// change the schema. It goes where the transaction is, and counts at its end.
func (c *Client) Within(changesSchema bool) { c.schema = c.schema || changesSchema }

// Ended says that what was begun has ended, committed or not; now is the
// Monitor's tick after its last answer was read from the server. From here on
// the client reads what it wrote. True means that the catalog may have changed.
func (c *Client) Ended(now choose.Tick) (schemaChanged bool) {
	if c.writes {
		c.wrote = now
	}
	schemaChanged = c.schema
	c.writes, c.schema = false, false
	return schemaChanged
}

// Writing says that what is begun counts as a write already.
func (c *Client) Writing() bool { return c.writes }

// Wrote says that what runs behind what was decided may write, and perhaps
// change the schema. It counts at its end.
func (c *Client) Wrote(changesSchema bool) {
	c.writes = true
	c.Within(changesSchema)
}
