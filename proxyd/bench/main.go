// Command bench measures what a proxy costs: pgbench's select-only script
// against a lab's primary direct, through proxyd, and through PgBouncer and
// pgpool-II where this machine has them, in interleaved rounds.
//
// It owns the processes it starts and the lab it makes, and nothing else: it
// speaks to the lab only as any user of it would, through bin/pgtandem, and
// must never know of the daemon's inside.
//
//	go run ./proxyd/bench [-clients 16] [-seconds 10] [-rounds 5]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

type options struct {
	program string
	dir     string
	clients int
	jobs    int
	seconds int
	rounds  int
	scale   int
	mode    string
}

func main() {
	var o options
	flag.StringVar(&o.program, "pgtandem", "bin/pgtandem", "the console, which makes the lab")
	flag.StringVar(&o.dir, "dir", "", "directory of a lab to keep; by default one is made and destroyed")
	flag.IntVar(&o.clients, "clients", 16, "pgbench -c")
	flag.IntVar(&o.jobs, "jobs", 2, "pgbench -j")
	flag.IntVar(&o.seconds, "seconds", 10, "pgbench -T, for each round of each target")
	flag.IntVar(&o.rounds, "rounds", 5, "how often each target is measured; the median counts")
	flag.IntVar(&o.scale, "scale", 10, "pgbench -s; 10 fits any shared_buffers, so that no disk is measured")
	flag.StringVar(&o.mode, "protocol", "simple", "pgbench -M: simple, extended")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	lab, err := startLab(ctx, o)
	if err != nil {
		return err
	}
	defer func() {
		if e := lab.stop(); err == nil {
			err = e
		}
	}()
	targets, err := lab.targets(ctx)
	if err != nil {
		return err
	}
	rivals, why := startRivals(ctx, lab)
	defer rivals.stop()
	for _, w := range why {
		progress("%s", w)
	}
	for _, r := range rivals {
		targets = append(targets, r.target)
	}
	progress("filling pgbench's tables at scale %d", o.scale)
	if err := lab.fill(ctx, targets[0], o.scale); err != nil {
		return err
	}
	if err := measureAll(ctx, lab, targets, o); err != nil {
		return err
	}
	fmt.Printf("pgbench -S -M %s -c %d -j %d -T %d, median of %d interleaved rounds\n\n%s", o.mode, o.clients, o.jobs, o.seconds, o.rounds, table(targets))
	return nil
}

// measureAll runs the rounds, each beginning with another target, so that
// what drifts on the machine falls on all of them alike.
func measureAll(ctx context.Context, lab *lab, targets []*target, o options) error {
	for round := range o.rounds {
		for i := range targets {
			t := targets[(round+i)%len(targets)]
			s, err := lab.measure(ctx, t, o)
			if err != nil {
				return err
			}
			progress("round %d of %d: %-9s %8.0f queries/s", round+1, o.rounds, t.name, s.tps)
			t.samples = append(t.samples, s)
		}
	}
	return nil
}

var began = time.Now()

// progress tells on standard error what takes its time, since a benchmark of
// minutes without a word looks like one that hangs.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}
