package observe_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine/assemble"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/labtest"
	"github.com/pgtandem/pgtandem/engine/observe"
)

// world is a real cluster of three and what is needed to watch it.
type world struct {
	lab    *labtest.Lab
	config *config.Config
	hosts  map[cluster.NodeID]observe.HostProbe
}

const (
	watcher = "watcher"
	secret  = "watch and see"
)

// The stories share one cluster and leave it as they found it, but for the
// last.
func TestObserver(t *testing.T) {
	l := labtest.Up(t, lab.Options{Nodes: 3, WithoutDaemon: true})
	c := labtest.Config(t, l.Lab)
	machines := assemble.Machines(c)
	t.Cleanup(func() { _ = machines.Close() }) // its end is the test's end
	w := &world{lab: l, config: c, hosts: machines.Probes()}
	w.exec(t, "pgsql1", fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s' IN ROLE pg_monitor", watcher, secret),
		fmt.Sprintf("CREATE ROLE stranger LOGIN PASSWORD '%s'", secret))

	t.Run("a role with pg_monitor sees the whole of a healthy cluster", w.healthy)
	t.Run("a role without it is told what it lacks", w.stranger)
	t.Run("a wrong password is not a lost server", w.wrongPassword)
	t.Run("a password file of ours that is gone is not a lost server", w.noPassword)
	t.Run("an error in a configuration file is shown, to those who may see it", w.configError)
	t.Run("paused replay is seen", w.replayPaused)
	t.Run("what WAL and which slots a primary still has", w.oldestWAL)
	t.Run("how long a client's transaction is open", w.oldestXact)
	t.Run("commits that wait are counted, and a stopped standby is proved", w.standbyStopped)
	t.Run("a server that dies is seen without waiting for the next look", w.sentinel)
	t.Run("a frozen server is silent, and nobody else waits for it", w.frozen)
	t.Run("a frozen postmaster is silent although its old connections answer", w.frozenPostmaster)
	t.Run("an answer that comes late ends the silence", w.lateAnswer)
	t.Run("dead connections are not a dead server", w.deadPaths)
	t.Run("a network that is slow and lossy is not a dead server", w.jitter)
	t.Run("a standby knows its timeline when its primary is gone", w.timeline)
}

func (w *world) exec(t *testing.T, node string, statements ...string) {
	t.Helper()
	conn := w.lab.SQL(node, "postgres")
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s on %s: %v", s, node, err)
		}
	}
}

func (w *world) ask(t *testing.T, node, query string) (v string) {
	t.Helper()
	if err := w.lab.SQL(node, "postgres").QueryRow(t.Context(), query).Scan(&v); err != nil {
		t.Fatalf("%s on %s: %v", query, node, err)
	}
	return v
}

func (w *world) status(t *testing.T, node string) lab.NodeStatus {
	t.Helper()
	for _, n := range w.lab.Status().Nodes {
		if n.Name == node {
			return n
		}
	}
	t.Fatalf("the lab has no node %s", node)
	return lab.NodeStatus{}
}

// watch runs an observer for as long as the test.
func (w *world) watch(t *testing.T, user, password string, check observe.Check) *observe.Observer {
	t.Helper()
	return w.watchAs(t, check, func(n cluster.Node, _ observe.Role) (*pgx.ConnConfig, error) {
		return assemble.ConnConfig(w.config, n, config.Credential{User: user, Password: config.Secret(password)}, "postgres")
	})
}

func (w *world) watchAs(t *testing.T, check observe.Check, connect func(cluster.Node, observe.Role) (*pgx.ConnConfig, error)) *observe.Observer {
	t.Helper()
	o := observe.New(observe.Options{Nodes: assemble.Nodes(w.config), Check: check, Config: connect, Hosts: w.hosts, Now: time.Now})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); o.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return o
}

var usual = observe.Check{Period: 100 * time.Millisecond, Timeout: time.Second}

// until waits until a node's facts satisfy want, looking at them only when the
// observer says that something changed.
func until(t *testing.T, o *observe.Observer, node cluster.NodeID, what string, want func(cluster.NodeFacts) bool) cluster.NodeFacts {
	t.Helper()
	limit := time.After(45 * time.Second)
	for {
		n := o.Snapshot().Node(node)
		if want(n) {
			return n
		}
		select {
		case <-o.Changed():
		case <-limit:
			t.Fatalf("%s: %s was never seen; last: %+v", node, what, n)
		}
	}
}

func up(n cluster.NodeFacts) bool { return n.Up() && n.Host.Reachable }

func allUp(t *testing.T, o *observe.Observer) {
	t.Helper()
	for _, id := range []cluster.NodeID{"pgsql1", "pgsql2", "pgsql3"} {
		until(t, o, id, "up", up)
	}
}

func look(t *testing.T, o *observe.Observer, node cluster.NodeID) cluster.NodeFacts {
	t.Helper()
	n, err := o.Look(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (w *world) healthy(t *testing.T) {
	o := w.watch(t, watcher, secret, usual)
	allUp(t, o)
	w.exec(t, "pgsql1", "SELECT pg_switch_wal()")
	flushed, err := cluster.ParseLSN(w.ask(t, "pgsql1", "SELECT pg_current_wal_flush_lsn()::text"))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	p := look(t, o, "pgsql1")
	status := w.status(t, "pgsql1")
	if p.Role != cluster.RolePrimary || p.Timeline != 1 || p.FlushLSN < flushed || p.InsertLSN < p.FlushLSN || p.Receiver != nil || p.Conninfo != "" && !strings.Contains(p.Conninfo, "application_name") {
		t.Errorf("the primary: %+v", p)
	}
	if want := w.ask(t, "pgsql1", "SELECT system_identifier::text FROM pg_control_system()"); fmt.Sprint(p.SystemIdentifier) != want {
		t.Errorf("system identifier %d, want %s", p.SystemIdentifier, want)
	}
	if want := w.ask(t, "pgsql1", "SELECT current_setting('server_version_num')"); fmt.Sprint(p.ServerVersion) != want {
		t.Errorf("version %d, want %s", p.ServerVersion, want)
	}
	if want := w.ask(t, "pgsql1", "SHOW synchronous_standby_names"); want == "" || p.SyncStandbyNames != want || !strings.Contains(p.SyncNamesSource, status.DataDirectory) || p.SynchronousCommit != "on" {
		t.Errorf("synchronous_standby_names %q from %q, synchronous_commit %s; want %q from a file in %s", p.SyncStandbyNames, p.SyncNamesSource, p.SynchronousCommit, want, status.DataDirectory)
	}
	if s, ok := p.SenderTo("pgsql2"); !ok || s.State != "streaming" || s.SyncState == "async" || s.FlushLSN == 0 || s.SentLSN < s.FlushLSN {
		t.Errorf("the sender to pgsql2: %+v, %v", s, ok)
	}
	if p.Host.Postmaster != cluster.PostmasterRunning || p.Host.PID != status.PID || p.Host.LastTry.Before(began) || p.LastOK.Before(began) {
		t.Errorf("asked at %s; the host: %+v; SQL at %s; want pid %d", began, p.Host, p.LastOK, status.PID)
	}
	if want := []cluster.HistoryEntry{{SystemIdentifier: p.SystemIdentifier, Timeline: 1}}; !slices.Equal(p.SwitchHistory, want) {
		t.Errorf("its history is %v, want %v", p.SwitchHistory, want)
	}
	if p.OldestWAL == 0 || p.OldestWAL > p.FlushLSN {
		t.Errorf("its oldest WAL is %s, and it has flushed %s", p.OldestWAL, p.FlushLSN)
	}
	s := look(t, o, "pgsql2")
	if s.Role != cluster.RoleStandby || s.Timeline != 1 || s.SystemIdentifier != p.SystemIdentifier || s.Position() == 0 || s.FlushLSN != 0 || s.ReplayPaused {
		t.Errorf("the standby: %+v", s)
	}
	if r := s.Receiver; r == nil || r.Status != "streaming" || r.ReceivedTLI != 1 || r.SenderPort != status.Port || r.LastMsgReceipt.After(time.Now()) {
		t.Errorf("the receiver: %+v", r)
	}
	if !strings.Contains(s.Conninfo, "application_name=pgsql2") && !strings.Contains(s.Conninfo, "application_name='pgsql2'") {
		t.Errorf("primary_conninfo %q", s.Conninfo)
	}
	if _, err := o.Look(t.Context(), "pgsql9"); err == nil {
		t.Error("a node that is not configured was looked at")
	}
}

func (w *world) stranger(t *testing.T) {
	o := w.watch(t, "stranger", secret, usual)
	n := until(t, o, "pgsql2", "rejected", func(n cluster.NodeFacts) bool { return n.Reach == cluster.ReachRejected })
	if !strings.Contains(n.LastError, "GRANT pg_monitor") || !strings.Contains(n.LastError, "stranger") {
		t.Errorf("told %q", n.LastError)
	}
}

func (w *world) wrongPassword(t *testing.T) {
	o := w.watch(t, watcher, "something else", usual)
	n := until(t, o, "pgsql1", "rejected", func(n cluster.NodeFacts) bool {
		return n.Reach == cluster.ReachRejected && n.Host.Postmaster == cluster.PostmasterRunning
	})
	if !strings.Contains(n.LastError, "28P01") || strings.Contains(n.LastError, "something else") {
		t.Errorf("told %q", n.LastError)
	}
}

func (w *world) noPassword(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "gone")
	o := w.watchAs(t, usual, func(n cluster.Node, _ observe.Role) (*pgx.ConnConfig, error) {
		return assemble.ConnConfig(w.config, n, config.Credential{User: watcher, PasswordFile: gone}, "postgres")
	})
	until(t, o, "pgsql1", "rejected", func(n cluster.NodeFacts) bool { return n.Reach == cluster.ReachRejected })
}

func (w *world) configError(t *testing.T) {
	file := filepath.Join(w.status(t, "pgsql3").DataDirectory, "postgresql.conf")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := os.WriteFile(file, before, 0o600); err != nil {
			t.Error(err)
		}
	}
	defer restore()
	if err := os.WriteFile(file, append(before, "\nwork_mem = 'much'\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	// A superuser may see it; the monitor is not disturbed.
	recovery := w.watchAs(t, usual, func(n cluster.Node, _ observe.Role) (*pgx.ConnConfig, error) {
		return assemble.ConnConfig(w.config, n, w.config.Recovery.Credential, "postgres")
	})
	n := until(t, recovery, "pgsql3", "the error", func(n cluster.NodeFacts) bool { return len(n.ConfigErrors) > 0 })
	if got := strings.Join(n.ConfigErrors, "; "); !strings.Contains(got, file) || !strings.Contains(got, "work_mem") {
		t.Errorf("told %q", got)
	}
	monitor := w.watch(t, watcher, secret, usual)
	if n := until(t, monitor, "pgsql3", "up", up); len(n.ConfigErrors) > 0 {
		t.Errorf("the monitor was told %q, which PostgreSQL shows to superusers", n.ConfigErrors)
	}
	restore()
	until(t, recovery, "pgsql3", "no error", func(n cluster.NodeFacts) bool { return len(n.ConfigErrors) == 0 })
}

func (w *world) replayPaused(t *testing.T) {
	o := w.watch(t, watcher, secret, usual)
	allUp(t, o)
	w.exec(t, "pgsql2", "SELECT pg_wal_replay_pause()")
	until(t, o, "pgsql2", "paused", func(n cluster.NodeFacts) bool { return n.ReplayPaused })
	w.exec(t, "pgsql1", "CREATE TABLE while_paused ()")
	if n := look(t, o, "pgsql2"); n.ReceiveLSN <= n.ReplayLSN || n.Position() != n.ReceiveLSN {
		t.Errorf("received %s, replayed %s, position %s: it goes on receiving", n.ReceiveLSN, n.ReplayLSN, n.Position())
	}
	w.exec(t, "pgsql2", "SELECT pg_wal_replay_resume()")
	until(t, o, "pgsql2", "resumed", func(n cluster.NodeFacts) bool { return !n.ReplayPaused })
}

// The oldest file goes with a checkpoint, unless a slot holds it.
func (w *world) oldestWAL(t *testing.T) {
	before := look(t, w.watch(t, watcher, secret, usual), "pgsql1").OldestWAL
	w.exec(t, "pgsql1", "SELECT pg_create_physical_replication_slot('holds', true)", "SELECT pg_switch_wal()", "CHECKPOINT")
	defer w.exec(t, "pgsql1", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'holds'")
	n := look(t, w.watch(t, watcher, secret, usual), "pgsql1")
	holds := slices.IndexFunc(n.Slots, func(s cluster.Slot) bool { return s.Name == "holds" })
	if holds < 0 || n.Slots[holds].Active || n.Slots[holds].WALStatus != "reserved" || n.Slots[holds].RestartLSN < n.OldestWAL {
		t.Errorf("slots %+v, the oldest WAL is %s", n.Slots, n.OldestWAL)
	}
	w.exec(t, "pgsql1", "SELECT pg_drop_replication_slot('holds')")
	w.exec(t, "pgsql1", "ALTER SYSTEM SET wal_keep_size = 0", "SELECT pg_reload_conf()")
	defer w.exec(t, "pgsql1", "ALTER SYSTEM RESET wal_keep_size", "SELECT pg_reload_conf()")
	for range 3 {
		w.exec(t, "pgsql1", "CREATE TABLE to_write ()", "DROP TABLE to_write", "SELECT pg_switch_wal()", "CHECKPOINT")
	}
	n = look(t, w.watch(t, watcher, secret, usual), "pgsql1")
	if n.OldestWAL <= before || n.OldestWAL > n.FlushLSN || slices.ContainsFunc(n.Slots, func(s cluster.Slot) bool { return s.Name == "holds" }) {
		t.Errorf("the oldest WAL was %s and is %s; it has flushed %s; slots %+v", before, n.OldestWAL, n.FlushLSN, n.Slots)
	}
}

func (w *world) oldestXact(t *testing.T) {
	o := w.watch(t, watcher, secret, usual)
	tx, err := w.lab.SQL("pgsql1", "postgres").Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := look(t, o, "pgsql1").OldestXact
	if second := look(t, o, "pgsql1").OldestXact; first <= 0 || second <= first {
		t.Errorf("open for %s, and later for %s", first, second)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (w *world) standbyStopped(t *testing.T) {
	o := w.watch(t, watcher, secret, usual)
	allUp(t, o)
	started := o.Snapshot().Node("pgsql2").StartedAt
	names := w.ask(t, "pgsql1", "SHOW synchronous_standby_names")
	// Every standby must confirm, so that one that is gone makes commits wait.
	w.exec(t, "pgsql1", "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 2 (pgsql2, pgsql3)'", "SELECT pg_reload_conf()")
	defer w.exec(t, "pgsql1", "ALTER SYSTEM SET synchronous_standby_names = '"+names+"'", "SELECT pg_reload_conf()")
	until(t, o, "pgsql1", "the setting", func(n cluster.NodeFacts) bool { return strings.HasPrefix(n.SyncStandbyNames, "FIRST 2") })
	if n := look(t, o, "pgsql1"); !strings.Contains(n.SyncNamesSource, "postgresql.auto.conf:") {
		t.Errorf("the setting comes from %q", n.SyncNamesSource)
	}
	w.lab.StopNode("pgsql2", "immediate")
	n := until(t, o, "pgsql2", "refused and stopped", func(n cluster.NodeFacts) bool {
		return n.Reach == cluster.ReachRefused && n.Host.Postmaster == cluster.PostmasterStopped
	})
	if n.Host.LastTry.Before(n.ReachSince) || n.Role != cluster.RoleStandby {
		t.Errorf("proved at %s, gone since %s; it was %s", n.Host.LastTry, n.ReachSince, n.Role)
	}
	until(t, o, "pgsql1", "one sender less", func(n cluster.NodeFacts) bool { return len(n.Senders) == 1 })
	writer := w.lab.SQL("pgsql1", "postgres")
	written := make(chan error, 1)
	go func() {
		_, err := writer.Exec(context.Background(), "CREATE TABLE that_waits ()")
		written <- err
	}()
	for {
		if n := look(t, o, "pgsql1"); n.SyncWaiters == 1 && n.OldestWait > 0 {
			break
		}
	}
	w.lab.StartNode("pgsql2")
	if err := <-written; err != nil {
		t.Error(err)
	}
	n = until(t, o, "pgsql2", "up again", up)
	if !n.StartedAt.After(started) || n.Failures != 0 {
		t.Errorf("started at %s, before that at %s; %d failures", n.StartedAt, started, n.Failures)
	}
}

// With an hour between two looks only the sentinel can tell.
func (w *world) sentinel(t *testing.T) {
	o := w.watch(t, watcher, secret, observe.Check{Period: time.Hour, Timeout: time.Second})
	allUp(t, o)
	// The sentinel's connection is made beside the first look.
	for w.ask(t, "pgsql3", "SELECT count(*)::text FROM pg_stat_activity WHERE usename = '"+watcher+"'") != "2" {
	}
	w.lab.StopNode("pgsql3", "immediate")
	until(t, o, "pgsql3", "refused and stopped", func(n cluster.NodeFacts) bool {
		return n.Reach == cluster.ReachRefused && n.Host.Postmaster == cluster.PostmasterStopped
	})
	w.lab.StartNode("pgsql3")
	o.Suspect("pgsql3")
	until(t, o, "pgsql3", "up again", up)
}

// processes are a server's postmaster and all its children.
func processes(t *testing.T, postmaster int) []int {
	t.Helper()
	pids := []int{postmaster}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range stats {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended meanwhile
		}
		_, after, _ := strings.Cut(string(b), ") ")
		fields := strings.Fields(after)
		if len(fields) > 1 && fields[1] == strconv.Itoa(postmaster) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

func signal(t *testing.T, pids []int, s syscall.Signal) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, s); err != nil && err != syscall.ESRCH {
			t.Errorf("send %s to %d: %v", s, pid, err)
		}
	}
}

var hasty = observe.Check{Period: 50 * time.Millisecond, Timeout: 300 * time.Millisecond}

func (w *world) frozen(t *testing.T) {
	o := w.watch(t, watcher, secret, hasty)
	allUp(t, o)
	pids := processes(t, w.status(t, "pgsql1").PID)
	if len(pids) < 6 {
		t.Fatalf("only %d processes of pgsql1 were found", len(pids))
	}
	signal(t, pids, syscall.SIGSTOP)
	thaw := func() { signal(t, pids, syscall.SIGCONT) }
	defer thaw()
	n := until(t, o, "pgsql1", "five failures", func(n cluster.NodeFacts) bool { return n.Failures >= 5 })
	if n.Reach != cluster.ReachTimeout || n.Host.Postmaster != cluster.PostmasterRunning {
		t.Errorf("%s (%s), its host says %s", n.Reach, n.LastError, n.Host.Postmaster)
	}
	// The others go on being looked at, and do not wait for it to thaw.
	for _, id := range []cluster.NodeID{"pgsql2", "pgsql3"} {
		until(t, o, id, "seen while pgsql1 is silent", func(other cluster.NodeFacts) bool { return other.Up() && other.LastOK.After(n.LastTry) })
	}
	if n := o.Snapshot().Node("pgsql1"); n.Up() {
		t.Error("pgsql1 answered meanwhile")
	}
	thaw()
	until(t, o, "pgsql1", "up again", up)
}

func (w *world) frozenPostmaster(t *testing.T) {
	o := w.watch(t, watcher, secret, hasty)
	allUp(t, o)
	pid := []int{w.status(t, "pgsql1").PID}
	signal(t, pid, syscall.SIGSTOP)
	thaw := func() { signal(t, pid, syscall.SIGCONT) }
	defer thaw()
	until(t, o, "pgsql1", "three failures", func(n cluster.NodeFacts) bool { return n.Reach == cluster.ReachTimeout && n.Failures >= 3 })
	thaw()
	until(t, o, "pgsql1", "up again", up)
}

// pgsql3 follows pgsql2 to a new timeline, which then goes. No restartpoint has
// told pgsql3's control file.
func (w *world) timeline(t *testing.T) {
	w.lab.StopNode("pgsql1", "immediate")
	w.exec(t, "pgsql2", "ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()", "SELECT pg_promote()")
	follow := strings.ReplaceAll(w.ask(t, "pgsql3", "SHOW primary_conninfo"), "'", "''")
	from, to := strconv.Itoa(w.status(t, "pgsql1").Port), strconv.Itoa(w.status(t, "pgsql2").Port)
	if !strings.Contains(follow, from) {
		t.Fatalf("primary_conninfo %q does not name port %s", follow, from)
	}
	w.exec(t, "pgsql2", "SELECT pg_create_physical_replication_slot('"+cluster.SlotName("pgsql3")+"')")
	w.exec(t, "pgsql3", fmt.Sprintf("ALTER SYSTEM SET primary_conninfo = '%s'", strings.ReplaceAll(follow, from, to)), "SELECT pg_reload_conf()")
	o := w.watch(t, watcher, secret, usual)
	until(t, o, "pgsql2", "promoted", func(n cluster.NodeFacts) bool { return n.Role == cluster.RolePrimary && n.Timeline == 2 })
	until(t, o, "pgsql2", "followed", func(n cluster.NodeFacts) bool { s, ok := n.SenderTo("pgsql3"); return ok && s.State == "streaming" })
	w.lab.StopNode("pgsql2", "immediate")
	n := until(t, o, "pgsql3", "no receiver", func(n cluster.NodeFacts) bool { return n.Receiver == nil && n.Up() })
	if control := w.ask(t, "pgsql3", "SELECT timeline_id::text FROM pg_control_checkpoint()"); control != "1" {
		t.Fatalf("the control file says timeline %s; the story is about one that is behind", control)
	}
	recovery := w.watchAs(t, usual, func(n cluster.Node, _ observe.Role) (*pgx.ConnConfig, error) {
		return assemble.ConnConfig(w.config, n, w.config.Recovery.Credential, "postgres")
	})
	own := until(t, recovery, "pgsql3", "up", func(n cluster.NodeFacts) bool { return n.Up() }).SwitchHistory
	if len(own) != 2 || own[0].Timeline != 1 || own[0].SwitchLSN != 0 || own[1].Timeline != 2 || own[1].SwitchLSN == 0 || own[1].SwitchLSN > n.Position() {
		t.Errorf("its history is %v, and it is at %s", own, n.Position())
	}
	if n.Timeline != 2 {
		t.Errorf("pgsql3 is said to be on timeline %d", n.Timeline)
	}
}
