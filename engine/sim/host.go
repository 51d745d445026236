package sim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/steps"
)

// sshHost is the engine's way to a node's machine. The machine lives on when
// its server is frozen or gone; what was begun there goes on when the
// connection is lost.
type sshHost struct {
	d *daemon
	n *node
}

// call runs a command on the machine; do calls its argument when it has ended.
func (h *sshHost) call(ctx context.Context, what string, change bool, do func(end func(error))) error {
	w, n := h.d.w, h.n
	if change {
		w.crossing()
	}
	out := fmt.Errorf("%s on %s: %w: no answer", what, n.id(), execute.ErrUnknown)
	over := false
	defer func() { over = true }()
	err := w.wait(ctx, func(wake func()) {
		keepalive(w, n, n.crashes, &over, wake)
		if w.lostRequest > 0 && w.chance(w.lostRequest/2) {
			out = fmt.Errorf("%s on %s: %w: connection reset", what, n.id(), execute.ErrUnreachable)
			w.at(10*time.Millisecond, wake)
			return
		}
		w.send(0, n.i, func() {
			w.at(w.between(2*time.Millisecond, 30*time.Millisecond), func() {
				if n.hostDown {
					return
				}
				if change {
					w.note(what, uint64(n.i))
					w.tracef("%s: %s", n.id(), what)
				}
				do(func(e error) {
					if n.hostDown {
						return
					}
					lost := change && w.lostAnswer > 0 && w.chance(w.lostAnswer)
					w.send(n.i, 0, func() {
						out = e
						if lost {
							out = fmt.Errorf("%s on %s: %w: the connection was lost", what, n.id(), execute.ErrUnknown)
						}
						wake()
					})
				})
			})
		})
	})
	if err != nil {
		out = fmt.Errorf("%s on %s: %w: %w", what, n.id(), execute.ErrUnknown, err)
	}
	if change {
		w.crossing()
	}
	return out
}

// keepalive ends a wait whose connection has died: the host went down since, or
// the path is cut for too long.
func keepalive(w *world, n *node, crashes int, over *bool, wake func()) {
	if n.hostDown { // nobody takes the connection
		w.at(5*time.Second, wake)
		return
	}
	w.at(15*time.Second, func() {
		if n.crashes != crashes || n.hostDown || w.cut[0][n.i] || w.cut[n.i][0] {
			wake()
			return
		}
		if !*over {
			keepalive(w, n, crashes, over, wake)
		}
	})
}

func (n *node) postmaster() (cluster.Postmaster, int) {
	switch {
	case n.proc != down:
		return cluster.PostmasterRunning, n.pid
	case !n.disk.present:
		return cluster.PostmasterAbsent, 0
	}
	return cluster.PostmasterStopped, 0
}

// Postmaster says whether a process owns the data directory.
func (h *sshHost) Postmaster(ctx context.Context) (state cluster.Postmaster, pid int, err error) {
	err = h.call(ctx, "postmaster", false, func(end func(error)) { state, pid = h.n.postmaster(); end(nil) })
	return state, pid, err
}

// poll calls end when ok is true, looking now and then.
func (h *sshHost) poll(ok func() bool, end func()) {
	if ok() {
		end()
		return
	}
	h.d.w.at(25*time.Millisecond, func() { h.poll(ok, end) })
}

// Start is pg_ctl start: it waits until the server answers.
func (h *sshHost) Start(ctx context.Context) error {
	return h.call(ctx, "pg_ctl start", true, func(end func(error)) {
		n := h.n
		if n.proc == down {
			if !n.startable() {
				end(fmt.Errorf("start %s: it does not start: no space, or no usable data directory", n.id()))
				return
			}
			n.start()
		}
		life := n.life
		h.poll(func() bool { return n.life != life || n.proc == up }, func() { end(nil) })
	})
}

// Stop is pg_ctl stop; an immediate one kills what is frozen.
func (h *sshHost) Stop(ctx context.Context, mode string) error {
	return h.call(ctx, "pg_ctl stop -m "+mode, true, func(end func(error)) {
		n := h.n
		if n.proc == down {
			end(nil)
			return
		}
		life := n.life
		if mode == "immediate" {
			h.d.w.at(h.d.w.between(0, 60*time.Millisecond), func() {
				if n.life == life {
					n.kill()
				}
				end(nil)
			})
			return
		}
		if n.proc == starting && h.d.w.chance(0.3) {
			n.stuck()
			life = n.life
		} else {
			n.stopFast()
		}
		h.poll(func() bool { return n.life != life }, func() { end(nil) })
	})
}

// files are the recipe's, of which only the one line matters that differs: in
// postgresql.conf is what is in force after the next reload. Nothing stands in
// postgresql.auto.conf.
func (h *sshHost) file(name string) (text string, ok bool) {
	n := h.n
	switch path.Base(name) {
	case "postgresql.conf":
		return n.disk.names, n.disk.present
	case "postgresql.conf.sync":
		return h.d.w.syncFile(n), n.disk.present
	case "postgresql.conf.async", "postgresql.auto.conf":
		return "", n.disk.present
	}
	return "", false
}

// ReadFile reads one of the recipe's files.
func (h *sshHost) ReadFile(ctx context.Context, name string) (data []byte, err error) {
	err = h.call(ctx, "read "+path.Base(name), false, func(end func(error)) {
		text, ok := h.file(name)
		if !ok {
			end(fmt.Errorf("read %s on %s: %w", name, h.n.id(), fs.ErrNotExist))
			return
		}
		data = []byte(text)
		end(nil)
	})
	return data, err
}

// ReplaceFile swaps postgresql.conf, unless somebody has edited it meanwhile.
func (h *sshHost) ReplaceFile(ctx context.Context, name string, old, data []byte) error {
	return h.call(ctx, "replace "+path.Base(name), true, func(end func(error)) {
		if text, ok := h.file(name); !ok || text != string(old) || path.Base(name) != "postgresql.conf" {
			end(fmt.Errorf("replace %s on %s: %w: it has been changed", name, h.n.id(), execute.ErrRefused))
			return
		}
		h.d.w.checkNames(h.n, string(data))
		h.n.disk.names, h.n.ours = string(data), true
		end(nil)
	})
}

// ControlData is pg_controldata.
func (h *sshHost) ControlData(ctx context.Context) (cd steps.ControlData, err error) {
	err = h.call(ctx, "pg_controldata", false, func(end func(error)) {
		d := &h.n.disk
		if !d.present || d.broken {
			end(fmt.Errorf("pg_controldata on %s: %w", h.n.id(), fs.ErrNotExist))
			return
		}
		cd = steps.ControlData{SystemIdentifier: d.system, State: d.state, Timeline: d.controlTLI, CheckpointLSN: d.checkpoint, BackupLabel: d.label}
		end(nil)
	})
	return cd, err
}

// History is a timeline's history file.
func (h *sshHost) History(ctx context.Context, tli cluster.Timeline) (text string, err error) {
	err = h.call(ctx, "history", false, func(end func(error)) {
		hist := h.n.disk.history
		for i, e := range hist {
			if i > 0 {
				text += fmt.Sprintf("%d\t%s\tno recovery target specified\n", hist[i-1].tli, e.at)
			}
			if e.tli == tli {
				end(nil)
				return
			}
		}
		end(fmt.Errorf("history of timeline %d on %s: %w", tli, h.n.id(), fs.ErrNotExist))
	})
	return text, err
}

// Rewind is pg_rewind: it believes the histories' numbers and positions.
func (h *sshHost) Rewind(ctx context.Context, from cluster.Node, progress func(string)) error {
	return h.copying(ctx, "pg_rewind", from, func(p *node) error {
		n, w := h.n, h.d.w
		d := &n.disk
		if !d.present || d.system != p.disk.system {
			return errors.New("pg_rewind: the target is not usable")
		}
		believed, ok := forked(d, &p.disk)
		if !ok {
			return errors.New("pg_rewind: could not find common ancestor of the source and target cluster's timelines")
		}
		if d.tli == p.disk.tli {
			return nil // "no rewind required"
		}
		// It copies what the target changed after the fork. Where the two
		// parted earlier than the histories say, the rest stays different.
		spoiled := w.end(d, common(d, &p.disk)) < believed && w.end(d, d.flushed) > w.end(d, common(d, &p.disk))
		if w.index(d, believed) < d.retained || w.index(&p.disk, believed) < p.disk.retained {
			return errors.New("pg_rewind: could not open file \"pg_wal/...\"")
		}
		w.checkOverwrite(n)
		w.stats.Rewinds++
		h.take(p, "in archive recovery")
		d.signal = true
		d.corrupt = d.corrupt || spoiled
		return nil
	})
}

// forked is where two histories say that they parted.
func forked(a, b *disk) (at cluster.LSN, ok bool) {
	for i := range a.history {
		if i >= len(b.history) || a.history[i] != b.history[i] {
			break
		}
		endA, _ := a.switchOf(a.history[i].tli)
		endB, _ := b.switchOf(b.history[i].tli)
		at, ok = min(endA, endB), true
	}
	return at, ok
}

// take makes the node's data a copy of another's.
func (h *sshHost) take(p *node, state string) {
	n, w := h.n, h.d.w
	upto := p.disk.flushed
	n.disk = disk{present: true, full: n.disk.full, system: p.disk.system, wal: walCopy(&p.disk, upto), flushed: upto, restart: p.disk.restart,
		retained: p.disk.restart, tli: p.disk.tli, history: slices.Clone(p.disk.history), state: state, controlTLI: p.disk.tli,
		checkpoint: w.end(&p.disk, p.disk.restart), names: p.disk.names, conninfo: p.disk.conninfo, slotName: p.disk.slotName, signal: p.disk.signal, corrupt: p.disk.corrupt, label: true}
	w.note("took", uint64(n.i), uint64(upto))
}

// Clone is pg_basebackup into a directory beside, then renamed.
func (h *sshHost) Clone(ctx context.Context, from cluster.Node, progress func(string)) error {
	return h.copying(ctx, "pg_basebackup", from, func(p *node) error {
		h.d.w.checkOverwrite(h.n)
		h.d.w.stats.Clones++
		h.take(p, "in production")
		h.n.disk.signal = true // before it is put in its place
		return nil
	})
}

// copying takes a while, in which the data is half done; a second one at the
// same time is refused, as the lock in the data directory does.
func (h *sshHost) copying(ctx context.Context, what string, from cluster.Node, finish func(p *node) error) error {
	return h.call(ctx, what+" from "+string(from.ID), true, func(end func(error)) {
		n, w := h.n, h.d.w
		p := w.byHost[from.Host]
		life := n.life
		if n.proc != down {
			end(fmt.Errorf("%s: the server runs", what))
			return
		}
		if p == nil || p.proc != up || p.frozen || p.recovery || w.cut[n.i][p.i] || w.cut[p.i][n.i] || n.disk.full {
			end(fmt.Errorf("%s: could not connect to the source, or no space left", what))
			return
		}
		if n.copying {
			end(fmt.Errorf("%s: %w: another one is under way", what, execute.ErrRetry))
			return
		}
		n.copying = true
		// A mark says that a rewind has begun, until it is done: whatever the
		// control file says, what is there may be a mixture.
		spoiled := n.disk.broken
		n.disk.broken = spoiled || what == "pg_rewind"
		plife := p.life
		w.at(w.between(50*time.Millisecond, 2*time.Second), func() {
			n.copying = false
			switch {
			case n.hostDown:
			case n.life != life: // somebody started it in the middle
				end(fmt.Errorf("%s: the server was started", what))
			case p.life != plife || p.frozen || w.cut[n.i][p.i] || w.cut[p.i][n.i] || n.disk.full:
				n.disk.broken = spoiled || what == "pg_rewind" && w.chance(0.5)
				end(fmt.Errorf("%s: the source went away", what))
			default:
				err := finish(p)
				if err != nil || what == "pg_rewind" {
					n.disk.broken = spoiled && err != nil
				}
				end(err)
			}
		})
	})
}

// ConfigureStandby writes standby.signal and primary_conninfo.
func (h *sshHost) ConfigureStandby(ctx context.Context, from cluster.Node, slot string) error {
	return h.call(ctx, "configure as a standby of "+string(from.ID), true, func(end func(error)) {
		d := &h.n.disk
		d.signal, d.conninfo, d.slotName, d.names = true, conninfo(h.n.spec, from), slot, ""
		end(nil)
	})
}

// Conninfo is how the node follows another.
func (h *sshHost) Conninfo(_ context.Context, from cluster.Node) (string, error) {
	return conninfo(h.n.spec, from), nil
}
