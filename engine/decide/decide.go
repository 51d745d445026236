package decide

import (
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// Decision is what should happen now. A zero Action means that nothing should
// be changed; Gate may still ask for the gate to be closed meanwhile.
type Decision struct {
	Rule   int
	Name   string
	Reason string

	Action cluster.Action
	Node   cluster.NodeID
	// Target is the sync set the action leads to, for Degrade and Restore.
	Target cluster.SyncSet

	// CloseGate: clients must be held until another decision; the recorded
	// primary cannot be trusted to serve them.
	CloseGate bool
	// Cut: links in use are severed with it, because their server is lost.
	Cut bool

	Level cluster.Level // how it should look to a person
	// LossBytes is what a forced promotion would lose, where something would.
	LossBytes uint64
}

// Acts says whether the decision asks for a plan.
func (d Decision) Acts() bool { return d.Action != "" }

// Memory is what must be remembered between two decisions. It holds timers
// only; what safety depends on is in the Record.
type Memory struct {
	// SenderMissing is when the primary was first seen without a usable
	// pg_stat_replication row for a standby.
	SenderMissing map[cluster.NodeID]time.Time
	// Attempts counts failures of an action on a node, so that it is repeated
	// after a growing pause and not in a tight loop.
	Attempts map[Attempt]Failures
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
	c := Memory{
		SenderMissing: make(map[cluster.NodeID]time.Time, len(m.SenderMissing)),
		Attempts:      make(map[Attempt]Failures, len(m.Attempts)),
	}
	for k, v := range m.SenderMissing {
		c.SenderMissing[k] = v
	}
	for k, v := range m.Attempts {
		c.Attempts[k] = v
	}
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

// Trace says which rules were looked at before the one that held.
type Trace struct {
	Considered []int
	// Deferred are those of them that held too: their last attempt failed, and
	// the next is not due.
	Deferred []int
}

// Input is all that a decision depends on.
type Input struct {
	Snapshot cluster.Snapshot
	Record   cluster.Record
	Policy   cluster.Policy
	Memory   Memory
	GateOpen bool
}

// Decide applies the table. It does not change its input.
func Decide(in Input) (Decision, Memory, Trace) {
	mem := in.Memory.Clone()
	f := gather(in, &mem)
	var tr Trace
	var later *Decision // what is to be tried again, not yet
	for _, r := range Rules() {
		tr.Considered = append(tr.Considered, r.Number)
		d, holds := r.When(f)
		if !holds {
			continue
		}
		d.Rule, d.Name = r.Number, r.Name
		if d.Level == "" {
			d.Level = cluster.Info
		}
		if d.Acts() {
			if wait := backoff(mem.Attempts[Attempt{d.Action, d.Node}], in.Snapshot.Now); wait > 0 {
				d.Reason += "; the last attempt failed, the next is in " + wait.Round(100*time.Millisecond).String()
				d.Action = ""
				// It must not keep from everything else what can be done
				// meanwhile; clients that are held wait for this alone.
				if !d.CloseGate {
					tr.Deferred = append(tr.Deferred, r.Number)
					if later == nil {
						later = &d
					}
					continue
				}
			}
		}
		if later != nil && !d.Acts() && !d.CloseGate {
			return *later, mem, tr
		}
		return d, mem, tr
	}
	// The last rule of the table always holds.
	return Decision{}, mem, tr
}

// backoff is how long to wait before an action is tried again: one second
// after the first failure, doubling to half a minute.
func backoff(f Failures, now time.Time) time.Duration {
	if f.Count == 0 {
		return 0
	}
	pause := min(time.Second<<min(f.Count-1, 5), 30*time.Second)
	return max(0, f.Last.Add(pause).Sub(now))
}
