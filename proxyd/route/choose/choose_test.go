package choose

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// pair is a primary and two standbys that are level at 1000.
func pair() *Monitor {
	m := NewMonitor()
	m.Configure([]Node{{"p", 1, true}, {"s1", 1, true}, {"s2", 2, true}}, Limits{})
	m.SetPrimary("p")
	m.Sampled(m.Begin(), start, "p", 1, 1000)
	m.Replayed(m.Begin(), "s1", 1, 1000)
	m.Replayed(m.Begin(), "s2", 1, 1000)
	return m
}

// shares picks many times, the random bits spread evenly.
func shares(m *Monitor, r Read) map[cluster.NodeID]int {
	out := map[cluster.NodeID]int{}
	v := m.View()
	for i := range 400 {
		r.Random = uint64(i) * (1 << 63 / 200)
		out[v.Pick(r).Node]++
	}
	return out
}

func TestShares(t *testing.T) {
	now := Read{Now: start}
	for _, story := range []struct {
		name  string
		do    func(m *Monitor)
		read  Read
		want  map[cluster.NodeID]int
		cause Cause
	}{
		{"by weight", func(*Monitor) {}, now, map[cluster.NodeID]int{"p": 100, "s1": 100, "s2": 200}, ByWeight},
		{"a primary of weight 0", func(m *Monitor) { m.Configure([]Node{{"p", 0, true}, {"s1", 1, true}, {"s2", 1, true}}, Limits{}) },
			now, map[cluster.NodeID]int{"s1": 200, "s2": 200}, ByWeight},
		{"a standby taken out", func(m *Monitor) { m.Configure([]Node{{"p", 1, true}, {"s1", 1, true}, {"s2", 2, false}}, Limits{}) },
			now, map[cluster.NodeID]int{"p": 200, "s1": 200}, ByWeight},
		{"both taken out", func(m *Monitor) { m.Configure([]Node{{"p", 1, true}, {"s1", 1, false}, {"s2", 2, false}}, Limits{}) },
			now, map[cluster.NodeID]int{"p": 400}, OptedOut},
		{"a primary taken out of reads", func(m *Monitor) {
			m.Configure([]Node{{"p", 1, false}, {"s1", 1, true}, {"s2", 1, true}}, Limits{})
		}, now, map[cluster.NodeID]int{"s1": 200, "s2": 200}, ByWeight},
		{"one is lost", func(m *Monitor) { m.Lost("s2") }, now, map[cluster.NodeID]int{"p": 200, "s1": 200}, ByWeight},
		{"both are lost", func(m *Monitor) { m.Lost("s1"); m.Lost("s2") }, now, map[cluster.NodeID]int{"p": 400}, NoStandby},
		{"it failed on one", func(*Monitor) {}, Read{Now: start, Not: []cluster.NodeID{"s2"}}, map[cluster.NodeID]int{"p": 200, "s1": 200}, ByWeight},
		{"it failed on both", func(*Monitor) {}, Read{Now: start, Not: []cluster.NodeID{"s2", "s1"}}, map[cluster.NodeID]int{"p": 400}, Failed},
		{"the primary is lost", func(m *Monitor) { m.SetPrimary("") }, now, map[cluster.NodeID]int{"": 400}, NoStandby},
		{"one is too far behind", func(m *Monitor) {
			m.Configure([]Node{{"p", 1, true}, {"s1", 1, true}, {"s2", 1, true}}, Limits{Bytes: 50})
			m.Sampled(m.Begin(), start, "p", 1, 1100)
			m.Replayed(m.Begin(), "s1", 1, 1050)
			m.Replayed(m.Begin(), "s2", 1, 1049)
		}, now, map[cluster.NodeID]int{"p": 200, "s1": 200}, ByWeight},
		{"what they show is too old", func(m *Monitor) {
			m.Configure([]Node{{"p", 1, true}, {"s1", 1, true}, {"s2", 1, true}}, Limits{Age: time.Second})
		}, Read{Now: start.Add(time.Second + 1)}, map[cluster.NodeID]int{"p": 400}, TooFar},
		{"an idle pair is never old while it is watched", func(m *Monitor) {
			m.Configure([]Node{{"p", 1, true}, {"s1", 1, true}, {"s2", 2, true}}, Limits{Age: time.Second})
			m.Sampled(m.Begin(), start.Add(time.Hour), "p", 1, 1000)
		}, Read{Now: start.Add(time.Hour + time.Second)}, map[cluster.NodeID]int{"p": 100, "s1": 100, "s2": 200}, ByWeight},
		{"another timeline is another history", func(m *Monitor) { m.Replayed(m.Begin(), "s2", 2, 5000) }, now, map[cluster.NodeID]int{"p": 200, "s1": 200}, ByWeight},
		{"a failover forgets all", func(m *Monitor) { m.SetPrimary("s1") }, now, map[cluster.NodeID]int{"s1": 400}, NoStandby},
		{"a late answer of the old primary", func(m *Monitor) {
			late := m.Begin()
			m.SetPrimary("s1")
			m.SetPrimary("p")
			m.Sampled(late, start, "p", 1, 900)
			m.Replayed(m.Begin(), "s2", 1, 1000)
		}, now, map[cluster.NodeID]int{"p": 400}, TooFar},
		{"an answer that was asked for before the node was lost", func(m *Monitor) {
			late := m.Begin()
			m.Lost("s2")
			m.Replayed(late, "s2", 1, 1000)
		}, now, map[cluster.NodeID]int{"p": 200, "s1": 200}, ByWeight},
		{"a page that was filled to its end", func(m *Monitor) {
			m.Sampled(m.Begin(), start, "p", 1, 8192+24)
			m.Configure([]Node{{"p", 0, true}, {"s1", 1, true}, {"s2", 1, true}}, Limits{Bytes: 1})
			m.Replayed(m.Begin(), "s1", 1, 8192)
		}, now, map[cluster.NodeID]int{"s1": 400}, ByWeight},
	} {
		t.Run(story.name, func(t *testing.T) {
			m := pair()
			story.do(m)
			got := shares(m, story.read)
			for _, n := range []cluster.NodeID{"", "p", "s1", "s2"} {
				if d := got[n] - story.want[n]; d < -2 || d > 2 {
					t.Errorf("%q has %d of 400 reads, want %d", n, got[n], story.want[n])
				}
			}
			if c := m.View().Pick(story.read); c.Cause != story.cause {
				t.Errorf("because %s, want %s", c.Cause, story.cause)
			}
		})
	}
}

func TestAClientReadsItsOwnWrites(t *testing.T) {
	m := pair()
	m.Configure([]Node{{"p", 0, true}, {"s1", 1, true}}, Limits{})
	expect := func(when string, wrote Tick, node cluster.NodeID) {
		t.Helper()
		if c := m.View().Pick(Read{Wrote: wrote, Now: start}); c.Node != node {
			t.Errorf("%s: %s (%s), want %s", when, c.Node, c.Cause, node)
		}
	}
	before := m.Begin() // the monitor asks, the client commits, the monitor is answered
	wrote := m.Now()
	m.Sampled(before, start, "p", 1, 1500)
	m.Replayed(m.Begin(), "s1", 1, 1500)
	expect("the sample was asked for before the commit", wrote, "p")
	expect("a client that has not written", 0, "s1")
	m.Sampled(m.Begin(), start, "p", 1, 1600)
	expect("a sample from after it", wrote, "p")
	m.Replayed(m.Begin(), "s1", 1, 1599)
	expect("replayed up to just before that", wrote, "p")
	m.Replayed(m.Begin(), "s1", 1, 1600)
	expect("replayed", wrote, "s1")
	m.Sampled(m.Begin(), start, "p", 1, 1600)
	expect("an idle primary", m.Now()-1, "s1")
	m.Lost("s1")
	expect("the standby was lost", wrote, "p")
}

func TestAConnectionMustBeOlderThanTheLook(t *testing.T) {
	m := pair()
	m.Configure([]Node{{"p", 0, true}, {"s1", 1, true}}, Limits{})
	young := m.Now()
	if m.View().Pick(Read{Now: start}).Holds(young) {
		t.Error("a connection opened after the look is trusted")
	}
	m.Replayed(m.Begin(), "s1", 1, 1000)
	if !m.View().Pick(Read{Now: start}).Holds(young) {
		t.Error("a connection opened before the look is not trusted")
	}
	if !(Choice{Node: "p"}).Holds(young) {
		t.Error("a connection to the primary is not trusted")
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	v := pair().View()
	if n := testing.AllocsPerRun(100, func() { v.Pick(Read{Now: start, Random: 7}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestPickAgainstTheRules compares it with the rules written down plainly.
func TestPickAgainstTheRules(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		v := &View{primary: "p", weight: rng.Uint64N(3), limits: Limits{Bytes: rng.Uint64N(3), Age: time.Duration(rng.IntN(3))}}
		for _, name := range []cluster.NodeID{"a", "b", "c"} {
			v.standbys = append(v.standbys, candidate{name: name, weight: rng.Uint64N(3), reads: rng.IntN(4) > 0,
				observed: Tick(rng.IntN(3)), caught: Tick(rng.IntN(4)), caughtAt: start.Add(time.Duration(rng.IntN(4))), behind: rng.Uint64N(4)})
		}
		r := Read{Wrote: Tick(rng.IntN(4)), Now: start.Add(time.Duration(rng.IntN(6))), Random: rng.Uint64()}
		if rng.IntN(3) == 0 {
			r.Not = []cluster.NodeID{"b"}
		}
		allowed := map[cluster.NodeID]bool{}
		for _, c := range v.standbys {
			near := (v.limits.Bytes == 0 || c.behind <= v.limits.Bytes) && (v.limits.Age == 0 || r.Now.Sub(c.caughtAt) <= v.limits.Age)
			if c.reads && c.observed > 0 && c.caught > 0 && c.caught > r.Wrote && near && (len(r.Not) == 0 || c.name != "b") {
				allowed[c.name] = c.weight > 0
			}
		}
		got := v.Pick(r)
		weighed := false
		for _, heavy := range allowed {
			weighed = weighed || heavy
		}
		switch {
		case got.Standby && !allowed[got.Node]:
			t.Fatalf("%+v of %+v: %+v", r, v, got)
		case !got.Standby && got.Node != "p":
			t.Fatalf("%+v of %+v: %+v", r, v, got)
		case !got.Standby && weighed && v.weight == 0:
			t.Fatalf("the primary has no weight and a standby could: %+v of %+v: %+v", r, v, got)
		case len(allowed) == 0 && got.Cause == ByWeight:
			t.Fatalf("no standby could, and the cause is %s", got.Cause)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	m := pair()
	b.ReportAllocs()
	for b.Loop() {
		m.View().Pick(Read{Now: start, Random: 1 << 63})
	}
}
