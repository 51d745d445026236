// Command run puts real PostgreSQL clusters under random faults while clients
// write through proxyd, and then checks that nothing acknowledged is missing,
// nothing happened twice, no two servers took writes at once, and the cluster
// is whole again.
//
// It owns the labs it makes. It must never know how the engine decides: it asks
// the daemon's control socket as any user would, and believes the servers.
//
//	go run ./engine/chaos/run [-runs 10] [-nodes 2] [-seed n]
//
// It exits with 1 when a run found a violation or did not converge, and keeps
// the evidence of that run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

type options struct {
	runs     int
	nodes    int
	seed     uint64
	proxyd   string
	evidence string
	keep     bool
	verbose  bool
}

func main() {
	var o options
	flag.IntVar(&o.runs, "runs", 10, "how many runs")
	flag.IntVar(&o.nodes, "nodes", 2, "nodes of the cluster: 2 to 5")
	flag.Uint64Var(&o.seed, "seed", 0, "seed of the first run; the others count on from it; at random when 0")
	flag.StringVar(&o.proxyd, "proxyd", "bin/proxyd", "the daemon's program")
	flag.StringVar(&o.evidence, "evidence", filepath.Join(os.TempDir(), "pgtandem-chaos-evidence"), "where a failed run leaves its histories, events and logs")
	flag.BoolVar(&o.keep, "keep", false, "keep the evidence of every run")
	flag.BoolVar(&o.verbose, "v", false, "say each fault as it is made")
	flag.Parse()
	if o.seed == 0 {
		o.seed = 1 + uint64(rand.Uint32())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// errFailed: a run found what may not be.
var errFailed = errors.New("not every run passed")

func run(ctx context.Context, o options) (err error) {
	if err := os.Unsetenv("PGTANDEM_SOCKET"); err != nil { // only our own labs
		return fmt.Errorf("forget the user's socket: %w", err)
	}
	w, err := newWorkshop(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	fmt.Printf("%d runs on %d nodes, seeds %d to %d\n", o.runs, o.nodes, o.seed, o.seed+uint64(o.runs)-1)
	var results []result
	for i := range o.runs {
		seed := o.seed + uint64(i)
		c, err := w.cluster(ctx, seed)
		if err != nil {
			return err
		}
		r, err := oneRun(ctx, c, seed, o)
		if ctx.Err() != nil {
			fmt.Print(table(results))
			return fmt.Errorf("run %d of %d, seed %d: %w", i+1, o.runs, seed, context.Cause(ctx))
		}
		if err != nil {
			return fmt.Errorf("run %d, seed %d: %w", i+1, seed, err)
		}
		results = append(results, r)
		fmt.Println(r.line(i+1, o.runs))
		if !r.passed() {
			fmt.Println(r.complaint(o))
			w.retire(c)
		}
	}
	fmt.Print(table(results))
	var found error
	for i, r := range results {
		if !r.passed() { // once more: of a long output often only the end is kept
			fmt.Printf("%s\n%s\n", r.line(i+1, o.runs), r.complaint(o))
			found = errFailed
		}
	}
	return found
}

// within gives a context of its own to what must be done even after an
// interrupt.
func within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}
