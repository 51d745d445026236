package host_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/host"
	"github.com/pgtandem/pgtandem/engine/execute/host/hosttest"
)

const password = "it's a \\secret:"

// server is a node of these tests with its machine.
type server struct {
	*host.Host
	node cluster.Node
	t    *testing.T
	run  execute.Host

	cutStdin int64 // when set, input ends after so many bytes
	ran      int   // commands
}

// disturbed is the machine as these tests disturb it.
type disturbed struct{ s *server }

func (d disturbed) Run(ctx context.Context, c execute.Command) (execute.Result, error) {
	if d.s.cutStdin > 0 && c.Stdin != nil {
		c.Stdin = io.LimitReader(c.Stdin, d.s.cutStdin)
	}
	d.s.ran++
	return d.s.run.Run(ctx, c)
}

func newServer(t *testing.T, name, dir string, port int) *server {
	t.Helper()
	as := hosttest.Owner(t)
	local := hosttest.Local{As: as}
	node := cluster.Node{ID: cluster.NodeID(name), Host: "127.0.0.1", Port: port, BinDirectory: hosttest.BinDir(t), OSUser: as.Name,
		DataDirectory: filepath.Join(dir, name, "data"), LogFile: filepath.Join(dir, name, "log")}
	s := &server{node: node, t: t, run: local}
	s.reopen()
	s.do("mkdir", "-p", filepath.Join(dir, name))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.Stop(ctx, "immediate"); err != nil {
			t.Errorf("stop %s: %v", name, err)
		}
	})
	return s
}

// reopen makes the machine of the node as it is described now.
func (s *server) reopen() {
	s.Host = host.New(s.node, disturbed{s}, host.Options{ReplicationUser: "repl", RecoveryUser: "postgres",
		PassFile: filepath.Join(filepath.Dir(s.node.DataDirectory), "pass file")})
}

func (s *server) split(etc string) {
	s.node.ConfigDirectory = etc
	s.reopen()
}

func (s *server) ctx() context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), 60*time.Second)
	s.t.Cleanup(cancel)
	return ctx
}

func (s *server) do(argv ...string) string {
	s.t.Helper()
	res, err := s.run.Run(s.ctx(), execute.Command{Argv: argv})
	if err != nil || res.Exit != 0 {
		s.t.Fatalf("%q: exit %d, %v: %s", argv, res.Exit, err, res.Stderr)
	}
	return string(res.Stdout)
}

func (s *server) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// template is one initdb for all tests, which copy it.
var template struct {
	sync.Mutex
	dir string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if template.dir != "" {
		_ = os.RemoveAll(filepath.Dir(template.dir))
	}
	os.Exit(code)
}

func (s *server) template() string {
	s.t.Helper()
	template.Lock()
	defer template.Unlock()
	if template.dir != "" {
		return template.dir
	}
	dir := strings.TrimSpace(s.do("mktemp", "-d", "/tmp/pgtandem-initdb-XXXXXX")) + "/data"
	res, err := s.run.Run(s.ctx(), execute.Command{Stdin: strings.NewReader(password + "\n"), Argv: []string{s.node.BinDirectory + "/initdb",
		"-D", dir, "-U", "postgres", "-A", "scram-sha-256", "--pwfile=/dev/stdin", "--no-sync", "--data-checksums", "-E", "UTF8", "--locale=C"}})
	if err != nil || res.Exit != 0 {
		s.t.Fatalf("initdb: exit %d, %v: %s", res.Exit, err, res.Stderr)
	}
	template.dir = dir
	return dir
}

// initdb makes a server that listens on its port and lets repl in.
func (s *server) initdb(settings ...string) *server {
	s.t.Helper()
	s.do("cp", "-a", "-T", s.template(), s.node.DataDirectory)
	s.append("postgresql.conf", append([]string{fmt.Sprintf("port = %d", s.node.Port), "listen_addresses = '127.0.0.1'", "unix_socket_directories = ''",
		"shared_buffers = 16MB", "fsync = off", "wal_keep_size = 64MB"}, settings...)...)
	s.append("pg_hba.conf", "host replication repl 127.0.0.1/32 scram-sha-256")
	return s
}

func (s *server) append(file string, lines ...string) {
	s.t.Helper()
	p := s.path(file)
	old, err := s.ReadFile(s.ctx(), p)
	s.must(err)
	s.must(s.ReplaceFile(s.ctx(), p, old, append(old, strings.Join(lines, "\n")+"\n"...)))
}

func (s *server) path(name string) string { return filepath.Join(s.node.DataDirectory, name) }

func (s *server) connect() *pgx.Conn {
	s.t.Helper()
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres sslmode=disable", s.node.Port))
	s.must(err)
	cfg.Password = password
	c, err := pgx.ConnectConfig(s.ctx(), cfg)
	s.must(err)
	return c
}

func (s *server) sql(statements ...string) {
	s.t.Helper()
	c := s.connect()
	defer c.Close(context.Background())
	for _, q := range statements {
		if _, err := c.Exec(s.ctx(), q); err != nil {
			s.t.Fatalf("%s: %s: %v", s.node.ID, q, err)
		}
	}
}

func (s *server) ask(query string) (answer string) {
	s.t.Helper()
	c := s.connect()
	defer c.Close(context.Background())
	if err := c.QueryRow(s.ctx(), query).Scan(&answer); err != nil {
		s.t.Fatalf("%s: %s: %v", s.node.ID, query, err)
	}
	return answer
}

// eventually looks until a query gives what is wanted.
func (s *server) eventually(query, want string) {
	s.t.Helper()
	c := s.connect()
	defer c.Close(context.Background())
	ctx := s.ctx()
	for got := ""; got != want; {
		if err := c.QueryRow(ctx, query).Scan(&got); err != nil {
			s.t.Fatalf("%s: %s is %q, not %q: %v", s.node.ID, query, got, want, err)
		}
	}
}

// passwords lets a server log in at its peers.
func (s *server) passwords(peers ...*server) {
	s.t.Helper()
	var b strings.Builder
	for _, p := range peers {
		for _, role := range []string{"repl", "postgres"} {
			fmt.Fprintf(&b, "127.0.0.1:%d:*:%s:%s\n", p.node.Port, role, strings.NewReplacer(`\`, `\\`, `:`, `\:`).Replace(password))
		}
	}
	s.must(s.WriteFile(s.ctx(), filepath.Join(filepath.Dir(s.node.DataDirectory), "pass file"), []byte(b.String()), 0o600))
}

// pair is a primary and a standby cloned from it, which streams.
func pair(t *testing.T, settings ...string) (primary, standby *server) {
	t.Helper()
	dir := hosttest.Owner(t).Dir(t)
	primary = newServer(t, "pgsql1", dir, hosttest.FreePort(t)).initdb(append([]string{"cluster_name = 'pgsql1'"}, settings...)...)
	standby = newServer(t, "pgsql2", dir, hosttest.FreePort(t))
	primary.passwords(standby)
	standby.passwords(primary)
	primary.must(primary.Start(primary.ctx()))
	primary.sql("SET password_encryption = 'scram-sha-256'", "CREATE ROLE repl LOGIN REPLICATION PASSWORD '"+strings.ReplaceAll(password, "'", "''")+"'",
		"CREATE TABLE t (id integer primary key)", "INSERT INTO t SELECT generate_series(1, 1000)")
	standby.must(standby.Clone(standby.ctx(), primary.node, func(string) {}))
	standby.append("postgresql.conf", fmt.Sprintf("port = %d", standby.node.Port), "cluster_name = 'pgsql2'")
	standby.must(standby.ConfigureStandby(standby.ctx(), primary.node, ""))
	standby.must(standby.Start(standby.ctx()))
	primary.eventually("SELECT coalesce(max(state), '') FROM pg_stat_replication WHERE application_name = 'pgsql2'", "streaming")
	return primary, standby
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
