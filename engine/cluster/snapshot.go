package cluster

import "time"

// Reach is how the last attempt to speak SQL with a node ended. The kinds are
// evidence of different weight: a refused connection proves that nothing
// listens there, a timeout proves nothing.
type Reach string

// Kinds of reach.
const (
	ReachUnknown  Reach = ""         // not tried yet
	ReachOK       Reach = "ok"       // a query was answered
	ReachRefused  Reach = "refused"  // the host answered, nothing listens on the port
	ReachStarting Reach = "starting" // 57P03: starting up, in crash recovery or shutting down
	ReachTimeout  Reach = "timeout"  // no sign of life for health_check.timeout
	ReachBroken   Reach = "broken"   // the connection was cut (EOF, reset, no route)
	ReachRejected Reach = "rejected" // the server answered with an error: login failed, too many connections
)

// Postmaster is what the node's host says, over ssh, of the server process.
type Postmaster string

// States of the postmaster.
const (
	PostmasterUnknown Postmaster = ""        // ssh gave no answer
	PostmasterRunning Postmaster = "running" // a live process owns the data directory
	PostmasterStopped Postmaster = "stopped" // no process owns it: proof that it acknowledges nothing
	PostmasterAbsent  Postmaster = "absent"  // there is no data directory
)

// Snapshot is everything observed, with its age, at one moment. Decide reads
// the clock here and nowhere else.
type Snapshot struct {
	Now   time.Time
	Nodes []NodeFacts // in the order of the configuration
}

// Node finds a node's facts; the zero value if it is not configured.
func (s Snapshot) Node(id NodeID) NodeFacts {
	for _, n := range s.Nodes {
		if n.ID == id {
			return n
		}
	}
	return NodeFacts{ID: id, Role: RoleUnknown}
}

// NodeFacts is what is known of one node. The fields below SQL hold the values
// of the last successful look, at LastOK; Reach tells how the latest attempt
// ended. A reader that needs present truth checks both.
type NodeFacts struct {
	ID NodeID

	// Reachability over SQL.
	Reach      Reach
	ReachSince time.Time // when the present run of answers, or of failures, began; to be turned away after a silence begins a new one
	Failures   int       // consecutive attempts that were not ReachOK; of a silence one for each timeout, and a sign of life begins a new count
	LastTry    time.Time
	LastOK     time.Time
	LastError  string

	// Evidence over ssh.
	Host HostFacts

	// SQL: of the last successful look.
	Role             Role
	ServerVersion    int // server_version_num, e.g. 150018
	SystemIdentifier uint64
	Timeline         Timeline
	StartedAt        time.Time // pg_postmaster_start_time()

	InsertLSN    LSN // primary: pg_current_wal_insert_lsn()
	FlushLSN     LSN // primary: pg_current_wal_flush_lsn()
	ReceiveLSN   LSN // standby: pg_last_wal_receive_lsn(), which restarts at a segment's start
	ReplayLSN    LSN // standby: pg_last_wal_replay_lsn()
	ReplayPaused bool
	OldestWAL    LSN // primary: where the oldest WAL file in pg_wal begins; 0 where it was not read
	// OldestXact is, on a primary, how long the oldest transaction of a client
	// has been open; 0 where there is none or it was not read.
	OldestXact time.Duration

	SyncStandbyNames  string         // the running value, from pg_settings
	SyncNamesSource   string         // pg_settings.sourcefile:sourceline, "" for the default
	SynchronousCommit string         // the server's default for synchronous_commit
	SwitchHistory     []HistoryEntry // the server's own timeline history, oldest first, where read
	ConfigErrors      []string       // pg_file_settings rows with an error
	Slots             []Slot         // physical rows of pg_replication_slots

	Senders     []Sender  // primary: pg_stat_replication
	Receiver    *Receiver // standby: pg_stat_wal_receiver, nil when there is none
	Conninfo    string    // standby: primary_conninfo without its secrets
	SlotName    string    // standby: primary_slot_name
	SyncWaiters int       // backends with wait_event SyncRep
	OldestWait  time.Duration
}

// Position is the WAL the node holds: on a primary what it has flushed; on a
// standby the greater of received and replayed, because
// pg_last_wal_receive_lsn() alone restarts at a segment's start.
func (n NodeFacts) Position() LSN {
	if n.Role == RolePrimary {
		return n.FlushLSN
	}
	return max(n.ReceiveLSN, n.ReplayLSN)
}

// Up says whether the latest attempt to speak SQL was answered.
func (n NodeFacts) Up() bool { return n.Reach == ReachOK }

// SenderTo finds the pg_stat_replication row of a standby by its
// application_name. ok is false when there is none or more than one: two
// servers that claim one name cannot be told apart and neither counts.
func (n NodeFacts) SenderTo(id NodeID) (s Sender, ok bool) {
	for _, row := range n.Senders {
		if row.ApplicationName == string(id) {
			if ok {
				return Sender{}, false
			}
			s, ok = row, true
		}
	}
	return s, ok
}

// HostFacts is evidence over ssh.
type HostFacts struct {
	Reachable  bool // the last ssh command was answered
	LastTry    time.Time
	LastOK     time.Time
	LastError  string
	Postmaster Postmaster // as of LastTry; Unknown when not Reachable
	PID        int        // the postmaster's, 0 when stopped
}

// Sender is one row of pg_stat_replication (PostgreSQL docs, 28.2.4).
type Sender struct {
	ApplicationName string
	ClientAddr      string
	State           string // startup, catchup, streaming, backup, stopping
	SyncState       string // async, potential, sync, quorum
	SyncPriority    int
	SentLSN         LSN
	WriteLSN        LSN
	FlushLSN        LSN
	ReplayLSN       LSN
	WriteLag        time.Duration
	FlushLag        time.Duration
	ReplayLag       time.Duration
	ReplyTime       time.Time
	Slot            string // the replication slot it holds, "" for none
}

// Slot is one row of pg_replication_slots (PostgreSQL docs, 54.19).
type Slot struct {
	Name       string
	Active     bool
	WALStatus  string // reserved, extended, unreserved; lost: what it held is gone
	RestartLSN LSN    // the oldest WAL it holds
}

// Receiver is pg_stat_wal_receiver (PostgreSQL docs, 28.2.6).
type Receiver struct {
	Status         string // starting, streaming, waiting, ...
	SenderHost     string
	SenderPort     int
	ReceivedTLI    Timeline
	WrittenLSN     LSN
	FlushedLSN     LSN
	LatestEndLSN   LSN
	LastMsgReceipt time.Time
}
