package daemon

import (
	"encoding/json"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/plan"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

// planOf is a plan in the words of the control socket. Its steps are pending.
func planOf(p plan.Plan, created time.Time) api.Plan {
	a := api.Plan{
		ID: p.ID, Action: string(p.Action), Node: string(p.Node), Mode: string(p.Mode), Reason: p.Reason, Rule: p.Rule, By: p.By,
		Confirm: p.Confirm, Effects: p.Effects, Warn: p.Warn, Created: created,
		Steps: make([]api.Step, 0, len(p.Steps)), Facts: make([]api.Fact, 0, len(p.Facts)),
	}
	for _, s := range p.Steps {
		a.Steps = append(a.Steps, api.Step{
			ID: s.ID, Kind: string(s.Kind), Node: string(s.Node), Title: s.Title, Command: s.Command, Pre: s.Pre, Post: s.Post,
			Optional: s.Optional, DeadlineMS: s.Deadline.Milliseconds(), ExpectMS: s.Expect.Milliseconds(), State: string(plan.Pending),
		})
	}
	for _, f := range p.Facts {
		a.Facts = append(a.Facts, api.Fact{Name: f.Name, Value: f.Value})
	}
	return a
}

// operationOf is an operation in the words of the control socket. now is for
// how long it and its running step have taken.
func operationOf(op plan.Operation, progress string, now time.Time) api.Operation {
	a := api.Operation{ID: op.ID, Plan: planOf(op.Plan, op.Started), State: operationState(op.Outcome), Error: op.Error, Progress: progress, Started: op.Started}
	end := now
	if !op.Ended.IsZero() {
		end = op.Ended
		a.Ended = &end
	}
	a.TookMS = millis(end.Sub(op.Started))
	for i := range a.Plan.Steps {
		if i >= len(op.Steps) {
			break
		}
		s, run := &a.Plan.Steps[i], op.Steps[i]
		if run.Outcome != "" {
			s.State = string(run.Outcome)
		}
		s.Detail, s.TookMS = run.Detail, millis(run.Took)
		if !run.Started.IsZero() {
			at := run.Started
			s.Started = &at
			if run.Outcome == plan.Running {
				s.TookMS = millis(end.Sub(at))
			}
		}
	}
	if op.Plan.Action == cluster.Drill {
		a.Drill = reportOf(op)
	}
	return a
}

func operationState(o plan.Outcome) string {
	switch o {
	case plan.Done, plan.Skipped:
		return api.OpDone
	case plan.Failed:
		return api.OpFailed
	case plan.Unknown:
		return api.OpUnknown
	case plan.Stopped:
		return api.OpStopped
	}
	return api.OpRunning
}

// reportOf reads a drill's report from its operation; nil where it has none
// yet. The report's JSON is the same on both sides.
func reportOf(op plan.Operation) *api.DrillReport {
	var r api.DrillReport
	if len(op.Extra) == 0 || json.Unmarshal(op.Extra, &r) != nil {
		return nil
	}
	return &r
}

func eventOf(e cluster.Event) api.Event {
	return api.Event{Seq: e.Seq, At: e.At, Level: string(e.Level), Kind: e.Kind, Node: string(e.Node), Term: uint64(e.Term),
		Op: e.Op, Rule: e.Rule, Text: e.Text, By: e.By, Fields: e.Fields}
}

// each maps a list.
func each[T, U any](list []T, f func(T) U) []U {
	out := make([]U, 0, len(list))
	for _, v := range list {
		out = append(out, f(v))
	}
	return out
}

func millis(d time.Duration) float64 { return float64(max(0, d).Microseconds()) / 1000 }
