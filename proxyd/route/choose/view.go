package choose

import (
	"math/bits"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// View is what was known of the nodes at one moment. It does not change.
type View struct {
	limits   Limits
	primary  cluster.NodeID
	weight   uint64 // of the primary
	standbys []candidate
}

// candidate is a standby as a reader sees it.
type candidate struct {
	name     cluster.NodeID
	weight   uint64
	reads    bool
	observed Tick
	caught   Tick // the newest sample that it has replayed
	caughtAt time.Time
	behind   uint64 // bytes
}

// Primary is the node that takes writes, "" for none.
func (v *View) Primary() cluster.NodeID { return v.primary }

// Read is what there is to be read.
type Read struct {
	// Wrote is the tick at which the client's last commit had been answered; 0
	// where it has not written.
	Wrote Tick
	// Now is the time; the clock is the one that Sampled was called with.
	Now time.Time
	// Not are nodes on which this read has failed already.
	Not []cluster.NodeID
	// Random is 64 random bits.
	Random uint64
}

// Cause is why a read goes where it goes.
type Cause uint8

// Causes, each stronger than those before it: where the primary is chosen for
// want of a standby, the strongest that kept a standby away is told.
const (
	NoStandby Cause = iota // none is in sight
	OptedOut               // none is allowed reads
	Failed                 // it has failed there already
	TooFar                 // none is within the limits
	OwnWrites              // none has replayed what the client wrote
	ByWeight               // it was this node's turn
	OnPrimary              // it was not asked for a standby
)

func (c Cause) String() string {
	return [...]string{
		"no standby is in sight",
		"no standby is allowed reads",
		"it has failed on the standbys already",
		"no standby is within the limits of lag",
		"no standby has replayed yet what the client wrote",
		"by weight",
		"it needs the primary",
	}[c]
}

// Choice is where a read goes.
type Choice struct {
	Node    cluster.NodeID // "" where there is neither a primary nor a standby for it
	Standby bool
	Cause   Cause
	// observed: for a standby, when the look began that the choice rests on.
	observed Tick
}

// Holds says whether the choice holds on a connection that was opened by this
// tick, the Monitor's Now after the login. On a younger one the server may be
// another incarnation of itself than was looked at: then the read goes to the
// primary, or over an older connection.
func (c Choice) Holds(opened Tick) bool { return !c.Standby || opened < c.observed }

// Pick chooses. It allocates nothing, and the same view, read and random bits
// give the same choice.
func (v *View) Pick(r Read) Choice {
	cause, total := NoStandby, uint64(0)
	found := false
	for i := range v.standbys {
		why := v.fit(&v.standbys[i], &r)
		if why != ByWeight {
			cause = max(cause, why)
			continue
		}
		found = true
		total += v.standbys[i].weight
	}
	if !found {
		return Choice{Node: v.primary, Cause: cause}
	}
	if v.primary != "" && !slices.Contains(r.Not, v.primary) {
		total += v.weight
	}
	at, _ := bits.Mul64(r.Random, total) // less than total, each as likely
	for i := range v.standbys {
		c := &v.standbys[i]
		if v.fit(c, &r) != ByWeight {
			continue
		}
		if at < c.weight || v.primary == "" && total == 0 {
			return Choice{Node: c.name, Standby: true, Cause: ByWeight, observed: c.observed}
		}
		at -= c.weight
	}
	return Choice{Node: v.primary, Cause: ByWeight}
}

// fit says whether a standby can serve a read: ByWeight if so.
func (v *View) fit(c *candidate, r *Read) Cause {
	switch {
	case !c.reads:
		return OptedOut
	case c.observed == 0:
		return NoStandby
	case slices.Contains(r.Not, c.name):
		return Failed
	case c.caught == 0,
		v.limits.Bytes > 0 && c.behind > v.limits.Bytes,
		v.limits.Age > 0 && r.Now.Sub(c.caughtAt) > v.limits.Age:
		return TooFar
	case c.caught <= r.Wrote:
		return OwnWrites
	}
	return ByWeight
}
