// Package pgtest runs a real PostgreSQL on loopback for tests. It must never
// be imported by anything but tests.
package pgtest

import (
	"bytes"
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

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// The superuser of every server, and the role and database of the seed.
const (
	Superuser         = "postgres"
	SuperuserPassword = "super secret"
	User              = "test1"
	Password          = "test1"
	Database          = "test1"
)

// Server is one PostgreSQL.
type Server struct {
	Dir  string
	Port int
	bin  string
	cred *syscall.Credential
}

// Start makes a cluster and starts it. It is stopped and removed with the
// test.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	s, err := New(settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Destroy)
	return s
}

// New makes a cluster and starts it; Destroy ends it.
func New(settings ...string) (*Server, error) {
	bin, err := binDir()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pgtandem-pg-")
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, bin: bin}
	if err := s.init(settings); err != nil {
		s.Destroy()
		return nil, err
	}
	return s, nil
}

// binDir finds the newest installed server.
func binDir() (string, error) {
	if dir := os.Getenv("PG_BINDIR"); dir != "" {
		return dir, nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	best, version := "", 0
	for _, f := range found {
		dir := filepath.Dir(f)
		if v, err := strconv.Atoi(filepath.Base(filepath.Dir(dir))); err == nil && v > version {
			best, version = dir, v
		}
	}
	if best != "" {
		return best, nil
	}
	if f, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(f), nil
	}
	return "", fmt.Errorf("no PostgreSQL server is installed: set PG_BINDIR to the folder of initdb")
}

func (s *Server) init(settings []string) error {
	if os.Geteuid() == 0 { // the server refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		s.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(s.Dir, uid, gid); err != nil {
			return err
		}
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	s.Port = port
	pw := filepath.Join(s.Dir, "pw")
	if err := os.WriteFile(pw, []byte(SuperuserPassword), 0o644); err != nil {
		return err
	}
	if err := s.run("initdb", "-D", s.data(), "-U", Superuser, "--pwfile", pw, "-A", "scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C"); err != nil {
		return err
	}
	conf := fmt.Sprintf("\nlisten_addresses='127.0.0.1'\nport=%d\nunix_socket_directories='%s'\nfsync=off\nmax_connections=200\nlog_line_prefix='%%m [%%p] %%q%%u@%%d '\n", port, s.Dir)
	for _, line := range settings {
		conf += line + "\n"
	}
	f, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(conf)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := s.StartServer(); err != nil {
		return err
	}
	return s.seed()
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (s *Server) seed() error {
	if err := s.exec("postgres", "CREATE ROLE test1 LOGIN PASSWORD 'test1'", "CREATE DATABASE test1 OWNER test1"); err != nil {
		return err
	}
	return s.exec("test1", "GRANT ALL ON SCHEMA public TO test1", "SET ROLE test1", "CREATE TABLE table1 (id integer NOT NULL PRIMARY KEY, value text)")
}

func (s *Server) data() string { return filepath.Join(s.Dir, "data") }

func (s *Server) run(program string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, program), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &out, s.Dir
	cmd.WaitDelay = time.Second
	if s.cred != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out.String())
	}
	return nil
}

// StartServer starts the server and waits until it answers.
func (s *Server) StartServer() error {
	return s.run("pg_ctl", "-D", s.data(), "-w", "-l", filepath.Join(s.Dir, "log"), "start")
}

// Stop stops the server in one of pg_ctl's modes.
func (s *Server) Stop(mode string) error {
	return s.run("pg_ctl", "-D", s.data(), "-w", "-m", mode, "stop")
}

// Reload makes the server read its configuration again.
func (s *Server) Reload() error { return s.run("pg_ctl", "-D", s.data(), "reload") }

// Destroy stops the server and removes its files.
func (s *Server) Destroy() {
	_ = s.run("pg_ctl", "-D", s.data(), "-w", "-m", "immediate", "stop") // it may be down already
	_ = os.RemoveAll(s.Dir)
}

// Log gives the server's log.
func (s *Server) Log() string {
	b, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
	return string(b)
}

// SetHBA replaces pg_hba.conf; the superuser keeps its own line.
func (s *Server) SetHBA(lines string) error {
	text := "host all postgres 127.0.0.1/32 scram-sha-256\n" + lines + "\n"
	if err := os.WriteFile(filepath.Join(s.data(), "pg_hba.conf"), []byte(text), 0o600); err != nil {
		return err
	}
	return s.Reload()
}

// Node is the server as the engine knows it.
func (s *Server) Node(id cluster.NodeID) cluster.Node {
	return cluster.Node{ID: id, Host: "127.0.0.1", Port: s.Port}
}

// URL reaches the server itself as the superuser.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s password='%s' dbname=%s sslmode=disable", s.Port, Superuser, SuperuserPassword, database)
}

func (s *Server) exec(database string, statements ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL(database))
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // a test's connection
	for _, q := range statements {
		if _, err := conn.Exec(ctx, q); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	return nil
}

// Exec runs statements as the superuser on the server itself.
func (s *Server) Exec(t testing.TB, database string, statements ...string) {
	t.Helper()
	if err := s.exec(database, statements...); err != nil {
		t.Fatal(err)
	}
}

// Bin is the path of one of PostgreSQL's programs.
func (s *Server) Bin(program string) string { return filepath.Join(s.bin, program) }

// WriteFile makes a file that only the server's account can read.
func (s *Server) WriteFile(name string, text []byte) error {
	path := filepath.Join(s.Dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	if s.cred == nil {
		return nil
	}
	return os.Chown(path, int(s.cred.Uid), int(s.cred.Gid))
}
