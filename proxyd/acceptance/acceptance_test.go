// Package acceptance holds the product to its promises from outside: a real
// lab, the real daemon, clients through the proxy, faults by hand.
package acceptance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/labtest"
	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/client"
)

// cluster is a lab and its daemon's client.
type cluster struct {
	*labtest.Lab
	*client.Client
	t *testing.T
}

func up(t *testing.T, opt lab.Options) *cluster {
	t.Helper()
	l := labtest.Up(t, opt)
	return &cluster{Lab: l, Client: client.New(l.Socket()), t: t}
}

// until watches the daemon's state until a condition holds.
func (c *cluster) until(what string, limit time.Duration, holds func(api.State) bool) api.State {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	var last api.State
	enough := errors.New("enough")
	err := c.Watch(ctx, 0, func(m api.Message) error {
		if m.State == nil {
			return nil
		}
		last = *m.State
		if holds(last) {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		b, _ := json.MarshalIndent(last, "", " ")
		c.t.Fatalf("%s: not within %s: %v\nlast state: %s", what, limit, err, b)
	}
	return last
}

func node(s api.State, name string) api.Node {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n
		}
	}
	return api.Node{}
}

func inSync(s api.State) bool {
	if s.GateState != "open" || s.Mode != "sync" || s.Operation != nil {
		return false
	}
	for _, n := range s.Nodes {
		if !n.Eligible || !n.Reachable {
			return false
		}
	}
	return true
}

// connect opens a connection through the proxy.
func (c *cluster) connect() *pgx.Conn {
	c.t.Helper()
	conn, err := c.dial()
	if err != nil {
		c.t.Fatalf("connect through the proxy: %v", err)
	}
	return conn
}

func (c *cluster) dial() (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s := c.Status()
	cfg, err := pgx.ParseConfig(fmt.Sprintf("postgresql://%s:%s@%s:%d/%s?sslmode=disable", s.User, s.Password, s.Proxy.Host, s.Proxy.Port, s.Database))
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err == nil {
		c.t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = conn.Close(ctx) // the daemon may be gone
		})
	}
	return conn, err
}

func (c *cluster) exec(conn *pgx.Conn, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := conn.Exec(ctx, sql)
	return err
}

// drill runs one and gives its report.
func (c *cluster) drill(name string) api.DrillReport {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 4*time.Minute)
	defer cancel()
	op, err := c.StartDrill(ctx, api.DrillRequest{Name: name})
	if err != nil {
		c.t.Fatalf("start the drill: %v", err)
	}
	for op.State == api.OpRunning {
		if op, err = c.Operation(ctx, op.ID, 30*time.Second); err != nil {
			c.t.Fatalf("wait for the drill: %v", err)
		}
	}
	if op.Drill == nil {
		c.t.Fatalf("the drill ended %s without a report: %s", op.State, op.Error)
	}
	return *op.Drill
}

func (c *cluster) passes(name string) {
	c.t.Helper()
	r := c.drill(name)
	c.t.Logf("%s: pause %.0f ms, errors %v, connect errors %d, acknowledged %d, lost %d, unknown %d", name, r.LongestPauseMS, r.Errors, r.ConnectErrors, r.Acknowledged, r.Lost, r.Unknown)
	for _, s := range r.Steps {
		c.t.Logf("  %-8s %8.1f ms  %s (%s)", s.State, s.TookMS, s.Title, s.Detail)
	}
	if r.Verdict != "pass" || r.Lost != 0 || r.ConnectErrors != 0 {
		b, _ := json.MarshalIndent(r.Clients, "", " ")
		c.t.Errorf("%s: %s: %v\n%s", name, r.Verdict, r.Why, b)
	}
}

func TestTheRecipesTwoTests(t *testing.T) {
	for _, method := range []string{"alter_system", "files"} {
		t.Run(method, func(t *testing.T) {
			c := up(t, lab.Options{SwapMethod: method})
			c.until("in sync", 30*time.Second, inSync)
			c.passes("primary-stop")
			c.passes("standby-stop")
			if s := c.until("as it was", 30*time.Second, inSync); s.Primary != "pgsql1" {
				t.Errorf("the primary is %s", s.Primary)
			}
		})
	}
}

// The standby stops, writes go on in async, the standby comes back, and the
// primary stops before the standby has caught up: the standby must never be
// promoted, and whoever waits is told so in the end.
func TestStaleStandbyIsNeverPromoted(t *testing.T) {
	c := up(t, lab.Options{HoldTimeout: 7 * time.Second})
	c.until("in sync", 30*time.Second, inSync)
	conn := c.connect()
	c.StopNode("pgsql2", "immediate")
	c.until("async", 20*time.Second, func(s api.State) bool { return s.Mode == "async" })
	if err := c.exec(conn, "INSERT INTO table1 SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 60000) i"); err != nil {
		t.Fatalf("a write in async: %v", err)
	}
	c.StartNode("pgsql2")
	c.StopNode("pgsql1", "immediate")
	begun := time.Now()
	err := c.exec(conn, "INSERT INTO table1 VALUES (0, 'held')")
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != "57P03" && pgErr.Code != "08007" {
		t.Fatalf("the held client got %v", err)
	}
	if pgErr.Code == "08007" { // it was in flight when the server went; the next one is held
		begun = time.Now()
		if err = c.exec(conn, "INSERT INTO table1 VALUES (0, 'held')"); !errors.As(err, &pgErr) || pgErr.Code != "57P03" {
			t.Fatalf("the held client got %v", err)
		}
	}
	if held := time.Since(begun); held < 6*time.Second {
		t.Errorf("the client was held for %s only", held)
	}
	s, err := c.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Primary != "pgsql1" || node(s, "pgsql2").Role != "standby" || node(s, "pgsql2").Eligible || s.GateState != "closed" {
		t.Errorf("primary %s, gate %s, pgsql2 %+v", s.Primary, s.GateState, node(s, "pgsql2"))
	}
	c.saysWhy("pgsql2 is not promoted")
	c.StartNode("pgsql1")
	c.until("healed", 60*time.Second, inSync)
	var n int
	if err := c.connect().QueryRow(t.Context(), "SELECT count(*) FROM table1").Scan(&n); err != nil || n != 60000 {
		t.Errorf("%d rows, %v; 60000 were acknowledged", n, err)
	}
}

// saysWhy finds a sentence in the durable event log.
func (c *cluster) saysWhy(sentence string) {
	c.t.Helper()
	ev, err := c.Events(c.t.Context(), 0, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	var all strings.Builder
	for _, e := range ev {
		if strings.Contains(e.Text, sentence) {
			return
		}
		fmt.Fprintln(&all, e.Kind, e.Text)
	}
	c.t.Errorf("no event says %q:\n%s", sentence, all.String())
}

// The daemon is killed while it promotes, and comes back.
func TestKilledInTheMiddleOfAFailover(t *testing.T) {
	c := up(t, lab.Options{})
	c.until("in sync", 30*time.Second, inSync)
	if err := c.exec(c.connect(), "INSERT INTO table1 VALUES (1, 'acknowledged')"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watching, killed := make(chan struct{}), make(chan error, 1)
	go func() {
		first := true
		killed <- c.Watch(ctx, 0, func(m api.Message) error {
			if first {
				first = false
				close(watching)
			}
			if m.Event != nil && m.Event.Kind == "operation.started" && strings.HasPrefix(m.Event.Text, "promote") {
				return syscall.Kill(c.Status().ProxydPID, syscall.SIGKILL)
			}
			return nil
		})
	}()
	<-watching
	c.StopNode("pgsql1", "immediate")
	if err := <-killed; errors.Is(err, context.DeadlineExceeded) {
		t.Fatal("no failover began")
	}
	c.bringBack()
	s := c.until("failover finished", time.Minute, func(s api.State) bool { return s.Term == 2 && s.GateState == "open" })
	if s.Primary != "pgsql2" {
		t.Errorf("the primary is %s", s.Primary)
	}
	var v string
	if err := c.connect().QueryRow(t.Context(), "SELECT value FROM table1 WHERE id = 1").Scan(&v); err != nil || v != "acknowledged" {
		t.Errorf("the acknowledged row: %q, %v", v, err)
	}
	c.until("healed", time.Minute, inSync)
}

// bringBack starts proxyd again after it was killed, as systemd would.
func (c *cluster) bringBack() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	if err := c.RestartDaemon(ctx, labtest.Programs(c.t)+"/proxyd"); err != nil {
		c.t.Fatalf("start proxyd again: %v", err)
	}
}

// Under "files" a postgresql.conf that somebody edited is not written over.
func TestEditedFileIsNotOverwritten(t *testing.T) {
	c := up(t, lab.Options{SwapMethod: "files"})
	c.until("in sync", 30*time.Second, inSync)
	conf := c.Status().Nodes[0].DataDirectory + "/postgresql.conf"
	before, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	edited := string(before) + "work_mem = '5MB' # mine\n"
	if err := os.WriteFile(conf, []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := c.Plan(t.Context(), api.PlanRequest{Action: "set-mode", Mode: "async"})
	if err != nil {
		t.Fatal(err)
	}
	op, err := c.Run(t.Context(), p.ID, p.Confirm)
	for err == nil && op.State == api.OpRunning {
		op, err = c.Operation(t.Context(), op.ID, 10*time.Second)
	}
	if err != nil || op.State != api.OpFailed || !strings.Contains(op.Error, "was edited") {
		t.Errorf("the swap ended %s: %s, %v", op.State, op.Error, err)
	}
	if now, _ := os.ReadFile(conf); string(now) != edited {
		t.Error("the edited file was written over")
	}
	f, err := c.SyncFiles(t.Context())
	if err != nil || !strings.Contains(f.Drift, "work_mem = '5MB' # mine") {
		t.Errorf("drift %q, %v", f.Drift, err)
	}
	if s, err := c.State(t.Context()); err != nil || s.Mode != "sync" || !node(s, "pgsql2").Eligible {
		t.Errorf("a refused swap changed what is recorded: %s, %v", s.Mode, err)
	}
}

func TestSwitchoverThereAndBack(t *testing.T) {
	c := up(t, lab.Options{})
	c.until("in sync", 30*time.Second, inSync)
	stop, failed := make(chan struct{}), make(chan error, 1)
	conn := c.connect()
	go func() {
		for i := 1; ; i++ {
			select {
			case <-stop:
				failed <- nil
				return
			default:
			}
			if err := c.exec(conn, fmt.Sprintf("INSERT INTO table1 VALUES (%d, 'x')", i)); err != nil {
				failed <- fmt.Errorf("row %d: %w", i, err)
				return
			}
		}
	}()
	for _, to := range []string{"pgsql2", "pgsql1"} {
		p, err := c.Plan(t.Context(), api.PlanRequest{Action: "switchover", Node: to})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Run(t.Context(), p.ID, "somebody"); err == nil {
			t.Fatal("a wrong confirmation was taken")
		}
		op, err := c.Run(t.Context(), p.ID, to)
		for err == nil && op.State == api.OpRunning {
			op, err = c.Operation(t.Context(), op.ID, 10*time.Second)
		}
		if err != nil || op.State != api.OpDone {
			t.Fatalf("switchover to %s: %s %s, %v", to, op.State, op.Error, err)
		}
		s := c.until("in sync on "+to, time.Minute, inSync)
		if s.Primary != to {
			t.Errorf("the primary is %s, not %s", s.Primary, to)
		}
	}
	close(stop)
	if err := <-failed; err != nil {
		t.Errorf("a client saw an error: %v", err)
	}
}

// Three nodes: the primary dies, a standby is promoted, and the other one, which
// followed the old primary, follows the new one and confirms its commits.
func TestThreeNodes(t *testing.T) {
	c := up(t, lab.Options{Nodes: 3})
	c.until("in sync", time.Minute, inSync)
	if err := c.exec(c.connect(), "INSERT INTO table1 VALUES (1, 'acknowledged')"); err != nil {
		t.Fatal(err)
	}
	c.StopNode("pgsql1", "immediate")
	s := c.until("healed", 2*time.Minute, func(s api.State) bool { return s.Term == 2 && inSync(s) })
	var v string
	if err := c.connect().QueryRow(t.Context(), "SELECT value FROM table1 WHERE id = 1").Scan(&v); err != nil || v != "acknowledged" {
		t.Errorf("on %s the acknowledged row is %q, %v", s.Primary, v, err)
	}
	rows, err := c.SQL(s.Primary, "postgres").Query(t.Context(), "SELECT application_name FROM pg_stat_replication WHERE sync_priority > 0 ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	if names, err := pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || len(names) != 2 {
		t.Errorf("%s waits for %v, %v", s.Primary, names, err)
	}
}

// Somebody paused the standby's replay, and then the primary dies.
func TestPausedReplayDoesNotStopAFailover(t *testing.T) {
	c := up(t, lab.Options{})
	c.until("in sync", 30*time.Second, inSync)
	if err := c.exec(c.SQL("pgsql2", "postgres"), "SELECT pg_wal_replay_pause()"); err != nil {
		t.Fatal(err)
	}
	if err := c.exec(c.connect(), "INSERT INTO table1 VALUES (1, 'acknowledged')"); err != nil {
		t.Fatal(err)
	}
	c.StopNode("pgsql1", "immediate")
	c.until("failover finished", 30*time.Second, func(s api.State) bool { return s.Term == 2 && s.GateState == "open" })
	var v string
	if err := c.connect().QueryRow(t.Context(), "SELECT value FROM table1 WHERE id = 1").Scan(&v); err != nil || v != "acknowledged" {
		t.Errorf("the acknowledged row: %q, %v", v, err)
	}
}
