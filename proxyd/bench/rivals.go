package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// rival is another proxy, started here with a configuration of its own.
type rival struct {
	target *target
	cmd    *exec.Cmd
	dir    scratch
	ended  chan struct{}
	output *bytes.Buffer // to be read only after ended
}

type rivals []*rival

// recipe says how a rival is configured and started.
type recipe struct {
	name    string
	program string
	files   func(l *lab, primary *target, port int, dir string) map[string]string
	args    func(dir string) []string

	prepared string // as in target
}

var recipes = []recipe{
	{"pgbouncer", "pgbouncer", pgbouncerFiles, func(dir string) []string {
		return []string{filepath.Join(dir, "pgbouncer.ini")}
	}, bySession},
	{"pgpool-II", "pgpool", pgpoolFiles, func(dir string) []string {
		return []string{"-n", "-f", filepath.Join(dir, "pgpool.conf"), "-F", filepath.Join(dir, "pcp.conf"), "-a", filepath.Join(dir, "pool_hba.conf")}
	}, ""},
}

// startRivals starts those that are installed, and says of the others why not.
func startRivals(ctx context.Context, l *lab) (started rivals, why []string) {
	for _, r := range recipes {
		program, err := lookup(r.program)
		if err != nil {
			why = append(why, fmt.Sprintf("%s is not installed and is left out", r.name))
			continue
		}
		one, err := r.start(ctx, l, program)
		if err != nil {
			why = append(why, fmt.Sprintf("%s is left out: %v", r.name, err))
			continue
		}
		started = append(started, one)
	}
	return started, why
}

// lookup finds a daemon, which an ordinary user's PATH need not lead to.
func lookup(program string) (string, error) {
	if p, err := exec.LookPath(program); err == nil {
		return p, nil
	}
	return exec.LookPath(filepath.Join("/usr/sbin", program))
}

func (r recipe) start(ctx context.Context, l *lab, program string) (*rival, error) {
	targets, err := l.targets(ctx)
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	account, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := newScratch(r.program)
	if err != nil {
		return nil, err
	}
	one := &rival{target: &target{name: r.name, host: "127.0.0.1", port: port, prepared: r.prepared}, dir: dir, ended: make(chan struct{}), output: &bytes.Buffer{}}
	if err := writeFiles(dir.path, r.files(l, targets[0], port, dir.path), account); err != nil {
		return nil, errors.Join(err, dir.remove())
	}
	one.cmd = exec.Command(program, r.args(dir.path)...)
	one.cmd.Dir = dir.path
	one.cmd.Stdout, one.cmd.Stderr = one.output, one.output
	// A session of its own, as a service has it, and proxyd in the lab: the
	// kernel may share processors between sessions.
	one.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account, Setsid: true}
	if err := one.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", program, err), dir.remove())
	}
	go func() {
		_ = one.cmd.Wait() // how it ended is in its output
		close(one.ended)
	}()
	one.target.pid = one.cmd.Process.Pid
	if err := one.ready(ctx, l); err != nil {
		one.stop()
		return nil, fmt.Errorf("%w\n%s", err, strings.TrimSpace(one.output.String()))
	}
	return one, nil
}

// ready waits until a query is answered through it.
func (r *rival) ready(ctx context.Context, l *lab) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		_, err := l.isPrimary(ctx, r.target)
		if err == nil {
			return nil
		}
		select {
		case <-r.ended:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// stop ends the process by its id, by force where it does not go.
func (r *rival) stop() {
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		_ = r.cmd.Process.Signal(sig) // fails only when it has ended
		select {
		case <-r.ended:
			if err := r.dir.remove(); err != nil {
				progress("%v", err)
			}
			return
		case <-time.After(5 * time.Second):
		}
	}
}

func (rs rivals) stop() {
	for _, r := range rs {
		r.stop()
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// unprivileged gives the account the rivals run as: postgres where we are
// root, which both refuse to be, and otherwise ours, as nil.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("as root the rivals run as postgres: %w", err)
	}
	uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
	gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(errUID, errGID)
}

func writeFiles(dir string, files map[string]string, account *syscall.Credential) error {
	own := func(path string) error {
		if account == nil {
			return nil
		}
		return os.Chown(path, int(account.Uid), int(account.Gid))
	}
	if err := own(dir); err != nil {
		return fmt.Errorf("give %s to its account: %w", dir, err)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("write the configuration: %w", err)
		}
		if err := own(path); err != nil {
			return fmt.Errorf("give %s to its account: %w", path, err)
		}
	}
	return nil
}

// bySession is PgBouncer's database for named statements: before 1.21 it knows
// them in session mode alone, which spares it their bookkeeping.
const bySession = "by_session"

func pgbouncerFiles(l *lab, primary *target, port int, dir string) map[string]string {
	return map[string]string{
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
			"max_client_conn = 1000",
			// What one load has opened must not take the next one's places on
			// the server, which has 100.
			"server_idle_timeout = 2",
			"log_connections = 0",
			"log_disconnections = 0",
		),
		"userlist.txt": lines(fmt.Sprintf(`"%s" "%s"`, l.User, l.Password)),
	}
}

// pgpoolFiles is the seed's setting as far as it bears on speed: streaming
// replication, a process for each client; all reads go to the primary, as they
// do everywhere else in this comparison, unless they are balanced.
func pgpoolFiles(l *lab, primary *target, port int, dir string) map[string]string {
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

func lines(l ...string) string { return strings.Join(l, "\n") + "\n" }
