package choose

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// node is what a server really is, which the Monitor only hears of, late.
type node struct {
	history  []int // the commits it holds, in order, 0 for what was never acknowledged; their count is its position
	replayed int
	timeline cluster.Timeline
	// since is the incarnation: connections of an earlier one are broken.
	since int
}

// position is never the header of a page.
func (n *node) position() cluster.LSN { return cluster.LSN(64 * (1 + n.replayed)) }

// client is one that writes and reads.
type client struct {
	last  int // its last commit, 0 for none
	wrote Tick
	conns map[cluster.NodeID]connection
}

type connection struct {
	opened Tick
	since  int
}

// message is an answer on its way to the Monitor.
type message struct{ deliver func() }

// model is a primary with two standbys, clients, and a monitor whose questions
// and answers take their time and overtake each other.
type model struct {
	rng     *rand.Rand
	m       *Monitor
	nodes   map[cluster.NodeID]*node
	primary cluster.NodeID
	commits int
	clients []*client
	flying  []message
	now     time.Time
	reads   int // served by a standby
	waited  int // reads that the client's own writes kept on the primary
}

var names = []cluster.NodeID{"a", "b", "c"}

func newModel(seed uint64) *model {
	w := &model{rng: rand.New(rand.NewPCG(seed, 0)), m: NewMonitor(), nodes: map[cluster.NodeID]*node{}, primary: "a", now: start}
	var configured []Node
	for _, n := range names {
		w.nodes[n] = &node{timeline: 1}
		configured = append(configured, Node{n, 1, true})
	}
	for range 3 {
		w.clients = append(w.clients, &client{conns: map[cluster.NodeID]connection{}})
	}
	w.m.Configure(configured, Limits{})
	w.m.SetPrimary("a")
	return w
}

func (w *model) standby() cluster.NodeID {
	for {
		if n := names[w.rng.IntN(len(names))]; n != w.primary {
			return n
		}
	}
}

func (w *model) step() error {
	c := w.clients[w.rng.IntN(len(w.clients))]
	switch p := w.rng.IntN(400); {
	case p < 12:
		w.commit(c)
	case p < 16:
		w.extend(0)
	case p < 100:
		return w.read(c)
	case p < 160:
		w.replay(w.standby())
	case p < 190:
		w.sample()
	case p < 230:
		w.look(w.standby())
	case p < 394:
		if len(w.flying) > 0 {
			i := w.rng.IntN(len(w.flying))
			w.flying[i].deliver()
			w.flying = append(w.flying[:i], w.flying[i+1:]...)
		}
	case p < 399:
		w.crash(w.standby())
	default:
		w.failover()
	}
	return nil
}

func (w *model) commit(c *client) {
	w.commits++
	w.extend(w.commits)
	c.last, c.wrote = w.commits, w.m.Now()
}

// extend writes on the primary.
func (w *model) extend(commit int) {
	p := w.nodes[w.primary]
	p.history = append(p.history[:len(p.history):len(p.history)], commit)
	p.replayed = len(p.history)
}

// replay lets a standby come nearer to the primary. One that holds what the
// primary's history does not have is rewound first, some time.
func (w *model) replay(name cluster.NodeID) {
	s, p := w.nodes[name], w.nodes[w.primary]
	if s.timeline != p.timeline {
		if w.rng.IntN(5) > 0 {
			return
		}
		s.timeline = p.timeline
		s.since++
		s.replayed = w.rng.IntN(min(s.replayed, len(p.history)) + 1)
		for !slices.Equal(s.history[:s.replayed], p.history[:s.replayed]) {
			s.replayed--
		}
	}
	s.replayed += w.rng.IntN(1 + len(p.history) - s.replayed)
	s.history = p.history[:s.replayed]
}

// sample asks the primary: the question and the answer both travel.
func (w *model) sample() {
	tick, of := w.m.Begin(), w.primary
	w.flying = append(w.flying, message{func() {
		n := w.nodes[of]
		timeline, at := n.timeline, n.position()
		w.flying = append(w.flying, message{func() { w.m.Sampled(tick, w.now, of, timeline, at) }})
	}})
}

func (w *model) look(name cluster.NodeID) {
	tick := w.m.Begin()
	w.flying = append(w.flying, message{func() {
		n := w.nodes[name]
		if w.primary == name {
			return // it says that it is no standby
		}
		timeline, at := n.timeline, n.position()
		w.flying = append(w.flying, message{func() { w.m.Replayed(tick, name, timeline, at) }})
	}})
}

// crash takes a standby back to an earlier position. That it happened is told
// late, or never.
func (w *model) crash(name cluster.NodeID) {
	n := w.nodes[name]
	n.since++
	n.replayed = w.rng.IntN(n.replayed + 1)
	n.history = n.history[:n.replayed]
	if w.rng.IntN(2) == 0 {
		w.flying = append(w.flying, message{func() { w.m.Lost(name) }})
	}
}

// failover promotes a standby that holds all that was acknowledged, and no
// more. Who has nothing that it has not follows it at once, but the old primary.
func (w *model) failover() {
	next := w.standby()
	old := w.nodes[w.primary]
	end := len(old.history)
	for end > 0 && old.history[end-1] == 0 {
		end--
	}
	p := w.nodes[next]
	p.history, p.replayed, p.timeline = old.history[:end], end, old.timeline+1
	for _, name := range names {
		n := w.nodes[name]
		if n != old && n != p && len(n.history) <= end && slices.Equal(n.history, p.history[:len(n.history)]) {
			n.timeline = p.timeline
		}
	}
	old.since++
	w.primary = next
	w.m.SetPrimary(next)
}

func (w *model) read(c *client) error {
	choice := w.m.View().Pick(Read{Wrote: c.wrote, Now: w.now, Random: w.rng.Uint64()})
	if choice.Cause == OwnWrites {
		w.waited++
	}
	if !choice.Standby {
		return nil
	}
	n := w.nodes[choice.Node]
	conn, open := c.conns[choice.Node]
	if !open || conn.since != n.since { // broken: a new one
		conn = connection{w.m.Now(), n.since}
		c.conns[choice.Node] = conn
	}
	if !choice.Holds(conn.opened) {
		return nil
	}
	w.reads++
	for _, commit := range n.history[:n.replayed] {
		if commit == c.last {
			return nil
		}
	}
	if c.last == 0 {
		return nil
	}
	return fmt.Errorf("%s shows %v of %v, and the client has committed %d", choice.Node, n.history[:n.replayed], n.history, c.last)
}

// TestNobodyReadsOlderThanItsOwnCommit plays random worlds. What the Monitor
// hears is late, out of order, or from before a crash that nobody told it of.
func TestNobodyReadsOlderThanItsOwnCommit(t *testing.T) {
	reads, waited := 0, 0
	for seed := range uint64(3000) {
		w := newModel(seed)
		for i := range 600 {
			if err := w.step(); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, i, err)
			}
		}
		reads += w.reads
		waited += w.waited
	}
	t.Logf("%d reads on standbys, %d kept on the primary by their client's writes", reads, waited)
	if reads < 10000 || waited < 10000 {
		t.Errorf("%d reads on standbys and %d that waited are too few to prove anything", reads, waited)
	}
}
