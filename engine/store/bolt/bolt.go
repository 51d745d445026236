// Package bolt is the store in one file, by bbolt: the default of a single
// daemon.
package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/plan"
	"github.com/pgtandem/pgtandem/engine/store"
)

// schema is the version of what is stored. It grows when an older program
// could misread it.
const schema = 1

// FileName is the store's file in the state directory.
const FileName = "state.db"

var (
	bucketMeta   = []byte("meta")       // schema, record
	bucketOps    = []byte("operations") // ID -> JSON; IDs sort by time
	bucketEvents = []byte("events")     // big-endian Seq -> JSON
	keySchema    = []byte("schema")
	keyRecord    = []byte("record")
)

// Options steer a store.
type Options struct {
	EventsKept     int           // older events are dropped; 0 means 100,000
	OperationsKept int           // older finished operations are dropped; 0 means 1,000
	LockTimeout    time.Duration // how long to wait for another process; 0 means one second
}

// Store is the store in a file.
type Store struct {
	db     *bbolt.DB
	opt    Options
	events *appender
	pid    string
}

var _ store.Store = (*Store)(nil)

// Open opens or makes the store in a directory.
func Open(dir string, opt Options) (*Store, error) {
	if opt.EventsKept == 0 {
		opt.EventsKept = 100_000
	}
	if opt.OperationsKept == 0 {
		opt.OperationsKept = 1_000
	}
	if opt.LockTimeout == 0 {
		opt.LockTimeout = time.Second
	}
	path := filepath.Join(dir, FileName)
	if err := create(dir, path); err != nil {
		return nil, fmt.Errorf("make the store %s: %w", path, err)
	}
	pid := path + ".pid"
	db, err := openFile(path, opt.LockTimeout)
	if err != nil {
		return nil, explain(path, pid, err)
	}
	s := &Store{db: db, opt: opt, pid: pid}
	last, err := s.check()
	if err != nil {
		return nil, errors.Join(explain(path, pid, err), db.Close())
	}
	// Only a courtesy to whoever finds the store locked.
	_ = os.WriteFile(pid, []byte(strconv.Itoa(os.Getpid())), 0o600)
	s.events = newAppender(db, last, opt.EventsKept)
	return s, nil
}

func explain(path, pid string, err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		holder := "another process"
		if b, rerr := os.ReadFile(pid); rerr == nil {
			holder = "the proxyd with pid " + strings.TrimSpace(string(b))
		}
		return fmt.Errorf("open the store %s: %w: %s holds it", path, store.ErrLocked, holder)
	case errors.Is(err, store.ErrDamaged):
		return fmt.Errorf("open the store %s: %w; nothing in it was changed: move it aside, not away, and start again; proxyd then adopts the primary it finds, "+
			"and no standby is eligible before it has confirmed everything", path, err)
	}
	return fmt.Errorf("open the store %s: %w", path, err)
}

// check looks through what must be readable, and finds the last event.
func (s *Store) check() (last uint64, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		fi, err := os.Stat(s.db.Path())
		if err != nil {
			return err
		}
		if fi.Size() < tx.Size() {
			return fmt.Errorf("%w: it is %d bytes long and should be %d", store.ErrDamaged, fi.Size(), tx.Size())
		}
		meta, ops, events := tx.Bucket(bucketMeta), tx.Bucket(bucketOps), tx.Bucket(bucketEvents)
		if meta == nil || ops == nil || events == nil {
			return fmt.Errorf("%w: a bucket is missing", store.ErrDamaged)
		}
		if err := version(meta.Get(keySchema)); err != nil {
			return err
		}
		var r cluster.Record
		if err := decodeRecord(tx, &r); err != nil {
			return err
		}
		last = events.Sequence()
		return ops.ForEach(func(k, v []byte) error { return decode(fmt.Sprintf("operation %q", k), v, &plan.Operation{}) })
	})
	return last, err
}

func version(v []byte) error {
	n, err := strconv.Atoi(string(v))
	if err != nil {
		return fmt.Errorf("%w: its version is %q", store.ErrDamaged, v)
	}
	if n > schema {
		return fmt.Errorf("%w: %d, this program knows up to %d; install the program that wrote it", store.ErrNewer, n, schema)
	}
	return nil
}

// decode reads JSON that this package wrote; what cannot be read is damage.
func decode(what string, b []byte, to any) error {
	if err := json.Unmarshal(b, to); err != nil {
		return fmt.Errorf("%w: %s cannot be read: %w", store.ErrDamaged, what, err)
	}
	return nil
}

func (s *Store) view(f func(tx *bbolt.Tx) error) error {
	return guard(func() error { return s.db.View(f) })
}

func (s *Store) update(f func(tx *bbolt.Tx) error) error {
	return guard(func() error { return s.events.update(f) })
}

// Load gives the record; the zero record when nothing was ever saved.
func (s *Store) Load(context.Context) (r cluster.Record, err error) {
	err = s.view(func(tx *bbolt.Tx) error { return decodeRecord(tx, &r) })
	if err != nil {
		err = fmt.Errorf("load the record: %w", err)
	}
	return r, err
}

func decodeRecord(tx *bbolt.Tx, r *cluster.Record) error {
	b := tx.Bucket(bucketMeta).Get(keyRecord)
	if b == nil {
		return nil
	}
	return decode("the record", b, r)
}

// Save swaps the record: one transaction, one fsync.
func (s *Store) Save(_ context.Context, r cluster.Record) (cluster.Record, error) {
	next := r.Clone()
	next.Revision++
	err := s.update(func(tx *bbolt.Tx) error {
		var have cluster.Record
		if err := decodeRecord(tx, &have); err != nil {
			return err
		}
		if have.Revision != r.Revision {
			return fmt.Errorf("revision %d over %d: %w", r.Revision, have.Revision, store.ErrConflict)
		}
		b, err := json.Marshal(next)
		if err != nil {
			return err
		}
		return tx.Bucket(bucketMeta).Put(keyRecord, b)
	})
	if err != nil {
		return r, fmt.Errorf("save the record: %w", err)
	}
	return next, nil
}

// PutOperation writes an operation and drops the oldest finished ones.
func (s *Store) PutOperation(_ context.Context, op plan.Operation) error {
	b, err := json.Marshal(op)
	if err != nil {
		return fmt.Errorf("write operation %s: %w", op.ID, err)
	}
	err = s.update(func(tx *bbolt.Tx) error {
		ops := tx.Bucket(bucketOps)
		if err := ops.Put([]byte(op.ID), b); err != nil {
			return err
		}
		if op.Ended.IsZero() || ops.Inspect().KeyN <= s.opt.OperationsKept {
			return nil
		}
		return dropOldest(ops)
	})
	if err != nil {
		return fmt.Errorf("write operation %s: %w", op.ID, err)
	}
	return nil
}

func dropOldest(ops *bbolt.Bucket) error {
	c := ops.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		var op plan.Operation
		if err := decode(fmt.Sprintf("operation %q", k), v, &op); err != nil {
			return err
		}
		if !op.Ended.IsZero() {
			return c.Delete()
		}
	}
	return nil
}

// Operation finds one.
func (s *Store) Operation(_ context.Context, id string) (op plan.Operation, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketOps).Get([]byte(id))
		if b == nil {
			return store.ErrNotFound
		}
		return decode("it", b, &op)
	})
	if err != nil {
		err = fmt.Errorf("operation %q: %w", id, err)
	}
	return op, err
}

// Operations lists the newest first.
func (s *Store) Operations(_ context.Context, limit int) (out []plan.Operation, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketOps).Cursor()
		for k, v := c.Last(); k != nil && (limit == 0 || len(out) < limit); k, v = c.Prev() {
			var op plan.Operation
			if err := decode(fmt.Sprintf("operation %q", k), v, &op); err != nil {
				return err
			}
			out = append(out, op)
		}
		return nil
	})
	return out, err
}

// Unfinished lists those without an end, oldest first.
func (s *Store) Unfinished(ctx context.Context) ([]plan.Operation, error) {
	all, err := s.Operations(ctx, 0)
	var out []plan.Operation
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Ended.IsZero() {
			out = append(out, all[i])
		}
	}
	return out, err
}

// AppendEvents numbers events at once. They are written with the next record
// or operation, and within 20 ms in any case; the numbers of events that a
// crash took in that time are given again.
func (s *Store) AppendEvents(ctx context.Context, ev ...cluster.Event) ([]cluster.Event, error) {
	return s.events.add(ctx, ev)
}

// Events lists those after since, what is not on disk yet included.
func (s *Store) Events(_ context.Context, since uint64, limit int) (out []cluster.Event, err error) {
	pending := s.events.pendingAfter(since)
	err = s.view(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketEvents).Cursor()
		for k, v := c.Seek(seqKey(since + 1)); k != nil && (limit == 0 || len(out) < limit); k, v = c.Next() {
			if len(pending) > 0 && bytes.Compare(k, seqKey(pending[0].Seq)) >= 0 {
				break // written since we looked
			}
			var e cluster.Event
			if err := decode(fmt.Sprintf("event %d", binary.BigEndian.Uint64(k)), v, &e); err != nil {
				return err
			}
			out = append(out, e)
		}
		return nil
	})
	for _, e := range pending {
		if limit == 0 || len(out) < limit {
			out = append(out, e)
		}
	}
	return out, err
}

// LastSeq is the number of the newest event.
func (s *Store) LastSeq(context.Context) (uint64, error) { return s.events.last(), nil }

// Fencing says what a file can promise.
func (s *Store) Fencing() store.Fencing {
	return store.Fencing{Text: "a file on this host: it keeps a second proxyd here from starting, and cannot fence one on another host"}
}

// Close writes what is pending and closes the file.
func (s *Store) Close() error {
	err := s.events.close()
	_ = os.Remove(s.pid) // a courtesy, as its making was
	return errors.Join(err, s.db.Close())
}

func seqKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
