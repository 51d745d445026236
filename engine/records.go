package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// records keeps the durable record at hand and lets it change only in ways
// that the invariants allow.
type records struct {
	store   Store
	changed func()
	halt    func(why string)

	write sync.Mutex // one change at a time
	mu    sync.Mutex
	rec   cluster.Record
}

func (r *records) load(ctx context.Context) error {
	rec, err := r.store.Load(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.rec = rec
	r.mu.Unlock()
	return nil
}

// Record is a copy of what is durable.
func (r *records) Record() cluster.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rec.Clone()
}

// Update changes the record. It returns when the change is on disk; until then
// nobody sees it.
func (r *records) Update(ctx context.Context, change func(*cluster.Record) error) (cluster.Record, error) {
	r.write.Lock()
	defer r.write.Unlock()
	before := r.Record()
	after := before.Clone()
	if err := change(&after); err != nil {
		return before, err
	}
	if why := broken(before, after); why != "" {
		r.halt(why)
		return before, fmt.Errorf("change the record: %s", why)
	}
	saved, err := r.store.Save(ctx, after)
	if err != nil {
		// It may be on disk although no answer says so, and then nothing could
		// be written over what is remembered here.
		return before, errors.Join(fmt.Errorf("write the record: %w", err), r.load(context.WithoutCancel(ctx)))
	}
	r.mu.Lock()
	r.rec = saved
	r.mu.Unlock()
	r.changed()
	return saved.Clone(), nil
}

// broken names the invariant that a change would break, if any.
func broken(before, after cluster.Record) string {
	switch {
	case after.Term < before.Term:
		return fmt.Sprintf("the term would fall from %d to %d", before.Term, after.Term)
	case before.Term > 0 && after.Primary != before.Primary && after.Term == before.Term:
		return fmt.Sprintf("the primary of term %d would change from %s to %s", before.Term, before.Primary, after.Primary)
	case len(after.History) < len(before.History) || !slices.Equal(before.History, after.History[:len(before.History)]):
		return "the recorded history would change instead of growing"
	}
	for id, m := range after.Members {
		if m.Fenced && m.Eligible {
			return fmt.Sprintf("%s would be fenced and eligible at once", id)
		}
		// One for a term that has not begun may be taken back, before the node
		// receives again; it is then not counted either.
		if had := before.Members[id].Promised; m.Promised < had && (had <= after.Term || m.Promised != 0) {
			return fmt.Sprintf("%s would take back its promise for term %d", id, before.Members[id].Promised)
		}
	}
	return ""
}
