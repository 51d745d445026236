package provision_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/clock"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/host"
	"github.com/pgtandem/pgtandem/engine/execute/host/hosttest"
	"github.com/pgtandem/pgtandem/engine/plan"
	"github.com/pgtandem/pgtandem/engine/provision"
	"github.com/pgtandem/pgtandem/engine/store/memory"
)

var secrets = map[string]string{"pgtandem": "the engine's \\ secret:", "replicator": "the standby's secret", "health": "the check's secret", "test1": "test1"}

// site is two machines on this one, and what is wanted of them.
type site struct {
	t     *testing.T
	dir   string
	world *provision.World
	hosts map[cluster.NodeID]*host.Host
	local watched
}

// watched is this machine, with every command remembered.
type watched struct {
	hosttest.Local
	seen *seen
}

type seen struct {
	mu   sync.Mutex
	argv [][]string
}

func (w watched) Run(ctx context.Context, c execute.Command) (execute.Result, error) {
	w.seen.mu.Lock()
	w.seen.argv = append(w.seen.argv, c.Argv)
	w.seen.mu.Unlock()
	return w.Local.Run(ctx, c)
}

func newSite(t *testing.T, change func(*provision.Spec)) *site {
	t.Helper()
	as := hosttest.Owner(t)
	s := &site{t: t, dir: as.Dir(t), hosts: map[cluster.NodeID]*host.Host{}, local: watched{hosttest.Local{As: as}, &seen{}}}
	spec := provision.Spec{Cluster: "tandem", Primary: "pgsql1", ProxyAddress: "127.0.0.1", SwapMethod: cluster.SwapAlterSystem, SyncMethod: "FIRST", SyncK: 1,
		Recovery: "pgtandem", Replication: "replicator", Monitors: []string{"health"}, Init: true,
		Sample: &provision.SampleSpec{Database: "test1", User: "test1", Table: "table1"}}
	for _, id := range []string{"pgsql1", "pgsql2"} {
		home := filepath.Join(s.dir, id)
		s.sh("mkdir", "-p", home)
		spec.Nodes = append(spec.Nodes, provision.Node{Archive: home + "/the archive", Peer: "127.0.0.1", PassFile: home + "/pgpass",
			Extra: [][2]string{{"listen_addresses", "127.0.0.1"}, {"unix_socket_directories", home}, {"shared_buffers", "16MB"}, {"fsync", "off"}},
			Node: cluster.Node{ID: cluster.NodeID(id), Host: "127.0.0.1", Port: hosttest.FreePort(t), BinDirectory: hosttest.BinDir(t), OSUser: as.Name,
				DataDirectory: home + "/data", ConfigDirectory: home + "/data", LogFile: home + "/log"}})
	}
	if change != nil {
		change(&spec)
	}
	s.world = s.newWorld(spec)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		for id, h := range s.hosts {
			if err := h.Stop(ctx, "immediate"); err != nil {
				t.Errorf("stop %s: %v", id, err)
			}
		}
	})
	return s
}

func (s *site) newWorld(spec provision.Spec) *provision.World {
	w := &provision.World{Spec: spec, Hosts: map[cluster.NodeID]provision.Host{},
		Secret: func(role string) (string, error) {
			if p, ok := secrets[role]; ok {
				return p, nil
			}
			return "", fmt.Errorf("no password for %s", role)
		},
		Connect: func(ctx context.Context, n cluster.Node, database string) (*pgx.Conn, error) {
			return connect(ctx, n, "pgtandem", database)
		}}
	for _, n := range spec.Nodes {
		s.hosts[n.ID] = host.New(n.Node, s.local, host.Options{ReplicationUser: spec.Replication, RecoveryUser: spec.Recovery, PassFile: n.PassFile})
		w.Hosts[n.ID] = s.hosts[n.ID]
	}
	return w
}

func connect(ctx context.Context, n cluster.Node, user, database string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=%s sslmode=disable", n.Port, user, database))
	if err != nil {
		return nil, err
	}
	cfg.Password = secrets[user]
	return pgx.ConnectConfig(ctx, cfg)
}

func (s *site) sh(argv ...string) string {
	s.t.Helper()
	res, err := s.local.Local.Run(s.t.Context(), execute.Command{Argv: argv})
	if err != nil || res.Exit != 0 {
		s.t.Fatalf("%q: exit %d, %v: %s", argv, res.Exit, err, res.Stderr)
	}
	return string(res.Stdout)
}

// provision runs the plan and gives the operation as the journal has it.
func (s *site) provision() plan.Operation {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute)
	defer cancel()
	p, err := provision.Build(s.world.Spec)
	if err != nil {
		s.t.Fatal(err)
	}
	r := &execute.Runner{Doers: provision.Doers(s.world), Journal: memory.New(1), Clock: clock.System{}, Verify: 20 * time.Millisecond, Changed: func(plan.Operation, string) {}}
	op, err := r.Run(ctx, plan.Operation{ID: "provision", Plan: p})
	if err != nil {
		s.t.Fatal(err)
	}
	return op
}

func (s *site) mustProvision() plan.Operation {
	s.t.Helper()
	op := s.provision()
	if op.Outcome != plan.Done {
		for i, r := range op.Steps {
			s.t.Logf("%-8s %s: %s", r.Outcome, op.Plan.Steps[i].Title, r.Detail)
		}
		s.t.Fatalf("%s: %s", op.Outcome, op.Error)
	}
	return op
}

// files are all of the nodes' configuration, with owner, mode and time.
func (s *site) files() string {
	return s.sh("sh", "-c", `cd "$1" && for n in pgsql1 pgsql2; do for f in data/*.conf* data/standby.signal data/PG_VERSION pgpass "the archive"; do [ ! -e "$n/$f" ] || stat -c "%n %u %a %y" "$n/$f"; done; done`, "sh", s.dir)
}

func (s *site) ask(node, user, database, query string) (answer string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	for _, n := range s.world.Spec.Nodes {
		if string(n.ID) != node {
			continue
		}
		c, err := connect(ctx, n.Node, user, database)
		if err != nil {
			s.t.Fatalf("connect to %s as %s: %v", node, user, err)
		}
		defer c.Close(ctx)
		if err := c.QueryRow(ctx, query).Scan(&answer); err != nil {
			s.t.Fatalf("%s: %s: %v", node, query, err)
		}
	}
	return answer
}

// eventually looks until a query gives what is wanted.
func (s *site) eventually(node, query, want string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	for got := ""; got != want; {
		if got = s.ask(node, "pgtandem", "postgres", query); ctx.Err() != nil {
			s.t.Fatalf("%s: %s is %q, want %q", node, query, got, want)
		}
	}
}

func TestFromNothingToASynchronousPair(t *testing.T) {
	for _, method := range []cluster.SwapMethod{cluster.SwapAlterSystem, cluster.SwapFiles} {
		t.Run(string(method), func(t *testing.T) {
			s := newSite(t, func(spec *provision.Spec) { spec.SwapMethod = method })
			s.mustProvision()
			s.theSeedsChecks()
			s.theSeedsSettings()
			s.nothingIsTold()

			before := s.files()
			started := s.ask("pgsql1", "pgtandem", "postgres", "SELECT pg_postmaster_start_time()::text")
			s.world = s.newWorld(s.world.Spec) // another run, which knows nothing of this one
			op := s.mustProvision()
			for i, r := range op.Steps {
				if r.Outcome != plan.Skipped {
					t.Errorf("the second time %q was %s: %s", op.Plan.Steps[i].Title, r.Outcome, r.Detail)
				}
			}
			if after := s.files(); after != before {
				t.Errorf("the second time changed files:\n%s\nafter:\n%s", before, after)
			}
			if again := s.ask("pgsql1", "pgtandem", "postgres", "SELECT pg_postmaster_start_time()::text"); again != started {
				t.Error("the second time restarted the primary")
			}
		})
	}
}

func (s *site) theSeedsChecks() {
	s.t.Helper()
	for _, q := range []struct{ node, user, database, query, want string }{
		{"pgsql1", "pgtandem", "postgres", "SELECT application_name || ' ' || state || ' ' || sync_priority || ' ' || sync_state FROM pg_stat_replication", "pgsql2 streaming 1 sync"},
		{"pgsql2", "pgtandem", "postgres", "SELECT pg_is_in_recovery()::text", "true"},
		{"pgsql1", "pgtandem", "postgres", "SELECT pg_is_in_recovery()::text", "false"},
		{"pgsql2", "test1", "test1", "SELECT string_agg(attname || ' ' || atttypid::regtype || ' ' || attnotnull, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'table1'::regclass AND attnum > 0",
			"id integer true, value text false"},
		{"pgsql2", "test1", "test1", "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'test1'", "test1"},
		{"pgsql2", "pgtandem", "postgres", "SELECT count(*)::text FROM pg_database WHERE datname LIKE 'pgtandem%'", "0"},
		{"pgsql2", "health", "postgres", "SELECT pg_has_role('pg_monitor', 'member')::text", "true"},
		{"pgsql1", "pgtandem", "postgres", "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE rolsuper", s.local.As.Name + " pgtandem"},
		{"pgsql1", "pgtandem", "postgres", "SELECT rolreplication::text || rolsuper::text FROM pg_roles WHERE rolname = 'replicator'", "truefalse"},
	} {
		want := q.want
		if s.local.As.Name > "pgtandem" && strings.HasSuffix(want, " pgtandem") {
			want = "pgtandem " + s.local.As.Name
		}
		if got := s.ask(q.node, q.user, q.database, q.query); got != want {
			s.t.Errorf("%s: %s is %q, want %q", q.node, q.query, got, want)
		}
	}
}

func (s *site) theSeedsSettings() {
	s.t.Helper()
	for name, want := range map[string]string{"wal_level": "replica", "archive_mode": "on", "wal_log_hints": "on", "hot_standby": "on", "password_encryption": "scram-sha-256",
		"cluster_name": "pgsql1", "data_checksums": "on"} {
		if got := s.ask("pgsql1", "pgtandem", "postgres", "SELECT current_setting('"+name+"')"); got != want {
			s.t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := s.ask("pgsql2", "pgtandem", "postgres", "SELECT current_setting('cluster_name') || current_setting('synchronous_standby_names')"); got != "pgsql2" {
		s.t.Errorf("pgsql2 says %q", got)
	}
	for _, n := range s.world.Spec.Nodes {
		if got := s.sh("stat", "-c", "%a", n.Archive, n.PassFile); got != "700\n600\n" {
			s.t.Errorf("%s: archive and password file have modes %q", n.ID, got)
		}
		peer := map[cluster.NodeID]string{"pgsql1": "pgsql2", "pgsql2": "pgsql1"}[n.ID]
		sync, async := s.sh("cat", n.DataDirectory+"/postgresql.conf.sync"), s.sh("cat", n.DataDirectory+"/postgresql.conf.async")
		if line := "\nsynchronous_standby_names = 'FIRST 1 (\"" + peer + "\")'\n"; !strings.Contains(sync, line) || strings.Replace(sync, line, "\n#"+line[1:], 1) != async {
			s.t.Errorf("%s: postgresql.conf.sync and .async do not differ by the comment sign alone before %q", n.ID, line)
		}
	}
}

// nothingIsTold: no secret is in an argument, which everyone on a machine can
// read, nor in a server's log.
func (s *site) nothingIsTold() {
	s.t.Helper()
	s.local.seen.mu.Lock()
	defer s.local.seen.mu.Unlock()
	logs := s.sh("cat", s.dir+"/pgsql1/log", s.dir+"/pgsql2/log")
	for role, secret := range maps.All(secrets) {
		if role == secret {
			continue // the seed's test1 is no secret
		}
		if strings.Contains(logs, secret) {
			s.t.Errorf("the password of %s is in a server's log", role)
		}
		for _, argv := range s.local.seen.argv {
			if strings.Contains(strings.Join(argv, " "), secret) {
				s.t.Errorf("the password of %s is an argument of %s", role, argv[0])
			}
		}
	}
}

// The archive never writes over what is there.
func TestArchive(t *testing.T) {
	s := newSite(t, func(spec *provision.Spec) { spec.Sample = nil })
	s.mustProvision()
	archive := s.dir + "/pgsql1/the archive"
	s.ask("pgsql1", "pgtandem", "postgres", "SELECT txid_current()::text")
	name := s.ask("pgsql1", "pgtandem", "postgres", "SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
	s.sh("sh", "-c", `echo "somebody's" >"$1"`, "sh", filepath.Join(archive, name))
	s.ask("pgsql1", "pgtandem", "postgres", "SELECT pg_switch_wal()::text")
	s.eventually("pgsql1", "SELECT coalesce(last_failed_wal, '') FROM pg_stat_archiver", name)
	if got := s.sh("cat", filepath.Join(archive, name)); got != "somebody's\n" {
		t.Fatalf("the archive was overwritten: %q", got)
	}
	s.sh("rm", filepath.Join(archive, name))
	// The archiver pauses for a minute after three failures; a new one does not.
	s.sh(s.world.Spec.Nodes[0].BinDirectory+"/pg_ctl", "restart", "-w", "-D", s.world.Spec.Nodes[0].DataDirectory, "-l", s.world.Spec.Nodes[0].LogFile)
	s.sh("timeout", "30", "sh", "-c", `until [ -e "$1" ]; do sleep 0.1; done`, "sh", filepath.Join(archive, name))
	info, err := os.Stat(filepath.Join(archive, name))
	if err != nil || info.Size() != 16<<20 {
		t.Fatalf("the archived segment: %v, %v", info, err)
	}
}

// A data directory of another system is somebody's: it is left alone.
func TestStandbyThatHoldsAnotherSystemIsRefused(t *testing.T) {
	s := newSite(t, nil)
	n := s.world.Spec.Nodes[1]
	s.sh(n.BinDirectory+"/initdb", "-D", n.DataDirectory, "-A", "scram-sha-256", "--auth-local=peer", "--no-sync")
	id := s.sh("sh", "-c", `"$1" -D "$2" | grep identifier`, "sh", n.BinDirectory+"/pg_controldata", n.DataDirectory)
	op := s.provision()
	if op.Outcome != plan.Failed || !strings.Contains(op.Error, "holds another database system") {
		t.Fatalf("%s: %s", op.Outcome, op.Error)
	}
	if now := s.sh("sh", "-c", `"$1" -D "$2" | grep identifier`, "sh", n.BinDirectory+"/pg_controldata", n.DataDirectory); now != id {
		t.Fatal("it was overwritten")
	}
}

// An initdb that was cut off has left its PG_VERSION; it is begun anew.
func TestInterruptedInitdb(t *testing.T) {
	s := newSite(t, nil)
	n := &s.world.Spec.Nodes[0]
	real := n.BinDirectory
	n.BinDirectory = filepath.Join(s.dir, "bin")
	s.sh("sh", "-c", `mkdir "$1" && printf '%s\n' '#!/bin/sh' 'while [ "$1" != -D ]; do shift; done' 'mkdir -p "$2"; echo 15 >"$2/PG_VERSION"; kill -9 $$' >"$1/initdb" && chmod 755 "$1/initdb"
		ln -s "$2/postgres" "$1/postgres"`, "sh", n.BinDirectory, real)
	if op := s.provision(); op.Outcome != plan.Failed || !strings.Contains(op.Error, "initialise") {
		t.Fatalf("%s: %s", op.Outcome, op.Error)
	}
	n.BinDirectory = real
	s.mustProvision()
	if left := s.sh("find", s.dir, "-name", "*initdb.*"); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

func TestOneNodeIsNotAPair(t *testing.T) {
	_, err := provision.Build(provision.Spec{Primary: "pgsql1", Nodes: []provision.Node{{Node: cluster.Node{ID: "pgsql1"}}}})
	var refusal *plan.Refusal
	if !errors.As(err, &refusal) || !refusal.Usage {
		t.Fatalf("got %v", err)
	}
}
