// Command bench measures what a proxy costs: a lab's primary direct, through
// proxyd, and through PgBouncer, pgpool-II and HAProxy where this machine has
// them, in interleaved rounds. What is measured is one of several kinds, each
// in a file of its own:
//
//	go run ./proxyd/bench -what select    throughput and processor time per query
//	go run ./proxyd/bench -what reads     the same with the reads spread over all nodes
//	go run ./proxyd/bench -what latency   how long one client waits for its answer
//	go run ./proxyd/bench -what login     a login for each query
//	go run ./proxyd/bench -what idle      memory of idle clients, and what they cost busy ones
//	go run ./proxyd/bench -what copy      COPY and large values, with the memory they take
//	go run ./proxyd/bench -what tls       select and login with TLS to the clients
//	go run ./proxyd/bench -what loops     select with one event loop and with several
//
// It owns the processes it starts and the lab it makes, and nothing else: it
// speaks to the lab only as any user of it would, through bin/pgtandem and the
// configuration file, and must never know of the daemon's inside.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type options struct {
	program   string
	dir       string
	what      string
	clients   list
	protocols list
	loops     list
	only      list
	jobs      int
	seconds   int
	rounds    int
	scale     int
	idle      int
	megabytes int
	valueMB   int
}

// list is a flag of several words.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(s string) error {
	*l = strings.Split(s, ",")
	return nil
}

// numbers are the words of a flag that has to be numbers above zero.
func (l list) numbers(flag string) (all []int, err error) {
	for _, word := range l {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-%s %s: not a number above zero", flag, word)
		}
		all = append(all, n)
	}
	return all, nil
}

// kinds of measurement, by the word after -what.
var kinds = map[string]func(context.Context, *bench) error{
	"select":  measureSelect,
	"reads":   measureReads,
	"latency": measureLatency,
	"login":   measureLogin,
	"idle":    measureIdle,
	"copy":    measureCopy,
	"tls":     measureTLS,
	"loops":   measureLoops,
}

func kindNames() string {
	var names []string
	for name := range kinds {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func main() {
	o := options{clients: list{"16", "64"}, protocols: list{"simple", "prepared"}, loops: list{"1", "2"}}
	flag.StringVar(&o.program, "pgtandem", "bin/pgtandem", "the console, which makes the lab")
	flag.StringVar(&o.dir, "dir", "", "directory of a lab to keep; by default one is made and destroyed")
	flag.StringVar(&o.what, "what", "select", "what is measured: "+kindNames())
	flag.Var(&o.clients, "clients", "pgbench -c, one or several")
	flag.Var(&o.protocols, "protocol", "pgbench -M, one or several: simple, extended, prepared")
	flag.Var(&o.loops, "loops", "of -what loops: how many event loops proxyd has, one or several")
	flag.Var(&o.only, "only", "measure these alone: direct, proxyd, pgbouncer, pgpool-II, haproxy")
	flag.IntVar(&o.jobs, "jobs", 2, "pgbench -j")
	flag.IntVar(&o.seconds, "seconds", 5, "pgbench -T, for each round of each target")
	flag.IntVar(&o.rounds, "rounds", 5, "how often each target is measured; the median counts")
	flag.IntVar(&o.scale, "scale", 10, "pgbench -s; 10 fits any shared_buffers, so that no disk is measured")
	flag.IntVar(&o.idle, "idle", 10000, "of -what idle: how many clients are idle")
	flag.IntVar(&o.megabytes, "megabytes", 1000, "of -what copy: how much is carried in each round, in MB of 1,000,000 bytes")
	flag.IntVar(&o.valueMB, "value", 100, "of -what copy: how large a large value is, in MB")
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
	measure, ok := kinds[o.what]
	if !ok {
		return fmt.Errorf("-what %s: there are %s", o.what, kindNames())
	}
	if err := raiseFileLimit(); err != nil {
		return err
	}
	lab, err := startLab(ctx, o)
	if err != nil {
		return err
	}
	b := &bench{options: o, lab: lab}
	defer func() {
		b.stop()
		if e := lab.stop(); err == nil {
			err = e
		}
	}()
	return measure(ctx, b)
}

// raiseFileLimit lets us and what we start have as many files open as the
// system allows, since each client is one.
func raiseFileLimit() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raise the limit of open files: %w", err)
	}
	return nil
}

var began = time.Now()

// progress tells on standard error what takes its time, since a benchmark of
// minutes without a word looks like one that hangs.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}
