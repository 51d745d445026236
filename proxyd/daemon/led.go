package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/handover"
)

// successor is the process that is to follow this one, and then leads it: the
// engine is there, and our gate moves as it says.
type successor struct {
	*handover.Child
	d       *Daemon
	asked   chan struct{}      // it is ready, and wants our engine to stop
	answer  chan releaseAnswer // of that
	serving chan struct{}
	served  sync.Once // closes it

	doubts atomic.Uint64 // that we told it of
	heard  atomic.Uint64 // that it told us of
	record atomic.Pointer[cluster.Record]
}

type releaseAnswer struct {
	released
	err error
}

// released is what a successor goes on with: the gate was like this when the
// engine had stopped.
type released struct {
	Open     bool           `json:"open"`
	Term     cluster.Term   `json:"term"`
	Node     cluster.Node   `json:"node"`
	Doubts   uint64         `json:"doubts"`   // that the releasing process has told of
	Heard    map[int]uint64 `json:"heard"`    // doubts of still earlier processes, by their ids
	Said     uint64         `json:"said"`     // doubts that those were told of
	Disabled []string       `json:"disabled"` // databases
}

// lead answers what a successor asks.
func (s *successor) lead(ctx context.Context, op string, body json.RawMessage) (any, error) {
	switch op {
	case opRelease:
		return s.release(ctx)
	case opServing:
		s.served.Do(func() { close(s.serving) })
		return nil, nil
	case opGateClose:
		var c gateClose
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, err
		}
		bounded, cancel := context.WithTimeout(ctx, c.Wait)
		defer cancel()
		open, err := s.d.gate.Close(bounded, c.Reason, c.Cut)
		return gateClosed{open}, err
	case opGateOpen:
		return s.open(ctx, body)
	case opDoubt:
		var d doubt
		if err := json.Unmarshal(body, &d); err != nil {
			return nil, err
		}
		s.heard.Add(1)
		s.d.gate.Doubt(d.Node, d.Reason)
		return nil, nil
	case opLeave:
		var l left
		if err := json.Unmarshal(body, &l); err != nil {
			return nil, err
		}
		s.d.sessions.LeaveStandby(l.Node, l.Reason)
		return nil, nil
	case opCancel:
		var r cancelRequest
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, err
		}
		return cancelAnswer{Known: s.d.sessions.Cancel(r.PID, r.Key)}, nil
	case opReconnect, opKill:
		return nil, s.steer(op, body)
	}
	return nil, fmt.Errorf("%q is not known here", op)
}

// release waits until the engine has stopped.
func (s *successor) release(ctx context.Context) (any, error) {
	select {
	case s.asked <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case a := <-s.answer:
		return a.released, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *successor) open(ctx context.Context, body json.RawMessage) (any, error) {
	var o gateOpen
	if err := json.Unmarshal(body, &o); err != nil {
		return nil, err
	}
	s.record.Store(&o.Record)
	if s.doubts.Load() != o.Heard || s.heard.Load() != o.Said {
		return gateOpened{Doubted: true}, nil
	}
	err := s.d.gate.Open(ctx, o.Term, o.Node)
	if s.doubts.Load() != o.Heard || s.heard.Load() != o.Said { // while it was opened
		s.d.gate.Doubt(o.Node.ID, "a connection to it broke while the gate was opened")
		return gateOpened{Doubted: true}, err
	}
	return gateOpened{}, err
}

func (s *successor) steer(op string, body json.RawMessage) error {
	var database string
	if err := json.Unmarshal(body, &database); err != nil {
		return err
	}
	if op == opKill {
		s.d.sessions.Kill(database)
	} else {
		s.d.sessions.Reconnect(database)
	}
	return nil
}

// recorded is the durable record as the engine that leads us knows it.
func (d *Daemon) recorded() cluster.Record {
	if s := d.next.Load(); s != nil {
		if r := s.record.Load(); r != nil {
			return *r
		}
	}
	return d.engine.Input().Record
}

// doubted and suspected tell whoever has the engine what a connection of ours
// has shown.
func (d *Daemon) doubted(n cluster.NodeID, reason string) {
	if !d.gate.Doubt(n, reason) { // a server that dies breaks many at once
		return
	}
	if s := d.next.Load(); s != nil {
		s.doubts.Add(1)
		s.Tell(opDoubt, doubt{n, reason})
	}
	d.fleet.doubted(n, reason)
}

func (d *Daemon) suspected(n cluster.NodeID) {
	if s := d.next.Load(); s != nil {
		s.Tell(opSuspect, suspicion{n})
	}
	d.observer.Suspect(n)
}

// errSuccessorLost: the engine is gone with it, so our gate is closed.
var errSuccessorLost = errors.New("the proxyd that has followed this one has ended")

// drain serves the clients there are until they have gone, drain_timeout is
// over, ctx ends, or the successor does. The engine is the successor's.
func (d *Daemon) drain(ctx context.Context, next *successor, clients *part) error {
	left, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-next.Done():
			// At once, before anybody else could begin to act: nothing of ours
			// may reach a server that nobody watches.
			_, _ = d.gate.Close(left, errSuccessorLost.Error(), true) // a cut closes in any case
			cancel(errSuccessorLost)
		case <-left.Done():
		}
	}()
	select {
	case <-next.serving:
		d.notify.MainPID(next.PID())
		keepPaths(d.listeners)
		d.log.Info("the next proxyd takes the clients from now on; this one serves those that it has", "next", next.PID())
	case <-left.Done():
	}
	bounded, stop := context.WithTimeout(left, d.config().Proxy.DrainTimeout.Std())
	defer stop()
	if d.config().Proxy.DrainTimeout == 0 {
		bounded = left
	}
	d.said("serve the clients to their end", d.sessions.Retire(bounded))
	clients.end = func() {} // it ends by Shutdown
	drain, over := context.WithTimeout(context.Background(), drainLimit)
	defer over()
	if err := d.sessions.Shutdown(drain); err != nil {
		d.log.Warn("transactions were cut off at the end", "error", err)
	}
	clients.stop()
	d.log.Info("this proxyd has no clients any more, and ends")
	if err := context.Cause(left); errors.Is(err, errSuccessorLost) {
		return err
	}
	return nil
}

// drainingFile is locked, shared, by each process that serves clients without
// an engine of its own. Its lock is the kernel's, and ends with the process.
const drainingFile = "draining.lock"

// lockDraining keeps a proxyd that is started apart from us from acting while
// our gate may be open.
func lockDraining(directory string) (*os.File, error) {
	return flock(directory, syscall.LOCK_SH)
}

// drainedLimit is how long processes that have lost their successor have to
// end: they notice at once.
const drainedLimit = 20 * time.Second

// awaitDrained waits until no earlier process is left that could have its gate
// open without keeping to ours.
func awaitDrained(ctx context.Context, directory string) error {
	ctx, cancel := context.WithTimeout(ctx, drainedLimit)
	defer cancel()
	for {
		f, err := flock(directory, syscall.LOCK_EX)
		if err == nil {
			return f.Close()
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		timer := time.NewTimer(askAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("an earlier proxyd still serves clients, and nobody leads it: find it with `fuser %s`, and end it", filepath.Join(directory, drainingFile))
		}
	}
}

func flock(directory string, how int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(directory, drainingFile), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of draining processes: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB); err != nil {
		_ = f.Close() // it holds nothing
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return f, nil
}
