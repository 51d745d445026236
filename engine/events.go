package engine

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// event writes to the durable log and to the daemon's own.
func (e *Engine) event(ev cluster.Event) {
	ev.At = e.opt.Clock.Now()
	if ev.Term == 0 {
		ev.Term = e.records.Record().Term
	}
	ctx, cancel := e.opt.Clock.Timeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := e.opt.Store.AppendEvents(ctx, ev); err != nil {
		e.opt.Log.Error("write the event log", "error", err)
	}
	e.opt.Log.Log(ctx, severity(ev.Level), ev.Text, "kind", ev.Kind, "node", ev.Node, "rule", ev.Rule, "op", ev.Op)
}

// severity is an event's level as the daemon's log has it.
func severity(l cluster.Level) slog.Level {
	switch l {
	case cluster.Warn:
		return slog.LevelWarn
	case cluster.Error:
		return slog.LevelError
	}
	return slog.LevelInfo
}

// Audit records what a person did through the control socket.
func (e *Engine) Audit(by, text string, fields map[string]string) {
	e.event(cluster.Event{Level: cluster.Info, Kind: "audit", By: by, Text: text, Fields: fields})
	e.notify()
}

// reportNodes writes an event for each change of a node's reach or role.
func (e *Engine) reportNodes(s cluster.Snapshot) {
	for _, n := range s.Nodes {
		e.mu.Lock()
		was, known := e.seen[n.ID]
		e.seen[n.ID] = n
		e.mu.Unlock()
		if n.Reach == cluster.ReachUnknown {
			continue
		}
		switch {
		case was.Reach != n.Reach && n.Up():
			e.event(cluster.Event{Level: cluster.Info, Kind: "node.up", Node: n.ID, Text: fmt.Sprintf("%s answers: %s on timeline %d", n.ID, n.Role, n.Timeline)})
		case was.Reach != n.Reach:
			e.event(cluster.Event{Level: cluster.Warn, Kind: "node.down", Node: n.ID, Text: fmt.Sprintf("%s does not answer: connection %s (%s)", n.ID, n.Reach, n.LastError)})
		case known && n.Up() && was.Role != n.Role:
			e.event(cluster.Event{Level: cluster.Warn, Kind: "node.role", Node: n.ID, Text: fmt.Sprintf("%s was %s and is %s", n.ID, was.Role, n.Role)})
		default:
			continue
		}
		e.notify()
	}
}

// reportSteps writes an event for each step that has ended since before.
func (e *Engine) reportSteps(op plan.Operation, before []plan.StepRun) {
	for i, run := range op.Steps {
		over := run.Outcome.Over() || run.Outcome == plan.Unknown
		if !over || i < len(before) && before[i].Outcome == run.Outcome {
			continue
		}
		s := op.Plan.Steps[i]
		level := cluster.Info
		if run.Outcome == plan.Failed || run.Outcome == plan.Unknown {
			level = cluster.Error
			if s.Optional {
				level = cluster.Warn
			}
		}
		e.event(cluster.Event{Level: level, Kind: "step." + string(run.Outcome), Node: s.Node, Op: op.ID,
			Text:   fmt.Sprintf("%s: %s in %.1f ms (%s)", s.Title, run.Outcome, float64(run.Took.Microseconds())/1000, run.Detail),
			Fields: map[string]string{"step": s.ID, "command": s.Command}})
	}
}

func lossFields(d decide.Decision) map[string]string {
	if d.LossBytes == 0 {
		return nil
	}
	return map[string]string{"loss_bytes": fmt.Sprint(d.LossBytes)}
}

// failoverFields are what the recipe's failover.log recorded.
func (e *Engine) failoverFields(p plan.Plan) map[string]string {
	failed := p.Node
	r := e.records.Record()
	f := map[string]string{"old_primary": string(r.Primary), "new_primary": string(r.Primary)}
	switch p.Action {
	case cluster.Promote, cluster.Switchover:
		failed = r.Primary
		f["new_primary"] = string(p.Node)
	case cluster.Degrade:
	default:
		return nil
	}
	old, _ := e.Policy().Node(failed)
	now, _ := e.Policy().Node(cluster.NodeID(f["new_primary"]))
	f["failed_node"], f["failed_host"], f["failed_port"] = string(failed), old.Host, fmt.Sprint(old.Port)
	f["failed_data_directory"] = old.DataDirectory
	f["new_primary_host"], f["new_primary_port"], f["new_primary_data_directory"] = now.Host, fmt.Sprint(now.Port), now.DataDirectory
	return f
}
