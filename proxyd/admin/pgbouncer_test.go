package admin

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestPgBouncersOwnColumns asks the PgBouncer of this machine, where there is
// one: each of its columns is one of ours, in its order. The list of another
// version, which TestTheColumnsArePgBouncers has, holds everywhere.
func TestPgBouncersOwnColumns(t *testing.T) {
	program, err := exec.LookPath("/usr/sbin/pgbouncer")
	if err != nil {
		t.Logf("PgBouncer is not installed: %v", err)
		return
	}
	conn := startPgBouncer(t, program)
	for _, sh := range shows() {
		if sh.word == "NODES" { // is pgpool-II's
			continue
		}
		theirs, err := columnsOfPgBouncer(t, conn, "SHOW "+sh.word)
		if err != nil {
			t.Logf("this PgBouncer has no SHOW %s: %v", sh.word, err)
			continue
		}
		at := 0
		for _, name := range theirs {
			if name == "reserve_pool" { // until 1.23
				name = "reserve_pool_size"
			}
			for at < len(sh.columns) && sh.columns[at].name != name {
				at++
			}
			if at == len(sh.columns) {
				t.Errorf("SHOW %s: PgBouncer's column %s is missing, or stands elsewhere; it has %v", sh.word, name, theirs)
				break
			}
			at++
		}
	}
}

func columnsOfPgBouncer(t *testing.T, conn *pgconn.PgConn, sql string) (names []string, err error) {
	t.Helper()
	results, err := conn.Exec(t.Context(), sql).ReadAll()
	if err != nil {
		return nil, err
	}
	for _, r := range results {
		for _, f := range r.FieldDescriptions {
			names = append(names, f.Name)
		}
	}
	return names, nil
}

// startPgBouncer runs one that knows no server: its console needs none.
func startPgBouncer(t *testing.T, program string) *pgconn.PgConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	dir, err := os.MkdirTemp("", "pgb") // not t.TempDir(): another account must reach it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ini := filepath.Join(dir, "pgbouncer.ini")
	conf := fmt.Sprintf("[databases]\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\nauth_type = any\nadmin_users = tester\n", port)
	if err := os.WriteFile(ini, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-q", ini)
	if os.Geteuid() == 0 { // which PgBouncer refuses to run as
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		cmd.Wait()         //nolint:errcheck // it was killed
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		conn, err := pgconn.Connect(ctx, fmt.Sprintf("host=127.0.0.1 port=%d user=tester dbname=pgbouncer sslmode=disable", port))
		if err == nil {
			t.Cleanup(func() { conn.Close(context.Background()) }) //nolint:errcheck // a test's connection
			return conn
		}
		select {
		case <-time.After(20 * time.Millisecond): // it has not opened its port yet
		case <-ctx.Done():
			t.Fatalf("PgBouncer does not answer: %v", err)
		}
	}
}
