package sim

import (
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// eyes is the daemon's observer: what the real one would have seen, filed as
// the real one files it.
type eyes struct {
	d     *daemon
	facts []cluster.NodeFacts
	look  []pending
}

// pending is what is under way for one node.
type pending struct {
	sql     bool
	ssh     bool
	counted time.Time
	hasty   time.Duration // suspicion lasts until then
}

func newEyes(d *daemon) *eyes {
	e := &eyes{d: d, look: make([]pending, len(d.w.nodes))}
	for _, n := range d.w.nodes {
		e.facts = append(e.facts, cluster.NodeFacts{ID: n.id(), Role: cluster.RoleUnknown})
	}
	return e
}

func (e *eyes) alive() bool { return e.d.w.daemon == e.d }

func (e *eyes) now() time.Time { return epoch.Add(e.d.w.now + e.d.skew) }

// open starts looking.
func (e *eyes) open() {
	for _, n := range e.d.w.nodes {
		e.watchSQL(n)
		e.watchSSH(n)
	}
}

// Snapshot is what has been seen.
func (e *eyes) Snapshot() cluster.Snapshot {
	return cluster.Snapshot{Now: e.now(), Nodes: slices.Clone(e.facts)}
}

// Changed is not waited for here: the daemon is poked.
func (e *eyes) Changed() <-chan struct{} { return nil }

// Suspect looks at once, and often for a while.
func (e *eyes) Suspect(id cluster.NodeID) {
	if n := e.d.w.node(id); n != nil {
		e.look[n.i-1].hasty = e.d.w.now + 2*time.Second
		e.askSQL(n)
		e.askSSH(n)
	}
}

// ended: the connection that only waits was cut.
func (e *eyes) ended(n *node) { e.Suspect(n.id()) }

func (e *eyes) watchSQL(n *node) {
	if !e.alive() {
		return
	}
	e.askSQL(n)
	pause := e.d.w.policy.CheckPeriod
	if e.d.w.now < e.look[n.i-1].hasty {
		pause = 60 * time.Millisecond
	}
	e.d.w.at(pause, func() { e.watchSQL(n) })
}

func (e *eyes) watchSSH(n *node) {
	if !e.alive() {
		return
	}
	e.askSSH(n)
	pause := 5 * e.d.w.policy.CheckPeriod
	if e.facts[n.i-1].Reach != cluster.ReachOK {
		pause = e.d.w.policy.CheckPeriod
	}
	if e.d.w.now < e.look[n.i-1].hasty {
		pause = 100 * time.Millisecond
	}
	e.d.w.at(pause, func() { e.watchSSH(n) })
}

// askSQL makes one attempt, bounded by the timeout.
func (e *eyes) askSQL(n *node) {
	w := e.d.w
	p := &e.look[n.i-1]
	if p.sql {
		return
	}
	p.sql = true
	began := e.now()
	over := false
	file := func(f func()) {
		if over || !e.alive() {
			return
		}
		over, p.sql = true, false
		f()
	}
	w.at(w.policy.CheckTimeout, func() { file(func() { e.failed(n, began, cluster.ReachTimeout) }) })
	w.send(0, n.i, func() {
		reach := cluster.ReachRefused
		switch n.proc {
		case starting, stopping:
			reach = cluster.ReachStarting
		case up:
			n.later(w.between(0, time.Millisecond), func() {
				if n.proc != up {
					w.send(n.i, 0, func() { file(func() { e.failed(n, began, cluster.ReachStarting) }) })
					return
				}
				facts := e.see(n, began)
				w.send(n.i, 0, func() { file(func() { e.answered(n, facts) }) })
			})
			return
		}
		w.send(n.i, 0, func() { file(func() { e.failed(n, began, reach) }) })
	})
}

// see is the node's own facts.
func (e *eyes) see(n *node, began time.Time) cluster.NodeFacts {
	w, d := e.d.w, &n.disk
	f := cluster.NodeFacts{ID: n.id(), Role: cluster.RolePrimary, ServerVersion: 150018, SystemIdentifier: d.system, Timeline: d.tli,
		StartedAt: epoch.Add(n.started), SyncStandbyNames: n.loaded, SyncNamesSource: "postgresql.auto.conf:3", SynchronousCommit: "on",
		LastTry: began, LastOK: began}
	for _, h := range d.history {
		f.SwitchHistory = append(f.SwitchHistory, cluster.HistoryEntry{SystemIdentifier: d.system, Timeline: h.tli, SwitchLSN: h.at})
	}
	if len(f.SwitchHistory) > 0 {
		f.SwitchHistory[0].SwitchLSN = 0
	}
	for _, s := range d.slots {
		x := cluster.Slot{Name: s.name, Active: n.holder(s.name) != nil, WALStatus: "reserved", RestartLSN: w.end(d, min(s.restart, len(d.wal)))}
		if s.lost {
			x.WALStatus = "lost"
		}
		f.Slots = append(f.Slots, x)
	}
	if n.recovery {
		f.Role = cluster.RoleStandby
		f.ReceiveLSN, f.ReplayLSN, f.ReplayPaused, f.Conninfo = n.received, w.end(d, n.replayed), n.paused, n.told
		f.SlotName = n.slotTold
		if l := n.receiver; l != nil {
			f.Receiver = &cluster.Receiver{Status: "streaming", SenderHost: l.from.spec.Host, SenderPort: l.from.spec.Port, ReceivedTLI: d.tli,
				FlushedLSN: w.end(d, d.flushed), LastMsgReceipt: epoch.Add(l.heard + e.d.skew)}
		}
		return f
	}
	f.FlushLSN = w.end(d, d.flushed)
	f.InsertLSN = w.end(d, len(d.wal))
	f.SyncWaiters = len(n.waiting)
	if f.SyncWaiters > 0 {
		f.OldestWait = w.now - n.waiting[0].since
	}
	f.OldestWAL = w.end(d, d.retained)
	for _, l := range n.senders {
		if !l.atSender {
			continue
		}
		s := cluster.Sender{ApplicationName: l.name, ClientAddr: l.to.spec.Host, State: "catchup", FlushLSN: l.flushed, ReplayLSN: l.flushed, SentLSN: l.flushed}
		s.Slot = l.slot
		if l.streaming {
			s.State = "streaming"
		}
		f.Senders = append(f.Senders, s)
	}
	return f
}

func (e *eyes) answered(n *node, f cluster.NodeFacts) {
	was := e.facts[n.i-1]
	f.Host = was.Host
	f.Reach, f.ReachSince = cluster.ReachOK, was.ReachSince
	if was.Reach != cluster.ReachOK {
		f.ReachSince = f.LastOK
	}
	e.facts[n.i-1] = f
	if notable(was, f) {
		e.d.poke()
	}
}

func notable(a, b cluster.NodeFacts) bool {
	if a.Reach != b.Reach || a.Role != b.Role || a.Timeline != b.Timeline || a.SyncStandbyNames != b.SyncStandbyNames ||
		a.Conninfo != b.Conninfo || (a.Receiver == nil) != (b.Receiver == nil) || !a.StartedAt.Equal(b.StartedAt) || a.ReplayPaused != b.ReplayPaused {
		return true
	}
	return !slices.EqualFunc(a.Senders, b.Senders, func(x, y cluster.Sender) bool {
		return x.ApplicationName == y.ApplicationName && x.State == y.State
	})
}

func (e *eyes) failed(n *node, began time.Time, reach cluster.Reach) {
	p := &e.look[n.i-1]
	was := e.facts[n.i-1]
	f := was
	fresh := was.Reach == cluster.ReachOK || was.Reach == cluster.ReachUnknown
	switch {
	case fresh:
		f.Failures, p.counted = 1, began
	case began.Sub(p.counted) >= e.d.w.policy.CheckPeriod || began.Before(p.counted):
		f.Failures++
		p.counted = began
	}
	if fresh || reach == cluster.ReachStarting && was.Reach != cluster.ReachStarting {
		f.ReachSince = began
	}
	f.Reach, f.LastTry, f.LastError = reach, began, string(reach)
	e.facts[n.i-1] = f
	if was.Reach == cluster.ReachOK {
		e.look[n.i-1].hasty = e.d.w.now + 2*time.Second
	}
	if was.Reach != reach {
		e.askSSH(n)
	}
	if was.Reach != reach || was.Failures != f.Failures {
		e.d.poke()
	}
}

// askSSH asks the machine.
func (e *eyes) askSSH(n *node) {
	w := e.d.w
	p := &e.look[n.i-1]
	if p.ssh {
		return
	}
	p.ssh = true
	began := e.now()
	over := false
	file := func(ok bool, state cluster.Postmaster, pid int) {
		if over || !e.alive() {
			return
		}
		over, p.ssh = true, false
		f := e.facts[n.i-1]
		was := f.Host
		f.Host.LastTry, f.Host.Reachable = began, ok
		if ok {
			f.Host.Postmaster, f.Host.PID, f.Host.LastOK, f.Host.LastError = state, pid, began, ""
		} else {
			f.Host.Postmaster, f.Host.PID, f.Host.LastError = cluster.PostmasterUnknown, 0, "no answer"
		}
		e.facts[n.i-1] = f
		if was.Postmaster != f.Host.Postmaster || was.Reachable != f.Host.Reachable || f.Reach != cluster.ReachOK && was.LastTry.Before(f.ReachSince) {
			e.d.poke()
		}
	}
	w.at(w.policy.CheckTimeout, func() { file(false, "", 0) })
	w.send(0, n.i, func() {
		w.at(w.between(2*time.Millisecond, 20*time.Millisecond), func() {
			if n.hostDown {
				return
			}
			state, pid := n.postmaster()
			w.send(n.i, 0, func() { file(true, state, pid) })
		})
	})
}
