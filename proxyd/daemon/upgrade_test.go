package daemon_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/tailscale/peercred"

	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/labtest"
	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/client"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// servingPID is who has the control socket, 0 for nobody.
func servingPID(l *labtest.Lab) int {
	conn, err := net.Dial("unix", l.Socket())
	if err != nil {
		return 0
	}
	defer conn.Close() //nolint:errcheck // a test's connection
	cred, err := peercred.Get(conn)
	if err != nil {
		return 0
	}
	pid, _ := cred.PID()
	return pid
}

// until waits for what is seen from outside alone.
func until(t *testing.T, what string, seen func() bool) {
	t.Helper()
	limit := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !seen() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// upgrade has the daemon followed by another, and gives the new one's pid.
func upgrade(t *testing.T, l *labtest.Lab) (next int) {
	t.Helper()
	was := servingPID(l)
	if err := syscall.Kill(was, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	until(t, "another process has the control socket", func() bool {
		next = servingPID(l)
		return next != 0 && next != was
	})
	// The lab ends by its file who serves it at last.
	if err := os.WriteFile(filepath.Join(l.Dir, "run", "proxyd.pid"), fmt.Appendln(nil, next), 0o644); err != nil {
		t.Fatal(err)
	}
	c := client.New(l.Socket())
	defer c.Close()
	until(t, "it takes clients", func() bool {
		events, err := c.Events(t.Context(), 0, 1000)
		return err == nil && kind("upgrade.done", fmt.Sprint(was))(api.State{}, events)
	})
	return next
}

func lives(pid int) bool { return syscall.Kill(pid, 0) == nil }

// logins are clients that come and go all the time.
type logins struct {
	ok   atomic.Int64
	stop context.CancelFunc
	wg   sync.WaitGroup
}

func comeAndGo(t *testing.T, dsn string, n int) *logins {
	ctx, cancel := context.WithCancel(t.Context())
	c := &logins{stop: cancel}
	for range n {
		c.wg.Go(func() {
			for ctx.Err() == nil {
				if err := once(dsn); err != nil {
					t.Errorf("a client that comes and goes: %v", err)
					return
				}
				c.ok.Add(1)
			}
		})
	}
	return c
}

func once(dsn string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // a test's connection
	_, err = conn.Exec(ctx, "SELECT 1")
	return err
}

// pgbench runs until it is told to end, and gives what it reported.
func pgbench(t *testing.T, l *labtest.Lab, args ...string) (report func() string) {
	t.Helper()
	s := l.Status()
	path, err := exec.LookPath("pgbench")
	if err != nil {
		found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench") // the pattern is a constant
		if len(found) == 0 {
			t.Fatal("pgbench is not installed: apt-get install postgresql-contrib")
		}
		path = found[len(found)-1]
	}
	cmd := exec.Command(path, append(args, "-h", s.Proxy.Host, "-p", fmt.Sprint(s.Proxy.Port), "-U", s.User, s.Database)...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+s.Password, "PGSSLMODE=disable")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() string {
		if err := cmd.Wait(); err != nil {
			t.Errorf("pgbench: %v\n%s", err, out.String())
		}
		return out.String()
	}
}

// TestUpgradeInPlace: the program is followed by another one, twice, under
// load. Clients that stay, clients that come and go, a client in a transaction,
// one with a temporary table, one with TLS and one in the middle of a message
// see nothing of it. A switchover and a failover by the last engine move the
// clients of all three processes, and in the end it has no more files open than
// the first one had, and no socket twice.
func TestUpgradeInPlace(t *testing.T) {
	l := labtest.Up(t, lab.Options{})
	c := client.New(l.Socket())
	defer c.Close()
	f := follow(c)
	f.until(t, "in sync", protected("pgsql1"))
	serveTLS(t, l, c)
	s := l.Status()
	dsn := fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=disable", s.Proxy.Host, s.Proxy.Port, s.User, s.Password, s.Database)
	first := servingPID(l)
	sealed, err := pgx.Connect(t.Context(), strings.Replace(dsn, "disable", "require", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer sealed.Close(context.Background()) //nolint:errcheck // a test's connection
	opened, _ := files(t, first)

	stays := through(t, l)
	torn := through(t, l)
	otherHalf := speakHalf(t, torn, "SELECT 'a message in two halves'")
	pinned := through(t, l)
	run(t, pinned, "CREATE TEMP TABLE mine (id int)")
	run(t, stays, "BEGIN")
	run(t, stays, "INSERT INTO table1 VALUES (1, 'begun before')")
	reported := pgbench(t, l, "-n", "-c", "4", "-T", "40", "-f", script(t))
	coming := comeAndGo(t, dsn, 3)

	second := upgrade(t, l)
	middle := through(t, l)
	run(t, stays, "COMMIT")
	run(t, pinned, "INSERT INTO mine VALUES (1)")
	run(t, sealed, "SELECT 1")
	third := upgrade(t, l)
	otherHalf("SELECT 1")
	run(t, sealed, "SELECT 1")
	for _, pid := range []int{first, second, third} {
		if !lives(pid) {
			t.Errorf("process %d has clients still, and has ended", pid)
		}
	}
	run(t, middle, "SELECT 1")
	before := coming.ok.Load()
	until(t, "clients come and go", func() bool { return coming.ok.Load() > before+5 || t.Failed() })
	canceled(t, pinned)
	coming.stop()
	coming.wg.Wait()
	out := reported()
	if !strings.Contains(out, "number of failed transactions: 0 ") || strings.Contains(out, "error") {
		t.Errorf("pgbench:\n%s", out)
	}
	t.Logf("%d logins; pgbench: %s", coming.ok.Load(), out)

	// The connections of all three move with the one engine there is.
	c3 := client.New(l.Socket())
	defer c3.Close()
	switchedOver(t, c3, "pgsql2")
	one(t, stays, "SELECT value FROM table1 WHERE id = 1", "begun before")
	one(t, middle, "INSERT INTO table1 VALUES (2, 'after') RETURNING value", "after")
	follow(c3).until(t, "the pair the other way round", protected("pgsql2"))
	l.StopNode("pgsql2", "immediate")
	one(t, stays, "SELECT value FROM table1 WHERE id = 2", "after") // it is held meanwhile
	one(t, middle, "INSERT INTO table1 VALUES (3, 'once more') RETURNING value", "once more")
	run(t, sealed, "SELECT 1")
	for _, conn := range []*pgx.Conn{stays, pinned, middle, sealed, torn} {
		conn.Close(t.Context()) //nolint:errcheck // it goes
	}
	until(t, "the earlier processes end with their clients", func() bool { return !running(first) && !running(second) })
	if servingPID(l) != third {
		t.Error("the last one is not there")
	}
	var more, twice []string
	for limit := time.Now().Add(time.Minute); ; pause(t, 100*time.Millisecond) {
		if more, twice = files(t, third); len(more) <= len(opened) && len(twice) == 0 {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("it has not let go of what was theirs: open are %v, and twice %v; the first had %v", more, twice, opened)
		}
	}
}

// serveTLS has the lab's proxy speak TLS with clients that ask for it.
func serveTLS(t *testing.T, l *labtest.Lab, c *client.Client) {
	t.Helper()
	info, err := os.Stat(l.Config())
	if err != nil {
		t.Fatal(err)
	}
	cert, key := selfSigned(t)
	for name, b := range map[string][]byte{"proxyd.crt": cert, "proxyd.key": key} {
		path := filepath.Join(l.Dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); os.Geteuid() == 0 {
			if err := os.Chown(path, int(st.Uid), int(st.Gid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	text, err := os.ReadFile(l.Config())
	if err != nil {
		t.Fatal(err)
	}
	keys := fmt.Sprintf("[proxy.client_tls]\nmode = \"allow\"\ncert_file = %q\nkey_file = %q\n\n[control]\n", filepath.Join(l.Dir, "proxyd.crt"), filepath.Join(l.Dir, "proxyd.key"))
	if err := os.WriteFile(l.Config(), []byte(strings.Replace(string(text), "[control]\n", keys, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// selfSigned is a certificate that nobody vouches for.
func selfSigned(t *testing.T) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "proxyd"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b})
}

// speakHalf sends the first half of a query. What it gives sends the other half,
// and another query, and checks that both are answered.
func speakHalf(t *testing.T, conn *pgx.Conn, sql string) (rest func(more string)) {
	t.Helper()
	send := func(b []byte) {
		t.Helper()
		if _, err := conn.PgConn().Conn().Write(b); err != nil {
			t.Fatal(err)
		}
	}
	query := wire.AppendString(nil, wire.Query, sql)
	send(query[:len(query)/2])
	return func(more string) {
		send(query[len(query)/2:])
		send(wire.AppendString(nil, wire.Query, more))
		rows := 0
		for ready := 0; ready < 2; {
			m, err := conn.PgConn().Frontend().Receive()
			if err != nil {
				t.Fatalf("the other half: %v", err)
			}
			switch m.(type) {
			case *pgproto3.DataRow:
				rows++
			case *pgproto3.ReadyForQuery:
				ready++
			}
		}
		if rows != 2 {
			t.Errorf("two queries have %d rows", rows)
		}
	}
}

// files are those that a process has open beside its sockets, and the sockets
// that it has twice.
func files(t *testing.T, pid int) (names, twice []string) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, e := range list {
		name, err := os.Readlink(filepath.Join(dir, e.Name()))
		switch {
		case err != nil: // it was closed just now
		case !strings.HasPrefix(name, "socket:"):
			names = append(names, name)
		case seen[name]:
			twice = append(twice, name)
		}
		seen[name] = true
	}
	return names, twice
}

// running says that a process has not ended; one that nobody has waited for
// has.
func running(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func run(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Errorf("%s: %v", sql, err)
	}
}

// script is a transaction that shows every break.
func script(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "script.sql")
	if err := os.WriteFile(path, []byte("BEGIN;\nSELECT count(*) FROM table1;\nSELECT pg_sleep(0.01);\nEND;\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// canceled: a cancel request finds its client, whoever takes it.
func canceled(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT pg_sleep(600)")
		ended <- err
	}()
	limit := time.After(time.Minute)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if err == nil || !strings.Contains(err.Error(), "57014") {
				t.Errorf("the canceled statement: %v", err)
			}
			return
		case <-tick.C: // the statement may not have begun at the first one
			if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
				t.Errorf("cancel: %v", err)
			}
		case <-limit:
			t.Fatal("a cancel request for an earlier process's client is not passed on")
		}
	}
}

func switchedOver(t *testing.T, c *client.Client, to string) {
	t.Helper()
	var p api.Plan
	var err error
	until(t, "a switchover is possible", func() bool { // a new daemon has yet to look at the hosts
		p, err = c.Plan(t.Context(), api.PlanRequest{Action: "switchover", Node: to})
		return err == nil
	})
	op, err := c.Run(t.Context(), p.ID, to)
	if err != nil {
		t.Fatal(err)
	}
	if op, err = c.Operation(t.Context(), op.ID, time.Minute); err != nil || op.State != api.OpDone {
		t.Fatalf("the switchover: %+v, %v", op, err)
	}
}

// TestAnEarlierProcessThatHangs: while nobody knows whether its gate is closed
// nothing is promoted; so it is killed. And one whose successor is gone closes
// its gate and ends.
func TestAnEarlierProcessThatHangs(t *testing.T) {
	l := labtest.Up(t, lab.Options{})
	c := client.New(l.Socket())
	defer c.Close()
	follow(c).until(t, "in sync", protected("pgsql1"))
	first := servingPID(l)
	stays := through(t, l)
	run(t, stays, "SELECT 1")
	second := upgrade(t, l)
	if err := syscall.Kill(first, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	c2 := client.New(l.Socket())
	defer c2.Close()
	follow(c2).until(t, "the pair is well", protected("pgsql1"))
	switchedOver(t, c2, "pgsql2")
	if running(first) {
		t.Error("the process that did not confirm its closed gate lives")
	}
	if _, err := stays.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("its client has a server")
	}

	follow(c2).until(t, "the pair is well again", protected("pgsql2"))
	next := through(t, l)
	run(t, next, "SELECT 1")
	third := upgrade(t, l)
	if err := syscall.Kill(third, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the process that has lost its successor ends", func() bool { return !running(second) })
	if _, err := next.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("its client has a server")
	}
}
