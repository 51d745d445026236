package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// as makes a command that runs as the owner, in a session of its own, so that
// a terminal's end does not end it.
func (l *Lab) as(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = l.Dir
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if l.owner.drop {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: l.owner.uid, Gid: l.owner.gid}
	}
	c.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "HOME="+l.Dir, "USER="+l.owner.name)
	return c
}

// run runs a command to its end and says its output when it fails.
func (l *Lab) run(ctx context.Context, name string, args ...string) ([]byte, error) {
	return output(l.as(ctx, name, args...))
}

func output(c *exec.Cmd) ([]byte, error) {
	out, err := c.CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("%s: %w: %s", filepath.Base(c.Path), err, strings.TrimSpace(string(out)))
	}
	return out, nil
}

// daemon starts a command that goes on after us, with its output in a log.
func (l *Lab) daemon(log string, env []string, name string, args ...string) (*exec.Cmd, error) {
	f, err := l.logFile(log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // the child has its own
	return l.detach(l.as(context.Background(), name, args...), f, env)
}

// daemonOn is daemon on a node's host.
func (l *Lab) daemonOn(n nodeState, log, name string, args ...string) (*exec.Cmd, error) {
	f, err := l.logFile(log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // the child has its own
	return l.detach(l.asOn(context.Background(), n, name, args...), f, nil)
}

func (l *Lab) logFile(log string) (*os.File, error) {
	f, err := os.OpenFile(l.path(log), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return f, l.own(l.path(log))
}

func (l *Lab) detach(c *exec.Cmd, log *os.File, env []string) (*exec.Cmd, error) {
	c.Stdout, c.Stderr = log, log
	c.Env = append(c.Env, env...)
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	return c, nil
}

// pid reads a pid file and says whether that process lives and is what it
// should be: its command line holds want. A recycled pid is not believed.
func pid(file, want string) (int, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	line, _, _ := strings.Cut(string(b), "\n")
	n, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || n <= 1 {
		return 0, false
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n))
	if err != nil || !strings.Contains(strings.ReplaceAll(string(cmdline), "\x00", " "), want) {
		return 0, false
	}
	return n, true
}

// end stops a process by pid: asked first, then killed.
func end(ctx context.Context, n int, patience time.Duration) error {
	if err := syscall.Kill(n, syscall.SIGTERM); err != nil {
		if errors.Is(err, syscall.ESRCH) {
			return nil
		}
		return fmt.Errorf("stop process %d: %w", n, err)
	}
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := gone(bounded, n); err == nil {
		return nil
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill process %d: %w", n, err)
	}
	return gone(ctx, n)
}

// gone waits until a process has ended. A zombie whose parent we are is reaped
// by its Wait; one of another parent counts as ended.
func gone(ctx context.Context, n int) error {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n))
		if err != nil {
			return nil //nolint:nilerr // the process has no entry any more
		}
		if i := strings.LastIndexByte(string(b), ')'); i > 0 && strings.HasPrefix(string(b[i+1:]), " Z") {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d does not end: %w", n, ctx.Err())
		case <-t.C:
		}
	}
}

// listening waits until somebody answers on a port, or the process that should
// has ended.
func listening(ctx context.Context, host string, port int, died <-chan error) error {
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("port %d: %w", port, ctx.Err())
		case e := <-died:
			return fmt.Errorf("it ended at once: %w", e)
		case <-t.C:
		}
	}
}

// ports hands out free ports of the loopback, the preferred ones first, none
// twice.
type ports struct{ taken map[int]bool }

func (p *ports) free(preferred int) (int, error) {
	if p.taken == nil {
		p.taken = map[int]bool{}
	}
	tries := []int{preferred}
	for range 100 {
		// Below the kernel's ephemeral range, whose ports a connection of
		// somebody's may take before the server does.
		tries = append(tries, 20000+rand.IntN(12000))
	}
	for _, try := range tries {
		if try == 0 || p.taken[try] {
			continue
		}
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", try))
		if err != nil {
			continue
		}
		if err := ln.Close(); err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		p.taken[try] = true
		return try, nil
	}
	return 0, fmt.Errorf("find a free port: %d and a hundred others are taken", preferred)
}
