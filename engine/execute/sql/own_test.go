package sql_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/assemble"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/sql"
	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/labtest"
)

// A session of ours is stopped before it has read what it was sent. A newer
// statement says the contrary, and must have the last word.
func TestWhatWasSentBeforeIsNotExecutedLater(t *testing.T) {
	l := labtest.Up(t, lab.Options{WithoutDaemon: true})
	c := labtest.Config(t, l.Lab)
	node := assemble.Nodes(c)[0]
	made := 0
	server := sql.New(node.ID, func(ctx context.Context) (*pgx.Conn, error) {
		cfg, err := assemble.ConnConfig(c, node, c.Recovery.Credential, "postgres")
		if err != nil {
			return nil, err
		}
		made++
		return pgx.ConnectConfig(ctx, cfg)
	})
	t.Cleanup(server.Close)
	watch := l.SQL("pgsql1", "postgres") // of the same role, and not ours by its name
	ask := func(query string) (v string) {
		t.Helper()
		if err := watch.QueryRow(t.Context(), query).Scan(&v); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		return v
	}
	if err := server.AlterSystem(t.Context(), "work_mem", "5MB"); err != nil {
		t.Fatal(err)
	}
	// The statement is sent and waits in its socket.
	stopped, err := pgx.ConnectConfig(t.Context(), recovery(t, l, sql.Application))
	if err != nil {
		t.Fatal(err)
	}
	frozen := int(stopped.PgConn().PID())
	signal(t, frozen, syscall.SIGSTOP)
	defer signal(t, frozen, syscall.SIGCONT)
	sent, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := stopped.PgConn().Exec(sent, "ALTER SYSTEM SET work_mem = '6MB'").ReadAll(); err == nil {
		t.Fatal("a stopped session answered")
	}
	server.Close() // the daemon is started anew

	// On a slow machine a short time is over before the session is found.
	for limit := 500 * time.Millisecond; ; limit *= 2 {
		short, cancel := context.WithTimeout(t.Context(), limit)
		err = server.AlterSystem(short, "work_mem", "7MB")
		cancel()
		if !errors.Is(err, execute.ErrRetry) || errors.Is(err, execute.ErrUnknown) || limit > time.Minute {
			t.Fatalf("with a session that cannot end: %v", err)
		}
		if strings.Contains(err.Error(), "may yet execute") {
			break
		}
	}
	if v := ask("SELECT setting FROM pg_file_settings WHERE name = 'work_mem'"); v != "5MB" {
		t.Fatalf("work_mem is %s: something was sent", v)
	}
	if id, err := server.Identity(t.Context()); err != nil || id.InRecovery {
		t.Fatalf("to read harms nothing: %+v, %v", id, err)
	}
	done := make(chan error, 1)
	go func() { done <- server.AlterSystem(context.WithoutCancel(t.Context()), "work_mem", "7MB") }()
	signal(t, frozen, syscall.SIGCONT)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if v := ask("SELECT count(*)::text FROM pg_stat_activity WHERE pid = " + strconv.Itoa(frozen)); v != "0" {
		t.Error("the stopped session is still there")
	}
	if v := ask("SELECT string_agg(setting, ',') FROM pg_file_settings WHERE name = 'work_mem'"); v != "7MB" {
		t.Errorf("work_mem is %s: what was sent before was executed", v)
	}
	was := made
	if err := server.AlterSystem(t.Context(), "work_mem", "8MB"); err != nil || made != was {
		t.Errorf("a connection that is alone is kept: %v, %d made", err, made-was)
	}
}

func recovery(t *testing.T, l *labtest.Lab, application string) *pgx.ConnConfig {
	t.Helper()
	c := labtest.Config(t, l.Lab)
	cfg, err := assemble.ConnConfig(c, assemble.Nodes(c)[0], c.Recovery.Credential, "postgres")
	if err != nil {
		t.Fatal(err)
	}
	cfg.RuntimeParams["application_name"] = application
	return cfg
}

func signal(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil && err != syscall.ESRCH {
		t.Errorf("send %s to %d: %v", s, pid, err)
	}
}
