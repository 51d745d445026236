package main

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// measureSelect is throughput, and the proxy's processor time for each query.
func measureSelect(ctx context.Context, b *bench) error {
	targets, err := b.open(ctx, setup{rivals: []string{pgbouncer, pgpool}})
	if err != nil {
		return err
	}
	return b.selects(ctx, targets)
}

// selects measures every load asked for and prints a table of each.
func (b *bench) selects(ctx context.Context, targets []*target) error {
	loads, err := b.loads()
	if err != nil {
		return err
	}
	for _, load := range loads {
		all, err := rounds(ctx, b, load.String(), targets, func(ctx context.Context, t *target) (sample, error) {
			return b.steady(ctx, t, load)
		})
		if err != nil {
			return err
		}
		fmt.Printf("pgbench -S -M %s -c %d -j %d -T %d, median of %d interleaved rounds\n\n%s\n",
			load.protocol, load.clients, b.jobs, b.seconds, b.options.rounds, selectTable(all))
	}
	return nil
}

func selectTable(all []result[sample]) string {
	return table(all, figure("queries/s", "%.0f", rate), share("of direct", rate),
		figure("latency ms", "%.3f", latency), proxies("proxy CPU us/query", "%.1f", cpu))
}

// steady runs pgbench twice: first so that each client does next to nothing
// but log in, and then for the time asked for. What the first cost the proxy is
// taken from what the second did, because a login costs as much as hundreds of
// queries and is measured nowhere here. pgbench's time includes its logins, so
// as much as they took is added to it.
func (b *bench) steady(ctx context.Context, t *target, load load) (sample, error) {
	began := time.Now()
	_, logins, err := b.costed(ctx, t, load, "-t", "1")
	if err != nil {
		return sample{}, err
	}
	seconds := b.seconds + int(time.Since(began).Seconds())
	out, all, err := b.costed(ctx, t, load, "-T", strconv.Itoa(seconds))
	if err != nil {
		return sample{}, err
	}
	return parseRun(out, tpsLine, all-min(logins, all))
}

// costed runs the select-only script and gives the processor time, in ticks,
// that the proxy took meanwhile.
func (b *bench) costed(ctx context.Context, t *target, load load, more ...string) (out string, ticks uint64, err error) {
	before, err := cpuTicks(t.pid)
	if err != nil {
		return "", 0, err
	}
	if out, err = b.selectOnly(ctx, t, load, more...); err != nil {
		return "", 0, err
	}
	after, err := cpuTicks(t.pid)
	return out, after - min(before, after), err // a process that ended takes its time with it
}
