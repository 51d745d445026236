package admin

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/tailscale/peercred"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// Names of the database, and of the users that the account which runs the
// proxy may be on a Unix socket.
var names = []string{"pgtandem", "pgbouncer"}

// Owns says whether a database is the console.
func Owns(database string) bool { return slices.Contains(names, database) }

// Owner says whether a connection may log in as user without a password: it
// comes by a Unix socket from the account that runs the proxy, or from root,
// which could become that. PgBouncer has the same rule for its own name.
func Owner(conn net.Conn, user string) bool {
	if _, unix := conn.(*net.UnixConn); !unix || !slices.Contains(names, user) {
		return false
	}
	cred, err := peercred.Get(conn)
	if err != nil {
		return false
	}
	uid, ok := cred.UserID()
	return ok && (uid == strconv.Itoa(os.Geteuid()) || uid == "0")
}

// Rights are who may do what.
type Rights struct {
	Admins []string // everything
	Stats  []string // look
}

// Options is all a Console needs.
type Options struct {
	Plane   Plane
	Daemon  Daemon
	Rights  func() Rights // asked before each command: a reload takes effect at once
	Version string
	Log     *slog.Logger
}

// Console answers commands. Make it with New; Run keeps the averages.
type Console struct {
	opt      Options
	commands []command
	shows    []show
	history  history
	nodes    nodeWatch
}

// New makes a console.
func New(o Options) *Console {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Console{opt: o, commands: commands(), shows: shows()}
}

// Visit is a client that has proved who it is.
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

// rank is what a visitor may do.
type rank uint8

const (
	nobody rank = iota
	looker
	administrator
)

func (c *Console) rank(v *Visit) rank {
	r := c.opt.Rights()
	switch {
	case v.Owner, slices.Contains(r.Admins, v.User):
		return administrator
	case slices.Contains(r.Stats, v.User):
		return looker
	}
	return nobody
}

// settled is what a session begins with. integer_datetimes and the styles are
// for drivers that refuse a server without them; the version is the oldest
// that we work with, so that none looks for what is newer.
func (c *Console) settled(v *Visit) []wire.Param {
	return []wire.Param{
		{Name: "server_version", Value: "13.0 (pgtandem " + c.opt.Version + ")"},
		{Name: "client_encoding", Value: "UTF8"}, {Name: "server_encoding", Value: "UTF8"},
		{Name: "DateStyle", Value: "ISO, MDY"}, {Name: "IntervalStyle", Value: "postgres"}, {Name: "TimeZone", Value: "UTC"},
		{Name: "integer_datetimes", Value: "on"}, {Name: "standard_conforming_strings", Value: "on"}, {Name: "is_superuser", Value: "off"},
		{Name: "session_authorization", Value: v.User}, {Name: "application_name", Value: v.Params["application_name"]},
	}
}

const (
	writeTimeout = 10 * time.Second // for a client to take an answer
	maxMessage   = 64 << 10         // bytes; a command is a line
)

// errStopping: the proxy stops, and the session with it.
var errStopping = errors.New("the proxy is stopping")

// errGone: the client has closed the connection.
var errGone = errors.New("the client closed the connection")

// Serve speaks with a client until it goes, or ctx is done because the proxy
// stops. The connection is the caller's to close.
func (c *Console) Serve(ctx context.Context, v Visit) error {
	s := newSession(c, &v)
	if c.rank(&v) == nobody {
		n := wire.Fatalf(wire.CodeInsufficientPrivilege, "role \"%s\" may not use the database \"%s\"", v.User, v.Database).
			WithHint("Name the role in proxy.admin_users or proxy.stats_users of the configuration, and reload that.")
		s.out = wire.AppendError(s.out, n)
		return cmp.Or[error](s.flush(), n)
	}
	for _, p := range c.settled(&v) {
		s.out = wire.AppendParameter(s.out, p.Name, p.Value)
	}
	s.out = append(s.out, v.KeyData...)
	s.out = wire.AppendReady(s.out, s.tx)
	if err := s.flush(); err != nil {
		return err
	}
	return s.run(ctx)
}
