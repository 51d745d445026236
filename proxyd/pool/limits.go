package pool

import (
	"math"
	"time"
)

// Quota is what holds for the servers of one database and user. Zero or less
// means no limit, and never.
type Quota struct {
	Size         int // servers
	Reserve      int // more of them, for who has waited for ReserveDelay
	ReserveDelay time.Duration
	Min          int           // servers that are kept, and see Fill
	Idle         time.Duration // how long a server may be idle
	Lifetime     time.Duration // how old a server may get, but see spread
}

// Limits of the ledger. Zero or less means no limit.
type Limits struct {
	MaxServers int // in all
	Quota      Quota

	// What differs for some; nil for none. They are asked again by SetLimits.
	Quotas     func(Group) Quota
	OfDatabase func(name string) int // servers of all its users together
	OfUser     func(name string) int // servers in all databases together
}

func (l *Limits) quota(g Group) Quota {
	if l.Quotas == nil {
		return l.Quota
	}
	g.Standby = "" // each node has as many
	return l.Quotas(g)
}

func (l *Limits) ofDatabase(name string) int {
	if l.OfDatabase == nil {
		return 0
	}
	return l.OfDatabase(name)
}

func (l *Limits) ofUser(name string) int {
	if l.OfUser == nil {
		return 0
	}
	return l.OfUser(name)
}

// account counts what groups share a limit for: the servers of a database, of
// a user, and all of them.
type account struct {
	limit         int
	servers, idle int
	groups        int
}

func (a *account) full() bool { return a.limit > 0 && a.servers >= a.limit }
func (a *account) over() bool { return a.limit > 0 && a.servers > a.limit }

// join gives a new group its account, part takes it from one that ends.
func join(accounts map[string]*account, name string, limit int) *account {
	a := accounts[name]
	if a == nil {
		a = &account{limit: limit}
		accounts[name] = a
	}
	a.groups++
	return a
}

func part(accounts map[string]*account, name string) {
	if accounts[name].groups--; accounts[name].groups == 0 {
		delete(accounts, name)
	}
}

func (g *group) addIdle(n int) {
	for _, a := range g.accounts {
		a.idle += n
	}
}

func (g *group) accountsFull() bool {
	return g.accounts[0].full() || g.accounts[1].full() || g.accounts[2].full()
}

// over says that there are more servers than a lowered limit allows.
func (g *group) over() bool {
	return g.quota.Size > 0 && len(g.servers) > g.quota.Size+max(0, g.quota.Reserve) ||
		g.accounts[0].over() || g.accounts[1].over() || g.accounts[2].over()
}

// roomFor says whether the group may have one more server for a waiter.
func (g *group) roomFor(w *Waiter, now time.Time) bool {
	n := len(g.servers)
	return g.quota.Size <= 0 || n < g.quota.Size ||
		n < g.quota.Size+g.quota.Reserve && now.Sub(w.Since) >= g.quota.ReserveDelay
}

// spread is the part of the lifetime over which the ends of servers that were
// opened together are spread: they would be opened again together, too.
const spread = 0.2

// earlier gives the nth server the part of its lifetime that it is spared. The
// golden ratio's multiples are spread evenly, however many there are.
func earlier(n uint64) float64 {
	_, part := math.Modf(float64(n) * (math.Phi - 1))
	return spread * part
}

// old says whether a server has had its lifetime.
func (g *group) old(s *Server, now time.Time) bool {
	life := g.quota.Lifetime
	return life > 0 && now.Sub(s.created) >= life-time.Duration(s.early*float64(life))
}

// longestIdle is the group's server that has been idle longest, nil for none.
func (g *group) longestIdle() (oldest *Server) {
	if g.counts[Idle] == 0 {
		return nil
	}
	for _, sh := range g.shelves {
		if len(sh.idle) > 0 && (oldest == nil || sh.idle[0].since.Before(oldest.since)) {
			oldest = sh.idle[0]
		}
	}
	return oldest
}

// longestIdleOf is the same among the groups of an account. A server that its
// group has beyond its minimum goes before one that it has not.
func (l *Ledger) longestIdleOf(a *account) (oldest *Server) {
	spare := false
	for _, g := range l.groups {
		if g.accounts[0] != a && g.accounts[1] != a && g.accounts[2] != a {
			continue
		}
		s := g.longestIdle()
		if s == nil {
			continue
		}
		beyond := len(g.servers) > g.quota.Min
		if oldest == nil || beyond && !spare || beyond == spare && s.since.Before(oldest.since) {
			oldest, spare = s, beyond
		}
	}
	return oldest
}
