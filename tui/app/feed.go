package app

import (
	"context"
	"sync"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// Retries of a daemon that does not answer.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// feed follows the daemon and keeps what is new until the screen takes it:
// the latest state only, and every event.
type feed struct {
	daemon Daemon
	now    func() time.Time
	ready  chan struct{} // has a value when there is news

	mu    sync.Mutex
	news  feedMsg
	since uint64 // the last event that was taken over
}

// feedMsg is what is new.
type feedMsg struct {
	state    *api.State
	received time.Time
	events   []api.Event
	link     *link
}

// link is whether the daemon answers.
type link struct {
	live  bool
	err   error
	since time.Time     // since when it is so
	next  time.Duration // until it is tried again
}

func newFeed(d Daemon, now func() time.Time) *feed {
	return &feed{daemon: d, now: now, ready: make(chan struct{}, 1)}
}

// run follows the daemon until the context ends. It never gives up.
func (f *feed) run(ctx context.Context) {
	pause, lost := firstRetry, time.Time{}
	for ctx.Err() == nil {
		err := f.follow(ctx, func() { pause, lost = firstRetry, time.Time{} })
		if ctx.Err() != nil {
			return
		}
		if lost.IsZero() {
			lost = f.now()
		}
		f.put(func(n *feedMsg) { n.link = &link{err: err, since: lost, next: pause} })
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, lastRetry)
	}
}

// follow reads the last events once, and from then on goes on after the last
// one that was taken over.
func (f *feed) follow(ctx context.Context, alive func()) error {
	if f.position() == 0 {
		es, err := f.daemon.Events(ctx, 0, api.DefaultEvents)
		if err != nil {
			return err
		}
		f.put(func(n *feedMsg) { f.take(n, es...) })
	}
	return f.daemon.Watch(ctx, f.position(), func(m api.Message) error {
		alive()
		f.put(func(n *feedMsg) {
			switch {
			case m.Event != nil:
				f.take(n, *m.Event)
			case m.State != nil:
				n.state, n.received = m.State, f.now()
				n.link = &link{live: true, since: f.now()}
				// A daemon with a new log counts anew.
				if f.since == 0 || m.State.Seq < f.since {
					f.since = m.State.Seq
				}
			}
		})
		return nil
	})
}

func (f *feed) position() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.since
}

// take takes events over, each once. The caller holds mu.
func (f *feed) take(n *feedMsg, es ...api.Event) {
	for _, e := range es {
		if e.Seq > f.since {
			f.since = e.Seq
			n.events = append(n.events, e)
		}
	}
}

func (f *feed) put(change func(*feedMsg)) {
	f.mu.Lock()
	change(&f.news)
	f.mu.Unlock()
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

// wait is the command that brings the next news.
func (f *feed) wait(ctx context.Context) tea.Cmd {
	return func() tea.Msg {
		select {
		case <-ctx.Done():
			return nil
		case <-f.ready:
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		n := f.news
		f.news = feedMsg{}
		return n
	}
}
