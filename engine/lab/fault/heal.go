package fault

import (
	"context"
	"errors"
)

// Heal undoes everything that was broken through f, also where one thing
// fails. A former primary that the daemon has fenced is left to it: to start
// it by hand would be another fault. When Heal returns, the cluster need not
// be whole yet; that is the engine's work.
func (f *Faults) Heal(ctx context.Context) error {
	f.mu.Lock()
	b := f.broken
	f.broken = intact()
	f.broken.daemon = b.daemon
	for n := range b.down {
		f.broken.down[n] = true
	}
	f.mu.Unlock()
	var errs []error
	try := func(err error) { errs = append(errs, err) }
	if b.network {
		try(f.Repair(ctx))
	}
	for n := range b.full {
		try(f.FreeDisk(ctx, n))
	}
	for n := range b.frozen {
		try(f.Wake(ctx, n))
	}
	for n := range b.paused {
		try(f.ResumeReplay(ctx, n))
	}
	for n, was := range b.altered {
		f.note(func(b *broken) { b.altered[n] = was })
		try(f.AlterSystemBack(ctx, n))
	}
	if b.daemon {
		try(f.StartDaemon(ctx))
	}
	if len(b.down) > 0 {
		try(f.startWhatIsOurs(ctx, b.down))
	}
	return errors.Join(errs...)
}

// startWhatIsOurs starts the servers that the engine does not start by itself.
// The engine may take one for a former primary in that very moment and stop it
// again; it has fenced it then, which ends our part.
func (f *Faults) startWhatIsOurs(ctx context.Context, down map[string]bool) error {
	var errs []error
	for n := range down {
		var last error
		err := again(ctx, "start "+n+" by hand", func() (bool, error) {
			s, err := f.control.State(ctx)
			if err != nil {
				last = err
				return false, nil
			}
			if node, ok := s.Node(n); ok && node.Fenced {
				f.note(func(b *broken) { delete(b.down, n) })
				return true, nil
			}
			last = f.Start(ctx, n)
			return last == nil, nil
		})
		if err != nil {
			errs = append(errs, err, last)
		}
	}
	return errors.Join(errs...)
}
