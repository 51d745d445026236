// Package api holds the request and response types of the control socket and
// its routes, and nothing else: standard library only, nothing of ours. It is
// the contract between proxyd/control, proxyd/client and whoever speaks HTTP
// to the socket with curl. Fields are added, never renamed or removed.
//
// Positions in the log are PostgreSQL's text form, times are RFC 3339 with
// fractions, durations are milliseconds in a field that ends in _ms.
package api

import "time"

// Version is the schema's; it grows when a meaning changes.
const Version = 1

// Routes.
const (
	PathState        = "/v1/state"           // GET -> State
	PathEvents       = "/v1/events"          // GET ?since=SEQ -> text/event-stream of Message; with ?limit=N&format=json -> []Event
	PathPools        = "/v1/pools"           // GET -> []Pool
	PathClients      = "/v1/clients"         // GET -> []Client
	PathConfig       = "/v1/config"          // GET -> Config (redacted)
	PathReload       = "/v1/reload"          // POST -> ReloadResult
	PathPlans        = "/v1/plans"           // POST PlanRequest -> Plan
	PathPlan         = "/v1/plans/{id}"      // GET -> Plan
	PathPlanRun      = "/v1/plans/{id}/run"  // POST RunRequest -> Operation
	PathOperations   = "/v1/operations"      // GET -> []Operation, newest first
	PathOperation    = "/v1/operations/{id}" // GET -> Operation; ?wait=30s blocks until it ends or the time is over
	PathDrills       = "/v1/drills"          // GET -> []DrillInfo; POST DrillRequest -> Operation
	PathDrillReports = "/v1/drills/reports"  // GET -> []DrillReport, newest first
	PathSyncFiles    = "/v1/sync-files"      // GET -> SyncFiles: the sync and async configuration of the primary
	PathMetrics      = "/metrics"            // GET -> Prometheus' text format
	PathMaintenance  = "/v1/maintenance"     // POST MaintenanceRequest -> State
)

// State is the whole truth the daemon has, at one moment.
type State struct {
	Schema  int       `json:"schema"`
	Seq     uint64    `json:"seq"` // of the last event it contains
	At      time.Time `json:"at"`
	Cluster string    `json:"cluster"`
	Lab     bool      `json:"lab"`
	Version string    `json:"version"` // of proxyd
	Started time.Time `json:"started"`

	Term        uint64 `json:"term"`
	Primary     string `json:"primary"`   // empty when none is recorded
	Mode        string `json:"mode"`      // sync, async; as recorded and verified
	WantMode    string `json:"want_mode"` // what a person asked for
	Gate        Gate   `json:"gate_detail"`
	GateState   string `json:"gate"` // open, closed
	Maintenance bool   `json:"maintenance"`

	// Verdict is one line a person can act on, Level how it should look:
	// ok, warn, alarm.
	Verdict Verdict   `json:"verdict"`
	IfDies  []Verdict `json:"if_dies"` // one for each node: "if pgsql1 dies now: ..."

	Nodes     []Node      `json:"nodes"`
	Pool      PoolSummary `json:"pool"`
	Operation *Operation  `json:"operation,omitempty"` // the one in progress
	Rule      Rule        `json:"rule"`                // the rule in force now
	Facts     []Fact      `json:"facts,omitempty"`     // what the rules speak of, as it stands
	Promotion Promotion   `json:"promotion"`           // what a promotion would need
	Promises  []Promise   `json:"promises,omitempty"`
	History   []History   `json:"history"`
	Policies  []Policy    `json:"policies"` // explained, for people
	Async     *Async      `json:"async_by_hand,omitempty"`
	Damping   *Damping    `json:"damping,omitempty"`

	// Halted: an invariant was found broken; the engine does not act until a
	// person has looked. Traffic goes on.
	Halted string `json:"halted,omitempty"`
}

// Gate is the switch between clients and the writable node.
type Gate struct {
	State        string    `json:"state"` // open, closed
	Node         string    `json:"node,omitempty"`
	Term         uint64    `json:"term"`
	Since        time.Time `json:"since"`
	Reason       string    `json:"reason,omitempty"`
	Held         int       `json:"held"`
	OldestHeldMS int64     `json:"oldest_held_ms"`
}

// Verdict is a sentence about what is, or would be.
type Verdict struct {
	Node      string `json:"node,omitempty"`
	Level     string `json:"level"` // ok, warn, alarm
	Text      string `json:"text"`
	LossBytes uint64 `json:"loss_bytes"`
	Clients   string `json:"clients,omitempty"` // what clients would see; of an "if it dies"
	Gone      bool   `json:"gone,omitempty"`    // the node is gone already
}

// Node is one server as the daemon sees it.
type Node struct {
	Name            string `json:"name"`
	Host            string `json:"host"`
	Port            int    `json:"port"`
	DataDirectory   string `json:"data_directory"`
	Weight          int    `json:"weight"`
	FailoverAllowed bool   `json:"failover_allowed"`

	Role      string `json:"role"` // primary, standby, unknown
	Reachable bool   `json:"reachable"`
	Reach     string `json:"reach"`   // ok, refused, starting, timeout, broken, rejected
	SeenMS    int64  `json:"seen_ms"` // age of the values below
	Error     string `json:"error,omitempty"`

	HostReachable bool   `json:"host_reachable"` // over ssh
	Postmaster    string `json:"postmaster"`     // running, stopped, absent, ""
	HostSeenMS    int64  `json:"host_seen_ms"`
	HostError     string `json:"host_error,omitempty"`

	State         string   `json:"state"`      // streaming, catchup, ...; "" where there is no sender
	SyncState     string   `json:"sync_state"` // sync, quorum, potential, async, ""
	SyncPriority  int      `json:"sync_priority"`
	Timeline      uint32   `json:"timeline"`
	LSN           string   `json:"lsn"`
	SentLSN       string   `json:"sent_lsn,omitempty"`
	WriteLSN      string   `json:"write_lsn,omitempty"`
	FlushLSN      string   `json:"flush_lsn,omitempty"`
	ReplayLSN     string   `json:"replay_lsn,omitempty"`
	LagBytes      int64    `json:"lag_bytes"`       // replay behind the primary's flush; -1 when not known
	FlushLagBytes int64    `json:"flush_lag_bytes"` // -1 when not known
	WriteLagMS    *float64 `json:"write_lag_ms"`    // null when PostgreSQL says NULL
	FlushLagMS    *float64 `json:"flush_lag_ms"`
	ReplayLagMS   *float64 `json:"replay_lag_ms"`
	ReplayPaused  bool     `json:"replay_paused"`

	Eligible         bool       `json:"eligible"`
	EligibleReason   string     `json:"eligible_reason,omitempty"`
	EligibleSince    *time.Time `json:"eligible_since,omitempty"` // when it became eligible, or ceased to be
	EligibleLSN      string     `json:"eligible_lsn,omitempty"`   // its position then
	Fenced           bool       `json:"fenced"`
	InSyncSet        bool       `json:"in_sync_set"`              // recorded: commits wait for it
	PromisedTerm     uint64     `json:"promised_term,omitempty"`  // the highest term for which it stopped receiving
	PromisedLSN      string     `json:"promised_lsn,omitempty"`   // what it held then
	PromiseCounts    bool       `json:"promise_counts,omitempty"` // for the term that would begin next
	NotPromotable    string     `json:"not_promotable,omitempty"` // why it could not be promoted now; "" where it could, and of the primary
	ServerVersion    string     `json:"server_version,omitempty"`
	SystemIdentifier string     `json:"system_identifier,omitempty"`
	SyncStandbyNames string     `json:"synchronous_standby_names"`
	SyncNamesSource  string     `json:"synchronous_standby_names_source,omitempty"`
	SyncWaiters      int        `json:"sync_waiters"`
	OldestWaitMS     int64      `json:"oldest_wait_ms"`
	Warnings         []string   `json:"warnings,omitempty"`
}

// PoolSummary is the clients and servers of the proxy in numbers.
type PoolSummary struct {
	Clients       int               `json:"clients"`
	MaxClients    int               `json:"max_clients"`
	Held          int               `json:"held"`    // waiting at the closed gate
	Waiting       int               `json:"waiting"` // gate open, waiting for a server
	ServersActive int               `json:"servers_active"`
	ServersIdle   int               `json:"servers_idle"`
	Queries       uint64            `json:"queries"`          // since start
	Transactions  uint64            `json:"transactions"`     // since start
	Errors        map[string]uint64 `json:"errors,omitempty"` // sent by the proxy itself, by SQLSTATE
}

// Pool is one database and user.
type Pool struct {
	Database       string `json:"database"`
	User           string `json:"user"`
	Mode           string `json:"mode"` // session, transaction
	ClientsActive  int    `json:"clients_active"`
	ClientsWaiting int    `json:"clients_waiting"`
	ClientsHeld    int    `json:"clients_held"`
	ClientsIdle    int    `json:"clients_idle"`
	ServersActive  int    `json:"servers_active"`
	ServersIdle    int    `json:"servers_idle"`
	Size           int    `json:"size"`
	OldestWaitMS   int64  `json:"oldest_wait_ms"`
}

// Client is one connection of a client.
type Client struct {
	ID          uint64    `json:"id"`
	Address     string    `json:"address"`
	Database    string    `json:"database"`
	User        string    `json:"user"`
	Application string    `json:"application_name"`
	State       string    `json:"state"`            // login, idle, active, held, waiting, in transaction
	Server      string    `json:"server,omitempty"` // node it is linked to
	Since       time.Time `json:"since"`
	StateMS     int64     `json:"state_ms"`
	TLS         bool      `json:"tls"`
	Pinned      string    `json:"pinned,omitempty"` // why it keeps its server in transaction mode, or cannot be carried to another
	Route       string    `json:"route,omitempty"`  // where what it began last went, and why, while reads go to standbys: "primary pgsql1: it calls nextval, which is volatile"
}

// Event is one line of the durable log.
type Event struct {
	Seq   uint64    `json:"seq"`
	At    time.Time `json:"at"`
	Level string    `json:"level"` // info, warn, error
	Kind  string    `json:"kind"`  // e.g. node.lost, rule.fired, step.done, gate.closed, audit
	Node  string    `json:"node,omitempty"`
	Term  uint64    `json:"term,omitempty"`
	Op    string    `json:"op,omitempty"`
	Rule  int       `json:"rule,omitempty"`
	Text  string    `json:"text"`
	By    string    `json:"by,omitempty"`
	// Fields are what failover.log recorded and more: failed_node,
	// failed_host, failed_port, failed_data_directory, old_primary,
	// new_primary, ...
	Fields map[string]string `json:"fields,omitempty"`
}

// Message is one item of the event stream: the full state first, then states
// (the latest only, they coalesce) and every event in order.
type Message struct {
	State *State `json:"state,omitempty"`
	Event *Event `json:"event,omitempty"`
}

// Rule is a rule of the decision table.
type Rule struct {
	Number     int          `json:"number"`
	Name       string       `json:"name"`
	Reason     string       `json:"reason"`
	Text       string       `json:"text,omitempty"`  // what it is for
	Since      *time.Time   `json:"since,omitempty"` // when it began to hold
	Considered []Considered `json:"considered,omitempty"`
}

// Considered is a rule that was looked at on the way to the one in force, in
// the order of the table. Held is true of one that held too and is tried again
// after a pause.
type Considered struct {
	Number int    `json:"number"`
	Name   string `json:"name"`
	Text   string `json:"text"`
	Held   bool   `json:"held,omitempty"`
}

// Promotion is what a promotion would need and has: of the sync set any k
// members acknowledge, so n-k+1 of them must promise to receive no more.
type Promotion struct {
	Term       uint64   `json:"term"`                 // that would begin
	Needed     int      `json:"needed"`               // n-k+1; 0 where commits wait for nobody, so that no promise proves anything
	Given      int      `json:"given"`                // durable, for that term
	Able       int      `json:"able"`                 // given, or could be given now
	Silent     []string `json:"silent,omitempty"`     // members that could not give theirs
	Candidates []string `json:"candidates,omitempty"` // nodes that could be promoted without a loss, best first
}

// Async is an async that a person asked for.
type Async struct {
	Since  *time.Time `json:"since,omitempty"`
	Until  *time.Time `json:"until,omitempty"` // when sync comes back by itself; absent where nothing limits it
	LeftMS int64      `json:"left_ms"`         // until then; -1 where nothing limits it
}

// Damping is what flapping has led to.
type Damping struct {
	WindowMS  int64  `json:"window_ms"`
	Failovers int    `json:"failovers"` // in the window
	Losses    int    `json:"losses"`    // of a standby, in the window
	Retries   int    `json:"retries"`   // failed checks that make a silent primary lost now
	Usual     int    `json:"usual"`     // and without damping
	Text      string `json:"text"`      // what is asked for beyond the usual, "" for nothing
}

// Promise is a standby's durable word that it stopped receiving.
type Promise struct {
	Node string `json:"node"`
	Term uint64 `json:"term"`
	LSN  string `json:"lsn"`
}

// History is one entry of the recorded timelines.
type History struct {
	Timeline  uint32    `json:"timeline"`
	SwitchLSN string    `json:"switch_lsn"`
	Node      string    `json:"node"`
	Term      uint64    `json:"term"`
	At        time.Time `json:"at"`
}

// Policy explains one configured choice.
type Policy struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	Text  string `json:"text"`
	// Now is what it leads to as things stand, "" where that says no more than
	// Text; Level how it should look: ok, warn, alarm, "".
	Now   string `json:"now,omitempty"`
	Level string `json:"level,omitempty"`
}

// PlanRequest asks for a plan; nothing is changed.
type PlanRequest struct {
	Action string `json:"action"` // promote, switchover, set-mode, rejoin, provision
	Node   string `json:"node,omitempty"`
	Mode   string `json:"mode,omitempty"`  // for set-mode: sync, async
	Force  bool   `json:"force,omitempty"` // promote although commits would be lost
	Reason string `json:"reason,omitempty"`
}

// Plan is what would be done.
type Plan struct {
	ID      string    `json:"id"`
	Action  string    `json:"action"`
	Node    string    `json:"node,omitempty"`
	Mode    string    `json:"mode,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Rule    int       `json:"rule,omitempty"`
	By      string    `json:"by,omitempty"`
	Confirm string    `json:"confirm,omitempty"` // what must be typed
	Effects []string  `json:"effects,omitempty"`
	Warn    []string  `json:"warn,omitempty"`
	Steps   []Step    `json:"steps"`
	Facts   []Fact    `json:"facts"`
	Created time.Time `json:"created"`
}

// Fact is a value a plan is bound to.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Step is one step of a plan, and of an operation how it went.
type Step struct {
	ID         string `json:"id"`
	Kind       string `json:"kind"`
	Node       string `json:"node,omitempty"`
	Title      string `json:"title"`
	Command    string `json:"command,omitempty"`
	Pre        string `json:"pre,omitempty"`
	Post       string `json:"post,omitempty"`
	Optional   bool   `json:"optional,omitempty"`
	DeadlineMS int64  `json:"deadline_ms"`
	ExpectMS   int64  `json:"expect_ms,omitempty"`

	State   string     `json:"state"` // pending, running, done, skipped (held already), failed, unknown
	Detail  string     `json:"detail,omitempty"`
	Started *time.Time `json:"started,omitempty"`
	TookMS  float64    `json:"took_ms,omitempty"`
}

// RunRequest runs a plan.
type RunRequest struct {
	Confirm string `json:"confirm"` // must equal the plan's
}

// States of an operation.
const (
	OpRunning = "running"
	OpDone    = "done"
	OpFailed  = "failed"
	OpUnknown = "unknown" // a step's outcome is not known yet
	OpStopped = "stopped" // by a moved fact or an invariant
)

// Operation is a plan that runs or ran.
type Operation struct {
	ID       string       `json:"id"`
	Plan     Plan         `json:"plan"` // its steps carry state and timing
	State    string       `json:"state"`
	Error    string       `json:"error,omitempty"`
	Progress string       `json:"progress,omitempty"` // the latest line of the running step
	Started  time.Time    `json:"started"`
	Ended    *time.Time   `json:"ended,omitempty"`
	TookMS   float64      `json:"took_ms"`
	Drill    *DrillReport `json:"drill,omitempty"` // where the operation is a drill
}

// DrillInfo describes a drill that can be run.
type DrillInfo struct {
	Name    string `json:"name"`
	Title   string `json:"title"`
	Fault   string `json:"fault"`
	Expects string `json:"expects"`
	Allowed bool   `json:"allowed"`
	WhyNot  string `json:"why_not,omitempty"`
	Confirm string `json:"confirm,omitempty"` // what must be typed, the cluster's name where it is no lab
}

// DrillRequest starts one.
type DrillRequest struct {
	Name    string `json:"name"`
	Confirm string `json:"confirm,omitempty"`
	Clients int    `json:"clients,omitempty"` // 0: the default
}

// DrillReport is what a drill measured.
type DrillReport struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Cluster string    `json:"cluster"`
	Started time.Time `json:"started"`
	TookMS  float64   `json:"took_ms"`
	Verdict string    `json:"verdict"`       // pass, fail
	Why     []string  `json:"why,omitempty"` // what failed

	FaultAtMS        float64        `json:"fault_at_ms"` // after Started
	LongestPauseMS   float64        `json:"longest_pause_ms"`
	Errors           map[string]int `json:"errors"`    // statement errors by SQLSTATE
	InFlight         int            `json:"in_flight"` // statements in flight when the fault hit
	ConnectErrors    int            `json:"connect_errors"`
	Acknowledged     int            `json:"acknowledged"`
	Lost             int            `json:"lost"`
	Unknown          int            `json:"unknown"`         // not acknowledged, outcome not told
	UnknownPresent   int            `json:"unknown_present"` // of those, found in the table afterwards
	LongestConnectMS float64        `json:"longest_connect_ms"`

	Steps   []Step        `json:"steps"` // the engine's, with timings
	Checks  []DrillCheck  `json:"checks"`
	Clients []DrillClient `json:"clients"`
	Marks   []DrillMark   `json:"marks"`          // the timeline
	Acks    []int         `json:"acks_per_100ms"` // acknowledgements in each tenth of a second
}

// DrillCheck is one of the seed's checks.
type DrillCheck struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Saw  string `json:"saw"`
}

// DrillClient is what one client saw.
type DrillClient struct {
	Name           string       `json:"name"`
	Kind           string       `json:"kind"` // lasting, connecting
	Acknowledged   int          `json:"acknowledged"`
	LongestPauseMS float64      `json:"longest_pause_ms"`
	Errors         []DrillError `json:"errors,omitempty"`
}

// DrillError is an error a client got.
type DrillError struct {
	AtMS    float64 `json:"at_ms"`
	Code    string  `json:"code"` // SQLSTATE, or "connect"
	Text    string  `json:"text"`
	Outcome string  `json:"outcome,omitempty"` // of the row: present, absent
}

// DrillMark is one moment of the timeline.
type DrillMark struct {
	AtMS float64 `json:"at_ms"`
	Who  string  `json:"who"` // fault, daemon, clients, restore
	Text string  `json:"text"`
}

// SyncFiles is the pair of configurations and which is in force.
type SyncFiles struct {
	Node    string `json:"node"`
	Method  string `json:"method"`   // files, alter_system
	Running string `json:"running"`  // synchronous_standby_names as the server has it
	Source  string `json:"source"`   // file:line it comes from
	InForce string `json:"in_force"` // sync, async, neither
	Sync    string `json:"sync"`     // text of postgresql.conf.sync, or the statement
	Async   string `json:"async"`
	Current string `json:"current"`          // text of postgresql.conf
	Diff    string `json:"diff"`             // unified, sync to async
	Drift   string `json:"drift,omitempty"`  // unified, the file in force against what it should be; empty: none
	Winner  string `json:"winner,omitempty"` // an entry elsewhere that wins over the file
	Error   string `json:"error,omitempty"`
}

// MaintenanceRequest turns the engine's hands off, or on again.
type MaintenanceRequest struct {
	On     bool   `json:"on"`
	Reason string `json:"reason,omitempty"`
}

// Config is the running configuration without its secrets.
type Config struct {
	Path string `json:"path"`
	Text string `json:"text"` // TOML, redacted
}

// ReloadResult says what a reload did.
type ReloadResult struct {
	Applied   []string `json:"applied"` // keys
	Restart   []string `json:"restart"` // keys that changed and need a restart
	Unchanged bool     `json:"unchanged"`
}

// Error is the body of every response that is not 2xx.
type Error struct {
	Code    string   `json:"code"` // one of the codes below
	Message string   `json:"message"`
	Remedy  string   `json:"remedy,omitempty"`
	Moved   []string `json:"moved,omitempty"` // facts, for CodeStale
}

// Error codes, and the exit code that --batch gives them.
const (
	CodeUsage        = "usage"        // 400; exit 2
	CodePrecondition = "precondition" // 409; exit 3
	CodeStale        = "stale"        // 409; exit 3: a fact the plan was made from has moved
	CodeConfirm      = "confirm"      // 409; exit 3: the confirmation does not match
	CodeUnsafe       = "unsafe"       // 422; exit 4
	CodeTimeout      = "timeout"      // 504; exit 5
	CodeUnknown      = "unknown"      // 502; exit 6
	CodePermission   = "permission"   // 403; exit 8
	CodeNotFound     = "not_found"    // 404; exit 2
	CodeBusy         = "busy"         // 409; exit 3: another operation runs
	CodeInternal     = "internal"     // 500; exit 1
)

func (e *Error) Error() string {
	if e.Remedy != "" {
		return e.Message + " (" + e.Remedy + ")"
	}
	return e.Message
}
