package steps

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/engine/clock"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/sql"
	"github.com/pgtandem/pgtandem/engine/plan"
)

const syncNames = "synchronous_standby_names"

// Files are the recipe's three configuration files of one node.
type Files struct{ Current, Sync, Async []byte }

// ReadFiles reads postgresql.conf, .sync and .async from a node.
func ReadFiles(ctx context.Context, h FileHost, n cluster.Node) (Files, error) {
	var f Files
	for _, x := range []struct {
		to   *[]byte
		name string
	}{{&f.Current, "postgresql.conf"}, {&f.Sync, "postgresql.conf.sync"}, {&f.Async, "postgresql.conf.async"}} {
		b, err := h.ReadFile(ctx, path.Join(n.ConfigDirectory, x.name))
		if errors.Is(err, fs.ErrNotExist) {
			return f, fmt.Errorf("%w: %s is missing on %s: provision the node, or copy postgresql.conf to it and set %s there",
				execute.ErrRefused, path.Join(n.ConfigDirectory, x.name), n.ID, syncNames)
		}
		if err != nil {
			return f, err
		}
		*x.to = b
	}
	return f, nil
}

// FileHost reads and swaps files on a node's machine.
type FileHost interface {
	ReadFile(ctx context.Context, path string) ([]byte, error)
	ReplaceFile(ctx context.Context, path string, old, data []byte) error
}

// AsyncByFiles makes a stopped standby's own files say async: the recipe's
// .async in force, and no entry in postgresql.auto.conf, which would win over
// whatever file is swapped in later.
func AsyncByFiles(ctx context.Context, h FileHost, n cluster.Node) error {
	auto := path.Join(n.DataDirectory, "postgresql.auto.conf")
	have, err := h.ReadFile(ctx, auto)
	if err != nil {
		return fmt.Errorf("read %s on %s: %w", auto, n.ID, err)
	}
	var keep []string
	for _, line := range strings.SplitAfter(string(have), "\n") {
		if name, _, _ := strings.Cut(line, "="); strings.TrimSpace(name) != syncNames {
			keep = append(keep, line)
		}
	}
	if text := strings.Join(keep, ""); text != string(have) {
		if err := h.ReplaceFile(ctx, auto, have, []byte(text)); err != nil {
			return err
		}
	}
	f, err := ReadFiles(ctx, h, n)
	if err != nil || f.InForce() != "sync" {
		return err
	}
	return h.ReplaceFile(ctx, path.Join(n.ConfigDirectory, "postgresql.conf"), f.Current, f.Async)
}

// InForce says which of the two postgresql.conf is: "sync", "async", or
// "neither" when someone has edited it.
func (f Files) InForce() string {
	switch {
	case string(f.Current) == string(f.Sync):
		return "sync"
	case string(f.Current) == string(f.Async):
		return "async"
	}
	return "neither"
}

// syncCheck refuses, before anything is recorded, a swap that would overwrite
// somebody's edit.
func (w *World) syncCheck(ctx context.Context, s plan.Step) (string, error) {
	if w.Policy().SwapMethod != cluster.SwapFiles {
		return "ALTER SYSTEM overwrites no file of anybody's", nil
	}
	if _, _, err := w.swapFiles(ctx, s); err != nil {
		return "", err
	}
	return "postgresql.conf is one of the two", w.noWinner(ctx, s)
}

// noWinner refuses, before anything is recorded, a swap that would do nothing:
// an entry in postgresql.auto.conf wins over the file, as one that is left
// from the other method.
func (w *World) noWinner(ctx context.Context, s plan.Step) error {
	srv, err := w.server(s.Node)
	if err != nil {
		return err
	}
	v, err := srv.Show(ctx, syncNames)
	if err != nil {
		return err
	}
	if file, _, _ := strings.Cut(v.Source, ":"); path.Base(file) == "postgresql.auto.conf" {
		return fmt.Errorf("%w: on %s %s is %q from %s, which would win over a swapped file: put that value into postgresql.conf.sync, copy the one in force over postgresql.conf, and ALTER SYSTEM RESET %s there",
			execute.ErrRefused, s.Node, syncNames, v.Value, v.Source, syncNames)
	}
	return nil
}

func (w *World) swapFiles(ctx context.Context, s plan.Step) (Files, []byte, error) {
	h, err := w.host(s.Node)
	if err != nil {
		return Files{}, nil, err
	}
	n, err := w.node(s.Node)
	if err != nil {
		return Files{}, nil, err
	}
	f, err := ReadFiles(ctx, h, n)
	if err != nil {
		return f, nil, err
	}
	if f.InForce() == "neither" {
		return f, nil, fmt.Errorf("%w: %s on %s was edited: it is neither postgresql.conf.sync nor .async; bring the edit into both and copy the one in force over it",
			execute.ErrRefused, path.Join(n.ConfigDirectory, "postgresql.conf"), s.Node)
	}
	if s.Args["mode"] == string(cluster.ModeAsync) {
		return f, f.Async, nil
	}
	return f, f.Sync, nil
}

func (w *World) syncInForce(ctx context.Context, s plan.Step) (bool, string, error) {
	srv, err := w.server(s.Node)
	if err != nil {
		return false, "", err
	}
	c, err := srv.Confirmed(ctx)
	if err != nil {
		return false, "", err
	}
	want := decide.ParseSyncNames(s.Args["names"])
	saw := fmt.Sprintf("%s = %q", syncNames, c.Names)
	if !decide.SameSet(decide.ParseSyncNames(c.Names), want) {
		return false, saw, nil
	}
	if len(want.Members) == 0 {
		// A waiter left over means that the checkpointer has not published
		// the change yet.
		return c.Waiting == 0, fmt.Sprintf("%s, %d commits waiting", saw, c.Waiting), nil
	}
	if !c.Settled {
		return false, saw + ", the checkpointer has not taken it up", nil
	}
	for id := range c.By {
		// Each walsender reads the value by itself, and one that has not goes
		// on releasing commits as before.
		if !slices.Contains(want.Members, id) {
			return false, fmt.Sprintf("%s, the walsender of %s has not taken it up", saw, id), nil
		}
	}
	return true, saw, nil
}

func (w *World) syncSet(ctx context.Context, s plan.Step, _ func(string)) error {
	return w.swap(ctx, s)
}

// swap puts names in force on a running server, by the configured method.
func (w *World) swap(ctx context.Context, s plan.Step) error {
	srv, err := w.server(s.Node)
	if err != nil {
		return err
	}
	if w.Policy().SwapMethod != cluster.SwapFiles {
		return srv.AlterSystem(ctx, syncNames, s.Args["names"])
	}
	f, next, err := w.swapFiles(ctx, s)
	if err != nil {
		return err
	}
	h, err := w.host(s.Node)
	if err != nil {
		return err
	}
	n, err := w.node(s.Node)
	if err != nil {
		return err
	}
	if string(f.Current) != string(next) {
		if err := h.ReplaceFile(ctx, path.Join(n.ConfigDirectory, "postgresql.conf"), f.Current, next); err != nil {
			return fmt.Errorf("swap postgresql.conf on %s: %w", s.Node, err)
		}
	}
	if err := srv.Reload(ctx); err != nil {
		return err
	}
	return w.nameWinner(ctx, srv, s)
}

// nameWinner: an entry in postgresql.auto.conf wins over the swapped file, and
// a reload then silently does nothing. It is named rather than waited for.
func (w *World) nameWinner(ctx context.Context, srv Server, s plan.Step) error {
	want := decide.ParseSyncNames(s.Args["names"])
	short, cancel := w.Clock.Timeout(ctx, 2*time.Second)
	defer cancel()
	var last sql.Setting
	err := clock.Every(short, w.Clock, 5*time.Millisecond, func() (bool, string, error) {
		v, err := srv.Show(short, syncNames)
		last = v
		return err == nil && decide.SameSet(decide.ParseSyncNames(v.Value), want), v.Value, err
	})
	if err != nil && last.Source != "" {
		return fmt.Errorf("%w: the files were swapped on %s, but %s is %q from %s, which wins: ALTER SYSTEM RESET %s there, or put %q in both files",
			execute.ErrRefused, s.Node, syncNames, last.Value, last.Source, syncNames, s.Args["names"])
	}
	return err
}

// barrier waits until at least k of the nodes have confirmed the flush position
// read now, and then once more. The first position is read after the setting is
// in force: what was acknowledged before is at or below it. But each walsender
// reads the setting by itself, after the signal and before it looks at replies
// (src/backend/replication/walsender.c, WalSndLoop), and may release commits by
// the old value in the round in which it confirms the first position. What it
// released so is at or below the second, which is read after that.
func (w *World) barrier(ctx context.Context, s plan.Step) (string, error) {
	srv, err := w.server(s.Node)
	if err != nil {
		return "", err
	}
	need := nodes(s)
	k := len(need)
	if v := s.Args["k"]; v != "" {
		if _, err := fmt.Sscan(v, &k); err != nil {
			return "", fmt.Errorf("read k of step %s: %w", s.ID, err)
		}
	}
	var target cluster.LSN
	round := 1
	err = clock.Every(ctx, w.Clock, 5*time.Millisecond, func() (bool, string, error) {
		c, err := srv.Confirmed(ctx)
		if err != nil {
			return false, "", err
		}
		if target == 0 {
			target = c.Flushed
		}
		confirmed := 0
		for id, lsn := range c.By {
			if lsn >= target && !c.Twice[id] && slices.Contains(need, id) {
				confirmed++
			}
		}
		saw := fmt.Sprintf("%d of %d have confirmed %s", confirmed, k, target)
		if confirmed < k || round == 2 {
			return confirmed >= k, saw, nil
		}
		round, target = 2, 0
		return false, saw, nil
	})
	return fmt.Sprintf("%d of %d confirmed %s", k, len(need), target), err
}
