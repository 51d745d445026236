package sim

import (
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// fault is one kind of thing that goes wrong. It gives what ends it, or nil
// where nothing does but the engine, or a person at the healing.
type fault struct {
	name string
	do   func(w *world) (undo func())
	// least is how long it lasts at least: no machine comes back as fast as a
	// process does.
	least time.Duration
}

// any draws a node.
func (w *world) any() *node { return w.nodes[w.rng.IntN(len(w.nodes))] }

// primary is the recorded primary most of the time, which is where it hurts.
func (w *world) victim() *node {
	if p := w.node(w.store.record().Primary); p != nil && w.chance(0.6) {
		return p
	}
	return w.any()
}

// paths cuts one or both ways between two places.
func (w *world) paths(a, b int) func() {
	way := w.rng.IntN(3)
	if way != 1 {
		w.sever(a, b)
	}
	if way != 2 {
		w.sever(b, a)
	}
	w.tracef("fault: path %d-%d is cut (%d)", a, b, way)
	return func() { w.mend(a, b); w.mend(b, a); w.tracef("path %d-%d is back", a, b) }
}

var faults = []fault{
	{"kill", func(w *world) func() {
		n := w.victim()
		w.tracef("fault: kill %s", n.id())
		n.kill()
		return nil
	}, 0},
	{"kill and start", func(w *world) func() {
		n := w.victim()
		w.tracef("fault: kill %s, started by its host", n.id())
		n.kill()
		return func() { w.tracef("%s is started by its host", n.id()); n.start() }
	}, 0},
	{"all down", func(w *world) func() {
		w.tracef("fault: every server is killed")
		for _, n := range w.nodes {
			n.kill()
		}
		return func() {
			w.tracef("every server is started by its host")
			for _, i := range w.rng.Perm(len(w.nodes)) {
				n := w.nodes[i]
				w.at(w.between(0, 2*time.Second), n.start)
			}
		}
	}, 0},
	{"stop fast", func(w *world) func() {
		n := w.victim()
		w.tracef("fault: %s is stopped by hand", n.id())
		n.stopFast()
		return func() { n.start() }
	}, 0},
	{"host silent", func(w *world) func() {
		n := w.victim()
		w.tracef("fault: the host of %s is gone", n.id())
		n.hostDown = true
		n.crashes++
		n.kill()
		again := w.chance(0.5)
		return func() {
			w.tracef("the host of %s is back (server started: %v)", n.id(), again)
			n.hostDown = false
			if again {
				n.start()
			}
		}
	}, 3 * time.Second},
	{"freeze", func(w *world) func() {
		n := w.victim()
		w.tracef("fault: %s is frozen", n.id())
		n.freeze()
		life := n.life
		return func() {
			if n.life == life {
				w.tracef("%s is woken", n.id())
				n.thaw()
			}
		}
	}, 0},
	{"cut daemon", func(w *world) func() { return w.paths(0, w.victim().i) }, 0},
	{"cut nodes", func(w *world) func() {
		a, b := w.victim(), w.any()
		if a == b {
			return nil
		}
		return w.paths(a.i, b.i)
	}, 0},
	{"out of sight", func(w *world) func() {
		// The primary lives, and so do some of the standbys that confirm; we
		// lose sight of it, and a moment later of one of them.
		p := w.node(w.store.record().Primary)
		if p == nil {
			return nil
		}
		w.tracef("fault: %s is out of our sight", p.id())
		w.sever(0, p.i)
		w.sever(p.i, 0)
		other := w.any()
		w.at(w.between(0, 4*time.Second), func() {
			if other != p && !w.healed {
				w.tracef("fault: %s is out of our sight too", other.id())
				w.sever(0, other.i)
				w.sever(other.i, 0)
				w.at(w.between(500*time.Millisecond, 5*time.Second), func() { w.mend(0, other.i); w.mend(other.i, 0) })
			}
		})
		return func() { w.mend(0, p.i); w.mend(p.i, 0) }
	}, 3 * time.Second},
	{"isolate", func(w *world) func() {
		n := w.victim()
		w.tracef("fault: %s is isolated", n.id())
		for i := range len(w.nodes) + 1 {
			if i != n.i {
				w.sever(i, n.i)
				w.sever(n.i, i)
			}
		}
		return func() {
			w.tracef("%s is isolated no more", n.id())
			for i := range len(w.nodes) + 1 {
				if i != n.i {
					w.mend(i, n.i)
					w.mend(n.i, i)
				}
			}
		}
	}, 0},
	{"slow", func(w *world) func() {
		w.tracef("fault: the network is slow")
		w.slow = w.between(20*time.Millisecond, 250*time.Millisecond)
		return func() { w.slow = 0 }
	}, 0},
	{"pause replay", func(w *world) func() {
		n := w.any()
		if n.proc != up || !n.recovery {
			return nil
		}
		w.tracef("fault: replay on %s is paused", n.id())
		n.paused = true
		return func() { n.paused = false; n.replay() }
	}, 0},
	{"disk full", func(w *world) func() {
		n := w.victim()
		w.tracef("fault: the disk of %s is full", n.id())
		n.disk.full = true
		again := w.chance(0.5)
		return func() {
			n.disk.full = false
			if again {
				n.start()
			}
		}
	}, 0},
	{"WAL gone", func(w *world) func() {
		if p := w.node(w.store.record().Primary); p != nil && !p.recovery {
			w.tracef("fault: %s keeps no old WAL", p.id())
			p.disk.retained = max(p.disk.retained, p.disk.flushed-2)
		}
		return nil
	}, 0},
	{"start by hand", func(w *world) func() {
		n := w.any()
		w.tracef("fault: %s is started by hand", n.id())
		n.start()
		return nil
	}, 0},
	{"promote by hand", func(w *world) func() {
		n := w.any()
		if n.proc == up && n.recovery && !n.frozen {
			w.tracef("fault: %s is promoted by hand", n.id())
			n.left = w.now
			n.promote()
		}
		return nil
	}, 0},
	{"names by hand", func(w *world) func() {
		p := w.node(w.store.record().Primary)
		if p == nil || p.proc != up || p.recovery || p.frozen {
			return nil
		}
		p.disk.names, p.byHand, p.ours = "", true, false
		if w.policy.SwapMethod == cluster.SwapFiles && w.chance(0.5) {
			p.disk.names = w.syncFile(p)
		} else if w.chance(0.3) && len(w.nodes) > 2 {
			p.disk.names = `FIRST 1 ("` + string(w.any().id()) + `")`
		}
		w.tracef("fault: somebody sets the names of %s to %q", p.id(), p.disk.names)
		p.reload()
		return nil
	}, 0},
	{"follow by hand", func(w *world) func() {
		// A cascade, or what somebody takes for the primary.
		n, to, r := w.any(), w.any(), w.store.record()
		if n.proc != up || !n.recovery || n.frozen || to == n || to.id() == r.Primary || r.Members[n.id()].Promised > r.Term {
			return nil
		}
		w.tracef("fault: somebody has %s follow %s", n.id(), to.id())
		// To an old primary that still takes writes this breaks a promise: what
		// it acknowledges from now on is that person's.
		to.byHand = to.byHand || !to.recovery
		n.disk.conninfo = conninfo(n.spec, to.spec)
		n.astray = n.disk.conninfo
		n.reload()
		return nil
	}, 0},
	{"standby away", func(w *world) func() {
		n := w.any()
		if n.proc != up || !n.recovery {
			return nil
		}
		if w.chance(0.5) {
			w.tracef("fault: the standby %s is frozen", n.id())
			n.freeze()
			life := n.life
			return func() {
				if n.life == life {
					w.tracef("%s is woken", n.id())
					n.thaw()
				}
			}
		}
		w.tracef("fault: the standby %s is killed", n.id())
		n.kill()
		return func() { w.tracef("%s is started by its host", n.id()); n.start() }
	}, 0},
	{"standby slow", func(w *world) func() {
		n := w.any()
		if !n.recovery {
			return nil
		}
		w.tracef("fault: the disk of %s is slow", n.id())
		n.lag = w.between(20*time.Millisecond, 400*time.Millisecond)
		return func() { n.lag = 0 }
	}, 0},
	{"daemon killed", func(w *world) func() { w.killDaemon(); return nil }, 0},
	{"store fails", func(w *world) func() {
		w.tracef("fault: the store fails")
		w.store.failing = true
		return func() { w.tracef("the store works again"); w.store.failing = false }
	}, 0},
	{"clock jumps", func(w *world) func() {
		w.skew += w.between(-2*time.Hour, 2*time.Hour)
		w.tracef("fault: the daemon's clock jumps to %s", w.skew)
		return nil
	}, 0},
	{"directory lost", func(w *world) func() {
		n := w.any()
		r := w.store.record()
		if n.id() == r.Primary || r.Members[n.id()].Eligible || !n.recovery && n.proc != down || !w.spare(n) {
			return nil
		}
		w.tracef("fault: the data directory of %s is removed", n.id())
		n.kill()
		n.disk.present = false
		return nil
	}, 0},
	{"half open", func(w *world) func() {
		// A standby's connection is lost and its primary does not notice, as
		// when a firewall forgets it: until its timeout it has two senders.
		n := w.any()
		if n.receiver == nil || n.frozen {
			return nil
		}
		w.tracef("fault: %s loses its connection, and %s does not notice", n.id(), n.receiver.from.id())
		n.receiver.atReceiver, n.receiver = false, nil
		return nil
	}, 0},
	{"slot gone", func(w *world) func() {
		n := w.victim()
		if len(n.disk.slots) == 0 || n.proc != up {
			return nil
		}
		i := w.rng.IntN(len(n.disk.slots))
		w.tracef("fault: slot %s on %s is invalidated", n.disk.slots[i].name, n.id())
		n.invalidate(&n.disk.slots[i])
		if w.chance(0.5) {
			w.tracef("and dropped")
			n.disk.slots = slices.Delete(n.disk.slots, i, i+1)
		}
		return nil
	}, 0},
	{"switchover", func(w *world) func() { return w.ask(plan.Request{Action: cluster.Switchover, Node: w.any().id()}) }, 0},
	{"promote asked", func(w *world) func() { return w.ask(plan.Request{Action: cluster.Promote, Node: w.any().id()}) }, 0},
	{"rejoin asked", func(w *world) func() { return w.ask(plan.Request{Action: cluster.Rejoin, Node: w.any().id()}) }, 0},
	{"mode asked", func(w *world) func() {
		mode := cluster.ModeAsync
		if w.chance(0.5) {
			mode = cluster.ModeSync
		}
		return w.ask(plan.Request{Action: cluster.SetMode, Mode: mode})
	}, 0},
	{"maintenance", func(w *world) func() {
		w.maintain(true)
		return func() { w.maintain(false) }
	}, 0},
}

// spare: everything owed is held by another node too.
func (w *world) spare(n *node) bool {
	for _, c := range w.commits {
		if !c.acked && !c.seen || c.exempt || !w.holds(&n.disk, c) {
			continue
		}
		other := false
		for _, o := range w.nodes {
			other = other || o != n && w.holds(&o.disk, c)
		}
		if !other {
			return false
		}
	}
	return true
}

// ask is a person at the console, who confirms what is shown.
func (w *world) ask(q plan.Request) func() {
	d := w.daemon
	if d == nil {
		return nil
	}
	q.By = "anna"
	p, err := d.engine.Plan(q)
	if err != nil {
		w.tracef("asked for %s %s%s: %v", q.Action, q.Node, q.Mode, err)
		return nil
	}
	w.tracef("asked for %s %s%s", q.Action, q.Node, q.Mode)
	if _, err := d.engine.Submit(p.ID, p.Confirm, q.By); err == nil {
		d.poke()
	}
	return nil
}

func (w *world) maintain(on bool) {
	d := w.daemon
	if d == nil {
		return
	}
	w.tracef("maintenance %v", on)
	w.spawn(func() {
		if err := d.engine.SetMaintenance(d.ctx, on); err != nil {
			w.tracef("maintenance: %v", err)
		}
	})
}

// trouble lets faults come until the moment end.
func (w *world) trouble(kinds []fault, pace, end time.Duration) {
	w.at(w.between(pace/4, pace*2), func() {
		if w.now > end || w.wrong != "" {
			return
		}
		f := kinds[w.rng.IntN(len(kinds))]
		w.stats.Faults++
		w.note(f.name)
		if undo := f.do(w); undo != nil {
			w.at(w.between(max(50*time.Millisecond, f.least), 8*time.Second), undo)
		}
		w.trouble(kinds, pace, end)
	})
}

// heal ends all that is wrong with the world; what is left is the engine's.
func (w *world) heal() {
	w.tracef("---- healed ----")
	w.note("heal")
	w.healed = true
	w.lostRequest, w.lostAnswer, w.crash, w.slow = 0, 0, 0, 0
	w.store.failing = false
	for i := range w.cut {
		for j := range w.cut {
			w.mend(i, j)
		}
	}
	for _, n := range w.nodes {
		n.hostDown, n.disk.full, n.paused, n.lag = false, false, false, 0
		n.thaw()
		if n.proc == up && n.recovery {
			n.replay()
		}
		if w.chance(0.5) {
			n.start()
		}
	}
	w.at(3*time.Second, w.attend)
}

// attend is the person on call, who does what the engine leaves to a person or
// to the hosts: servers that are down and not fenced are started, async by hand
// and maintenance are ended.
func (w *world) attend() {
	w.at(5*time.Second, w.attend)
	r := w.store.record()
	for _, n := range w.nodes {
		if text := n.disk.names; w.policy.SwapMethod == cluster.SwapFiles && text != "" && text != w.syncFile(n) {
			w.tracef("the person on call copies postgresql.conf.async of %s back", n.id())
			n.disk.names, n.byHand, n.ours = "", true, false
			n.reload()
		}
		if !r.Members[n.id()].Fenced && n.startable() && !n.copying && w.chance(0.7) {
			w.tracef("the person on call starts %s", n.id())
			n.start()
		}
	}
	for _, n := range w.nodes {
		// What is in force counts: the engine's own setting may be written there
		// without having been read.
		if p := w.node(r.Primary); n.astray != "" && (n.told == n.astray || n.disk.conninfo == n.astray) && n.proc == up && n.recovery && p != nil && p != n {
			w.tracef("the person on call has %s follow %s", n.id(), p.id())
			n.disk.conninfo, n.astray = conninfo(n.spec, p.spec), ""
			n.reload()
		}
	}
	if r.Maintenance {
		w.maintain(false)
	}
	if r.WantMode == cluster.ModeAsync {
		w.ask(plan.Request{Action: cluster.SetMode, Mode: cluster.ModeSync})
	}
}
