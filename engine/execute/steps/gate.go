package steps

import (
	"context"
	"fmt"

	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// gate remembers what it did, because a gate that was closed without cutting
// looks the same from outside as one that was cut.
type gate struct {
	w    *World
	done string // ID of the close step that ended well
}

func (g *gate) closed(_ context.Context, s plan.Step) (bool, string, error) {
	open, _, _ := g.w.Gate.Passing()
	if open || g.done != s.ID {
		return false, "open", nil
	}
	return true, "closed", nil
}

func (g *gate) close(ctx context.Context, s plan.Step, _ func(string)) error {
	g.done = ""
	open, err := g.w.Gate.Close(ctx, s.Args["reason"], s.Args["cut"] == "true")
	if open > 0 {
		return fmt.Errorf("%w: %d transactions are still open after %s; nothing was changed", execute.ErrRefused, open, s.Deadline)
	}
	if err != nil {
		return fmt.Errorf("close the gate: %w", err)
	}
	g.done = s.ID
	return nil
}

func (g *gate) opened(_ context.Context, s plan.Step) (bool, string, error) {
	open, node, term := g.w.Gate.Passing()
	rec := g.w.Records.Record()
	return open && node == s.Node && term == rec.Term, fmt.Sprintf("term %d, %s", term, node), nil
}

func (g *gate) open(ctx context.Context, s plan.Step, _ func(string)) error {
	g.done = ""
	rec := g.w.Records.Record()
	if rec.Primary != s.Node {
		return fmt.Errorf("%w: open the gate to %s: the recorded primary is %s", execute.ErrRefused, s.Node, rec.Primary)
	}
	n, err := g.w.node(s.Node)
	if err != nil {
		return err
	}
	if err := g.w.Gate.Open(ctx, rec.Term, n); err != nil {
		return fmt.Errorf("open the gate to %s: %w", s.Node, err)
	}
	return nil
}
