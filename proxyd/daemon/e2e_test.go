package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/labtest"
	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/client"
)

// follower keeps what the event stream brought.
type follower struct {
	mu     sync.Mutex
	state  api.State
	events []api.Event
	moved  chan struct{}
	ended  chan error
}

func follow(c *client.Client) *follower {
	f := &follower{moved: make(chan struct{}, 1), ended: make(chan error, 1)}
	go func() {
		f.ended <- c.Watch(context.Background(), 0, func(m api.Message) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if m.State != nil {
				f.state = *m.State
			} else {
				f.events = append(f.events, *m.Event)
			}
			select {
			case f.moved <- struct{}{}:
			default:
			}
			return nil
		})
	}()
	return f
}

// until waits for something to be seen on the stream.
func (f *follower) until(t *testing.T, what string, seen func(api.State, []api.Event) bool) api.State {
	t.Helper()
	limit := time.After(2 * time.Minute)
	for {
		f.mu.Lock()
		st, es := f.state, slices.Clone(f.events)
		f.mu.Unlock()
		if seen(st, es) {
			return st
		}
		select {
		case <-f.moved:
		case err := <-f.ended:
			t.Fatalf("%s: the stream ended: %v", what, err)
		case <-limit:
			t.Fatalf("%s: not seen; the state is %+v, events %+v", what, st, es)
		}
	}
}

func kind(k, part string) func(api.State, []api.Event) bool {
	return func(_ api.State, es []api.Event) bool {
		return slices.ContainsFunc(es, func(e api.Event) bool { return e.Kind == k && strings.Contains(e.Text, part) })
	}
}

// protected is a pair in sync with its gate open to primary.
func protected(primary string) func(api.State, []api.Event) bool {
	return func(s api.State, _ []api.Event) bool {
		return s.Primary == primary && s.GateState == "open" && s.Mode == "sync" && s.Operation == nil && len(s.Nodes) > 0 &&
			!slices.ContainsFunc(s.Nodes, func(n api.Node) bool {
				return !n.Reachable || !n.Eligible || n.Name != primary && n.SyncState != "sync"
			})
	}
}

func code(err error) string {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

// TestADaemonOnARealPair is a day in proxyd's life, as its clients and a person
// at the console see it.
func TestADaemonOnARealPair(t *testing.T) {
	l := labtest.Up(t, lab.Options{})
	c := client.New(l.Socket())
	defer c.Close()
	f := follow(c)
	st := f.until(t, "in sync", protected("pgsql1"))
	if st.Version == "" || !st.Lab || st.Verdict.Level != "ok" || len(st.IfDies) != 2 || st.Term == 0 || len(st.History) == 0 {
		t.Errorf("the state of a healthy pair: %+v", st)
	}

	app := through(t, l)
	one(t, app, "INSERT INTO table1 VALUES (1, 'before') RETURNING value", "before")
	t.Run("clients and pools are seen", func(t *testing.T) { clientsAreSeen(t, c) })
	t.Run("clients get the servers' protocol", func(t *testing.T) { sameProtocol(t, l) })
	t.Run("the configuration is shown without its secrets", func(t *testing.T) { configIsRedacted(t, l, c) })
	t.Run("the files are looked at", func(t *testing.T) { filesAreSeen(t, c) })
	t.Run("reload", func(t *testing.T) { reloads(t, l, c, f) })
	t.Run("maintenance", func(t *testing.T) { maintenance(t, c, f) })
	t.Run("refusals have their code", func(t *testing.T) { refusals(t, c) })
	t.Run("switchover", func(t *testing.T) { switchover(t, c, f) })
	one(t, app, "INSERT INTO table1 VALUES (2, 'after') RETURNING value", "after")
	t.Run("drill", func(t *testing.T) { rehearse(t, c, f) })
	t.Run("the end", func(t *testing.T) { theEnd(t, l, c, f) })
}

func through(t *testing.T, l *labtest.Lab) *pgx.Conn {
	t.Helper()
	s := l.Status()
	app, err := pgx.Connect(t.Context(), fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=disable application_name=shop", s.Proxy.Host, s.Proxy.Port, s.User, s.Password, s.Database))
	if err != nil {
		t.Fatalf("connect through the proxy: %v", err)
	}
	t.Cleanup(func() { _ = app.Close(context.Background()) })
	return app
}

func one(t *testing.T, app *pgx.Conn, sql, want string) {
	t.Helper()
	var got string
	if err := app.QueryRow(t.Context(), sql).Scan(&got); err != nil || got != want {
		t.Errorf("%s: %q, %v", sql, got, err)
	}
}

func clientsAreSeen(t *testing.T, c *client.Client) {
	clients, err := c.Clients(t.Context())
	if err != nil || !slices.ContainsFunc(clients, func(c api.Client) bool {
		return c.Database == "test1" && c.User == "test1" && c.Application == "shop"
	}) {
		t.Errorf("clients: %+v, %v", clients, err)
	}
	pools, err := c.Pools(t.Context())
	if err != nil || !slices.ContainsFunc(pools, func(p api.Pool) bool { return p.Database == "test1" && p.User == "test1" }) {
		t.Errorf("pools: %+v, %v", pools, err)
	}
}

// sameProtocol: whatever the servers are, a client that asks for 3.2 gets the
// key that a server gives it.
func sameProtocol(t *testing.T, l *labtest.Lab) {
	s := l.Status()
	key := func(host string, port int) int {
		conn, err := pgx.Connect(t.Context(), fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=disable max_protocol_version=3.2", host, port, s.User, s.Password, s.Database))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(t.Context()) }()
		return len(conn.PgConn().SecretKey())
	}
	direct, proxied := key(s.Nodes[0].Host, s.Nodes[0].Port), key(s.Proxy.Host, s.Proxy.Port)
	if direct != proxied {
		t.Errorf("a cancel key of %d bytes, and directly of %d", proxied, direct)
	}
}

func configIsRedacted(t *testing.T, l *labtest.Lab, c *client.Client) {
	got, err := c.Config(t.Context())
	if err != nil || got.Path != l.Config() || !strings.Contains(got.Text, `name = "pgsql2"`) {
		t.Errorf("%+v, %v", got, err)
	}
	for line := range strings.Lines(got.Text) {
		if v, ok := strings.CutPrefix(line, "password = "); ok && strings.TrimSpace(v) != `"********"` {
			t.Errorf("a password is shown: %s", line)
		}
	}
}

func filesAreSeen(t *testing.T, c *client.Client) {
	s, err := c.SyncFiles(t.Context())
	if err != nil || s.Node != "pgsql1" || s.InForce != "sync" || s.Error != "" || s.Winner != "" || s.Drift != "" || !strings.Contains(s.Running, "pgsql2") || s.Diff == "" {
		t.Errorf("%+v, %v", s, err)
	}
}

func reloads(t *testing.T, l *labtest.Lab, c *client.Client, f *follower) {
	text, err := os.ReadFile(l.Config())
	if err != nil {
		t.Fatal(err)
	}
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(l.Config(), []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	defer write(string(text))
	if r, err := c.Reload(t.Context()); err != nil || !r.Unchanged {
		t.Errorf("nothing has changed: %+v, %v", r, err)
	}
	write(string(text) + "\n[nonsense]\nx = 1\n")
	if _, err := c.Reload(t.Context()); code(err) != api.CodeUsage || !strings.Contains(err.Error(), "nonsense") || !strings.Contains(err.Error(), l.Config()+":") {
		t.Errorf("a bad file: %v", err)
	}
	f.until(t, "the bad file is reported", kind("reload.failed", "nothing was changed"))
	write(withKeys(string(text), "max_clients = 77"))
	r, err := c.Reload(t.Context())
	if err != nil || !slices.Equal(r.Applied, []string{"proxy.max_clients"}) || len(r.Restart) != 0 {
		t.Errorf("a key that can change: %+v, %v", r, err)
	}
	f.until(t, "the change is in force", func(s api.State, _ []api.Event) bool { return s.Pool.MaxClients == 77 })
	write(withKeys(string(text), "max_clients = 78\nunix_socket_permissions = \"0700\""))
	r, err = c.Reload(t.Context())
	if err != nil || !slices.Equal(r.Applied, []string{"proxy.max_clients"}) || !slices.Equal(r.Restart, []string{"proxy.unix_socket_permissions"}) {
		t.Errorf("a key that cannot: %+v, %v", r, err)
	}
	rules := filepath.Join(filepath.Dir(l.Config()), "pg_hba.conf")
	allow := func(lines string) {
		t.Helper()
		if err := os.WriteFile(rules, []byte(lines), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	allow("host all all all scram-sha-256\nhost all all nonsense\n")
	write(withKeys(string(text), "hba_file = \""+rules+"\""))
	if _, err := c.Reload(t.Context()); code(err) != api.CodeUsage || !strings.Contains(err.Error(), rules+":2: ") {
		t.Errorf("a bad rule: %v", err)
	}
	allow("host all all all scram-sha-256\n")
	if r, err = c.Reload(t.Context()); err != nil || !slices.Contains(r.Applied, "proxy.hba_file") {
		t.Errorf("rules: %+v, %v", r, err)
	}
	allow("host all all all reject\n")
	if r, err = c.Reload(t.Context()); err != nil || !slices.Equal(r.Applied, []string{"proxy.hba_file"}) {
		t.Errorf("other rules in the same file: %+v, %v", r, err)
	}
	s := l.Status()
	if conn, err := pgx.Connect(t.Context(), fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=disable", s.Proxy.Host, s.Proxy.Port, s.User, s.Password, s.Database)); err == nil || !strings.Contains(err.Error(), "28000") {
		t.Errorf("the rules do not hold: %v, %v", conn, err)
	}
	write(string(text))
	if err := syscall.Kill(l.Status().ProxydPID, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	f.until(t, "SIGHUP is obeyed", func(s api.State, es []api.Event) bool {
		return s.Pool.MaxClients != 78 && slices.ContainsFunc(es, func(e api.Event) bool { return e.Kind == "reload.done" && e.By == "SIGHUP" })
	})
}

// withKeys adds keys to the [proxy] table.
func withKeys(text, keys string) string {
	return strings.Replace(text, "[proxy]\n", "[proxy]\n"+keys+"\n", 1)
}

func maintenance(t *testing.T, c *client.Client, f *follower) {
	if s, err := c.Maintenance(t.Context(), api.MaintenanceRequest{On: true, Reason: "new disk"}); err != nil || !s.Maintenance {
		t.Errorf("on: %v, %v", s.Maintenance, err)
	}
	f.until(t, "the audit entry", func(_ api.State, es []api.Event) bool {
		return slices.ContainsFunc(es, func(e api.Event) bool {
			return e.Kind == "audit" && e.By != "" && e.Fields["outcome"] == "accepted" && e.Fields["reason"] == "new disk"
		})
	})
	if s, err := c.Maintenance(t.Context(), api.MaintenanceRequest{}); err != nil || s.Maintenance {
		t.Errorf("off: %v, %v", s.Maintenance, err)
	}
}

func refusals(t *testing.T, c *client.Client) {
	for _, tc := range []struct {
		r    api.PlanRequest
		code string
	}{
		{api.PlanRequest{Action: "promote", Node: "pgsql9"}, api.CodeUsage},
		{api.PlanRequest{Action: "promote", Node: "pgsql1"}, api.CodePrecondition},
		{api.PlanRequest{Action: "rejoin", Node: "pgsql1"}, api.CodeUnsafe},
		{api.PlanRequest{Action: "explode"}, api.CodeUsage},
	} {
		if _, err := c.Plan(t.Context(), tc.r); code(err) != tc.code {
			t.Errorf("%+v: %v, want %s", tc.r, err, tc.code)
		}
	}
	for _, err := range []error{second(c.Run(t.Context(), "p9", "")), second(c.Operation(t.Context(), "o9", 0)), second(c.PlanByID(t.Context(), "p9"))} {
		if code(err) != api.CodeNotFound {
			t.Errorf("what is not there: %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func switchover(t *testing.T, c *client.Client, f *follower) {
	p, err := c.Plan(t.Context(), api.PlanRequest{Action: "switchover", Node: "pgsql2"})
	if err != nil || len(p.Steps) == 0 || len(p.Effects) == 0 || len(p.Facts) == 0 || p.Confirm != "pgsql2" {
		t.Fatalf("the plan: %+v, %v", p, err)
	}
	if again, err := c.PlanByID(t.Context(), p.ID); err != nil || again.ID != p.ID || len(again.Steps) != len(p.Steps) {
		t.Errorf("the plan again: %+v, %v", again, err)
	}
	if _, err := c.Run(t.Context(), p.ID, "pgsql1"); code(err) != api.CodeConfirm {
		t.Errorf("another name: %v", err)
	}
	op, err := c.Run(t.Context(), p.ID, "pgsql2")
	if err != nil {
		t.Fatal(err)
	}
	op, err = c.Operation(t.Context(), op.ID, time.Minute)
	if err != nil || op.State != api.OpDone || op.Ended == nil {
		t.Fatalf("it ended as %+v, %v", op, err)
	}
	f.until(t, "the pair the other way round", protected("pgsql2"))
	if ops, err := c.Operations(t.Context()); err != nil || !slices.ContainsFunc(ops, func(o api.Operation) bool { return o.ID == op.ID && o.State == api.OpDone }) {
		t.Errorf("operations: %+v, %v", ops, err)
	}
	if _, err := c.Run(t.Context(), p.ID, "pgsql2"); code(err) != api.CodeNotFound && code(err) != api.CodeStale {
		t.Errorf("the same plan twice: %v", err)
	}
}

func rehearse(t *testing.T, c *client.Client, f *follower) {
	ds, err := c.Drills(t.Context())
	if err != nil || len(ds) < 2 || !ds[0].Allowed || ds[0].Confirm != "" {
		t.Fatalf("drills: %+v, %v", ds, err)
	}
	op, err := c.StartDrill(t.Context(), api.DrillRequest{Name: "primary-stop"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.StartDrill(t.Context(), api.DrillRequest{Name: "primary-stop"}); code(err) != api.CodeBusy && code(err) != api.CodePrecondition {
		t.Errorf("a second one: %v", err)
	}
	op, err = c.Operation(t.Context(), op.ID, 4*time.Minute)
	if err != nil || op.State != api.OpDone || op.Drill == nil {
		t.Fatalf("it ended as %+v, %v", op, err)
	}
	if r := op.Drill; r.Verdict != "pass" || r.Lost != 0 || r.ConnectErrors != 0 || r.Acknowledged == 0 || len(r.Steps) == 0 {
		t.Errorf("the report: %+v", r)
	}
	if rs, err := c.DrillReports(t.Context()); err != nil || len(rs) != 1 || rs[0].ID != op.Drill.ID {
		t.Errorf("reports: %+v, %v", rs, err)
	}
	f.until(t, "the pair as it was", protected("pgsql2"))
}

func theEnd(t *testing.T, l *labtest.Lab, c *client.Client, f *follower) {
	if err := l.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-f.ended; !errors.Is(err, client.ErrUnreachable) {
		t.Errorf("the stream ended with %v", err)
	}
	if _, err := c.State(t.Context()); !errors.Is(err, client.ErrUnreachable) {
		t.Errorf("afterwards: %v", err)
	}
	if _, err := os.Lstat(l.Socket()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// TestDriftIsSeenBeforeItMatters: somebody edits postgresql.conf on the
// primary, and a person at the console learns of it before a failure needs the
// swap.
func TestDriftIsSeenBeforeItMatters(t *testing.T) {
	l := labtest.Up(t, lab.Options{SwapMethod: "files"})
	c := client.New(l.Socket())
	defer c.Close()
	f := follow(c)
	f.until(t, "in sync", protected("pgsql1"))
	s, err := c.SyncFiles(t.Context())
	if err != nil || s.Method != "files" || s.InForce != "sync" || s.Drift != "" || s.Winner != "" || s.Error != "" ||
		s.Current != s.Sync || !strings.Contains(s.Source, "postgresql.conf:") || !strings.Contains(s.Diff, "synchronous_standby_names") {
		t.Fatalf("untouched: %+v, %v", s, err)
	}
	conf := filepath.Join(l.Dir, "pgsql1", "data", "postgresql.conf")
	if err := os.WriteFile(conf, []byte(s.Current+"work_mem = '8MB'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err = c.SyncFiles(t.Context())
	if err != nil || s.InForce != "neither" || !strings.Contains(s.Drift, "+work_mem = '8MB'") {
		t.Fatalf("edited: %+v, %v", s, err)
	}
	f.until(t, "the drift is reported", kind("config.drift", "was edited"))
	f.until(t, "the node carries a warning", func(s api.State, _ []api.Event) bool {
		return slices.ContainsFunc(s.Nodes[0].Warnings, func(w string) bool { return strings.Contains(w, "was edited") })
	})
	if err := os.WriteFile(conf, []byte(s.Sync), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = c.SyncFiles(t.Context()); err != nil || s.InForce != "sync" || s.Drift != "" {
		t.Fatalf("put back: %+v, %v", s, err)
	}
	f.until(t, "the end of the drift is reported", kind("config.drift", "as it should be again"))
}
