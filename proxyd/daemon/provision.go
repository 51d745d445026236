package daemon

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine"
	"github.com/pgtandem/pgtandem/engine/assemble"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/plan"
	"github.com/pgtandem/pgtandem/engine/provision"
)

// provisioner makes plans that set the hosts up, and lends the engine Doers
// that are always those of the latest such plan.
type provisioner struct {
	machines *assemble.MachineSet
	current  atomic.Pointer[map[plan.Kind]execute.Doer]
}

func newProvisioner(c *config.Config, m *assemble.MachineSet) *provisioner {
	p := &provisioner{machines: m}
	p.aim(c, assemble.ProvisionSpec(c))
	return p
}

func (p *provisioner) aim(c *config.Config, s provision.Spec) {
	doers := provision.Doers(assemble.ProvisionWorld(c, s, p.machines))
	p.current.Store(&doers)
}

// doers are one for each kind of provisioning.
func (p *provisioner) doers() map[plan.Kind]execute.Doer {
	out := map[plan.Kind]execute.Doer{}
	for k := range *p.current.Load() {
		out[k] = latest{p, k}
	}
	return out
}

// latest passes a step on to the Doer of the latest plan.
type latest struct {
	p    *provisioner
	kind plan.Kind
}

func (l latest) doer() execute.Doer { return (*l.p.current.Load())[l.kind] }

func (l latest) Check(ctx context.Context, s plan.Step) (bool, string, error) {
	return l.doer().Check(ctx, s)
}

func (l latest) Do(ctx context.Context, s plan.Step, progress func(string)) error {
	return l.doer().Do(ctx, s, progress)
}

// plan proposes to set the hosts up, around the recorded primary where there
// is one.
func (p *provisioner) plan(c *config.Config, e *engine.Engine, by, reason string) (plan.Plan, error) {
	v := e.View()
	if v.Operation != nil && v.Operation.Plan.Action == cluster.Provision {
		return plan.Plan{}, fmt.Errorf("%w: %s", engine.ErrBusy, cluster.Provision)
	}
	s := assemble.ProvisionSpec(c)
	s.Init = true
	if v.Record.Primary != "" {
		s.Primary = v.Record.Primary
	}
	pl, err := provision.Build(s)
	if err != nil {
		return plan.Plan{}, err
	}
	p.aim(c, s)
	pl.By = by
	if reason != "" {
		pl.Reason = reason
	}
	return e.Propose(pl, false), nil
}
