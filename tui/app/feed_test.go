package app

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/client"
	"github.com/pgtandem/pgtandem/tui/fixture"
)

// follower is a feed on a daemon behind a real socket.
type follower struct {
	t      *testing.T
	ctx    context.Context
	daemon *fixture.Daemon
	feed   *feed
	seqs   []uint64
	states int
	link   link
}

func follow(t *testing.T) *follower {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	d, err := fixture.Serve(socket, fixture.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := client.New(socket)
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{t: t, ctx: ctx, daemon: d, feed: newFeed(c, time.Now)}
	done := make(chan struct{})
	go func() { defer close(done); f.feed.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; c.Close(); d.Close() })
	return f
}

// until takes news until enough.
func (f *follower) until(what string, enough func() bool) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.ctx, 30*time.Second)
	defer cancel()
	for !enough() {
		n, ok := f.feed.wait(ctx)().(feedMsg)
		if !ok {
			f.t.Fatalf("never saw %s: events %v, link %+v", what, f.seqs, f.link)
		}
		for _, e := range n.events {
			f.seqs = append(f.seqs, e.Seq)
		}
		if n.state != nil {
			f.states++
		}
		if n.link != nil {
			f.link = *n.link
		}
	}
}

func (f *follower) last() uint64 {
	if len(f.seqs) == 0 {
		return 0
	}
	return f.seqs[len(f.seqs)-1]
}

// unbroken says that every event was seen once and in order.
func (f *follower) unbroken() {
	f.t.Helper()
	for i := 1; i < len(f.seqs); i++ {
		if f.seqs[i] != f.seqs[i-1]+1 {
			f.t.Fatalf("event %d came after %d: %v", f.seqs[i], f.seqs[i-1], f.seqs)
		}
	}
}

func TestTheFeedBeginsWithTheLastEventsAndTheState(t *testing.T) {
	f := follow(t)
	f.until("the state", func() bool { return f.states > 0 && f.last() == 48 })
	if f.seqs[0] != 38 || !f.link.live {
		t.Errorf("began with %v, %+v", f.seqs, f.link)
	}
	f.unbroken()
}

func TestNoEventIsLostOrSeenTwiceWhenTheDaemonIsKilled(t *testing.T) {
	f := follow(t)
	f.until("the state", func() bool { return f.states > 0 })
	next := uint64(48)
	for round := range 3 {
		f.daemon.Stop()
		f.until("the loss", func() bool { return !f.link.live })
		for i := range 40 {
			f.daemon.Emit(api.Event{Level: "info", Kind: "test", Text: fmt.Sprint(round, i)})
			next++
		}
		if err := f.daemon.Start(); err != nil {
			t.Fatal(err)
		}
		f.until("the events", func() bool { return f.last() == next && f.link.live })
	}
	f.unbroken()
	if f.link.err != nil {
		t.Errorf("back again, the link says %v", f.link.err)
	}
}

func TestAReaderThatIsSlowGetsTheLatestStateAndEveryEvent(t *testing.T) {
	f := follow(t)
	f.until("the state", func() bool { return f.states > 0 })
	f.states = 0
	const many = 500
	for i := range many {
		f.daemon.Set(func(s *api.State) { s.Pool.Clients = i })
		f.daemon.Emit(api.Event{Level: "info", Kind: "test", Text: fmt.Sprint(i)})
	}
	f.until("the last event", func() bool { return f.last() == 48+many })
	f.unbroken()
	if f.states > many {
		t.Errorf("%d states for %d changes", f.states, many)
	}
}

func TestTheFeedNeverGivesUp(t *testing.T) {
	f := follow(t)
	f.until("the state", func() bool { return f.states > 0 })
	f.daemon.Stop()
	tries := 0
	f.until("three tries", func() bool {
		if !f.link.live {
			tries++
		}
		return tries > 3
	})
	if f.link.next <= firstRetry || f.link.next > lastRetry {
		t.Errorf("tries again after %s", f.link.next)
	}
	if err := f.daemon.Start(); err != nil {
		t.Fatal(err)
	}
	f.until("the daemon", func() bool { return f.link.live })
}
