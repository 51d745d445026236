// Package check judges histories: what was acknowledged is there, what was
// refused is not, nothing happened twice, money is neither made nor lost, each
// register behaved like one variable, and no two servers took writes at once.
//
// Every check is a pure function of a history and of what the servers hold in
// the end. It must never know which faults were made: nothing excuses a
// violation.
package check

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/chaos/history"
)

// What can be wrong.
const (
	Lost       = "lost"             // acknowledged and not there
	Duplicate  = "duplicate"        // there more often than asked
	Phantom    = "phantom"          // there though refused, or never asked for
	Total      = "total"            // the accounts' sum, or their sum with the transfers
	Order      = "not linearizable" // no order of the requests explains the answers
	Undecided  = "undecided"        // the checker ran out of time
	TwoWriters = "two writers"      // an older timeline was acknowledged after a newer one
	Differs    = "standby differs"  // a standby holds something else than the primary
	OwnWrite   = "own write unseen" // a connection did not read what it had been told is there
	Stale      = "stale read"       // what was acknowledged longer ago than the limit of lag was not seen
	Backwards  = "backwards"        // a transaction saw less than it had seen
	ReadFailed = "read failed"      // one that another node, or the same one later, could have served
)

// Violation is one thing that may not be.
type Violation struct {
	What string `json:"what"`
	Text string `json:"text"`
}

func violation(what, format string, args ...any) Violation {
	return Violation{What: what, Text: fmt.Sprintf(format, args...)}
}

// said describes a request for a person who looks for it in the history.
func said(op history.Op) string {
	s := fmt.Sprintf("%s by %s, sent at %s, answered at %s", op.Kind, op.Client, ms(op.Invoked), ms(op.Returned))
	if op.Port != 0 {
		s += fmt.Sprintf(" by port %d on timeline %d", op.Port, op.Timeline)
	}
	if op.Code != "" {
		s += " with " + op.Code
	}
	return s
}

func ms(d time.Duration) string { return d.Round(100 * time.Microsecond).String() }

// ids holds what is there against what was asked: each id that was
// acknowledged once, none that was refused, none that nobody asked for.
func ids(ops []history.Op, kind history.Kind, there []int64) (out []Violation) {
	count := map[int64]int{}
	for _, id := range there {
		count[id]++
	}
	asked := map[int64]history.Op{}
	for _, op := range ops {
		if op.Kind == kind {
			asked[op.Value] = op
		}
	}
	for _, op := range ops {
		if op.Kind != kind {
			continue
		}
		switch n := count[op.Value]; {
		case n == 0 && op.Outcome == history.OK:
			out = append(out, violation(Lost, "%d is not there: %s", op.Value, said(op)))
		case n > 0 && op.Outcome == history.Failed:
			out = append(out, violation(Phantom, "%d is there although it was refused: %s", op.Value, said(op)))
		case n > 1:
			out = append(out, violation(Duplicate, "%d is there %d times: %s", op.Value, n, said(op)))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(count)) {
		if _, ok := asked[id]; !ok {
			out = append(out, violation(Phantom, "%d is there and nobody asked for it", id))
		}
	}
	return out
}

// Set judges the set workload by the ids that are in the table in the end.
func Set(ops []history.Op, there []int64) []Violation { return ids(ops, history.SetAdd, there) }

// Terms judges who took writes through the proxy, by the timelines on which
// they were acknowledged: one timeline is written by one server, and once a
// newer one has been acknowledged no older one is. An answer may have lain in
// a client's own buffer while the machine was busy, so a request that was sent
// before has a second of grace; one that was sent after has none.
func Terms(ops []history.Op) (out []Violation) {
	const grace = time.Second
	first := map[uint32]history.Op{} // of each timeline, by its answer
	for _, op := range ops {
		if !judgedByTerm(op) {
			continue
		}
		if f, ok := first[op.Timeline]; !ok || op.Returned < f.Returned {
			first[op.Timeline] = op
		}
	}
	for _, op := range ops {
		if !judgedByTerm(op) {
			continue
		}
		if f := first[op.Timeline]; f.Port != op.Port {
			out = append(out, violation(TwoWriters, "timeline %d was written by two servers: %s; and %s", op.Timeline, said(f), said(op)))
			continue
		}
		for _, newer := range slices.Sorted(maps.Keys(first)) {
			f := first[newer]
			if newer > op.Timeline && (op.Invoked >= f.Returned || op.Returned > f.Returned+grace) {
				out = append(out, violation(TwoWriters, "an older timeline was acknowledged after a newer one: %s; the newer's first: %s", said(op), said(f)))
				break
			}
		}
	}
	return out
}

func judgedByTerm(op history.Op) bool {
	return op.Kind.Writes() && op.Kind != history.DirectWrite && op.Outcome == history.OK && op.Timeline != 0
}

// Strays counts the writes past the proxy that a server acknowledged on an
// older timeline, after a newer one was first acknowledged through the proxy.
// They are no violation, since the proxy's promise is about what goes through
// it, but each is one that a client without the proxy has lost.
func Strays(ops []history.Op) (n int) {
	first := map[uint32]time.Duration{}
	for _, op := range ops {
		if at, ok := first[op.Timeline]; judgedByTerm(op) && (!ok || op.Returned < at) {
			first[op.Timeline] = op.Returned
		}
	}
	for _, op := range ops {
		if op.Kind != history.DirectWrite || op.Outcome != history.OK {
			continue
		}
		for newer, at := range first {
			if newer > op.Timeline && op.Invoked >= at {
				n++
				break
			}
		}
	}
	return n
}
