package lab

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/config"
)

// Up makes a lab, or starts one that is down, and returns when it serves. It
// may be run again after it was interrupted: it goes on where it was.
func Up(ctx context.Context, opt Options) (*Lab, error) {
	l, err := prepare(opt)
	if err != nil {
		return nil, err
	}
	l.say = opt.Progress
	if l.say == nil {
		l.say = func(string) {}
	}
	if err := l.up(ctx, opt); err != nil {
		return nil, errors.Join(err, l.afterFailure(ctx))
	}
	return l, nil
}

func (l *Lab) up(ctx context.Context, opt Options) error {
	if err := l.layOut(ctx); err != nil {
		return err
	}
	if err := l.connectNodes(ctx); err != nil {
		return err
	}
	for _, n := range l.state.Nodes {
		if err := l.startSSHD(ctx, n); err != nil {
			return fmt.Errorf("sshd of %s: %w", n.Name, err)
		}
	}
	cfg, err := config.Load(l.Config())
	if err != nil {
		return fmt.Errorf("read the lab's own configuration: %w", err)
	}
	if l.state.Ready {
		err = l.startNodes(ctx, cfg)
	} else {
		err = l.provision(ctx, cfg)
	}
	if err != nil {
		return err
	}
	l.state.Ready = true
	if err := l.save(); err != nil {
		return err
	}
	if opt.WithoutDaemon {
		return nil
	}
	if err := l.startProxyd(ctx, opt.Proxyd); err != nil {
		return err
	}
	return l.register()
}

// prepare finds the lab in its directory or decides how a new one looks.
func prepare(opt Options) (*Lab, error) {
	if err := opt.check(); err != nil {
		return nil, err
	}
	l, err := Open(opt.Dir)
	if err == nil {
		return l, l.fits(opt)
	}
	if !errors.Is(err, ErrNoLab) {
		return nil, err
	}
	if opt.Nodes == 0 {
		opt.Nodes = 2
	}
	l = &Lab{Dir: opt.Dir, wires: &wires{}}
	if l.Dir == "" {
		l.Dir = Default()
	}
	if l.Dir, err = filepath.Abs(l.Dir); err != nil {
		return nil, fmt.Errorf("find %s: %w", opt.Dir, err)
	}
	if len(l.Socket()) > 100 {
		return nil, fmt.Errorf("the path %s is too long for a Unix socket: choose a shorter --dir", l.Socket())
	}
	if entries, err := os.ReadDir(l.Dir); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("%w: %s is not empty and holds no lab.json: choose another --dir", ErrNotALab, l.Dir)
	}
	if l.owner, err = whoOwns(); err != nil {
		return nil, err
	}
	l.state = state{Version: stateVersion, Cluster: "lab", SwapMethod: orElse(opt.SwapMethod, "alter_system"), PoolMode: orElse(opt.PoolMode, "transaction"), Period: opt.Period, Hold: opt.HoldTimeout}
	if l.state.Period == 0 {
		l.state.Period = time.Duration(config.Default().HealthCheck.Period)
	}
	if l.state.Hold == 0 {
		l.state.Hold = 30 * time.Second
	}
	if l.state.BinDir, err = findPostgreSQL(); err != nil {
		return nil, err
	}
	if l.state.SSHD, err = findSSHD(); err != nil {
		return nil, err
	}
	if err := l.choosePorts(opt); err != nil {
		return nil, err
	}
	l.state.Network, l.state.SmallDisks, l.state.NoDamping = opt.Network, opt.SmallDisks, opt.NoDamping
	return l, l.chooseAddresses()
}

// check refuses what no lab can be.
func (o Options) check() error {
	switch {
	case o.Nodes != 0 && (o.Nodes < 2 || o.Nodes > 5):
		return fmt.Errorf("a lab has 2 to 5 nodes, not %d", o.Nodes)
	case !slices.Contains([]string{"", "files", "alter_system"}, o.SwapMethod):
		return fmt.Errorf("there is no swap method %q: files or alter_system", o.SwapMethod)
	case !slices.Contains([]string{"", "session", "transaction"}, o.PoolMode):
		return fmt.Errorf("there is no pool mode %q: session or transaction", o.PoolMode)
	case o.SmallDisks && os.Geteuid() != 0:
		return errors.New("only root can give each node a file system of its own")
	}
	return o.Network.check()
}

// fits refuses what was asked for and a lab that is there already is not.
func (l *Lab) fits(o Options) error {
	var why string
	switch {
	case o.Nodes != 0 && o.Nodes != len(l.state.Nodes):
		why = fmt.Sprintf("has %d nodes, not %d", len(l.state.Nodes), o.Nodes)
	case o.SwapMethod != "" && o.SwapMethod != l.state.SwapMethod:
		why = fmt.Sprintf("has the swap method %s, not %s", l.state.SwapMethod, o.SwapMethod)
	case o.PoolMode != "" && o.PoolMode != l.state.PoolMode:
		why = fmt.Sprintf("has the pool mode %s, not %s", l.state.PoolMode, o.PoolMode)
	case o.Network != PlainNetwork && o.Network != l.state.Network:
		why = fmt.Sprintf("has the network %q, not %q", l.state.Network, o.Network)
	case o.SmallDisks && !l.state.SmallDisks:
		why = "has no disks of the nodes' own"
	default:
		return nil
	}
	return fmt.Errorf("the lab in %s %s: remove it first with pgtandem lab destroy --dir %s, or choose another --dir", l.Dir, why, l.Dir)
}

func orElse(v, otherwise string) string {
	if v == "" {
		return otherwise
	}
	return v
}

func (l *Lab) choosePorts(opt Options) (err error) {
	var p ports
	prefer := func(port int) int {
		if opt.AnyPorts {
			return 0
		}
		return port
	}
	if l.state.ProxyPort, err = p.free(prefer(9999)); err != nil {
		return err
	}
	for i := range opt.Nodes {
		n := nodeState{Name: fmt.Sprintf("pgsql%d", i+1)}
		if n.Port, err = p.free(prefer(15432 + i)); err != nil {
			return err
		}
		if n.SSHPort, err = p.free(prefer(12200 + i)); err != nil {
			return err
		}
		l.state.Nodes = append(l.state.Nodes, n)
	}
	return nil
}

// findPostgreSQL finds the newest server programs, where Debian and others put
// them.
func findPostgreSQL() (string, error) {
	var dirs []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin"} {
		found, err := filepath.Glob(pattern + "/pg_rewind")
		if err != nil {
			return "", fmt.Errorf("look for PostgreSQL: %w", err)
		}
		dirs = append(dirs, found...)
	}
	if p, err := exec.LookPath("pg_rewind"); err == nil {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			dirs = append(dirs, real)
		}
	}
	dirs = slices.DeleteFunc(dirs, func(p string) bool {
		_, err := os.Stat(filepath.Join(filepath.Dir(p), "initdb"))
		return err != nil
	})
	if len(dirs) == 0 {
		return "", fmt.Errorf("PostgreSQL's server programs are %w: apt-get install postgresql", ErrMissing)
	}
	slices.SortFunc(dirs, func(a, b string) int { return len(a) - len(b) })
	return filepath.Dir(slices.MaxFunc(dirs, func(a, b string) int { return versionOf(a) - versionOf(b) })), nil
}

// versionOf takes the major version from a path such as
// /usr/lib/postgresql/15/bin; 0 when there is none.
func versionOf(p string) (v int) {
	for _, part := range filepath.SplitList(filepath.ToSlash(p)) {
		for _, word := range splitPath(part) {
			var n int
			if _, err := fmt.Sscanf(word, "%d", &n); err == nil && n < 100 {
				v = n
			}
			if _, err := fmt.Sscanf(word, "pgsql-%d", &n); err == nil {
				v = n
			}
		}
	}
	return v
}

func splitPath(p string) (words []string) {
	for p != "/" && p != "." && p != "" {
		words = append(words, filepath.Base(p))
		p = filepath.Dir(p)
	}
	return words
}

func findSSHD() (string, error) {
	for _, p := range []string{"/usr/sbin/sshd", "/usr/local/sbin/sshd"} {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	p, err := exec.LookPath("sshd")
	if err != nil {
		return "", fmt.Errorf("sshd is %w: apt-get install openssh-server", ErrMissing)
	}
	return p, nil
}

// layOut makes the directories, keys, secrets and configuration that are not
// there yet.
func (l *Lab) layOut(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(l.Dir), 0o755); err != nil {
		return fmt.Errorf("make %s: %w", l.Dir, err)
	}
	if err := l.mkdir(0o755); err != nil {
		return err
	}
	if err := l.save(); err != nil {
		return err
	}
	for _, d := range []string{"run", "state", "log", "secrets", "ssh"} {
		mode := fs.FileMode(0o700)
		if d == "run" || d == "log" {
			mode = 0o755
		}
		if err := l.mkdir(mode, d); err != nil {
			return err
		}
	}
	for _, n := range l.state.Nodes {
		if err := l.mkdir(0o700, n.Name); err != nil {
			return err
		}
		if err := l.mountDisk(n); err != nil {
			return err
		}
		if err := l.mkdir(0o700, n.Name, "socket"); err != nil {
			return err
		}
	}
	for _, role := range []string{"postgres", "replication"} {
		if err := l.secret(role); err != nil {
			return err
		}
	}
	if err := l.write("secrets/"+User, []byte(Password+"\n"), 0o600); err != nil {
		return err
	}
	if err := l.keys(ctx); err != nil {
		return err
	}
	return l.writeConfig()
}

// secret makes a password once and keeps it.
func (l *Lab) secret(role string) error {
	if _, err := os.Stat(l.path("secrets", role)); err == nil {
		return nil
	}
	b := make([]byte, 24)
	if _, err := rand.Read(b); err != nil {
		return fmt.Errorf("make a password: %w", err)
	}
	return l.write("secrets/"+role, []byte(base64.RawURLEncoding.EncodeToString(b)+"\n"), 0o600)
}

// writeConfig writes the lab's pgtandem.toml as a person would.
func (l *Lab) writeConfig() error {
	q := func(v string) string { b, _ := json.Marshal(v); return string(b) } // a JSON string is a TOML basic string
	source := ""
	if a := l.daemonAddress(); a != loopback {
		source = "\nsource_address = " + q(a)
	}
	t := fmt.Sprintf(`# The configuration of a lab: made by "pgtandem lab up", written anew by it.

[cluster]
name = %s
lab = true

[proxy]
listen_addresses = ["127.0.0.1"]
port = %d%s
pool_mode = %s
hold_timeout = %s

[control]
socket = %s

[state]
directory = %s

[health_check]
period = %s
user = "postgres"
password_file = %s

[replication]
user = "replication"
password_file = %s

[sync]
swap_method = %s

[ssh]
user = %s
key_file = %s
known_hosts = %s

[drill]
database = %s
user = %s
password_file = %s
`, q(l.state.Cluster), l.state.ProxyPort, source, q(l.state.PoolMode), q(l.state.Hold.String()), q(l.Socket()), q(l.path("state")), q(l.state.Period.String()),
		q(l.path("secrets", "postgres")), q(l.path("secrets", "replication")), q(l.state.SwapMethod), q(l.owner.name),
		q(l.path("ssh", "id_ed25519")), q(l.path("ssh", "known_hosts")), q(Database), q(User), q(l.path("secrets", User)))
	if l.state.NoDamping {
		t += "\n[failover]\ndamping = \"0s\"\n"
	}
	for _, n := range l.state.Nodes {
		t += fmt.Sprintf(`
[[node]]
name = %s
host = %s
port = %d
data_directory = %s
archive_directory = %s
bin_directory = %s
log_file = %s
os_user = %s
ssh_port = %d
`, q(n.Name), q(n.host()), n.Port, q(l.path(n.Name, "data")), q(l.path(n.Name, "archive")), q(l.state.BinDir), q(l.path(n.Name, "postgresql.log")), q(l.owner.name), n.SSHPort)
		if l.state.Network.relayed() {
			t += fmt.Sprintf("replication_address = %s\n", q(l.daemonAddress()))
		}
	}
	return l.write("pgtandem.toml", []byte(t), 0o644)
}
