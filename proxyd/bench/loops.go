package main

import (
	"context"
	"fmt"
	"strconv"
)

// measureLoops is measureSelect for several numbers of event loops. proxyd is
// started anew for each measurement, as that number needs it.
func measureLoops(ctx context.Context, b *bench) error {
	counts, err := b.options.loops.numbers("loops")
	if err != nil {
		return err
	}
	with := func(n int) []setting { return []setting{{"proxy", "loops", strconv.Itoa(n)}} }
	if _, err := b.open(ctx, setup{proxyd: with(counts[0])}); err != nil {
		return err
	}
	targets := []*target{b.primary}
	for _, n := range counts {
		t := *b.proxy
		t.name = fmt.Sprintf("loops = %d", n)
		t.ready = func(ctx context.Context) error {
			if err := b.reconfigure(ctx, with(n)); err != nil {
				return err
			}
			t.pid = b.proxy.pid
			return nil
		}
		targets = append(targets, &t)
	}
	return b.selects(ctx, targets)
}
