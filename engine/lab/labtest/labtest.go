// Package labtest gives tests a lab of their own: brought up in a temporary
// directory, ended by pid when the test ends. A machine that cannot run one
// makes the test fail, never skip.
package labtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine/assemble"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/lab"
)

// Lab is a lab that belongs to one test.
type Lab struct {
	*lab.Lab
	t        testing.TB
	machines *assemble.MachineSet
}

// Up brings a lab up. Its options' directory is chosen here.
func Up(t testing.TB, opt lab.Options) *Lab {
	t.Helper()
	// Not t.TempDir(): the servers run as another account, which must be able
	// to reach the directory, and a Unix socket's path is short.
	dir, err := os.MkdirTemp("", "pgt")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGTANDEM_LABS", filepath.Join(dir, "labs"))
	opt.Dir, opt.AnyPorts = filepath.Join(dir, "lab"), true
	if opt.Progress == nil {
		opt.Progress = func(line string) { t.Log(line) }
	}
	if !opt.WithoutDaemon && opt.Proxyd == "" {
		opt.Proxyd = filepath.Join(Programs(t), "proxyd")
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if l, err := lab.Open(opt.Dir); err == nil {
			if t.Failed() {
				if log, err := os.ReadFile(filepath.Join(opt.Dir, "log", "proxyd.log")); err == nil {
					t.Logf("proxyd's log:\n%s", tail(log, 12_000))
				}
			}
			if err := l.Destroy(ctx); err != nil {
				t.Errorf("end the lab: %v", err)
			}
		}
		_ = os.RemoveAll(dir) // what is left of it is in the temporary directory
	})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	up, err := lab.Up(ctx, opt)
	if err != nil {
		t.Fatalf("bring a lab up: %v", err)
	}
	l := &Lab{Lab: up, t: t, machines: assemble.Machines(Config(t, up))}
	t.Cleanup(func() { _ = l.machines.Close() }) // its end is the test's end
	return l
}

func tail(b []byte, n int) []byte {
	if len(b) > n {
		return b[len(b)-n:]
	}
	return b
}

// Config reads a lab's configuration.
func Config(t testing.TB, l *lab.Lab) *config.Config {
	t.Helper()
	c, err := config.Load(l.Config())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// StopNode stops a server over ssh: immediate, fast or smart.
func (l *Lab) StopNode(node, mode string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := l.machines.Hosts[cluster.NodeID(node)].Stop(ctx, mode); err != nil {
		l.t.Fatalf("stop %s: %v", node, err)
	}
}

// StartNode starts a server over ssh.
func (l *Lab) StartNode(node string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := l.machines.Hosts[cluster.NodeID(node)].Start(ctx); err != nil {
		l.t.Fatalf("start %s: %v", node, err)
	}
}

// SQL opens a superuser's connection to a node, past the proxy.
func (l *Lab) SQL(node, database string) *pgx.Conn {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := l.Connect(ctx, node, database)
	if err != nil {
		l.t.Fatalf("connect to %s: %v", node, err)
	}
	l.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Close(ctx) // the server may be gone
	})
	return c
}

var build struct {
	once sync.Once
	dir  string
	err  error
	out  []byte
}

// Programs builds proxyd and pgtandem once for a test binary and gives the
// directory they are in. It is outside the module, where other accounts can
// read it.
func Programs(t testing.TB) string {
	t.Helper()
	build.once.Do(func() {
		removeOrphans()
		if build.dir, build.err = os.MkdirTemp("", fmt.Sprintf("%s%d-", programsPrefix, os.Getpid())); build.err != nil {
			return
		}
		if build.err = os.Chmod(build.dir, 0o755); build.err != nil {
			return
		}
		for name, pkg := range map[string]string{"proxyd": "proxyd", "pgtandem": "tui"} {
			c := exec.Command("go", "build", "-buildvcs=false", "-o", filepath.Join(build.dir, name), "./"+pkg)
			c.Dir = root()
			if build.out, build.err = c.CombinedOutput(); build.err != nil {
				return
			}
		}
	})
	if build.err != nil {
		t.Fatalf("build the programs: %v\n%s", build.err, build.out)
	}
	return build.dir
}

// programsPrefix begins the names of the directories of built programs; the
// pid of the test binary follows.
const programsPrefix = "pgtbin-"

// removeOrphans removes what test binaries that have ended left: a binary has
// no moment of its own to do so after its last test.
func removeOrphans() {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), programsPrefix+"*"))
	if err != nil {
		return // the pattern is a constant
	}
	for _, d := range dirs {
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(d), programsPrefix+"%d-", &pid); err != nil || pid <= 0 {
			continue
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); os.IsNotExist(err) {
			_ = os.RemoveAll(d) // the next run tries again
		}
	}
}

// root is the module's directory.
func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}
