package session

import (
	"context"
	"net"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// Console answers those who log in to a database of its own in place of a
// server.
type Console interface {
	// Owns says whether the database is the console's.
	Owns(database string) bool
	// Owner says whether the connection may log in as user without a proof,
	// because the operating system vouches for it.
	Owner(conn net.Conn, user string) bool
	// Serve speaks with the client until it goes, or ctx is done.
	Serve(ctx context.Context, v Visit) error
}

// Visit is a client that has proved who it is, and what a console needs of it.
type Visit struct {
	Conn     net.Conn
	Address  string // for people
	User     string
	Database string
	Params   map[string]string // of the startup packet
	Owner    bool              // Owner has said so
	KeyData  []byte            // the BackendKeyData it is to be given
	// OnCancel names what a CancelRequest with that key ends; nil for nothing.
	OnCancel func(cancel func())
}

// noConsole is a proxy without one.
type noConsole struct{}

func (noConsole) Owns(string) bool                   { return false }
func (noConsole) Owner(net.Conn, string) bool        { return false }
func (noConsole) Serve(context.Context, Visit) error { return nil }

// wantsConsole says whether a startup packet names the console. Whoever looks
// after the proxy gets in when max_clients are there.
func (s *Server) wantsConsole(start *wire.Startup) bool {
	database := start.Get("database")
	if database == "" {
		database = start.Get("user")
	}
	return s.opts.Console.Owns(database)
}

// visit hands a client that is logged in to the console.
func (c *client) visit(start *wire.Startup) error {
	params := make(map[string]string, len(start.Params))
	for _, p := range start.Params {
		params[p.Name] = p.Value
	}
	return c.s.opts.Console.Serve(c.s.visits, Visit{
		Conn: c.conn, Address: c.address, User: c.group.User, Database: c.group.Database, Params: params,
		Owner: c.owner, KeyData: wire.AppendKey(nil, c.pid, c.key),
		OnCancel: func(cancel func()) {
			c.cancelMu.Lock()
			defer c.cancelMu.Unlock()
			c.cancelWait = cancel
		},
	})
}
