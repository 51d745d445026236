// Package provision sets hosts up as the recipe does by hand: settings, roles,
// access, archive, the two configuration files, the copy of the primary, and
// the recipe's own checks. It builds a plan like any other, so that it can be
// read before it runs, and each of its steps looks before it does: to run it
// again changes nothing.
//
// It must never know whether a host is a lab's or somebody's pride.
package provision

import (
	"context"
	"fmt"
	"net/netip"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// Kinds of steps.
const (
	Version   plan.Kind = "provision.version"
	Init      plan.Kind = "provision.initdb"
	Archive   plan.Kind = "provision.archive"
	Settings  plan.Kind = "provision.settings"
	Access    plan.Kind = "provision.access"
	Run       plan.Kind = "provision.run"
	Roles     plan.Kind = "provision.roles"
	Passwords plan.Kind = "provision.passwords"
	Copy      plan.Kind = "provision.copy"
	Standby   plan.Kind = "provision.standby"
	Streams   plan.Kind = "provision.streams"
	Sync      plan.Kind = "provision.sync"
	Sample    plan.Kind = "provision.sample"
	CheckSync plan.Kind = "provision.check-sync"
	CheckCopy plan.Kind = "provision.check-copy"
)

// Spec is what is wanted.
type Spec struct {
	Cluster      string
	Primary      cluster.NodeID
	Nodes        []Node
	ProxyAddress string // where proxyd connects from, as the nodes see it
	SwapMethod   cluster.SwapMethod
	SyncMethod   string
	SyncK        int
	Slots        bool     // each standby has a replication slot on the primary
	Recovery     string   // superuser that proxyd uses
	Replication  string   // role that standbys connect as
	Monitors     []string // roles of the checks, where they are others
	Init         bool     // initdb where there is no data directory
	Sample       *SampleSpec
}

// Node is a node with what only provisioning needs.
type Node struct {
	cluster.Node
	Archive  string // directory of the WAL archive
	Peer     string // the address its peers see
	PassFile string
	// Extra are settings of this node alone, name and value, in a block of
	// their own behind the other; without any, such a block is left as it is.
	Extra [][2]string
}

// SampleSpec is the recipe's example database.
type SampleSpec struct{ Database, User, Table string }

// Host is a node's machine.
type Host interface {
	Run(ctx context.Context, c execute.Command) (execute.Result, error)
	Postmaster(ctx context.Context) (cluster.Postmaster, int, error)
	Start(ctx context.Context) error
	Restart(ctx context.Context) error
	Reload(ctx context.Context) error
	ReadFile(ctx context.Context, path string) ([]byte, error)
	WriteFile(ctx context.Context, path string, data []byte, mode uint32) error
	ReplaceFile(ctx context.Context, path string, old, data []byte) error
	Clone(ctx context.Context, from cluster.Node, progress func(string)) error
	ConfigureStandby(ctx context.Context, from cluster.Node, slot string) error
}

// World is what the Doers work on.
type World struct {
	Spec  Spec
	Hosts map[cluster.NodeID]Host
	// Connect opens a connection as the recovery role.
	Connect func(ctx context.Context, n cluster.Node, database string) (*pgx.Conn, error)
	// Secret gives a role's password; it is never logged, shown or put into an
	// argument.
	Secret func(role string) (string, error)

	mu          sync.Mutex
	copyChecked map[cluster.NodeID]bool // in this run
}

func (s Spec) node(id cluster.NodeID) (Node, bool) {
	for _, n := range s.Nodes {
		if n.ID == id {
			return n, true
		}
	}
	return Node{}, false
}

// program is a server program of a node; without a directory, PATH finds it.
func program(n Node, name string) string { return path.Join(n.BinDirectory, name) }

// others are all nodes but one, in their order.
func (s Spec) others(id cluster.NodeID) []cluster.NodeID {
	var out []cluster.NodeID
	for _, n := range s.Nodes {
		if n.ID != id {
			out = append(out, n.ID)
		}
	}
	return out
}

// syncNames is synchronous_standby_names of a node when it is the primary.
func (s Spec) syncNames(id cluster.NodeID) string {
	return decide.FormatSyncNames(cluster.SyncSet{Method: s.SyncMethod, K: s.SyncK, Members: s.others(id)})
}

// slot is the replication slot of a standby; "" where there are none.
func (s Spec) slot(id cluster.NodeID) string {
	if !s.Slots {
		return ""
	}
	return cluster.SlotName(id)
}

type builder struct {
	s Spec
	p plan.Plan
}

func (b *builder) add(k plan.Kind, n cluster.NodeID, title, command, post string, limit time.Duration) {
	id := fmt.Sprintf("%d-%s", len(b.p.Steps)+1, k)
	if n != "" {
		id += "-" + string(n)
	}
	b.p.Steps = append(b.p.Steps, plan.Step{ID: id, Kind: k, Node: n, Title: title, Command: command, Pre: before[k], Post: post, Deadline: limit})
}

// before is what must hold before a step of each kind, where it is more than
// that the host answers.
var before = map[plan.Kind]string{
	Init:      "there is no data directory, or an empty one",
	Settings:  "nobody edits the files meanwhile",
	Access:    "nobody edits the file meanwhile",
	Roles:     "the account that owns the server may log in over its own socket",
	Copy:      "the data directory is absent, empty, or belongs to the primary's system",
	Standby:   "the server is stopped",
	Streams:   "both servers run",
	Sync:      "every standby streams: a commit would wait for one that does not",
	Sample:    "the primary accepts commits",
	CheckSync: "a standby streams",
	CheckCopy: "the primary accepts commits",
}

// Build lists the steps. Nothing is looked at: a step that is not needed finds
// that out when it runs.
func Build(s Spec) (plan.Plan, error) {
	primary, ok := s.node(s.Primary)
	if !ok || len(s.Nodes) < 2 {
		return plan.Plan{}, &plan.Refusal{Usage: true, Why: "provisioning needs a primary and at least one standby", Remedy: "two [[node]] tables in the configuration"}
	}
	b := &builder{s: s, p: plan.Plan{Action: cluster.Provision, Node: s.Primary, By: "engine", Confirm: s.Cluster,
		Reason:  fmt.Sprintf("set up %s as primary and %d standby", s.Primary, len(s.Nodes)-1),
		Effects: []string{"what is as it should be already is left as it is", fmt.Sprintf("PostgreSQL on %s is restarted if a setting needs it", s.Primary)}}}
	for _, n := range s.Nodes {
		b.add(Version, n.ID, fmt.Sprintf("PostgreSQL on %s is 13 or newer", n.ID), program(n, "postgres")+" --version", "the version is supported", time.Minute)
	}
	b.onPrimary(primary)
	for _, n := range s.Nodes {
		b.add(Passwords, n.ID, fmt.Sprintf("password file of %s, for its peers", n.ID), "write "+n.PassFile+" (0600)", "it has a line for each peer", time.Minute)
	}
	for _, n := range s.Nodes {
		if n.ID != s.Primary {
			b.onStandby(n, primary)
		}
	}
	b.add(Sync, s.Primary, "turn to synchronous replication", "synchronous_standby_names = "+s.syncNames(s.Primary), "the running server says so", time.Minute)
	if s.Sample != nil {
		b.add(Sample, s.Primary, fmt.Sprintf("database %s owned by role %s with table %s", s.Sample.Database, s.Sample.User, s.Sample.Table),
			fmt.Sprintf("CREATE ROLE %[1]s LOGIN PASSWORD ****; CREATE DATABASE %[2]s OWNER %[1]s; CREATE TABLE %[3]s (id integer not null primary key, value text)",
				s.Sample.User, s.Sample.Database, s.Sample.Table), "they are there", time.Minute)
	}
	b.add(CheckSync, s.Primary, "check: sync_state is sync", "SELECT application_name, state, sync_priority, sync_state FROM pg_stat_replication", "at least as many standbys confirm as must", time.Minute)
	for _, id := range s.others(s.Primary) {
		command := "CREATE DATABASE, CREATE TABLE; there: to_regclass, SELECT pg_is_in_recovery(); DROP DATABASE"
		if s.Sample != nil {
			command = fmt.Sprintf("in %s: SELECT to_regclass('public.%s'), pg_is_in_recovery()", s.Sample.Database, s.Sample.Table)
		}
		b.add(CheckCopy, id, fmt.Sprintf("check: what is created on %s appears on %s, which is in recovery", s.Primary, id), command, "it appears", 2*time.Minute)
	}
	return b.p, nil
}

func (b *builder) onPrimary(n Node) {
	if b.s.Init {
		b.add(Init, n.ID, "initialise the database cluster of "+string(n.ID), fmt.Sprintf("%s -D %s --data-checksums --auth-local=peer --auth-host=scram-sha-256", program(n, "initdb"), n.DataDirectory), "PG_VERSION is there", 5*time.Minute)
	}
	b.files(n)
	b.add(Run, n.ID, fmt.Sprintf("%s runs with these settings", n.ID), "pg_ctl start, or restart where a setting needs it", "no setting waits for a restart", 5*time.Minute)
	b.add(Roles, n.ID, fmt.Sprintf("roles %s (superuser of proxyd) and %s (replication only)", b.s.Recovery, b.s.Replication),
		fmt.Sprintf("CREATE ROLE %s LOGIN SUPERUSER PASSWORD ****; CREATE ROLE %s LOGIN REPLICATION PASSWORD ****", b.s.Recovery, b.s.Replication), "proxyd can log in", time.Minute)
}

func (b *builder) files(n Node) {
	b.add(Archive, n.ID, "archive folder of "+string(n.ID), "mkdir -p -m 0700 "+n.Archive, "it is there, for its owner alone", time.Minute)
	b.add(Settings, n.ID, "settings of "+string(n.ID)+", with postgresql.conf.sync and postgresql.conf.async", "in "+n.ConfigDirectory+"/postgresql.conf:\n"+b.s.settings(n),
		"the three files hold them", time.Minute)
	b.add(Access, n.ID, "access to "+string(n.ID)+" for its peers and proxyd alone", "in "+n.ConfigDirectory+"/pg_hba.conf:\n"+b.s.access(), "pg_hba.conf holds it", time.Minute)
}

func (b *builder) onStandby(n, primary Node) {
	b.add(Copy, n.ID, fmt.Sprintf("copy %s to %s", primary.ID, n.ID),
		fmt.Sprintf("%s -h %s -p %d -U %s -D %s -X stream -c fast --progress", program(n, "pg_basebackup"), primary.Host, primary.Port, b.s.Replication, n.DataDirectory),
		"the data directory belongs to the same system", 12*time.Hour)
	b.files(n)
	b.add(Standby, n.ID, fmt.Sprintf("%s is a standby of %s", n.ID, primary.ID),
		fmt.Sprintf("standby.signal; primary_conninfo = 'host=%s port=%d user=%s application_name=%s passfile=%s'; primary_slot_name = '%s'", primary.Host, primary.Port, b.s.Replication, n.ID, n.PassFile, b.s.slot(n.ID)),
		"it would start as a standby", time.Minute)
	b.add(Run, n.ID, fmt.Sprintf("%s runs with these settings", n.ID), "pg_ctl start", "no setting waits for a restart", 5*time.Minute)
	b.add(Streams, n.ID, fmt.Sprintf("%s streams from %s", n.ID, primary.ID), "SELECT state FROM pg_stat_replication", "state is streaming", 5*time.Minute)
}

const (
	blockBegin = "# begin pgtandem: written by provisioning, which replaces what is between these lines"
	blockEnd   = "# end pgtandem"
	extraBegin = "# begin pgtandem: of this node alone"
	extraEnd   = "# end pgtandem of this node alone"
)

// settings is the block of postgresql.conf, without what differs between sync
// and async.
func (s Spec) settings(n Node) string {
	lines := [][2]string{
		{"listen_addresses", "*"},
		{"port", fmt.Sprint(n.Port)},
		{"cluster_name", string(n.ID)},
		{"wal_level", "replica"},
		{"archive_mode", "on"},
		{"archive_command", archiveCommand(n.Archive)},
		{"max_wal_senders", "10"},
		{"wal_keep_size", "512MB"},
		// A standby that never comes back must not fill the disk.
		{"max_slot_wal_keep_size", "4GB"},
		{"wal_log_hints", "on"},
		{"hot_standby", "on"},
		// A standby whose primary restarted comes back at once and not in five
		// seconds, in which commits would wait or go on without it.
		{"wal_retrieve_retry_interval", "500ms"},
		{"password_encryption", "scram-sha-256"},
	}
	return conf(lines)
}

func conf(lines [][2]string) string {
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%s = %s\n", l[0], confQuote(l[1]))
	}
	return b.String()
}

// archiveCommand never writes over what is there: it succeeds when the very
// same file has been archived before, and fails when another one has. The copy
// is flushed before it gets its name (PostgreSQL docs, 26.3.1).
func archiveCommand(dir string) string {
	d := shellQuote(dir)
	return "test ! -f " + d + "/%f || exec cmp -s %p " + d + "/%f; " +
		"test -f " + d + "/%f || { cp %p " + d + "/%f.part && sync " + d + "/%f.part && mv " + d + "/%f.part " + d + "/%f; }"
}

func shellQuote(v string) string { return "'" + strings.ReplaceAll(v, "'", `'\''`) + "'" }

// confQuote writes a value as postgresql.conf reads it (PostgreSQL docs,
// 20.1.2).
func confQuote(v string) string {
	return "'" + strings.NewReplacer("'", "''", `\`, `\\`).Replace(v) + "'"
}

// access is the block of pg_hba.conf. Every node may become the primary, so
// each lets all its peers in, by address, and nobody else.
func (s Spec) access() string {
	var b strings.Builder
	seen := map[string]bool{}
	for _, n := range s.Nodes {
		if a := hbaAddress(n.Peer); !seen[a] {
			seen[a] = true
			fmt.Fprintf(&b, "host replication %s %s scram-sha-256\n", hbaName(s.Replication), a)
			fmt.Fprintf(&b, "host postgres %s %s scram-sha-256\n", hbaName(s.Recovery), a)
		}
	}
	fmt.Fprintf(&b, "host all all %s scram-sha-256\n", hbaAddress(s.ProxyAddress))
	return b.String()
}

func hbaName(v string) string { return `"` + strings.ReplaceAll(v, `"`, `""`) + `"` }

// hbaAddress is one host's address: a number with its full mask, or a name.
func hbaAddress(v string) string {
	if a, err := netip.ParseAddr(v); err == nil {
		return fmt.Sprintf("%s/%d", a, a.BitLen())
	}
	return v
}
