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
}

// Check is how often to look and how long to wait.
type Check struct {
	Period  time.Duration // between two looks over SQL
	Timeout time.Duration // of one look
}

// suspicion is how a node is looked at once something seems wrong.
const (
	suspicionPause = 20 * time.Millisecond
	suspicionLasts = 2 * time.Second
)

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
	suspect chan struct{} // look at once over SQL
	host    chan struct{} // look at once over ssh
}

// New makes an observer; Run starts it.
func New(opt Options) *Observer {
	o := &Observer{opt: opt, check: opt.Check, changed: make(chan struct{}, 1),
		nodes: map[cluster.NodeID]*watch{}, facts: map[cluster.NodeID]cluster.NodeFacts{}}
	for _, n := range opt.Nodes {
		o.nodes[n.ID] = &watch{node: n, suspect: make(chan struct{}, 1), host: make(chan struct{}, 1)}
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

// SetCheck changes how often to look.
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

// Snapshot is what has been seen. It shares nothing with the observer.
func (o *Observer) Snapshot() cluster.Snapshot {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := cluster.Snapshot{Now: o.opt.Now()}
	for _, n := range o.opt.Nodes {
		f := o.facts[n.ID]
		f.Senders, f.ConfigErrors = slices.Clone(f.Senders), slices.Clone(f.ConfigErrors)
		if f.Receiver != nil {
			r := *f.Receiver
			f.Receiver = &r
		}
		s.Nodes = append(s.Nodes, f)
	}
	return s
}

// watchSQL looks at one node over SQL, on a connection that is kept.
func (o *Observer) watchSQL(ctx context.Context, w *watch) {
	var conn *pgx.Conn
	defer func() { hangUp(conn) }()
	var until time.Time // suspicion lasts
	for ctx.Err() == nil {
		conn = o.look(ctx, w, conn)
		pause := o.checks().Period
		if o.opt.Now().Before(until) {
			pause = suspicionPause
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-w.suspect:
			until = o.opt.Now().Add(suspicionLasts)
		}
		t.Stop()
	}
}

// look makes one attempt and files how it ended.
func (o *Observer) look(ctx context.Context, w *watch, conn *pgx.Conn) *pgx.Conn {
	began := o.opt.Now()
	bounded, cancel := context.WithTimeout(ctx, o.checks().Timeout)
	defer cancel()
	var facts cluster.NodeFacts
	var err error
	// A kept connection may have been cut by a restart; only a fresh one
	// tells whether the server is there.
	for attempt := range 2 {
		if conn == nil {
			if conn, err = o.dial(bounded, w.node, Replication); err != nil {
				break
			}
			attempt = 1
		}
		if facts, err = gather(bounded, conn); err == nil {
			break
		}
		hangUp(conn)
		conn = nil
		if attempt == 1 || bounded.Err() != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return conn
	}
	if err != nil {
		o.failed(w, began, err)
	} else {
		o.answered(w, began, facts)
	}
	return conn
}

func hangUp(conn *pgx.Conn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx) // it is given up either way
}

func (o *Observer) dial(ctx context.Context, n cluster.Node, role Role) (*pgx.Conn, error) {
	cfg, err := o.opt.Config(n, role)
	if err != nil {
		return nil, fmt.Errorf("make a connection to %s: %w", n.ID, err)
	}
	cfg.RuntimeParams["application_name"] = "pgtandem observer"
	return pgx.ConnectConfig(ctx, cfg)
}

// answered files a successful look. What it saw counts as of when it was
// asked: a change made meanwhile may not be in it.
func (o *Observer) answered(w *watch, began time.Time, f cluster.NodeFacts) {
	o.mu.Lock()
	was := o.facts[w.node.ID]
	f.ID, f.Host = w.node.ID, was.Host
	f.Reach, f.LastTry, f.LastOK = cluster.ReachOK, began, began
	f.ReachSince = was.ReachSince
	if was.Reach != cluster.ReachOK {
		f.ReachSince = began
	}
	o.facts[w.node.ID] = f
	o.mu.Unlock()
	if notable(was, f) {
		poke(o.changed)
	}
	if was.Reach != cluster.ReachOK {
		poke(w.host)
	}
}

// notable says whether a decision could depend on the difference. Positions
// move all the time and decide nothing by themselves.
func notable(a, b cluster.NodeFacts) bool {
	if a.Reach != b.Reach || a.Role != b.Role || a.Timeline != b.Timeline || a.SyncStandbyNames != b.SyncStandbyNames ||
		a.SystemIdentifier != b.SystemIdentifier || a.Conninfo != b.Conninfo || len(a.Senders) != len(b.Senders) ||
		(a.Receiver == nil) != (b.Receiver == nil) || !a.StartedAt.Equal(b.StartedAt) {
		return true
	}
	for i := range a.Senders {
		x, y := a.Senders[i], b.Senders[i]
		if x.ApplicationName != y.ApplicationName || x.State != y.State || x.SyncState != y.SyncState {
			return true
		}
	}
	return false
}

// failed files an attempt without an answer. Failures are counted once a
// period, so that looking often under suspicion does not use up the retries.
func (o *Observer) failed(w *watch, began time.Time, err error) {
	reach := classify(err)
	now := o.opt.Now()
	o.mu.Lock()
	f := o.facts[w.node.ID]
	before := f.Reach
	if f.Reach == cluster.ReachOK || f.Reach == cluster.ReachUnknown {
		f.Failures, f.ReachSince = 1, began
	} else if now.Sub(f.ReachSince) >= time.Duration(f.Failures)*o.check.Period {
		f.Failures++
	}
	f.Reach, f.LastTry, f.LastError = reach, now, err.Error()
	count := f.Failures
	old := o.facts[w.node.ID].Failures
	o.facts[w.node.ID] = f
	o.mu.Unlock()
	if before != reach {
		poke(w.host)
		if before == cluster.ReachOK {
			poke(w.suspect)
		}
	}
	if before != reach || count != old {
		poke(o.changed)
	}
}

// watchHost asks the node's machine, slowly while all is well and at once on
// suspicion.
func (o *Observer) watchHost(ctx context.Context, w *watch) {
	probe, ok := o.opt.Hosts[w.node.ID]
	if !ok {
		return
	}
	for ctx.Err() == nil {
		o.lookHost(ctx, w, probe)
		o.mu.Lock()
		pause := 5 * o.check.Period
		if f := o.facts[w.node.ID]; f.Reach != cluster.ReachOK && f.Host.Postmaster == cluster.PostmasterRunning {
			// The server is gone or going, and its machine still has a
			// process: the proof may be a moment away.
			pause = suspicionPause
			if o.opt.Now().Sub(f.ReachSince) > suspicionLasts {
				pause = o.check.Period
			}
		}
		o.mu.Unlock()
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-w.host:
		}
		t.Stop()
	}
}

func (o *Observer) lookHost(ctx context.Context, w *watch, probe HostProbe) {
	began := o.opt.Now()
	bounded, cancel := context.WithTimeout(ctx, o.checks().Timeout)
	defer cancel()
	state, pid, err := probe.Postmaster(bounded)
	if ctx.Err() != nil {
		return
	}
	o.mu.Lock()
	f := o.facts[w.node.ID]
	was := f.Host
	// What is said counts as of when it was asked.
	f.Host.LastTry, f.Host.Reachable = began, err == nil
	if err != nil {
		f.Host.Postmaster, f.Host.PID, f.Host.LastError = cluster.PostmasterUnknown, 0, err.Error()
	} else {
		f.Host.Postmaster, f.Host.PID, f.Host.LastOK, f.Host.LastError = state, pid, o.opt.Now(), ""
	}
	o.facts[w.node.ID] = f
	unproved := f.Reach != cluster.ReachOK && was.LastTry.Before(f.ReachSince)
	o.mu.Unlock()
	if was.Postmaster != f.Host.Postmaster || was.Reachable != f.Host.Reachable || unproved {
		poke(o.changed)
	}
}

// sentinel keeps an idle connection and does nothing but wait on it: when the
// server dies, its end is seen within a millisecond and not at the next look.
func (o *Observer) sentinel(ctx context.Context, w *watch) {
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, o.checks().Timeout)
		conn, err := o.dial(bounded, w.node, Health)
		cancel()
		if err == nil {
			_, err = conn.WaitForNotification(ctx)
			hangUp(conn)
			if err != nil && ctx.Err() == nil {
				o.Suspect(w.node.ID)
			}
		}
		t := time.NewTimer(o.checks().Period)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}
