// Command planted breaks the engine in one place at a time and asks the
// simulator whether it notices. A bug that is not caught shows a check that
// checks nothing, or a rule that nobody needs.
//
// Nothing in the tree is changed: each bug is an overlay of one file for one
// build.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	seeds := flag.Int("seeds", 10000, "within how many `seeds` a bug must be caught")
	only := flag.String("only", "", "plant only the bugs whose name contains this `text`")
	from := flag.Uint64("from", 1, "the first `seed`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *seeds, *from, *only); err != nil {
		fmt.Fprintln(os.Stderr, "planted:", err)
		os.Exit(1)
	}
}

// outcome is what became of one bug.
type outcome struct {
	bug    bug
	caught bool
	seeds  string // how many it took
	why    string
	took   time.Duration
	err    error
}

func run(ctx context.Context, seeds int, from uint64, only string) error {
	dir, err := os.MkdirTemp("", "planted")
	if err != nil {
		return fmt.Errorf("make a directory to build in: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left of it is small
	if err := build(ctx, filepath.Join(dir, "base"), nil); err != nil {
		return err
	}
	var todo []bug
	for _, b := range all() {
		if strings.Contains(b.name, only) {
			todo = append(todo, b)
		}
	}
	outcomes := make([]outcome, len(todo))
	next := make(chan int)
	var wg sync.WaitGroup
	var show sync.Mutex
	for range max(1, runtime.GOMAXPROCS(0)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range next {
				outcomes[i] = plant(ctx, dir, i, todo[i], seeds, from)
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
	return sum(outcomes, seeds)
}

func (o outcome) String() string {
	switch {
	case o.err != nil:
		return fmt.Sprintf("FAILED   %-42s %v", o.bug.name, o.err)
	case !o.caught:
		return fmt.Sprintf("MISSED   %-42s %s", o.bug.name, o.bug.what)
	}
	return fmt.Sprintf("caught   %-42s %6s seeds, %5.1f s   %s", o.bug.name, o.seeds, o.took.Seconds(), o.why)
}

func sum(all []outcome, seeds int) error {
	caught, by := 0, map[string]int{}
	for _, o := range all {
		if o.caught {
			caught++
			by[kind(o.why)]++
		}
	}
	for _, k := range slices.Sorted(maps.Keys(by)) {
		fmt.Printf("%4d by: %s\n", by[k], k)
	}
	fmt.Printf("%d of %d planted bugs caught within %d seeds each\n", caught, len(all), seeds)
	if caught < len(all) {
		return fmt.Errorf("%d were not caught", len(all)-caught)
	}
	return nil
}

var broken = regexp.MustCompile(`(?m)^seed (\d+): (?:at [0-9.]+s: )?(.*)$`)

// kind is what is common to all words of one invariant.
func kind(why string) string {
	why = details.ReplaceAllString(why, "_")
	return why[:min(len(why), 60)]
}

var details = regexp.MustCompile(`pgsql\d+|\d+|\(.*`)

// plant builds the simulator with one bug and runs it until something breaks.
func plant(ctx context.Context, dir string, i int, b bug, seeds int, from uint64) (o outcome) {
	o = outcome{bug: b}
	texts, err := b.planted()
	if err != nil {
		o.err = err
		return o
	}
	base := filepath.Join(dir, fmt.Sprint(i))
	if o.err = build(ctx, base, texts); o.err != nil {
		return o
	}
	began := time.Now()
	defer func() { o.took = time.Since(began) }()
	for first, end := from, from+uint64(seeds); first < end; {
		seed, why, err := play(ctx, base+".bin", first, end-first)
		if err != nil || why == "" {
			o.err = err
			return o
		}
		// What the engine does not survive without the bug shows nothing.
		_, clean, err := play(ctx, filepath.Join(dir, "base.bin"), seed, 1)
		if err != nil {
			o.err = err
			return o
		}
		if clean == "" {
			o.caught, o.why, o.seeds = true, why, fmt.Sprint(seed-from+1)
			return o
		}
		first = seed + 1
	}
	return o
}

// play runs seeds until one breaks, and says which and why; why is empty where
// all of them held.
func play(ctx context.Context, bin string, from, seeds uint64) (seed uint64, why string, err error) {
	out, err := exec.CommandContext(ctx, bin, "-seeds", fmt.Sprint(seeds), "-from", fmt.Sprint(from), "-cores", "1").CombinedOutput()
	var exit *exec.ExitError
	if err == nil || !errors.As(err, &exit) {
		return 0, "", err
	}
	m := broken.FindStringSubmatch(string(out))
	if m == nil {
		return 0, "", fmt.Errorf("the simulator ended without a verdict: %.200s", out)
	}
	seed, err = strconv.ParseUint(m[1], 10, 64)
	return seed, m[2], err
}

// build makes the simulator with some files replaced, or with none.
func build(ctx context.Context, base string, texts map[string]string) error {
	replace := map[string]string{}
	for file, text := range texts {
		whole, err := filepath.Abs(file)
		if err != nil {
			return err
		}
		replace[whole] = fmt.Sprintf("%s.%d.go", base, len(replace))
		if err := os.WriteFile(replace[whole], []byte(text), 0o600); err != nil {
			return err
		}
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		return err
	}
	if err := os.WriteFile(base+".json", overlay, 0o600); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-overlay", base+".json", "-o", base+".bin", "./engine/sim/run").CombinedOutput()
	if err != nil {
		return fmt.Errorf("it does not build: %s", strings.TrimSpace(string(out)))
	}
	return nil
}
