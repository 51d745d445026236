// Package memory is a store that forgets: for tests and the simulator.
package memory

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/plan"
	"github.com/pgtandem/pgtandem/engine/store"
)

// Store is the store in memory.
type Store struct {
	mu     sync.Mutex
	rec    cluster.Record
	ops    map[string]plan.Operation
	events []cluster.Event
	seq    uint64
	keep   int
}

var _ store.Store = (*Store)(nil)

// New makes an empty store that keeps the last keep events; 0 means all.
func New(keep int) *Store { return &Store{ops: map[string]plan.Operation{}, keep: keep} }

// Load gives the record.
func (s *Store) Load(context.Context) (cluster.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rec.Clone(), nil
}

// Save swaps the record.
func (s *Store) Save(_ context.Context, r cluster.Record) (cluster.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Revision != s.rec.Revision {
		return s.rec.Clone(), fmt.Errorf("save revision %d over %d: %w", r.Revision, s.rec.Revision, store.ErrConflict)
	}
	s.rec = r.Clone()
	s.rec.Revision++
	return s.rec.Clone(), nil
}

func clone(op plan.Operation) plan.Operation {
	op.Steps = slices.Clone(op.Steps)
	op.Extra = slices.Clone(op.Extra)
	return op
}

// PutOperation keeps an operation.
func (s *Store) PutOperation(_ context.Context, op plan.Operation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ops[op.ID] = clone(op)
	return nil
}

// Operation finds one.
func (s *Store) Operation(_ context.Context, id string) (plan.Operation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	op, ok := s.ops[id]
	if !ok {
		return op, fmt.Errorf("operation %q: %w", id, store.ErrNotFound)
	}
	return clone(op), nil
}

// Operations lists the newest first.
func (s *Store) Operations(_ context.Context, limit int) ([]plan.Operation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []plan.Operation
	for _, op := range s.ops {
		out = append(out, clone(op))
	}
	slices.SortFunc(out, func(a, b plan.Operation) int { return b.Started.Compare(a.Started) })
	if limit > 0 && len(out) > limit {
		out = out[:limit]
	}
	return out, nil
}

// Unfinished lists those without an end, oldest first.
func (s *Store) Unfinished(ctx context.Context) ([]plan.Operation, error) {
	all, err := s.Operations(ctx, 0)
	slices.Reverse(all)
	return slices.DeleteFunc(all, func(op plan.Operation) bool { return !op.Ended.IsZero() }), err
}

// AppendEvents numbers and keeps events.
func (s *Store) AppendEvents(_ context.Context, ev ...cluster.Event) ([]cluster.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Clone(ev)
	for i := range out {
		s.seq++
		out[i].Seq = s.seq
	}
	s.events = append(s.events, out...)
	if s.keep > 0 && len(s.events) > s.keep {
		s.events = slices.Clone(s.events[len(s.events)-s.keep:])
	}
	return out, nil
}

// Events lists those after since.
func (s *Store) Events(_ context.Context, since uint64, limit int) ([]cluster.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []cluster.Event
	for _, e := range s.events {
		if e.Seq > since && (limit == 0 || len(out) < limit) {
			out = append(out, e)
		}
	}
	return out, nil
}

// LastSeq is the number of the newest event.
func (s *Store) LastSeq(context.Context) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seq, nil
}

// Fencing says what this store can promise.
func (s *Store) Fencing() store.Fencing {
	return store.Fencing{Text: "in memory: nothing survives this process"}
}

// Close does nothing.
func (s *Store) Close() error { return nil }
