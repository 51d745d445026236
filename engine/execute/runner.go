package execute

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/clock"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// Journal keeps operations durably. Put returns when the operation is on disk.
type Journal interface {
	PutOperation(ctx context.Context, op plan.Operation) error
}

// Runner runs one operation at a time, step by step.
type Runner struct {
	Doers   map[plan.Kind]Doer
	Journal Journal
	Clock   clock.Clock
	// Changed is told of every change of the operation, with the running
	// step's latest line for a person.
	Changed func(op plan.Operation, progress string)
	// Verify is how often a postcondition is looked at until it holds.
	Verify time.Duration
}

// ErrInterrupted: the context ended first. The operation stays unfinished in
// the journal, and running it again goes on where it was.
var ErrInterrupted = errors.New("interrupted")

// Run takes an operation to its end, or to the end of ctx. Steps that are done
// are passed over, so a restarted daemon hands in what it found in the journal.
func (r *Runner) Run(ctx context.Context, op plan.Operation) (plan.Operation, error) {
	op.Outcome = plan.Running
	for len(op.Steps) < len(op.Plan.Steps) {
		op.Steps = append(op.Steps, plan.StepRun{Outcome: plan.Pending})
	}
	for i := range op.Plan.Steps {
		if o := op.Steps[i].Outcome; o == plan.Done || o == plan.Skipped || o == plan.Failed && op.Plan.Steps[i].Optional {
			continue
		}
		if err := r.step(ctx, &op, i); err != nil {
			return op, err
		}
		if o := op.Steps[i].Outcome; (o == plan.Failed || o == plan.Unknown) && !op.Plan.Steps[i].Optional {
			return r.end(ctx, op, o, op.Plan.Steps[i].Title+": "+op.Steps[i].Detail)
		}
	}
	return r.end(ctx, op, plan.Done, "")
}

func (r *Runner) end(ctx context.Context, op plan.Operation, o plan.Outcome, why string) (plan.Operation, error) {
	op.Outcome, op.Error, op.Ended = o, why, r.Clock.Now()
	err := r.put(ctx, op)
	r.tell(op, "")
	return op, err
}

// tell hands out a copy: the operation goes on changing.
func (r *Runner) tell(op plan.Operation, progress string) {
	op.Steps = slices.Clone(op.Steps)
	r.Changed(op, progress)
}

// put writes the journal even when ctx has just ended: what was done must not
// be forgotten.
func (r *Runner) put(ctx context.Context, op plan.Operation) error {
	ctx, cancel := r.Clock.Timeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := r.Journal.PutOperation(ctx, op); err != nil {
		return fmt.Errorf("write the journal of operation %s: %w", op.ID, err)
	}
	return nil
}

// step journals, looks, does and verifies. The journal entry that the step
// runs is written before it is done, together with how the last one ended.
func (r *Runner) step(ctx context.Context, op *plan.Operation, i int) error {
	s := op.Plan.Steps[i]
	run := &op.Steps[i]
	run.Outcome, run.Started = plan.Running, r.Clock.Now()
	if err := r.put(ctx, *op); err != nil {
		return err
	}
	r.tell(*op, "")
	doer, ok := r.Doers[s.Kind]
	if !ok {
		run.Outcome, run.Detail = plan.Failed, fmt.Sprintf("no executor is known for steps of kind %q", s.Kind)
		return nil
	}
	bounded, cancel := r.Clock.Timeout(ctx, s.Deadline)
	defer cancel()
	outcome, detail := r.doStep(bounded, doer, s, func(line string) { r.tell(*op, line) })
	if ctx.Err() != nil && outcome != plan.Done && outcome != plan.Skipped {
		return fmt.Errorf("%w in step %q", ErrInterrupted, s.Title)
	}
	run.Outcome, run.Detail, run.Took = outcome, detail, r.Clock.Now().Sub(run.Started)
	r.tell(*op, "")
	return nil
}

// grace is how long a postcondition is looked for after a Do without an
// answer, before Do is asked again: what it began may still be under way.
const grace = 2 * time.Second

// settle is how long what was done may take to be seen. What takes longer is
// waited for by Do itself, which knows when to give up.
const settle = time.Minute

// doStep looks, does and verifies. A Do that was sent and not answered is
// settled by looking; only where that says that it does not hold, and goes on
// saying so, is it done again.
func (r *Runner) doStep(ctx context.Context, d Doer, s plan.Step, progress func(string)) (plan.Outcome, string) {
	done, detail, err := d.Check(ctx, s)
	if done {
		return plan.Skipped, detail
	}
	if errors.Is(err, ErrRefused) {
		return plan.Failed, err.Error()
	}
	for {
		doErr := d.Do(ctx, s, progress)
		if doErr == nil {
			within, cancel := r.Clock.Timeout(ctx, settle)
			detail, err = r.verify(within, d, s)
			cancel()
			if err != nil {
				return plan.Failed, err.Error()
			}
			return plan.Done, detail
		}
		if !errors.Is(doErr, ErrUnknown) && !errors.Is(doErr, ErrRetry) {
			// What was sent before without an answer may have come about.
			if done, detail, _ := d.Check(ctx, s); done {
				return plan.Done, detail
			}
			return plan.Failed, doErr.Error()
		}
		within, cancel := r.Clock.Timeout(ctx, grace)
		detail, err = r.verify(within, d, s)
		cancel()
		switch {
		case err == nil:
			return plan.Done, detail
		case errors.Is(err, ErrRefused):
			return plan.Failed, err.Error()
		case ctx.Err() != nil:
			return plan.Unknown, doErr.Error() + "; then: " + err.Error()
		}
	}
}

func (r *Runner) verify(ctx context.Context, d Doer, s plan.Step) (string, error) {
	for {
		done, detail, err := d.Check(ctx, s)
		if done {
			return detail, nil
		}
		if errors.Is(err, ErrRefused) {
			return "", err
		}
		if r.Clock.Sleep(ctx, max(r.Verify, time.Millisecond)) == nil {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("not verified in time: %w", err)
		}
		return "", fmt.Errorf("not so in time: %s; seen: %s", s.Post, detail)
	}
}
