package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
)

// world is everything outside the engine.
type world struct {
	schedule
	chances
	policy cluster.Policy
	seed   uint64

	records []record
	nodes   []*node
	byHost  map[string]*node
	parsed  map[string]cluster.SyncSet

	cut  [][]bool          // from, to; the daemon is 0
	held [][][]func()      // what waits for a path to come back
	last [][]time.Duration // arrival of the latest message, which no later one overtakes

	store  *durable
	daemon *daemon
	skew   time.Duration // of the daemon's clock

	commits []*commit
	owed    []*commit // acknowledged or seen, and not known to be everywhere
	clients []*client

	openedTerm cluster.Term // the highest that a gate ever opened with
	openedNode cluster.NodeID

	healed  bool
	wrong   string
	broken  Invariant
	stats   Stats
	trace   func(string)
	crashAt int // the daemon is killed at this crash point; 0 for by chance
	crossed int // crash points so far
}

// chances is how likely what is; drawn from the seed, so that each run is of
// its own kind.
type chances struct {
	latency     time.Duration // of a message, at most, on a good day
	slow        time.Duration // added to each message while the network is slow
	lostRequest float64
	lostAnswer  float64
	crash       float64 // at each crash point
	slowReload  float64
	walTimeout  time.Duration // wal_sender_timeout and wal_receiver_timeout
	keep        int           // WAL records kept after a checkpoint; 0 for all
	pace        time.Duration // of a client between two transactions, at most
	lagging     bool          // the disk of one standby is slow all the time
	replaying   time.Duration // added to each step of replay, at most
	calm        bool          // nothing goes wrong but that messages take long
}

// Stats is what happened in a run.
type Stats struct {
	Steps      int
	Acked      int
	Promotions int
	Degraded   int
	Crashes    int // of the daemon
	Faults     int
	Clones     int
	Rewinds    int
	Switches   int // switchovers done
}

// Add sums.
func (s *Stats) Add(o Stats) {
	s.Steps += o.Steps
	s.Acked += o.Acked
	s.Promotions += o.Promotions
	s.Degraded += o.Degraded
	s.Crashes += o.Crashes
	s.Faults += o.Faults
	s.Clones += o.Clones
	s.Rewinds += o.Rewinds
	s.Switches += o.Switches
}

func (s Stats) String() string {
	return fmt.Sprintf("%d events, %d commits acknowledged, %d faults, %d promotions (%d by switchover), %d degradations, %d rewinds, %d clones, %d crashes of the daemon",
		s.Steps, s.Acked, s.Faults, s.Promotions, s.Switches, s.Degraded, s.Rewinds, s.Clones, s.Crashes)
}

func (w *world) tracef(format string, args ...any) {
	if w.trace != nil {
		w.trace(fmt.Sprintf("%9.3fs  %s", w.now.Seconds(), fmt.Sprintf(format, args...)))
	}
}

// fail notes the first thing that must not be.
func (w *world) fail(must Invariant, format string, args ...any) {
	if w.wrong == "" {
		w.broken = must
		w.wrong = fmt.Sprintf("at %.3fs: ", w.now.Seconds()) + fmt.Sprintf(format, args...)
		w.tracef("VIOLATION %s", w.wrong)
	}
}

// names parses synchronous_standby_names, and remembers it.
func (w *world) names(s string) cluster.SyncSet {
	if s == "" {
		return cluster.SyncSet{}
	}
	set, ok := w.parsed[s]
	if !ok {
		set = decide.ParseSyncNames(s)
		w.parsed[s] = set
	}
	return set
}

func (w *world) node(id cluster.NodeID) *node {
	for _, n := range w.nodes {
		if n.spec.ID == id {
			return n
		}
	}
	return nil
}

// send delivers a message between two places after the network's delay. A path
// that is cut holds it back: when it heals, TCP delivers what is still wanted.
func (w *world) send(from, to int, deliver func()) {
	if w.cut[from][to] {
		w.held[from][to] = append(w.held[from][to], deliver)
		return
	}
	d := w.between(50*time.Microsecond, w.latency)
	if w.slow > 0 {
		d += w.between(0, w.slow)
		if w.chance(0.01) { // a packet was lost: it is sent again
			d += w.between(200*time.Millisecond, 900*time.Millisecond)
		}
	}
	w.last[from][to] = max(w.last[from][to], w.now+d)
	w.at(w.last[from][to]-w.now, func() {
		switch {
		case w.cut[from][to]:
			w.held[from][to] = append(w.held[from][to], deliver)
		case w.dark(from) || w.dark(to):
		default:
			deliver()
		}
	})
}

// dark: the host is gone, and with it what it was about to send or receive.
func (w *world) dark(place int) bool { return place > 0 && w.nodes[place-1].hostDown }

// sever cuts a path one way; mend brings it back.
func (w *world) sever(from, to int) { w.cut[from][to] = true }

func (w *world) mend(from, to int) {
	if !w.cut[from][to] {
		return
	}
	w.cut[from][to] = false
	held := w.held[from][to]
	w.held[from][to] = nil
	for _, deliver := range held {
		w.send(from, to, deliver)
	}
}

// serverEnded: whoever had a connection to it learns so, if the path lets it.
func (w *world) serverEnded(n *node) {
	for _, c := range w.clients {
		if k := c.now; k != nil && k.node == n {
			if c.direct {
				c.lost(k)
			} else {
				w.send(n.i, 0, func() { c.lost(k) })
			}
		}
	}
	if d := w.daemon; d != nil {
		w.send(n.i, 0, func() {
			if w.daemon == d {
				d.gate.doubt(n.id())
				d.eyes.ended(n)
			}
		})
	}
}

// newWorld makes a cluster in sync, as provisioning leaves it.
func newWorld(seed uint64, p cluster.Policy, c chances) *world {
	w := &world{seed: seed, policy: p, chances: c, byHost: map[string]*node{}, parsed: map[string]cluster.SyncSet{}}
	w.rng = rand.New(rand.NewPCG(seed, 0x5eed))
	w.hash = 14695981039346656037
	w.records = []record{{}}
	places := len(p.Nodes) + 1
	w.cut, w.held, w.last = make([][]bool, places), make([][][]func(), places), make([][]time.Duration, places)
	for i := range places {
		w.cut[i], w.held[i], w.last[i] = make([]bool, places), make([][]func(), places), make([]time.Duration, places)
	}
	for i, spec := range p.Nodes {
		n := &node{w: w, i: i + 1, spec: spec}
		n.disk = disk{present: true, system: 7, tli: 1, history: []switched{{1, firstLSN}}, controlTLI: 1, state: "shut down"}
		w.nodes = append(w.nodes, n)
		w.byHost[spec.Host] = n
	}
	w.add(&w.nodes[0].disk, 0)
	for i, n := range w.nodes {
		n.disk.wal = walCopy(&w.nodes[0].disk, 1)
		n.disk.flushed, n.disk.restart = 1, 1
		if i > 0 {
			n.disk.signal, n.disk.conninfo = true, conninfo(n.spec, p.Nodes[0])
		}
		n.start()
	}
	if w.policy.Slots && w.chance(0.5) { // set up by us, or by somebody else
		for _, n := range w.nodes[1:] {
			n.disk.slotName = cluster.SlotName(n.id())
			w.nodes[0].disk.ensureSlot(n.disk.slotName)
		}
	}
	w.store = newDurable(w)
	return w
}

// syncFile is the names in a node's postgresql.conf.sync: all others may confirm.
func (w *world) syncFile(n *node) string {
	set := cluster.SyncSet{Method: w.policy.SyncMethod, K: w.policy.SyncK}
	for _, o := range w.nodes {
		if o != n {
			set.Members = append(set.Members, o.id())
		}
	}
	return decide.FormatSyncNames(set)
}

// commit is one transaction of a client's.
type commit struct {
	id     int
	record int32         // -1 until it is written
	since  time.Duration // it waits for standbys
	node   *node
	client *client
	acked  bool
	seen   bool // somebody read it through us
	exempt bool // made under a setting that somebody changed behind our back
}

// how the commit came to be owed.
func (c *commit) how() string {
	switch {
	case c.acked && c.client.direct:
		return "acknowledged past the gate"
	case c.acked:
		return "acknowledged"
	}
	return "read"
}

// client makes one transaction after the other, through the gate or beside it.
type client struct {
	w       *world
	direct  bool
	now     *commit // in flight
	session int     // grows when the connection is lost; answers of an old one do not arrive
	reading bool
	at      *node // a direct client's server
}

func (c *client) run() { c.w.at(c.w.between(10*time.Millisecond, c.w.pace), c.try) }

func (c *client) try() {
	w := c.w
	n := c.reach()
	if n == nil {
		w.at(w.between(10*time.Millisecond, 60*time.Millisecond), c.try)
		return
	}
	if !c.direct && w.chance(0.3) {
		c.read(n)
		return
	}
	k := &commit{id: len(w.commits) + 1, record: -1, node: n, client: c}
	w.commits = append(w.commits, k)
	c.now = k
	life := c.connected(n)
	arrive := func() {
		// What was sent to a server that has ended since is answered by a reset.
		if n.life != life || n.proc != up {
			c.answer(k, func() { c.lost(k) })
			return
		}
		n.later(w.between(0, time.Millisecond), func() {
			if c.now != k && k.record < 0 && w.chance(0.5) {
				return // the server noticed that the client is gone
			}
			if n.proc != up || n.recovery || n.promoting {
				c.answer(k, func() { c.lost(k) })
				return
			}
			n.execute(k)
		})
	}
	if c.direct {
		arrive()
		return
	}
	w.send(0, n.i, arrive)
}

// reach is the server a client gets to now.
func (c *client) reach() *node {
	w := c.w
	if !c.direct {
		if w.daemon == nil || !w.daemon.gate.open {
			return nil
		}
		return w.node(w.daemon.gate.node)
	}
	if c.at == nil || c.at.proc != up {
		c.at = w.node(w.store.record().Primary)
	}
	if c.at == nil || c.at.proc != up || c.at.hostDown {
		return nil
	}
	return c.at
}

// connected is the life of the server that the client's connections are to: a
// gate's were made when it was opened.
func (c *client) connected(n *node) int {
	if c.direct {
		return n.life
	}
	return c.w.daemon.gate.life
}

// answer carries something back to the client, if it still listens.
func (c *client) answer(k *commit, do func()) {
	if c.direct {
		do()
		return
	}
	session := c.session
	c.w.send(k.node.i, 0, func() {
		if c.session == session {
			do()
		}
	})
}

// lost is a connection that ended: what became of the transaction is unknown.
func (c *client) lost(k *commit) {
	if c.now != k {
		return
	}
	c.suffers()
	c.now = nil
	c.session++
	c.run()
}

// suffers: a statement of the client's is lost with its connection.
func (c *client) suffers() {
	if c.w.calm && !c.direct {
		c.w.fail(CostsNothing, "a client lost its connection in the middle of a statement, and nothing was wrong but the network slow")
	}
}

// sever ends the client's connection through the gate.
func (c *client) sever() {
	c.session++
	if c.now != nil || c.reading {
		c.suffers()
		c.now, c.reading = nil, false
		c.run()
	}
}

// read looks at everything there is to see.
func (c *client) read(n *node) {
	w := c.w
	c.reading = true
	session, over := c.session, false
	back := func(do func()) {
		w.send(n.i, 0, func() {
			if c.session == session {
				do()
				c.reading, over = false, true
				c.run()
			}
		})
	}
	// Nothing may come back at all; then the client gives up one day.
	w.at(10*time.Second, func() {
		if c.session == session && !over {
			c.sever()
		}
	})
	was := c.connected(n)
	w.send(0, n.i, func() {
		if n.life != was || n.proc != up {
			back(func() {})
			return
		}
		n.later(0, func() {
			if n.recovery {
				back(func() {})
				return
			}
			life, upto, log := n.life, n.visible(), n.disk.wal
			exempt := n.byHand || w.store.record().Maintenance // nobody holds readers back then
			back(func() {
				from := 0
				if n.life == life {
					from = min(n.looked, upto)
					n.looked = max(n.looked, upto)
				}
				for _, r := range log[from:upto] {
					if id := w.records[r].commit; id != 0 {
						w.commits[id-1].exempt = w.commits[id-1].exempt || exempt && !w.commits[id-1].acked
						w.owe(w.commits[id-1], false)
					}
				}
			})
		})
	})
}

// committed is the server's own word that a commit is done.
func (w *world) committed(n *node, c *commit) {
	c.exempt = c.exempt || n.byHand
	w.note("commit", uint64(c.id), uint64(n.i))
	if c.client.direct {
		w.acknowledge(c)
		return
	}
	c.client.answer(c, func() { w.acknowledge(c) })
}

func (w *world) acknowledge(c *commit) {
	w.stats.Acked++
	w.note("ack", uint64(c.id))
	w.owe(c, true)
	if c.client.now == c {
		c.client.now = nil
		c.client.run()
	}
}

// owe: the commit was promised to somebody, or somebody saw it.
func (w *world) owe(c *commit, acked bool) {
	first := !c.acked && !c.seen
	c.acked, c.seen = c.acked || acked, c.seen || !acked
	if first && !c.exempt {
		w.owed = append(w.owed, c)
		w.checkOwed(c, w.store.record())
	}
}

// everywhere forgets, from the list that is checked often, what all nodes hold.
func (w *world) everywhere() {
	w.owed = slices.DeleteFunc(w.owed, func(c *commit) bool {
		for _, n := range w.nodes {
			if !w.holds(&n.disk, c) {
				return false
			}
		}
		return true
	})
}
