// Package observe looks at the nodes, over SQL and over ssh, and keeps what it
// saw with its age as a cluster.Snapshot.
//
// It tells what is, never what it means: a node that does not answer is
// reported with how the attempt ended, and nothing here calls it dead.
package observe

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// Role says which of the configured roles a connection is for.
type Role int

// Roles of connections.
const (
	Health      Role = iota // is it there: the sentinel
	Replication             // positions and states
)

// HostProbe is what is asked of a node's machine.
type HostProbe interface {
	Postmaster(ctx context.Context) (cluster.Postmaster, int, error)
}

// Options are what an observer is made of.
type Options struct {
	Nodes []cluster.Node
	Check Check
	// Config says how to connect; it is asked for each connection, so that a
	// changed password is found.
	Config func(cluster.Node, Role) (*pgx.ConnConfig, error)
	Hosts  map[cluster.NodeID]HostProbe
	Now    func() time.Time
	// Witness, where set, is called from any goroutine before a node is asked
	// over SQL, and what it gives with the answer, however late that comes.
	Witness func(cluster.NodeID) func(cluster.NodeFacts, error)
}

// witness says that a node is about to be asked.
func (o *Observer) witness(id cluster.NodeID) (tell func(cluster.NodeFacts, error)) {
	if o.opt.Witness == nil {
		return func(cluster.NodeFacts, error) {}
	}
	return o.opt.Witness(id)
}

// Check is how often to look and how long to wait.
type Check struct {
	Period time.Duration // between two looks over SQL; failures count once in it
	// Positions is how often positions are read, where that is more often; a
	// look tells both, so it is never less.
	Positions time.Duration
	// Timeout is how long a node may be silent, while it owes an answer, until
	// that is a failure.
	Timeout time.Duration
}

// pause is how long to wait between two looks at a node that answers.
func (c Check) pause() time.Duration {
	if c.Positions > 0 {
		return min(c.Period, c.Positions)
	}
	return c.Period
}

// step is how far apart the failures of one silence are.
func (c Check) step() time.Duration { return max(c.Period, c.Timeout) }

// limit is how long a whole answer may take, with the login before it: some
// seven round trips, of which each may be late and one or two lost.
func (c Check) limit() time.Duration { return 5 * c.Timeout }

// Observer is the running observer.
type Observer struct {
	opt     Options
	changed chan struct{}
	nodes   map[cluster.NodeID]*watch

	mu    sync.Mutex
	check Check
	facts map[cluster.NodeID]cluster.NodeFacts
}

// watch is what belongs to one node.
type watch struct {
	node    cluster.Node
	suspect chan struct{}        // look at once over SQL, and often for a while
	asks    chan chan<- struct{} // look at once over SQL, and say when it is done
	host    chan struct{}        // look at once over ssh
	anew    chan struct{}        // the sentinel is to make its connection anew
	pulse   *pulse

	counted time.Time // guarded by Observer.mu: when the last failure that was counted began
}

// New makes an observer; Run starts it.
func New(opt Options) *Observer {
	o := &Observer{opt: opt, check: opt.Check, changed: make(chan struct{}, 1),
		nodes: map[cluster.NodeID]*watch{}, facts: map[cluster.NodeID]cluster.NodeFacts{}}
	for _, n := range opt.Nodes {
		o.nodes[n.ID] = &watch{node: n, suspect: make(chan struct{}, 1), asks: make(chan chan<- struct{}), host: make(chan struct{}, 1),
			anew: make(chan struct{}, 1), pulse: newPulse(opt.Now)}
		o.facts[n.ID] = cluster.NodeFacts{ID: n.ID, Role: cluster.RoleUnknown}
	}
	return o
}

// Run looks until ctx ends and returns when all its goroutines have.
func (o *Observer) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, w := range o.nodes {
		for _, f := range []func(context.Context, *watch){o.watchSQL, o.watchHost, o.sentinel} {
			wg.Add(1)
			go func() { defer wg.Done(); f(ctx, w) }()
		}
	}
	wg.Wait()
}

// Changed has a value when something worth deciding upon was seen.
func (o *Observer) Changed() <-chan struct{} { return o.changed }

// SetCheck changes how often to look, from the next look on.
func (o *Observer) SetCheck(c Check) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.check = c
}

func (o *Observer) checks() Check {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.check
}

// Suspect looks at a node at once, over SQL and ssh, and often for a while.
func (o *Observer) Suspect(id cluster.NodeID) {
	w, ok := o.nodes[id]
	if !ok {
		return
	}
	poke(w.suspect)
	poke(w.host)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Look makes a fresh look at a node, over SQL and ssh at once, and gives what
// was seen; it is in the snapshot too. How the look ended is in the facts; the
// error is only about the asking: there is no such node, or ctx ended first.
func (o *Observer) Look(ctx context.Context, id cluster.NodeID) (cluster.NodeFacts, error) {
	w, ok := o.nodes[id]
	if !ok {
		return cluster.NodeFacts{}, fmt.Errorf("look at %q: there is no such node", id)
	}
	var host sync.WaitGroup
	if probe, ok := o.opt.Hosts[id]; ok {
		host.Add(1)
		go func() { defer host.Done(); o.lookHost(ctx, w, probe) }()
	}
	defer host.Wait()
	done := make(chan struct{}, 1)
	select {
	case w.asks <- done:
	case <-ctx.Done():
		return cluster.NodeFacts{}, fmt.Errorf("look at %s: %w", id, ctx.Err())
	}
	select {
	case <-done:
	case <-ctx.Done():
		return cluster.NodeFacts{}, fmt.Errorf("look at %s: %w", id, ctx.Err())
	}
	host.Wait()
	return o.Snapshot().Node(id), nil
}

// Snapshot is what has been seen. It shares nothing with the observer.
func (o *Observer) Snapshot() cluster.Snapshot {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := cluster.Snapshot{Now: o.opt.Now()}
	for _, n := range o.opt.Nodes {
		f := o.facts[n.ID]
		f.Senders, f.Slots = slices.Clone(f.Senders), slices.Clone(f.Slots)
		f.ConfigErrors, f.SwitchHistory = slices.Clone(f.ConfigErrors), slices.Clone(f.SwitchHistory)
		if f.Receiver != nil {
			r := *f.Receiver
			f.Receiver = &r
		}
		s.Nodes = append(s.Nodes, f)
	}
	return s
}
