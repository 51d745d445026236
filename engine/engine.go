// Package engine keeps the pair alive. It owns the only loop: observe, decide,
// plan, execute; and with it the clock and the ticker.
//
// It knows nothing of the proxy or the console: clients are held and released
// through a gate that it is given, and people reach it through methods.
package engine

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pgtandem/pgtandem/engine/clock"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/steps"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// Observer is where snapshots come from.
type Observer interface {
	Snapshot() cluster.Snapshot
	// Changed gives a value when something worth deciding upon was seen.
	Changed() <-chan struct{}
	// Suspect asks for a look at once.
	Suspect(id cluster.NodeID)
}

// Store is the durable state.
type Store interface {
	Load(ctx context.Context) (cluster.Record, error)
	Save(ctx context.Context, r cluster.Record) (cluster.Record, error)
	PutOperation(ctx context.Context, op plan.Operation) error
	Operation(ctx context.Context, id string) (plan.Operation, error)
	Operations(ctx context.Context, limit int) ([]plan.Operation, error)
	Unfinished(ctx context.Context) ([]plan.Operation, error)
	AppendEvents(ctx context.Context, ev ...cluster.Event) ([]cluster.Event, error)
}

// Options are what an engine is made of.
type Options struct {
	Policy   cluster.Policy
	Store    Store
	Observer Observer
	Gate     steps.Gate
	Servers  map[cluster.NodeID]steps.Server
	Hosts    map[cluster.NodeID]steps.Host
	// Doers adds kinds of steps beyond the engine's own, such as provisioning.
	Doers map[plan.Kind]execute.Doer
	Clock clock.Clock
	Log   *slog.Logger
	// Tick is how often to decide when nothing changes; timers need it.
	Tick time.Duration
	// Beat is called once in each turn of the loop: a watchdog's proof that
	// the engine itself is alive.
	Beat func()
	// Spawn runs an operation beside the loop; nil is a goroutine. A simulator
	// gives its own, so that it alone says who goes on when.
	Spawn func(func())
}

// Engine is the running engine.
type Engine struct {
	opt     Options
	records *records
	runner  *execute.Runner
	wake    chan struct{}
	ended   chan ended
	ops     sync.WaitGroup

	unfinished []plan.Operation // of an earlier daemon; only Step touches it

	mu       sync.Mutex
	requests []startRequest
	policy   cluster.Policy
	memory   decide.Memory
	decision decide.Decision
	trace    decide.Trace // of the decision
	since    time.Time    // of the decision: the rule, its node and its action
	current  *running
	plans    map[string]proposed
	halted   string
	watchers map[chan struct{}]struct{}
	seen     map[cluster.NodeID]cluster.NodeFacts
	opSeq    uint64
	lastEnd  time.Time // of an operation
	lastNode cluster.NodeID
}

// running is the operation in progress.
type running struct {
	op       plan.Operation
	progress string
	cancel   context.CancelFunc
	stopWhy  string // set when it is cancelled for something more urgent
}

// ended is an operation that came to its end.
type ended struct {
	op  plan.Operation
	err error
}

// New makes an engine. Nothing runs until Run.
func New(opt Options) (*Engine, error) {
	if opt.Clock == nil || opt.Store == nil || opt.Observer == nil || opt.Gate == nil || opt.Log == nil {
		return nil, fmt.Errorf("make an engine: clock, store, observer, gate and log are all needed")
	}
	e := &Engine{opt: opt, policy: opt.Policy, wake: make(chan struct{}, 1), ended: make(chan ended, 1),
		plans: map[string]proposed{}, watchers: map[chan struct{}]struct{}{}, seen: map[cluster.NodeID]cluster.NodeFacts{}}
	e.records = &records{store: opt.Store, changed: e.notify, halt: e.halt}
	world := &steps.World{Records: e.records, Servers: opt.Servers, Hosts: opt.Hosts, Gate: opt.Gate, Policy: e.Policy, Clock: opt.Clock}
	doers := steps.Doers(world)
	for k, d := range opt.Doers {
		doers[k] = d
	}
	e.runner = &execute.Runner{Doers: doers, Journal: opt.Store, Clock: opt.Clock, Changed: e.operationChanged, Verify: 3 * time.Millisecond}
	return e, nil
}

// Policy is the policy in force.
func (e *Engine) Policy() cluster.Policy {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.policy
}

// SetPolicy changes the policy; nodes stay as they were configured at start.
func (e *Engine) SetPolicy(p cluster.Policy) {
	e.mu.Lock()
	e.policy = p
	e.mu.Unlock()
	e.poke()
}

// Suspect passes on that somebody could not reach a node.
func (e *Engine) Suspect(id cluster.NodeID) { e.opt.Observer.Suspect(id) }

// Run loads what is durable, goes on with what was interrupted, and then
// decides until ctx ends. It returns when its operations have stopped.
func (e *Engine) Run(ctx context.Context) error {
	ops, cancel := context.WithCancel(ctx)
	defer func() { cancel(); e.ops.Wait() }()
	if err := e.Start(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(max(e.opt.Tick, 10*time.Millisecond))
	defer tick.Stop()
	for {
		if e.opt.Beat != nil {
			e.opt.Beat()
		}
		e.Step(ops)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-e.wake:
		case <-e.opt.Observer.Changed():
		}
	}
}

// Start loads what is durable. It comes before the first Step.
func (e *Engine) Start(ctx context.Context) error {
	if err := e.records.load(ctx); err != nil {
		return fmt.Errorf("load the durable record: %w", err)
	}
	unfinished, err := e.opt.Store.Unfinished(ctx)
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	e.unfinished = unfinished
	return nil
}

// Step is one turn of the loop: take note of an operation's end, go on with
// what was interrupted, start what people asked for, and decide. It waits for
// nothing but the store. Operations run until ctx ends.
func (e *Engine) Step(ctx context.Context) {
	select {
	case end := <-e.ended:
		e.finish(end)
	default:
	}
	e.unfinished = e.resume(ctx, e.unfinished)
	e.answer(ctx)
	if len(e.unfinished) == 0 {
		e.turn(ctx)
	}
}

// turn is one pass: look, decide, and act on the decision.
func (e *Engine) turn(ctx context.Context) {
	in := e.Input()
	e.reportNodes(in.Snapshot)
	if !e.settled(in) {
		return
	}
	d, mem, trace := decide.Decide(in)
	e.mu.Lock()
	busy := e.current != nil
	halted := e.halted
	e.memory = mem
	changed := d.Rule != e.decision.Rule || d.Node != e.decision.Node || d.Action != e.decision.Action
	if !busy || urgent(d, e.current.op) {
		e.decision, e.trace = d, trace
		if changed {
			e.since = in.Snapshot.Now
		}
	} else {
		changed = false
	}
	e.mu.Unlock()
	if changed {
		e.event(cluster.Event{Level: d.Level, Kind: "rule.fired", Node: d.Node, Rule: d.Rule, Text: d.Name + ": " + d.Reason, Fields: lossFields(d)})
		e.notify()
	}
	if halted != "" {
		return
	}
	if !busy {
		e.act(ctx, d, in)
		return
	}
	e.preempt(d)
	// To hold clients needs no plan, and does not wait for one that leaves the
	// gate alone.
	if d.CloseGate && in.GateOpen && !d.Acts() && !e.ownsGate() {
		e.closeGate(ctx, d)
	}
}

// ownsGate says whether the running operation opens or closes the gate itself.
func (e *Engine) ownsGate() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.current == nil {
		return false
	}
	for _, s := range e.current.op.Plan.Steps {
		if s.Kind == plan.GateOpen || s.Kind == plan.GateClose {
			return true
		}
	}
	return false
}

// settling is how long at most the first look after an operation is awaited.
const settling = time.Second

// settled says whether the primary and the node of the last operation have been
// looked at since it ended: a decision made from what was seen before it would
// undo it, or do it again.
func (e *Engine) settled(in decide.Input) bool {
	e.mu.Lock()
	since, node := e.lastEnd, e.lastNode
	e.mu.Unlock()
	if in.Snapshot.Now.Sub(since) > settling {
		return true
	}
	seen := true
	for _, id := range []cluster.NodeID{in.Record.Primary, node} {
		if n := in.Snapshot.Node(id); id != "" && !n.LastTry.After(since) {
			e.opt.Observer.Suspect(id)
			seen = false
		}
	}
	return seen
}

// act closes the gate where the decision wants it and starts its plan.
func (e *Engine) act(ctx context.Context, d decide.Decision, in decide.Input) {
	if d.CloseGate && in.GateOpen && !d.Acts() {
		e.closeGate(ctx, d)
	}
	if !d.Acts() {
		return
	}
	p, err := plan.FromDecision(d, in)
	if err != nil {
		e.event(cluster.Event{Level: cluster.Error, Kind: "plan.failed", Rule: d.Rule, Text: err.Error()})
		return
	}
	if _, err := e.start(ctx, p); err != nil {
		e.opt.Log.Error("start an operation", "error", err)
		e.event(cluster.Event{Level: cluster.Error, Kind: "operation.failed", Rule: d.Rule, Text: "the operation was not started: " + err.Error()})
		e.failed(p)
	}
}

// closeGate holds clients without a plan: it changes nothing on any server.
func (e *Engine) closeGate(ctx context.Context, d decide.Decision) {
	short, cancel := e.opt.Clock.Timeout(ctx, time.Millisecond)
	defer cancel()
	// Transactions still open are what the deadline leaves; they end or are
	// cut later.
	open, err := e.opt.Gate.Close(short, d.Reason, d.Cut)
	if err != nil && short.Err() == nil {
		e.opt.Log.Error("close the gate", "error", err)
	}
	e.event(cluster.Event{Level: cluster.Warn, Kind: "gate.closed", Rule: d.Rule, Text: "the gate is closed: " + d.Reason,
		Fields: map[string]string{"open_transactions": fmt.Sprint(open)}})
	e.notify()
}

// Input is what a decision would be made from now.
func (e *Engine) Input() decide.Input {
	open, _, _ := e.opt.Gate.Passing()
	snap := e.opt.Observer.Snapshot()
	e.mu.Lock()
	defer e.mu.Unlock()
	return decide.Input{Snapshot: snap, Record: e.records.Record(), Policy: e.policy, Memory: e.memory, GateOpen: open, GateSince: e.opt.Gate.Since()}
}

func (e *Engine) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// halt stops the engine from acting; traffic goes on. Only a restart, after a
// person has looked, ends it.
func (e *Engine) halt(why string) {
	e.mu.Lock()
	first := e.halted == ""
	e.halted = why
	e.mu.Unlock()
	if first {
		e.event(cluster.Event{Level: cluster.Error, Kind: "engine.halted", Text: "an invariant is broken, the engine does not act any more: " + why})
	}
	e.notify()
}
