package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// recipe says how a rival is configured and started.
type recipe struct {
	name    string
	program string
	files   func(b *bench, s setup, port int, dir string) map[string]string
	args    func(dir string) []string

	prepared string // as in target
}

const (
	pgbouncer = "pgbouncer"
	pgpool    = "pgpool-II"
	haproxy   = "haproxy"
)

var recipes = []recipe{
	{pgbouncer, "pgbouncer", pgbouncerFiles, func(dir string) []string {
		return []string{filepath.Join(dir, "pgbouncer.ini")}
	}, bySession},
	{pgpool, "pgpool", pgpoolFiles, func(dir string) []string {
		return []string{"-n", "-f", filepath.Join(dir, "pgpool.conf"), "-F", filepath.Join(dir, "pcp.conf"), "-a", filepath.Join(dir, "pool_hba.conf")}
	}, ""},
	{haproxy, "haproxy", haproxyFiles, func(dir string) []string {
		return []string{"-db", "-f", filepath.Join(dir, "haproxy.cfg")}
	}, ""},
}

// start starts the rival where it is installed.
func (r recipe) start(ctx context.Context, b *bench, s setup) (*daemon, error) {
	program, err := lookup(r.program)
	if err != nil {
		return nil, errors.New("it is not installed")
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	t := target{name: r.name, host: "127.0.0.1", port: port, prepared: r.prepared}
	return startDaemon(ctx, b.lab, t, program, r.args, func(dir string) map[string]string { return r.files(b, s, port, dir) })
}

// lookup finds a daemon, which an ordinary user's PATH need not lead to.
func lookup(program string) (string, error) {
	if p, err := exec.LookPath(program); err == nil {
		return p, nil
	}
	return exec.LookPath(filepath.Join("/usr/sbin", program))
}

// bySession is PgBouncer's database for named statements: before 1.21 it knows
// them in session mode alone, which spares it their bookkeeping.
const bySession = "by_session"

func pgbouncerFiles(b *bench, s setup, port int, dir string) map[string]string {
	l, primary := b.lab, b.primary
	files := map[string]string{
		"pgbouncer.ini": lines(
			"[databases]",
			fmt.Sprintf("%s = host=%s port=%d", l.Database, primary.host, primary.port),
			fmt.Sprintf("%s = host=%s port=%d dbname=%s pool_mode=session pool_size=100", bySession, primary.host, primary.port, l.Database),
			"[pgbouncer]",
			"listen_addr = 127.0.0.1",
			fmt.Sprintf("listen_port = %d", port),
			"unix_socket_dir =",
			"auth_type = scram-sha-256",
			"auth_file = "+filepath.Join(dir, "userlist.txt"),
			"pool_mode = transaction",
			"default_pool_size = 20",
			fmt.Sprintf("max_client_conn = %d", max(1000, s.clients)),
			// What one load has opened must not take the next one's places on
			// the server, which has 100.
			"server_idle_timeout = 2",
			"log_connections = 0",
			"log_disconnections = 0",
		),
		"userlist.txt": lines(fmt.Sprintf(`"%s" "%s"`, l.User, b.verifier)),
	}
	if s.tls != nil {
		files["pgbouncer.ini"] += lines("client_tls_sslmode = allow", "client_tls_cert_file = "+filepath.Join(dir, "cert.pem"), "client_tls_key_file = "+filepath.Join(dir, "key.pem"))
		files["cert.pem"], files["key.pem"] = s.tls.cert, s.tls.key
	}
	return files
}

// pgpoolFiles is the seed's setting as far as it bears on speed: streaming
// replication, a process for each client; all reads go to the primary, as they
// do everywhere else in this comparison, unless they are balanced.
func pgpoolFiles(b *bench, _ setup, port int, dir string) map[string]string {
	l, primary := b.lab, b.primary
	return map[string]string{
		"pgpool.conf": lines(
			"backend_clustering_mode = 'streaming_replication'",
			"listen_addresses = '127.0.0.1'",
			fmt.Sprintf("port = %d", port),
			fmt.Sprintf("unix_socket_directories = '%s'", dir),
			fmt.Sprintf("socket_dir = '%s'", dir),
			"pcp_listen_addresses = ''",
			fmt.Sprintf("pcp_socket_dir = '%s'", dir),
			fmt.Sprintf("pcp_port = %d", port),
			fmt.Sprintf("pid_file_name = '%s'", filepath.Join(dir, "pgpool.pid")),
			fmt.Sprintf("logdir = '%s'", dir),
			fmt.Sprintf("backend_hostname0 = '%s'", primary.host),
			fmt.Sprintf("backend_port0 = %d", primary.port),
			"backend_weight0 = 1",
			"backend_flag0 = 'ALWAYS_PRIMARY|DISALLOW_TO_FAILOVER'",
			"num_init_children = 80",
			"max_pool = 1",
			l.pgpoolBalance(dir),
			"enable_pool_hba = on",
			"pool_passwd = 'pool_passwd'",
			"sr_check_period = 0",
			"health_check_period = 0",
			"use_watchdog = off",
			"memory_cache_enabled = off",
		),
		"pool_hba.conf": lines("host all all 127.0.0.1/32 scram-sha-256"),
		"pool_passwd":   lines(fmt.Sprintf("%s:TEXT%s", l.User, l.Password)),
		"pcp.conf":      "",
	}
}

// haproxyFiles has it carry bytes and look at none of them, as fast as it can.
func haproxyFiles(b *bench, s setup, port int, _ string) map[string]string {
	return map[string]string{
		"haproxy.cfg": lines(
			"global",
			fmt.Sprintf("    maxconn %d", max(1000, s.clients)),
			"defaults",
			"    mode tcp",
			"    timeout connect 5s",
			"    timeout client 1h",
			"    timeout server 1h",
			"listen postgresql",
			fmt.Sprintf("    bind 127.0.0.1:%d", port),
			fmt.Sprintf("    server primary %s:%d", b.primary.host, b.primary.port),
		),
	}
}

func lines(l ...string) string { return strings.Join(l, "\n") + "\n" }
