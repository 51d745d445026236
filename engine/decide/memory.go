package decide

import (
	"maps"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// Memory is what must be remembered between two decisions. It holds timers
// only; what safety depends on is in the Record. A daemon that starts anew
// begins with none: it then waits longer, and never less, than it would have.
type Memory struct {
	// Last is the clock at the last decision.
	Last time.Time

	// SenderMissing is when the primary was first seen without a usable
	// pg_stat_replication row for a standby that commits wait for.
	SenderMissing map[cluster.NodeID]time.Time
	// StreamingSince is when the present run of streaming to a standby was
	// first seen.
	StreamingSince map[cluster.NodeID]time.Time
	// Confirmed is what a standby that streams and is behind has confirmed to
	// the primary, and since when that has not moved.
	Confirmed map[cluster.NodeID]Progress
	// Replayed is the same of the replay of a standby that receives nothing.
	Replayed map[cluster.NodeID]Progress
	// Ahead is since when a standby that receives nothing has held WAL of the
	// recorded timeline that the primary lacks.
	Ahead map[cluster.NodeID]time.Time
	// Attempts counts failures of an action on a node, so that it is repeated
	// after a growing pause and not in a tight loop.
	Attempts map[Attempt]Failures

	// Proved is the run of the primary to which the gate was opened: that of
	// the decision to open it. Should the server have begun another since, it
	// shows commits that waited for a standby as if they had been confirmed.
	// That this is forgotten with the daemon does no harm: the gate is closed
	// when a daemon starts, and opening it proves the run it finds.
	// Proving: the gate is closed, and it was decided to prove that run.
	Proved  Proof
	Proving bool

	// AsyncSince is when async by hand was first seen by this daemon. A clock
	// that was set back makes the recorded moment one of the future, and then
	// this one counts.
	AsyncSince time.Time

	// Failovers are those within the damping window, and Losses those of each
	// standby. Out are the standbys whose present loss is counted already, and
	// LostTerm is the term whose primary was found lost.
	Failovers []time.Time
	Losses    map[cluster.NodeID][]time.Time
	Out       map[cluster.NodeID]bool
	LostTerm  cluster.Term
}

// Progress is a position and since when it has been the same.
type Progress struct {
	LSN   cluster.LSN
	Since time.Time
}

// Proof names one run of one primary.
type Proof struct {
	Node      cluster.NodeID
	Term      cluster.Term
	StartedAt time.Time
}

// Attempt names what was tried.
type Attempt struct {
	Action cluster.Action
	Node   cluster.NodeID
}

// Failures is how often and when something failed last.
type Failures struct {
	Count int
	Last  time.Time
}

// Clone copies the memory so that Decide never changes its input.
func (m Memory) Clone() Memory {
	c := m
	c.SenderMissing = copied(m.SenderMissing)
	c.StreamingSince = copied(m.StreamingSince)
	c.Confirmed = copied(m.Confirmed)
	c.Replayed = copied(m.Replayed)
	c.Ahead = copied(m.Ahead)
	c.Attempts = copied(m.Attempts)
	c.Out = copied(m.Out)
	c.Failovers = slices.Clone(m.Failovers)
	c.Losses = copied(m.Losses)
	for id, l := range c.Losses {
		c.Losses[id] = slices.Clone(l)
	}
	return c
}

// copied is never nil, so that it can be written to.
func copied[K comparable, V any](m map[K]V) map[K]V {
	c := make(map[K]V, len(m))
	maps.Copy(c, m)
	return c
}

// Failed notes that an action's operation failed.
func (m Memory) Failed(a cluster.Action, n cluster.NodeID, now time.Time) Memory {
	c := m.Clone()
	f := c.Attempts[Attempt{a, n}]
	c.Attempts[Attempt{a, n}] = Failures{Count: f.Count + 1, Last: now}
	return c
}

// Succeeded forgets the failures of an action.
func (m Memory) Succeeded(a cluster.Action, n cluster.NodeID) Memory {
	c := m.Clone()
	delete(c.Attempts, Attempt{a, n})
	return c
}

// tick brings the memory to the present. Only time that was watched counts: a
// clock that was set forward, or a daemon that was stopped for a while, adds at
// most half of what makes a loss, so that one look alone never does; and a
// clock that was set back leaves every timer where it stood.
func (m *Memory) tick(now time.Time, p cluster.Policy) {
	passed := now.Sub(m.Last)
	most := patience(p) / 2
	switch {
	case m.Last.IsZero():
	case passed < 0:
		m.shift(passed, now)
	case passed > most:
		m.shift(passed-most, now)
	}
	m.Last = now
	m.forget(now, p.DampingWindow)
}

// shift moves every moment by d, and none past the present.
func (m *Memory) shift(d time.Duration, now time.Time) {
	move := func(t time.Time) time.Time {
		if t = t.Add(d); t.After(now) {
			return now
		}
		return t
	}
	for _, times := range []map[cluster.NodeID]time.Time{m.SenderMissing, m.StreamingSince, m.Ahead} {
		for id, t := range times {
			times[id] = move(t)
		}
	}
	for _, all := range []map[cluster.NodeID]Progress{m.Confirmed, m.Replayed} {
		for id, p := range all {
			all[id] = Progress{p.LSN, move(p.Since)}
		}
	}
	for a, f := range m.Attempts {
		m.Attempts[a] = Failures{f.Count, move(f.Last)}
	}
	if !m.AsyncSince.IsZero() {
		m.AsyncSince = move(m.AsyncSince)
	}
	for i, t := range m.Failovers {
		m.Failovers[i] = move(t)
	}
	for _, l := range m.Losses {
		for i, t := range l {
			l[i] = move(t)
		}
	}
}

// forget drops what lies further back than the damping window.
func (m *Memory) forget(now time.Time, window time.Duration) {
	old := func(t time.Time) bool { return window <= 0 || now.Sub(t) > window }
	m.Failovers = slices.DeleteFunc(m.Failovers, old)
	for id, l := range m.Losses {
		if l = slices.DeleteFunc(l, old); len(l) == 0 {
			delete(m.Losses, id)
		} else {
			m.Losses[id] = l
		}
	}
}

// patience is how long a silence must last to be a loss.
func patience(p cluster.Policy) time.Duration {
	return time.Duration(max(1, p.CheckRetries)) * max(p.CheckPeriod, time.Millisecond)
}

// Limits of damping.
const (
	longestSilence = 30 * time.Second // that is asked for before a primary is lost
	longestStretch = time.Minute      // of streaming before a standby is taken back
)

// retriesNeeded is how many failed checks make a loss of the primary: each
// failover in the window doubles them. What is configured to be longer than
// the limit stays as it is.
func retriesNeeded(p cluster.Policy, failovers int) int {
	base := max(1, p.CheckRetries)
	each := max(p.CheckPeriod, p.CheckTimeout, time.Millisecond)
	return max(base, int(doubled(time.Duration(base), failovers, longestSilence/each)))
}

// stretchNeeded is how long a standby must have streamed without interruption
// before commits wait for it again. The first loss in the window costs nothing,
// because whatever was restarted once is welcome back; the second costs the
// usual patience, and each further one twice the one before.
func stretchNeeded(p cluster.Policy, losses int) time.Duration {
	if losses < 2 {
		return 0
	}
	return doubled(patience(p), losses-2, longestStretch)
}

// doubled is d, doubled so many times, and at most the limit.
func doubled(d time.Duration, times int, limit time.Duration) time.Duration {
	for ; times > 0 && d < limit; times-- {
		d *= 2
	}
	return min(d, limit)
}
