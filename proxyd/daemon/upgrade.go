package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/handover"
)

// The next proxyd takes the listeners, the engine and the control socket; this
// one serves the clients that it has until they have gone. Only one of them has
// the engine: ours has stopped before the next one's begins, and from then on
// our gate does what theirs does.

// readyLimit is how long the next proxyd has to read its configuration, and
// releaseLimit how long this one has to stop its engine.
const (
	readyLimit   = 30 * time.Second
	releaseLimit = 60 * time.Second
)

// succession is the wait for a next process to be ready.
type succession struct {
	next  *successor // nil: none was started
	limit <-chan time.Time
}

func (s *succession) asked() <-chan struct{} {
	if s.next == nil {
		return nil
	}
	return s.next.asked
}

func (s *succession) ended() <-chan struct{} {
	if s.next == nil {
		return nil
	}
	return s.next.Done()
}

// untilTheEnd waits for the end, or for a next process that is ready: then the
// engine is to be stopped, and its release to be answered.
func (d *Daemon) untilTheEnd(ctx context.Context, failed <-chan error) (*successor, error) {
	var s succession
	for {
		select {
		case <-ctx.Done():
			d.log.Info("proxyd stops")
			return nil, d.giveUp(&s, nil)
		case err := <-failed:
			d.log.Error("proxyd stops, because a part of it failed", "error", err)
			return nil, errors.Join(err, d.giveUp(&s, nil))
		case <-d.opt.Upgrade:
			if err := d.begin(&s); err != nil {
				d.upgradeFailed(err)
			}
		case <-s.asked():
			if err := d.mayHandOver(); err != nil {
				s.next.answer <- releaseAnswer{err: err}
				d.upgradeFailed(d.giveUp(&s, err))
				continue
			}
			return s.next, nil
		case <-s.ended():
			d.upgradeFailed(d.giveUp(&s, errors.New("the next proxyd ended before it was ready: it says why itself")))
		case <-s.limit:
			d.upgradeFailed(d.giveUp(&s, fmt.Errorf("the next proxyd was not ready within %v", readyLimit)))
		}
	}
}

// begin starts the next process, unless one is on its way.
func (d *Daemon) begin(s *succession) error {
	if s.next != nil {
		return errors.New("the next proxyd is being started already")
	}
	if err := d.mayHandOver(); err != nil {
		return err
	}
	var earlier []*handover.Peer
	for _, m := range d.fleet.list() {
		earlier = append(earlier, m.Peer)
	}
	child, err := handover.Start(d.opt.Program, d.opt.Log, socketsOf(d.listeners), earlier)
	if err != nil {
		return err
	}
	s.next = &successor{Child: child, d: d, asked: make(chan struct{}), answer: make(chan releaseAnswer, 1), serving: make(chan struct{})}
	s.limit = time.After(readyLimit)
	child.Serve(s.next.lead)
	d.event(cluster.Event{Level: cluster.Info, Kind: "upgrade.begun", Text: fmt.Sprintf("the next proxyd was started, process %d", child.PID())})
	return nil
}

// giveUp ends a next process that is not to follow.
func (d *Daemon) giveUp(s *succession, why error) error {
	if s.next != nil {
		_ = s.next.Kill() // why it ends is known
		s.next.Close()
	}
	s.next, s.limit = nil, nil
	return why
}

func (d *Daemon) upgradeFailed(err error) {
	d.event(cluster.Event{Level: cluster.Error, Kind: "upgrade.failed", Text: "no next proxyd has followed, this one goes on: " + err.Error()})
}

// mayHandOver says why this is not the moment: what is under way cannot be
// carried over.
func (d *Daemon) mayHandOver() error {
	open, _, _ := d.fleet.Passing()
	l := d.sessions.Look()
	switch st, err := (backend{d}).State(context.Background()); {
	case len(d.opt.Program) == 0:
		return errors.New("it is not known how this program was started")
	case err != nil:
		return err
	case !open:
		return fmt.Errorf("clients are held (%s): wait until the gate is open", d.gate.Reason())
	case st.Operation != nil:
		return fmt.Errorf("an operation is in progress (%s): wait for its end", st.Operation.Plan.Action)
	case l.PausedAll || len(l.Paused) > 0:
		return errors.New("a pause is in force: RESUME first")
	}
	return nil
}

// handOver gives the engine up, which has stopped, and serves the clients there
// are until they have gone.
func (d *Daemon) handOver(ctx context.Context, next *successor, clients *part) error {
	d.next.Store(next)
	d.endReads() // a reload may have begun them anew while the parts ended
	t, open := d.gate.Target()
	a := releaseAnswer{released: released{Open: open, Term: t.Term, Node: t.Node, Heard: make(map[int]uint64), Said: d.fleet.said.Load(), Disabled: d.sessions.Look().Disabled}}
	lock, err := lockDraining(d.config().State.Directory)
	if err == nil {
		defer lock.Close() //nolint:errcheck // the process's end does it too
		err = d.store.Close()
	}
	for _, m := range d.fleet.dismiss() {
		a.Heard[m.PID()] = m.doubts.Load()
		defer m.Peer.Close() // by then the next one has it
	}
	a.Doubts, a.err = next.doubts.Load(), err
	next.answer <- a
	return d.drain(ctx, next, clients)
}

// dismiss stops listening to the earlier processes, which are another's now.
func (f *fleet) dismiss() []*member {
	f.mu.Lock()
	members := f.members
	f.members = nil
	f.mu.Unlock()
	for _, m := range members {
		m.Pause()
	}
	return members
}

// predecessor is what this process follows, nil where it was started afresh.
type predecessor struct {
	*handover.Inheritance
	released
}

// take asks an earlier process to stop its engine. From its answer on, this
// process is the only one that acts.
func (d *Daemon) take(ctx context.Context) error {
	in := d.opt.Inherited
	if in == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, releaseLimit)
	defer cancel()
	p := &predecessor{Inheritance: in}
	d.parent = &member{Earlier: in.Parent}
	d.fleet.join(d.parent)
	if err := in.Parent.Call(ctx, opRelease, nil, &p.released); err != nil {
		return fmt.Errorf("follow the running proxyd: %w", err)
	}
	for _, e := range in.Draining {
		m := &member{Earlier: e}
		m.doubts.Store(p.Heard[e.PID()])
		d.fleet.join(m)
	}
	d.fleet.said.Store(p.Said)
	d.predecessor = p
	return nil
}

// adopt opens our gate as the one that we follow has left it, which was proved
// a moment ago, so that nobody waits. The nodes are looked at first: the engine
// is to decide from what it has seen.
func (d *Daemon) adopt(ctx context.Context) {
	p := d.predecessor
	if p == nil {
		return
	}
	for _, db := range p.Disabled {
		d.sessions.Disable(db)
	}
	ctx, cancel := context.WithTimeout(ctx, firstLook)
	defer cancel()
	d.firstLook(ctx)
	node, known := d.engine.Input().Policy.Node(p.Node.ID)
	if p.Open && known && node.Addr() == p.Node.Addr() && d.parent.doubts.Load() == p.Doubts {
		if err := d.gate.Open(ctx, p.Term, node); err == nil {
			return
		}
	}
	_, err := d.fleet.Close(ctx, "the next proxyd proves the primary anew", false)
	d.said("hold the clients of the earlier proxyd", err)
}

// firstLook waits until every node has been looked at.
func (d *Daemon) firstLook(ctx context.Context) {
	for {
		changed := d.observer.Changed()
		snap, seen := d.observer.Snapshot(), true
		for _, n := range d.engine.Input().Policy.Nodes {
			seen = seen && !snap.Node(n.ID).LastTry.IsZero()
		}
		if seen {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

const firstLook = 3 * time.Second

// tookOver tells the earlier process that clients are taken here now.
func (d *Daemon) tookOver(ctx context.Context) {
	if d.predecessor == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, confirmLimit)
	defer cancel()
	if err := d.parent.Call(ctx, opServing, nil, nil); err != nil {
		d.log.Error("the earlier proxyd does not hear that it is followed", "error", err)
	}
	d.event(cluster.Event{Level: cluster.Info, Kind: "upgrade.done",
		Text: fmt.Sprintf("proxyd %s has followed process %d, which serves its clients until they have gone", cmp.Or(d.opt.Version, "?"), d.parent.PID())})
}

// memberGone notes the end of an earlier process.
func (d *Daemon) memberGone(m *member, left int) {
	d.log.Info("an earlier proxyd has ended", "pid", m.PID(), "left", left)
}
