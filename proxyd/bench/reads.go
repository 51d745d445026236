package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// measureReads is measureSelect with the reads spread over all nodes, by proxyd
// and by who else can do so. The primary and the standbys weigh the same.
func measureReads(ctx context.Context, b *bench) error {
	if err := b.lab.findStandbys(ctx); err != nil {
		return err
	}
	targets, err := b.open(ctx, setup{proxyd: []setting{{"reads", "balance", "true"}}, rivals: []string{pgbouncer, pgpool}})
	if err != nil {
		return err
	}
	if err := b.lab.balanced(ctx, b.proxy); err != nil {
		return err
	}
	return b.selects(ctx, targets)
}

func (l *lab) findStandbys(ctx context.Context) error {
	for _, n := range l.Nodes {
		at := &target{name: n.Name, host: n.Host, port: n.Port}
		primary, err := l.isPrimary(ctx, at)
		if err != nil {
			return fmt.Errorf("ask %s whether it is primary: %w", n.Name, err)
		}
		if !primary {
			l.standbys = append(l.standbys, at)
		}
	}
	return nil
}

// balanced waits until reads land on a standby: the catalog has been read by
// then, and a standby looked at.
func (l *lab) balanced(ctx context.Context, proxy *target) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, l.url(proxy))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	for {
		var port string
		if err := conn.QueryRow(ctx, "select current_setting('port')").Scan(&port); err != nil {
			return fmt.Errorf("see whether reads are balanced: %w", err)
		}
		for _, s := range l.standbys {
			if fmt.Sprint(s.port) == port {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.New("no read lands on a standby: SHOW CLIENTS at the console says why")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// pgpoolBalance is what pgpool-II is told of the standbys, by the names of its
// own documentation: it chooses a node for each session.
func (l *lab) pgpoolBalance(dir string) string {
	if len(l.standbys) == 0 {
		return "load_balance_mode = off"
	}
	all := []string{"load_balance_mode = on", "statement_level_load_balance = off"}
	for i, s := range l.standbys {
		n := i + 1
		all = append(all, fmt.Sprintf("backend_hostname%d = '%s'", n, s.host), fmt.Sprintf("backend_port%d = %d", n, s.port),
			fmt.Sprintf("backend_weight%d = 1", n), fmt.Sprintf("backend_flag%d = 'DISALLOW_TO_FAILOVER'", n),
			fmt.Sprintf("backend_data_directory%d = '%s'", n, dir))
	}
	return strings.Join(all, "\n")
}
