package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/engine/lab/control"
)

// StopFast stops a server as an operator would. A standby's commits are
// waited for no more; a server that does not run is left at that.
func (f *Faults) StopFast(ctx context.Context, node string) error { return f.pgStop(ctx, node, "fast") }

// StopImmediate stops a server at once, as if it had crashed.
func (f *Faults) StopImmediate(ctx context.Context, node string) error {
	return f.pgStop(ctx, node, "immediate")
}

// patience is how long pg_ctl waits, in whole seconds.
func patience(ctx context.Context) string {
	if end, ok := ctx.Deadline(); ok {
		return strconv.Itoa(max(1, int(time.Until(end).Seconds())))
	}
	return "60"
}

func (f *Faults) pgStop(ctx context.Context, node, mode string) error {
	n, err := f.status(node)
	if err != nil || n.PID == 0 {
		return err
	}
	f.note(func(b *broken) { b.down[node] = true })
	if _, err := f.lab.Run(ctx, node, filepath.Join(n.BinDirectory, "pg_ctl"), "stop", "-D", n.DataDirectory, "-m", mode, "-w", "-t", patience(ctx)); err != nil {
		if now, e := f.status(node); e == nil && now.PID == 0 {
			return nil // somebody else has stopped it meanwhile
		}
		return fmt.Errorf("stop %s: %w", node, err)
	}
	return nil
}

// Start starts a server by hand. One that runs is left at that. Whoever starts
// a former primary this way starts a second primary: that is the point.
func (f *Faults) Start(ctx context.Context, node string) error {
	n, err := f.status(node)
	if err != nil {
		return err
	}
	f.note(func(b *broken) { delete(b.down, node) })
	if n.PID != 0 {
		return nil
	}
	if err := f.leftovers(ctx, node); err != nil {
		return err
	}
	log := filepath.Join(filepath.Dir(n.DataDirectory), "postgresql.log")
	if _, err := f.lab.Run(ctx, node, filepath.Join(n.BinDirectory, "pg_ctl"), "start", "-D", n.DataDirectory, "-l", log, "-w", "-t", patience(ctx)); err != nil {
		if now, e := f.status(node); e == nil && now.PID != 0 {
			return nil // somebody else started it first, or it recovers still
		}
		f.note(func(b *broken) { b.down[node] = true })
		return fmt.Errorf("start %s: %w; its log ends: %s", node, err, tail(log))
	}
	return nil
}

// tail is the end of a server's log.
func tail(log string) string {
	b, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-1000):])
}

// leftovers waits until the children of a killed postmaster have noticed: no
// other starts while they hold the shared memory.
func (f *Faults) leftovers(ctx context.Context, node string) error {
	return again(ctx, "wait for what the postmaster of "+node+" left", func() (bool, error) {
		ps, err := f.servers(node)
		for _, p := range ps {
			if p.State == 'T' {
				return false, fmt.Errorf("start %s: process %d of its former postmaster is frozen: wake it first", node, p.PID)
			}
		}
		return len(ps) == 0 && !f.unreaped(node), err
	})
}

// unreaped says whether the process that a pid file names is ending or a
// zombie: until the init of this machine has looked after it, PostgreSQL takes
// it for a postmaster that lives. A process that has begun to end works in no
// directory any more.
func (f *Faults) unreaped(node string) bool {
	n, err := f.status(node)
	if err != nil {
		return false
	}
	b, err := os.ReadFile(filepath.Join(n.DataDirectory, "postmaster.pid"))
	if err != nil {
		return false
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if _, err := os.Stat(filepath.Join("/proc", line)); err != nil {
		return false
	}
	_, err = os.Readlink(filepath.Join("/proc", line, "cwd"))
	return errors.Is(err, fs.ErrNotExist)
}

// SQL runs a statement as an operator on the node's host does, over the
// server's own socket, so that no cut of the network is in the way.
func (f *Faults) SQL(ctx context.Context, node, statement string) (string, error) {
	n, err := f.status(node)
	if err != nil {
		return "", err
	}
	socket := filepath.Join(filepath.Dir(n.DataDirectory), "socket")
	out, err := f.lab.Run(ctx, node, filepath.Join(n.BinDirectory, "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
		"-h", socket, "-p", strconv.Itoa(n.Port), "-d", "postgres", "-c", statement)
	if err != nil {
		return "", fmt.Errorf("on %s, %s: %w", node, statement, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// PauseReplay lets a standby receive and not replay. It wraps ErrNothing on a
// node that is not in recovery.
func (f *Faults) PauseReplay(ctx context.Context, node string) error {
	recovery, err := f.SQL(ctx, node, "SELECT pg_is_in_recovery()")
	if err != nil {
		return err
	}
	if recovery != "t" {
		return fmt.Errorf("%w: %s is not in recovery", ErrNothing, node)
	}
	f.note(func(b *broken) { b.paused[node] = true })
	_, err = f.SQL(ctx, node, "SELECT pg_wal_replay_pause()")
	return err
}

// ResumeReplay lets it replay again. A node that has left recovery meanwhile
// has nothing paused.
func (f *Faults) ResumeReplay(ctx context.Context, node string) error {
	if _, err := f.SQL(ctx, node, "SELECT CASE WHEN pg_is_in_recovery() THEN pg_wal_replay_resume() END"); err != nil {
		if n, e := f.status(node); e != nil || n.PID != 0 {
			return err
		}
		// A server that does not run has forgotten the pause.
	}
	f.note(func(b *broken) { delete(b.paused, node) })
	return nil
}

// PromoteByHand promotes a standby behind the engine's back. It wraps
// ErrNothing on a node that is no running standby.
func (f *Faults) PromoteByHand(ctx context.Context, node string) error {
	n, err := f.status(node)
	if err != nil {
		return err
	}
	if n.PID == 0 {
		return fmt.Errorf("%w: %s does not run", ErrNothing, node)
	}
	if _, err := f.lab.Run(ctx, node, filepath.Join(n.BinDirectory, "pg_ctl"), "promote", "-D", n.DataDirectory, "-w", "-t", patience(ctx)); err != nil {
		if strings.Contains(err.Error(), "not in standby mode") {
			return fmt.Errorf("%w: %s is no standby", ErrNothing, node)
		}
		return fmt.Errorf("promote %s by hand: %w", node, err)
	}
	return nil
}

const syncNames = "synchronous_standby_names"

// AlterSystemByHand sets synchronous_standby_names behind the engine's back,
// and reloads.
func (f *Faults) AlterSystemByHand(ctx context.Context, node, value string) error {
	before, err := f.SQL(ctx, node, "SHOW "+syncNames)
	if err != nil {
		return err
	}
	f.note(func(b *broken) {
		if was, ok := b.altered[node]; ok {
			before = was.before
		}
		b.altered[node] = altered{before: before, ours: value}
	})
	return f.setSyncNames(ctx, node, value)
}

// setSyncNames runs ALTER SYSTEM outside a transaction block, and then reloads.
func (f *Faults) setSyncNames(ctx context.Context, node, value string) error {
	if _, err := f.SQL(ctx, node, "ALTER SYSTEM SET "+syncNames+" = '"+strings.ReplaceAll(value, "'", "''")+"'"); err != nil {
		return err
	}
	_, err := f.SQL(ctx, node, "SELECT pg_reload_conf()")
	return err
}

// AlterSystemBack sets what was there before, unless somebody has set another
// value meanwhile: the engine's own is never undone.
func (f *Faults) AlterSystemBack(ctx context.Context, node string) error {
	f.mu.Lock()
	was, ok := f.broken.altered[node]
	f.mu.Unlock()
	if !ok {
		return nil
	}
	now, err := f.SQL(ctx, node, "SHOW "+syncNames)
	if err != nil {
		if n, e := f.status(node); e != nil || n.PID != 0 {
			return err
		}
		// It does not run. Whoever starts it again sets what it needs.
	} else if now == was.ours {
		if err := f.setSyncNames(ctx, node, was.before); err != nil {
			return err
		}
	}
	f.note(func(b *broken) { delete(b.altered, node) })
	return nil
}

// KillDaemon kills proxyd.
func (f *Faults) KillDaemon(ctx context.Context) error {
	f.note(func(b *broken) { b.daemon = true })
	return f.lab.KillDaemon(ctx)
}

// StartDaemon starts proxyd unless it runs, and returns when it answers on its
// control socket. Whether a primary is proved by then is not waited for.
func (f *Faults) StartDaemon(ctx context.Context) error {
	if err := f.lab.LaunchDaemon(ctx, f.proxyd); err != nil {
		return fmt.Errorf("start proxyd: %w", err)
	}
	if _, err := f.control.Until(ctx, "proxyd answers", func(control.State) string { return "" }); err != nil {
		return err
	}
	f.note(func(b *broken) { b.daemon = false })
	return nil
}
