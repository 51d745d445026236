package pool

import (
	"fmt"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// Group is what Limits.PoolSize is for: one database and user. Servers of a
// standby are a group of their own, so that they take no places of the primary's.
type Group struct {
	Database, User string
	Standby        cluster.NodeID // "" for the primary
}

// Key is what two clients must have in common to use one server connection
// after the other.
type Key struct {
	Group
	Node   cluster.NodeID
	Epoch  uint64 // of the gate's opening: a server of an earlier one is never handed out; 0 for a standby
	Params string // the startup parameters a server keeps for life, canonical
}

// State of a server connection.
type State uint8

// States. Each but Gone is a list of the Ledger.
const (
	Gone       State = iota
	Connecting       // a client is opening it
	Idle             // for anyone with the same key
	Active           // a client has it
	Cleaning         // being reset before it is idle again
	states
)

func (s State) String() string {
	return [...]string{"gone", "connecting", "idle", "active", "cleaning"}[s]
}

// moves are the changes of state that exist.
var moves = [states][states]bool{
	Gone:       {Connecting: true},
	Connecting: {Active: true, Gone: true},
	Idle:       {Active: true, Gone: true},
	Active:     {Idle: true, Active: true, Cleaning: true, Gone: true},
	Cleaning:   {Idle: true, Gone: true},
}

// Server is one server connection in the books.
type Server struct {
	Key   Key
	Value any // the connection itself, set by Connected
	Lane  int // whose thread serves it, set before Connected

	shelf   *shelf
	state   State
	created time.Time
	since   time.Time // in this state
}

// State is where the server stands now.
func (s *Server) State() State { return s.state }

// Waiter is a client that waits for a server.
type Waiter struct {
	Key   Key
	Since time.Time
	Ready chan *Server // capacity 1; filled by the Pool, never by the Ledger

	wake   func() // called when Ready has been filled; nil for nobody
	queued bool
}

// Grant gives a waiter its server: Active to be used, Connecting to be opened
// by the waiter itself.
type Grant struct {
	Waiter *Waiter
	Server *Server
}

// Effects is what the caller has to do after a change, in this order.
type Effects struct {
	Close  []*Server // taken out of the books already
	Grants []Grant
}

// Limits of the ledger. Zero or less means no limit.
type Limits struct {
	PoolSize   int // servers for each database and user
	MaxServers int // servers in all
}

// Ledger keeps the books. It is not safe for concurrent use and opens and
// closes nothing itself.
type Ledger struct {
	limits Limits
	groups map[Group]*group
	latest *shelf // the one looked up last, which is mostly the next one, too
	counts [states]int
	total  int
}

// shelf holds the idle servers of one key.
type shelf struct {
	key   Key
	group *group
	idle  []*Server // the latest used last
	uses  int       // servers of the key, idle or not
}

type group struct {
	name    Group
	shelves map[Key]*shelf // those that have servers
	servers map[*Server]struct{}
	waiters []*Waiter // oldest first
	counts  [states]int
}

// NewLedger makes empty books.
func NewLedger(limits Limits) *Ledger {
	return &Ledger{limits: limits, groups: make(map[Group]*group)}
}

func (l *Ledger) group(g Group) *group {
	gr := l.groups[g]
	if gr == nil {
		gr = &group{name: g, shelves: make(map[Key]*shelf), servers: make(map[*Server]struct{})}
		l.groups[g] = gr
	}
	return gr
}

// shelfOf finds the shelf of a key, nil where no server has it.
func (l *Ledger) shelfOf(k Key) *shelf {
	if l.latest != nil && l.latest.key == k {
		return l.latest
	}
	g := l.groups[k.Group]
	if g == nil {
		return nil
	}
	if s := g.shelves[k]; s != nil {
		l.latest = s
		return s
	}
	return nil
}

// register enters a server that is new.
func (l *Ledger) register(s *Server) {
	g := l.group(s.Key.Group)
	sh := g.shelves[s.Key]
	if sh == nil {
		sh = &shelf{key: s.Key, group: g}
		g.shelves[s.Key] = sh
	}
	sh.uses++
	s.shelf = sh
	g.servers[s] = struct{}{}
	l.total++
}

// strike is the opposite.
func (l *Ledger) strike(s *Server) {
	g := s.shelf.group
	if s.shelf.uses--; s.shelf.uses == 0 {
		delete(g.shelves, s.Key)
		if l.latest == s.shelf {
			l.latest = nil
		}
	}
	delete(g.servers, s)
	l.total--
}

// move is the only function that changes a server's state.
func (l *Ledger) move(s *Server, to State, now time.Time) {
	from := s.state
	if !moves[from][to] {
		panic(fmt.Sprintf("pool: a server cannot go from %v to %v", from, to))
	}
	if from == Gone {
		l.register(s)
	}
	sh := s.shelf
	g := sh.group
	if from == Idle {
		i := len(sh.idle) - 1
		for sh.idle[i] != s { // mostly the last one
			i--
		}
		sh.idle = slices.Delete(sh.idle, i, i+1)
	}
	if from != Gone {
		g.counts[from]--
		l.counts[from]--
	}
	s.state, s.since = to, now
	if to == Gone {
		l.strike(s)
		return
	}
	g.counts[to]++
	l.counts[to]++
	if to == Idle {
		sh.idle = append(sh.idle, s)
	}
}

// AnyLane is for those who do not mind.
const AnyLane = -1

// near is how many idle servers are looked at for one of the same lane.
const near = 8

// Take gives an idle server at once, or nil: the one used last, or one used not
// much earlier where that spares two threads to work for one client. It never
// passes by somebody who waits for the same key, because then none is idle.
func (l *Ledger) Take(k Key, lane int, now time.Time) *Server {
	sh := l.shelfOf(k)
	if sh == nil || len(sh.idle) == 0 {
		return nil
	}
	last := len(sh.idle) - 1
	s := sh.idle[last]
	for i := last; lane != AnyLane && i >= 0 && i > last-near; i-- {
		if sh.idle[i].Lane == lane {
			s = sh.idle[i]
			break
		}
	}
	l.move(s, Active, now)
	return s
}

// Ask enters a waiter who may be served at once.
func (l *Ledger) Ask(w *Waiter, now time.Time) Effects {
	g := l.group(w.Key.Group)
	w.queued = true
	g.waiters = append(g.waiters, w)
	var e Effects
	l.settle(g, &e, now)
	return e
}

// Leave removes a waiter who gives up. It says false when the waiter has been
// granted a server already.
func (l *Ledger) Leave(w *Waiter) bool {
	if !w.queued {
		return false
	}
	g := l.group(w.Key.Group)
	i := slices.Index(g.waiters, w)
	g.waiters = slices.Delete(g.waiters, i, i+1)
	w.queued = false
	return true
}

// Connected: the waiter has opened its server and uses it.
func (l *Ledger) Connected(s *Server, value any, now time.Time) {
	s.Value, s.created = value, now
	l.move(s, Active, now)
}

// Release: its client is done with the server. A dirty one is cleaned first.
func (l *Ledger) Release(s *Server, dirty bool, now time.Time) Effects {
	if dirty {
		l.move(s, Cleaning, now)
		return Effects{}
	}
	return l.free(s, now)
}

// Cleaned: a server that was being cleaned is as good as new.
func (l *Ledger) Cleaned(s *Server, now time.Time) Effects { return l.free(s, now) }

// free makes a server idle, and then somebody's where somebody waits.
func (l *Ledger) free(s *Server, now time.Time) Effects {
	g := s.shelf.group
	l.move(s, Idle, now)
	var e Effects
	if l.over(g) {
		l.evict(g, &e, now)
	}
	if len(g.waiters) > 0 || l.limits.MaxServers > 0 && l.total >= l.limits.MaxServers {
		l.settle(g, &e, now)
	}
	return e
}

// Remove takes a server out of the books, in whatever state it is. It may be
// called more than once.
func (l *Ledger) Remove(s *Server, now time.Time) Effects {
	if s.state == Gone {
		return Effects{}
	}
	l.move(s, Gone, now)
	var e Effects
	l.settle(l.group(s.Key.Group), &e, now)
	return e
}

// SetLimits changes the limits and serves whom they let in. Servers above a
// lower limit go when they become idle.
func (l *Ledger) SetLimits(limits Limits, now time.Time) Effects {
	l.limits = limits
	var e Effects
	for _, g := range l.groups {
		l.serve(g, &e, now)
	}
	return e
}

// Expire takes out idle servers that were idle too long or are too old. Zero
// means never.
func (l *Ledger) Expire(idle, lifetime time.Duration, now time.Time) Effects {
	var e Effects
	for _, g := range l.groups {
		for s := range g.servers {
			if s.state != Idle {
				continue
			}
			if idle > 0 && now.Sub(s.since) >= idle || lifetime > 0 && now.Sub(s.created) >= lifetime {
				l.move(s, Gone, now)
				e.Close = append(e.Close, s)
			}
		}
	}
	for name, g := range l.groups {
		l.serve(g, &e, now)
		if len(g.servers) == 0 && len(g.waiters) == 0 {
			delete(l.groups, name)
		}
	}
	return e
}

// settle serves the group's waiters first and, where the limit of all servers
// binds, then everybody else's.
func (l *Ledger) settle(g *group, e *Effects, now time.Time) {
	l.serve(g, e, now)
	if l.limits.MaxServers > 0 {
		for _, other := range l.groups {
			if other != g && len(other.waiters) > 0 {
				l.serve(other, e, now)
			}
		}
	}
}

// serve grants what it can to the waiters of a group, oldest first.
func (l *Ledger) serve(g *group, e *Effects, now time.Time) {
	for i := 0; i < len(g.waiters); {
		s := l.find(g, g.waiters[i].Key, e, now)
		if s == nil {
			if l.nothingLeft(g) {
				return
			}
			i++
			continue
		}
		w := g.waiters[i]
		g.waiters = slices.Delete(g.waiters, i, i+1)
		w.queued = false
		e.Grants = append(e.Grants, Grant{w, s})
	}
}

// nothingLeft says that no further waiter of the group can be served either.
func (l *Ledger) nothingLeft(g *group) bool {
	return g.counts[Idle] == 0 && (!l.roomIn(g) || !l.room() && l.counts[Idle] == 0)
}

func (l *Ledger) roomIn(g *group) bool {
	return l.limits.PoolSize <= 0 || len(g.servers) < l.limits.PoolSize
}

// over says that there are more servers than a lowered limit allows.
func (l *Ledger) over(g *group) bool {
	return l.limits.PoolSize > 0 && len(g.servers) > l.limits.PoolSize ||
		l.limits.MaxServers > 0 && l.total > l.limits.MaxServers
}

func (l *Ledger) room() bool { return l.limits.MaxServers <= 0 || l.total < l.limits.MaxServers }

// find gives an idle server of the key, or room for a new one, which may cost
// an idle server of another key its place.
func (l *Ledger) find(g *group, k Key, e *Effects, now time.Time) *Server {
	if s := l.Take(k, AnyLane, now); s != nil {
		return s
	}
	if !l.roomIn(g) && !l.evict(g, e, now) {
		return nil
	}
	if !l.room() && !l.evict(g, e, now) && !l.evictAnywhere(e, now) {
		return nil
	}
	s := &Server{Key: k}
	l.move(s, Connecting, now)
	return s
}

// evict closes the group's server that has been idle longest.
func (l *Ledger) evict(g *group, e *Effects, now time.Time) bool {
	if g.counts[Idle] == 0 {
		return false
	}
	var oldest *Server
	for _, sh := range g.shelves {
		if len(sh.idle) > 0 && (oldest == nil || sh.idle[0].since.Before(oldest.since)) {
			oldest = sh.idle[0]
		}
	}
	if oldest == nil {
		return false
	}
	l.move(oldest, Gone, now)
	e.Close = append(e.Close, oldest)
	return true
}

func (l *Ledger) evictAnywhere(e *Effects, now time.Time) bool {
	if l.counts[Idle] == 0 {
		return false
	}
	for _, g := range l.groups {
		if l.evict(g, e, now) {
			return true
		}
	}
	return false
}

// Figures are a group's numbers.
type Figures struct {
	Group
	Servers    [states]int // by State
	Waiting    int
	OldestWait time.Duration
}

// Figures gives every group's numbers, in no order.
func (l *Ledger) Figures(now time.Time) []Figures {
	out := make([]Figures, 0, len(l.groups))
	for _, g := range l.groups {
		f := Figures{Group: g.name, Servers: g.counts, Waiting: len(g.waiters)}
		if len(g.waiters) > 0 {
			f.OldestWait = now.Sub(g.waiters[0].Since)
		}
		out = append(out, f)
	}
	return out
}
