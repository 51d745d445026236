package decide

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// Damped is what flapping asks for at the moment.
type Damped struct {
	Failovers int // in the window
	Losses    int // of any standby, in the window
	// Retries is how many failed checks make a loss of the primary, and Usual
	// how many without damping.
	Retries, Usual int
	// Stretch is how long a standby must stream without interruption before
	// commits wait for it again, where it must.
	Stretch map[cluster.NodeID]time.Duration
}

// DampingOf is what the failovers and losses that are remembered ask for.
func DampingOf(p cluster.Policy, m Memory) Damped {
	d := Damped{Failovers: len(m.Failovers), Usual: max(1, p.CheckRetries), Retries: retriesNeeded(p, len(m.Failovers)), Stretch: map[cluster.NodeID]time.Duration{}}
	for id, l := range m.Losses {
		d.Losses += len(l)
		if s := stretchNeeded(p, len(l)); s > 0 {
			d.Stretch[id] = s
		}
	}
	return d
}

// Sentence says what is asked for beyond the usual; "" where nothing is.
func (d Damped) Sentence() string {
	var parts []string
	if d.Retries > d.Usual {
		parts = append(parts, fmt.Sprintf("a silent primary is lost after %d failed checks instead of %d (proof acts at once)", d.Retries, d.Usual))
	}
	var ids []cluster.NodeID
	for id := range d.Stretch {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		parts = append(parts, fmt.Sprintf("%s must stream for %s before commits wait for it again", id, d.Stretch[id]))
	}
	return strings.Join(parts, "; ")
}

// AsyncSince is since when an async by hand counts: when it was recorded, or
// first seen, whichever is earlier; a recorded moment that lies in the future,
// because the clock was set back, does not count.
func AsyncSince(r cluster.Record, m Memory, now time.Time) time.Time {
	if r.WantSince.IsZero() || r.WantSince.After(now) || !m.AsyncSince.IsZero() && m.AsyncSince.Before(r.WantSince) {
		return m.AsyncSince
	}
	return r.WantSince
}
