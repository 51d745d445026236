// Package storetest is what every store must do, as a test suite.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/plan"
	"github.com/pgtandem/pgtandem/engine/store"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Run holds a store to its promises. open gives an empty one that keeps 10
// events; reopen closes and opens it again, or is nil where nothing survives.
func Run(t *testing.T, open func(t *testing.T) store.Store, reopen func(t *testing.T, s store.Store) store.Store) {
	t.Run("a record that was never saved is empty", func(t *testing.T) {
		r, err := open(t).Load(t.Context())
		if err != nil || r.Revision != 0 || r.Term != 0 {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("of two writers of one revision the second fails", func(t *testing.T) { conflict(t, open(t)) })
	t.Run("operations are found, listed newest first, and unfinished ones oldest first", func(t *testing.T) { operations(t, open(t)) })
	t.Run("events are numbered without gaps and trimmed", func(t *testing.T) { events(t, open(t)) })
	t.Run("writers at the same time leave no gap and lose no revision", func(t *testing.T) { together(t, open(t)) })
	t.Run("what is given out is a copy", func(t *testing.T) { copies(t, open(t)) })
	if reopen == nil {
		return
	}
	t.Run("everything survives", func(t *testing.T) {
		s := open(t)
		conflict(t, s)
		operations(t, s)
		events(t, s)
		s = reopen(t, s)
		r, err := s.Load(t.Context())
		if err != nil || r.Term != 7 || r.Members["pgsql2"].Reason != "because" || r.History[0].SwitchLSN != 0x16B3748 {
			t.Errorf("record %+v, %v", r, err)
		}
		if ops, err := s.Unfinished(t.Context()); err != nil || len(ops) != 1 || ops[0].ID != "2" {
			t.Errorf("unfinished %+v, %v", ops, err)
		}
		more, err := s.AppendEvents(t.Context(), cluster.Event{At: epoch, Text: "after"})
		if err != nil || more[0].Seq != 16 {
			t.Errorf("the number after reopening is %+v, %v", more, err)
		}
	})
}

func conflict(t *testing.T, s store.Store) {
	t.Helper()
	r := cluster.Record{Term: 7, Members: map[cluster.NodeID]cluster.Member{"pgsql2": {Reason: "because"}},
		History: []cluster.HistoryEntry{{Timeline: 1, SwitchLSN: 0x16B3748, At: epoch}}}
	saved, err := s.Save(t.Context(), r)
	if err != nil || saved.Revision != 1 {
		t.Fatalf("%+v, %v", saved, err)
	}
	r.Term = 8
	if _, err := s.Save(t.Context(), r); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("the second writer got %v", err)
	}
	if got, _ := s.Load(t.Context()); got.Term != 7 {
		t.Fatalf("the second writer won: %+v", got)
	}
}

func operations(t *testing.T, s store.Store) {
	t.Helper()
	ctx := t.Context()
	for i := range 3 {
		op := plan.Operation{ID: fmt.Sprint(i + 1), Started: epoch.Add(time.Duration(i) * time.Second), Outcome: plan.Running,
			Plan:  plan.Plan{Action: cluster.Promote, Steps: []plan.Step{{ID: "1-gate.close", Args: map[string]string{"cut": "true"}}}},
			Steps: []plan.StepRun{{Outcome: plan.Done, Took: time.Millisecond}}}
		put(ctx, t, s, op)
		if i != 1 {
			op.Outcome, op.Ended = plan.Done, epoch.Add(time.Hour)
			put(ctx, t, s, op)
		}
	}
	if op, err := s.Operation(ctx, "2"); err != nil || op.Plan.Steps[0].Args["cut"] != "true" || op.Steps[0].Took != time.Millisecond {
		t.Errorf("%+v, %v", op, err)
	}
	if _, err := s.Operation(ctx, "9"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an operation that is not there: %v", err)
	}
	if ops, err := s.Operations(ctx, 2); err != nil || len(ops) != 2 || ops[0].ID != "3" {
		t.Errorf("newest first: %+v, %v", ops, err)
	}
	if ops, err := s.Unfinished(ctx); err != nil || len(ops) != 1 || ops[0].ID != "2" {
		t.Errorf("unfinished: %+v, %v", ops, err)
	}
}

func put(ctx context.Context, t *testing.T, s store.Store, op plan.Operation) {
	t.Helper()
	if err := s.PutOperation(ctx, op); err != nil {
		t.Fatal(err)
	}
}

func events(t *testing.T, s store.Store) {
	t.Helper()
	ctx := t.Context()
	for i := range 5 {
		got, err := s.AppendEvents(ctx, cluster.Event{At: epoch, Text: fmt.Sprint(3*i + 1)}, cluster.Event{At: epoch, Text: fmt.Sprint(3*i + 2)}, cluster.Event{At: epoch, Text: fmt.Sprint(3*i + 3)})
		if err != nil || got[0].Seq != uint64(3*i+1) {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	list, err := s.Events(ctx, 12, 2)
	if err != nil || len(list) != 2 || list[0].Text != "13" || list[1].Seq != 14 {
		t.Errorf("two after 12: %+v, %v", list, err)
	}
	all, err := s.Events(ctx, 5, 0)
	if err != nil || len(all) != 10 || all[0].Seq != 6 || all[9].Seq != 15 {
		t.Errorf("the ten that are kept: %d, %+v, %v", len(all), all, err)
	}
	for i := 1; i < len(all); i++ {
		if all[i].Seq != all[i-1].Seq+1 {
			t.Errorf("gap between %d and %d", all[i-1].Seq, all[i].Seq)
		}
	}
	if n, err := s.LastSeq(ctx); err != nil || n != 15 {
		t.Errorf("last number %d, %v", n, err)
	}
}

// together: several writers try for the record until each has won five times,
// telling an event before each try.
func together(t *testing.T, s store.Store) {
	t.Helper()
	ctx := t.Context()
	var tries atomic.Uint64
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for won := 0; won < 5; {
				tries.Add(1)
				if _, err := s.AppendEvents(ctx, cluster.Event{At: epoch, Text: "a try"}); err != nil {
					t.Error(err)
					return
				}
				r, err := s.Load(ctx)
				if err == nil {
					r.Term++
					_, err = s.Save(ctx, r)
				}
				switch {
				case err == nil:
					won++
				case !errors.Is(err, store.ErrConflict):
					t.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
	if r, err := s.Load(ctx); err != nil || r.Revision != 20 || r.Term != 20 {
		t.Errorf("twenty writers won, the record is %+v, %v", r, err)
	}
	if n, err := s.LastSeq(ctx); err != nil || n != tries.Load() {
		t.Errorf("%d events were told, the last number is %d, %v", tries.Load(), n, err)
	}
	list, err := s.Events(ctx, 0, 0)
	if err != nil || len(list) != 10 {
		t.Fatalf("%d events of the ten that are kept, %v", len(list), err)
	}
	for i, e := range list {
		if want := tries.Load() - 9 + uint64(i); e.Seq != want {
			t.Errorf("event %d stands where %d should", e.Seq, want)
		}
	}
}

func copies(t *testing.T, s store.Store) {
	t.Helper()
	ctx := t.Context()
	r := cluster.Record{Members: map[cluster.NodeID]cluster.Member{"pgsql2": {Reason: "as saved"}}}
	if _, err := s.Save(ctx, r); err != nil {
		t.Fatal(err)
	}
	r.Members["pgsql2"] = cluster.Member{Reason: "changed after saving"}
	got, err := s.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got.Members["pgsql1"] = cluster.Member{Reason: "changed after loading"}
	if again, err := s.Load(ctx); err != nil || len(again.Members) != 1 || again.Members["pgsql2"].Reason != "as saved" {
		t.Errorf("%+v, %v", again, err)
	}
}
