package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func (l *Lab) proxydPID() (int, bool) {
	return pid(l.path("run", "proxyd.pid"), l.Config())
}

// startProxyd starts the daemon unless it runs, and waits until it says, by
// systemd's protocol, that a primary is proved.
func (l *Lab) startProxyd(ctx context.Context, program string) error {
	if _, up := l.proxydPID(); up {
		return nil
	}
	program, err := l.daemonProgram(program)
	if err != nil {
		return err
	}
	notify := l.path("run", "notify.sock")
	if err := os.Remove(notify); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("make the notify socket: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("make the notify socket: %w", err)
	}
	defer func() { _ = conn.Close(); _ = os.Remove(notify) }() // it has served
	if err := l.own(notify); err != nil {
		return err
	}
	c, err := l.launch(ctx, program, []string{"NOTIFY_SOCKET=" + notify})
	if err != nil {
		return err
	}
	if err := l.ready(ctx, c, conn); err != nil {
		return fmt.Errorf("proxyd: %w%s; its log is %s", err, l.lastWords("log/proxyd.log"), l.path("log", "proxyd.log"))
	}
	return nil
}

// daemonProgram finds proxyd, beside our own program unless one is given, and
// puts it where the lab's account can run it.
func (l *Lab) daemonProgram(program string) (string, error) {
	if program == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find proxyd: %w", err)
		}
		program = filepath.Join(filepath.Dir(self), "proxyd")
	}
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("proxyd is %w at %s: run make build", ErrMissing, program)
	}
	return l.reachable(program)
}

// launch starts the daemon's process and notes its pid.
func (l *Lab) launch(ctx context.Context, program string, env []string) (*exec.Cmd, error) {
	c, err := l.daemon("log/proxyd.log", env, program, "--config", l.Config())
	if err != nil {
		return nil, err
	}
	if err := l.write("run/proxyd.pid", []byte(fmt.Sprintln(c.Process.Pid)), 0o644); err != nil {
		return nil, errors.Join(err, end(ctx, c.Process.Pid, 5*time.Second))
	}
	return c, nil
}

// LaunchDaemon starts proxyd when it does not run, and waits for nothing:
// where no primary can be proved, it is never ready, and still has to run.
func (l *Lab) LaunchDaemon(ctx context.Context, program string) error {
	if _, up := l.proxydPID(); up {
		return nil
	}
	program, err := l.daemonProgram(program)
	if err != nil {
		return err
	}
	c, err := l.launch(ctx, program, nil)
	if err != nil {
		return err
	}
	go func() { _ = c.Wait() }() // reaps it; ends with the daemon, or with us
	return nil
}

// lastWords is the last line of a log, which says why its writer ended.
func (l *Lab) lastWords(log string) string {
	b, err := os.ReadFile(l.path(log))
	b = bytes.TrimSpace(b)
	if err != nil || len(b) == 0 {
		return ""
	}
	return ": " + string(b[bytes.LastIndexByte(b, '\n')+1:])
}

// reachable gives a program that the unprivileged account can run. Root's own
// directory, where a checkout may be, is closed to it, so it gets a copy.
func (l *Lab) reachable(program string) (string, error) {
	if !l.owner.drop {
		return program, nil
	}
	b, err := os.ReadFile(program)
	if err != nil {
		return "", fmt.Errorf("copy proxyd into the lab: %w", err)
	}
	if err := l.mkdir(0o755, "bin"); err != nil {
		return "", err
	}
	return l.path("bin", "proxyd"), l.write("bin/proxyd", b, 0o755)
}

// ready reads notifications until READY=1, the daemon's death or a minute.
func (l *Lab) ready(ctx context.Context, c *exec.Cmd, conn *net.UnixConn) error {
	died := make(chan error, 1)
	go func() { died <- c.Wait(); _ = conn.SetReadDeadline(time.Now()) }() // ends with the daemon, or with us
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	defer stop()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return fmt.Errorf("wait for it: %w", err)
	}
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			select {
			case e := <-died:
				return fmt.Errorf("it ended at once: %w", e)
			default:
				return fmt.Errorf("it was not ready in time: %w", errors.Join(err, ctx.Err()))
			}
		}
		for _, line := range strings.Split(string(buf[:n]), "\n") {
			if line == "READY=1" {
				l.say("proxyd is ready: a primary is proved")
				return nil
			}
			if s, ok := strings.CutPrefix(line, "STATUS="); ok {
				l.say("proxyd: " + s)
			}
		}
	}
}

// RestartDaemon starts proxyd when it does not run, and waits until it is
// ready.
func (l *Lab) RestartDaemon(ctx context.Context, program string) error {
	return l.startProxyd(ctx, program)
}
