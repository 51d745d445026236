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

// groupCommit is how long events wait for company, so that a failover does not
// pay an fsync for each.
const groupCommit = 20 * time.Millisecond

// appender numbers events when they come and writes them in groups. One
// goroutine owns the writing; close ends it.
type appender struct {
	db   *bbolt.DB
	keep int

	mu      sync.Mutex
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
	select {
	case <-a.quit:
		return nil, errClosed
	default:
	}
	out := slices.Clone(ev)
	a.mu.Lock()
	for i := range out {
		a.seq++
		out[i].Seq = a.seq
	}
	a.pending = append(a.pending, out...)
	err := a.err
	a.err = nil
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
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
	wait := time.NewTimer(groupCommit)
	wait.Stop()
	for {
		select {
		case <-a.quit:
			a.flush()
			return
		case <-a.wake:
			wait.Reset(groupCommit)
		case <-wait.C:
			a.flush()
		}
	}
}

// flush writes what is pending. What could not be written stays pending, and
// the next caller is told.
func (a *appender) flush() {
	a.mu.Lock()
	group := slices.Clone(a.pending)
	a.mu.Unlock()
	if len(group) == 0 {
		return
	}
	err := a.db.Update(func(tx *bbolt.Tx) error { return a.write(tx.Bucket(bucketEvents), group) })
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.err = fmt.Errorf("write the event log: %w", err)
		return
	}
	a.pending = slices.Clone(a.pending[len(group):])
}

func (a *appender) write(b *bbolt.Bucket, group []cluster.Event) error {
	for _, e := range group {
		v, err := json.Marshal(e)
		if err != nil {
			return err
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

func (a *appender) close() error {
	select {
	case <-a.quit:
	default:
		close(a.quit)
	}
	<-a.done
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}
