// Command run plays seeds against the engine and says which invariant broke.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgtandem/pgtandem/engine/sim"
)

func main() {
	seeds := flag.Int("seeds", 1000, "how many `seeds` to play")
	from := flag.Uint64("from", 0, "the first `seed`; 0 draws one from the clock")
	trace := flag.Uint64("trace", 0, "play this `seed` alone and tell everything that happens")
	keep := flag.Bool("keep-going", false, "play all seeds, whatever breaks")
	cores := flag.Int("cores", runtime.GOMAXPROCS(0), "how many seeds to play at a time")
	theme := flag.String("theme", "", "play only the seeds whose theme contains this `text`")
	flag.Parse()
	debug.SetGCPercent(800) // a run keeps little and throws much away
	if *trace != 0 {
		r := sim.Run(sim.Options{Seed: *trace, Trace: func(s string) { fmt.Println(s) }})
		fmt.Printf("seed %d, hash %016x: %+v\n%s\n", r.Seed, r.Hash, r.Stats, verdict(r))
		if r.Wrong != "" {
			os.Exit(1)
		}
		return
	}
	if *from == 0 {
		*from = uint64(time.Now().UnixNano())
	}
	if play(*from, *seeds, *cores, *keep, *theme) {
		os.Exit(1)
	}
}

func verdict(r sim.Result) string {
	if r.Wrong == "" {
		return "all invariants held"
	}
	return "BROKEN " + r.Wrong
}

// play runs the seeds, some at a time; theme leaves out those of another.
func play(from uint64, seeds, cores int, keep bool, theme string) (broken bool) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	began := time.Now()
	var next, bad atomic.Int64
	var mu sync.Mutex
	var sum sim.Stats
	var played int
	var wg sync.WaitGroup
	for range cores {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for ctx.Err() == nil && (keep || bad.Load() == 0) {
				i := next.Add(1) - 1
				if i >= int64(seeds) {
					return
				}
				if theme != "" && !strings.Contains(sim.Theme(from+uint64(i)), theme) {
					continue
				}
				r := sim.Run(sim.Options{Seed: from + uint64(i)})
				mu.Lock()
				played++
				sum.Add(r.Stats)
				if r.Wrong != "" {
					bad.Add(1)
					fmt.Printf("seed %d broke %q: %s\n", r.Seed, r.Broken, r.Wrong)
				}
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	took := time.Since(began)
	fmt.Printf("%d seeds from %d in %s (%.0f a second): %d broken\n", played, from, took.Round(time.Millisecond), float64(played)/took.Seconds(), bad.Load())
	fmt.Printf("  %s\n", sum)
	if bad.Load() > 0 {
		fmt.Println("  to see one: go run ./engine/sim/run -trace SEED")
	}
	return bad.Load() > 0
}
