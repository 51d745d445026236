package host_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/host/hosttest"
)

func TestStandbyFollows(t *testing.T) {
	primary, standby := pair(t)
	primary.sql("INSERT INTO t VALUES (2000)")
	standby.eventually("SELECT coalesce(max(id), 0)::text FROM t", "2000")
	if names := standby.ask("SELECT current_setting('synchronous_standby_names')"); names != "" {
		t.Fatalf("a standby waits for %q", names)
	}
	if yes, err := standby.IsStandby(standby.ctx()); err != nil || !yes {
		t.Fatalf("%v, %v", yes, err)
	}
	if yes, err := primary.IsStandby(primary.ctx()); err != nil || yes {
		t.Fatalf("%v, %v", yes, err)
	}
}

// The old primary crashed with WAL that its standby never had; the standby
// was promoted; the old primary comes back as the standby of the new one.
func TestRewindAfterADivergedCrash(t *testing.T) {
	old, promoted := pair(t)
	old.sql("SELECT pg_switch_wal()")
	promoted.sql("SELECT pg_promote()")
	old.sql("INSERT INTO t VALUES (6660)")
	promoted.sql("INSERT INTO t VALUES (7770)", "CHECKPOINT")
	old.must(old.Stop(old.ctx(), "immediate"))
	own := map[string]string{}
	for _, f := range []string{"postgresql.conf", "pg_hba.conf", "pg_ident.conf", "postgresql.auto.conf"} {
		old.append(f, "# this line is pgsql1's own")
		own[f] = old.do("cat", old.path(f))
	}

	var lines []string
	old.must(old.Rewind(old.ctx(), promoted.node, func(l string) { lines = append(lines, l) }))
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "(100%)") }) {
		t.Errorf("no progress was told: %q", lines)
	}
	for f, want := range own {
		if got := old.do("cat", old.path(f)); got != want {
			t.Errorf("%s was not kept:\n%s", f, got)
		}
	}
	if !exists(old.path("standby.signal")) {
		t.Error("its host could start it as a second primary")
	}
	old.must(old.ConfigureStandby(old.ctx(), promoted.node, ""))
	old.must(old.Start(old.ctx()))
	promoted.eventually("SELECT coalesce(max(state), '') FROM pg_stat_replication WHERE application_name = 'pgsql1'", "streaming")
	old.eventually("SELECT count(*)::text FROM t WHERE id = 7770", "1")
	old.eventually("SELECT count(*)::text FROM t WHERE id = 6660", "0")
	history, err := old.History(old.ctx(), 2)
	if err != nil || !strings.HasPrefix(history, "1\t0/") {
		t.Fatalf("history of timeline 2: %q, %v", history, err)
	}
	if got := old.do("ls", "-A", filepath.Dir(old.node.DataDirectory)); strings.Contains(got, "saved\n") {
		t.Fatalf("left behind: %q", got)
	}
}

// The source does not answer: nothing was written, and the node is as it was.
func TestRewindWithoutASourceChangesNothing(t *testing.T) {
	old, promoted := pair(t)
	promoted.must(promoted.Stop(promoted.ctx(), "fast"))
	old.must(old.Stop(old.ctx(), "fast"))
	if err := old.Rewind(old.ctx(), promoted.node, nil); err == nil {
		t.Fatal("it was rewound to nobody")
	}
	old.must(old.Start(old.ctx()))
	if n := old.ask("SELECT count(*)::text FROM t"); n != "1000" {
		t.Fatalf("%s rows are left", n)
	}
}

// A rewind that ended after it had begun to write leaves neither the old nor
// the new: only a clone helps.
func TestHalfRewoundNodeIsOnlyCloned(t *testing.T) {
	old, promoted := pair(t)
	old.must(old.Stop(old.ctx(), "fast"))
	promoted.sql("SELECT pg_promote()", "INSERT INTO t VALUES (7770)", "CHECKPOINT")
	own := old.do("cat", old.path("postgresql.conf"))
	// What is kept aside is there, and the directory holds another's files.
	old.do("sh", "-c", `mkdir "$1.pgtandem-saved" && cp -p "$1"/*.conf "$1.pgtandem-saved/" && echo "port = 1" >>"$1/postgresql.conf"`, "sh", old.node.DataDirectory)

	if err := old.Start(old.ctx()); !errors.Is(err, execute.ErrRefused) {
		t.Errorf("start: %v", err)
	}
	if _, err := old.ControlData(old.ctx()); !errors.Is(err, execute.ErrRefused) {
		t.Errorf("control data: %v", err)
	}
	if err := old.Rewind(old.ctx(), promoted.node, nil); !errors.Is(err, execute.ErrRefused) {
		t.Errorf("rewind: %v", err)
	}
	old.must(old.Clone(old.ctx(), promoted.node, nil))
	if got := old.do("cat", old.path("postgresql.conf")); got != own {
		t.Errorf("its own configuration is lost:\n%s", got)
	}
	old.must(old.ConfigureStandby(old.ctx(), promoted.node, ""))
	old.must(old.Start(old.ctx()))
	promoted.eventually("SELECT coalesce(max(state), '') FROM pg_stat_replication WHERE application_name = 'pgsql1'", "streaming")
}

func TestCloneKeepsTheNodesOwnConfiguration(t *testing.T) {
	primary, standby := pair(t)
	standby.must(standby.Stop(standby.ctx(), "immediate"))
	standby.append("pg_hba.conf", "# pgsql2's own")
	primary.append("postgresql.conf", "# pgsql1's own")
	primary.must(primary.WriteFile(primary.ctx(), primary.path("postgresql.conf.sync"), []byte("# pgsql1's own"), 0o600))
	var lines []string
	standby.must(standby.Clone(standby.ctx(), primary.node, func(l string) { lines = append(lines, l) }))
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "%)") }) {
		t.Errorf("no progress was told: %q", lines)
	}
	if text := standby.do("cat", standby.path("postgresql.conf"), standby.path("pg_hba.conf")); !strings.Contains(text, "# pgsql2's own") || strings.Contains(text, "# pgsql1's own") {
		t.Errorf("its configuration:\n%s", text)
	}
	if exists(standby.path("postgresql.conf.sync")) {
		t.Error("it has the primary's postgresql.conf.sync, which names the wrong standbys")
	}
	if got := standby.do("stat", "-c", "%a", standby.node.DataDirectory); got != "700\n" {
		t.Errorf("mode of the data directory: %s", got)
	}
	standby.must(standby.ConfigureStandby(standby.ctx(), primary.node, ""))
	standby.must(standby.Start(standby.ctx()))
	primary.eventually("SELECT coalesce(max(state), '') FROM pg_stat_replication WHERE application_name = 'pgsql2'", "streaming")
}

func TestCloneThatFailsLeavesTheOldCopy(t *testing.T) {
	primary, standby := pair(t)
	standby.must(standby.Stop(standby.ctx(), "fast"))
	primary.must(primary.Stop(primary.ctx(), "fast"))
	err := standby.Clone(standby.ctx(), primary.node, nil)
	if !errors.Is(err, execute.ErrRetry) || !strings.Contains(err.Error(), "does not accept connections") {
		t.Fatalf("got %v", err)
	}
	primary.must(primary.Start(primary.ctx()))
	primary.sql("ALTER ROLE repl NOLOGIN")
	if err := standby.Clone(standby.ctx(), primary.node, nil); err == nil || !strings.Contains(err.Error(), "not permitted to log in") {
		t.Fatalf("got %v", err)
	}
	standby.must(standby.Start(standby.ctx()))
	if n := standby.ask("SELECT count(*)::text FROM t"); n != "1000" {
		t.Fatalf("%s rows are left", n)
	}
}

// The daemon died between the two renames: the old copy has lost its name.
func TestCloneFindsAnUnfinishedSwap(t *testing.T) {
	primary, standby := pair(t)
	standby.must(standby.Stop(standby.ctx(), "fast"))
	standby.append("postgresql.conf", "# pgsql2's own")
	standby.do("mv", standby.node.DataDirectory, standby.node.DataDirectory+".pgtandem-old")
	standby.must(standby.Clone(standby.ctx(), primary.node, nil))
	if text := standby.do("cat", standby.path("postgresql.conf")); !strings.Contains(text, "# pgsql2's own") {
		t.Errorf("its configuration is lost:\n%s", text)
	}
	if exists(standby.node.DataDirectory + ".pgtandem-old") {
		t.Error("the old copy is still there")
	}
}

// Started before it is configured, a fresh copy must not become a primary.
func TestCloneIsAStandbyFromTheFirstMoment(t *testing.T) {
	primary, standby := pair(t)
	standby.must(standby.Stop(standby.ctx(), "fast"))
	standby.must(standby.Clone(standby.ctx(), primary.node, nil))
	if yes, err := standby.IsStandby(standby.ctx()); err != nil || !yes {
		t.Fatalf("%v, %v", yes, err)
	}
	if cd, err := standby.ControlData(standby.ctx()); err != nil || !cd.BackupLabel {
		t.Fatalf("%+v, %v", cd, err)
	}
}

func TestWhatRunsIsNotOverwritten(t *testing.T) {
	primary, standby := pair(t)
	for what, err := range map[string]error{
		"rewind":            standby.Rewind(standby.ctx(), primary.node, nil),
		"clone":             standby.Clone(standby.ctx(), primary.node, nil),
		"configure standby": primary.ConfigureStandby(primary.ctx(), standby.node, ""),
	} {
		if !errors.Is(err, execute.ErrRefused) || !strings.Contains(err.Error(), "stop it first") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestWhatIsNoServerIsNotOverwritten(t *testing.T) {
	primary, _ := pair(t)
	s := newServer(t, "pgsql3", filepath.Dir(filepath.Dir(primary.node.DataDirectory)), hosttest.FreePort(t))
	s.passwords(primary)
	s.do("mkdir", "-p", s.node.DataDirectory)
	s.must(s.WriteFile(s.ctx(), s.path("thesis.tex"), []byte("years of work"), 0o600))
	if err := s.Clone(s.ctx(), primary.node, nil); !errors.Is(err, execute.ErrRefused) {
		t.Fatalf("got %v", err)
	}
	if got := s.do("cat", s.path("thesis.tex")); got != "years of work" {
		t.Fatalf("it holds %q", got)
	}
}

// startedBySomebody starts the server past what Start looks at, as a person or
// the machine's own service does.
func (s *server) startedBySomebody() (pid int) {
	s.t.Helper()
	s.do(filepath.Join(s.node.BinDirectory, "pg_ctl"), "start", "-w", "-D", s.node.DataDirectory, "-l", s.node.LogFile)
	return s.is(cluster.PostmasterRunning)
}

// A server that works in a directory that is not there any more would keep the
// port for up to a minute.
func TestAServerStartedDuringACopyGoesWithTheOldDirectory(t *testing.T) {
	primary, standby := pair(t)
	standby.must(standby.Stop(standby.ctx(), "fast"))
	pid := 0
	standby.must(standby.Clone(standby.ctx(), primary.node, func(string) {
		if pid == 0 {
			pid = standby.startedBySomebody()
		}
	}))
	if pid == 0 {
		t.Fatal("there was no moment in which to start it")
	}
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(stat), ") Z ") {
		t.Errorf("process %d lives on: %s", pid, stat)
	}
	standby.is(cluster.PostmasterStopped)
	standby.must(standby.ConfigureStandby(standby.ctx(), primary.node, ""))
	standby.must(standby.Start(standby.ctx()))
	primary.eventually("SELECT coalesce(max(state), '') FROM pg_stat_replication WHERE application_name = 'pgsql2'", "streaming")
}

// Its pg_basebackup may live on, with a child that waits for WAL.
func TestACopyThatLostItsConnectionStandsInNobodysWay(t *testing.T) {
	primary, standby := pair(t)
	standby.must(standby.Stop(standby.ctx(), "fast"))
	ctx, lost := context.WithCancel(standby.ctx())
	if err := standby.Clone(ctx, primary.node, func(string) { lost() }); err == nil {
		t.Fatal("it was done before its connection was lost")
	}
	standby.must(standby.Clone(standby.ctx(), primary.node, nil))
	standby.must(standby.ConfigureStandby(standby.ctx(), primary.node, ""))
	standby.must(standby.Start(standby.ctx()))
	primary.eventually("SELECT coalesce(max(state), '') FROM pg_stat_replication WHERE application_name = 'pgsql2'", "streaming")
}

func TestTwoCopiesAtATime(t *testing.T) {
	primary, standby := pair(t)
	standby.must(standby.Stop(standby.ctx(), "fast"))
	var second error
	standby.must(standby.Clone(standby.ctx(), primary.node, func(string) {
		if second == nil {
			second = standby.Clone(standby.ctx(), primary.node, nil)
			if start := standby.Start(standby.ctx()); !errors.Is(start, execute.ErrRetry) {
				t.Errorf("start meanwhile: %v", start)
			}
		}
	}))
	if !errors.Is(second, execute.ErrRetry) {
		t.Fatalf("the second: %v", second)
	}
}

func TestConfigureStandby(t *testing.T) {
	s := newServer(t, "pgsql1", hosttest.Owner(t).Dir(t), hosttest.FreePort(t)).initdb()
	conf := s.do("cat", s.path("postgresql.conf"))
	from := cluster.Node{ID: "pgsql2", Host: "pgsql2.example", Port: 5433}
	pass := filepath.Join(filepath.Dir(s.node.DataDirectory), "pass file")
	added := "primary_conninfo = 'host=pgsql2.example port=5433 user=repl application_name=pgsql1 passfile=''" + pass + "'''\nprimary_slot_name = 'pgtandem_pgsql1'\nsynchronous_standby_names = ''\n"
	for _, story := range []struct{ name, before, kept string }{
		{"nothing was there", "", ""},
		{"what is not a standby's is kept", "# Do not edit\nwork_mem = '8MB'\n", "# Do not edit\nwork_mem = '8MB'\n"},
		{"a last line without an end", "work_mem = '8MB'", "work_mem = '8MB'\n"},
		{"entries of before, and twice", "primary_conninfo = 'host=old'\nprimary_slot_name = 'theirs'\nsynchronous_standby_names = 'x'\nPRIMARY_CONNINFO 'host=older'\n", ""},
		{"a recovery target", "recovery_target_time = 'now'\nrecovery_target_timeline = '3'\n", ""},
	} {
		t.Run(story.name, func(t *testing.T) {
			s.must(s.WriteFile(s.ctx(), s.path("postgresql.auto.conf"), []byte(story.before), 0o600))
			s.must(s.WriteFile(s.ctx(), s.path("recovery.signal"), nil, 0o600))
			for range 2 { // the second time changes nothing
				s.must(s.ConfigureStandby(s.ctx(), from, "pgtandem_pgsql1"))
				if got, want := s.do("cat", s.path("postgresql.auto.conf")), story.kept+added; got != want {
					t.Errorf("postgresql.auto.conf:\n%s\nwant:\n%s", got, want)
				}
			}
			if !exists(s.path("standby.signal")) || exists(s.path("recovery.signal")) {
				t.Error("it would not start as a standby")
			}
			if got := s.do("cat", s.path("postgresql.conf")); got != conf {
				t.Errorf("postgresql.conf was changed:\n%s", got)
			}
		})
	}
}

// Where a node's directory was gone, its copy has the primary's postgresql.conf
// and with it the primary's port.
func TestACopyListensOnItsOwnPort(t *testing.T) {
	s := newServer(t, "pgsql1", hosttest.Owner(t).Dir(t), hosttest.FreePort(t)).initdb()
	conf := s.do("cat", s.path("postgresql.conf"))
	own := fmt.Sprintf("port = %d\n", s.node.Port)
	for line, want := range map[string]bool{"port = 1\n": true, "PORT='1' # theirs\n": true, own: false, "#" + own + "port=1": true} {
		s.must(s.WriteFile(s.ctx(), s.path("postgresql.conf"), []byte(conf+line), 0o600))
		s.must(s.WriteFile(s.ctx(), s.path("postgresql.auto.conf"), []byte("port = 2\n"), 0o600))
		s.must(s.ConfigureStandby(s.ctx(), cluster.Node{ID: "pgsql2", Host: "pgsql2.example", Port: 1}, ""))
		if auto := s.do("cat", s.path("postgresql.auto.conf")); strings.Contains(auto, own) != want || strings.Contains(auto, "port = 2") {
			t.Errorf("%q in postgresql.conf: postgresql.auto.conf is\n%s", line, auto)
		}
	}
}

func TestConninfoIsReadBackByPostgreSQL(t *testing.T) {
	primary, standby := pair(t)
	if got := standby.ask("SELECT current_setting('primary_conninfo')"); strings.Contains(got, "secret") || !strings.Contains(got, "passfile=") {
		t.Fatalf("primary_conninfo is %q", got)
	}
	want, err := standby.Conninfo(standby.ctx(), primary.node)
	if got := standby.ask("SELECT current_setting('primary_conninfo')"); err != nil || got != want {
		t.Fatalf("primary_conninfo is %q, want %q, %v", got, want, err)
	}
}

// Debian keeps the configuration outside the data directory.
func TestSplitLayout(t *testing.T) {
	old, promoted := pair(t)
	etc := filepath.Join(filepath.Dir(old.node.DataDirectory), "etc")
	old.must(old.Stop(old.ctx(), "fast"))
	old.do("sh", "-c", `mkdir "$1" && mv "$2/postgresql.conf" "$2/pg_hba.conf" "$2/pg_ident.conf" "$1/" && printf "data_directory = '%s'\nhba_file = '%s/pg_hba.conf'\nident_file = '%s/pg_ident.conf'\n" "$2" "$1" "$1" >>"$1/postgresql.conf"`,
		"sh", etc, old.node.DataDirectory)
	old.split(etc)
	old.must(old.Start(old.ctx()))
	promoted.sql("SELECT pg_promote()", "INSERT INTO t VALUES (7770)", "CHECKPOINT")
	old.sql("INSERT INTO t VALUES (6660)")
	old.must(old.Stop(old.ctx(), "immediate"))

	old.must(old.Rewind(old.ctx(), promoted.node, nil))
	old.must(old.ConfigureStandby(old.ctx(), promoted.node, ""))
	old.must(old.Start(old.ctx()))
	promoted.eventually("SELECT coalesce(max(state), '') FROM pg_stat_replication WHERE application_name = 'pgsql1'", "streaming")

	old.must(old.Stop(old.ctx(), "fast"))
	old.must(old.Clone(old.ctx(), promoted.node, nil))
	old.must(old.ConfigureStandby(old.ctx(), promoted.node, ""))
	old.must(old.Start(old.ctx()))
	promoted.eventually("SELECT coalesce(max(state), '') FROM pg_stat_replication WHERE application_name = 'pgsql1'", "streaming")
	if got := old.ask("SELECT current_setting('config_file')"); got != filepath.Join(etc, "postgresql.conf") {
		t.Fatalf("it runs with %s", got)
	}
}

// A service command replaces pg_ctl, and may take the mode.
func TestServiceCommands(t *testing.T) {
	s := newServer(t, "pgsql1", hosttest.Owner(t).Dir(t), hosttest.FreePort(t)).initdb()
	seen := filepath.Join(filepath.Dir(s.node.DataDirectory), "seen")
	ctl := s.node.BinDirectory + "/pg_ctl"
	wrapper := func(words ...string) []string {
		return append([]string{"sh", "-c", `echo "$2" >>"$0"; exec "$@"`, seen, ctl}, words...)
	}
	s.node.StartCommand = wrapper("start", "-D", s.node.DataDirectory, "-w", "-l", s.node.LogFile)
	s.node.StopCommand = wrapper("stop", "-D", s.node.DataDirectory, "-m", "{mode}")
	s.node.ReloadCommand = wrapper("reload", "-D", s.node.DataDirectory)
	s.node.RestartCommand = wrapper("restart", "-D", s.node.DataDirectory, "-w", "-l", s.node.LogFile)
	s.reopen()
	s.must(s.Start(s.ctx()))
	s.must(s.Reload(s.ctx()))
	s.must(s.Restart(s.ctx()))
	s.must(s.Stop(s.ctx(), "immediate"))
	s.is(cluster.PostmasterStopped)
	b, err := os.ReadFile(seen)
	if err != nil || string(b) != "start\nreload\nrestart\nstop\n" {
		t.Fatalf("ran %q, %v", b, err)
	}
	if cd, err := s.ControlData(s.ctx()); err != nil || cd.State != "in production" {
		t.Fatalf("the mode was not handed on: %+v, %v", cd, err)
	}
}
