package app

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// wire is a daemon that is only listened to: each Watch is the next of its
// calls, and after the last it stays silent.
type wire struct {
	Daemon
	list  []api.Event
	calls []func(since uint64, say func(api.Message)) error
	since []uint64
}

func (l *wire) Events(context.Context, uint64, int) ([]api.Event, error) { return l.list, nil }

func (l *wire) Watch(ctx context.Context, since uint64, fn func(api.Message) error) error {
	n := len(l.since)
	l.since = append(l.since, since)
	if n < len(l.calls) {
		return l.calls[n](since, func(m api.Message) { _ = fn(m) })
	}
	<-ctx.Done()
	return ctx.Err()
}

var errHungUp = errors.New("hung up")

func event(seq uint64) api.Message { return api.Message{Event: &api.Event{Seq: seq}} }
func state(seq uint64) api.Message { return api.Message{State: &api.State{Seq: seq}} }

func numbers(es []api.Event) string {
	var out []uint64
	for _, e := range es {
		out = append(out, e.Seq)
	}
	return fmt.Sprint(out)
}

// listen follows a wire until it is silent, and gives what the screen, which
// looked away all the while, is told then.
func listen(t *testing.T, l *wire, look func(t *testing.T, f *feed)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := newFeed(l, time.Now)
		done := make(chan struct{})
		go func() { defer close(done); f.run(ctx) }()
		look(t, f)
		cancel()
		<-done
	})
}

// broken is the next news of a broken link, with what came before it.
func broken(t *testing.T, f *feed) feedMsg {
	t.Helper()
	var all feedMsg
	for all.link == nil || all.link.live {
		n, ok := f.wait(t.Context())().(feedMsg)
		if !ok {
			t.Fatal("no news")
		}
		n.events = append(all.events, n.events...)
		if n.state == nil {
			n.state = all.state
		}
		all = n
	}
	return all
}

// Tried again after 0.1 s, then less and less often, at last every 5 s, for
// ever; a daemon that was there in between is tried quickly again.
func TestALostDaemonIsTriedForEver(t *testing.T) {
	refuse := func(uint64, func(api.Message)) error { return errHungUp }
	l := &wire{}
	for range 9 {
		l.calls = append(l.calls, refuse)
	}
	l.calls = append(l.calls, func(_ uint64, say func(api.Message)) error { say(state(0)); return errHungUp }, refuse)
	listen(t, l, func(t *testing.T, f *feed) {
		begun := time.Now()
		var pauses []string
		for range 9 {
			n := broken(t, f)
			if n.link.live || !errors.Is(n.link.err, errHungUp) {
				t.Errorf("the link is %+v", *n.link)
			}
			if !n.link.since.Equal(begun) {
				t.Errorf("lost since %s, not since the first failure", n.link.since.Sub(begun))
			}
			pauses = append(pauses, n.link.next.String())
		}
		if got := fmt.Sprint(pauses); got != "[100ms 200ms 400ms 800ms 1.6s 3.2s 5s 5s 5s]" {
			t.Errorf("pauses of %s", got)
		}
		if n := broken(t, f); n.state == nil || n.link.next != firstRetry {
			t.Errorf("after it was back it is tried again in %s", n.link.next)
		}
	})
}

// A daemon whose log was begun anew counts from 1 again; its events are not
// taken for old ones.
func TestALogThatBeginsAnewIsRead(t *testing.T) {
	l := &wire{list: []api.Event{{Seq: 900}}, calls: []func(uint64, func(api.Message)) error{
		func(_ uint64, say func(api.Message)) error { say(state(900)); return errHungUp },
		func(_ uint64, say func(api.Message)) error {
			say(state(0))
			say(event(1))
			say(event(2))
			return errHungUp
		},
	}}
	listen(t, l, func(t *testing.T, f *feed) {
		first, second := broken(t, f), broken(t, f)
		if got := numbers(append(first.events, second.events...)); got != "[900 1 2]" {
			t.Errorf("told of %s", got)
		}
	})
}
