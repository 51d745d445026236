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

// daemon is a proxy that was started here with a configuration of its own.
type daemon struct {
	target *target
	cmd    *exec.Cmd
	dir    scratch
	ended  chan struct{}
	output *bytes.Buffer // to be read only after ended
}

// startDaemon starts a program with files in a directory of its own, and
// returns when a query is answered through it.
func startDaemon(ctx context.Context, l *lab, t target, program string, args func(dir string) []string, files func(dir string) map[string]string) (*daemon, error) {
	account, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := newScratch(filepath.Base(program))
	if err != nil {
		return nil, err
	}
	d := &daemon{target: &t, dir: dir, ended: make(chan struct{}), output: &bytes.Buffer{}}
	if err := writeFiles(dir.path, files(dir.path), account); err != nil {
		return nil, errors.Join(err, dir.remove())
	}
	d.cmd = exec.Command(program, args(dir.path)...)
	d.cmd.Dir = dir.path
	d.cmd.Stdout, d.cmd.Stderr = d.output, d.output
	// A session of its own, as a service has it, and proxyd in the lab: the
	// kernel may share processors between sessions.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account, Setsid: true}
	if err := d.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", program, err), dir.remove())
	}
	go func() {
		_ = d.cmd.Wait() // how it ended is in its output
		close(d.ended)
	}()
	d.target.pid = d.cmd.Process.Pid
	if err := d.ready(ctx, l); err != nil {
		d.stop()
		return nil, fmt.Errorf("%w\n%s", err, strings.TrimSpace(d.output.String()))
	}
	return d, nil
}

// ready waits until a query is answered through it.
func (d *daemon) ready(ctx context.Context, l *lab) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		_, err := l.isPrimary(ctx, d.target)
		if err == nil {
			return nil
		}
		select {
		case <-d.ended:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// stop ends the process by its id, by force where it does not go.
func (d *daemon) stop() {
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		_ = d.cmd.Process.Signal(sig) // fails only when it has ended
		select {
		case <-d.ended:
			if err := d.dir.remove(); err != nil {
				progress("%v", err)
			}
			return
		case <-time.After(5 * time.Second):
		}
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

// unprivileged gives the account the daemons run as: postgres where we are
// root, which most of them refuse to be, and otherwise ours, as nil.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("as root the daemons run as postgres: %w", err)
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
