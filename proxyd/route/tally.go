package route

import "sync/atomic"

// reasons are the labels that a Decision can have.
var reasons = [...]string{
	"standby", "primary_by_weight", "text", "pin", "refusal", "own_writes", "lag", "failed", "no_standby_allowed", "no_standby",
}

// Labels are what Decision.Label may be of a decision that was made.
func Labels() []string { return reasons[:] }

// Tally counts decisions by their labels. It is safe for concurrent use.
type Tally struct {
	counts [len(reasons)]atomic.Uint64
}

// Add counts one.
func (t *Tally) Add(d Decision) {
	label := d.Label()
	for i, r := range reasons {
		if r == label {
			t.counts[i].Add(1)
			return
		}
	}
}

// Counts gives every label's count.
func (t *Tally) Counts() map[string]uint64 {
	out := make(map[string]uint64, len(reasons))
	for i, r := range reasons {
		out[r] = t.counts[i].Load()
	}
	return out
}
