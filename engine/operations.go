package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// PlanLife is how long a plan that was shown can be run.
const PlanLife = 10 * time.Minute

// proposed is a plan that a person has been shown.
type proposed struct {
	plan    plan.Plan
	created time.Time
	bound   bool // to facts of the cluster
}

// Errors of the operations, by what the caller may do.
var (
	ErrBusy     = errors.New("another operation is running")
	ErrNotFound = errors.New("not found")
	ErrConfirm  = errors.New("the confirmation does not match")
	ErrHalted   = errors.New("the engine has stopped acting")
)

// StaleError: facts that a plan was made from have moved.
type StaleError struct{ Moved []string }

func (e *StaleError) Error() string {
	return fmt.Sprintf("the plan is stale: %v; ask for a new one", e.Moved)
}

// Plan builds and keeps a plan for a person. Nothing is changed.
func (e *Engine) Plan(q plan.Request) (plan.Plan, error) {
	p, err := plan.ForRequest(q, e.Input())
	if err != nil {
		return p, err
	}
	return e.Propose(p, true), nil
}

// Propose keeps a plan so that it can be run; bound says whether it is refused
// once the cluster's facts have moved.
func (e *Engine) Propose(p plan.Plan, bound bool) plan.Plan {
	now := e.opt.Clock.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, old := range e.plans {
		if now.Sub(old.created) > PlanLife {
			delete(e.plans, id)
		}
	}
	p.ID = e.nextID(now)
	e.plans[p.ID] = proposed{p, now, bound}
	return p
}

// nextID is unique over restarts, because it carries the clock, and sorts by
// time. The caller holds mu.
func (e *Engine) nextID(now time.Time) string {
	e.opSeq++
	return fmt.Sprintf("%s-%d", now.UTC().Format("20060102T150405.000"), e.opSeq)
}

// Proposed finds a plan that was proposed and when.
func (e *Engine) Proposed(id string) (plan.Plan, time.Time, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.plans[id]
	if !ok || e.opt.Clock.Now().Sub(p.created) > PlanLife {
		return plan.Plan{}, time.Time{}, fmt.Errorf("plan %q: %w", id, ErrNotFound)
	}
	return p.plan, p.created, nil
}

// RunPlan starts a plan that was shown. It returns as soon as the loop has
// started it; the operation goes on whatever becomes of the caller.
func (e *Engine) RunPlan(ctx context.Context, id, confirm, by string) (plan.Operation, error) {
	answer, err := e.Submit(id, confirm, by)
	if err != nil {
		return plan.Operation{}, err
	}
	select {
	case a := <-answer:
		return a.Operation, a.Err
	case <-ctx.Done():
		return plan.Operation{}, fmt.Errorf("start plan %s: %w", id, ctx.Err())
	}
}

// Started is what became of a plan that was submitted.
type Started struct {
	Operation plan.Operation
	Err       error
}

// startRequest asks the loop to start a plan: it owns all operations.
type startRequest struct {
	plan   plan.Plan
	answer chan Started
}

// Submit hands a plan that was shown to the loop, which answers in its next
// turn.
func (e *Engine) Submit(id, confirm, by string) (<-chan Started, error) {
	p, _, err := e.Proposed(id)
	if err != nil {
		return nil, err
	}
	if confirm != p.Confirm {
		return nil, fmt.Errorf("%w: type %q", ErrConfirm, p.Confirm)
	}
	e.mu.Lock()
	bound, halted := e.plans[id].bound, e.halted
	e.mu.Unlock()
	if halted != "" {
		return nil, fmt.Errorf("%w: %s", ErrHalted, halted)
	}
	if bound {
		if moved := plan.Moved(p.Facts, plan.FactsOf(e.Input(), p.Node)); len(moved) > 0 {
			return nil, &StaleError{moved}
		}
	}
	p.By = by
	req := startRequest{p, make(chan Started, 1)}
	e.mu.Lock()
	e.requests = append(e.requests, req)
	e.mu.Unlock()
	e.poke()
	return req.answer, nil
}

// answer starts what people asked for since the last turn.
func (e *Engine) answer(ctx context.Context) {
	e.mu.Lock()
	requests := e.requests
	e.requests = nil
	e.mu.Unlock()
	for _, q := range requests {
		if len(e.unfinished) > 0 {
			q.answer <- Started{Err: fmt.Errorf("%w: %s, from before the restart", ErrBusy, e.unfinished[0].Plan.Action)}
			continue
		}
		op, err := e.start(ctx, q.plan)
		q.answer <- Started{op, err}
	}
}

// start writes the operation to the journal and runs it. Only the loop calls
// it.
func (e *Engine) start(ctx context.Context, p plan.Plan) (plan.Operation, error) {
	now := e.opt.Clock.Now()
	e.mu.Lock()
	if e.current != nil {
		running := e.current.op.Plan.Action
		e.mu.Unlock()
		return plan.Operation{}, fmt.Errorf("%w: %s", ErrBusy, running)
	}
	if p.ID == "" {
		p.ID = e.nextID(now)
	}
	delete(e.plans, p.ID)
	e.mu.Unlock()
	op := plan.Operation{ID: p.ID, Plan: p, Outcome: plan.Running, Started: now}
	// The runner's first entry carries the intent to disk before its first
	// step; a plan without steps would have no entry at all.
	if len(p.Steps) == 0 {
		return op, fmt.Errorf("start %s: the plan has no steps", p.Action)
	}
	e.launch(ctx, op)
	return op, nil
}

func (e *Engine) launch(ctx context.Context, op plan.Operation) {
	ctx, cancel := context.WithCancel(ctx)
	e.mu.Lock()
	e.current = &running{op: op, cancel: cancel}
	e.mu.Unlock()
	e.event(cluster.Event{Level: cluster.Info, Kind: "operation.started", Node: op.Plan.Node, Op: op.ID, Rule: op.Plan.Rule, By: op.Plan.By,
		Text: fmt.Sprintf("%s %s: %s", op.Plan.Action, op.Plan.Node, op.Plan.Reason), Fields: e.failoverFields(op.Plan)})
	e.notify()
	e.ops.Add(1)
	e.spawn(func() {
		defer e.ops.Done()
		defer cancel()
		end, err := e.runner.Run(ctx, op)
		select {
		case e.ended <- ended{end, err}:
			e.poke()
		default: // the loop has gone; the journal has it all
		}
	})
}

func (e *Engine) spawn(f func()) {
	if e.opt.Spawn != nil {
		e.opt.Spawn(f)
		return
	}
	go f()
}

// finish takes note of an operation's end and of what the next attempt should
// wait for.
func (e *Engine) finish(end ended) {
	e.mu.Lock()
	why := ""
	if e.current != nil {
		why = e.current.stopWhy
	}
	e.current = nil
	e.lastEnd, e.lastNode = e.opt.Clock.Now(), end.op.Plan.Node
	e.mu.Unlock()
	op := end.op
	switch {
	case why != "":
		op.Outcome, op.Error, op.Ended = plan.Stopped, why, e.opt.Clock.Now()
		e.put(op)
		e.event(cluster.Event{Level: cluster.Warn, Kind: "operation.stopped", Node: op.Plan.Node, Op: op.ID, Text: fmt.Sprintf("%s %s was stopped: %s", op.Plan.Action, op.Plan.Node, why)})
	case end.err != nil && !errors.Is(end.err, execute.ErrInterrupted):
		// Not to be gone on with by a later daemon, in another world.
		op.Outcome, op.Error, op.Ended = plan.Failed, end.err.Error(), e.opt.Clock.Now()
		e.put(op)
		e.failed(op.Plan)
		e.event(cluster.Event{Level: cluster.Error, Kind: "operation.failed", Node: op.Plan.Node, Op: op.ID, Text: fmt.Sprintf("%s %s: %v", op.Plan.Action, op.Plan.Node, end.err)})
	case op.Outcome == plan.Done:
		e.mu.Lock()
		e.memory = e.memory.Succeeded(op.Plan.Action, op.Plan.Node)
		e.mu.Unlock()
		e.event(cluster.Event{Level: cluster.Info, Kind: "operation.done", Node: op.Plan.Node, Op: op.ID, Rule: op.Plan.Rule,
			Text:   fmt.Sprintf("%s %s is done in %s", op.Plan.Action, op.Plan.Node, op.Ended.Sub(op.Started).Round(time.Millisecond)),
			Fields: map[string]string{"took_ms": fmt.Sprint(op.Ended.Sub(op.Started).Milliseconds())}})
	case op.Outcome != plan.Running:
		e.failed(op.Plan)
		e.event(cluster.Event{Level: cluster.Error, Kind: "operation.failed", Node: op.Plan.Node, Op: op.ID, Rule: op.Plan.Rule,
			Text: fmt.Sprintf("%s %s is %s: %s", op.Plan.Action, op.Plan.Node, op.Outcome, op.Error)})
	}
	e.notify()
	e.poke()
}

func (e *Engine) failed(p plan.Plan) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.memory = e.memory.Failed(p.Action, p.Node, e.opt.Clock.Now())
}

func (e *Engine) put(op plan.Operation) {
	ctx, cancel := e.opt.Clock.Timeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := e.opt.Store.PutOperation(ctx, op); err != nil {
		e.opt.Log.Error("write the journal", "operation", op.ID, "error", err)
	}
}

// rank orders actions by what cannot wait for what.
func rank(a cluster.Action) int {
	switch a {
	case cluster.Promote:
		return 4
	case cluster.Fence, cluster.Degrade:
		return 3
	case cluster.Restore, cluster.Reopen:
		return 2
	case cluster.Rejoin, cluster.GiveSlot:
		return 1
	default:
		return 9 // a person's own operation, or one that must not be cut
	}
}

// urgent says whether a decision may interrupt an operation in progress. A
// base backup of an hour must not delay a failover, nor must what a person
// asked for; a switchover that has come to the stop of the primary is one.
func urgent(d decide.Decision, op plan.Operation) bool {
	running := op.Plan
	switch {
	case running.Action == cluster.Promote || running.Action == cluster.Drill:
		return false
	case rank(running.Action) > rank(cluster.Promote):
		return (d.Action == cluster.Promote || d.Cut && !d.Acts()) && !stopping(op)
	}
	if d.Action == cluster.Restore && d.Node == running.Node {
		return false // it is what the running one ends with
	}
	if d.Acts() {
		return rank(d.Action) > rank(running.Action) && rank(d.Action) < 9
	}
	return d.Cut // clients must be cut off from a primary that is gone
}

// stopping says whether an operation has begun to stop a server on purpose: that
// it is gone is then no news.
func stopping(op plan.Operation) bool {
	for i, s := range op.Steps {
		if op.Plan.Steps[i].Kind == plan.NodeStop && s.Outcome != plan.Pending {
			return true
		}
	}
	return false
}

// preempt stops the running operation for something more urgent.
func (e *Engine) preempt(d decide.Decision) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.current == nil || e.current.stopWhy != "" || !urgent(d, e.current.op) {
		return
	}
	e.current.stopWhy = d.Name + ": " + d.Reason
	e.current.cancel()
}

// resume goes on with what the journal says was interrupted. It waits until
// every node has been looked at once, because whether to go on depends on it.
func (e *Engine) resume(ctx context.Context, ops []plan.Operation) []plan.Operation {
	if len(ops) == 0 {
		return nil
	}
	e.mu.Lock()
	busy := e.current != nil
	e.mu.Unlock()
	if busy {
		return ops
	}
	in := e.Input()
	for _, n := range in.Snapshot.Nodes {
		if n.Reach == cluster.ReachUnknown {
			return ops
		}
	}
	op := ops[0]
	if why := e.outdated(op, in); why != "" {
		op.Outcome, op.Error, op.Ended = plan.Stopped, why, e.opt.Clock.Now()
		e.put(op)
		e.event(cluster.Event{Level: cluster.Warn, Kind: "operation.stopped", Node: op.Plan.Node, Op: op.ID,
			Text: fmt.Sprintf("%s %s was interrupted by a restart and is not gone on with: %s", op.Plan.Action, op.Plan.Node, why)})
		return ops[1:]
	}
	e.event(cluster.Event{Level: cluster.Warn, Kind: "operation.resumed", Node: op.Plan.Node, Op: op.ID, Rule: op.Plan.Rule,
		Text: fmt.Sprintf("%s %s was interrupted by a restart and goes on from the journal", op.Plan.Action, op.Plan.Node)})
	e.launch(ctx, again(op))
	return ops[1:]
}

// promoting says whether an operation has come to its promotion.
func promoting(op plan.Operation) bool {
	for i, s := range op.Steps {
		if op.Plan.Steps[i].Kind == plan.NodePromote && s.Outcome != plan.Pending {
			return true
		}
	}
	return false
}

// again has every step looked at anew, because what held when the daemon ended
// may not hold any more: eligibility recorded upon a confirmation from before
// would be worth nothing. Past the promotion the promises have been counted,
// and in a rejoin the steps that overwrite a node are passed over for good.
func again(op plan.Operation) plan.Operation {
	if promoting(op) || op.Plan.Action == cluster.Rejoin {
		return op
	}
	op.Steps = nil
	return op
}

// outdated says why an interrupted operation is not gone on with. Past the
// promotion there is no way back as long as the node's promise stands, and a
// change of mode must not stay half done; anything else goes on only if it
// would be decided again.
func (e *Engine) outdated(op plan.Operation, in decide.Input) string {
	if promoting(op) {
		m, term := in.Record.Members[op.Plan.Node], in.Record.Term
		if in.Record.Primary != op.Plan.Node && m.Promised != term+1 {
			return fmt.Sprintf("%s promised for term %d, and not for the one after %d", op.Plan.Node, m.Promised, term)
		}
		if in.Record.Primary != op.Plan.Node && !m.Eligible && !forced(op.Plan) {
			return fmt.Sprintf("%s is not eligible any more: %s", op.Plan.Node, m.Reason)
		}
		return ""
	}
	switch op.Plan.Action {
	case cluster.SetMode:
		return wantedOtherwise(op, in.Record)
	case cluster.Degrade:
		if halfDegraded(op, in.Record) {
			return ""
		}
	case cluster.Drill:
		return "a drill ends with its daemon"
	}
	d, _, _ := decide.Decide(in)
	if d.Action == op.Plan.Action && d.Node == op.Plan.Node {
		return ""
	}
	return "it would not be decided now: " + d.Name + ": " + d.Reason
}

// forced says whether a promotion was to go on whatever is lost.
func forced(p plan.Plan) bool {
	for _, s := range p.Steps {
		if s.Kind == plan.PromisesCount && s.Args["force"] == "true" {
			return true
		}
	}
	return false
}

// wantedOtherwise says whether another mode was asked for since.
func wantedOtherwise(op plan.Operation, r cluster.Record) string {
	for i, s := range op.Steps {
		if op.Plan.Steps[i].Kind == plan.RecordWant && s.Outcome.Over() && r.WantMode != op.Plan.Mode {
			return fmt.Sprintf("%s was asked for since", r.WantMode)
		}
	}
	return ""
}

// halfDegraded says whether what a degradation was to make ineligible is, so
// that it has begun and nothing was restored since.
func halfDegraded(op plan.Operation, r cluster.Record) bool {
	begun := false
	for _, s := range op.Plan.Steps {
		if s.Kind != plan.RecordIneligible {
			continue
		}
		for _, id := range strings.Split(s.Args["nodes"], ",") {
			if r.Members[cluster.NodeID(id)].Eligible {
				return false
			}
			begun = true
		}
	}
	return begun
}

// operationChanged is called by the runner.
func (e *Engine) operationChanged(op plan.Operation, progress string) {
	e.mu.Lock()
	var before []plan.StepRun
	if e.current != nil && e.current.op.ID == op.ID {
		before = e.current.op.Steps
		e.current.op, e.current.progress = op, progress
	}
	e.mu.Unlock()
	e.reportSteps(op, before)
	e.notify()
}

// Operation finds an operation, the running one included.
func (e *Engine) Operation(ctx context.Context, id string) (plan.Operation, string, error) {
	e.mu.Lock()
	if e.current != nil && e.current.op.ID == id {
		op, p := e.current.op, e.current.progress
		e.mu.Unlock()
		return op, p, nil
	}
	e.mu.Unlock()
	op, err := e.opt.Store.Operation(ctx, id)
	return op, "", err
}

// Operations lists operations, newest first.
func (e *Engine) Operations(ctx context.Context, limit int) ([]plan.Operation, error) {
	return e.opt.Store.Operations(ctx, limit)
}

// SetMaintenance turns the engine's hands off, or on again.
func (e *Engine) SetMaintenance(ctx context.Context, on bool) error {
	_, err := e.records.Update(ctx, func(r *cluster.Record) error { r.Maintenance = on; return nil })
	e.poke()
	return err
}
