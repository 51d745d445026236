package execute_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/clock"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// switches is a world of named switches; a step turns one on.
type switches struct {
	on    map[string]bool
	tries map[string]int
	// what each step does instead of simply working
	do map[string]func(turnOn func()) error
}

func (w *switches) Check(_ context.Context, s plan.Step) (bool, string, error) {
	return w.on[s.ID], fmt.Sprintf("%s is %v", s.ID, w.on[s.ID]), nil
}

func (w *switches) Do(_ context.Context, s plan.Step, _ func(string)) error {
	w.tries[s.ID]++
	turnOn := func() { w.on[s.ID] = true }
	if f := w.do[s.ID]; f != nil {
		return f(turnOn)
	}
	turnOn()
	return nil
}

// journal keeps what was written, and can end the daemon's life at a write.
type journal struct {
	ops  []plan.Operation
	stop func(n int) bool
	kill context.CancelFunc
}

func (j *journal) PutOperation(_ context.Context, op plan.Operation) error {
	op.Steps = slices.Clone(op.Steps)
	j.ops = append(j.ops, op)
	if j.stop != nil && j.stop(len(j.ops)) {
		j.kill()
		return errors.New("killed")
	}
	return nil
}

func world() *switches {
	return &switches{on: map[string]bool{}, tries: map[string]int{}, do: map[string]func(func()) error{}}
}

func runner(w *switches, j *journal) *execute.Runner {
	return &execute.Runner{Doers: map[plan.Kind]execute.Doer{"switch": w}, Journal: j, Clock: clock.System{},
		Changed: func(plan.Operation, string) {}, Verify: time.Millisecond}
}

func operation(ids ...string) plan.Operation {
	op := plan.Operation{ID: "op", Started: time.Now()}
	for _, id := range ids {
		op.Plan.Steps = append(op.Plan.Steps, plan.Step{ID: id, Kind: "switch", Title: id, Post: id + " is on", Deadline: 200 * time.Millisecond})
	}
	return op
}

func outcomes(op plan.Operation) (o []plan.Outcome) {
	for _, s := range op.Steps {
		o = append(o, s.Outcome)
	}
	return o
}

func TestRunnerOutcomes(t *testing.T) {
	lost := func(turnOn func()) error { turnOn(); return fmt.Errorf("no answer: %w", execute.ErrUnknown) }
	never := func(func()) error { return fmt.Errorf("no answer: %w", execute.ErrUnknown) }
	fails := func(func()) error { return errors.New("permission denied") }
	silent := func(func()) error { return nil }
	for _, tt := range []struct {
		story    string
		given    []string
		do       map[string]func(func()) error
		optional string
		steps    []plan.Outcome
		op       plan.Outcome
	}{
		{story: "all steps work", steps: []plan.Outcome{plan.Done, plan.Done, plan.Done}, op: plan.Done},
		{story: "what holds already is passed over", given: []string{"b"}, steps: []plan.Outcome{plan.Done, plan.Skipped, plan.Done}, op: plan.Done},
		{story: "a failure ends it", do: map[string]func(func()) error{"b": fails}, steps: []plan.Outcome{plan.Done, plan.Failed, plan.Pending}, op: plan.Failed},
		{story: "an optional failure does not", do: map[string]func(func()) error{"b": fails}, optional: "b", steps: []plan.Outcome{plan.Done, plan.Failed, plan.Done}, op: plan.Done},
		{story: "an answer that got lost is settled by looking", do: map[string]func(func()) error{"b": lost}, steps: []plan.Outcome{plan.Done, plan.Done, plan.Done}, op: plan.Done},
		{story: "sent, no answer, and no effect seen: unknown", do: map[string]func(func()) error{"b": never}, steps: []plan.Outcome{plan.Done, plan.Unknown, plan.Pending}, op: plan.Unknown},
		{story: "it said yes and did nothing: found out by looking", do: map[string]func(func()) error{"b": silent}, steps: []plan.Outcome{plan.Done, plan.Failed, plan.Pending}, op: plan.Failed},
	} {
		t.Run(tt.story, func(t *testing.T) {
			w, j := world(), &journal{}
			for _, id := range tt.given {
				w.on[id] = true
			}
			if tt.do != nil {
				w.do = tt.do
			}
			op := operation("a", "b", "c")
			for i := range op.Plan.Steps {
				op.Plan.Steps[i].Optional = op.Plan.Steps[i].ID == tt.optional
			}
			end, err := runner(w, j).Run(t.Context(), op)
			if err != nil {
				t.Fatal(err)
			}
			if got := outcomes(end); !slices.Equal(got, tt.steps) || end.Outcome != tt.op {
				t.Errorf("steps %v, operation %s; want %v, %s", got, end.Outcome, tt.steps, tt.op)
			}
			if last := j.ops[len(j.ops)-1]; last.Outcome != tt.op || last.Ended.IsZero() {
				t.Errorf("the journal's last entry says %s, ended %v", last.Outcome, last.Ended)
			}
		})
	}
}

// However often the daemon dies, and whenever, the end is the same and no step
// that had its effect is done twice.
func TestKilledAtEveryJournalEntry(t *testing.T) {
	for n := 1; n <= 4; n++ {
		t.Run(fmt.Sprintf("killed at entry %d", n), func(t *testing.T) {
			w := world()
			ctx, kill := context.WithCancel(t.Context())
			j := &journal{stop: func(at int) bool { return at == n }, kill: kill}
			if _, err := runner(w, j).Run(ctx, operation("a", "b", "c")); err == nil {
				t.Fatal("it was not killed")
			}
			found := j.ops[len(j.ops)-1]
			j.stop = nil
			end, err := runner(w, j).Run(t.Context(), found)
			if err != nil {
				t.Fatal(err)
			}
			if end.Outcome != plan.Done {
				t.Errorf("it ended %s: %s", end.Outcome, end.Error)
			}
			for id, tries := range w.tries {
				if tries != 1 {
					t.Errorf("step %s was done %d times", id, tries)
				}
			}
		})
	}
}

// The journal says that a step runs before it is done: a daemon that comes
// back must know what may have happened.
func TestJournalBeforeDeed(t *testing.T) {
	w, j := world(), &journal{}
	w.do["b"] = func(turnOn func()) error {
		last := j.ops[len(j.ops)-1]
		if last.Steps[1].Outcome != plan.Running || last.Steps[0].Outcome != plan.Done {
			t.Errorf("while b is done the journal says %v", outcomes(last))
		}
		turnOn()
		return nil
	}
	if _, err := runner(w, j).Run(t.Context(), operation("a", "b")); err != nil {
		t.Fatal(err)
	}
}

func TestUnknownKindFails(t *testing.T) {
	op := operation("a")
	op.Plan.Steps[0].Kind = "dance"
	end, err := runner(world(), &journal{}).Run(t.Context(), op)
	if err != nil || end.Outcome != plan.Failed {
		t.Errorf("outcome %s, %v", end.Outcome, err)
	}
}
