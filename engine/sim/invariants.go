package sim

import (
	"fmt"
	"slices"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
)

// Invariant is something that must always hold. Its text is what a person reads
// when it was broken.
type Invariant string

// What is asserted, in the order of the engine's own list: commits, terms, the
// sync set, promises, history, the gate, what is overwritten, and the end.
const (
	RecordedHolds   Invariant = "the recorded primary holds every acknowledged commit"
	EligibleHolds   Invariant = "whoever the record lets be promoted holds every acknowledged commit"
	PromotedHolds   Invariant = "who is promoted, or served, holds every acknowledged commit"
	TermGrows       Invariant = "the term only grows"
	TermHasOne      Invariant = "a term has one primary"
	RecordedFirst   Invariant = "who is no longer waited for was recorded ineligible before"
	PromisedFirst   Invariant = "nobody is promoted without its promise"
	JournalledFirst Invariant = "nobody is promoted unless the journal says so"
	HistoryGrows    Invariant = "the recorded history only grows"
	HistoryKnown    Invariant = "whoever serves or is eligible has the recorded history"
	FencedIsOut     Invariant = "who is fenced is not eligible"
	GateHigher      Invariant = "the gate opens to another node only with a higher term"
	GateNotFenced   Invariant = "the gate opens to nobody who is fenced"
	KeepsGood       Invariant = "the data of the primary, of the eligible and of whoever has the last copy is not overwritten"
	CostsNothing    Invariant = "a slow network promotes nobody, and neither it nor a switchover costs a client its connection"
	NeverHalts      Invariant = "the engine finds nothing that makes it stop acting"
	ComesUp         Invariant = "a fresh cluster comes up"
	ComesBack       Invariant = "when all is healed, the cluster comes back, and all nodes have one history"
)

// Invariants are all of them.
func Invariants() []Invariant {
	return []Invariant{RecordedHolds, EligibleHolds, PromotedHolds, TermGrows, TermHasOne, RecordedFirst, PromisedFirst, JournalledFirst,
		HistoryGrows, HistoryKnown, FencedIsOut, GateHigher, GateNotFenced, KeepsGood, CostsNothing, NeverHalts, ComesUp, ComesBack}
}

// checkOwed holds a commit that somebody was promised against what the record
// would allow to be promoted now: the record must never lie, not even for the
// moment in which nobody dies.
func (w *world) checkOwed(c *commit, r cluster.Record) {
	if r.Term == 0 {
		return
	}
	if p := w.node(r.Primary); p != nil && !w.holds(&p.disk, c) {
		w.fail(RecordedHolds, "commit %d was %s on %s, and %s, the recorded primary of term %d, does not hold it", c.id, c.how(), c.node.id(), p.id(), r.Term)
		return
	}
	set := r.SyncSet
	n := len(set.Members)
	if n == 0 || set.K == 0 {
		return
	}
	need := n - set.K + 1
	for q := 1; q < 1<<n; q++ {
		w.checkQuorum(c, r, q, need)
	}
}

// checkQuorum asks whom a promotion would choose that has the promises of one
// set of members. Only a standby can promise.
func (w *world) checkQuorum(c *commit, r cluster.Record, q, need int) {
	var most cluster.LSN
	size := 0
	for i, id := range r.SyncSet.Members {
		if m := w.node(id); q&(1<<i) != 0 && m != nil && m.disk.signal {
			size++
			most = max(most, w.end(&m.disk, m.disk.flushed))
		}
	}
	if size < need {
		return
	}
	for i, id := range r.SyncSet.Members {
		m := w.node(id)
		if q&(1<<i) == 0 || m == nil || !m.disk.signal || !r.Members[id].Eligible || r.Members[id].Fenced || !m.disk.present || m.disk.broken {
			continue
		}
		if w.end(&m.disk, m.disk.flushed) == most && !w.holds(&m.disk, c) {
			w.fail(EligibleHolds, "commit %d was %s on %s, and %s is eligible in the set %s %d (%v) and does not hold it", c.id, c.how(), c.node.id(), id, r.SyncSet.Method, r.SyncSet.K, r.SyncSet.Members)
			return
		}
	}
}

// checkSaved is called for each write of the record.
func (w *world) checkSaved(before, after cluster.Record) {
	switch {
	case after.Term < before.Term:
		w.fail(TermGrows, "the term fell from %d to %d", before.Term, after.Term)
	case before.Term > 0 && after.Term == before.Term && after.Primary != before.Primary:
		w.fail(TermHasOne, "the primary changed in term %d", after.Term)
	case len(after.History) < len(before.History) || !slices.Equal(after.History[:len(before.History)], before.History):
		w.fail(HistoryGrows, "the recorded history did not only grow: %v became %v", before.History, after.History)
	}
	for id, m := range after.Members {
		if m.Eligible && m.Fenced {
			w.fail(FencedIsOut, "%s is eligible and fenced", id)
		}
		if m.Eligible && !before.Members[id].Eligible {
			w.checkHistory(w.node(id), after, "eligible")
		}
	}
	w.everywhere()
	for _, c := range w.owed {
		w.checkOwed(c, after)
	}
	if after.Term > before.Term && before.Term > 0 {
		w.stats.Promotions++
	}
}

// checkNames is called when the engine changes synchronous_standby_names: to
// wait for fewer is itself an acknowledgement, so who is dropped must be
// recorded ineligible before.
func (w *world) checkNames(n *node, value string) {
	r := w.store.record()
	if r.Primary != n.id() || n.recovery || n.byHand {
		return
	}
	was, is := w.names(n.disk.names), w.names(value)
	for _, id := range was.Members {
		gone := true
		for _, m := range is.Members {
			gone = gone && m != id
		}
		if gone && id != n.id() && r.Members[id].Eligible {
			w.fail(RecordedFirst, "%s is no longer waited for (%q becomes %q) and is still recorded eligible", id, n.disk.names, value)
		}
	}
}

// checkPromotion is called when a server is told by the engine to promote.
func (w *world) checkPromotion(n *node) {
	r := w.store.record()
	m := r.Members[n.id()]
	if m.Promised != r.Term+1 && r.Primary != n.id() {
		w.fail(PromisedFirst, "%s is promoted without a promise for term %d (it has one for %d)", n.id(), r.Term+1, m.Promised)
	}
	op, known := w.store.promoting(n.id())
	if !known {
		w.fail(JournalledFirst, "%s is promoted, and the journal does not know it", n.id())
	}
	if w.calm && op.Plan.Action == cluster.Promote {
		w.fail(CostsNothing, "%s is promoted in the place of %s, and nothing is wrong but the network slow (%s)", n.id(), r.Primary, op.Plan.Reason)
	}
	w.checkHolds(n, "promoted")
}

// checkHolds: a node that is to serve holds everything that is owed.
func (w *world) checkHolds(n *node, what string) {
	for _, c := range w.owed {
		if !w.holds(&n.disk, c) {
			w.fail(PromotedHolds, "%s is %s and does not hold commit %d, which was %s on %s", n.id(), what, c.id, c.how(), c.node.id())
			return
		}
	}
	if n.disk.corrupt {
		w.fail(PromotedHolds, "%s is %s although a rewind has spoiled it", n.id(), what)
	}
}

// checkOpened is called when a gate opens.
func (w *world) checkOpened(term cluster.Term, id cluster.NodeID) {
	switch {
	case term < w.openedTerm:
		w.fail(GateHigher, "the gate opened with term %d after term %d", term, w.openedTerm)
	case term == w.openedTerm && id != w.openedNode:
		w.fail(GateHigher, "the gate opened with term %d to %s after %s", term, id, w.openedNode)
	}
	w.openedTerm, w.openedNode = term, id
	n := w.node(id)
	if w.store.record().Members[id].Fenced {
		w.fail(GateNotFenced, "the gate opened to %s, which is fenced", id)
	}
	w.checkHolds(n, "served")
	w.checkHistory(n, w.store.record(), "served")
}

// checkHistory: what a node has is what the record says was promoted.
func (w *world) checkHistory(n *node, r cluster.Record, what string) {
	for i, h := range n.disk.history {
		if i > 0 && (i >= len(r.History) || r.History[i].Timeline != h.tli || r.History[i].SwitchLSN != h.at) {
			w.fail(HistoryKnown, "%s is %s with the history %v, recorded is %v", n.id(), what, n.disk.history, r.History)
			return
		}
	}
}

// checkOverwrite is called when a node's data is about to be given up.
func (w *world) checkOverwrite(n *node) {
	r := w.store.record()
	if r.Primary == n.id() || r.Members[n.id()].Eligible {
		w.fail(KeepsGood, "the data of %s is overwritten, which is the primary or eligible", n.id())
	}
	for _, c := range w.owed {
		elsewhere := !w.holds(&n.disk, c)
		for _, o := range w.nodes {
			elsewhere = elsewhere || o != n && w.holds(&o.disk, c)
		}
		if !elsewhere {
			w.fail(KeepsGood, "the data of %s is overwritten, the last copy of commit %d", n.id(), c.id)
			return
		}
	}
}

// unsettled says what is not yet as it should be after everything was healed.
func (w *world) unsettled() string {
	r := w.store.record()
	p := w.node(r.Primary)
	switch {
	case w.daemon == nil:
		return "the daemon is down"
	case p == nil || p.proc != up || p.recovery:
		return fmt.Sprintf("the recorded primary %s is not one", r.Primary)
	case !w.daemon.gate.open || w.daemon.gate.node != r.Primary:
		return "the gate is closed"
	case len(w.tasks) > 0:
		return "an operation runs"
	}
	for _, n := range w.nodes {
		if n == p || !n.spec.FailoverAllowed {
			continue
		}
		if n.proc != up || !n.recovery || n.receiver == nil || n.receiver.from != p || n.disk.tli != p.disk.tli {
			return fmt.Sprintf("%s does not follow %s (%s)", n.id(), p.id(), n.describe())
		}
		if own := cluster.SlotName(n.id()); w.policy.Slots && (n.receiver.slot != own || len(n.disk.slots) > 0) {
			return fmt.Sprintf("%s holds slot %q and keeps %v", n.id(), n.receiver.slot, n.disk.slots)
		}
		if !r.Members[n.id()].Eligible {
			return fmt.Sprintf("%s is not eligible (%s); %s: %s", n.id(), r.Members[n.id()].Reason, p.id(), p.describe())
		}
	}
	if !decide.SameSet(w.names(p.loaded), r.SyncSet) {
		return fmt.Sprintf("%s waits for %q, recorded is %v", p.id(), p.loaded, r.SyncSet)
	}
	return ""
}

// describe is what a node is, for a person who looks for why.
func (n *node) describe() string {
	d := &n.disk
	var to string
	for _, l := range n.senders {
		to += fmt.Sprintf("[to %s at sender %v at receiver %v streaming %v busy %v replied %s heard %s] ", l.to.id(), l.atSender, l.atReceiver, l.streaming, l.busy, l.replied, l.heard)
	}
	return to + fmt.Sprintf("process %d, standby %v, broken %v, present %v, timeline %d, at %s, told %q, follows %q, receiver %v, restart %d of %d, history %v",
		n.proc, d.signal, d.broken, d.present, d.tli, n.w.end(d, d.flushed), d.conninfo, n.follows, n.receiver != nil, d.restart, d.flushed, d.history)
}

// checkEnd is what must hold when the world was healed for long enough.
func (w *world) checkEnd() {
	if why := w.unsettled(); why != "" {
		d := "no daemon"
		if w.daemon != nil {
			v := w.daemon.engine.View()
			d = fmt.Sprintf("rule %d %s: %s", v.Decision.Rule, v.Decision.Name, v.Decision.Reason)
		}
		w.fail(ComesBack, "healed, and it does not come back: %s; the engine says: %s", why, d)
		return
	}
	p := w.node(w.store.record().Primary)
	for _, c := range w.commits {
		if (c.acked || c.seen) && !c.exempt && !w.holds(&p.disk, c) {
			w.fail(RecordedHolds, "in the end, %s does not hold commit %d, which was %s on %s", p.id(), c.id, c.how(), c.node.id())
			return
		}
	}
	for _, n := range w.nodes {
		if n.disk.corrupt {
			w.fail(ComesBack, "in the end, %s is spoiled by a rewind", n.id())
		}
		if k := common(&n.disk, &p.disk); k < n.disk.flushed {
			w.fail(ComesBack, "in the end, %s has a history of its own after %s", n.id(), w.end(&n.disk, k))
		}
	}
}
