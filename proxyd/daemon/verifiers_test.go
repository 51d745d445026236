package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/session"
)

// postgres is a server of the test's own, on the loopback, that trusts it.
func postgres(t *testing.T) cluster.Node {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		t.Fatalf("PostgreSQL's server programs are not installed (%v)", err)
	}
	bin := found[len(found)-1]
	dir, err := os.MkdirTemp("/tmp", "pgtandem-verifiers")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	attr := owned(t, dir)
	run := func(name string, args ...string) {
		t.Helper()
		c := exec.CommandContext(t.Context(), filepath.Join(bin, name), args...)
		c.Dir, c.SysProcAttr = dir, attr
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	data := filepath.Join(dir, "data")
	run("initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync")
	port := freePort(t)
	run("pg_ctl", "-D", data, "-w", "-l", filepath.Join(dir, "log"), "start", "-o",
		fmt.Sprintf("-p %d -c listen_addresses=127.0.0.1 -c unix_socket_directories=%s -c fsync=off -c password_encryption=scram-sha-256", port, dir))
	t.Cleanup(func() {
		c := exec.Command(filepath.Join(bin, "pg_ctl"), "-D", data, "-m", "immediate", "stop")
		c.Dir, c.SysProcAttr = dir, attr
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("stop the server: %v\n%s", err, out)
		}
	})
	return cluster.Node{ID: "pgsql1", Host: "127.0.0.1", Port: port}
}

// owned gives dir to whoever the server runs as: us, or postgres for root.
func owned(t *testing.T, dir string) *syscall.SysProcAttr {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, errU := strconv.Atoi(u.Uid)
	gid, errG := strconv.Atoi(u.Gid)
	if err := errors.Join(errU, errG, os.Chown(dir, uid, gid)); err != nil {
		t.Fatal(err)
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestVerifiersOfARealServer(t *testing.T) {
	node := postgres(t)
	var dials atomic.Int32
	dial := func(ctx context.Context, n cluster.Node) (*pgx.Conn, error) {
		dials.Add(1)
		return pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres sslmode=disable", n.Host, n.Port))
	}
	admin, err := dial(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close(context.Background()) }()
	// A role of a name that would break out of any quoting, and a table that
	// would stand in the way of an unqualified name.
	const odd = `a"b'c\d;--`
	for _, s := range []string{
		"CREATE ROLE ann LOGIN PASSWORD 'secret' VALID UNTIL '2031-01-02 03:04:05+00'",
		"CREATE ROLE forever LOGIN PASSWORD 'x' VALID UNTIL 'infinity'",
		"CREATE ROLE past LOGIN PASSWORD 'x' VALID UNTIL '-infinity'",
		"CREATE ROLE grp",
		"CREATE ROLE " + pgx.Identifier{odd}.Sanitize() + " LOGIN",
		"CREATE ROLE staff", "CREATE ROLE dept IN ROLE staff", "CREATE ROLE other", "GRANT dept TO ann",
		"CREATE TABLE public.pg_authid (rolname text)",
		"CREATE FUNCTION public.anything(name, name) RETURNS bool LANGUAGE sql AS 'SELECT true'",
		"CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = name, FUNCTION = public.anything)",
		"ALTER ROLE postgres SET search_path = public, pg_catalog",
	} {
		if _, err := admin.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	dials.Store(0)
	v := newVerifiers(func() (cluster.Node, bool) { return node, true }, dial)
	defer v.Close()
	for _, tc := range []struct {
		role  string
		check func(session.Verifier) bool
	}{
		{"ann", func(r session.Verifier) bool {
			return strings.HasPrefix(r.Secret, "SCRAM-SHA-256$4096:") && r.CanLogin && r.ValidUntil.Equal(time.Date(2031, 1, 2, 3, 4, 5, 0, time.UTC))
		}},
		{"forever", func(r session.Verifier) bool { return r.ValidUntil.IsZero() }},
		{"ann", func(r session.Verifier) bool {
			slices.Sort(r.MemberOf)
			return slices.Equal(r.MemberOf, []string{"dept", "staff"})
		}},
		{"past", func(r session.Verifier) bool { return !r.ValidUntil.IsZero() && r.ValidUntil.Before(time.Now()) }},
		{"grp", func(r session.Verifier) bool { return r.Secret == "" && !r.CanLogin }},
		{odd, func(r session.Verifier) bool { return r.CanLogin }},
	} {
		r, err := v.Lookup(t.Context(), tc.role)
		if err != nil || !tc.check(r) {
			t.Errorf("%s: %+v, %v", tc.role, r, err)
		}
	}
	if _, err := v.Lookup(t.Context(), "nobody"); !errors.Is(err, session.ErrNoRole) {
		t.Errorf("a role that is not there: %v", err)
	}
	if n := dials.Load(); n < 1 || n > lookups {
		t.Errorf("dialled %d times", n)
	}

	t.Run("a connection that was cut is made anew", func(t *testing.T) {
		if _, err := admin.Exec(t.Context(), "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"); err != nil {
			t.Fatal(err)
		}
		for range 2 * lookups {
			if _, err := v.Lookup(t.Context(), "ann"); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("a burst shares a few connections", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := v.Lookup(t.Context(), "ann"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := dials.Load(); n > 2*lookups {
			t.Errorf("dialled %d times", n)
		}
	})
	t.Run("another primary is asked on another connection", func(t *testing.T) {
		other := newVerifiers(func() (cluster.Node, bool) { return node, true }, dial)
		defer other.Close()
		if _, err := other.Lookup(t.Context(), "ann"); err != nil {
			t.Fatal(err)
		}
		other.primary = func() (cluster.Node, bool) {
			return cluster.Node{ID: "pgsql2", Host: "127.0.0.1", Port: freePort(t)}, true
		}
		for range lookups {
			if _, err := other.Lookup(t.Context(), "ann"); err == nil || !strings.Contains(err.Error(), "pgsql2") {
				t.Errorf("answered by the old primary: %v", err)
			}
		}
	})
	t.Run("without a primary nobody is asked", func(t *testing.T) {
		none := newVerifiers(func() (cluster.Node, bool) { return cluster.Node{}, false }, nil)
		defer none.Close()
		if _, err := none.Lookup(t.Context(), "ann"); err == nil || errors.Is(err, session.ErrNoRole) {
			t.Errorf("%v", err)
		}
	})
}

func TestValidUntil(t *testing.T) {
	if !validUntil(pgtype.Timestamptz{}).IsZero() {
		t.Error("NULL became a limit")
	}
}
