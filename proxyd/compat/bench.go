package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/lab"
)

// The role that runs the tests: the first superuser, whom some of PostgreSQL's
// tests expect to own the system catalogs.
const role = "postgres"

// endpoint is where a suite connects.
type endpoint struct {
	host     string
	port     int
	password string // of the role; of a lab that is removed when the suites are done
}

// bench is a lab with the tests laid out beside it.
type bench struct {
	options
	lab     *lab.Lab
	dir     string // of ours, reachable for the servers
	bin     string // of PostgreSQL's programs
	primary endpoint
	proxy   endpoint
	account *syscall.Credential // what servers and tests run as; nil for our own
	ready   map[string]bool     // what has been laid out
}

func newBench(ctx context.Context, o options, l *lab.Lab, dir string) (*bench, error) {
	s := l.Status()
	b := &bench{options: o, lab: l, dir: dir, ready: make(map[string]bool)}
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, fmt.Errorf("find the account that PostgreSQL runs as: %w", err)
		}
		uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
		if uerr != nil || gerr != nil {
			return nil, fmt.Errorf("find the account that PostgreSQL runs as: uid %q, gid %q", u.Uid, u.Gid)
		}
		b.account = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	for _, n := range s.Nodes {
		primary, secret, err := b.prepare(ctx, n.Name)
		if err != nil {
			return nil, fmt.Errorf("prepare %s: %w", n.Name, err)
		}
		if primary {
			b.primary, b.proxy, b.bin = endpoint{n.Host, n.Port, secret}, endpoint{s.Proxy.Host, s.Proxy.Port, secret}, n.BinDirectory
		}
	}
	if b.bin == "" {
		return nil, fmt.Errorf("no node of the lab in %s is primary", l.Dir)
	}
	return b, nil
}

// prepare spares a node the disk, since the suites are about the protocol, and
// gives the role's password, which the lab has made.
func (b *bench) prepare(ctx context.Context, node string) (primary bool, password string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := b.lab.Connect(ctx, node, "postgres")
	if err != nil {
		return false, "", err
	}
	defer func() { _ = conn.Close(ctx) }()
	if c := conn.Config(); c.User != role {
		return false, "", fmt.Errorf("the lab's superuser is %q, and the suites want %q", c.User, role)
	}
	for _, q := range []string{"ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"} {
		if _, err := conn.Exec(ctx, q); err != nil {
			return false, "", fmt.Errorf("%s: %w", q, err)
		}
	}
	if err := conn.QueryRow(ctx, "SELECT NOT pg_is_in_recovery()").Scan(&primary); err != nil {
		return false, "", fmt.Errorf("ask whether it is primary: %w", err)
	}
	return primary, conn.Config().Password, nil
}

func (b *bench) endpoints() (direct, proxied endpoint) { return b.primary, b.proxy }

// dsn names a database of an endpoint for a driver.
func (e endpoint) dsn(database string) string { return e.dsnOf(role, e.password, database) }

func (e endpoint) dsnOf(user, password, database string) string {
	return fmt.Sprintf("host=%s port=%d user=%s password='%s' dbname=%s sslmode=disable", e.host, e.port, user, password, database)
}

// environment makes libpq and its like connect to an endpoint, and to nothing
// that the caller's own environment says.
func (e endpoint) environment(database string, more ...string) []string {
	own := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "PG") || strings.HasPrefix(v, "LC_") || strings.HasPrefix(v, "GOFLAGS=") || strings.HasPrefix(v, "GOWORK=")
	})
	own = append(own, "PGHOST="+e.host, "PGPORT="+strconv.Itoa(e.port), "PGUSER="+role, "PGDATABASE="+database, "PGSSLMODE=disable", "LC_ALL=C", "GOWORK=off")
	if !slices.ContainsFunc(more, func(v string) bool { return strings.HasPrefix(v, "PGPASSFILE=") }) {
		own = append(own, "PGPASSWORD="+e.password)
	}
	return append(own, more...)
}

// on runs statements one by one on a database of the primary, past the proxy.
func (b *bench) on(ctx context.Context, database string, statements ...string) error {
	return b.connected(ctx, database, func(ctx context.Context, conn *pgx.Conn) error {
		for _, q := range statements {
			if _, err := conn.Exec(ctx, q); err != nil {
				return fmt.Errorf("%s: %w", q, err)
			}
		}
		return nil
	})
}

// list gives the first column of a query's rows.
func (b *bench) list(ctx context.Context, query string) (out []string, err error) {
	err = b.connected(ctx, "postgres", func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, query)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return out, err
}

func (b *bench) connected(ctx context.Context, database string, do func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, b.primary.dsn(database))
	if err != nil {
		return fmt.Errorf("connect to the primary: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	return do(ctx, conn)
}

// once does something for the lab the first time it is needed.
func (b *bench) once(what string, do func() error) error {
	if b.ready[what] {
		return nil
	}
	if err := do(); err != nil {
		return fmt.Errorf("lay out %s: %w", what, err)
	}
	b.ready[what] = true
	return nil
}

// give makes a directory below the bench's own that belongs to the servers'
// account.
func (b *bench) give(parts ...string) (string, error) {
	dir := filepath.Join(append([]string{b.dir}, parts...)...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make %s: %w", dir, err)
	}
	if b.account != nil {
		if err := os.Chown(dir, int(b.account.Uid), int(b.account.Gid)); err != nil {
			return "", fmt.Errorf("give %s to the servers' account: %w", dir, err)
		}
	}
	return dir, nil
}

// command runs a program and gives what it wrote, ending it with its children
// where the context does.
func command(ctx context.Context, dir string, env []string, account *syscall.Credential, program string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, program, args...)
	c.Dir, c.Env = dir, env
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: account}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	out, err := c.CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	return out, err
}

// must is command where failing is no outcome.
func must(ctx context.Context, dir string, program string, args ...string) error {
	if out, err := command(ctx, dir, nil, nil, program, args...); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out)
	}
	return nil
}
