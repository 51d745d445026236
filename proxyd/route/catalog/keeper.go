package catalog

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Options say how a Keeper works. Connect and Use must be set.
type Options struct {
	// Connect opens a connection to the database, at best on the primary. It is
	// closed after each look.
	Connect func(ctx context.Context) (Session, error)
	// Use is given each catalog that comes into force; it must not block, and
	// calls to it are in order.
	Use func(*Snapshot)
	// Period is how often changes are looked for that did not pass here.
	Period time.Duration
	// Settle is the shortest time between two looks, so that a stream of schema
	// changes does not become a stream of looks.
	Settle time.Duration
	// Timeout is how long a look may take.
	Timeout time.Duration
	Log     *slog.Logger
}

// The defaults of Options.
const (
	DefaultPeriod  = 30 * time.Second
	DefaultSettle  = time.Second
	DefaultTimeout = 15 * time.Second
)

// mostMissed is how many looks in a row may fail before what was read last is
// too old to go by.
const mostMissed = 4

// Keeper keeps the catalog of one database fresh: it looks from time to time
// whether it has changed, and at once after a schema change that passed here,
// until the end of which every judgement that needs the catalog is "primary".
type Keeper struct {
	opt  Options
	bell chan struct{}

	mu      sync.Mutex
	changes uint64 // schema changes seen so far
	current *Snapshot
	print   string
	valid   bool // print is that of current, and nothing was seen since
}

// NewKeeper makes a Keeper; nothing is read before Run.
func NewKeeper(opt Options) *Keeper {
	if opt.Period <= 0 {
		opt.Period = DefaultPeriod
	}
	if opt.Settle <= 0 {
		opt.Settle = DefaultSettle
	}
	if opt.Timeout <= 0 {
		opt.Timeout = DefaultTimeout
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &Keeper{opt: opt, bell: make(chan struct{}, 1)}
}

// SchemaChanged says that what may have changed the catalog has been
// committed. From its return on nothing is judged by what was read before.
func (k *Keeper) SchemaChanged() {
	k.mu.Lock()
	k.changes++
	k.valid = false
	k.opt.Use(Unready("came while the catalog is read again after a schema change"))
	k.mu.Unlock()
	select {
	case k.bell <- struct{}{}:
	default: // it rings already
	}
}

// SetPeriod changes how often changes are looked for, from the next look on.
func (k *Keeper) SetPeriod(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.opt.Period = d; d <= 0 {
		k.opt.Period = DefaultPeriod
	}
}

// Run keeps the catalog until ctx ends. It is called once.
func (k *Keeper) Run(ctx context.Context) {
	missed := 0
	for {
		if err := k.look(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			k.opt.Log.Warn("the catalog could not be read; what it decides goes on as it is, and to the primary when it is too old", "error", err)
			if missed++; missed == mostMissed {
				k.lost()
			}
		} else {
			missed = 0
		}
		if !k.wait(ctx) {
			return
		}
	}
}

// wait lasts until the next look: a period, less where the bell rings. It says
// false when ctx has ended.
func (k *Keeper) wait(ctx context.Context) bool {
	settle := time.NewTimer(k.opt.Settle)
	defer settle.Stop()
	select {
	case <-settle.C:
	case <-ctx.Done():
		return false
	}
	k.mu.Lock()
	left := max(0, k.opt.Period-k.opt.Settle)
	k.mu.Unlock()
	period := time.NewTimer(left)
	defer period.Stop()
	select {
	case <-k.bell:
	case <-period.C:
	case <-ctx.Done():
		return false
	}
	return true
}

// lost takes what is too old out of force.
func (k *Keeper) lost() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.valid = false
	k.opt.Use(Unready("came when the catalog had not been readable for a while"))
}

// look reads the catalog where it has changed.
func (k *Keeper) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, k.opt.Timeout)
	defer cancel()
	select {
	case <-k.bell: // this look answers it
	default:
	}
	k.mu.Lock()
	changes, before, valid := k.changes, k.print, k.valid
	k.mu.Unlock()

	session, err := k.opt.Connect(ctx)
	if err != nil {
		return fmt.Errorf("connect to read the catalog: %w", err)
	}
	defer session.Close()
	print, err := Fingerprint(ctx, session)
	if err != nil {
		return err
	}
	if valid && print == before {
		return nil
	}
	snapshot := k.unchanged(print)
	if snapshot == nil {
		if snapshot, err = Load(ctx, session); err != nil {
			return err
		}
	}
	k.publish(snapshot, print, changes)
	return nil
}

// unchanged is the snapshot at hand where it is still that of the fingerprint,
// as after a temporary table or a schema change that was rolled back.
func (k *Keeper) unchanged(print string) *Snapshot {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current != nil && k.print == print {
		return k.current
	}
	return nil
}

// publish puts a catalog into force, unless the schema has changed since the
// look at it began: then the bell has rung again.
func (k *Keeper) publish(snapshot *Snapshot, print string, changes uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.current, k.print = snapshot, print
	if k.changes != changes {
		return
	}
	k.valid = true
	k.opt.Use(snapshot)
}
