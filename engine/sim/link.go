package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// link is a replication connection: a walsender and a walreceiver. Each end
// learns of the other's end by the network, or by its own timeout.
type link struct {
	w        *world
	from, to *node
	name     string // application_name
	slot     string // the replication slot it holds; "" for none
	names    string // synchronous_standby_names as this walsender has it
	told     bool   // it was told to read the files again, and has not

	atSender, atReceiver bool // whether the process at that end lives
	sent                 int
	flushed              cluster.LSN // confirmed, as the sender knows
	streaming            bool
	busy                 bool
	watched              bool
	heard                time.Duration // by the receiver, last
	replied              time.Duration // to the sender, last
}

// conninfo is how a node is told to follow another.
func conninfo(me, primary cluster.Node) string {
	return fmt.Sprintf("host=%s port=%d application_name=%s", primary.Host, primary.Port, me.ID)
}

// target finds the node and the name in a primary_conninfo.
func (w *world) target(info string) (n *node, name string) {
	for _, word := range strings.Fields(info) {
		k, v, _ := strings.Cut(word, "=")
		switch k {
		case "host":
			n = w.byHost[v]
		case "application_name":
			name = v
		}
	}
	return n, name
}

// connect is the startup process, which starts a receiver when it has none.
func (n *node) connect() {
	n.later(n.w.between(50*time.Millisecond, 500*time.Millisecond), func() {
		if !n.recovery || n.promoting {
			return
		}
		n.connect()
		if n.receiver != nil || n.follows == "" {
			return
		}
		to, name := n.w.target(n.follows)
		if to == nil || to == n {
			return
		}
		told, life, slot := n.follows, n.life, n.slotUsed
		n.w.send(n.i, to.i, func() { to.later(0, func() { to.accept(n, life, name, told, slot) }) })
	})
}

// accept is a new walsender: what the standby asks for must be in this
// server's history, and still be here.
func (n *node) accept(s *node, life int, name, told, slot string) {
	if s.life != life || n.proc != up || n.disk.system != s.disk.system {
		return
	}
	w := n.w
	at := w.end(&s.disk, s.disk.flushed)
	end, known := n.disk.switchOf(s.disk.tli)
	if !known || at > end || at > w.end(&n.disk, n.disk.flushed) {
		return
	}
	from := w.index(&n.disk, at)
	if from < n.disk.retained {
		return
	}
	if held := n.disk.slot(slot); slot != "" && (held == nil || held.lost || n.holder(slot) != nil) {
		return // ERROR: replication slot is active for PID, does not exist, or lost
	}
	l := &link{w: w, from: n, to: s, name: name, slot: slot, names: n.loaded, atSender: true, sent: from, heard: w.now, replied: w.now}
	n.senders = append(n.senders, l)
	w.send(n.i, s.i, func() {
		s.later(0, func() {
			if s.life != life || !s.recovery || s.promoting || s.receiver != nil || s.follows != told || s.slotUsed != slot {
				l.endAtReceiver()
				return
			}
			l.atReceiver, s.receiver, l.heard = true, l, w.now
			if !l.watched { // its sender died meanwhile
				l.watch()
			}
			s.received = max(s.received, w.end(&s.disk, s.disk.flushed)/segment*segment)
			l.reply(w.end(&s.disk, s.disk.flushed), false)
		})
	})
	l.watch()
	n.later(0, l.pump)
}

// watch is both ends' timeout, and the keepalives.
func (l *link) watch() {
	l.watched = true
	l.w.at(700*time.Millisecond, func() {
		if !l.atSender && !l.atReceiver {
			l.watched = false
			return
		}
		if l.atSender && !l.from.frozen && l.w.now-l.replied > l.w.walTimeout {
			l.endAtSender()
			l.from.drop(l)
		}
		if l.atReceiver && !l.to.frozen && l.w.now-l.heard > l.w.walTimeout {
			if l.to.receiver == l {
				l.to.receiver = nil
			}
			l.endAtReceiver()
		}
		if l.atSender && !l.from.frozen {
			l.w.send(l.from.i, l.to.i, func() {
				if l.atReceiver && !l.to.frozen {
					l.heard = l.w.now
					l.reply(0, false)
				}
			})
		}
		l.watch()
	})
}

func (n *node) drop(l *link) {
	n.senders = slices.DeleteFunc(n.senders, func(x *link) bool { return x == l })
}

// endAtSender: the walsender is gone; the receiver hears of it if it can.
func (l *link) endAtSender() {
	if !l.atSender {
		return
	}
	l.atSender = false
	l.w.send(l.from.i, l.to.i, func() {
		if l.atReceiver {
			l.atReceiver = false
			if l.to.receiver == l {
				l.to.receiver = nil
			}
		}
	})
}

func (l *link) endAtReceiver() {
	l.atReceiver = false
	l.w.send(l.to.i, l.from.i, func() {
		if l.atSender {
			l.atSender = false
			l.from.drop(l)
		}
	})
}

// pump sends what is flushed to everybody who listens.
func (n *node) pump() {
	for _, l := range n.senders {
		l.pump()
	}
}

func (l *link) pump() {
	if !l.atSender || l.busy {
		return
	}
	n := l.from
	if l.sent >= n.disk.flushed {
		l.streaming = true
		return
	}
	upto := min(n.disk.flushed, l.sent+200)
	batch := n.disk.wal[l.sent:upto]
	history := n.disk.history
	l.busy = true
	l.w.send(n.i, l.to.i, func() {
		l.to.later(l.to.lag+l.w.between(100*time.Microsecond, 3*time.Millisecond), func() { l.arrive(batch, history) })
	})
	l.sent = upto
}

// arrive is the receiver that writes and flushes a batch, and says so.
func (l *link) arrive(batch []int32, history []switched) {
	s, w := l.to, l.w
	if !l.atReceiver {
		return
	}
	l.heard = w.now
	if s.disk.full {
		// FATAL: could not write to WAL segment: no space left on device
		s.receiver = nil
		l.endAtReceiver()
		return
	}
	at := w.end(&s.disk, s.disk.flushed)
	for _, r := range batch {
		if w.records[r].end > at {
			s.disk.wal = append(s.disk.wal, r)
			if tli := w.records[r].tli; tli != s.disk.tli {
				s.disk.tli, s.disk.history = tli, upTo(history, tli)
			}
		}
	}
	s.disk.flushed = len(s.disk.wal)
	s.received = w.end(&s.disk, s.disk.flushed)
	s.replay()
	s.pump()
	l.reply(s.received, true)
}

// upTo is a timeline history as far as one timeline.
func upTo(h []switched, tli cluster.Timeline) []switched {
	for i, e := range h {
		if e.tli == tli {
			return h[: i+1 : i+1]
		}
	}
	return h
}

// reply tells the sender how far the standby has flushed; 0 is a keepalive.
// done: the batch under way has arrived.
func (l *link) reply(flushed cluster.LSN, done bool) {
	l.w.send(l.to.i, l.from.i, func() {
		l.from.later(0, func() {
			if !l.atSender {
				return
			}
			l.replied = l.w.now
			if flushed == 0 {
				return
			}
			l.busy = l.busy && !done
			l.flushed = max(l.flushed, flushed)
			if held := l.from.disk.slot(l.slot); held != nil {
				held.restart = max(held.restart, l.w.index(&l.from.disk, l.flushed))
			}
			// It looks for the signal before it reads replies. One that arrives
			// between the two waits for the next time around.
			if l.w.chance(0.7) {
				l.obey()
			}
			l.release()
			l.obey()
			l.pump()
		})
	})
}

// obey is the walsender that reads the files again.
func (l *link) obey() {
	if l.told && l.atSender {
		l.told, l.names = false, l.from.loaded
		l.release()
		l.from.settle()
	}
}

// release is SyncRepReleaseWaiters: by this walsender's own idea of the names,
// over all walsenders' own ideas of whether they count.
func (l *link) release() {
	n := l.from
	set := l.w.names(l.names)
	if n.recovery || !l.streaming || !slices.Contains(set.Members, cluster.NodeID(l.name)) {
		return
	}
	type confirmed struct {
		priority int
		lsn      cluster.LSN
	}
	var counted []confirmed
	for _, x := range n.senders {
		if p := slices.Index(l.w.names(x.names).Members, cluster.NodeID(x.name)); p >= 0 && x.atSender && x.streaming {
			counted = append(counted, confirmed{p, x.flushed})
		}
	}
	if len(counted) < set.K {
		return
	}
	if set.Method == "ANY" {
		slices.SortStableFunc(counted, func(a, b confirmed) int { return int(b.lsn) - int(a.lsn) })
	} else {
		slices.SortStableFunc(counted, func(a, b confirmed) int { return a.priority - b.priority })
	}
	at := counted[0].lsn
	for _, c := range counted[:set.K] {
		at = min(at, c.lsn)
	}
	n.released = max(n.released, at)
	for len(n.waiting) > 0 && n.w.records[n.waiting[0].record].end <= n.released {
		c := n.waiting[0]
		n.waiting = n.waiting[1:]
		n.done(c)
	}
}
