package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// waits is how long the answers of one run took, in microseconds.
type waits struct{ p50, p90, p99, p999 float64 }

func (w waits) String() string {
	return fmt.Sprintf("half within %.0f us, 99 %% within %.0f us", w.p50, w.p99)
}

// measureLatency is how long one client, alone, waits for an answer.
func measureLatency(ctx context.Context, b *bench) error {
	targets, err := b.open(ctx, setup{rivals: []string{pgbouncer, haproxy}})
	if err != nil {
		return err
	}
	p50 := func(w waits) float64 { return w.p50 }
	for _, protocol := range b.protocols {
		load := load{protocol, 1}
		all, err := rounds(ctx, b, load.String(), targets, func(ctx context.Context, t *target) (waits, error) {
			return b.waits(ctx, t, load)
		})
		if err != nil {
			return err
		}
		over := column[waits]{"over direct", func(r, first result[waits]) string { return fmt.Sprintf("%+.0f", r.median(p50)-first.median(p50)) }}
		fmt.Printf("pgbench -S -M %s -c 1 -T %d, microseconds, median of %d interleaved rounds\n\n%s\n", protocol, b.seconds, b.options.rounds,
			table(all, figure("50 %", "%.0f", p50), over,
				figure("90 %", "%.0f", func(w waits) float64 { return w.p90 }),
				figure("99 %", "%.0f", func(w waits) float64 { return w.p99 }),
				figure("99.9 %", "%.0f", func(w waits) float64 { return w.p999 })))
	}
	return nil
}

// waits has pgbench log each transaction's time.
func (b *bench) waits(ctx context.Context, t *target, load load) (w waits, err error) {
	dir, err := newScratch("latency")
	if err != nil {
		return w, err
	}
	defer func() { err = errors.Join(err, dir.remove()) }()
	if _, err := b.selectOnly(ctx, t, load, "-T", strconv.Itoa(b.seconds), "--log", "--log-prefix="+filepath.Join(dir.path, "log")); err != nil {
		return w, err
	}
	logs, err := filepath.Glob(filepath.Join(dir.path, "log.*"))
	if err != nil {
		return w, fmt.Errorf("find pgbench's log: %w", err)
	}
	var all []float64
	for _, log := range logs {
		f, err := os.Open(log)
		if err != nil {
			return w, fmt.Errorf("read pgbench's log: %w", err)
		}
		some, err := parseLog(f)
		_ = f.Close()
		if err != nil {
			return w, err
		}
		all = append(all, some...)
	}
	if len(all) == 0 {
		return w, errors.New("pgbench's log is empty")
	}
	slices.Sort(all)
	return waits{percentile(all, 0.5), percentile(all, 0.9), percentile(all, 0.99), percentile(all, 0.999)}, nil
}

// parseLog gives the times of pgbench's log: client, number of the transaction,
// its time in microseconds, and more. For the first one the server looks its
// catalog up, so it is left out.
func parseLog(r io.Reader) (all []float64, err error) {
	lines := bufio.NewScanner(r)
	for first := true; lines.Scan(); first = false {
		f := strings.Fields(lines.Text())
		if len(f) < 3 {
			return nil, fmt.Errorf("pgbench's log has the line %q", lines.Text())
		}
		if first {
			continue
		}
		us, err := strconv.ParseFloat(f[2], 64)
		if err != nil {
			return nil, fmt.Errorf("pgbench's log has the line %q", lines.Text())
		}
		all = append(all, us)
	}
	return all, lines.Err()
}

// percentile is the time within which a part of all was done. They are sorted.
func percentile(sorted []float64, part float64) float64 {
	i := int(part * float64(len(sorted)))
	return sorted[min(i, len(sorted)-1)]
}
