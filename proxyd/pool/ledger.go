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
	early   float64   // the part of its lifetime that it is spared
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
	turn   uint64 // who asked earlier has a lower one
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

// Ledger keeps the books. It is not safe for concurrent use and opens and
// closes nothing itself.
type Ledger struct {
	limits    Limits
	groups    map[Group]*group
	databases map[string]*account
	users     map[string]*account
	all       account
	latest    *shelf // the one looked up last, which is mostly the next one, too
	hungry    map[*group]struct{}
	asked     uint64 // waiters until now
	made      uint64 // servers until now
	round     uint64
}

// shelf holds the idle servers of one key.
type shelf struct {
	key   Key
	group *group
	idle  []*Server // the latest used last
	uses  int       // servers of the key, idle or not
}

type group struct {
	name     Group
	quota    Quota
	accounts [3]*account    // of the database, the user, and all
	shelves  map[Key]*shelf // those that have servers
	servers  map[*Server]struct{}
	waiters  queue
	counts   [states]int
	blocked  uint64 // the round in which nothing more could be granted
}

// NewLedger makes empty books.
func NewLedger(limits Limits) *Ledger {
	return &Ledger{
		limits: limits, groups: make(map[Group]*group), hungry: make(map[*group]struct{}),
		databases: make(map[string]*account), users: make(map[string]*account), all: account{limit: limits.MaxServers},
	}
}

func (l *Ledger) group(g Group) *group {
	gr := l.groups[g]
	if gr == nil {
		gr = &group{name: g, quota: l.limits.quota(g), shelves: make(map[Key]*shelf), servers: make(map[*Server]struct{})}
		gr.accounts = [3]*account{
			join(l.databases, g.Database, l.limits.ofDatabase(g.Database)), join(l.users, g.User, l.limits.ofUser(g.User)), &l.all,
		}
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
	for _, a := range g.accounts {
		a.servers++
	}
	l.made++
	s.early = earlier(l.made)
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
	for _, a := range g.accounts {
		a.servers--
	}
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
		g.addIdle(-1)
	}
	if from != Gone {
		g.counts[from]--
	}
	s.state, s.since = to, now
	if to == Gone {
		l.strike(s)
		return
	}
	g.counts[to]++
	if to == Idle {
		sh.idle = append(sh.idle, s)
		g.addIdle(1)
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
	l.asked++
	w.queued, w.turn = true, l.asked
	if g.waiters.push(w); g.waiters.len() == 1 {
		l.hungry[g] = struct{}{}
	}
	var e Effects
	l.serve(g, &e, now)
	return e
}

// Leave removes a waiter who gives up. It says false when the waiter has been
// granted a server already.
func (l *Ledger) Leave(w *Waiter) bool {
	if !w.queued {
		return false
	}
	g := l.group(w.Key.Group)
	g.waiters.remove(w)
	w.queued = false
	l.sated(g)
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
	switch {
	case g.old(s, now):
		l.close(s, &e, now)
	case g.over():
		l.close(g.longestIdle(), &e, now)
	}
	switch {
	case len(l.hungry) == 0:
	case len(l.hungry) == 1 && g.waiters.len() > 0: // nobody else waits
		l.serve(g, &e, now)
	default:
		if s.state == Idle && !l.yield(s, &e, now) {
			l.serve(g, &e, now)
		}
		l.feed(&e, now)
	}
	return e
}

// close takes an idle server out.
func (l *Ledger) close(s *Server, e *Effects, now time.Time) {
	l.move(s, Gone, now)
	e.Close = append(e.Close, s)
}

// Remove takes a server out of the books, in whatever state it is. It may be
// called more than once.
func (l *Ledger) Remove(s *Server, now time.Time) Effects {
	if s.state == Gone {
		return Effects{}
	}
	l.move(s, Gone, now)
	var e Effects
	l.feed(&e, now)
	return e
}

// SetLimits changes the limits and serves whom they let in. Servers above a
// lower limit go when they are idle.
func (l *Ledger) SetLimits(limits Limits, now time.Time) Effects {
	l.limits = limits
	l.all.limit = limits.MaxServers
	for name, a := range l.databases {
		a.limit = limits.ofDatabase(name)
	}
	for name, a := range l.users {
		a.limit = limits.ofUser(name)
	}
	var e Effects
	for name, g := range l.groups {
		g.quota = limits.quota(name)
		for g.over() && g.counts[Idle] > 0 {
			l.close(g.longestIdle(), &e, now)
		}
	}
	l.feed(&e, now)
	return e
}

// Expire is to be called now and then: it takes out idle servers that were idle
// too long, are too old, or are one of the reserve that nobody waits for, and
// gives the reserve to who has waited for long enough.
func (l *Ledger) Expire(now time.Time) Effects {
	var e Effects
	for _, g := range l.groups {
		l.expire(g, &e, now)
	}
	l.feed(&e, now)
	for name, g := range l.groups {
		if len(g.servers) == 0 && g.waiters.len() == 0 {
			delete(l.groups, name)
			part(l.databases, name.Database)
			part(l.users, name.User)
		}
	}
	return e
}

func (l *Ledger) expire(g *group, e *Effects, now time.Time) {
	if g.counts[Idle] == 0 {
		return
	}
	if g.quota.Lifetime > 0 {
		for s := range g.servers {
			if s.state == Idle && g.old(s, now) {
				l.close(s, e, now)
			}
		}
	}
	for s := g.longestIdle(); s != nil; s = g.longestIdle() {
		surplus := g.quota.Size > 0 && len(g.servers) > g.quota.Size && g.waiters.len() == 0
		tired := g.quota.Idle > 0 && now.Sub(s.since) >= g.quota.Idle && len(g.servers) > g.quota.Min
		if !surplus && !tired {
			return
		}
		l.close(s, e, now)
	}
}

// Due is when the next waiter may have a server of the reserve, zero for never.
func (l *Ledger) Due(now time.Time) (at time.Time) {
	for g := range l.hungry {
		if g.quota.Reserve <= 0 || g.quota.Size <= 0 || len(g.servers) >= g.quota.Size+g.quota.Reserve {
			continue
		}
		if due := g.waiters.head().Since.Add(g.quota.ReserveDelay); due.After(now) && (at.IsZero() || due.Before(at)) {
			at = due
		}
	}
	return at
}

// Fill makes places for as many servers of the key as its database and user are
// short of their minimum, to be opened by the caller: Connecting, as those that
// a waiter is granted. It makes none where somebody waits, and closes none for
// it.
func (l *Ledger) Fill(k Key, now time.Time) (places []*Server) {
	g := l.group(k.Group)
	if g.waiters.len() > 0 {
		return nil
	}
	for len(g.servers) < g.quota.Min && (g.quota.Size <= 0 || len(g.servers) < g.quota.Size) && !g.accountsFull() {
		places = append(places, l.place(k, now))
	}
	return places
}

func (l *Ledger) place(k Key, now time.Time) *Server {
	s := &Server{Key: k}
	l.move(s, Connecting, now)
	return s
}

// Figures are a group's numbers.
type Figures struct {
	Group
	Quota      Quota
	Servers    [states]int // by State
	Waiting    int
	OldestWait time.Duration
}

// Figures gives every group's numbers, in no order.
func (l *Ledger) Figures(now time.Time) []Figures {
	out := make([]Figures, 0, len(l.groups))
	for _, g := range l.groups {
		f := Figures{Group: g.name, Quota: g.quota, Servers: g.counts, Waiting: g.waiters.len()}
		if f.Waiting > 0 {
			f.OldestWait = now.Sub(g.waiters.head().Since)
		}
		out = append(out, f)
	}
	return out
}
