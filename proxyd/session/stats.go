package session

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/session/statement"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// States of a client, as api.Client names them.
const (
	stateLogin   = "login"
	stateIdle    = "idle"
	stateActive  = "active"
	stateHeld    = "held"
	stateWaiting = "waiting"
	stateInTx    = "in transaction"
)

// view is what a client shows of itself.
func (c *client) view() (state, node string, why statement.Trait) {
	switch c.wait.Load() {
	case waitLogin:
		return stateLogin, "", 0
	case waitHeld:
		return stateHeld, "", 0
	case waitServer, waitInLine:
		return stateWaiting, "", 0
	}
	b := c.link.Load()
	if b == nil {
		return stateIdle, "", 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client != c {
		return stateIdle, "", 0
	}
	switch {
	case !b.pipe.Quiet() || b.partial:
		state = stateActive
	case b.pipe.Status() != wire.TxIdle:
		state = stateInTx
	default:
		state = stateIdle
	}
	return state, b.node.String(), c.traits
}

func (s *Server) clientList() []*client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.clients))
}

// Clients lists the clients by the order of their connecting.
func (s *Server) Clients() []api.Client {
	now := s.now()
	var out []api.Client
	for _, c := range s.clientList() {
		state, node, why := c.view()
		v := api.Client{
			ID: c.id, Address: c.address, Database: c.group.Database, User: c.group.User,
			State: state, Server: node, Since: c.started, TLS: c.secure, Pinned: why.Reason(), Route: c.routeWords(),
			StateMS: now.Sub(time.Unix(0, c.since.Load())).Milliseconds(),
		}
		if name := c.appName.Load(); name != nil {
			v.Application = *name
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b api.Client) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Pools lists the pools by database and user.
func (s *Server) Pools() []api.Pool {
	limits := s.limits()
	pools := make(map[pool.Group]*api.Pool)
	get := func(g pool.Group) *api.Pool {
		p := pools[g]
		if p == nil {
			t := limits.For(g)
			p = &api.Pool{Database: g.Database, User: g.User, Mode: string(t.Mode), Size: t.PoolSize}
			pools[g] = p
		}
		return p
	}
	for _, f := range s.figures() {
		p := get(f.Group)
		p.ServersActive = f.Servers[pool.Active] + f.Servers[pool.Connecting] + f.Servers[pool.Cleaning]
		p.ServersIdle = f.Servers[pool.Idle]
		p.OldestWaitMS = f.OldestWait.Milliseconds()
	}
	for _, c := range s.clientList() {
		state, _, _ := c.view()
		if state == stateLogin { // a stranger's words make no pool
			continue
		}
		p := get(c.group)
		switch state {
		case stateHeld:
			p.ClientsHeld++
		case stateWaiting:
			p.ClientsWaiting++
		case stateActive, stateInTx:
			p.ClientsActive++
		default:
			p.ClientsIdle++
		}
	}
	out := make([]api.Pool, 0, len(pools))
	for _, p := range pools {
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b api.Pool) int {
		return cmp.Or(cmp.Compare(a.Database, b.Database), cmp.Compare(a.User, b.User))
	})
	return out
}

// Stats sums everything up.
func (s *Server) Stats() api.PoolSummary {
	sum := api.PoolSummary{MaxClients: s.limits().MaxClients, Held: s.opts.Gate.Status().Held}
	for _, f := range s.pool.Figures() {
		sum.ServersActive += f.Servers[pool.Active] + f.Servers[pool.Connecting] + f.Servers[pool.Cleaning]
		sum.ServersIdle += f.Servers[pool.Idle]
		sum.Waiting += f.Waiting
	}
	s.mu.Lock()
	sum.Clients = len(s.clients)
	sum.Errors = maps.Clone(s.errors)
	var total Counters
	for _, past := range s.past {
		total.Add(*past)
	}
	list := slices.Collect(maps.Keys(s.backends))
	s.mu.Unlock()
	for _, b := range list {
		b.mu.Lock()
		total.Add(b.counts.Counters)
		b.mu.Unlock()
	}
	sum.Queries, sum.Transactions = total.Queries, total.Transactions
	return sum
}
