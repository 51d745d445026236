package admin

import (
	"context"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// Plane is the data plane as the console needs it. An empty name of a database
// is all of them. An error that is a *wire.Notice is told as it is.
type Plane interface {
	// View is what there is at this moment.
	View() View

	// Pause holds whoever asks for a server, and waits until the servers in
	// use have been given back and closed. When ctx ends before that, or its
	// cause does, the pause is taken back.
	Pause(ctx context.Context, database string) error
	// Resume ends a pause, or what Kill left behind.
	Resume(database string) error
	// Disable refuses logins to the database; Enable lets them in again.
	Disable(database string)
	Enable(database string)
	// Reconnect closes every server as soon as its client gives it back.
	Reconnect(database string)
	// WaitClose waits until no server is left that is to be closed.
	WaitClose(ctx context.Context, database string) error
	// Kill ends clients and servers at once, and pauses.
	Kill(database string)
	// KillClient ends one client; false where there is none of that id.
	KillClient(id uint64) bool
}

// Daemon is what surrounds the data plane.
type Daemon interface {
	State(ctx context.Context) (api.State, error)
	Settings() []Setting
	// Reload reads the configuration again; by is who wished it.
	Reload(by string) (api.ReloadResult, error)
	// Audit records what somebody did, or tried.
	Audit(by, what string, err error)
}

// Setting is one key of the configuration, secrets hidden.
type Setting struct {
	Key, Value, Default string
	Changeable          bool // by a reload
}

// View is the data plane at one moment.
type View struct {
	At        time.Time
	Mode      string // of clients that log in now: session, transaction
	Limits    Limits
	Gate      Gate
	PausedAll bool
	Databases []Database // that are known, by name
	Users     []User     // that are known, by name
	Pools     []Pool     // by database and user
	Clients   []Client   // by id
	Servers   []Server   // by id

	Totals     map[string]Totals // by database, since the start
	Statements map[string]uint64 // relayed to each node, since the start
	Errors     map[string]uint64 // sent by the proxy itself, by SQLSTATE
	Routes     map[string]uint64 // decisions where to read, by the label of their reason
}

// Limits in force; zero is none.
type Limits struct {
	MaxClients int
	PoolSize   int // servers for each database and user
	MaxServers int // servers in all
}

// Terms are what holds for a database and a user.
type Terms struct {
	Mode                               string
	PoolSize, MinPoolSize, ReserveSize int
	ServerLifetime                     time.Duration
}

// Gate is the switch between the clients and the primary.
type Gate struct {
	Open       bool
	Node       string // where it leads, "" while it is closed
	Reason     string // why it is closed
	Held       int    // clients that wait at it now
	OldestHeld time.Duration
	Holds      uint64        // waits that have ended, since the start
	HoldTime   time.Duration // of them together
}

// Database is what is known of one.
type Database struct {
	Name                   string
	Paused, Disabled       bool
	Terms                      // of users that nothing is said about
	MaxServers, MaxClients int // zero is no limit of its own
}

// User is what is known of one.
type User struct {
	Name                   string
	Terms                      // in databases that nothing is said about
	MaxServers, MaxClients int // zero is no limit of its own
}

// Pool is one database and user: the servers by their states, and who waits.
type Pool struct {
	Database, User string
	Terms

	Connecting, Idle, Active, Cleaning int

	Waiting    int           // for a server
	OldestWait time.Duration // of them
}

// States of a client.
const (
	ClientLogin   = "login"
	ClientIdle    = "idle"
	ClientActive  = "active"
	ClientInTx    = "in transaction"
	ClientWaiting = "waiting" // for a server
	ClientHeld    = "held"    // at the gate, or by a pause
)

// Client is one connection of a client.
type Client struct {
	ID             uint64
	Database, User string
	State          string
	Remote, Local  Address
	Connected      time.Time
	Requested      time.Time     // when it last asked for something
	Wait           time.Duration // how long it has been waiting or held
	Server         uint64        // id of the server it is linked to, 0 for none
	Node           string        // and the node of that
	PID            int           // of the process at a Unix socket's other end, 0 where not known
	TLS            string        // version and cipher, "" without
	Application    string
	Prepared       int    // statements it has named
	Pinned         string // why it keeps its server, "" where it does not have to
	WaitsFor       string // what a waiting or held client waits for
	Route          string // where what it began last went, and why; "" while nothing is read from standbys
}

// Address is one end of a connection.
type Address struct {
	Host string // an IP address, or "unix"
	Port int
}

// States of a server.
const (
	ServerActive        = "active"
	ServerIdle          = "idle"
	ServerTested        = "tested"         // is being cleaned
	ServerBeingCanceled = "being_canceled" // given back while a cancel is under way
)

// Server is one connection to a node.
type Server struct {
	ID             uint64
	Database, User string
	Node           string
	State          string
	Remote, Local  Address
	Connected      time.Time
	Requested      time.Time // when it was last sent something
	CloseNeeded    bool      // it is closed when its client gives it back
	Client         uint64    // id of the client that has it, 0 for none
	PID            int       // of its process
	TLS            string
	Application    string // its client's
	Prepared       int
	Pinned         string // why its client keeps it
}

// Totals count up from the start of the proxy.
type Totals struct {
	Assignments  uint64 // of a server to a client
	Transactions uint64
	Queries      uint64 // answers that ended with ReadyForQuery
	Received     uint64 // bytes from clients that went to servers
	Sent         uint64 // bytes from servers that went to clients
	Logins       uint64

	TransactionTime time.Duration // that servers were in a transaction
	QueryTime       time.Duration // that servers had something to answer
	WaitTime        time.Duration // that clients waited for a server

	ClientParses uint64 // named statements that clients prepared
	ServerParses uint64 // of those, that were prepared on a server
	Binds        uint64
}

// add sums up.
func (t *Totals) add(o Totals) {
	t.Assignments += o.Assignments
	t.Transactions += o.Transactions
	t.Queries += o.Queries
	t.Received += o.Received
	t.Sent += o.Sent
	t.Logins += o.Logins
	t.TransactionTime += o.TransactionTime
	t.QueryTime += o.QueryTime
	t.WaitTime += o.WaitTime
	t.ClientParses += o.ClientParses
	t.ServerParses += o.ServerParses
	t.Binds += o.Binds
}
