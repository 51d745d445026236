package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute/steps"
	"github.com/pgtandem/pgtandem/proxyd/handover"
	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// What is said between a proxyd and the earlier ones that it followed.
const (
	opRelease   = "release"      // to the earlier: stop the engine, and keep to my gate; answered by released
	opServing   = "serving"      // to the earlier: I take clients; take none any more
	opGateClose = "gate.close"   // to the earlier: gateClose, answered by gateClosed
	opGateOpen  = "gate.open"    // to the earlier: gateOpen
	opDoubt     = "gate.doubt"   // both ways: doubt
	opSuspect   = "node.suspect" // from the earlier: suspicion
	opLeave     = "node.leave"   // to the earlier: left
	opCancel    = "cancel"       // to the earlier: cancelRequest, answered by cancelAnswer
	opReconnect = "reconnect"    // to the earlier: a database
	opKill      = "kill"         // to the earlier: a database
)

// gateClose asks for a closed gate. It is answered when no further statement
// can reach a server; open transactions are let end within Wait unless Cut.
type gateClose struct {
	Reason string        `json:"reason"`
	Cut    bool          `json:"cut"`
	Wait   time.Duration `json:"wait"`
}

type gateClosed struct {
	Open int `json:"open"` // transactions
}

// gateOpen opens a gate, unless either side has doubted the node since it was
// decided: Heard are the doubts of that process that were known then, Said our
// own.
type gateOpen struct {
	Term   cluster.Term   `json:"term"`
	Node   cluster.Node   `json:"node"`
	Record cluster.Record `json:"record"`
	Heard  uint64         `json:"heard"`
	Said   uint64         `json:"said"`
}

type gateOpened struct {
	Doubted bool `json:"doubted"` // it is not open
}

type doubt struct {
	Node   cluster.NodeID `json:"node"`
	Reason string         `json:"reason"`
}

type suspicion struct {
	Node cluster.NodeID `json:"node"`
}

// left is a standby that nothing may be read from any more. An earlier process
// sends no more reads to standbys, but what was begun there may still be open.
type left struct {
	Node   cluster.NodeID `json:"node"`
	Reason string         `json:"reason"`
}

type cancelRequest struct {
	PID uint32         `json:"pid"`
	Key wire.CancelKey `json:"key"`
}

type cancelAnswer struct {
	Known bool `json:"known"` // the key is a client's
}

// How long an earlier process has to confirm, and to be gone when it does not.
const (
	confirmLimit = 2 * time.Second
	killLimit    = 5 * time.Second
)

// member is an earlier process whose clients keep to our gate.
type member struct {
	*handover.Earlier
	doubts atomic.Uint64 // heard of it
}

// fleet is our gate together with those of the earlier processes. Theirs are
// never open without ours having been opened to the same node, and ours is not
// closed before they have confirmed that theirs are, or are dead: what is done
// behind a closed gate is not seen by any client of any of them.
type fleet struct {
	*pool.Gate
	log     *slog.Logger
	record  func() cluster.Record
	suspect func(cluster.NodeID)
	gone    func(m *member, left int)
	said    atomic.Uint64 // doubts of ours

	mu      sync.Mutex
	members []*member
}

var _ steps.Gate = (*fleet)(nil)

// Passing implements steps.Gate.
func (f *fleet) Passing() (open bool, node cluster.NodeID, term cluster.Term) {
	s := f.Status()
	return s.State == "open", cluster.NodeID(s.Node), cluster.Term(s.Term)
}

func (f *fleet) list() []*member {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.members)
}

// join begins to listen to an earlier process that keeps to our gate.
func (f *fleet) join(m *member) {
	f.mu.Lock()
	f.members = append(f.members, m)
	f.mu.Unlock()
	m.Serve(func(_ context.Context, op string, body json.RawMessage) (any, error) { return nil, f.hear(m, op, body) })
	go func() {
		<-m.Done()
		f.mu.Lock()
		f.members = slices.DeleteFunc(f.members, func(o *member) bool { return o == m })
		left := len(f.members)
		f.mu.Unlock()
		m.Close()
		f.gone(m, left)
	}()
}

// hear takes what an earlier process says.
func (f *fleet) hear(m *member, op string, body json.RawMessage) error {
	switch op {
	case opDoubt:
		var d doubt
		if err := json.Unmarshal(body, &d); err != nil {
			return err
		}
		m.doubts.Add(1)
		f.Doubt(d.Node, d.Reason)
		f.doubted(d.Node, d.Reason)
		return nil
	case opSuspect:
		var s suspicion
		if err := json.Unmarshal(body, &s); err != nil {
			return err
		}
		f.suspect(s.Node)
		return nil
	}
	return fmt.Errorf("%q is not known here", op)
}

// Close implements execute.Gate.
func (f *fleet) Close(ctx context.Context, reason string, cut bool) (int, error) {
	members := f.list()
	type result struct {
		open int
		err  error
	}
	results := make(chan result, len(members))
	for _, m := range members {
		go func() {
			open, err := f.closeOf(ctx, m, reason, cut)
			results <- result{open, err}
		}()
	}
	open, err := f.Gate.Close(ctx, reason, cut)
	for range members {
		r := <-results
		open += r.open
		err = errors.Join(err, r.err)
	}
	return open, err
}

// closeOf closes an earlier process's gate. One that does not confirm it is
// killed: its clients are cut off, and nothing of theirs reaches a server.
func (f *fleet) closeOf(ctx context.Context, m *member, reason string, cut bool) (open int, err error) {
	open, err = f.askToClose(m, gateClose{Reason: reason, Cut: cut})
	if deadline, ok := ctx.Deadline(); err == nil && open > 0 {
		wait := time.Until(deadline)
		if !ok {
			wait = time.Minute
		}
		if wait > 0 {
			open, err = f.askToClose(m, gateClose{Reason: reason, Wait: wait})
		}
	}
	if err == nil {
		return open, nil
	}
	if !errors.Is(err, handover.ErrGone) {
		f.log.Error("an earlier proxyd does not confirm that its gate is closed, and is killed", "pid", m.PID(), "error", err)
	}
	if err := m.End(killLimit); err != nil {
		return 0, fmt.Errorf("close the gate of the earlier proxyd: %w", err)
	}
	return 0, nil
}

func (f *fleet) askToClose(m *member, c gateClose) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), confirmLimit+c.Wait)
	defer cancel()
	var r gateClosed
	err := m.Call(ctx, opGateClose, c, &r)
	return r.Open, err
}

// Open implements execute.Gate. An earlier process that cannot be told keeps
// its gate closed.
func (f *fleet) Open(ctx context.Context, term cluster.Term, node cluster.Node) error {
	if err := f.Gate.Open(ctx, term, node); err != nil {
		return err
	}
	var asked sync.WaitGroup
	for _, m := range f.list() {
		asked.Go(func() {
			bounded, cancel := context.WithTimeout(ctx, confirmLimit)
			defer cancel()
			if err := f.openOf(bounded, m, term, node); err != nil && !errors.Is(err, handover.ErrGone) {
				f.log.Warn("the gate of an earlier proxyd stays closed", "pid", m.PID(), "error", err)
			}
		})
	}
	asked.Wait()
	return nil
}

// openOf opens an earlier process's gate for as long as ours is open. A doubt
// that crossed it on its way closes ours too, where it still has a meaning, and
// is told again otherwise.
func (f *fleet) openOf(ctx context.Context, m *member, term cluster.Term, node cluster.Node) error {
	for {
		o := gateOpen{Term: term, Node: node, Record: f.record(), Heard: m.doubts.Load(), Said: f.said.Load()}
		if open, n, t := f.Passing(); !open || n != node.ID || t != term {
			return nil
		}
		var r gateOpened
		if err := m.Call(ctx, opGateOpen, o, &r); err != nil || !r.Doubted {
			return err
		}
		timer := time.NewTimer(askAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// doubted passes a doubt on: a crash concerns all clients of a server, those of
// the process included that has told of it, whose gate may be open again.
func (f *fleet) doubted(node cluster.NodeID, reason string) {
	f.said.Add(1)
	f.tell(opDoubt, doubt{node, reason})
}

// cancel passes a CancelRequest on that is for none of our clients, and waits
// until it has been dealt with. It says whether it was for one of theirs.
func (f *fleet) cancel(pid uint32, key wire.CancelKey) bool {
	ctx, cancel := context.WithTimeout(context.Background(), cancelLimit)
	defer cancel()
	var asked sync.WaitGroup
	var known atomic.Bool
	for _, m := range f.list() {
		asked.Go(func() {
			var a cancelAnswer
			if err := m.Call(ctx, opCancel, cancelRequest{pid, key}, &a); err != nil && !errors.Is(err, handover.ErrGone) {
				f.log.Warn("a cancel request could not be passed on", "error", err)
			}
			if a.Known {
				known.Store(true)
			}
		})
	}
	asked.Wait()
	return known.Load()
}

// cancelLimit is more than the session's own limit for delivering one.
const cancelLimit = 6 * time.Second

// tell says something to all earlier processes that needs no answer.
func (f *fleet) tell(op string, what any) {
	for _, m := range f.list() {
		m.Tell(op, what)
	}
}
