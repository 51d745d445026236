package session

import (
	"context"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/pgtandem/pgtandem/proxyd/auth"
	"github.com/pgtandem/pgtandem/proxyd/session/internal/pgtest"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// pgbench runs PostgreSQL's own load through the proxy.
func pgbench(t testing.TB, port int, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, pg.Bin("pgbench"), append([]string{"-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", "test1"}, args...)...)
	cmd.Env = append(os.Environ(), "PGPASSWORD=test1", "PGDATABASE=test1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("pgbench %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestPgbenchInEveryProtocol(t *testing.T) {
	pgbench(t, pg.Port, "-i", "-s", "1", "-q")
	for _, mode := range bothModes {
		p := startProxy(t, mode, func(o *Options) { o.Limits.PoolSize = 4 })
		for _, protocol := range []string{"simple", "extended", "prepared"} {
			t.Run(string(mode)+"/"+protocol, func(t *testing.T) {
				pgbench(t, p.port, "-n", "-S", "-M", protocol, "-c", "4", "-j", "2", "-t", "200")
				pgbench(t, p.port, "-n", "-M", protocol, "-c", "4", "-j", "2", "-t", "50")
			})
		}
	}
}

// psql runs a script through the proxy.
func psql(t testing.TB, port int, script string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, pg.Bin("psql"), "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", "test1", "-X", "-v", "ON_ERROR_STOP=1")
	cmd.Env = append(os.Environ(), "PGPASSWORD=test1", "PGDATABASE=test1")
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// BenchmarkPgbench reports what 16 clients get through the proxy and without
// it: go test -bench Pgbench -benchtime 1x -run '^$'.
func BenchmarkPgbench(b *testing.B) {
	pgbench(b, pg.Port, "-i", "-s", "10", "-q")
	for _, protocol := range []string{"simple", "prepared"} {
		args := []string{"-n", "-S", "-M", protocol, "-c", "16", "-j", "1", "-T", "5"}
		measure := func(name string, port int) {
			b.Run(name+"/"+protocol, func(b *testing.B) {
				for range b.N {
					b.Log(port, tps.FindString(pgbench(b, port, args...)))
				}
			})
		}
		measure("direct", pg.Port)
		for _, mode := range bothModes {
			measure(string(mode), startProxy(b, mode, quiet).port)
		}
	}
}

var tps = regexp.MustCompile(`tps = [0-9.]+ `)

func quiet(o *Options) { o.Log = nil }

// BenchmarkLogin is a whole login, SCRAM included, of a client that has its
// ClientKey at hand: what PBKDF2 costs is the client's.
func BenchmarkLogin(b *testing.B) {
	p := startProxy(b, ModeTransaction)
	p.connect(b, "")
	role, err := sqlVerifiers{pg}.Lookup(within(b), pgtest.User)
	if err != nil {
		b.Fatal(err)
	}
	cred := credentialOf(b, role.Secret, pgtest.Password)
	params := []wire.Param{{Name: "user", Value: pgtest.User}, {Name: "database", Value: pgtest.Database}}
	for b.Loop() {
		conn, err := net.Dial("tcp", p.addr)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := logIn(conn, params, auth.NewProof(cred, nil, auth.BindingPrefer)); err != nil {
			b.Fatal(err)
		}
		conn.Close()
	}
}
