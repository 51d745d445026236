package sim

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// theme is a run with faults that belong together. What goes wrong only where
// two or three particular things meet is rarely found by drawing from all.
type theme struct {
	name  string
	kinds []string // of the faults, by name
	bend  func(rng *rand.Rand, p *cluster.Policy, c *chances)
}

// themed is a seed's theme; nil for one that draws from all faults, which is
// every other one.
func themed(seed uint64) *theme {
	if seed%2 != 0 {
		return nil
	}
	return &themes[seed/2%uint64(len(themes))]
}

// Theme names what a seed is about; "" where it is about anything.
func Theme(seed uint64) string {
	if t := themed(seed); t != nil {
		return t.name
	}
	return ""
}

var themes = []theme{
	{"a slow network, and nothing wrong", []string{"slow", "slow", "switchover", "pause replay"}, func(_ *rand.Rand, _ *cluster.Policy, c *chances) {
		c.calm, c.lostRequest, c.lostAnswer, c.crash = true, 0, 0, 0
	}},
	{"who confirms changes", []string{"slow", "cut nodes", "freeze", "kill and start", "mode asked", "names by hand", "half open"}, func(rng *rand.Rand, p *cluster.Policy, c *chances) {
		manyConfirm(rng, p)
		p.Degrade = cluster.DegradeAsync
		c.slowReload = max(c.slowReload, 0.2)
	}},
	{"standbys come and go", []string{"standby away", "standby away", "standby slow"}, func(rng *rand.Rand, p *cluster.Policy, c *chances) {
		manyConfirm(rng, p)
		p.DampingWindow = 0
		p.Degrade = cluster.DegradeAsync
		if rng.IntN(4) == 0 {
			p.Degrade, p.SyncK = cluster.DegradeNever, 1
		}
		c.lostRequest, c.crash, c.slowReload = 0, 0, 0
		c.pace, c.lagging = 150*time.Millisecond, rng.IntN(3) > 0
	}},
	{"who holds the most", []string{"out of sight", "cut daemon", "isolate", "kill", "freeze", "cut nodes", "standby slow", "standby slow", "standby away"}, func(rng *rand.Rand, p *cluster.Policy, c *chances) {
		severalNodes(rng, p)
		p.SyncK, p.DampingWindow, p.BrokenPath = 1, 0, cluster.PathPromote
		if rng.IntN(2) == 0 {
			c.replaying = 150 * time.Millisecond
		}
	}},
	{"behind our back", []string{"promote by hand", "start by hand", "names by hand", "follow by hand", "kill", "kill and start"}, func(*rand.Rand, *cluster.Policy, *chances) {}},
	{"coming back", []string{"kill and start", "stop fast", "WAL gone", "disk full", "directory lost", "start by hand", "daemon killed", "rejoin asked", "slot gone"}, func(rng *rand.Rand, p *cluster.Policy, c *chances) {
		c.keep = 20 + rng.IntN(100)
		p.DampingWindow = 0
		if rng.IntN(3) == 0 {
			p.Degrade = cluster.DegradeNever
		}
	}},
	{"broken off", []string{"store fails", "daemon killed", "switchover", "promote asked", "kill", "kill and start", "cut daemon"}, func(rng *rand.Rand, _ *cluster.Policy, c *chances) {
		c.crash, c.lostAnswer = 0.01+0.03*rng.Float64(), 0.15*rng.Float64()
	}},
}

// draw gives a theme its nodes and chances, and its faults.
func (t theme) draw(rng *rand.Rand, p *cluster.Policy, c *chances) (kinds []fault) {
	t.bend(rng, p, c)
	for _, name := range t.kinds {
		if i := slices.IndexFunc(faults, func(f fault) bool { return f.name == name }); i >= 0 {
			kinds = append(kinds, faults[i])
		}
	}
	return kinds
}

// severalNodes makes it three at the least.
func severalNodes(rng *rand.Rand, p *cluster.Policy) {
	for len(p.Nodes) < 3 {
		p.Nodes = append(p.Nodes, nodeSpec(rng, len(p.Nodes)+1))
	}
}

// manyConfirm has two standbys confirm, any two of them mostly.
func manyConfirm(rng *rand.Rand, p *cluster.Policy) {
	severalNodes(rng, p)
	p.SyncK, p.SyncMethod, p.SwapMethod = 2, "ANY", cluster.SwapAlterSystem
	if rng.IntN(3) == 0 {
		p.SyncMethod = "FIRST"
	}
}
