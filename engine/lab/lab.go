// Package lab is a real cluster on this machine: PostgreSQL servers, an sshd
// for each, and proxyd, all as an unprivileged user, made by the same
// provisioning plan that sets up real hosts.
//
// It owns its directory and the processes it started, and touches nothing else.
package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"github.com/google/renameio/v2"
)

// Errors, by what the caller may do.
var (
	// ErrNoLab: there is no lab in that directory.
	ErrNoLab = errors.New("there is no lab")
	// ErrNotALab: the directory holds something else, which is not touched.
	ErrNotALab = errors.New("the directory is not a lab's")
	// ErrMissing: a program that the lab needs is not installed.
	ErrMissing = errors.New("not installed")
)

// The sample of the recipe.
const (
	Database = "test1"
	User     = "test1"
	Password = "test1"
)

// Options are what a lab is made with.
type Options struct {
	Dir        string // Default() when empty
	Nodes      int    // 2 to 5
	SwapMethod string // files, alter_system
	PoolMode   string // session, transaction
	// WithoutDaemon leaves proxyd out: servers and ssh only.
	WithoutDaemon bool
	// Proxyd is the daemon's program; beside our own when empty.
	Proxyd string
	// Period is the health check's; the default of the configuration when zero.
	Period time.Duration
	// AnyPorts takes none of the preferred ports: several labs that are made at
	// the same moment would take them from each other.
	AnyPorts bool
	// HoldTimeout is how long clients wait at the closed gate; the product's
	// default when zero.
	HoldTimeout time.Duration
	// Network is how the nodes and proxyd reach each other; PlainNetwork when
	// empty.
	Network Network
	// SmallDisks puts each node on a file system of its own, in memory, which
	// can be filled. It needs root.
	SmallDisks bool
	// NoDamping keeps the engine from growing careful after each failover:
	// where failovers are made on purpose, each shall be dealt with as the
	// first.
	NoDamping bool
	Progress  func(line string)
}

// Lab is one lab, running or not.
type Lab struct {
	Dir   string
	state state
	owner owner
	say   func(string)
	wires *wires
}

// state is what is kept in lab.json.
type state struct {
	Version    int
	Cluster    string
	ProxyPort  int
	SwapMethod string
	PoolMode   string
	Period     time.Duration
	Hold       time.Duration
	BinDir     string
	SSHD       string
	Nodes      []nodeState
	Ready      bool // provisioning has ended once

	Network    Network `json:",omitempty"`
	Subnet     int     `json:",omitempty"` // of the network's addresses
	SmallDisks bool    `json:",omitempty"`
	NoDamping  bool    `json:",omitempty"`
}

type nodeState struct {
	Name    string
	Port    int
	SSHPort int
	// Host is where others reach it, Listen where it listens; the loopback
	// when empty.
	Host   string `json:",omitempty"`
	Listen string `json:",omitempty"`
}

const loopback = "127.0.0.1"

func (n nodeState) host() string { return orElse(n.Host, loopback) }

func (n nodeState) listen() string { return orElse(n.Listen, loopback) }

const stateVersion = 1

// owner is the unprivileged account that everything runs as.
type owner struct {
	name     string
	uid, gid uint32
	drop     bool // we are root and must become it
}

// whoOwns is the present user, or postgres for root.
func whoOwns() (owner, error) {
	if os.Geteuid() != 0 {
		u, err := user.Current()
		if err != nil {
			return owner{}, fmt.Errorf("find out who we are: %w", err)
		}
		return ownerOf(u, false)
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return owner{}, fmt.Errorf("PostgreSQL does not run as root, and there is no account %q: %w; install PostgreSQL's server package", "postgres", err)
	}
	return ownerOf(u, true)
}

func ownerOf(u *user.User, drop bool) (owner, error) {
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return owner{}, fmt.Errorf("read the uid of %s: %w", u.Username, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return owner{}, fmt.Errorf("read the gid of %s: %w", u.Username, err)
	}
	return owner{u.Username, uint32(uid), uint32(gid), drop}, nil
}

// Default is the directory of a lab that is given none: one that the
// unprivileged account can reach.
func Default() string {
	if os.Geteuid() == 0 {
		return "/var/lib/pgtandem-lab"
	}
	if d := os.Getenv("XDG_DATA_HOME"); d != "" {
		return filepath.Join(d, "pgtandem", "lab")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return filepath.Join(os.TempDir(), fmt.Sprintf("pgtandem-lab-%d", os.Getuid()))
	}
	return filepath.Join(home, ".local", "share", "pgtandem", "lab")
}

func (l *Lab) path(parts ...string) string {
	return filepath.Join(append([]string{l.Dir}, parts...)...)
}

// Config is the path of the lab's configuration.
func (l *Lab) Config() string { return l.path("pgtandem.toml") }

// Socket is the control socket's path.
func (l *Lab) Socket() string { return l.path("run", "proxyd.sock") }

// Open finds the lab in a directory.
func Open(dir string) (*Lab, error) {
	if dir == "" {
		dir = Default()
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", dir, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "lab.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s: make one with: pgtandem lab up --dir %s", ErrNoLab, dir, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open the lab: %w", err)
	}
	l := &Lab{Dir: dir, say: func(string) {}, wires: &wires{}}
	if err := json.Unmarshal(b, &l.state); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNotALab, filepath.Join(dir, "lab.json"), err)
	}
	if l.state.Version != stateVersion {
		return nil, fmt.Errorf("%w: version %d, this program knows %d: destroy it with the program that made it", ErrNotALab, l.state.Version, stateVersion)
	}
	l.owner, err = whoOwns()
	return l, err
}

// save writes lab.json, which makes the directory a lab.
func (l *Lab) save() error {
	b, err := json.MarshalIndent(l.state, "", "  ")
	if err != nil {
		return fmt.Errorf("write the lab's state: %w", err)
	}
	return l.write("lab.json", b, 0o644)
}

// write makes a file of the owner's.
func (l *Lab) write(name string, data []byte, mode fs.FileMode) error {
	p := l.path(name)
	if err := renameio.WriteFile(p, data, mode, renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("write %s: %w", p, err)
	}
	return l.own(p)
}

// mkdir makes a directory of the owner's.
func (l *Lab) mkdir(mode fs.FileMode, parts ...string) error {
	p := l.path(parts...)
	if err := os.MkdirAll(p, mode); err != nil {
		return fmt.Errorf("make %s: %w", p, err)
	}
	if err := os.Chmod(p, mode); err != nil {
		return fmt.Errorf("make %s: %w", p, err)
	}
	return l.own(p)
}

func (l *Lab) own(p string) error {
	if !l.owner.drop {
		return nil
	}
	if err := os.Chown(p, int(l.owner.uid), int(l.owner.gid)); err != nil {
		return fmt.Errorf("give %s to %s: %w", p, l.owner.name, err)
	}
	return nil
}
