package fault

import (
	"context"
	"fmt"
	"time"
)

// Cut drops what goes from one side to another, nodes or Daemon; both ways,
// also what comes back. Connections that are open stay open, and silent.
func (f *Faults) Cut(ctx context.Context, from, to string, d Direction) error {
	if err := f.offered(Cut); err != nil {
		return err
	}
	if d != OneWay && d != BothWays {
		return fmt.Errorf("cut %s from %s: there is no direction %q: %s or %s", from, to, d, OneWay, BothWays)
	}
	f.note(func(b *broken) { b.network = true })
	if err := f.lab.Cut(ctx, from, to); err != nil || d == OneWay {
		return err
	}
	return f.lab.Cut(ctx, to, from)
}

// Mend ends a cut between two sides, in both directions.
func (f *Faults) Mend(ctx context.Context, one, other string) error {
	if err := f.offered(Cut); err != nil {
		return err
	}
	if err := f.lab.Mend(ctx, one, other); err != nil {
		return err
	}
	return f.lab.Mend(ctx, other, one)
}

// Isolate cuts a node from every other side, both ways, as if its host were
// gone. Repair ends it.
func (f *Faults) Isolate(ctx context.Context, node string) error {
	for _, other := range append(f.Nodes(), Daemon) {
		if other == node {
			continue
		}
		if err := f.Cut(ctx, node, other, BothWays); err != nil {
			return err
		}
	}
	return nil
}

// Loss drops so many of each hundred packets to and from the nodes, at random;
// 0 ends it.
func (f *Faults) Loss(ctx context.Context, percent int) error {
	if err := f.offered(Loss); err != nil {
		return err
	}
	f.note(func(b *broken) { b.network = true })
	return f.lab.Loss(ctx, percent)
}

// Jitter delays what goes between any two sides by a random time of at most
// so much, in order; 0 ends it.
func (f *Faults) Jitter(_ context.Context, most time.Duration) error {
	if err := f.offered(Jitter); err != nil {
		return err
	}
	f.note(func(b *broken) { b.network = true })
	return f.lab.Jitter(most)
}

// Repair ends every cut, loss and delay.
func (f *Faults) Repair(ctx context.Context) error {
	if err := f.lab.Repair(ctx); err != nil {
		f.note(func(b *broken) { b.network = true })
		return err
	}
	f.note(func(b *broken) { b.network = false })
	return nil
}

// FillDisk leaves no room where a node's data are.
func (f *Faults) FillDisk(_ context.Context, node string) error {
	if err := f.offered(FillDisk); err != nil {
		return err
	}
	f.note(func(b *broken) { b.full[node] = true })
	return f.lab.FillDisk(node)
}

// FreeDisk makes room again.
func (f *Faults) FreeDisk(_ context.Context, node string) error {
	if err := f.offered(FillDisk); err != nil {
		return err
	}
	if err := f.lab.FreeDisk(node); err != nil {
		return err
	}
	f.note(func(b *broken) { delete(b.full, node) })
	return nil
}
