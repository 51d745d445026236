package admin

import (
	"context"
	"sync"
	"time"
)

// statsPeriod is PgBouncer's stats_period: averages are of one to two of it.
const statsPeriod = time.Minute

// reading is the totals at one moment.
type reading struct {
	at     time.Time
	totals map[string]Totals
}

// history keeps the last two readings.
type history struct {
	mu           sync.Mutex
	older, newer reading
}

// take keeps a reading.
func (h *history) take(at time.Time, totals map[string]Totals) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.newer.at.IsZero() {
		h.newer = reading{at: at, totals: totals}
	}
	h.older, h.newer = h.newer, reading{at: at, totals: totals}
}

// before is the reading that averages are made against, and how long ago it
// was.
func (h *history) before(now time.Time) (map[string]Totals, time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.older.at.IsZero() {
		return nil, 0
	}
	return h.older.totals, now.Sub(h.older.at)
}

// Run takes the readings that averages are made from, until ctx is done.
func (c *Console) Run(ctx context.Context) {
	tick := time.NewTicker(statsPeriod)
	defer tick.Stop()
	for {
		v := c.opt.Plane.View()
		c.history.take(v.At, v.Totals)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// nodeWatch remembers since when a node has had its status, from when it was
// first looked at, as pgpool-II does from its start.
type nodeWatch struct {
	mu    sync.Mutex
	words map[string]string
	at    map[string]time.Time
}

func (w *nodeWatch) note(node, word string, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.words == nil {
		w.words, w.at = make(map[string]string), make(map[string]time.Time)
	}
	if was, known := w.words[node]; !known || was != word {
		w.words[node], w.at[node] = word, now
	}
}

func (w *nodeWatch) since(node string) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at[node]
}
