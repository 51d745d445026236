package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/sql"
)

// sqlServer is the engine's connection to one server.
type sqlServer struct {
	d *daemon
	n *node
}

// readLimit is how long the engine waits for what only reads.
const readLimit = 10 * time.Second

var errTurnedAway = fmt.Errorf("%w: the database system is starting up or shutting down", execute.ErrUnreachable)

// call sends one statement. change says whether it changes anything: then it
// may be done although no answer comes, and a newer change that arrives first
// ends it, as the engine's connections end each other.
func (s *sqlServer) call(ctx context.Context, what string, change bool, do func() error) error {
	w, n := s.d.w, s.n
	if change {
		w.crossing()
	}
	w.seq++
	serial := w.seq
	out := fmt.Errorf("%s on %s: %w: no answer", what, n.id(), execute.ErrUnknown)
	over := false
	defer func() { over = true }()
	err := w.wait(ctx, func(wake func()) {
		if change {
			keepalive(s.d.w, n, n.crashes, &over, wake)
		} else {
			w.at(readLimit, wake)
		}
		answer := func(e error) {
			w.send(n.i, 0, func() { out = e; wake() })
		}
		if change && w.lostRequest > 0 && w.chance(w.lostRequest) {
			w.at(10*time.Millisecond, wake) // the connection broke; it never arrived
			return
		}
		w.send(0, n.i, func() { s.arrive(what, serial, change, do, answer) })
	})
	if err != nil {
		out = fmt.Errorf("%s on %s: %w: %w", what, n.id(), execute.ErrUnknown, err)
	}
	if change {
		w.crossing()
	}
	return out
}

func (s *sqlServer) arrive(what string, serial uint64, change bool, do func() error, answer func(error)) {
	w, n := s.d.w, s.n
	switch n.proc {
	case down:
		answer(fmt.Errorf("%s on %s: connect: %w: connection refused", what, n.id(), execute.ErrUnreachable))
		return
	case starting, stopping:
		answer(fmt.Errorf("%s on %s: connect: %w", what, n.id(), errTurnedAway))
		return
	}
	life := n.life
	if change {
		w.at(30*time.Second, func() {
			if n.life != life {
				answer(fmt.Errorf("%s on %s: %w: connection reset", what, n.id(), execute.ErrUnknown))
			}
		})
	}
	n.later(w.between(0, 2*time.Millisecond), func() {
		if n.proc != up {
			answer(fmt.Errorf("%s on %s: %w: terminating connection", what, n.id(), execute.ErrUnknown))
			return
		}
		if change {
			if serial < n.newest {
				return // a newer session of the engine's has ended this one
			}
			n.newest = serial
			w.note(what, uint64(n.i))
			w.tracef("%s: %s", n.id(), what)
		}
		err := do()
		if change && w.lostAnswer > 0 && w.chance(w.lostAnswer) {
			w.tracef("%s: the answer to %s is lost", n.id(), what)
			err = fmt.Errorf("%s on %s: %w: the connection was lost", what, n.id(), execute.ErrUnknown)
		}
		answer(err)
	})
}

// Warm opens the connection.
func (s *sqlServer) Warm(ctx context.Context) error {
	return s.call(ctx, "ping", false, func() error { return nil })
}

// Identity reads who the server is.
func (s *sqlServer) Identity(ctx context.Context) (id sql.Identity, err error) {
	err = s.call(ctx, "identity", false, func() error {
		d := &s.n.disk
		id = sql.Identity{InRecovery: s.n.recovery, SystemIdentifier: d.system, Timeline: d.tli}
		if s.n.recovery {
			id.Timeline = d.controlTLI
		} else {
			id.Flushed = s.d.w.end(d, d.flushed)
		}
		return nil
	})
	return id, err
}

// Show reads a setting.
func (s *sqlServer) Show(ctx context.Context, name string) (v sql.Setting, err error) {
	err = s.call(ctx, "show", false, func() error {
		v = sql.Setting{Value: s.n.loaded, Source: "postgresql.auto.conf:3"}
		if s.d.w.policy.SwapMethod == cluster.SwapFiles {
			v.Source = "postgresql.conf:3"
		}
		if name == "primary_slot_name" {
			v.Value = s.n.slotTold
		}
		return nil
	})
	return v, err
}

// Receiving reads what a standby receives.
func (s *sqlServer) Receiving(ctx context.Context) (r sql.Receiving, err error) {
	err = s.call(ctx, "receiving", false, func() error {
		n, w := s.n, s.d.w
		// A session takes a reload up before its next statement; the startup
		// process may not have.
		r = sql.Receiving{Conninfo: n.told, Receiver: n.receiver != nil, Received: n.received, Replayed: w.end(&n.disk, n.replayed)}
		r.Idle = n.recovery && !n.paused && n.receiver == nil && n.replayed >= n.disk.flushed
		return nil
	})
	return r, err
}

// Confirmed reads the state of synchronous replication.
func (s *sqlServer) Confirmed(ctx context.Context) (c sql.Confirmed, err error) {
	c = sql.Confirmed{By: map[cluster.NodeID]cluster.LSN{}, Twice: map[cluster.NodeID]bool{}}
	err = s.call(ctx, "confirmed", false, func() error {
		n, w := s.n, s.d.w
		if n.recovery {
			return errors.New("recovery is in progress")
		}
		c.Names, c.Flushed, c.Waiting = n.loaded, w.end(&n.disk, n.disk.flushed), len(n.waiting)
		c.Settled = n.published == n.loaded
		for _, l := range n.senders {
			if !l.atSender || !l.streaming || !contains(w.names(l.names), l.name) {
				continue
			}
			id := cluster.NodeID(l.name)
			if _, seen := c.By[id]; seen {
				c.Twice[id] = true
			}
			c.By[id] = l.flushed
		}
		return nil
	})
	return c, err
}

func contains(set cluster.SyncSet, name string) bool {
	for _, m := range set.Members {
		if string(m) == name {
			return true
		}
	}
	return false
}

// StreamsTo says whether a sender streams to a standby.
func (s *sqlServer) StreamsTo(ctx context.Context, id cluster.NodeID) (ok bool, state string, err error) {
	err = s.call(ctx, "streams", false, func() error {
		state = "absent"
		if slot := s.n.disk.slot(cluster.SlotName(id)); slot != nil && slot.lost {
			state = sql.SlotLost
		}
		for _, l := range s.n.senders {
			if l.atSender && l.name == string(id) {
				state = "catchup"
				if l.streaming {
					ok, state = true, "streaming"
				}
			}
		}
		return nil
	})
	return ok, state, err
}

// SwitchLSN reads where a timeline began.
func (s *sqlServer) SwitchLSN(ctx context.Context, tli cluster.Timeline) (at cluster.LSN, err error) {
	err = s.call(ctx, "history", false, func() error {
		if tli <= 1 {
			return nil
		}
		for _, h := range s.n.disk.history {
			if h.tli == tli {
				at = h.at
				return nil
			}
		}
		return fmt.Errorf("no such timeline %d", tli)
	})
	return at, err
}

// AlterSystem writes a setting and reloads; the connection may break between
// the two.
func (s *sqlServer) AlterSystem(ctx context.Context, name, value string) error {
	return s.call(ctx, "ALTER SYSTEM SET "+name+" = '"+value+"'", true, func() error {
		n, w := s.n, s.d.w
		switch name {
		case "synchronous_standby_names":
			w.checkNames(n, value)
			n.disk.names, n.ours = value, true
		case "primary_conninfo":
			n.disk.conninfo = value
		case "primary_slot_name":
			n.disk.slotName = value
		default:
			return fmt.Errorf("the model has no setting %s", name)
		}
		if w.lostAnswer > 0 && w.chance(w.lostAnswer/4) {
			return fmt.Errorf("reload: %w: the connection was lost", execute.ErrUnknown)
		}
		n.reload()
		return nil
	})
}

// EnsureSlot makes a replication slot.
func (s *sqlServer) EnsureSlot(ctx context.Context, name string) error {
	return s.call(ctx, "create slot "+name, true, func() error { s.n.disk.ensureSlot(name); return nil })
}

// DropSlots drops what a standby kept.
func (s *sqlServer) DropSlots(ctx context.Context, names []string) error {
	return s.call(ctx, "drop slots", true, func() error {
		if s.n.recovery {
			s.n.disk.slots = slices.DeleteFunc(s.n.disk.slots, func(x slot) bool { return slices.Contains(names, x.name) && s.n.holder(x.name) == nil })
		}
		return nil
	})
}

// Reload has the files read.
func (s *sqlServer) Reload(ctx context.Context) error {
	return s.call(ctx, "reload", true, func() error { s.n.reload(); return nil })
}

// ResumeReplay ends a pause.
func (s *sqlServer) ResumeReplay(ctx context.Context) error {
	return s.call(ctx, "resume replay", true, func() error { s.n.paused = false; s.n.replay(); return nil })
}

// Checkpoint makes one.
func (s *sqlServer) Checkpoint(ctx context.Context) error {
	return s.call(ctx, "CHECKPOINT", true, func() error { s.n.checkpointNow(); return nil })
}

// Promote asks a standby to become a primary.
func (s *sqlServer) Promote(ctx context.Context) error {
	return s.call(ctx, "pg_promote", true, func() error {
		if !s.n.recovery {
			return errors.New("recovery is not in progress")
		}
		s.d.w.checkPromotion(s.n)
		s.n.promote()
		return nil
	})
}

var _ = decide.ParseSyncNames
