// Package hosttest runs real PostgreSQL on this machine for tests, as the
// unprivileged account that servers insist on, with no ssh in between.
package hosttest

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
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/execute"
)

// Account is who runs servers: postgres for root, else whoever runs the tests.
type Account struct {
	Name     string
	UID, GID int
	root     bool
}

// Owner finds the account.
func Owner(t testing.TB) Account {
	t.Helper()
	find := user.Current
	root := os.Getuid() == 0
	if root {
		find = func() (*user.User, error) { return user.Lookup("postgres") }
	}
	u, err := find()
	if err != nil {
		t.Fatalf("find the account for servers: %v", err)
	}
	uid, errUID := strconv.Atoi(u.Uid)
	gid, errGID := strconv.Atoi(u.Gid)
	if err := errors.Join(errUID, errGID); err != nil {
		t.Fatal(err)
	}
	return Account{Name: u.Username, UID: uid, GID: gid, root: root}
}

// Dir makes a directory that the account can use; t.TempDir is not, below
// root's own.
func (a Account) Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "pgtandem-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chown(dir, a.UID, a.GID); err != nil {
		t.Fatal(err)
	}
	return dir
}

// SysProcAttr makes a child process the account's.
func (a Account) SysProcAttr() *syscall.SysProcAttr {
	if !a.root {
		return &syscall.SysProcAttr{}
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(a.UID), Gid: uint32(a.GID)}}
}

// BinDir finds the newest server programs.
func BinDir(t testing.TB) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		p, err := exec.LookPath("initdb")
		if err != nil {
			t.Fatal("PostgreSQL's server programs are not found: install the postgresql package")
		}
		return filepath.Dir(p)
	}
	return filepath.Dir(found[len(found)-1])
}

// FreePort finds a port that nobody listens on.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Local runs commands on this machine as the account. The zero Before runs
// everything; otherwise it may refuse a command by its words.
type Local struct {
	As     Account
	Before func(argv []string) error
}

// Run is execute.Host's.
func (l Local) Run(ctx context.Context, c execute.Command) (execute.Result, error) {
	if l.Before != nil {
		if err := l.Before(c.Argv); err != nil {
			return execute.Result{}, err
		}
	}
	argv := c.Argv
	if c.Stdin != nil {
		// A pipe of the account's own, as sshd makes it: another's cannot be
		// opened by the name /dev/stdin.
		argv = append([]string{"sh", "-c", `cat | "$@"`, "sh"}, argv...)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdin, cmd.WaitDelay = "/", c.Stdin, time.Second
	cmd.SysProcAttr = l.As.SysProcAttr()
	cmd.Env = append(os.Environ(), "HOME=/tmp", "USER="+l.As.Name)
	var one sync.Mutex // lines of both streams come one at a time
	out, errs := &tee{emit: c.Lines, mu: &one}, &tee{emit: c.Lines, mu: &one}
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Start(); err != nil {
		return execute.Result{}, fmt.Errorf("%w: %w", execute.ErrUnreachable, err)
	}
	err := cmd.Wait()
	out.close()
	errs.close()
	res := execute.Result{Stdout: out.all.Bytes(), Stderr: errs.all.Bytes(), Exit: cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		return res, fmt.Errorf("%w: %w", execute.ErrUnknown, err)
	}
	return res, nil
}

// tee keeps what is written and hands on its lines.
type tee struct {
	emit func(string)
	mu   *sync.Mutex
	all  bytes.Buffer
	rest string
}

func (t *tee) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all.Write(p)
	if t.emit == nil {
		return len(p), nil
	}
	t.rest += strings.ReplaceAll(string(p), "\r", "\n")
	for {
		line, rest, ok := strings.Cut(t.rest, "\n")
		if !ok {
			return len(p), nil
		}
		if t.rest = rest; line != "" {
			t.emit(line)
		}
	}
}

func (t *tee) close() {
	if t.emit != nil && t.rest != "" {
		t.emit(t.rest)
	}
}
