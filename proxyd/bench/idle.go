package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// crowdSample is what a crowd of idle clients costs a proxy.
type crowdSample struct {
	arrived, settled float64  // memory for each client, in kB: after its login; once the busy ones were measured
	logins           float64  // for each second, with loginsAtOnce of them under way
	alone, beside    []sample // of the busy ones, without the crowd and beside it
}

func (c crowdSample) String() string {
	return fmt.Sprintf("%.1f kB for each, %.0f queries/s beside them against %.0f without", c.arrived, median(rates(c.beside)), median(rates(c.alone)))
}

func rates(samples []sample) (all []float64) {
	for _, s := range samples {
		all = append(all, s.tps)
	}
	return all
}

// loginsAtOnce is how many of the crowd log in at one time.
const loginsAtOnce = 16

// measureIdle is the memory that idle clients take, and what busy ones notice
// of them. Each proxy is measured without the crowd, beside it, and without it
// again, so that what drifts on the machine falls on both alike. Of a server
// itself, and of a proxy that opens a connection to it for each client, nobody
// wants so many.
func measureIdle(ctx context.Context, b *bench) error {
	if err := enoughFiles(b.idle); err != nil {
		return err
	}
	const others = 300 // clients besides the idle ones
	targets, err := b.open(ctx, setup{
		proxyd: []setting{{"proxy", "max_clients", fmt.Sprint(b.idle + others)}}, clients: b.idle + others, rivals: []string{pgbouncer},
	})
	if err != nil {
		return err
	}
	loads, err := b.loads()
	if err != nil {
		return err
	}
	load := loads[0]
	var all []result[crowdSample]
	for _, t := range targets {
		if t.pid == 0 {
			continue
		}
		s, err := b.crowded(ctx, t, load)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		progress("%-12s %s", t.name, s)
		all = append(all, result[crowdSample]{t, []crowdSample{s}})
	}
	fmt.Printf("%d idle clients; beside them pgbench -S -M %s -c %d -j %d -T %d, median of %d runs\n\n%s\n",
		b.idle, load.protocol, load.clients, b.jobs, b.seconds, b.options.rounds, crowdTable(all))
	return nil
}

func crowdTable(all []result[crowdSample]) string {
	alone := func(c crowdSample) float64 { return median(rates(c.alone)) }
	beside := func(c crowdSample) float64 { return median(rates(c.beside)) }
	cost := func(of func(crowdSample) []sample) func(crowdSample) float64 {
		return func(c crowdSample) float64 { return result[sample]{samples: of(c)}.median(cpu) }
	}
	return table(all,
		figure("kB/client after login", "%.1f", func(c crowdSample) float64 { return c.arrived }),
		figure("kB/client later", "%.1f", func(c crowdSample) float64 { return c.settled }),
		figure("logins/s", "%.0f", func(c crowdSample) float64 { return c.logins }),
		figure("queries/s alone", "%.0f", alone),
		figure("beside them", "%.0f", beside),
		figure("of alone", "%.1f %%", func(c crowdSample) float64 { return 100 * beside(c) / max(alone(c), 1) }),
		figure("CPU us alone", "%.1f", cost(func(c crowdSample) []sample { return c.alone })),
		figure("beside them", "%.1f", cost(func(c crowdSample) []sample { return c.beside })))
}

// enoughFiles says whether we and the proxies may have so many connections.
func enoughFiles(clients int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if need := uint64(clients) + 1000; limit.Cur < need {
		return fmt.Errorf("%d idle clients need a limit of %d open files, and here it is %d: raise it with ulimit -Hn, or ask for fewer by -idle", clients, need, limit.Cur)
	}
	return nil
}

// crowded measures one proxy.
func (b *bench) crowded(ctx context.Context, t *target, load load) (c crowdSample, err error) {
	run := func(what string, into *[]sample, times int) error {
		for range times {
			s, err := b.steady(ctx, t, load)
			if err != nil {
				return err
			}
			progress("%s, %s: %-12s %s", load, what, t.name, s)
			*into = append(*into, s)
		}
		return nil
	}
	if err := run("alone", &c.alone, (b.options.rounds+1)/2); err != nil {
		return c, err
	}
	empty, err := memoryKB(t.pid, resident)
	if err != nil {
		return c, err
	}
	entering := time.Now()
	idle, err := b.gather(ctx, t)
	defer func() { idle.leave() }()
	if err != nil {
		return c, err
	}
	c.logins = float64(b.idle) / time.Since(entering).Seconds()
	full, err := memoryKB(t.pid, resident)
	if err != nil {
		return c, err
	}
	if err := run("beside the idle ones", &c.beside, b.options.rounds); err != nil {
		return c, err
	}
	later, err := memoryKB(t.pid, resident)
	if err != nil {
		return c, err
	}
	c.arrived, c.settled = (full-empty)/float64(b.idle), (later-empty)/float64(b.idle)
	idle.leave()
	err = run("alone", &c.alone, (b.options.rounds+1)/2)
	return c, err
}

// crowd is clients that have logged in and asked something once.
type crowd struct {
	mu    sync.Mutex
	conns []net.Conn
}

func (c *crowd) join(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns = append(c.conns, conn)
}

// leave closes them all; once more it does nothing.
func (c *crowd) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.Close() // there is nobody to be told
	}
	c.conns = nil
}

// gather logs them in. On an error it gives those who have come so far.
func (b *bench) gather(ctx context.Context, t *target) (*crowd, error) {
	progress("%d clients log in to %s", b.idle, t.name)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := &crowd{}
	turns := make(chan struct{}, b.idle)
	for range b.idle {
		turns <- struct{}{}
	}
	close(turns)
	var all sync.WaitGroup
	for range loginsAtOnce {
		all.Go(func() {
			for range turns {
				conn, err := b.idler(ctx, t)
				if err != nil {
					cancel(err)
					return
				}
				c.join(conn)
			}
		})
	}
	all.Wait()
	return c, context.Cause(ctx)
}

// idler is one client that has asked one thing and will ask no more.
func (b *bench) idler(ctx context.Context, t *target) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := pgconn.Connect(ctx, b.lab.url(t))
	if err != nil {
		return nil, fmt.Errorf("log an idle client in: %w", err)
	}
	if _, err := conn.Exec(ctx, "SELECT 1").ReadAll(); err != nil {
		return nil, errors.Join(fmt.Errorf("ask for an idle client: %w", err), conn.Close(ctx))
	}
	bare, err := conn.Hijack() // what is left of it is the socket
	if err != nil {
		return nil, errors.Join(fmt.Errorf("leave a client alone: %w", err), conn.Close(ctx))
	}
	return bare.Conn, nil
}
