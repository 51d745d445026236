package session

import (
	"cmp"
	"crypto/tls"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/tailscale/peercred"

	"github.com/pgtandem/pgtandem/proxyd/pool"
)

// Look is all there is to see of clients and servers, at one moment.
type Look struct {
	At       time.Time
	Limits   Limits
	Clients  []ClientLook // by id
	Servers  []ServerLook // by id
	Pools    []pool.Figures
	Counters map[CounterKey]Counters
	Logins   map[string]uint64 // by database
	Errors   map[string]uint64 // sent by the proxy itself, by SQLSTATE
	Routes   map[string]uint64 // decisions where to read, by the label of their reason

	PausedAll        bool
	Paused, Disabled []string // databases
}

// ClientLook is one client.
type ClientLook struct {
	ID            uint64
	Group         pool.Group
	State         string // as api.Client has it
	Remote, Local net.Addr
	Started       time.Time
	Since         time.Time // when it last asked for something, or began to wait
	Waits         bool      // for a node, or a server
	ServerID      uint64
	Node          string
	PID           int // of the process at a Unix socket's other end
	TLS           string
	Application   string
	Prepared      int
	Pinned        string
	Route         string // where what it began last went, and why
	Console       bool
}

// ServerLook is one server connection.
type ServerLook struct {
	ID            uint64
	Group         pool.Group
	Node          string
	Remote, Local net.Addr
	Made          time.Time
	Asked         time.Time // when it was last sent something
	Active        bool      // a client has it
	Cleaning      bool
	Canceling     bool // given back while a cancel is under way
	CloseNeeded   bool
	ClientID      uint64
	PID           int
	TLS           string
	Application   string
	Prepared      int
	Pinned        string
}

// Look takes a look. It holds no lock for longer than one connection needs.
func (s *Server) Look() Look {
	l := Look{At: s.now(), Limits: *s.limits(), Pools: s.figures(), Counters: make(map[CounterKey]Counters), Routes: s.Routes()}
	l.PausedAll, l.Paused, l.Disabled = s.valve.names()
	for _, c := range s.clientList() {
		l.Clients = append(l.Clients, c.lookAt())
	}
	s.mu.Lock()
	backends := slices.Collect(maps.Keys(s.backends))
	l.Logins, l.Errors = maps.Clone(s.logins), maps.Clone(s.errors)
	for k, past := range s.past {
		l.Counters[k] = *past
	}
	s.mu.Unlock()
	for _, b := range backends {
		look, counters := b.lookAt()
		l.Servers = append(l.Servers, look)
		k := CounterKey{look.Group.Database, b.node}
		counters.Add(l.Counters[k])
		l.Counters[k] = counters
	}
	slices.SortFunc(l.Clients, func(a, b ClientLook) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(l.Servers, func(a, b ServerLook) int { return cmp.Compare(a.ID, b.ID) })
	return l
}

func (c *client) lookAt() ClientLook {
	state, node, why := c.view()
	l := ClientLook{
		ID: c.id, Group: c.group, State: state, Remote: c.conn.RemoteAddr(), Local: c.conn.LocalAddr(),
		Started: c.started, Since: time.Unix(0, c.since.Load()), Waits: state == stateHeld || state == stateWaiting,
		Node: node, TLS: tlsWords(c.conn), Prepared: int(c.stmtsN.Load()), Pinned: why.Reason(), Route: c.routeWords(), Console: c.atConsole,
	}
	if b := c.link.Load(); b != nil && node != "" {
		l.ServerID = b.id
	}
	if name := c.appName.Load(); name != nil {
		l.Application = *name
	}
	if c.unix != nil {
		if cred, err := peercred.Get(c.unix); err == nil {
			l.PID, _ = cred.PID()
		}
	}
	return l
}

func (b *backend) lookAt() (ServerLook, Counters) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := ServerLook{
		ID: b.id, Group: b.server.Key.Group, Node: b.node.String(), Remote: b.conn.RemoteAddr(), Local: b.conn.LocalAddr(),
		Made: b.made, Active: b.client != nil, Cleaning: b.client == nil && b.dirty, Canceling: b.parked,
		CloseNeeded: b.retiring || b.draining || b.doubted, PID: int(b.pid), TLS: tlsWords(b.conn), Prepared: len(b.stmts.used),
	}
	if b.counts.asking != 0 {
		l.Asked = time.Unix(0, b.counts.asking)
	}
	if c := b.client; c != nil {
		l.ClientID, l.Pinned, l.Application = c.id, c.traits.Reason(), c.vars[varApplication]
	}
	return l, b.counts.Counters
}

// tlsWords names version and cipher of a connection, "" without TLS.
func tlsWords(conn net.Conn) string {
	secure, ok := conn.(*tls.Conn)
	if !ok {
		return ""
	}
	st := secure.ConnectionState()
	return tls.VersionName(st.Version) + "/" + tls.CipherSuiteName(st.CipherSuite)
}
