package pool

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

// Links are the connections that the gate lets through or severs.
type Links interface {
	// Cut severs every link at once.
	Cut(reason string)
	// Drain severs links that are outside a transaction, makes the others end
	// with theirs, and gives the count of those. changed is closed when that
	// count may be lower.
	Drain(reason string) (open int, changed <-chan struct{})
}

// Target is where traffic goes.
type Target struct {
	Node  cluster.Node
	Term  cluster.Term
	Epoch uint64 // one for each opening; 0 for a standby
	// Standby: the node is read from, and never by way of the gate.
	Standby bool
}

// Gate is the switch between clients and the writable node. It begins closed.
type Gate struct {
	now func() time.Time

	mu     sync.Mutex
	links  Links
	open   bool
	target Target
	since  time.Time
	reason string
	epoch  uint64
	change chan struct{} // closed at each opening and closing

	held     map[*hold]struct{}
	holds    uint64        // that have ended
	holdTime time.Duration // of those together
}

type hold struct{ since time.Time }

var _ execute.Gate = (*Gate)(nil)

// NewGate makes a closed gate.
func NewGate(now func() time.Time) *Gate {
	return &Gate{now: now, since: now(), reason: "no primary has been proved yet",
		change: make(chan struct{}), held: make(map[*hold]struct{})}
}

// Attach names the links that Close severs. Call it before the first Open.
func (g *Gate) Attach(l Links) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.links = l
}

// Close stops traffic. With cut every link is severed at once; without, open
// transactions may end until ctx is done, and the count of those that have not
// is returned. A closed gate may be closed again, to cut what was left.
func (g *Gate) Close(ctx context.Context, reason string, cut bool) (int, error) {
	g.mu.Lock()
	if g.open {
		g.open, g.since = false, g.now()
		g.turn()
	}
	g.reason = reason
	links := g.links
	g.mu.Unlock()
	if links == nil {
		return 0, nil
	}
	if cut {
		links.Cut(reason)
		return 0, nil
	}
	for {
		open, changed := links.Drain(reason)
		if open == 0 {
			return 0, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			open, _ = links.Drain(reason)
			return open, nil
		}
	}
}

// Doubt stops traffic to a node of which a connection has just broken: its
// server may be on its way down, or be up again and show what no standby has.
// Nothing is severed. Whoever opens the gate proves the node first. It says
// whether the gate was open to the node.
func (g *Gate) Doubt(node cluster.NodeID, reason string) (closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.open || g.target.Node.ID != node {
		return false
	}
	g.open, g.since, g.reason = false, g.now(), reason
	g.turn()
	return true
}

// Since is when the gate was opened or closed last.
func (g *Gate) Since() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.since
}

// turn starts a new epoch and wakes everybody. The lock is held.
func (g *Gate) turn() {
	g.epoch++
	close(g.change)
	g.change = make(chan struct{})
}

// Open lets traffic to node. A term lower than one it has been opened with, or
// the same term with another node, is refused. Links left from another node
// are severed first.
func (g *Gate) Open(_ context.Context, term cluster.Term, node cluster.Node) error {
	g.mu.Lock()
	last := g.target
	switch {
	case term < last.Term:
		g.mu.Unlock()
		return fmt.Errorf("open the gate to %s with term %d: it was opened with term %d: %w", node.ID, term, last.Term, execute.ErrRefused)
	case term == last.Term && last.Node.ID != "" && last.Node.ID != node.ID:
		g.mu.Unlock()
		return fmt.Errorf("open the gate to %s with term %d: that term belongs to %s: %w", node.ID, term, last.Node.ID, execute.ErrRefused)
	case g.open && term == last.Term && node.Addr() == last.Node.Addr():
		g.mu.Unlock()
		return nil
	}
	// Claim the term before letting go of the lock, so that a slower opening
	// with a lower one is refused.
	g.target = Target{Node: node, Term: term}
	wasOpen, links := g.open, g.links
	g.open = false
	if wasOpen {
		g.turn()
	}
	claim := g.epoch
	g.mu.Unlock()

	// Links that are still draining from the very same opening, after a
	// switchover that was given up, may end with their transactions.
	same := term == last.Term && node.Addr() == last.Node.Addr()
	if links != nil && last.Node.ID != "" && !same {
		links.Cut(fmt.Sprintf("traffic moves to %s", node.ID))
	}

	g.mu.Lock()
	defer g.mu.Unlock()
	if g.epoch != claim || g.target.Term != term {
		return fmt.Errorf("open the gate to %s with term %d: it was moved meanwhile: %w", node.ID, term, execute.ErrRefused)
	}
	g.open, g.since, g.reason = true, g.now(), ""
	g.turn()
	g.target.Epoch = g.epoch
	return nil
}

// Target is where traffic goes now; ok is false while the gate is closed.
func (g *Gate) Target() (t Target, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.target, g.open
}

// Current says whether the opening of that epoch still stands.
func (g *Gate) Current(epoch uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open && g.target.Epoch == epoch
}

// Hold counts the caller among the held until done is called.
func (g *Gate) Hold() (done func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := &hold{since: g.now()}
	g.held[h] = struct{}{}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.held, h)
		g.holds++
		g.holdTime += g.now().Sub(h.since)
	}
}

// Holds counts the holds that have ended since the start, and their time
// together.
func (g *Gate) Holds() (ended uint64, total time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.holds, g.holdTime
}

// Wait blocks until the gate is open or ctx is done.
func (g *Gate) Wait(ctx context.Context) (Target, error) {
	for {
		g.mu.Lock()
		open, target, change := g.open, g.target, g.change
		g.mu.Unlock()
		if open {
			return target, nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return Target{}, ctx.Err()
		}
	}
}

// Changed is closed at the next opening or closing.
func (g *Gate) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.change
}

// Reason is why the gate is closed, "" when it is open.
func (g *Gate) Reason() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reason
}

// Status is what the console shows.
func (g *Gate) Status() api.Gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := api.Gate{State: "closed", Term: uint64(g.target.Term), Since: g.since, Reason: g.reason, Held: len(g.held)}
	if g.open {
		s.State, s.Node = "open", g.target.Node.ID.String()
	}
	now := g.now()
	for h := range g.held {
		s.OldestHeldMS = max(s.OldestHeldMS, now.Sub(h.since).Milliseconds())
	}
	return s
}
