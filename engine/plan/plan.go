// Package plan turns a decision into ordered steps, as data: what will be
// done, to which node, under which precondition, verified how, within what
// time. The console shows a plan before it runs, --dry-run is the same plan
// with no executor, and a restarted daemon goes on from a plan in the journal.
//
// It must never do anything: no I/O, no clock, no randomness. Stopping after
// any step of any plan leaves the cluster safe.
package plan

import (
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// Kind names what a step does, and so which Doer runs it. Kinds are stored in
// the journal: a kind once used never changes its meaning.
type Kind string

// Step is one thing to do and to verify.
type Step struct {
	ID      string // unique in its plan, stable across restarts, e.g. "4-promote"
	Kind    Kind
	Node    cluster.NodeID    // empty for a step of the daemon itself
	Title   string            // "promote pgsql2"
	Command string            // the statement or command line as it will run, secrets left out; shown by --dry-run
	Args    map[string]string // parameters for the Doer; never a secret
	Pre     string            // what must hold before, in words
	Post    string            // what is verified after, in words

	Deadline time.Duration // for the step as a whole, verification included
	Expect   time.Duration // a usual duration, 0 where none is known

	// Optional: the plan goes on when the step fails, saying so. Only a step
	// whose failure leaves every invariant standing may be optional, such as
	// stopping an old primary whose host does not answer.
	Optional bool
}

// Plan is an action's ordered steps with what they are bound to.
type Plan struct {
	ID      string // given by the engine when it is stored
	Action  cluster.Action
	Node    cluster.NodeID // the node acted upon
	Mode    cluster.Mode   // for SetMode
	Rule    int            // the rule that asked for it, 0 when a person did
	Reason  string         // why
	By      string         // "engine", or the person's login
	Confirm string         // what a person must type; empty when nothing dangerous happens
	Effects []string       // what will be different, in numbers where there are any
	Warn    []string       // what a person should know before
	Steps   []Step

	// Facts are what the plan was made from. A run is refused when one of
	// them has moved, naming it.
	Facts []Fact
}

// Fact is one value a plan depends on.
type Fact struct {
	Name  string // "primary", "term", "pgsql2.eligible", ...
	Value string
}

// Moved names the facts of want that are different in have.
func Moved(want, have []Fact) []string {
	now := make(map[string]string, len(have))
	for _, f := range have {
		now[f.Name] = f.Value
	}
	var moved []string
	for _, f := range want {
		if v, ok := now[f.Name]; !ok || v != f.Value {
			moved = append(moved, f.Name+" was "+f.Value+" and is "+v)
		}
	}
	return moved
}
