package bolt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

const (
	// groupCommit is how long events wait for company, so that a failover does
	// not pay an fsync for each.
	groupCommit = 20 * time.Millisecond
	// tryAgain is how long to wait after a group could not be written.
	tryAgain = time.Second
)

// appender numbers events when they come and writes them in groups: with the
// next record or operation that is written, else by the goroutine that run is,
// which close ends.
type appender struct {
	db   *bbolt.DB
	keep int

	mu      sync.Mutex
	closed  bool
	seq     uint64
	pending []cluster.Event // numbered, not on disk yet
	err     error           // of the last group, told to the next caller

	wake chan struct{}
	quit chan struct{}
	done chan struct{}
}

var errClosed = errors.New("the event log is closed")

func newAppender(db *bbolt.DB, last uint64, keep int) *appender {
	a := &appender{db: db, keep: keep, seq: last, wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	go a.run()
	return a
}

func (a *appender) add(ctx context.Context, ev []cluster.Event) ([]cluster.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("append events: %w", err)
	}
	out := slices.Clone(ev)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, fmt.Errorf("append events: %w", errClosed)
	}
	for i := range out {
		a.seq++
		out[i].Seq = a.seq
	}
	a.pending = append(a.pending, out...)
	// A disk that takes nothing must not take the memory as well; what is
	// dropped here is what the next group would trim.
	if len(a.pending) > 2*a.keep {
		a.pending = slices.Clone(a.pending[len(a.pending)-a.keep:])
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
	err := a.err
	a.err = nil
	return out, err
}

func (a *appender) last() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seq
}

func (a *appender) pendingAfter(since uint64) []cluster.Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []cluster.Event
	for _, e := range a.pending {
		if e.Seq > since {
			out = append(out, e)
		}
	}
	return out
}

func (a *appender) run() {
	defer close(a.done)
	var due <-chan time.Time // of the group that is being gathered
	for {
		select {
		case <-a.quit:
			a.flush()
			return
		case <-a.wake:
			if due == nil {
				due = time.After(groupCommit)
			}
		case <-due:
			due = nil
			if !a.flush() {
				due = time.After(tryAgain)
			}
		}
	}
}

// flush writes what is pending. What could not be written stays pending, and
// the next caller is told.
func (a *appender) flush() bool {
	a.mu.Lock()
	idle := len(a.pending) == 0
	a.mu.Unlock()
	if idle {
		return true
	}
	err := a.update(func(*bbolt.Tx) error { return nil })
	if err != nil {
		a.mu.Lock()
		a.err = fmt.Errorf("write the event log: %w", err)
		a.mu.Unlock()
	}
	return err == nil
}

// update runs f in a transaction that takes pending events along, so that
// events are never behind what they led to and cost no fsync of their own.
func (a *appender) update(f func(tx *bbolt.Tx) error) error {
	var newest uint64
	err := a.db.Update(func(tx *bbolt.Tx) error {
		if err := f(tx); err != nil {
			return err
		}
		group := a.pendingAfter(0)
		if len(group) == 0 {
			return nil
		}
		newest = group[len(group)-1].Seq
		return a.write(tx.Bucket(bucketEvents), group)
	})
	if err != nil || newest == 0 {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pending = slices.DeleteFunc(a.pending, func(e cluster.Event) bool { return e.Seq <= newest })
	return nil
}

func (a *appender) write(b *bbolt.Bucket, group []cluster.Event) error {
	for _, e := range group {
		v, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("encode event %d: %w", e.Seq, err)
		}
		if err := b.Put(seqKey(e.Seq), v); err != nil {
			return err
		}
	}
	newest := group[len(group)-1].Seq
	if err := b.SetSequence(newest); err != nil {
		return err
	}
	if newest <= uint64(a.keep) {
		return nil
	}
	c := b.Cursor()
	oldest := seqKey(newest - uint64(a.keep) + 1)
	for k, _ := c.First(); k != nil && string(k) < string(oldest); k, _ = c.First() {
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return nil
}

// close writes what is pending. What comes later is refused.
func (a *appender) close() error {
	a.mu.Lock()
	first := !a.closed
	a.closed = true
	a.mu.Unlock()
	if first {
		close(a.quit)
	}
	<-a.done
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}
