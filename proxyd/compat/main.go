package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pgtandem/pgtandem/engine/lab"
)

type options struct {
	proxyd string
	cache  string
	suites []string
	keep   bool
	tls    bool
}

// errDiffers is the verdict, not a failure to reach one.
var errDiffers = errors.New("some tests end differently through the proxy")

func main() {
	o, err := parse(os.Args[1:])
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = run(ctx, o)
		stop()
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errDiffers):
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "compat:", err)
		os.Exit(2)
	}
}

func parse(args []string) (o options, err error) {
	f := flag.NewFlagSet("compat", flag.ContinueOnError)
	f.StringVar(&o.proxyd, "proxyd", filepath.Join("bin", "proxyd"), "the daemon")
	f.StringVar(&o.cache, "cache", filepath.Join("bin", "compat"), "where downloads and reports are kept")
	f.BoolVar(&o.keep, "keep", false, "stop the labs at the end, but leave their files")
	f.BoolVar(&o.tls, "server-tls", false, "proxyd reaches the servers by TLS")
	chosen := f.String("suites", strings.Join(names(), ","), "which suites, in this order")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	for name := range strings.SplitSeq(*chosen, ",") {
		if !slices.Contains(names(), name) {
			return o, fmt.Errorf("-suites: there is no suite %q; there are %s", name, strings.Join(names(), ", "))
		}
		o.suites = append(o.suites, name)
	}
	for _, p := range []*string{&o.proxyd, &o.cache} {
		if *p, err = filepath.Abs(*p); err != nil {
			return o, fmt.Errorf("find %s: %w", *p, err)
		}
	}
	return o, nil
}

// suite is somebody else's tests.
type suite struct {
	name string
	mode string // the proxy's pool_mode
	run  func(context.Context, *bench, endpoint, string) (outcomes, error)
	// again repeats single tests; nil where one needs those before it.
	again func(context.Context, *bench, endpoint, []string) (outcomes, error)
	exact bool // what a failed test says is the same each time
}

const (
	session     = "session"
	transaction = "transaction"
)

var suites = []suite{
	{name: "regress", mode: session, run: runRegress, exact: true},
	{name: "isolation", mode: session, run: runIsolation, exact: true},
	{name: "pgx", mode: session, run: pgxSuite.run, again: pgxSuite.again},
	{name: "pq", mode: session, run: pqSuite.run, again: pqSuite.again},
	{name: "pgx-pool", mode: transaction, run: pgxPoolSuite.run, again: pgxPoolSuite.again},
}

func names() []string {
	var out []string
	for _, s := range suites {
		out = append(out, s.name)
	}
	return out
}

// run plays the suites, those of one mode on one lab.
func run(ctx context.Context, o options) (err error) {
	reports := filepath.Join(o.cache, "report")
	if err := os.RemoveAll(reports); err != nil {
		return fmt.Errorf("remove the last report: %w", err)
	}
	var results []comparison
	for _, mode := range []string{session, transaction} {
		var chosen []suite
		for _, s := range suites {
			if s.mode == mode && slices.Contains(o.suites, s.name) {
				chosen = append(chosen, s)
			}
		}
		if len(chosen) == 0 {
			continue
		}
		err := onALab(ctx, o, mode, func(b *bench) error {
			for _, s := range chosen {
				c, err := b.play(ctx, s, filepath.Join(reports, s.name))
				if err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
				results = append(results, c)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	fmt.Print(table(results))
	fmt.Printf("\nWhat the tests wrote: %s\n", reports)
	if slices.ContainsFunc(results, func(c comparison) bool { return len(c.differ) > 0 }) {
		return errDiffers
	}
	return nil
}

// repetitions of a test that ended differently, before it counts.
const repetitions = 3

// play runs a suite direct and then through the proxy.
func (b *bench) play(ctx context.Context, s suite, report string) (comparison, error) {
	direct, proxied := b.endpoints()
	progress("%s, direct", s.name)
	want, err := s.run(ctx, b, direct, filepath.Join(report, "direct"))
	if err != nil {
		return comparison{}, fmt.Errorf("direct: %w", err)
	}
	progress("%s, through the proxy in %s mode", s.name, s.mode)
	got, err := s.run(ctx, b, proxied, filepath.Join(report, "proxied"))
	if err != nil {
		return comparison{}, fmt.Errorf("through the proxy: %w", err)
	}
	c := compare(s.name, want, got, s.exact)
	if s.again == nil || len(c.differ) == 0 {
		return c, nil
	}
	return b.repeat(ctx, s, c)
}

// repeat plays what ended differently alone, several times each way. A test
// that ends in both ways, or in the same way after all, is unsteady.
func (b *bench) repeat(ctx context.Context, s suite, c comparison) (comparison, error) {
	direct, proxied := b.endpoints()
	var tests []string
	for _, d := range c.differ {
		tests = append(tests, d.test)
	}
	progress("%s: %d tests ended differently and are repeated alone", s.name, len(tests))
	for range repetitions {
		want, err := s.again(ctx, b, direct, tests)
		if err != nil {
			return c, fmt.Errorf("repeat direct: %w", err)
		}
		got, err := s.again(ctx, b, proxied, tests)
		if err != nil {
			return c, fmt.Errorf("repeat through the proxy: %w", err)
		}
		c.settle(want, got)
	}
	return c, nil
}

// onALab makes a lab, does something with it and removes it.
func onALab(ctx context.Context, o options, mode string, do func(*bench) error) (err error) {
	// Where the servers' account can reach it, unlike most temporary directories.
	dir, err := os.MkdirTemp("", "pgtcompat")
	if err != nil {
		return fmt.Errorf("make a directory for the lab: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("open the lab's directory to its servers: %w", err)
	}
	// The console's "only running lab" stays the user's own.
	if err := os.Setenv("PGTANDEM_LABS", filepath.Join(dir, "labs")); err != nil {
		return fmt.Errorf("keep the lab to ourselves: %w", err)
	}
	progress("bringing a lab in %s mode up in %s", mode, dir)
	l, err := lab.Up(ctx, lab.Options{Dir: filepath.Join(dir, "lab"), AnyPorts: true, PoolMode: mode, Proxyd: o.proxyd})
	if err != nil {
		return err // with the directory, where the logs are
	}
	defer func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if o.keep {
			progress("the lab's files stay in %s", dir)
			err = errors.Join(err, l.Down(down))
			return
		}
		if e := l.Destroy(down); e != nil {
			err = errors.Join(err, e)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	b, err := newBench(ctx, o, l, dir)
	if err != nil {
		return err
	}
	if o.tls {
		if err := b.encryptServers(ctx); err != nil {
			return fmt.Errorf("have proxyd reach the servers by TLS: %w", err)
		}
	}
	return do(b)
}

var began = time.Now()

// progress tells on standard error what takes its time.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}
