package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// told is what a client was told of its COMMIT.
type told int

const (
	toldCommitted told = iota
	toldAborted
	toldNothing // 08007, or the end of the connection
	toldKinds
)

func (w told) String() string {
	return [...]string{"committed", "not committed", "nothing"}[w]
}

// answer is what became of one transaction as far as its client was told.
type answer struct {
	told told
	sent time.Time // when the COMMIT left; none did when zero
	odd  error     // an error that is not the contract's
}

// outcome is an answer that is to be compared with what is there.
type outcome struct {
	told  told
	shape string
	kill  int
}

// truths are all COMMITs with what was told of them.
type truths struct {
	mu       sync.Mutex
	last     int64
	kill     int
	killed   time.Time // the kill of this shift; zero before
	all, new map[int64]outcome
	sum      [toldKinds]int
	inFlight map[string]*[toldKinds]int // COMMITs sent before a kill and answered after it, by shape
	odd      map[string]int
}

func newTruths() *truths {
	return &truths{all: map[int64]outcome{}, new: map[int64]outcome{}, inFlight: map[string]*[toldKinds]int{}, odd: map[string]int{}}
}

func (t *truths) next() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	return t.last
}

// shift begins the next one.
func (t *truths) shift() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kill, t.killed = t.kill+1, time.Time{}
}

// strike is the moment of the kill.
func (t *truths) strike() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.killed = time.Now()
}

func (t *truths) note(id int64, shape string, a answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.odd != nil {
		t.odd[shape+": "+a.odd.Error()]++
	}
	t.new[id] = outcome{a.told, shape, t.kill}
	t.sum[a.told]++
	if !a.sent.IsZero() && !t.killed.IsZero() && a.sent.Before(t.killed) {
		n := t.inFlight[shape]
		if n == nil {
			n = new([toldKinds]int)
			t.inFlight[shape] = n
		}
		n[a.told]++
	}
}

func (t *truths) strange(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.odd[err.Error()]++
}

// take gives what was noted since the last time.
func (t *truths) take() map[int64]outcome {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.new
	maps.Copy(t.all, was)
	t.new = map[int64]outcome{}
	return was
}

// lies compares what was told with what is there.
func lies(was map[int64]outcome, there map[int64]bool) (out []string) {
	for _, id := range slices.Sorted(maps.Keys(was)) {
		if o := was[id]; o.told != toldNothing && there[id] != (o.told == toldCommitted) {
			out = append(out, fmt.Sprintf("kill %d: %d (%s) was told as %s, and is there: %v", o.kill, id, o.shape, o.told, there[id]))
		}
	}
	return out
}

// brief is the sum over the COMMITs in flight at a kill.
func (t *truths) brief() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.flying()
	return fmt.Sprintf("of the COMMITs in flight %d told as committed, %d as not committed, %d not known", n[toldCommitted], n[toldAborted], n[toldNothing])
}

// flying sums up over the shapes. The lock is held.
func (t *truths) flying() (sum [toldKinds]int) {
	for _, n := range t.inFlight {
		for i := range n {
			sum[i] += n[i]
		}
	}
	return sum
}

func (t *truths) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "COMMITs in flight at a kill\ttold as committed\tas not committed\tnot known")
	line := func(what string, n *[toldKinds]int) {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\n", what, n[toldCommitted], n[toldAborted], n[toldNothing])
	}
	for _, name := range slices.Sorted(maps.Keys(t.inFlight)) {
		line(name, t.inFlight[name])
	}
	sum := t.flying()
	line("all of these", &sum)
	line("all transactions", &t.sum)
	_ = w.Flush() // a strings.Builder takes everything
	for _, e := range slices.Sorted(maps.Keys(t.odd)) {
		fmt.Fprintf(&b, "%d times: %s\n", t.odd[e], e)
	}
	return b.String()
}
