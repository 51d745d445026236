package observe

import (
	"context"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// watchHost asks the node's machine, slowly while all is well and at once on
// suspicion.
func (o *Observer) watchHost(ctx context.Context, w *watch) {
	probe, ok := o.opt.Hosts[w.node.ID]
	if !ok {
		return
	}
	for ctx.Err() == nil {
		o.lookHost(ctx, w, probe)
		t := time.NewTimer(o.hostPause(w.node.ID))
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-w.host:
		}
		t.Stop()
	}
}

func (o *Observer) hostPause(id cluster.NodeID) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.facts[id]
	switch {
	case f.Reach == cluster.ReachOK:
		return 5 * o.check.Period
	case f.Host.Postmaster == cluster.PostmasterRunning && o.opt.Now().Sub(f.ReachSince) <= suspicionLasts:
		// The server is gone or going, and its machine still has a process:
		// the proof may be a moment away.
		return suspicionPause
	default:
		return o.check.Period
	}
}

// lookHost asks once, bounded as a login is. It may run twice at a time; what
// was asked last counts.
func (o *Observer) lookHost(ctx context.Context, w *watch, probe HostProbe) {
	began := o.opt.Now()
	bounded, cancel := context.WithTimeout(ctx, 2*o.checks().Timeout)
	defer cancel()
	state, pid, err := probe.Postmaster(bounded)
	if ctx.Err() != nil {
		return
	}
	why := ""
	if err != nil {
		why = err.Error()
	}
	o.mu.Lock()
	was := o.facts[w.node.ID]
	f := HostSaid(was, began, state, pid, why)
	o.facts[w.node.ID] = f
	o.mu.Unlock()
	if Notable(was, f) {
		poke(o.changed)
	}
}
