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
	// Was is the sync set in force, for Degrade.
	Was cluster.SyncSet
	// InForce: Target is what the primary has in force already, so that only
	// the record changes.
	InForce bool
	// Unsafe: what is promoted is not known to hold every acknowledged commit.
	Unsafe bool
	// Why says for each standby that a Degrade takes out why it does. One that
	// is in it and stays in Target is waited for and is not eligible.
	Why map[cluster.NodeID]string
	// Mode is what a SetMode leads to.
	Mode cluster.Mode
	// Clone: the Rejoin must copy the primary, because the WAL that the node
	// would need is gone.
	Clone bool

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
	// GateSince is when the gate was opened or closed last.
	GateSince time.Time
}

// Decide applies the table. It does not change its input.
func Decide(in Input) (Decision, Memory, Trace) {
	mem := in.Memory.Clone()
	f := gather(in, &mem)
	d, tr := judge(f)
	f.note(d, &mem)
	return d, mem, tr
}

func judge(f *facts) (Decision, Trace) {
	table := Rules()
	tr := Trace{Considered: make([]int, 0, len(table))}
	var later *Decision // what is to be tried again, not yet
	degrade := false    // that is to record who is not waited for
	for _, r := range table {
		tr.Considered = append(tr.Considered, r.Number)
		d, holds := r.When(f)
		if !holds {
			continue
		}
		d.Rule, d.Name = r.Number, r.Name
		if d.Level == "" {
			d.Level = cluster.Info
		}
		// Until that is recorded nobody is taken in: the record would let a
		// standby count that commits do not wait for, beside whatever is put in
		// force next.
		if degrade && d.Action == cluster.Restore {
			tr.Deferred = append(tr.Deferred, r.Number)
			continue
		}
		if d.Acts() {
			if wait := f.pause(d.Action, d.Node); wait > 0 {
				d.Reason += "; the last attempt failed, the next is in " + wait.Round(100*time.Millisecond).String()
				degrade = degrade || d.Action == cluster.Degrade
				d.Action = ""
				// It must not keep from everything else what can be done
				// meanwhile; clients that are held wait for this alone.
				if !d.CloseGate {
					tr.Deferred = append(tr.Deferred, r.Number)
					if later == nil {
						first := d // d itself would be made anew on the heap for each rule
						later = &first
					}
					continue
				}
			}
		}
		if later != nil && !d.Acts() && !d.CloseGate {
			return *later, tr
		}
		return d, tr
	}
	// The last rule of the table always holds.
	return Decision{}, tr
}

// note remembers what a decision means for the next ones.
func (f *facts) note(d Decision, mem *Memory) {
	// A primary that we stop for a switchover is looked at meanwhile as well.
	if d.Action == cluster.Promote && f.Record.Stopping != f.Record.Primary {
		mem.LostTerm = f.Record.Term
	}
	seen := Proof{f.primary.ID, f.Record.Term, f.primary.StartedAt}
	switch {
	case !f.GateOpen && d.Action == cluster.Reopen:
		// What is being proved is the run that the first decision saw: should
		// the server restart meanwhile, it is proved once more.
		if !mem.Proving {
			mem.Proved, mem.Proving = seen, true
		}
		return
	case f.GateOpen && f.primary.Up():
		if mem.Proved.Node != seen.Node || mem.Proved.Term != seen.Term || !f.restartMatters() {
			mem.Proved = seen
		}
	}
	mem.Proving = false
}

// pause is how long an action still waits after it failed.
func (f *facts) pause(a cluster.Action, n cluster.NodeID) time.Duration {
	return backoff(f.Memory.Attempts[Attempt{a, n}], f.now)
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
