package cluster

import (
	"fmt"
	"hash/crc32"
	"strings"
)

// NodeID is a node's name: unique in the cluster, the standby's
// application_name, and what a person types to confirm an action.
type NodeID string

func (id NodeID) String() string { return string(id) }

// SlotPrefix begins the name of every replication slot of ours.
const SlotPrefix = "pgtandem_"

// SlotName is the replication slot of a standby, the same on whichever node it
// follows. A slot's name has lower-case letters, digits and underscores only,
// and at most 63 of them (PostgreSQL docs, 27.2.6), so an ID that has others is
// told apart by its checksum.
func SlotName(id NodeID) string {
	plain := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, strings.ToLower(string(id)))
	const room = 63 - len(SlotPrefix)
	if plain == string(id) && len(plain) <= room {
		return SlotPrefix + plain
	}
	sum := fmt.Sprintf("_%08x", crc32.ChecksumIEEE([]byte(id)))
	return SlotPrefix + plain[:min(len(plain), room-len(sum))] + sum
}

// Timeline is a PostgreSQL timeline ID. Equal numbers do not prove equal
// histories; see Record.History.
type Timeline uint32

// Term counts changes of primary. It only grows; the gate opens only with a
// term higher than every one it has opened with before, or the one it has.
type Term uint64

// Role is what a reachable server says of itself.
type Role string

// Roles.
const (
	RoleUnknown Role = "unknown" // never seen, or not seen for too long
	RolePrimary Role = "primary" // pg_is_in_recovery() is false
	RoleStandby Role = "standby" // pg_is_in_recovery() is true
)

// Node is what is configured about one server: where it is, and how its files
// and its service are reached. It holds no secret.
type Node struct {
	ID              NodeID
	Host            string // name or address clients and peers use
	Port            int
	Weight          int  // share of reads, and tie-break among equal candidates; higher first
	FailoverAllowed bool // pgpool's ALLOW_TO_FAILOVER: false means the engine never promotes, stops or rejoins it

	DataDirectory   string
	ConfigDirectory string // where postgresql.conf lives; equals DataDirectory unless the layout is split
	BinDirectory    string // pg_ctl, pg_rewind, pg_basebackup
	OSUser          string // the account that owns the data directory; the ssh login unless they differ
	LogFile         string // where `pg_ctl start` sends the server's output when no service command is set

	SSHHost string
	SSHPort int

	// Service commands, as argument vectors (never a shell string), replace
	// pg_ctl where the system starts PostgreSQL, as Debian's pg_ctlcluster or
	// systemctl. An empty one means pg_ctl.
	StartCommand  []string
	StopCommand   []string
	ReloadCommand []string
	// RestartCommand, where it is set, is used in place of a stop and a start.
	RestartCommand []string
}

// Addr is the node's host:port for PostgreSQL clients.
func (n Node) Addr() string { return fmt.Sprintf("%s:%d", n.Host, n.Port) }

// Mode says whether a commit waits for a standby.
type Mode string

// Modes. The seed's postgresql.conf.sync and postgresql.conf.async.
const (
	ModeUnknown Mode = ""
	ModeSync    Mode = "sync"
	ModeAsync   Mode = "async"
)

// SwapMethod says how synchronous_standby_names is changed on a node.
type SwapMethod string

// Swap methods.
const (
	SwapFiles       SwapMethod = "files"        // postgresql.conf.sync / .async swapped over ssh, then reloaded
	SwapAlterSystem SwapMethod = "alter_system" // ALTER SYSTEM over SQL, then pg_reload_conf()
)
