package fault_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/control"
	"github.com/pgtandem/pgtandem/engine/lab/fault"
	"github.com/pgtandem/pgtandem/engine/lab/labtest"
	"github.com/pgtandem/pgtandem/engine/lab/procs"
)

// bench is a lab, what breaks it, and the test's patience.
type bench struct {
	*fault.Faults
	t   *testing.T
	ctx context.Context
	lab *labtest.Lab
}

func on(t *testing.T, opt lab.Options) *bench {
	t.Helper()
	l := labtest.Up(t, opt)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	f := fault.New(l.Lab, filepath.Join(labtest.Programs(t), "proxyd"))
	t.Cleanup(func() { f.Close(); cancel() })
	return &bench{f, t, ctx, l}
}

func (b *bench) ok(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// twice does a thing and does it again: every verb may be repeated.
func (b *bench) twice(do func(context.Context, string) error, node string) {
	b.t.Helper()
	b.ok(do(b.ctx, node))
	b.ok(do(b.ctx, node))
}

func (b *bench) says(node, statement, want string) {
	b.t.Helper()
	got, err := b.SQL(b.ctx, node, statement)
	if err != nil || got != want {
		b.t.Fatalf("on %s, %s: %q, %v; want %q", node, statement, got, err, want)
	}
}

// until asks a server again and again.
func (b *bench) until(node, statement, want string) {
	b.t.Helper()
	for {
		got, err := b.SQL(b.ctx, node, statement)
		if err == nil && got == want {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-b.ctx.Done():
			b.t.Fatalf("on %s, %s: %q, %v; it never was %q", node, statement, got, err, want)
		}
	}
}

func (b *bench) pid(node string) int {
	for _, n := range b.lab.Status().Nodes {
		if n.Name == node {
			return n.PID
		}
	}
	b.t.Fatalf("no node %s", node)
	return 0
}

// archives makes a primary archive by a command, and waits until that runs.
func (b *bench) archives(node, command string) {
	b.t.Helper()
	for _, statement := range []string{"ALTER SYSTEM SET archive_command = '" + command + "'", "SELECT pg_reload_conf()",
		"CREATE TABLE archived ()", "SELECT pg_switch_wal()"} {
		_, err := b.SQL(b.ctx, node, statement)
		b.ok(err)
	}
	for {
		all, err := procs.All()
		b.ok(err)
		if slices.ContainsFunc(all, func(p procs.Process) bool {
			return p.Title == command && strings.HasPrefix(p.Cwd, b.lab.Dir) && strings.HasSuffix(p.Cwd, "/"+node+"/data")
		}) {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-b.ctx.Done():
			b.t.Fatalf("%s never archives by %q", node, command)
		}
	}
}

// states are the states of a node's processes, as proc(5) has them.
func (b *bench) states(node string) (out []byte) {
	b.t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	b.ok(err)
	for _, s := range stats {
		cwd, err := os.Readlink(filepath.Join(filepath.Dir(s), "cwd"))
		if err != nil || !strings.HasSuffix(cwd, "/"+node+"/data") || !strings.HasPrefix(cwd, b.lab.Dir) {
			continue
		}
		if stat, err := os.ReadFile(s); err == nil {
			out = append(out, string(stat)[strings.LastIndexByte(string(stat), ')')+2])
		}
	}
	return out
}

func (b *bench) down(node string, kill func(context.Context, string) error) {
	b.t.Helper()
	b.twice(kill, node)
	if p := b.pid(node); p != 0 {
		b.t.Fatalf("%s runs still, pid %d", node, p)
	}
	b.twice(b.Start, node)
	if b.pid(node) == 0 {
		b.t.Fatalf("%s was not started", node)
	}
}

// Servers are broken in every way, and are as they were afterwards. No engine
// is there to help.
func TestServersAreBrokenAndMended(t *testing.T) {
	b := on(t, lab.Options{WithoutDaemon: true})
	for _, v := range []fault.Verb{fault.FillDisk, fault.Cut, fault.Loss, fault.Jitter, fault.ClockJump} {
		err := b.Do(b.ctx, fault.Fault{Verb: v, Node: "pgsql1", Peer: "pgsql2"})
		if !errors.Is(err, fault.ErrNotOffered) || b.WhyNot(v) == "" || slices.Contains(b.Offered(), v) {
			t.Errorf("%s on a plain lab: %v, because %q", v, err, b.WhyNot(v))
		}
	}
	b.twice(b.Freeze, "pgsql2")
	if s := b.states("pgsql2"); len(s) < 4 || slices.ContainsFunc(s, func(c byte) bool { return c != 'T' }) {
		t.Errorf("the processes of a frozen node are %q", s)
	}
	b.twice(b.Wake, "pgsql2")
	b.until("pgsql2", "SELECT pg_is_in_recovery()", "t")

	b.ok(b.FreezeOne(b.ctx, "pgsql2", fault.Walreceiver))
	if s := b.states("pgsql2"); strings.Count(string(s), "T") != 1 {
		t.Errorf("of the node whose walreceiver is frozen, the processes are %q", s)
	}
	b.ok(b.Wake(b.ctx, "pgsql2"))
	if err := b.FreezeOne(b.ctx, "pgsql1", fault.Walreceiver); !errors.Is(err, fault.ErrNothing) {
		t.Errorf("a primary's walreceiver was frozen: %v", err)
	}

	b.twice(b.PauseReplay, "pgsql2")
	b.until("pgsql2", "SELECT pg_get_wal_replay_pause_state()", "paused")
	b.twice(b.ResumeReplay, "pgsql2")
	b.says("pgsql2", "SELECT pg_get_wal_replay_pause_state()", "not paused")
	if err := b.PauseReplay(b.ctx, "pgsql1"); !errors.Is(err, fault.ErrNothing) {
		t.Errorf("a primary's replay was paused: %v", err)
	}

	postmaster := b.pid("pgsql1")
	checkpointer := "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
	before, err := b.SQL(b.ctx, "pgsql1", checkpointer)
	b.ok(err)
	b.ok(b.KillOne(b.ctx, "pgsql1", fault.Checkpointer))
	b.until("pgsql1", "SELECT count(*) FROM ("+checkpointer+") AS c WHERE pid <> "+before, "1")
	if b.pid("pgsql1") != postmaster {
		t.Error("the postmaster is another: that was no crash restart in place")
	}

	for _, kill := range []func(context.Context, string) error{b.StopFast, b.StopImmediate, b.KillPostmaster, b.KillAll} {
		b.down("pgsql2", kill)
	}
	b.down("pgsql1", b.KillAll)

	was, err := b.SQL(b.ctx, "pgsql1", "SHOW synchronous_standby_names")
	b.ok(err)
	b.ok(b.AlterSystemByHand(b.ctx, "pgsql1", "nobody"))
	b.until("pgsql1", "SHOW synchronous_standby_names", "nobody")
	b.ok(b.AlterSystemBack(b.ctx, "pgsql1"))
	b.until("pgsql1", "SHOW synchronous_standby_names", was)

	b.ok(b.PromoteByHand(b.ctx, "pgsql2"))
	b.says("pgsql2", "SELECT pg_is_in_recovery()", "f")
	if err := b.PromoteByHand(b.ctx, "pgsql2"); !errors.Is(err, fault.ErrNothing) {
		t.Errorf("a primary was promoted: %v", err)
	}

	// Nothing stays behind, not even the frozen children of a dead postmaster and
	// what they have started.
	b.archives("pgsql2", "sleep 600")
	b.ok(b.Freeze(b.ctx, "pgsql2"))
	b.ok(b.KillPostmaster(b.ctx, "pgsql2"))
	if len(b.states("pgsql2")) == 0 {
		t.Error("the frozen children ended with their postmaster")
	}
	b.ok(b.lab.Down(b.ctx))
	for s := b.states("pgsql2"); len(s) > 0; s = b.states("pgsql2") {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-b.ctx.Done():
			t.Fatalf("a lab that is down has processes %q", s)
		}
	}
}

// Whatever is broken at once, Heal gives the engine what it needs to make the
// cluster whole again.
func TestHealUndoesEverything(t *testing.T) {
	network := lab.RelayedNetwork
	if os.Geteuid() == 0 {
		network = lab.NamespaceRelayedNetwork
	}
	b := on(t, lab.Options{Network: network, SmallDisks: os.Geteuid() == 0})
	c := control.New(b.lab.Socket())
	defer c.Close()
	s, err := c.Whole(b.ctx)
	b.ok(err)
	first := s.Term

	b.ok(b.PauseReplay(b.ctx, "pgsql2"))
	b.ok(b.Freeze(b.ctx, "pgsql2"))
	b.ok(b.KillDaemon(b.ctx))
	b.ok(b.KillDaemon(b.ctx))
	if b.lab.Status().ProxydPID != 0 {
		t.Error("proxyd runs still")
	}
	b.ok(b.Isolate(b.ctx, "pgsql1"))
	for _, v := range []fault.Fault{{Verb: fault.Jitter, Max: time.Second}, {Verb: fault.Loss, Percent: 50}, {Verb: fault.FillDisk, Node: "pgsql2"}} {
		if err := b.Do(b.ctx, v); err != nil && (os.Geteuid() == 0 || !errors.Is(err, fault.ErrNotOffered)) {
			t.Errorf("%s: %v", v, err)
		}
	}
	b.ok(b.StopImmediate(b.ctx, "pgsql1"))
	b.ok(b.Heal(b.ctx))
	s, err = c.Whole(b.ctx)
	b.ok(err)
	b.says(s.Standbys()[0], "SELECT pg_get_wal_replay_pause_state()", "not paused")

	// A former primary is the engine's to bring back: Heal leaves it alone.
	old, term := s.Primary, s.Term
	b.ok(b.KillAll(b.ctx, old))
	_, err = c.Until(b.ctx, "another is the primary", func(s control.State) string {
		if s.Primary == old || s.Term == term {
			return s.Primary + " is the primary"
		}
		return ""
	})
	b.ok(err)
	b.ok(b.Heal(b.ctx))
	s, err = c.Whole(b.ctx)
	b.ok(err)
	if s.Primary == old || s.Term <= first {
		t.Errorf("the primary is %s of term %d", s.Primary, s.Term)
	}
	b.ok(b.Heal(b.ctx)) // of nothing
}
