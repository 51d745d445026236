package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/pgtandem/pgtandem/engine"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute/steps"
	"github.com/pgtandem/pgtandem/engine/plan"
	"github.com/pgtandem/pgtandem/engine/store/memory"
)

// daemon is one life of proxyd: what is lost when it is killed.
type daemon struct {
	w      *world
	engine *engine.Engine
	eyes   *eyes
	gate   *gate
	ctx    context.Context
	end    context.CancelFunc
	skew   time.Duration // of its clock, as it was at its start: a process measures its own time by a clock that nobody sets
	due    bool          // a turn of the loop is scheduled
}

// boot starts the daemon on what is durable.
func (w *world) boot() {
	ctx, cancel := context.WithCancel(context.Background())
	d := &daemon{w: w, ctx: ctx, end: cancel, gate: &gate{w: w, skew: w.skew, since: epoch.Add(w.now + w.skew)}, skew: w.skew}
	d.eyes = newEyes(d)
	w.daemon = d
	servers, hosts := map[cluster.NodeID]steps.Server{}, map[cluster.NodeID]steps.Host{}
	for _, n := range w.nodes {
		servers[n.id()], hosts[n.id()] = &sqlServer{d, n}, &sshHost{d, n}
	}
	e, err := engine.New(engine.Options{
		Policy: w.policy, Store: w.store, Observer: d.eyes, Gate: d.gate, Servers: servers, Hosts: hosts,
		Clock: wall{&w.schedule, d.skew}, Log: slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError + 1})),
		Spawn: func(f func()) { w.spawn(func() { f(); d.poke() }) },
	})
	if err != nil {
		w.fail(ComesUp, "the engine cannot be made: %v", err)
		return
	}
	d.engine = e
	w.note("boot")
	w.tracef("the daemon starts")
	if err := e.Start(ctx); err != nil {
		// It could not read its state; systemd tries again.
		w.tracef("the daemon does not start: %v", err)
		w.daemon = nil
		w.at(time.Second, w.boot)
		return
	}
	d.eyes.open()
	d.tick()
}

// tickEvery is how often the loop decides when nothing changes.
const tickEvery = 200 * time.Millisecond

func (d *daemon) tick() {
	d.w.at(tickEvery, func() {
		if d.w.daemon == d {
			d.turn()
			d.tick()
		}
	})
}

// poke has the loop turn soon.
func (d *daemon) poke() {
	if d.due || d.w.daemon != d {
		return
	}
	d.due = true
	d.w.at(0, func() {
		d.due = false
		if d.w.daemon == d {
			d.turn()
		}
	})
}

func (d *daemon) turn() {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(killed); !ok {
				panic(r)
			}
		}
	}()
	d.engine.Step(d.ctx)
}

// kill ends the daemon at once. Clients lose their connections, statements on
// the way may still arrive.
func (w *world) killDaemon() {
	d := w.daemon
	if d == nil {
		return
	}
	w.note("crash")
	w.tracef("the daemon is killed")
	w.stats.Crashes++
	w.daemon = nil
	for _, c := range w.clients {
		if !c.direct {
			c.sever()
		}
	}
	w.killTasks()
	w.at(w.between(50*time.Millisecond, 2500*time.Millisecond), func() {
		if w.daemon == nil {
			w.boot()
		}
	})
}

// crossing is a point between two effects of the daemon, where it may die.
func (w *world) crossing() {
	w.crossed++
	if w.crossed == w.crashAt || w.crash > 0 && !w.healed && w.chance(w.crash) {
		w.killDaemon()
		panic(killed{})
	}
}

// gate is the data plane's switch.
type gate struct {
	w     *world
	skew  time.Duration
	open  bool
	node  cluster.NodeID
	term  cluster.Term
	since time.Time
	life  int // of the server, when it was opened
}

// Since is when it was opened or closed last.
func (g *gate) Since() time.Time { return g.since }

// turned notes when the gate was opened or closed.
func (g *gate) turned(open bool) {
	if g.open != open {
		g.open, g.since = open, epoch.Add(g.w.now+g.skew)
	}
}

// Passing says where statements go.
func (g *gate) Passing() (bool, cluster.NodeID, cluster.Term) { return g.open, g.node, g.term }

// doubt: a connection to the node was cut, so nothing new is sent to it before
// the engine has proved it again.
func (g *gate) doubt(id cluster.NodeID) {
	if g.open && g.node == id {
		g.w.tracef("gate in doubt of %s", id)
		g.turned(false)
	}
}

func (g *gate) busy() int {
	n := 0
	for _, c := range g.w.clients {
		if !c.direct && (c.now != nil || c.reading) {
			n++
		}
	}
	return n
}

// Close holds new transactions; with cut it severs the open ones, without it
// waits for them.
func (g *gate) Close(ctx context.Context, reason string, cut bool) (int, error) {
	w := g.w
	w.crossing()
	w.note("close")
	w.tracef("gate closed (cut %v): %s", cut, reason)
	g.turned(false)
	if cut {
		for _, c := range w.clients {
			if !c.direct {
				c.sever()
			}
		}
	}
	for g.busy() > 0 && w.cur != nil {
		if err := (wall{&w.schedule, 0}).Sleep(ctx, 20*time.Millisecond); err != nil {
			return g.busy(), err
		}
	}
	return g.busy(), nil
}

// Open lets statements through.
func (g *gate) Open(_ context.Context, term cluster.Term, n cluster.Node) error {
	w := g.w
	w.crossing()
	if term < g.term {
		return fmt.Errorf("open the gate with term %d after %d", term, g.term)
	}
	w.note("open", uint64(term))
	w.tracef("gate open to %s, term %d", n.ID, term)
	w.checkOpened(term, n.ID)
	g.node, g.term, g.life = n.ID, term, w.node(n.ID).life
	g.turned(true)
	return nil
}

// durable is the store on the daemon's disk.
type durable struct {
	*memory.Store
	w       *world
	rec     cluster.Record
	failing bool // nothing can be written or read for a while
}

func newDurable(w *world) *durable { return &durable{Store: memory.New(1), w: w} }

var errDisk = errors.New("input/output error")

func (d *durable) record() cluster.Record { return d.rec }

// Load reads the record.
func (d *durable) Load(ctx context.Context) (cluster.Record, error) {
	if d.failing {
		return cluster.Record{}, errDisk
	}
	return d.Store.Load(ctx)
}

// Save writes the record; the daemon may die before or after, and the answer
// may be lost.
func (d *durable) Save(ctx context.Context, r cluster.Record) (cluster.Record, error) {
	w := d.w
	w.crossing()
	if d.failing {
		return cluster.Record{}, errDisk
	}
	before := d.rec
	saved, err := d.Store.Save(ctx, r)
	if err != nil {
		return saved, err
	}
	d.rec = saved.Clone()
	w.note("save", saved.Revision, uint64(saved.Term))
	if w.trace != nil {
		w.tracef("record: term %d, primary %s, mode %s, want %s, set %v, members %s", saved.Term, saved.Primary, saved.Mode, saved.WantMode, saved.SyncSet, brief(saved))
	}
	w.checkSaved(before, saved)
	w.crossing()
	if w.lostAnswer > 0 && w.chance(w.lostAnswer/4) {
		return cluster.Record{}, errDisk
	}
	return saved, nil
}

func brief(r cluster.Record) string {
	s := ""
	for _, h := range r.Members {
		_ = h
	}
	for _, id := range []cluster.NodeID{"pgsql1", "pgsql2", "pgsql3", "pgsql4", "pgsql5"} {
		if m, ok := r.Members[id]; ok {
			s += fmt.Sprintf("%s[eligible=%v fenced=%v promised=%d@%s] ", id, m.Eligible, m.Fenced, m.Promised, m.PromisedLSN)
		}
	}
	return s
}

// PutOperation writes the journal.
func (d *durable) PutOperation(ctx context.Context, op plan.Operation) error {
	d.w.crossing()
	if d.failing {
		return errDisk
	}
	if d.w.trace != nil {
		last := ""
		for i, s := range op.Steps {
			if s.Outcome != plan.Pending {
				last = fmt.Sprintf("%s: %s %s", op.Plan.Steps[i].Title, s.Outcome, s.Detail)
			}
		}
		d.w.tracef("journal: %s %s is %s: %s %s", op.Plan.Action, op.Plan.Node, op.Outcome, last, op.Error)
	}
	if op.Outcome == plan.Done {
		switch op.Plan.Action {
		case cluster.Degrade:
			d.w.stats.Degraded++
		case cluster.Switchover:
			d.w.stats.Switches++
		}
	}
	err := d.Store.PutOperation(ctx, op)
	d.w.crossing()
	return err
}

// Unfinished reads the journal.
func (d *durable) Unfinished(ctx context.Context) ([]plan.Operation, error) {
	if d.failing {
		return nil, errDisk
	}
	return d.Store.Unfinished(ctx)
}

// promoting finds the operation that is to promote a node now, if the journal
// holds that it has come to that.
func (d *durable) promoting(id cluster.NodeID) (plan.Operation, bool) {
	ops, err := d.Store.Unfinished(context.Background())
	if err != nil {
		return plan.Operation{}, false // the memory's never is
	}
	for _, op := range ops {
		for i, s := range op.Steps {
			if p := op.Plan.Steps[i]; p.Kind == plan.NodePromote && p.Node == id && s.Outcome == plan.Running {
				return op, true
			}
		}
	}
	return plan.Operation{}, false
}

// AppendEvents keeps nothing but the trace.
func (d *durable) AppendEvents(_ context.Context, ev ...cluster.Event) ([]cluster.Event, error) {
	if d.w.trace != nil {
		for _, e := range ev {
			d.w.tracef("event %s: %s", e.Kind, e.Text)
		}
	}
	for _, e := range ev {
		if e.Kind == "engine.halted" {
			d.w.fail(NeverHalts, "the engine stopped acting: %s", e.Text)
		}
	}
	return ev, nil
}
