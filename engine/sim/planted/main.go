// Command planted breaks the engine in one place at a time and asks the
// simulator whether it notices. A bug that is not caught shows a check that
// checks nothing, or a rule that nobody needs; an invariant that no bug breaks
// is not a check.
//
// Nothing in the tree is changed: the bugs are an overlay of its files for one
// build, in which all of them sleep but the one that is played.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"time"
)

func main() {
	var o options
	flag.Uint64Var(&o.seeds, "seeds", 10000, "within how many `seeds` a bug must be caught")
	flag.StringVar(&o.only, "only", "", "plant only the bugs whose name contains this `text`; several, with | between them")
	flag.Uint64Var(&o.from, "from", 1, "the first `seed`")
	flag.BoolVar(&o.build, "build", false, "only build them")
	flag.BoolVar(&o.themed, "themed", false, "play only the seeds of a bug's theme, where it has one")
	flag.IntVar(&o.cores, "cores", runtime.GOMAXPROCS(0), "how many bugs to play at a time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "planted:", err)
		os.Exit(1)
	}
}

// options are what the command is asked for.
type options struct {
	seeds, from uint64
	only        string
	build       bool
	themed      bool
	cores       int
}

// wants says whether a bug is asked for.
func (o options) wants(b bug) bool {
	for _, part := range strings.Split(o.only, "|") {
		if strings.Contains(b.name, part) {
			return true
		}
	}
	return false
}

// outcome is what became of one bug.
type outcome struct {
	bug       bug
	caught    bool
	seed      uint64 // that caught it
	invariant string // that broke
	why       string // how
	played    uint64 // how many seeds it took
	took      time.Duration
	err       error
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "planted")
	if err != nil {
		return fmt.Errorf("make a directory to build in: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left of it is small
	var todo []bug
	for _, b := range all() {
		if o.wants(b) {
			todo = append(todo, b)
		}
	}
	list, variants := rows(todo)
	texts, err := graft(variants)
	if err != nil {
		return err
	}
	bin, err := build(ctx, dir, texts)
	if err != nil || o.build {
		return err
	}
	began := time.Now()
	outcomes := plantAll(ctx, o, bin, list)
	if err := ctx.Err(); err != nil {
		return err
	}
	whole := o.only == ""
	return report(outcomes, o.seeds, whole, time.Since(began))
}

// plantAll plants every bug, some at a time, and tells of each as it ends.
func plantAll(ctx context.Context, o options, bin string, todo []row) []outcome {
	outcomes := make([]outcome, len(todo))
	next := make(chan int)
	var wg sync.WaitGroup
	var show sync.Mutex
	for range max(1, o.cores) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range next {
				outcomes[i] = plant(ctx, o, bin, todo[i])
				show.Lock()
				fmt.Println(outcomes[i])
				show.Unlock()
			}
		}()
	}
	for i := range todo {
		next <- i
	}
	close(next)
	wg.Wait()
	return outcomes
}
