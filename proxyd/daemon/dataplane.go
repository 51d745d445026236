package daemon

import (
	"sync/atomic"
	"time"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/session"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// newest says which protocol clients are granted. What the servers speak is
// remembered while none of them answers.
func (d *Daemon) newest() func() uint32 {
	var known atomic.Uint32
	known.Store(wire.Version32)
	return func() uint32 {
		if v := newestProtocol(d.engine.Input().Snapshot); v != 0 {
			known.Store(v)
		}
		return known.Load()
	}
}

// newestProtocol is what all of the servers speak, 3.2 since PostgreSQL 18; 0
// where nothing is known of them.
func newestProtocol(s cluster.Snapshot) (newest uint32) {
	for _, n := range s.Nodes {
		switch {
		case n.ServerVersion == 0:
		case n.ServerVersion < 180000:
			return wire.Version30
		default:
			newest = wire.Version32
		}
	}
	return newest
}

// limitsOf is what the data plane can be told while it runs.
func limitsOf(c *config.Config) session.Limits {
	p := c.Proxy
	l := session.Limits{
		Terms: termsOf(p), MaxClients: p.MaxClients, MaxServers: p.MaxServers,
		MaxServersPerDatabase: p.MaxServersPerDatabase, MaxServersPerUser: p.MaxServersPerUser,
		MaxClientsPerDatabase: p.MaxClientsPerDatabase, MaxClientsPerUser: p.MaxClientsPerUser,
		MaxLogins: p.MaxLogins, MaxLoginsPerAddress: p.MaxLoginsPerAddress,
		HoldTimeout: p.HoldTimeout.Std(), LoginTimeout: p.LoginTimeout.Std(), WriteTimeout: p.WriteTimeout.Std(), ConnectTimeout: p.ConnectTimeout.Std(),
		MaxMessage: int64(p.MaxMessageBytes),
		KeepAlive:  session.KeepAlive{Idle: p.TCPKeepalivesIdle.Std(), Interval: p.TCPKeepalivesInterval.Std(), Count: p.TCPKeepalivesCount},
	}
	for _, o := range c.Pools {
		l.Overrides = append(l.Overrides, session.Override{
			Database: o.Database, User: o.User, MaxServers: o.MaxServers, MaxClients: o.MaxClients,
			Change: func(t *session.Terms) { change(t, o) },
		})
	}
	return l
}

// termsOf is what of the settings is a matter of one database and user.
func termsOf(p config.Proxy) session.Terms {
	return session.Terms{
		Mode: session.Mode(p.PoolMode), PoolSize: p.PoolSize, MinPoolSize: p.MinPoolSize, ReserveSize: p.ReservePoolSize, ReserveDelay: p.ReservePoolDelay.Std(),
		IdleTimeout: p.ServerIdleTimeout.Std(), Lifetime: p.ServerLifetime.Std(), WaitTimeout: p.WaitTimeout.Std(),
		StatementTimeout: p.StatementTimeout.Std(), TransactionTimeout: p.TransactionTimeout.Std(),
		IdleInTransactionTimeout: p.IdleInTransaction.Std(), IdleSessionTimeout: p.IdleSession.Std(),
	}
}

// change sets what a [[pool]] says.
func change(t *session.Terms, p config.Pool) {
	if p.PoolMode != "" {
		t.Mode = session.Mode(p.PoolMode)
	}
	for _, n := range []struct{ to, from *int }{
		{&t.PoolSize, p.PoolSize}, {&t.MinPoolSize, p.MinPoolSize}, {&t.ReserveSize, p.ReservePoolSize},
	} {
		if n.from != nil {
			*n.to = *n.from
		}
	}
	for _, d := range []struct {
		to   *time.Duration
		from *config.Duration
	}{
		{&t.ReserveDelay, p.ReservePoolDelay}, {&t.IdleTimeout, p.ServerIdleTimeout}, {&t.Lifetime, p.ServerLifetime},
		{&t.WaitTimeout, p.WaitTimeout}, {&t.StatementTimeout, p.StatementTimeout}, {&t.TransactionTimeout, p.TransactionTimeout},
		{&t.IdleInTransactionTimeout, p.IdleInTransaction}, {&t.IdleSessionTimeout, p.IdleSession},
	} {
		if d.from != nil {
			*d.to = d.from.Std()
		}
	}
}
