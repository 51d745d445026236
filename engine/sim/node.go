package sim

import (
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// process is the state of a node's server.
type process int

const (
	down process = iota
	starting
	stopping
	up
)

// node is one host with its server.
type node struct {
	w    *world
	i    int // its place in the network; the daemon is at 0
	spec cluster.Node
	disk disk

	hostDown bool
	crashes  int // of the host
	proc     process
	frozen   bool
	thawed   []func() // what waits for the processes to be woken
	life     int      // grows at each start and end; what belongs to an earlier one does nothing
	pid      int
	started  time.Duration

	recovery  bool
	promoting bool
	replayed  int
	received  cluster.LSN // pg_last_wal_receive_lsn(): 0 until something is received in this life
	paused    bool

	loaded    string // synchronous_standby_names as of the last reload
	published string // as the checkpointer has published it: whether commits wait
	byHand    bool   // what is in force is somebody else's than the engine's
	ours      bool   // the engine has written it since; it is not in force everywhere yet
	told      string // primary_conninfo as of the last reload
	follows   string // the same as the startup process has it
	slotTold  string // primary_slot_name likewise
	slotUsed  string
	receiver  *link
	senders   []*link
	waiting   []*commit // for standbys, in the order of their positions
	released  cluster.LSN
	open      []*commit // written and not done: nobody sees them yet
	looked    int       // records that readers have looked at in this life

	lag     time.Duration // of its disk, before what it receives is flushed
	astray  string        // the primary_conninfo that somebody gave it
	left    time.Duration // when somebody promoted it
	newest  uint64        // the newest change that has arrived: older ones are fenced off
	copying bool          // a rewind or a base backup into it is under way
}

func (n *node) id() cluster.NodeID { return n.spec.ID }

// later does something in the server's own processes: not when they have ended
// by then, and not before they are woken.
func (n *node) later(d time.Duration, do func()) {
	life := n.life
	n.w.at(d, func() {
		switch {
		case n.life != life:
		case n.frozen:
			n.thawed = append(n.thawed, func() {
				if n.life == life {
					do()
				}
			})
		default:
			do()
		}
	})
}

func (n *node) freeze() {
	if n.proc != down {
		n.frozen = true
	}
}

func (n *node) thaw() {
	n.frozen = false
	todo := n.thawed
	n.thawed = nil
	for i, f := range todo { // in the order in which it came
		n.later(time.Duration(i)*50*time.Microsecond, f)
	}
}

// startable: there is something to start.
func (n *node) startable() bool {
	return n.proc == down && !n.hostDown && n.disk.present && !n.disk.full
}

func (n *node) start() {
	if !n.startable() {
		return
	}
	w := n.w
	w.note("start", uint64(n.i))
	if n.disk.broken && w.chance(0.5) {
		return // PANIC: could not locate a valid checkpoint record
	}
	n.life++
	n.proc, n.pid, n.frozen, n.thawed = starting, 1000+n.life*10+n.i, false, nil
	n.senders, n.receiver, n.waiting, n.open, n.released, n.looked = nil, nil, nil, nil, 0, 0
	n.promoting, n.paused, n.received = false, false, 0
	// Crash recovery, or replay up to where the standby is consistent.
	n.later(w.between(30*time.Millisecond, 1200*time.Millisecond), n.ready)
}

// ready is the end of recovery, or the beginning of hot standby.
func (n *node) ready() {
	w, d := n.w, &n.disk
	n.proc, n.recovery, n.started = up, d.signal, w.now
	n.loaded, n.published, n.told, n.follows = d.names, d.names, d.conninfo, d.conninfo
	n.slotTold, n.slotUsed = d.slotName, d.slotName
	d.flushed = len(d.wal)
	d.label = false
	w.note("up", uint64(n.i), uint64(d.flushed))
	if n.recovery {
		d.state = "in archive recovery"
		n.replayed = min(d.restart, d.flushed)
		n.replay()
		n.connect()
		return
	}
	d.state = "in production"
	n.replayed = d.flushed
	n.checkpoint()
}

// checkpoint is a checkpoint or a restartpoint now and then.
func (n *node) checkpoint() {
	n.later(n.w.between(2*time.Second, 20*time.Second), func() {
		n.checkpointNow()
		n.checkpoint()
	})
}

func (n *node) checkpointNow() {
	d := &n.disk
	upto := d.flushed
	if n.recovery {
		upto = n.replayed
	}
	d.restart, d.controlTLI, d.checkpoint = upto, d.tli, n.w.end(d, upto)
	if n.w.keep > 0 && !n.recovery {
		n.removeWAL(upto)
	}
}

// removeWAL removes what nobody should need: wal_keep_size, what slots hold, and
// max_slot_wal_keep_size, past which a slot is invalidated and whoever uses it
// is sent away.
func (n *node) removeWAL(upto int) {
	d := &n.disk
	retained := upto - n.w.keep
	for i := range d.slots {
		s := &d.slots[i]
		if !s.lost && s.restart < upto-2*n.w.keep {
			n.invalidate(s)
		}
		if !s.lost {
			retained = min(retained, s.restart)
		}
	}
	d.retained = max(d.retained, retained)
}

func (n *node) invalidate(s *slot) {
	s.lost = true
	for _, l := range slices.Clone(n.senders) {
		if l.slot == s.name {
			l.endAtSender()
			n.drop(l)
		}
	}
}

// holder is the sender that has a slot.
func (n *node) holder(name string) *link {
	for _, l := range n.senders {
		if l.atSender && l.slot == name {
			return l
		}
	}
	return nil
}

// replay applies what was received, unless it is paused.
func (n *node) replay() {
	n.later(n.w.between(0, 4*time.Millisecond+n.w.replaying), func() {
		if !n.recovery || n.paused || n.replayed >= n.disk.flushed {
			return
		}
		n.replayed += min(n.disk.flushed-n.replayed, 1+n.w.rng.IntN(20))
		n.replay()
	})
}

// kill ends every process at once, as SIGKILL to all of them or a crash.
func (n *node) kill() {
	if n.proc == down {
		return
	}
	w, d := n.w, &n.disk
	w.note("kill", uint64(n.i))
	if !n.recovery && len(d.wal) > d.flushed {
		// Some of what was not flushed may have been written all the same.
		keep := d.flushed + w.rng.IntN(len(d.wal)-d.flushed+1)
		d.wal = d.wal[:keep:keep]
	}
	d.flushed = len(d.wal)
	n.ended()
}

// ended: no process is left.
func (n *node) ended() {
	n.life++
	n.proc, n.frozen, n.thawed, n.promoting = down, false, nil, false
	for _, l := range n.senders {
		l.endAtSender()
	}
	if n.receiver != nil {
		n.receiver.endAtReceiver()
	}
	n.senders, n.receiver = nil, nil
	n.w.serverEnded(n)
}

// stopFast is a clean end: backends are sent away, and the senders see to it
// that the standbys that listen have all.
func (n *node) stopFast() {
	if n.proc == down || n.proc == stopping {
		return
	}
	n.later(n.w.between(time.Millisecond, 30*time.Millisecond), func() {
		if n.proc == starting {
			n.kill()
			return
		}
		n.proc, n.waiting, n.open = stopping, nil, nil
		n.w.serverEnded(n)
		if n.recovery {
			n.shutDown("shut down in recovery")
			return
		}
		n.disk.flushed = len(n.disk.wal)
		n.w.add(&n.disk, 0) // the shutdown checkpoint
		n.disk.flushed = len(n.disk.wal)
		n.pump()
		n.lastWords()
	})
}

// stuck is a fast shutdown during the recovery from a crash of one process, which
// PostgreSQL 15 never ends: startup is gone, the checkpointer stays.
func (n *node) stuck() {
	n.w.note("stuck", uint64(n.i))
	n.life++
	n.proc = stopping
}

func (n *node) lastWords() {
	n.later(10*time.Millisecond, func() {
		for _, l := range n.senders {
			if l.atSender && l.flushed < n.w.end(&n.disk, n.disk.flushed) {
				n.lastWords()
				return
			}
		}
		n.shutDown("shut down")
	})
}

func (n *node) shutDown(state string) {
	d := &n.disk
	n.checkpointNow()
	if !n.recovery {
		d.checkpoint = n.w.records[d.wal[d.flushed-1]].start
	}
	d.state = state
	n.w.note("down", uint64(n.i))
	n.ended()
}

// reload has the postmaster read its files and tell its children, who read
// theirs each in its own time.
func (n *node) reload() { n.later(n.w.between(0, 2*time.Millisecond), n.reread) }

func (n *node) reread() {
	n.loaded, n.told, n.slotTold = n.disk.names, n.disk.conninfo, n.disk.slotName
	busy := n.w.between(0, 20*time.Millisecond)
	if n.w.chance(n.w.slowReload) {
		busy = n.w.between(0, 3*time.Second) // an immediate checkpoint
	}
	n.later(busy, func() { n.publish(n.loaded) })
	for _, l := range n.senders {
		l.told = true
		n.later(n.w.between(0, 30*time.Millisecond), l.obey)
	}
	n.later(n.w.between(time.Millisecond, 40*time.Millisecond), n.obey)
}

// obey is the startup process that reads primary_conninfo and primary_slot_name.
func (n *node) obey() {
	if !n.recovery || n.follows == n.told && n.slotUsed == n.slotTold {
		return
	}
	n.follows, n.slotUsed = n.told, n.slotTold
	if n.receiver != nil {
		l := n.receiver
		n.receiver = nil
		l.endAtReceiver()
	}
}

// publish is the checkpointer: turning the names empty wakes every commit that
// waits.
func (n *node) publish(names string) {
	if names == "" && n.published != "" {
		n.w.note("wake", uint64(n.i), uint64(len(n.waiting)))
		woken := n.waiting
		n.waiting = nil
		n.published = names
		for _, c := range woken {
			n.done(c)
		}
	}
	n.published = names
	n.settle()
}

// settle: once every process follows what the engine wrote, it is the engine's
// to answer for.
func (n *node) settle() {
	if !n.ours || n.published != n.disk.names {
		return
	}
	for _, l := range n.senders {
		if l.atSender && l.names != n.disk.names {
			return
		}
	}
	n.byHand = false
}

// execute makes a commit on a primary that takes one.
func (n *node) execute(c *commit) {
	d := &n.disk
	if d.full {
		// PANIC: could not write to file "pg_wal/...": no space left on device
		n.kill()
		return
	}
	n.w.add(d, c.id)
	c.record, c.node = d.wal[len(d.wal)-1], n
	n.open = append(n.open, c)
	upto := len(d.wal)
	n.later(n.w.between(100*time.Microsecond, 4*time.Millisecond), func() {
		d.flushed = max(d.flushed, upto)
		n.pump()
		at := n.w.records[c.record].end
		if n.published == "" || at <= n.released {
			n.done(c)
			return
		}
		i, _ := slices.BinarySearchFunc(n.waiting, at, func(x *commit, l cluster.LSN) int { return int(n.w.records[x.record].end) - int(l) })
		c.since = n.w.now
		n.waiting = slices.Insert(n.waiting, i, c)
	})
}

// done is a commit that became visible; the client is told.
func (n *node) done(c *commit) {
	n.open = slices.DeleteFunc(n.open, func(x *commit) bool { return x == c })
	n.w.committed(n, c)
}

// visible is how many records readers on a primary may see the effects of: a
// commit that waits for standbys is not visible yet.
func (n *node) visible() int {
	if len(n.open) > 0 {
		return min(n.disk.flushed, n.w.index(&n.disk, n.w.records[n.open[0].record].start))
	}
	return n.disk.flushed
}

// promote turns a standby into a primary: all that is here is replayed, then a
// new timeline begins.
func (n *node) promote() {
	if !n.recovery || n.promoting || n.proc != up {
		return
	}
	n.promoting, n.paused = true, false
	if n.receiver != nil {
		l := n.receiver
		n.receiver = nil
		l.endAtReceiver()
	}
	n.follows = ""
	n.later(n.w.between(5*time.Millisecond, 200*time.Millisecond), func() {
		d := &n.disk
		n.replayed = d.flushed
		n.promoting, n.recovery, d.signal = false, false, false
		at := n.w.end(d, d.flushed)
		d.tli++
		d.history = append(slices.Clone(d.history), switched{d.tli, at})
		d.wal = walCopy(d, d.flushed)
		n.w.add(d, 0) // the end-of-recovery record
		d.flushed = len(d.wal)
		d.state = "in production"
		n.loaded, n.published = d.names, d.names
		n.w.note("promoted", uint64(n.i), uint64(d.tli))
		n.w.tracef("%s is promoted: timeline %d at %s", n.id(), d.tli, at)
		n.checkpoint()
	})
}
