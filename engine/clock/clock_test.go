package clock

import (
	"context"
	"errors"
	"testing"
	"time"
)

// instant is a clock on which nothing takes time; it counts the waits.
type instant struct {
	System
	waits int
}

func (c *instant) Sleep(ctx context.Context, _ time.Duration) error {
	c.waits++
	return ctx.Err()
}

func TestEveryAsksUntilYes(t *testing.T) {
	c := &instant{}
	left := 3
	err := Every(t.Context(), c, time.Hour, func() (bool, string, error) { left--; return left == 0, "not yet", nil })
	if err != nil || c.waits != 2 {
		t.Errorf("after %d waits: %v", c.waits, err)
	}
}

func TestEveryEndsWithTheContextAndSaysWhatItSaw(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := Every(ctx, &instant{}, time.Hour, func() (bool, string, error) { cancel(); return false, "a receiver", nil })
	if !errors.Is(err, context.Canceled) || err.Error() != "context canceled, last seen: a receiver" {
		t.Error(err)
	}
}

func TestEveryPassesOnAFailure(t *testing.T) {
	broken := errors.New("broken")
	if err := Every(t.Context(), &instant{}, time.Hour, func() (bool, string, error) { return false, "", broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestSystemSleepEndsWithTheContext(t *testing.T) {
	ctx, cancel := System{}.Timeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := (System{}).Sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
