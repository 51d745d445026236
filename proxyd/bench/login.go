package main

import (
	"context"
	"fmt"
	"strconv"
)

// measureLogin is a login for each query, by SCRAM-SHA-256.
func measureLogin(ctx context.Context, b *bench) error {
	targets, err := b.open(ctx, setup{rivals: []string{pgbouncer, pgpool}})
	if err != nil {
		return err
	}
	return b.logins(ctx, targets)
}

func (b *bench) logins(ctx context.Context, targets []*target) error {
	clients, err := b.clients.numbers("clients")
	if err != nil {
		return err
	}
	for _, n := range clients {
		load := load{"simple", n}
		all, err := rounds(ctx, b, fmt.Sprintf("logins, %d clients", n), targets, func(ctx context.Context, t *target) (sample, error) {
			out, ticks, err := b.costed(ctx, t, load, "-C", "-T", strconv.Itoa(b.seconds))
			if err != nil {
				return sample{}, err
			}
			return parseRun(out, reconnectLine, ticks)
		})
		if err != nil {
			return err
		}
		fmt.Printf("pgbench -S -C -c %d -j %d -T %d, median of %d interleaved rounds\n\n%s\n", n, b.jobs, b.seconds, b.options.rounds,
			table(all, figure("logins/s", "%.0f", rate), share("of direct", rate), proxies("proxy CPU us/login", "%.0f", cpu)))
	}
	return nil
}
