package choose

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// Tick numbers what happens, so that it is known what came before what. Zero
// comes before everything.
type Tick uint64

// Node is what is configured of a node.
type Node struct {
	Name cluster.NodeID
	// Weight is its share of the reads; 0 for none where another node can.
	Weight int
	// Reads: false takes the node out, were it the only one but the primary.
	Reads bool
}

// Limits are how far behind a standby may be that is read from. Zero is no
// limit.
type Limits struct {
	Bytes uint64        // of WAL not replayed, when it was last looked at
	Age   time.Duration // how old at most what it shows may be
}

// mostSamples is how many positions of the primary are remembered. A standby
// that has replayed none of them is behind by more than their time.
const mostSamples = 1024

// sample is a position of the primary.
type sample struct {
	tick Tick
	at   time.Time
	lsn  cluster.LSN
}

// standing is what is known of a node.
type standing struct {
	Node
	floor    Tick // nothing that was asked for up to here counts
	observed Tick // when the look began that the rest is from; 0 for never
	timeline cluster.Timeline
	replay   cluster.LSN
}

// Monitor gathers what the pollers find and publishes it as a View. It is safe
// for concurrent use; readers of views never wait for it.
type Monitor struct {
	tick atomic.Uint64
	view atomic.Pointer[View]

	mu       sync.Mutex
	limits   Limits
	nodes    []standing
	primary  cluster.NodeID // "" for none
	since    Tick           // when it became that
	timeline cluster.Timeline
	samples  []sample // of the primary, on its timeline, oldest first
}

// NewMonitor knows of no node.
func NewMonitor() *Monitor {
	m := &Monitor{}
	m.view.Store(&View{})
	return m
}

// Now is the tick of this moment: what is asked for from here on carries a
// greater one.
func (m *Monitor) Now() Tick { return Tick(m.tick.Load()) }

// Begin is called before a node is asked, and gives what its answer is to be
// reported with.
func (m *Monitor) Begin() Tick { return Tick(m.tick.Add(1)) }

// View is what is known now.
func (m *Monitor) View() *View { return m.view.Load() }

// Configure sets nodes and limits. What is known of a node that stays is kept.
func (m *Monitor) Configure(nodes []Node, limits Limits) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := make([]standing, len(nodes))
	for i, n := range nodes {
		if old := m.find(n.Name); old != nil {
			next[i] = *old
		}
		next[i].Node = n
	}
	m.nodes, m.limits = next, limits
	m.publish()
}

// SetPrimary says which node takes writes, "" for none. Where that changes,
// nothing that is known of any node counts any more: positions of two
// histories cannot be compared.
func (m *Monitor) SetPrimary(name cluster.NodeID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.primary == name {
		return
	}
	m.primary, m.since, m.samples, m.timeline = name, m.Now(), nil, 0
	for i := range m.nodes {
		m.nodes[i].forget(m.since)
	}
	m.publish()
}

// Sampled reports the primary's insert position (pg_current_wal_insert_lsn),
// asked for at tick and time. The answer of a node that is not the primary, or
// was not when it was asked, does not count.
func (m *Monitor) Sampled(tick Tick, at time.Time, node cluster.NodeID, timeline cluster.Timeline, insert cluster.LSN) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if node != m.primary || tick <= m.since || timeline < m.timeline {
		return
	}
	insert = lastRecord(insert)
	if timeline > m.timeline {
		m.samples, m.timeline = nil, timeline
	}
	if n := len(m.samples); n > 0 {
		last := &m.samples[n-1]
		switch {
		case tick <= last.tick:
			return // overtaken on its way
		case insert <= last.lsn:
			// Who has replayed the one has replayed the other.
			last.tick, last.at = tick, at
			m.publish()
			return
		}
	}
	if len(m.samples) == mostSamples {
		m.samples = append(m.samples[:0], m.samples[1:]...)
	}
	m.samples = append(m.samples, sample{tick, at, insert})
	m.publish()
}

// lastRecord takes the header of a page from a position that lies right behind
// one: after a record that filled its page, the primary tells the place of the
// next one, and a standby the end of the last. Without this an idle pair would
// never be level. The page is PostgreSQL's by default, 8 KiB, and its header 24
// bytes, or 40 at the start of a segment.
func lastRecord(insert cluster.LSN) cluster.LSN {
	if in := insert % 8192; in == 24 || in == 40 {
		return insert - in
	}
	return insert
}

// Replayed reports what a standby has replayed (pg_last_wal_replay_lsn), asked
// for at tick. Only a standby that streams in the recorded history is
// reported; of another, Lost is.
func (m *Monitor) Replayed(tick Tick, node cluster.NodeID, timeline cluster.Timeline, replay cluster.LSN) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.find(node)
	if s == nil || tick <= s.floor || tick <= s.observed {
		return
	}
	s.observed, s.timeline, s.replay = tick, timeline, replay
	m.publish()
}

// Lost says that a node does not answer, is no standby in the recorded
// history, or has broken a connection: what was asked of it before now counts
// no more.
func (m *Monitor) Lost(node cluster.NodeID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.find(node); s != nil {
		s.forget(m.Now())
		m.publish()
	}
}

func (s *standing) forget(now Tick) { *s = standing{Node: s.Node, floor: now} }

func (m *Monitor) find(name cluster.NodeID) *standing {
	for i := range m.nodes {
		if m.nodes[i].Name == name {
			return &m.nodes[i]
		}
	}
	return nil
}

// publish makes the view of what is known. The caller holds the lock.
func (m *Monitor) publish() {
	v := &View{limits: m.limits}
	for _, s := range m.nodes {
		if s.Name == m.primary {
			v.primary = s.Name
			if s.Reads {
				v.weight = uint64(max(0, s.Weight))
			}
			continue
		}
		c := candidate{name: s.Name, weight: uint64(max(0, s.Weight)), reads: s.Reads, observed: s.observed}
		if s.observed > 0 && s.timeline == m.timeline {
			c.caught, c.caughtAt = m.caught(s.replay)
			if n := len(m.samples); n > 0 && m.samples[n-1].lsn > s.replay {
				c.behind = uint64(m.samples[n-1].lsn - s.replay)
			}
		}
		v.standbys = append(v.standbys, c)
	}
	m.view.Store(v)
}

// caught is the newest sample that lies at or before a position.
func (m *Monitor) caught(replay cluster.LSN) (Tick, time.Time) {
	for i := len(m.samples) - 1; i >= 0; i-- {
		if s := m.samples[i]; s.lsn <= replay {
			return s.tick, s.at
		}
	}
	return 0, time.Time{}
}
