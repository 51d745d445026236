// Package clock is time as the engine sees it: what it reads, waits for and is
// bounded by. Everything above it takes a Clock, so that a simulator can make a
// day pass in a millisecond and two runs of one seed be the same.
//
// It must never know what it is used for.
package clock

import (
	"context"
	"fmt"
	"time"
)

// Clock tells the time and waits for it.
type Clock interface {
	Now() time.Time
	// Timeout bounds ctx: the context it gives ends after d at the latest, with
	// context.DeadlineExceeded.
	Timeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
	// Sleep waits for d. It returns ctx's error when that ends first.
	Sleep(ctx context.Context, d time.Duration) error
}

// System is the machine's own clock.
type System struct{}

// Now is the time of day, with the monotonic reading that differences use.
func (System) Now() time.Time { return time.Now() }

// Timeout is context.WithTimeout.
func (System) Timeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

// Sleep waits for d or for the end of ctx.
func (System) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Every calls f at once and then after every pause until it says yes, fails, or
// the context ends, whose error it then returns with what was last seen.
func Every(ctx context.Context, c Clock, pause time.Duration, f func() (done bool, saw string, err error)) error {
	for {
		done, saw, err := f()
		if done {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
		if err := c.Sleep(ctx, pause); err != nil {
			return fmt.Errorf("%w, last seen: %s", err, saw)
		}
	}
}
