// Package store is the engine's durable state: one record changed by
// compare-and-swap, the journal of operations, and the event log.
//
// It keeps what it is given and knows nothing of what it means. Implementations
// live below; all pass the suite in storetest.
package store

import (
	"context"
	"errors"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// Errors, by what the caller may do.
var (
	// ErrConflict: somebody else wrote the record first; load it and decide
	// again.
	ErrConflict = errors.New("the record was changed by somebody else")
	// ErrNotFound: there is no such operation.
	ErrNotFound = errors.New("not found")
	// ErrLocked: another process holds the store.
	ErrLocked = errors.New("the store is in use")
	// ErrDamaged: what is stored cannot be read. Nothing was changed; a person
	// must put it aside.
	ErrDamaged = errors.New("the store is damaged")
	// ErrNewer: the store was written by a newer program.
	ErrNewer = errors.New("the store is of a newer version")
)

// Store is durable state. Methods that write return when it is on disk, except
// AppendEvents, which may be up to 20 ms behind.
type Store interface {
	Load(ctx context.Context) (cluster.Record, error)
	// Save writes the record if the stored revision still is r.Revision, and
	// returns it with the next one.
	Save(ctx context.Context, r cluster.Record) (cluster.Record, error)

	PutOperation(ctx context.Context, op plan.Operation) error
	Operation(ctx context.Context, id string) (plan.Operation, error)
	// Operations lists the newest first; limit 0 means all that are kept.
	Operations(ctx context.Context, limit int) ([]plan.Operation, error)
	// Unfinished lists operations that have no end, oldest first.
	Unfinished(ctx context.Context) ([]plan.Operation, error)

	// AppendEvents gives each event the next Seq, without gaps, and keeps
	// their order. An event is never behind a Save or a PutOperation that came
	// after it.
	AppendEvents(ctx context.Context, ev ...cluster.Event) ([]cluster.Event, error)
	// Events lists those after since, oldest first; limit 0 means all.
	Events(ctx context.Context, since uint64, limit int) ([]cluster.Event, error)
	LastSeq(ctx context.Context) (uint64, error)

	Fencing() Fencing
	Close() error
}

// Fencing is what a store can promise about a second daemon.
type Fencing struct {
	Exclusive bool   // a second daemon cannot act at the same time, wherever it runs
	Text      string // in words, for a person
}
