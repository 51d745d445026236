package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// Options are what a run is asked for.
type Options struct {
	Seed uint64
	// Trace is told what happens, line by line; nil for nobody.
	Trace func(string)
	// CrashAt kills the daemon at its n-th point between two effects, and at
	// no other; 0 leaves it to the seed.
	CrashAt int
}

// Result is what became of a seed.
type Result struct {
	Seed  uint64
	Hash  uint64 // of everything that happened
	Wrong string // the first invariant that broke, and how; "" for none
	// Broken is that invariant.
	Broken Invariant
	Stats  Stats
}

// Limits of a run, in virtual time.
const (
	settleIn = 30 * time.Second // until the fresh cluster is in sync
	healIn   = 4 * time.Minute  // from the healing until all is well again
)

// Run plays one seed.
func Run(o Options) Result {
	rng := rand.New(rand.NewPCG(o.Seed, 0xfa017))
	policy, odds := drawPolicy(rng), drawChances(rng)
	kinds := drawFaults(rng)
	if t := themed(o.Seed); t != nil {
		kinds = t.draw(rng, &policy, &odds)
	}
	w := newWorld(o.Seed, policy, odds)
	w.trace, w.crashAt = o.Trace, o.CrashAt
	quiet := w.chances
	w.lostRequest, w.lostAnswer, w.crash = 0, 0, 0
	for i := range 3 + rng.IntN(3) {
		c := &client{w: w, direct: i >= 3}
		w.clients = append(w.clients, c)
		c.run()
	}
	w.boot()
	w.tracef("seed %d: %d nodes, %s %d, %+v", o.Seed, len(w.nodes), w.policy.SyncMethod, w.policy.SyncK, quiet)
	w.until(settleIn, "it does not come up")
	w.chances = quiet
	if w.lagging {
		w.nodes[1+rng.IntN(len(w.nodes)-1)].lag = w.between(10*time.Millisecond, 100*time.Millisecond)
	}
	end := w.now + time.Duration(8+rng.IntN(14))*time.Second
	w.trouble(kinds, time.Duration(400+rng.IntN(3600))*time.Millisecond, end)
	w.run(end, w.fine)
	if w.wrong == "" {
		w.heal()
		w.until(healIn, "")
	}
	if w.wrong == "" {
		w.checkEnd()
	}
	w.over()
	w.stats.Steps = w.steps
	return Result{Seed: o.Seed, Hash: w.hash, Wrong: w.wrong, Broken: w.broken, Stats: w.stats}
}

func (w *world) fine() bool { return w.wrong == "" }

// until runs until all is settled, at most so long; why is what a failure to
// settle means, "" when the caller looks itself.
func (w *world) until(limit time.Duration, why string) {
	end := w.now + limit
	calm := 0
	for w.now < end && w.wrong == "" {
		w.run(w.now+250*time.Millisecond, w.fine)
		if w.unsettled() == "" {
			if calm++; calm >= 4 {
				return
			}
		} else {
			calm = 0
		}
	}
	if why != "" && w.wrong == "" {
		w.fail(ComesUp, "%s: %s", why, w.unsettled())
	}
}

// over ends what still waits.
func (w *world) over() {
	w.daemon = nil
	w.killTasks()
}

func drawPolicy(rng *rand.Rand) cluster.Policy {
	n := []int{2, 2, 2, 2, 3, 3, 3, 4, 5}[rng.IntN(9)]
	p := cluster.Policy{Cluster: "sim", Failover: cluster.Automatic, Rejoin: cluster.Automatic, Degrade: cluster.DegradeAsync,
		BrokenPath: cluster.PathPromote, DampingWindow: 10 * time.Minute,
		SwapMethod: cluster.SwapAlterSystem, Slots: true, SyncK: 1, SyncMethod: "FIRST", CheckPeriod: 500 * time.Millisecond, CheckTimeout: time.Second, CheckRetries: 2,
		HoldTimeout: 30 * time.Second, DrainLimit: 2 * time.Second}
	for i := range n {
		p.Nodes = append(p.Nodes, nodeSpec(rng, i+1))
	}
	if n > 2 {
		p.SyncK = 1 + rng.IntN(min(n-1, 2))
		if rng.IntN(2) == 0 {
			p.SyncMethod = "ANY"
		}
	}
	if rng.IntN(4) == 0 {
		p.SwapMethod = cluster.SwapFiles
	}
	if rng.IntN(10) == 0 {
		p.Degrade = cluster.DegradeNever
	}
	if rng.IntN(4) == 0 {
		p.BrokenPath = cluster.PathHold
	}
	if rng.IntN(4) == 0 {
		p.DampingWindow = 0
	}
	if rng.IntN(4) == 0 {
		p.AsyncLimit = 5 * time.Second
	}
	return p
}

func nodeSpec(rng *rand.Rand, i int) cluster.Node {
	return cluster.Node{ID: cluster.NodeID(fmt.Sprintf("pgsql%d", i)), Host: fmt.Sprintf("10.0.0.%d", i), Port: 5432, Weight: 1 + rng.IntN(3),
		FailoverAllowed: true, DataDirectory: "/data", ConfigDirectory: "/data"}
}

func drawChances(rng *rand.Rand) chances {
	some := func(p float64) float64 {
		if rng.IntN(2) == 0 {
			return 0
		}
		return p * rng.Float64()
	}
	c := chances{latency: time.Duration(200+rng.IntN(3000)) * time.Microsecond, lostRequest: some(0.08), lostAnswer: some(0.15), crash: some(0.04),
		slowReload: some(0.5), pace: 350 * time.Millisecond, walTimeout: time.Duration(3+rng.IntN(15)) * time.Second}
	if rng.IntN(3) == 0 {
		c.keep = 20 + rng.IntN(200)
	}
	return c
}

// drawFaults picks the kinds of this run: few kinds at a time find more than
// all of them at once.
func drawFaults(rng *rand.Rand) []fault {
	picked := make([]fault, 0, 8)
	for _, i := range rng.Perm(len(faults))[:2+rng.IntN(6)] {
		picked = append(picked, faults[i])
	}
	return picked
}
