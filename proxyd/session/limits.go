package session

import (
	"cmp"
	"net"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// Terms are what holds for the clients and the servers of one database and
// user. Zero is no limit, and never.
type Terms struct {
	Mode Mode // of clients that log in from now on

	PoolSize     int // servers
	MinPoolSize  int // servers that are kept while there are clients
	ReserveSize  int // servers more, for who has waited for ReserveDelay
	ReserveDelay time.Duration
	IdleTimeout  time.Duration // of a server that nobody uses
	Lifetime     time.Duration // of a server

	WaitTimeout              time.Duration // for a free server
	StatementTimeout         time.Duration // of a statement, or of what was sent with it up to its Sync
	TransactionTimeout       time.Duration // of a transaction, one statement's own included
	IdleInTransactionTimeout time.Duration // between two statements of a transaction
	IdleSessionTimeout       time.Duration // between two transactions
}

// Override changes the terms of a database, of a user, or of one in the other;
// an empty name is any.
type Override struct {
	Database, User string
	Change         func(*Terms) // nil for none

	// Of the whole database, or the user in all of them; nil for what holds for
	// others. An Override with both names has none.
	MaxServers, MaxClients *int
}

// Limits can be changed while the server runs, by Apply.
type Limits struct {
	Terms // of whom no Override is about

	MaxClients int
	MaxServers int // in all, 0 for no limit

	// Of one database and of one user that no Override is about; 0 for no limit.
	MaxServersPerDatabase, MaxServersPerUser int
	MaxClientsPerDatabase, MaxClientsPerUser int

	// A user's own word goes before that of a database, and both before none;
	// about the two together it goes before all.
	Overrides []Override

	// Connections that have not proved themselves yet, in all and from one
	// address; 0 for no limit. More wait in line.
	MaxLogins           int
	MaxLoginsPerAddress int

	HoldTimeout    time.Duration // at the closed gate, or for a node that cannot be reached
	LoginTimeout   time.Duration // from the accepted connection to the proof
	ConnectTimeout time.Duration // to a server, its login included

	// WriteTimeout is how long a client may take nothing of what it was sent; 0
	// is for ever.
	WriteTimeout time.Duration

	MaxMessage int64 // bytes of a client's message, behind its type; PostgreSQL's own limit when 0

	KeepAlive KeepAlive // of connections that are made from now on

	shortest time.Duration // of what clients are watched for, 0 for nothing
	fills    bool          // some have a MinPoolSize
}

// KeepAlive is when the system asks whether a peer is still there.
type KeepAlive struct {
	Idle     time.Duration // before the first question, 0 for no questions
	Interval time.Duration // between two of them
	Count    int           // that may stay unanswered
}

func (k KeepAlive) config() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: k.Idle > 0, Idle: k.Idle, Interval: k.Interval, Count: k.Count}
}

func (l Limits) orDefault() Limits {
	if l.Mode == "" {
		l.Mode = ModeSession
	}
	for _, d := range []struct {
		p *time.Duration
		v time.Duration
	}{
		{&l.HoldTimeout, 30 * time.Second},
		{&l.LoginTimeout, 10 * time.Second},
		{&l.ConnectTimeout, 5 * time.Second},
	} {
		if *d.p <= 0 {
			*d.p = d.v
		}
	}
	if l.MaxMessage <= 0 {
		l.MaxMessage = wire.MaxLarge
	}
	l.Overrides = slices.Clone(l.Overrides)
	slices.SortStableFunc(l.Overrides, func(a, b Override) int { return cmp.Compare(a.weight(), b.weight()) })
	l.look()
	return l
}

// look finds what any of the terms needs of sweep.
func (l *Limits) look() {
	l.shortest, l.fills = 0, false
	all := []Terms{l.Terms}
	for _, o := range l.Overrides {
		if o.Change != nil {
			t := l.Terms
			o.Change(&t)
			all = append(all, t)
		}
	}
	for _, t := range all {
		l.fills = l.fills || t.MinPoolSize > 0
		for _, d := range []time.Duration{t.StatementTimeout, t.TransactionTimeout, t.IdleInTransactionTimeout, t.IdleSessionTimeout} {
			if d > 0 && (l.shortest == 0 || d < l.shortest) {
				l.shortest = d
			}
		}
	}
}

// weight orders by whose word is the last.
func (o *Override) weight() (w int) {
	if o.Database != "" {
		w++
	}
	if o.User != "" {
		w += 2
	}
	return w
}

// For gives the terms of a database and user.
func (l *Limits) For(g pool.Group) Terms {
	t := l.Terms
	for i := range l.Overrides {
		o := &l.Overrides[i]
		if o.Change != nil && (o.Database == "" || o.Database == g.Database) && (o.User == "" || o.User == g.User) {
			o.Change(&t)
		}
	}
	return t
}

// OfDatabase gives the limits of a database as a whole.
func (l *Limits) OfDatabase(name string) (servers, clients int) {
	return l.together(name, "", l.MaxServersPerDatabase, l.MaxClientsPerDatabase)
}

// OfUser gives those of a user in all databases together.
func (l *Limits) OfUser(name string) (servers, clients int) {
	return l.together("", name, l.MaxServersPerUser, l.MaxClientsPerUser)
}

func (l *Limits) together(database, user string, servers, clients int) (int, int) {
	for i := range l.Overrides {
		o := &l.Overrides[i]
		if o.Database != database || o.User != user {
			continue
		}
		if o.MaxServers != nil {
			servers = *o.MaxServers
		}
		if o.MaxClients != nil {
			clients = *o.MaxClients
		}
	}
	return servers, clients
}

// quota is what of it the ledger keeps to.
func (t *Terms) quota() pool.Quota {
	return pool.Quota{Size: t.PoolSize, Reserve: t.ReserveSize, ReserveDelay: t.ReserveDelay,
		Min: t.MinPoolSize, Idle: t.IdleTimeout, Lifetime: t.Lifetime}
}

func poolLimits(l *Limits) pool.Limits {
	return pool.Limits{
		MaxServers: l.MaxServers,
		Quotas: func(g pool.Group) pool.Quota {
			t := l.For(g)
			return t.quota()
		},
		OfDatabase: func(name string) int { n, _ := l.OfDatabase(name); return n },
		OfUser:     func(name string) int { n, _ := l.OfUser(name); return n },
	}
}
