package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgtandem/pgtandem/engine/lab/procs"
)

// Down stops everything, proxyd first so that it sees no failure, and then the
// primary before its standbys so that they have all it wrote. What is stored
// stays.
func (l *Lab) Down(ctx context.Context) error {
	var errs []error
	for _, n := range l.daemons() {
		_ = syscall.Kill(n, syscall.SIGCONT) // it may be frozen, and could not end
		errs = append(errs, end(ctx, n, 10*time.Second))
	}
	for _, standby := range []bool{false, true} {
		for _, n := range l.state.Nodes {
			_, err := os.Stat(l.path(n.Name, "data", "standby.signal"))
			if (err == nil) == standby {
				errs = append(errs, l.stopNode(ctx, n))
			}
		}
	}
	for _, n := range l.state.Nodes {
		if p, up := l.sshdPID(n); up {
			_ = syscall.Kill(p, syscall.SIGCONT) // it may be frozen, and could not end
			errs = append(errs, end(ctx, p, 5*time.Second))
		}
	}
	errs = append(errs, l.disconnect(ctx), l.unregister())
	return errors.Join(errs...)
}

// daemons are the processes that run on the lab's configuration. The pid file
// knows one of them; another may have been started while that one was ending.
func (l *Lab) daemons() (pids []int) {
	if n, up := l.proxydPID(); up {
		pids = append(pids, n)
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return pids // the pattern is a constant
	}
	for _, f := range lines {
		text, err := os.ReadFile(f)
		if err != nil || !slices.Contains(strings.Split(string(text), "\x00"), l.Config()) || !strings.Contains(string(text), "proxyd\x00") {
			continue
		}
		if p, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil && !slices.Contains(pids, p) {
			pids = append(pids, p)
		}
	}
	return pids
}

func (l *Lab) postmasterPID(n nodeState) (int, bool) {
	return pid(l.path(n.Name, "data", "postmaster.pid"), "postgres")
}

// stopNode stops a server without ssh: a lab can be taken down whatever state
// it is in. SIGINT is PostgreSQL's fast shutdown, SIGQUIT its immediate one
// (PostgreSQL docs, 19.5).
func (l *Lab) stopNode(ctx context.Context, n nodeState) error {
	p, up := l.postmasterPID(n)
	if !up {
		// What a killed postmaster left may be frozen, and would stay for ever.
		l.signalServers(n, syscall.SIGKILL)
		return nil
	}
	l.signalServers(n, syscall.SIGCONT) // what is frozen cannot end
	if err := syscall.Kill(p, syscall.SIGINT); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop %s: %w", n.Name, err)
	}
	bounded, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := gone(bounded, p); err == nil {
		return nil
	}
	if err := syscall.Kill(p, syscall.SIGQUIT); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop %s: %w", n.Name, err)
	}
	last, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return gone(last, p)
}

// signalServers sends a signal to every server process that works in a node's
// data directory: the postmaster, and children that may have outlived it; and to
// what they have started, such as an archive command, which may have outlived
// them. Whoever else looks at the data there has a parent of their own.
func (l *Lab) signalServers(n nodeState, sig syscall.Signal) {
	all, err := procs.All()
	if err != nil {
		return // what runs is not known
	}
	known := map[int]bool{}
	for _, p := range all {
		if p.Cwd == l.path(n.Name, "data") && (p.Name == "postgres" || p.Parent == 1) {
			known[p.PID] = true
		}
	}
	procs.Descendants(all, known)
	for pid := range known {
		_ = syscall.Kill(pid, sig) // it may have ended meanwhile
	}
}

// Destroy takes the lab down and removes its directory.
func (l *Lab) Destroy(ctx context.Context) error {
	if err := l.Down(ctx); err != nil {
		return fmt.Errorf("the lab was not removed, because something in it does not stop: %w", err)
	}
	for _, n := range l.state.Nodes {
		if err := l.unmountDisk(n); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(l.Dir); err != nil {
		return fmt.Errorf("remove %s: %w", l.Dir, err)
	}
	return nil
}

// Status is a lab as its JSON shows it.
type Status struct {
	Dir       string       `json:"dir"`
	Cluster   string       `json:"cluster"`
	Config    string       `json:"config"`
	Socket    string       `json:"socket"`
	Proxy     Endpoint     `json:"proxy"`
	Database  string       `json:"database"`
	User      string       `json:"user"`
	Password  string       `json:"password"`
	Nodes     []NodeStatus `json:"nodes"`
	ProxydPID int          `json:"proxyd_pid"` // 0 when it does not run
}

// Endpoint is where clients connect.
type Endpoint struct {
	Host string `json:"host"`
	Port int    `json:"port"`
}

// NodeStatus is one node of a lab.
type NodeStatus struct {
	Name          string `json:"name"`
	Host          string `json:"host"`
	Port          int    `json:"port"`
	SSHPort       int    `json:"ssh_port"`
	DataDirectory string `json:"data_directory"`
	BinDirectory  string `json:"bin_directory"`
	OSUser        string `json:"os_user"`
	PID           int    `json:"pid"` // of the postmaster, 0 when it does not run
}

// Status looks at the lab's processes.
func (l *Lab) Status() Status {
	s := Status{Dir: l.Dir, Cluster: l.state.Cluster, Config: l.Config(), Socket: l.Socket(), Proxy: Endpoint{"127.0.0.1", l.state.ProxyPort},
		Database: Database, User: User, Password: Password}
	s.ProxydPID, _ = l.proxydPID()
	for _, n := range l.state.Nodes {
		ns := NodeStatus{Name: n.Name, Host: n.host(), Port: n.Port, SSHPort: n.SSHPort, DataDirectory: l.path(n.Name, "data"),
			BinDirectory: l.state.BinDir, OSUser: l.owner.name}
		ns.PID, _ = l.postmasterPID(n)
		s.Nodes = append(s.Nodes, ns)
	}
	return s
}
