package engine

import (
	"testing"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/engine/plan"
)

func TestWhatMayBeInterrupted(t *testing.T) {
	running := func(a cluster.Action, begun ...plan.Kind) plan.Operation {
		op := plan.Operation{Plan: plan.Plan{Action: a, Node: "pgsql2"}}
		for _, k := range begun {
			op.Plan.Steps, op.Steps = append(op.Plan.Steps, plan.Step{Kind: k}), append(op.Steps, plan.StepRun{Outcome: plan.Running})
		}
		return op
	}
	promote := decide.Decision{Action: cluster.Promote, Node: "pgsql2", Cut: true}
	lost := decide.Decision{Cut: true}
	for _, tt := range []struct {
		story string
		d     decide.Decision
		op    plan.Operation
		want  bool
	}{
		{"a failover does not wait for a base backup", promote, running(cluster.Rejoin), true},
		{"nor for a person's change of mode", promote, running(cluster.SetMode), true},
		{"nor for a switchover that makes its checkpoint", promote, running(cluster.Switchover, plan.NodeCheckpoint), true},
		{"a switchover that stops the primary is not news", promote, running(cluster.Switchover, plan.NodeCheckpoint, plan.NodeStop), false},
		{"a promotion goes through", promote, running(cluster.Promote), false},
		{"clients are cut off from a primary that is gone, whatever runs", lost, running(cluster.SetMode), true},
		{"a person's change of mode is not stopped for a standby", decide.Decision{Action: cluster.Degrade, Node: "pgsql2"}, running(cluster.SetMode), false},
		{"a lost standby does not wait for a rejoin", decide.Decision{Action: cluster.Degrade, Node: "pgsql2"}, running(cluster.Rejoin), true},
		{"what a rejoin ends with does not stop it", decide.Decision{Action: cluster.Restore, Node: "pgsql2"}, running(cluster.Rejoin), false},
	} {
		t.Run(tt.story, func(t *testing.T) {
			if got := urgent(tt.d, tt.op); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}
