package pool

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
)

// links are links in name only.
type links struct {
	mu      sync.Mutex
	open    int
	cuts    []string
	changed chan struct{}
}

func (l *links) Cut(reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cuts, l.open = append(l.cuts, reason), 0
}

func (l *links) Drain(string) (int, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open, l.changed
}

func (l *links) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	close(l.changed)
	l.changed = make(chan struct{})
}

func newGate() (*Gate, *links) {
	g, l := NewGate(time.Now), &links{changed: make(chan struct{})}
	g.Attach(l)
	return g, l
}

func node(id cluster.NodeID) cluster.Node { return cluster.Node{ID: id, Host: string(id), Port: 5432} }

func TestTheGateBeginsClosed(t *testing.T) {
	g, _ := newGate()
	if s := g.Status(); s.State != "closed" || s.Term != 0 || s.Reason == "" {
		t.Errorf("%+v", s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := g.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v", err)
	}
}

func TestTermsOnlyGrow(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		what    string
		term    cluster.Term
		node    cluster.NodeID
		refused bool
	}{
		{"the first", 3, "a", false},
		{"the same again", 3, "a", false},
		{"the term of another", 3, "b", true},
		{"a lower term", 2, "a", true},
		{"a higher term", 4, "b", false},
		{"back, with a higher term", 5, "a", false},
	} {
		t.Run(c.what, func(t *testing.T) {
			g, _ := newGate()
			for term, id := range map[cluster.Term]cluster.NodeID{3: "a"} {
				if err := g.Open(ctx, term, node(id)); err != nil {
					t.Fatal(err)
				}
			}
			if c.term == 5 {
				if err := g.Open(ctx, 4, node("b")); err != nil {
					t.Fatal(err)
				}
			}
			err := g.Open(ctx, c.term, node(c.node))
			if errors.Is(err, execute.ErrRefused) != c.refused || !c.refused && err != nil {
				t.Errorf("Open: %v", err)
			}
			target, open := g.Target()
			if c.refused && (target.Term != 3 || target.Node.ID != "a") || !open {
				t.Errorf("the gate leads to %v with term %d, open %v", target.Node.ID, target.Term, open)
			}
		})
	}
}

func TestALowerTermIsRefusedAfterClosing(t *testing.T) {
	g, _ := newGate()
	ctx := context.Background()
	if err := g.Open(ctx, 3, node("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Close(ctx, "lost", true); err != nil {
		t.Fatal(err)
	}
	if err := g.Open(ctx, 2, node("a")); !errors.Is(err, execute.ErrRefused) {
		t.Errorf("Open: %v", err)
	}
	if _, open := g.Target(); open {
		t.Error("the gate is open")
	}
}

func TestEachOpeningIsAnEpochOfItsOwn(t *testing.T) {
	g, _ := newGate()
	ctx := context.Background()
	if err := g.Open(ctx, 1, node("a")); err != nil {
		t.Fatal(err)
	}
	first, _ := g.Target()
	if _, err := g.Close(ctx, "rehearsal", true); err != nil {
		t.Fatal(err)
	}
	if g.Current(first.Epoch) {
		t.Error("the epoch of a closed gate is current")
	}
	if err := g.Open(ctx, 1, node("a")); err != nil {
		t.Fatal(err)
	}
	if second, _ := g.Target(); second.Epoch == first.Epoch || g.Current(first.Epoch) {
		t.Error("two openings share an epoch")
	}
}

func TestCloseWithoutCutWaitsForTransactions(t *testing.T) {
	g, l := newGate()
	ctx := context.Background()
	if err := g.Open(ctx, 1, node("a")); err != nil {
		t.Fatal(err)
	}
	l.open = 2
	over, cancel := context.WithCancel(ctx)
	cancel()
	if open, err := g.Close(over, "switchover", false); open != 2 || err != nil {
		t.Errorf("at the deadline: %d open, %v", open, err)
	}
	closed := make(chan int, 1)
	go func() {
		open, _ := g.Close(ctx, "switchover", false)
		closed <- open
	}()
	l.end()
	l.end()
	if open := <-closed; open != 0 {
		t.Errorf("%d are open after all have ended", open)
	}
	if len(l.cuts) != 0 {
		t.Errorf("cut: %v", l.cuts)
	}
}

func TestAClosedGateCanBeCut(t *testing.T) {
	g, l := newGate()
	ctx, cancel := context.WithCancel(context.Background())
	if err := g.Open(ctx, 1, node("a")); err != nil {
		t.Fatal(err)
	}
	l.open = 1
	cancel()
	if open, _ := g.Close(ctx, "switchover", false); open != 1 {
		t.Errorf("%d open", open)
	}
	if open, _ := g.Close(ctx, "it took too long", true); open != 0 || len(l.cuts) != 1 {
		t.Errorf("%d open, cuts %v", open, l.cuts)
	}
}

func TestOpeningToAnotherNodeCutsWhatIsLeft(t *testing.T) {
	g, l := newGate()
	ctx := context.Background()
	for term, id := range []cluster.NodeID{"a", "a", "b"} {
		if err := g.Open(ctx, cluster.Term(term+1), node(id)); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.cuts) != 2 { // a new term is a new promise, whoever holds it
		t.Errorf("cuts: %v", l.cuts)
	}
}

func TestWaitersGoOnWhenTheGateOpens(t *testing.T) {
	g, _ := newGate()
	ctx := context.Background()
	const n = 20
	done := make(chan cluster.NodeID, n)
	for range n {
		unhold := g.Hold()
		go func() {
			defer unhold()
			target, err := g.Wait(ctx)
			if err != nil {
				t.Error(err)
			}
			done <- target.Node.ID
		}()
	}
	if s := g.Status(); s.Held != n {
		t.Errorf("%d are held", s.Held)
	}
	if err := g.Open(ctx, 1, node("a")); err != nil {
		t.Fatal(err)
	}
	for range n {
		if id := <-done; id != "a" {
			t.Errorf("led to %q", id)
		}
	}
}
