package sim

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// fresh is a cluster in sync, with clients, on a good day.
func fresh(t *testing.T, seed uint64, nodes int) *world {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	p := drawPolicy(rng)
	for len(p.Nodes) != nodes {
		p = drawPolicy(rng)
	}
	p.SyncK, p.Degrade, p.BrokenPath, p.AsyncLimit = 1, cluster.DegradeAsync, cluster.PathPromote, 0
	w := newWorld(seed, p, chances{latency: time.Millisecond, pace: 350 * time.Millisecond, walTimeout: 5 * time.Second})
	for range 3 {
		c := &client{w: w}
		w.clients = append(w.clients, c)
		c.run()
	}
	w.boot()
	w.until(settleIn, "it does not come up")
	if w.wrong != "" {
		t.Fatal(w.wrong)
	}
	return w
}

// scene is something that makes the engine act.
type scene struct {
	name string
	play func(w *world)
	want cluster.Action // it makes the engine do this, at least
}

var scenes = []scene{
	{"the primary dies", func(w *world) { w.nodes[0].kill() }, cluster.Promote},
	{"the primary dies and comes back", func(w *world) { w.nodes[0].kill(); w.at(4*time.Second, w.nodes[0].start) }, cluster.Fence},
	{"the primary's host is gone for a while", func(w *world) {
		n := w.nodes[0]
		n.hostDown = true
		n.crashes++
		n.kill()
		w.at(6*time.Second, func() { n.hostDown = false })
	}, cluster.Rejoin},
	{"the primary freezes and is woken", func(w *world) { w.nodes[0].freeze(); w.at(5*time.Second, w.nodes[0].thaw) }, cluster.Promote},
	{"a standby dies and comes back", func(w *world) { w.nodes[1].kill(); w.at(3*time.Second, w.nodes[1].start) }, cluster.Degrade},
	{"a standby comes back without the WAL it needs", func(w *world) {
		w.nodes[1].kill()
		w.at(3*time.Second, func() { w.nodes[0].disk.retained = w.nodes[0].disk.flushed; w.nodes[1].start() })
	}, cluster.Rejoin},
	{"a switchover", func(w *world) { w.ask(plan.Request{Action: cluster.Switchover, Node: "pgsql2"}) }, cluster.Switchover},
	{"async and back", func(w *world) {
		w.ask(plan.Request{Action: cluster.SetMode, Mode: cluster.ModeAsync})
		w.at(3*time.Second, func() { w.ask(plan.Request{Action: cluster.SetMode, Mode: cluster.ModeSync}) })
	}, cluster.SetMode},
	{"somebody empties the names", func(w *world) {
		p := w.nodes[0]
		p.disk.names, p.byHand, p.ours = "", true, false
		p.reload()
	}, cluster.Degrade},
	{"somebody promotes the standby", func(w *world) { w.nodes[1].promote() }, cluster.Fence},
	{"the primary restarts in place", func(w *world) { w.nodes[0].kill(); w.nodes[0].start() }, cluster.Reopen},
}

// The daemon is killed at every point between two effects of each scene, one
// run for each point. It must come back to the same end: one primary, all nodes
// in sync, and nothing lost.
func TestKilledAtEveryBoundary(t *testing.T) {
	for _, s := range scenes {
		for nodes := 2; nodes <= 3; nodes++ {
			first, last := playScene(t, s, nodes, 0)
			if last == first {
				t.Errorf("%s, %d nodes: the engine did nothing", s.name, nodes)
			}
			for point := first + 1; point <= last; point++ {
				playScene(t, s, nodes, point)
			}
		}
	}
}

// playScene plays a scene with the daemon killed at one point, and gives the
// points before and after it.
func playScene(t *testing.T, s scene, nodes, crashAt int) (first, last int) {
	t.Helper()
	w := fresh(t, 7, nodes)
	defer w.over()
	first, w.crashAt = w.crossed, crashAt
	s.play(w)
	w.run(w.now+8*time.Second, w.fine)
	last = w.crossed
	w.at(0, w.attend)
	w.until(healIn, "")
	if w.wrong == "" {
		w.checkEnd()
	}
	if w.wrong != "" {
		t.Errorf("%s, %d nodes, killed at point %d of %d: %s", s.name, nodes, crashAt-first, last-first, w.wrong)
	}
	return first, last
}
