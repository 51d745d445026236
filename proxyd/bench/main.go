// Command bench measures what a proxy costs: pgbench's select-only script
// against a lab's primary direct, through proxyd, and through PgBouncer and
// pgpool-II where this machine has them, in interleaved rounds.
//
// It owns the processes it starts and the lab it makes, and nothing else: it
// speaks to the lab only as any user of it would, through bin/pgtandem, and
// must never know of the daemon's inside.
//
//	go run ./proxyd/bench [-clients 16,64] [-protocol simple,prepared] [-seconds 5] [-rounds 5] [-reads]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type options struct {
	program   string
	dir       string
	clients   list
	protocols list
	only      list
	jobs      int
	seconds   int
	rounds    int
	scale     int
	reads     bool
}

// list is a flag of several words.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(s string) error {
	*l = strings.Split(s, ",")
	return nil
}

func (l list) has(s string) bool {
	for _, x := range l {
		if x == s {
			return true
		}
	}
	return false
}

func main() {
	o := options{clients: list{"16", "64"}, protocols: list{"simple", "prepared"}}
	flag.StringVar(&o.program, "pgtandem", "bin/pgtandem", "the console, which makes the lab")
	flag.StringVar(&o.dir, "dir", "", "directory of a lab to keep; by default one is made and destroyed")
	flag.Var(&o.clients, "clients", "pgbench -c, one or several")
	flag.Var(&o.protocols, "protocol", "pgbench -M, one or several: simple, extended, prepared")
	flag.Var(&o.only, "only", "measure these alone: direct, proxyd, pgbouncer, pgpool-II")
	flag.IntVar(&o.jobs, "jobs", 2, "pgbench -j")
	flag.IntVar(&o.seconds, "seconds", 5, "pgbench -T, for each round of each target")
	flag.IntVar(&o.rounds, "rounds", 5, "how often each target is measured; the median counts")
	flag.IntVar(&o.scale, "scale", 10, "pgbench -s; 10 fits any shared_buffers, so that no disk is measured")
	flag.BoolVar(&o.reads, "reads", false, "let proxyd and pgpool-II balance the reads over all nodes")
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
	if o.reads {
		if err := lab.balance(ctx, targets[1]); err != nil {
			return err
		}
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
	loads, err := o.loads()
	if err != nil {
		return err
	}
	targets = o.chosen(targets)
	for _, load := range loads {
		samples, err := measureAll(ctx, lab, targets, load, o)
		if err != nil {
			return err
		}
		fmt.Printf("pgbench -S -M %s -c %d -j %d -T %d, median of %d interleaved rounds\n\n%s\n",
			load.protocol, load.clients, o.jobs, o.seconds, o.rounds, table(targets, samples))
	}
	return nil
}

// load is what pgbench is asked to do.
type load struct {
	protocol string
	clients  int
}

func (o options) loads() (all []load, err error) {
	for _, protocol := range o.protocols {
		for _, clients := range o.clients {
			n, err := strconv.Atoi(clients)
			if err != nil || n < 1 {
				return nil, fmt.Errorf("-clients %s: not a number of clients", clients)
			}
			all = append(all, load{protocol, n})
		}
	}
	return all, nil
}

func (o options) chosen(targets []*target) []*target {
	if len(o.only) == 0 {
		return targets
	}
	var some []*target
	for _, t := range targets {
		if o.only.has(t.name) {
			some = append(some, t)
		}
	}
	return some
}

// measureAll runs the rounds, each beginning with another target, so that
// what drifts on the machine falls on all of them alike.
func measureAll(ctx context.Context, lab *lab, targets []*target, load load, o options) ([][]sample, error) {
	samples := make([][]sample, len(targets))
	for round := range o.rounds {
		for i := range targets {
			i = (round + i) % len(targets)
			s, err := lab.measure(ctx, targets[i], load, o)
			if err != nil {
				return nil, err
			}
			progress("%s, %d clients, round %d of %d: %-9s %8.0f queries/s %6.1f us", load.protocol, load.clients, round+1, o.rounds, targets[i].name, s.tps, s.cpuUS)
			samples[i] = append(samples[i], s)
		}
	}
	return samples, nil
}

var began = time.Now()

// progress tells on standard error what takes its time, since a benchmark of
// minutes without a word looks like one that hangs.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}
