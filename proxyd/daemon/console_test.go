package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/labtest"
	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/client"
)

// psql gives a command to the console as a person would.
func psql(t *testing.T, l *labtest.Lab, database, command string) (string, error) {
	t.Helper()
	s := l.Status()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "psql", "-X", "-A", "-v", "ON_ERROR_STOP=1", "-h", s.Proxy.Host, "-p", fmt.Sprint(s.Proxy.Port), "-U", s.User, database, "-c", command)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+s.Password, "PGSSLMODE=disable")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// rewrite changes the lab's configuration and has it reloaded.
func rewrite(t *testing.T, l *labtest.Lab, c *client.Client, keys string) {
	t.Helper()
	text, err := os.ReadFile(l.Config())
	if err != nil {
		t.Fatal(err)
	}
	kept := strings.Builder{}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "admin_users") && !strings.HasPrefix(line, "stats_users") {
			kept.WriteString(line)
		}
	}
	if err := os.WriteFile(l.Config(), []byte(withKeys(kept.String(), keys)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestTheConsoleOnARealPair is what an administrator does with psql, who knows
// PgBouncer, while an application works.
func TestTheConsoleOnARealPair(t *testing.T) {
	l := labtest.Up(t, lab.Options{})
	c := client.New(l.Socket())
	defer c.Close()
	f := follow(c)
	f.until(t, "in sync", protected("pgsql1"))
	app := through(t, l)
	one(t, app, "INSERT INTO table1 VALUES (1, 'before') RETURNING value", "before")

	if out, err := psql(t, l, "pgtandem", "SHOW POOLS"); err == nil || !strings.Contains(out, "proxy.admin_users or proxy.stats_users") {
		t.Errorf("nobody is named, and yet: %v %s", err, out)
	}
	rewrite(t, l, c, `stats_users = ["test1"]`)
	t.Run("looking", func(t *testing.T) { consoleLooks(t, l) })
	if out, err := psql(t, l, "pgtandem", "PAUSE"); err == nil || !strings.Contains(out, "permission denied") {
		t.Errorf("PAUSE of one who may look: %v %s", err, out)
	}
	rewrite(t, l, c, `admin_users = ["test1"]`)
	t.Run("a pause across a switchover", func(t *testing.T) { pauseAcrossSwitchover(t, l, c, f, app) })
	t.Run("killing", func(t *testing.T) { killsOne(t, l, app) })
	t.Run("reload", func(t *testing.T) {
		if out, err := psql(t, l, "pgtandem", "RELOAD"); err != nil || !strings.Contains(out, "RELOAD") {
			t.Errorf("%v %s", err, out)
		}
	})
	f.until(t, "it is audited", func(_ api.State, es []api.Event) bool {
		for _, e := range es {
			if e.Kind == "audit" && strings.HasPrefix(e.By, "test1 (console, 127.0.0.1:") && e.Fields["action"] == "PAUSE test1" && e.Fields["outcome"] == "accepted" {
				return true
			}
		}
		return false
	})
	t.Run("metrics", func(t *testing.T) { metricsAreThere(t, l) })
}

func consoleLooks(t *testing.T, l *labtest.Lab) {
	for command, want := range map[string]string{
		"SHOW POOLS":      "test1|test1|",
		"SHOW CLIENTS":    "|shop|",
		"SHOW SERVERS":    "S|test1|test1|none|",
		"SHOW STATS":      "\ntest1|",
		"SHOW DATABASES":  "test1|127.",
		"SHOW NODES":      "|up|up|0.500000|primary|primary|",
		"SHOW POOL_NODES": "|streaming|sync|",
		"SHOW CONFIG":     "stats_users|test1||yes",
		"SHOW STATE":      "gate|open\ngate_node|pgsql1",
		"SHOW VERSION":    "pgtandem ",
		"SHOW LISTS":      "databases|1",
		"SHOW USERS":      "test1|",
		"SHOW MEM":        "heap|1|",
		"SHOW HELP":       "KILL_CLIENT id|admin_users|",
	} {
		for _, database := range []string{"pgtandem", "pgbouncer"} {
			if out, err := psql(t, l, database, command); err != nil || !strings.Contains(out, want) {
				t.Errorf("%s in %s: %v, %q is not in\n%s", command, database, err, want, out)
			}
		}
	}
	out, err := psql(t, l, "pgtandem", "SHOW CONFIG")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(line, "|")
		if strings.HasSuffix(key, ".password") && !strings.HasPrefix(value, "|") && !strings.HasPrefix(value, "********|") {
			t.Errorf("a password is shown: %s", line)
		}
	}
}

// pauseAcrossSwitchover: whoever is held by PAUSE goes on only at RESUME, on
// the primary of then.
func pauseAcrossSwitchover(t *testing.T, l *labtest.Lab, c *client.Client, f *follower, app *pgx.Conn) {
	if out, err := psql(t, l, "pgtandem", "PAUSE test1"); err != nil {
		t.Fatalf("PAUSE: %v %s", err, out)
	}
	asked := make(chan error, 1)
	go func() {
		_, err := app.Exec(context.Background(), "INSERT INTO table1 VALUES (2, 'held')")
		asked <- err
	}()
	f.until(t, "it is held", func(s api.State, _ []api.Event) bool { return s.Pool.Held == 1 })
	if out, err := psql(t, l, "pgtandem", "SHOW CLIENTS"); err != nil || !strings.Contains(out, "|RESUME") {
		t.Errorf("what it waits for: %v %s", err, out)
	}
	p, err := c.Plan(t.Context(), api.PlanRequest{Action: "switchover", Node: "pgsql2"})
	if err != nil {
		t.Fatal(err)
	}
	op, err := c.Run(t.Context(), p.ID, "pgsql2")
	if err != nil {
		t.Fatal(err)
	}
	if op, err = c.Operation(t.Context(), op.ID, time.Minute); err != nil || op.State != api.OpDone {
		t.Fatalf("the switchover: %+v, %v", op, err)
	}
	f.until(t, "the pair the other way round", protected("pgsql2"))
	select {
	case err := <-asked:
		t.Fatalf("it was let go by the new primary: %v", err)
	default:
	}
	if out, err := psql(t, l, "pgbouncer", "RESUME test1"); err != nil {
		t.Fatalf("RESUME: %v %s", err, out)
	}
	if err := <-asked; err != nil {
		t.Errorf("the held client: %v", err)
	}
	one(t, app, "SELECT value FROM table1 WHERE id = 2", "held")
}

// killsOne with pgx, which prepares its commands.
func killsOne(t *testing.T, l *labtest.Lab, app *pgx.Conn) {
	s := l.Status()
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=pgtandem sslmode=disable", s.Proxy.Host, s.Proxy.Port, s.User, s.Password))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background()) //nolint:errcheck // a test's connection
	rows, err := conn.Query(t.Context(), "SHOW CLIENTS")
	if err != nil {
		t.Fatal(err)
	}
	clients, err := pgx.CollectRows(rows, pgx.RowToMap)
	if err != nil {
		t.Fatal(err)
	}
	killed := false
	for _, c := range clients {
		if c["application_name"] == "shop" {
			if _, err := conn.Exec(t.Context(), fmt.Sprintf("KILL_CLIENT %v", c["id"])); err != nil {
				t.Errorf("KILL_CLIENT: %v", err)
			}
			killed = true
		}
	}
	if _, err := app.Exec(t.Context(), "SELECT 1"); err == nil || !killed {
		t.Errorf("the client lives: %v", clients)
	}
	var e *pgconn.PgError
	if _, err := conn.Exec(t.Context(), "KILL_CLIENT 999999"); !errors.As(err, &e) || e.Code != "42704" {
		t.Errorf("a client that is not there: %v", err)
	}
}

func metricsAreThere(t *testing.T, l *labtest.Lab) {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.Socket())
	}}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr}).Get("http://x" + api.PathMetrics)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\npgtandem_gate_open 1\n", "\npgtandem_node_primary{node=\"pgsql2\"} 1\n", "\npgtandem_node_role{node=\"pgsql1\",role=\"standby\"} 1\n",
		"\npgtandem_logins_total{database=\"test1\"} ", "\npgtandem_holds_total ", "\nprocess_open_fds ", "\ngo_goroutines ",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}
