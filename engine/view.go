package engine

import (
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// View is all there is to see, at one moment.
type View struct {
	Snapshot  cluster.Snapshot
	Record    cluster.Record
	Policy    cluster.Policy
	Memory    decide.Memory
	GateOpen  bool
	Decision  decide.Decision
	Trace     decide.Trace // how the decision was come to
	Since     time.Time    // when its rule began to hold
	IfDies    map[cluster.NodeID]decide.Decision
	Operation *plan.Operation
	Progress  string
	Halted    string
}

// Input is what a decision would be made from, as the view has it.
func (v View) Input() decide.Input {
	return decide.Input{Snapshot: v.Snapshot, Record: v.Record, Policy: v.Policy, Memory: v.Memory, GateOpen: v.GateOpen}
}

// View gives the present state with, for each node, what would be decided if
// it died now.
func (e *Engine) View() View {
	in := e.Input()
	v := View{Snapshot: in.Snapshot, Record: in.Record, Policy: in.Policy, Memory: in.Memory, GateOpen: in.GateOpen, IfDies: map[cluster.NodeID]decide.Decision{}}
	for _, n := range in.Policy.Nodes {
		v.IfDies[n.ID] = decide.IfDies(in, n.ID)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	v.Decision, v.Trace, v.Since, v.Halted = e.decision, e.trace, e.since, e.halted
	if e.current != nil {
		op := e.current.op
		v.Operation, v.Progress = &op, e.current.progress
	}
	return v
}

// Watch gives a channel that has a value after every change, coalesced, until
// stop is called.
func (e *Engine) Watch() (changed <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	e.mu.Lock()
	e.watchers[c] = struct{}{}
	e.mu.Unlock()
	return c, func() {
		e.mu.Lock()
		delete(e.watchers, c)
		e.mu.Unlock()
	}
}

func (e *Engine) notify() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
