package host_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute/host/hosttest"
)

// children of a process, and itself first.
func family(t *testing.T, pid int) []int {
	t.Helper()
	found := []int{pid}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range stats {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended meanwhile
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			if child, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
				found = append(found, child)
			}
		}
	}
	if len(found) < 5 {
		t.Fatalf("only %v of the server were found", found)
	}
	return found
}

// send sends a signal. It returns from SIGSTOP when the processes have stopped: one
// that waits for a processor is stopped when it gets it.
func send(t *testing.T, s syscall.Signal, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, s); err != nil && err != syscall.ESRCH {
			t.Errorf("send %s to %d: %v", s, pid, err)
		}
	}
	for limit := time.Now().Add(20 * time.Second); s == syscall.SIGSTOP && slices.ContainsFunc(pids, moves); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("processes %v do not stop", pids)
		}
	}
}

// moves says whether a process lives and is not stopped.
func moves(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "T") && !strings.HasPrefix(rest, "Z")
}

func TestImmediateEndsWhatTakesNoSignal(t *testing.T) {
	s := newServer(t, "pgsql1", hosttest.Owner(t).Dir(t), hosttest.FreePort(t)).initdb()
	for _, tt := range []struct {
		story   string
		service []string
		freeze  func(all []int) []int
	}{
		{"the whole server is stopped", nil, func(all []int) []int { return all }},
		{"the postmaster alone is stopped", nil, func(all []int) []int { return all[:1] }},
		{"one child is stopped", nil, func(all []int) []int { return all[1:2] }},
		{"a service command that cannot stop it", []string{"false"}, func(all []int) []int { return all[1:2] }},
		{"a service command, and the whole server is stopped", []string{"true"}, func(all []int) []int { return all }},
	} {
		t.Run(tt.story, func(t *testing.T) {
			s.must(s.Start(s.ctx()))
			all := family(t, s.is(cluster.PostmasterRunning))
			frozen := tt.freeze(all)
			send(t, syscall.SIGSTOP, frozen...)
			defer send(t, syscall.SIGCONT, frozen...)
			s.node.StopCommand = tt.service
			s.reopen()
			began := time.Now()
			s.must(s.Stop(s.ctx(), "immediate"))
			t.Logf("%d ms", time.Since(began).Milliseconds())
			s.node.StopCommand = nil
			s.reopen()
			s.is(cluster.PostmasterStopped)
			for _, pid := range all {
				if b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil && !strings.Contains(string(b), ") Z ") {
					t.Errorf("process %d is left: %s", pid, b)
				}
			}
		})
	}
	s.must(s.Start(s.ctx())) // what was killed left nothing in the way
	s.is(cluster.PostmasterRunning)
}

func TestFastKillsNothing(t *testing.T) {
	s := newServer(t, "pgsql1", hosttest.Owner(t).Dir(t), hosttest.FreePort(t)).initdb()
	s.must(s.Start(s.ctx()))
	pid := s.is(cluster.PostmasterRunning)
	all := family(t, pid)
	send(t, syscall.SIGSTOP, all...)
	ctx, cancel := context.WithTimeout(s.ctx(), 2*time.Second)
	defer cancel()
	if err := s.Stop(ctx, "fast"); err == nil {
		t.Error("a stopped server is said to have ended")
	}
	send(t, syscall.SIGCONT, all...)
	s.must(s.Stop(s.ctx(), "fast"))
	if cd, err := s.ControlData(s.ctx()); err != nil || cd.State != "shut down" {
		t.Errorf("%+v, %v: it was not left to end by itself", cd, err)
	}
}

// /dev/full is a disk without room.
func TestFullDiskIsCalledSo(t *testing.T) {
	s := newServer(t, "pgsql1", hosttest.Owner(t).Dir(t), hosttest.FreePort(t)).initdb()
	s.node.StartCommand = []string{"sh", "-c", "LC_ALL=C cat /proc/version >/dev/full"}
	s.reopen()
	if err := s.Start(s.ctx()); err == nil || !strings.Contains(err.Error(), "start PostgreSQL on pgsql1: its disk is full") {
		t.Errorf("told %v", err)
	}
}
