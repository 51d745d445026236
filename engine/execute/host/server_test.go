package host_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/host/hosttest"
)

func (s *server) is(want cluster.Postmaster) int {
	s.t.Helper()
	state, pid, err := s.Postmaster(s.ctx())
	if err != nil || state != want {
		s.t.Fatalf("the postmaster is %q, pid %d, %v; want %q", state, pid, err, want)
	}
	if (pid > 0) != (want == cluster.PostmasterRunning) {
		s.t.Fatalf("%s with pid %d", state, pid)
	}
	return pid
}

func TestLifeOfAServer(t *testing.T) {
	s := newServer(t, "pgsql1", hosttest.Owner(t).Dir(t), hosttest.FreePort(t))
	s.is(cluster.PostmasterAbsent)
	s.do("mkdir", "-m", "0700", s.node.DataDirectory)
	s.is(cluster.PostmasterAbsent)
	s.initdb()
	s.is(cluster.PostmasterStopped)

	s.must(s.Start(s.ctx()))
	pid := s.is(cluster.PostmasterRunning)
	s.must(s.Start(s.ctx())) // a server that runs is left alone
	if again := s.is(cluster.PostmasterRunning); again != pid {
		t.Fatalf("it was started anew: %d, then %d", pid, again)
	}
	s.append("postgresql.conf", "work_mem = '7MB'")
	s.must(s.Reload(s.ctx()))
	s.eventually("SELECT current_setting('work_mem')", "7MB")
	s.must(s.Restart(s.ctx()))
	if again := s.is(cluster.PostmasterRunning); again == pid {
		t.Fatalf("it was not restarted")
	}

	for _, mode := range []string{"smart", "fast", "immediate"} {
		s.must(s.Start(s.ctx()))
		s.must(s.Stop(s.ctx(), mode))
		s.is(cluster.PostmasterStopped)
		s.must(s.Stop(s.ctx(), mode)) // a server that is stopped is no error
	}
	if err := s.Stop(s.ctx(), "gently"); !errors.Is(err, execute.ErrRefused) {
		t.Fatalf("an unknown mode: %v", err)
	}
}

func TestKilledServerIsSeenAsStopped(t *testing.T) {
	s := newServer(t, "pgsql1", hosttest.Owner(t).Dir(t), hosttest.FreePort(t)).initdb()
	s.must(s.Start(s.ctx()))
	if err := syscall.Kill(s.is(cluster.PostmasterRunning), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.must(s.Stop(s.ctx(), "immediate")) // ends the processes that outlive it
	s.is(cluster.PostmasterStopped)
	if !exists(s.path("postmaster.pid")) {
		t.Fatal("the story is about a stale pid file, and there is none")
	}
	cd, err := s.ControlData(s.ctx())
	if err != nil || cd.State != "in production" || cd.Timeline != 1 || cd.SystemIdentifier == 0 || cd.BackupLabel {
		t.Fatalf("control data of a crashed server: %+v, %v", cd, err)
	}
	s.must(s.Start(s.ctx()))
	s.is(cluster.PostmasterRunning)
}

// A backend that outlives its postmaster can still acknowledge a commit.
func TestServerWhosePostmasterIsKilledIsNotStopped(t *testing.T) {
	s := newServer(t, "pgsql1", hosttest.Owner(t).Dir(t), hosttest.FreePort(t)).initdb()
	s.must(s.Start(s.ctx()))
	c := s.connect()
	backend := int(c.PgConn().PID())
	// A stopped process cannot notice that its postmaster has gone.
	if err := errors.Join(syscall.Kill(backend, syscall.SIGSTOP), syscall.Kill(s.is(cluster.PostmasterRunning), syscall.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	for s.is(cluster.PostmasterRunning) != backend { // until the others have noticed
		if s.ctx().Err() != nil {
			t.Fatal("somebody else is still there")
		}
	}
	if err := syscall.Kill(backend, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.must(s.Stop(s.ctx(), "immediate"))
	s.is(cluster.PostmasterStopped)
}

// Process ids are used again: what a stale pid file names may be anybody.
func TestStalePidFile(t *testing.T) {
	dir := hosttest.Owner(t).Dir(t)
	other := newServer(t, "other", dir, hosttest.FreePort(t)).initdb()
	other.must(other.Start(other.ctx()))
	running := other.is(cluster.PostmasterRunning)
	s := newServer(t, "pgsql1", dir, hosttest.FreePort(t)).initdb()
	for _, story := range []struct{ name, first string }{
		{"the postmaster of another data directory", fmt.Sprint(running)},
		{"a process of another account", "1"},
		{"a process that is no server", fmt.Sprint(os.Getpid())},
		{"a process that has gone", "4194303"},
		{"no number", "garbage"},
		{"nothing", ""},
		{"something that a shell would run", "$(reboot)"},
	} {
		t.Run(story.name, func(t *testing.T) {
			s.must(s.WriteFile(s.ctx(), s.path("postmaster.pid"), []byte(story.first+"\n"), 0o600))
			s.is(cluster.PostmasterStopped)
		})
	}
}

// In a container without an init nobody waits for a postmaster that died: its
// number stays taken, and PostgreSQL itself would believe it.
func TestServerStartsOverItsZombie(t *testing.T) {
	s := newServer(t, "pgsql1", hosttest.Owner(t).Dir(t), hosttest.FreePort(t)).initdb()
	zombie := exec.Command("true")
	zombie.SysProcAttr = hosttest.Owner(t).SysProcAttr()
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = zombie.Wait() })
	s.do("timeout", "20", "sh", "-c", `until grep -q "^State:.Z" "/proc/$1/status"; do sleep 0.05; done`, "sh", fmt.Sprint(zombie.Process.Pid))
	s.must(s.WriteFile(s.ctx(), s.path("postmaster.pid"), []byte(fmt.Sprintf("%d\n%s\n", zombie.Process.Pid, s.node.DataDirectory)), 0o600))
	s.is(cluster.PostmasterStopped)
	s.must(s.Start(s.ctx()))
	s.is(cluster.PostmasterRunning)
}

// Only what is on the failover path is asked in one round trip.
func TestPostmasterIsOneCommand(t *testing.T) {
	s := newServer(t, "pgsql1", hosttest.Owner(t).Dir(t), hosttest.FreePort(t)).initdb()
	s.ran = 0
	s.is(cluster.PostmasterStopped)
	if s.ran != 1 {
		t.Fatalf("it took %d commands", s.ran)
	}
}

func TestDirectoryThatCannotBeSeenIsNoProof(t *testing.T) {
	s := newServer(t, "pgsql1", hosttest.Owner(t).Dir(t), hosttest.FreePort(t)).initdb()
	closed := filepath.Dir(s.node.DataDirectory)
	s.do("chmod", "0", closed)
	state, _, err := s.Postmaster(s.ctx())
	s.do("chmod", "0700", closed)
	if err == nil || state != cluster.PostmasterUnknown {
		t.Fatalf("%q, %v", state, err)
	}
}

func TestServerThatDoesNotStartSaysWhy(t *testing.T) {
	s := newServer(t, "pgsql1", hosttest.Owner(t).Dir(t), hosttest.FreePort(t)).initdb("shared_preload_libraries = 'no_such_library'")
	err := s.Start(s.ctx())
	if err == nil || !strings.Contains(err.Error(), "no_such_library") {
		t.Fatalf("got %v", err)
	}
}

func TestReadFile(t *testing.T) {
	s := newServer(t, "pgsql1", hosttest.Owner(t).Dir(t), 1)
	if _, err := s.ReadFile(s.ctx(), s.node.DataDirectory+"/gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a missing file: %v", err)
	}
	if _, err := s.ReadFile(s.ctx(), filepath.Dir(s.node.DataDirectory)); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a directory: %v", err)
	}
}

func TestReplaceFile(t *testing.T) {
	s := newServer(t, "pgsql1", hosttest.Owner(t).Dir(t), 1)
	dir := filepath.Dir(s.node.DataDirectory)
	p, link := filepath.Join(dir, "a file's $name"), filepath.Join(dir, "link")
	s.must(s.WriteFile(s.ctx(), p, []byte("one\n"), 0o640))
	s.do("ln", "-s", p, link)

	s.must(s.ReplaceFile(s.ctx(), link, []byte("one\n"), []byte("two")))
	if got, err := s.ReadFile(s.ctx(), p); err != nil || string(got) != "two" {
		t.Fatalf("through a link: %q, %v", got, err)
	}
	if mode := s.do("stat", "-c", "%a %F", p, link); mode != "640 regular file\n777 symbolic link\n" {
		t.Fatalf("mode and kind are not kept: %q", mode)
	}
	for name, err := range map[string]error{
		"somebody has edited it": s.ReplaceFile(s.ctx(), p, []byte("one\n"), []byte("three")),
		"it should not be there": s.ReplaceFile(s.ctx(), p, nil, []byte("three")),
		"it has gone":            s.ReplaceFile(s.ctx(), p+"-gone", []byte("two"), []byte("three")),
	} {
		if !errors.Is(err, execute.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.must(s.ReplaceFile(s.ctx(), filepath.Join(dir, "new"), nil, []byte("new")))
	if got := s.do("ls", "-A", dir); got != "a file's $name\nlink\nnew\n" {
		t.Fatalf("left behind: %q", got)
	}
	if got, err := s.ReadFile(s.ctx(), p); err != nil || string(got) != "two" {
		t.Fatalf("a refused write changed it: %q, %v", got, err)
	}
}

// Half of a file is what a connection leaves that is lost in the middle.
func TestHalfAFileIsNotWritten(t *testing.T) {
	as := hosttest.Owner(t)
	s := newServer(t, "pgsql1", as.Dir(t), 1)
	p := filepath.Join(filepath.Dir(s.node.DataDirectory), "file")
	s.must(s.WriteFile(s.ctx(), p, []byte("whole"), 0o600))
	s.cutStdin = 3
	if err := s.WriteFile(s.ctx(), p, []byte("another whole"), 0o600); err == nil {
		t.Fatal("it was taken for the whole")
	}
	s.cutStdin = 0
	if got, err := s.ReadFile(s.ctx(), p); err != nil || string(got) != "whole" {
		t.Fatalf("it holds %q, %v", got, err)
	}
}
