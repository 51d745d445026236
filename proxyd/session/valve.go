package session

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// valve is what a person has paused and disabled. It is no part of the gate:
// a pause outlasts a failover, and is ended by whoever began it.
type valve struct {
	shut atomic.Bool // something is paused: all that the hot path asks

	mu       sync.Mutex
	all      bool
	paused   map[string]bool
	disabled map[string]bool
	changed  chan struct{} // closed when a pause begins or ends
}

func newValve() *valve {
	return &valve{paused: make(map[string]bool), disabled: make(map[string]bool), changed: make(chan struct{})}
}

// open says whether the database's clients may have a server.
func (v *valve) open(database string) bool {
	if !v.shut.Load() {
		return true
	}
	open, _ := v.look(database)
	return open
}

func (v *valve) look(database string) (open bool, changed <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.all && !v.paused[database], v.changed
}

// turn pauses or resumes; an empty name is all of them. It says false when
// that was so already.
func (v *valve) turn(database string, pause bool) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case database == "":
		if v.all == pause {
			return false
		}
		v.all = pause
	case v.paused[database] == pause:
		return false
	case pause:
		v.paused[database] = true
	default:
		delete(v.paused, database)
	}
	v.shut.Store(v.all || len(v.paused) > 0)
	close(v.changed)
	v.changed = make(chan struct{})
	return true
}

func (v *valve) setDisabled(database string, disabled bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if disabled {
		v.disabled[database] = true
	} else {
		delete(v.disabled, database)
	}
}

// refusal is what a login to a disabled database is told, in the words of a
// server whose pg_database.datallowconn is false.
func (v *valve) refusal(database string) *wire.Notice {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.disabled[database] {
		return nil
	}
	return wire.Fatalf(wire.CodeNotInPrerequisiteState, "database \"%s\" is not currently accepting connections", database).
		WithDetail("An administrator has disabled it in the proxy.")
}

// names lists what is paused and disabled.
func (v *valve) names() (all bool, paused, disabled []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.all, slices.Sorted(maps.Keys(v.paused)), slices.Sorted(maps.Keys(v.disabled))
}

const pauseReason = "an administrator has paused the database"

// Pause holds the clients of a database that ask for a server, or all of them
// where the name is empty, and returns when no server of theirs is left, in
// PostgreSQL's list either: each is closed when its client gives it back, and a
// client in session mode does so between two transactions, unless it holds what
// cannot be carried to another server. When ctx ends before that the pause is taken back.
func (s *Server) Pause(ctx context.Context, database string) error {
	began := s.valve.turn(database, true)
	if !began && database == "" {
		return wire.Errorf(wire.CodeNotInPrerequisiteState, "everything is paused already").WithHint("RESUME ends that.")
	}
	for {
		changed := s.linksChanged()
		s.retire(database, pauseReason)
		open, turned := s.valve.look(database)
		if open {
			return wire.Errorf(wire.CodeQueryCanceled, "the pause was ended before every server was given back").WithDetail("Somebody gave RESUME.")
		}
		if !s.hasServers(database) {
			return nil
		}
		select {
		case <-changed:
		case <-turned:
		case <-ctx.Done():
			if began {
				s.valve.turn(database, false)
			}
			return context.Cause(ctx)
		}
	}
}

// Resume ends a pause.
func (s *Server) Resume(database string) error {
	if s.valve.turn(database, false) {
		return nil
	}
	if database != "" {
		n := wire.Errorf(wire.CodeNotInPrerequisiteState, "database \"%s\" is not paused", database)
		if all, _, _ := s.valve.names(); all {
			n = n.WithHint("Everything is: RESUME without a name ends that.")
		}
		return n
	}
	n := wire.Errorf(wire.CodeNotInPrerequisiteState, "the proxy is not paused")
	if _, paused, _ := s.valve.names(); len(paused) > 0 {
		n = n.WithHint("A database is: RESUME %s ends that.", paused[0])
	}
	return n
}

// Disable refuses logins to a database from now on.
func (s *Server) Disable(database string) { s.valve.setDisabled(database, true) }

// Enable lets them in again.
func (s *Server) Enable(database string) { s.valve.setDisabled(database, false) }

// Reconnect closes the database's servers as they are given back.
func (s *Server) Reconnect(database string) {
	s.retire(database, "an administrator asked for new connections")
}

// WaitClose returns when no server is left that is to be closed.
func (s *Server) WaitClose(ctx context.Context, database string) error {
	for {
		list, changed := s.snapshotBackends()
		left := slices.ContainsFunc(list, func(b *backend) bool { return of(b.server.Key.Group, database) && b.closing() })
		if !left {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// killGrace is how long a client that is ended has to take its last message.
const killGrace = time.Second

// Kill ends the database's clients and servers at once, and pauses it.
func (s *Server) Kill(database string) {
	s.valve.turn(database, true)
	for _, c := range s.clientList() {
		if of(c.group, database) && !c.atConsole {
			c.kill()
		}
	}
	list, _ := s.snapshotBackends()
	for _, b := range list {
		if of(b.server.Key.Group, database) {
			b.kill(nil)
		}
	}
}

// KillClient ends one client, and its server with it.
func (s *Server) KillClient(id uint64) bool {
	for _, c := range s.clientList() {
		if c.id == id {
			c.kill()
			return true
		}
	}
	return false
}

// kill ends the client, telling it why where it can still be told.
func (c *client) kill() {
	c.refused.Store(wire.Fatalf(wire.CodeAdminShutdown, "terminating connection due to administrator command"))
	if b := c.link.Load(); b != nil {
		b.kill(c)
	}
	c.cancelMu.Lock()
	if c.cancelWait != nil {
		c.cancelWait()
	}
	c.cancelMu.Unlock()
	c.wake()
	time.AfterFunc(killGrace, c.abort) // closing what is closed already does nothing
}

// of says whether a group is of the database, or any where that is empty.
func of(g pool.Group, database string) bool { return database == "" || g.Database == database }

// retire has the database's servers closed as they are given back.
func (s *Server) retire(database, reason string) {
	list, _ := s.snapshotBackends()
	for _, b := range list {
		if of(b.server.Key.Group, database) {
			b.retire(reason)
		}
	}
}

// hasServers says whether a database has servers: those that are being opened
// are in the books, those that are about to go have their connection still.
func (s *Server) hasServers(database string) bool {
	for _, f := range s.pool.Figures() {
		if of(f.Group, database) && f.Servers != [len(f.Servers)]int{} {
			return true
		}
	}
	list, _ := s.snapshotBackends()
	return slices.ContainsFunc(list, func(b *backend) bool { return of(b.server.Key.Group, database) })
}

// retire closes the server when its client gives it back, and at once when
// none has it.
func (b *backend) retire(reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dead {
		return
	}
	b.retiring, b.reason = true, reason
	if b.client == nil || b.leavable() {
		b.partLocked()
	}
}

// leavable says whether a client in session mode can be carried to another
// server now. The lock is held.
func (b *backend) leavable() bool {
	return b.client.mode == ModeSession && b.client.traits == 0 && b.pipe.Idle() && !b.partial
}

// closing says whether the server is to be closed and is not yet.
func (b *backend) closing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.parting || !b.dead && (b.retiring || b.draining || b.doubted)
}

// kill severs the link, if the client has it still; nil is any client. A
// statement that runs is canceled, which the server would otherwise do when it
// sends its answer; but a commit that is awaited is not, since that would show
// what no standby has.
func (b *backend) kill(c *client) {
	b.mu.Lock()
	if b.dead || c != nil && b.client != c {
		b.mu.Unlock()
		return
	}
	running := !b.pipe.Quiet() && !b.pipe.Committing()
	b.reason = "an administrator has ended it"
	b.severLocked()
	b.mu.Unlock()
	if !running {
		return
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if !b.s.stopping {
		b.s.wg.Go(func() { b.s.deliverCancel(b) })
	}
}
