package fault

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/procs"
)

// servers are a node's PostgreSQL processes, the postmaster first where it
// lives, with whatever they started: archive commands. They are known by the
// directory they work in, because children outlive a postmaster's pid file.
func (f *Faults) servers(node string) ([]procs.Process, error) {
	n, err := f.status(node)
	if err != nil {
		return nil, err
	}
	all, err := procs.All()
	if err != nil {
		return nil, err
	}
	mine := map[int]bool{}
	var out []procs.Process
	for _, p := range all {
		if p.Name == "postgres" && (p.Cwd == n.DataDirectory || strings.HasPrefix(p.Cwd, filepath.Dir(n.DataDirectory)+"/")) {
			mine[p.PID] = true
			if p.PID == n.PID {
				out = append([]procs.Process{p}, out...)
			} else {
				out = append(out, p)
			}
		}
	}
	return append(out, procs.Descendants(all, mine)...), nil
}

// hostOf is a node's sshd with its sessions.
func (f *Faults) hostOf(node string) ([]procs.Process, error) {
	pid := f.lab.SSHDPID(node)
	if pid == 0 {
		return nil, nil
	}
	all, err := procs.All()
	if err != nil {
		return nil, err
	}
	var out []procs.Process
	for _, p := range all {
		if p.PID == pid {
			out = append(out, p)
		}
	}
	return append(out, procs.Descendants(all, map[int]bool{pid: true})...), nil
}

func (f *Faults) status(node string) (lab.NodeStatus, error) {
	for _, n := range f.lab.Status().Nodes {
		if n.Name == node {
			return n, nil
		}
	}
	return lab.NodeStatus{}, fmt.Errorf("there is no node %q in the lab", node)
}

// signal sends a signal to each; one that has ended is left at that.
func signal(procs []procs.Process, s syscall.Signal) error {
	for _, p := range procs {
		if err := syscall.Kill(p.PID, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("send %s to process %d: %w", s, p.PID, err)
		}
	}
	return nil
}

// again repeats a look and an action until nothing is left to do: processes
// fork while they are being signalled.
func again(ctx context.Context, what string, once func() (done bool, err error)) error {
	t := time.NewTicker(2 * time.Millisecond)
	defer t.Stop()
	for {
		done, err := once()
		if err != nil || done {
			return err
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		}
	}
}

// kill sends SIGKILL until none of the processes lives that which gives.
func kill(ctx context.Context, what string, which func() ([]procs.Process, error)) error {
	return again(ctx, what, func() (bool, error) {
		ps, err := which()
		if err != nil {
			return false, err
		}
		return len(ps) == 0, signal(ps, syscall.SIGKILL)
	})
}

// stop sends SIGSTOP until all of the processes that which gives have stopped. It
// looks once more after that: a child that was being forked when they were listed
// is not among them.
func stop(ctx context.Context, what string, which func() ([]procs.Process, error)) error {
	still := 0
	return again(ctx, what, func() (bool, error) {
		ps, err := which()
		if err != nil {
			return false, err
		}
		var moving []procs.Process
		for _, p := range ps {
			if p.State != 'T' {
				moving = append(moving, p)
			}
		}
		if still++; len(moving) > 0 {
			still = 0
		}
		return still == 2, signal(moving, syscall.SIGSTOP)
	})
}

// KillAll kills the postmaster and all its children, as far as a process can
// see a crash of its host: what they wrote without a flush stays in the
// kernel's cache, which a host would lose.
func (f *Faults) KillAll(ctx context.Context, node string) error {
	f.note(func(b *broken) { b.down[node] = true; delete(b.frozen, node) })
	return kill(ctx, "kill all of "+node, func() ([]procs.Process, error) { return f.servers(node) })
}

// KillPostmaster kills the postmaster alone. Its children notice and end; one
// in the middle of a commit may acknowledge it before.
func (f *Faults) KillPostmaster(ctx context.Context, node string) error {
	n, err := f.status(node)
	if err != nil || n.PID == 0 {
		return err
	}
	f.note(func(b *broken) { b.down[node] = true })
	return kill(ctx, "kill the postmaster of "+node, func() ([]procs.Process, error) {
		ps, err := f.servers(node)
		if err != nil || len(ps) == 0 || ps[0].PID != n.PID {
			return nil, err
		}
		return ps[:1], nil
	})
}

// KillOne kills a child. The postmaster then ends all the others, recovers and
// goes on: PostgreSQL's crash restart in place.
func (f *Faults) KillOne(ctx context.Context, node string, which Process) error {
	p, err := f.one(node, which)
	if err != nil {
		return err
	}
	return signal([]procs.Process{p}, syscall.SIGKILL)
}

// Freeze stops the postmaster and all its children in their tracks.
func (f *Faults) Freeze(ctx context.Context, node string) error {
	f.note(func(b *broken) { b.frozen[node] = true })
	return stop(ctx, "freeze "+node, func() ([]procs.Process, error) { return f.servers(node) })
}

// FreezeHost freezes a node with its sshd and the sessions of that: its
// addresses accept connections and say nothing.
func (f *Faults) FreezeHost(ctx context.Context, node string) error {
	f.note(func(b *broken) { b.frozen[node] = true })
	return stop(ctx, "freeze the host of "+node, func() ([]procs.Process, error) { return f.both(node) })
}

func (f *Faults) both(node string) ([]procs.Process, error) {
	ps, err := f.servers(node)
	if err != nil {
		return nil, err
	}
	hs, err := f.hostOf(node)
	return append(ps, hs...), err
}

// FreezeOne freezes one child. It wraps ErrNothing where there is none such.
func (f *Faults) FreezeOne(ctx context.Context, node string, which Process) error {
	p, err := f.one(node, which)
	if err != nil {
		return err
	}
	f.note(func(b *broken) { b.frozen[node] = true })
	return stop(ctx, fmt.Sprintf("freeze the %s of %s", which, node), func() ([]procs.Process, error) {
		ps, err := f.servers(node)
		for _, now := range ps {
			if now.PID == p.PID {
				return []procs.Process{now}, err
			}
		}
		return nil, err
	})
}

// Wake lets everything of a node go on.
func (f *Faults) Wake(ctx context.Context, node string) error {
	ps, err := f.both(node)
	if err != nil {
		return err
	}
	if err := signal(ps, syscall.SIGCONT); err != nil {
		return err
	}
	f.note(func(b *broken) { delete(b.frozen, node) })
	return nil
}

// one finds a child by its title (PostgreSQL docs, 28.1).
func (f *Faults) one(node string, which Process) (procs.Process, error) {
	ps, err := f.servers(node)
	if err != nil {
		return procs.Process{}, err
	}
	for _, p := range ps {
		if k := kind(p.Title, node); k == which || which == Committer && k == Backend && commits(p.Title) {
			return p, nil
		}
	}
	return procs.Process{}, fmt.Errorf("%w: no %s runs on %s", ErrNothing, which, node)
}

// commits says whether a server process shows a COMMIT as what it does.
func commits(title string) bool {
	return strings.HasSuffix(title, " COMMIT") || strings.Contains(title, " COMMIT waiting")
}

// auxiliary are the first words of the titles of a postmaster's children that
// serve no client and are no Process.
var auxiliary = []string{"logger", "background", "walwriter", "autovacuum", "archiver", "logical", "stats", "parallel", "io", "slotsync", "dead-end"}

// kind says what a process is by its title; nothing when it is no Process.
func kind(title, node string) Process {
	rest, ok := strings.CutPrefix(title, "postgres: "+node+": ")
	if !ok {
		return ""
	}
	first, _, _ := strings.Cut(rest, " ")
	switch p := Process(first); p {
	case Walreceiver, Walsender, Startup, Checkpointer:
		return p
	}
	for _, a := range auxiliary {
		if first == a {
			return ""
		}
	}
	return Backend
}
