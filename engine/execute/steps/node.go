package steps

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/engine/clock"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/sql"
	"github.com/pgtandem/pgtandem/engine/plan"
)

func (w *World) stopped(ctx context.Context, s plan.Step) (bool, string, error) {
	h, err := w.host(s.Node)
	if err != nil {
		return false, "", err
	}
	state, pid, err := h.Postmaster(ctx)
	if err != nil {
		return false, "", err
	}
	return state == cluster.PostmasterStopped || state == cluster.PostmasterAbsent, fmt.Sprintf("postmaster %s, pid %d", state, pid), nil
}

func (w *World) stop(ctx context.Context, s plan.Step, _ func(string)) error {
	h, err := w.host(s.Node)
	if err != nil {
		return err
	}
	if err := h.Stop(ctx, s.Args["mode"]); err != nil {
		return fmt.Errorf("stop %s: %w", s.Node, err)
	}
	return nil
}

func (w *World) started(ctx context.Context, s plan.Step) (bool, string, error) {
	h, err := w.host(s.Node)
	if err != nil {
		return false, "", err
	}
	state, pid, err := h.Postmaster(ctx)
	if err != nil || state != cluster.PostmasterRunning {
		return false, "postmaster " + string(state), err
	}
	srv, err := w.server(s.Node)
	if err != nil {
		return false, "", err
	}
	if err := srv.Warm(ctx); err != nil {
		return false, "it does not answer yet", nil //nolint:nilerr // starting up is not a failure; the deadline is
	}
	return true, fmt.Sprintf("pid %d", pid), nil
}

// start also waits for the server to answer: recovery may take minutes, but a
// server that has ended will not answer however long one waits.
func (w *World) start(ctx context.Context, s plan.Step, _ func(string)) error {
	h, err := w.host(s.Node)
	if err != nil {
		return err
	}
	if err := h.Start(ctx); err != nil {
		return fmt.Errorf("start %s: %w", s.Node, err)
	}
	return clock.Every(ctx, w.Clock, 50*time.Millisecond, func() (bool, string, error) {
		done, saw, err := w.started(ctx, s)
		if done || err != nil {
			return done, saw, err
		}
		if state, _, err := h.Postmaster(ctx); err == nil && state != cluster.PostmasterRunning {
			return false, saw, fmt.Errorf("%s was started and has ended again (postmaster %s); its log says why", s.Node, state)
		}
		return false, saw, nil
	})
}

// compatible says whether a stopped node could follow the primary as it is:
// its history is a prefix of the primary's. A server that crashed may have
// written past its last checkpoint, so only a clean stop proves where it ends.
func (w *World) compatible(ctx context.Context, s plan.Step) (bool, string, error) {
	h, err := w.host(s.Node)
	if err != nil {
		return false, "", err
	}
	cd, err := h.ControlData(ctx)
	if err != nil {
		return false, "no usable control data", nil //nolint:nilerr // a missing or broken directory is cloned
	}
	r := w.Records.Record()
	if r.Members[s.Node].Astray {
		return cd.BackupLabel, "it took writes behind our back", nil
	}
	saw := fmt.Sprintf("%s, timeline %d, checkpoint %s", cd.State, cd.Timeline, cd.CheckpointLSN)
	if cd.SystemIdentifier != r.SystemIdentifier {
		return false, saw + ", another system", nil
	}
	if cd.Timeline == r.Timeline {
		// A timeline has one writer, the primary. Whoever else wrote on it, as
		// a standby without its signal file does, has a history of its own
		// under the same number, which pg_rewind cannot tell apart.
		return !wrote(cd), saw, nil
	}
	if wrote(cd) && !wasPrimary(r, s.Node, cd.Timeline) {
		return false, saw + ", where it took writes without being the primary", nil
	}
	clean := cd.State == "shut down" || cd.State == "shut down in recovery"
	for i, e := range r.History {
		if e.Timeline == cd.Timeline && i+1 < len(r.History) {
			return clean && cd.CheckpointLSN < r.History[i+1].SwitchLSN, saw, nil
		}
	}
	return false, saw, nil
}

// overwritten is compatible, and where a node must be overwritten whatever its
// control file says, that it was: because the WAL that it would need is gone, or
// because it was seen to have left the history. Only a directory that was not
// started since it was rewound or copied has the label that says so.
func (w *World) overwritten(ctx context.Context, s plan.Step) (bool, string, error) {
	ok, saw, err := w.compatible(ctx, s)
	if err != nil || !ok || s.Args["always"] != "true" {
		return ok, saw, err
	}
	h, err := w.host(s.Node)
	if err != nil {
		return false, "", err
	}
	cd, err := h.ControlData(ctx)
	return err == nil && cd.BackupLabel, saw, err
}

func (w *World) rewind(ctx context.Context, s plan.Step, progress func(string)) error {
	h, primary, err := w.pair(ctx, s)
	if err != nil {
		return err
	}
	if err := w.tellable(ctx, h, s.Node); err != nil {
		return err
	}
	// pg_rewind compares control files, and a just-promoted primary writes its
	// new timeline there at the next checkpoint only.
	srv, err := w.server(from(s))
	if err != nil {
		return err
	}
	if err := srv.Checkpoint(ctx); err != nil {
		return err
	}
	if err := h.Rewind(ctx, primary, progress); err != nil {
		return fmt.Errorf("rewind %s: %w", s.Node, err)
	}
	// It also succeeds where it sees nothing to do, and more looking would not
	// change that.
	if ok, saw, err := w.overwritten(ctx, s); err != nil || !ok {
		return errors.Join(err, fmt.Errorf("%w: rewind %s: its history is still not the primary's: %s", execute.ErrRefused, s.Node, saw))
	}
	return nil
}

// tellable refuses to rewind what took writes without having been the recorded
// primary. It was promoted behind our back, perhaps under the very number and
// at the very position of our own promotion; pg_rewind knows histories by
// nothing else, and would leave a mixture of two (Kindahl, "TLA+ and PostgreSQL",
// pgsql-hackers 2026-04).
func (w *World) tellable(ctx context.Context, h Host, id cluster.NodeID) error {
	cd, err := h.ControlData(ctx)
	if err != nil {
		return fmt.Errorf("rewind %s: %w", id, err)
	}
	if wrote(cd) && !wasPrimary(w.Records.Record(), id, cd.Timeline) {
		return fmt.Errorf("%w: rewind %s: it took writes on timeline %d or after it without being the primary of any: only a copy makes sure of its history", execute.ErrRefused, id, cd.Timeline)
	}
	if w.Records.Record().Members[id].Astray {
		return fmt.Errorf("%w: rewind %s: it took writes behind our back: only a copy makes sure of its history", execute.ErrRefused, id)
	}
	return nil
}

// wasPrimary says whether a node was the recorded primary of a timeline, or of a
// later one: the control file's timeline is behind until the first checkpoint.
func wasPrimary(r cluster.Record, id cluster.NodeID, tli cluster.Timeline) bool {
	return slices.ContainsFunc(r.History, func(e cluster.HistoryEntry) bool { return e.Node == id && e.Timeline >= tli })
}

// wrote says whether a server's control file is that of a primary.
func wrote(cd ControlData) bool {
	return cd.State != "in archive recovery" && cd.State != "shut down in recovery" && !cd.BackupLabel
}

func (w *World) clone(ctx context.Context, s plan.Step, progress func(string)) error {
	h, primary, err := w.pair(ctx, s)
	if err != nil {
		return err
	}
	// It holds the WAL that the copy needs when it begins to stream.
	if _, _, err := w.ensureSlot(ctx, s.Node, primary.ID); err != nil {
		return err
	}
	if err := h.Clone(ctx, primary, progress); err != nil {
		return fmt.Errorf("clone %s: %w", s.Node, err)
	}
	if ok, saw, err := w.overwritten(ctx, s); err != nil || !ok {
		return errors.Join(err, fmt.Errorf("clone %s: it is done, and what is there is not a copy of %s: %s", s.Node, from(s), saw))
	}
	return nil
}

// pair gives the node's host and its primary, after proving that what is about
// to be overwritten is not the primary and not running.
func (w *World) pair(ctx context.Context, s plan.Step) (Host, cluster.Node, error) {
	primary, err := w.node(from(s))
	if err != nil {
		return nil, primary, err
	}
	if r := w.Records.Record(); r.Primary == s.Node || r.Primary != primary.ID || r.Members[s.Node].Eligible {
		return nil, primary, fmt.Errorf("%w: %s is the primary or is eligible: its data is not overwritten", execute.ErrRefused, s.Node)
	}
	ok, saw, err := w.stopped(ctx, s)
	if err != nil {
		return nil, primary, err
	}
	if !ok {
		return nil, primary, fmt.Errorf("%w: %s runs (%s): its data is not overwritten", execute.ErrRefused, s.Node, saw)
	}
	h, err := w.host(s.Node)
	if err != nil {
		return nil, primary, err
	}
	return h, primary, w.spare(ctx, h, s.Node, primary.ID)
}

// spare proves that nothing is lost with a node's data: the recorded primary
// answers, takes writes and writes the recorded timeline, and what is to be
// overwritten is of the same database system.
func (w *World) spare(ctx context.Context, h Host, id, primary cluster.NodeID) error {
	srv, err := w.server(primary)
	if err != nil {
		return err
	}
	r := w.Records.Record()
	is, err := srv.Identity(ctx)
	if err != nil {
		return fmt.Errorf("see that %s is not the last good copy: %w", id, err)
	}
	if is.InRecovery || is.SystemIdentifier != r.SystemIdentifier || is.Timeline != r.Timeline {
		return fmt.Errorf("%w: %s is in recovery, or not on timeline %d of system %d: %s may be the last good copy, and is not overwritten",
			execute.ErrRefused, primary, r.Timeline, r.SystemIdentifier, id)
	}
	if cd, err := h.ControlData(ctx); err == nil && cd.SystemIdentifier != r.SystemIdentifier {
		return fmt.Errorf("%w: the data directory of %s belongs to another database system (identifier %d): move it aside first",
			execute.ErrRefused, id, cd.SystemIdentifier)
	}
	return nil
}

func (w *World) configure(ctx context.Context, s plan.Step) (string, error) {
	h, err := w.host(s.Node)
	if err != nil {
		return "", err
	}
	primary, err := w.node(from(s))
	if err != nil {
		return "", err
	}
	if err := w.takeBack(ctx, s.Node); err != nil {
		return "", err
	}
	if err := w.untouched(ctx, h, s); err != nil {
		return "", err
	}
	slot, said, err := w.ensureSlot(ctx, s.Node, primary.ID)
	if err != nil {
		return "", err
	}
	if err := h.ConfigureStandby(ctx, primary, slot); err != nil {
		return "", fmt.Errorf("configure %s as a standby: %w", s.Node, err)
	}
	if w.Policy().SwapMethod == cluster.SwapFiles {
		n, err := w.node(s.Node)
		if err != nil {
			return "", err
		}
		if err := AsyncByFiles(ctx, h, n); err != nil {
			return "", err
		}
	}
	// Once more: who was started between the look and the last write has read
	// what was there before.
	return "standby.signal and primary_conninfo are written" + said, w.untouched(ctx, h, s)
}

// untouched stops a server that somebody has started while we worked on its
// data, and sees whether that has spoiled it. It would go on with the settings
// it has read, which name no primary; and a copy that starts without
// standby.signal is a second primary on the timeline of the first.
func (w *World) untouched(ctx context.Context, h Host, s plan.Step) error {
	state, _, err := h.Postmaster(ctx)
	if err != nil {
		return err
	}
	if state == cluster.PostmasterRunning {
		if err := h.Stop(ctx, "fast"); err != nil {
			return fmt.Errorf("stop %s, which somebody has started meanwhile: %w", s.Node, err)
		}
	}
	if ok, saw, err := w.compatible(ctx, s); err != nil || !ok {
		return errors.Join(err, fmt.Errorf("%w: %s does not hold the primary's history any more, somebody has started it meanwhile: %s", execute.ErrRefused, s.Node, saw))
	}
	return nil
}

func (w *World) follow(ctx context.Context, s plan.Step) (string, error) {
	h, err := w.host(s.Node)
	if err != nil {
		return "", err
	}
	srv, err := w.server(s.Node)
	if err != nil {
		return "", err
	}
	primary, err := w.node(from(s))
	if err != nil {
		return "", err
	}
	conninfo, err := h.Conninfo(ctx, primary)
	if err != nil {
		return "", err
	}
	if strings.Contains(conninfo, "password=") {
		return "", fmt.Errorf("%w: primary_conninfo would carry a password", execute.ErrRefused)
	}
	if err := w.takeBack(ctx, s.Node); err != nil {
		return "", err
	}
	slot, said, err := w.ensureSlot(ctx, s.Node, primary.ID)
	if err != nil {
		return "", err
	}
	// The name first: with the settings the other way round it would connect
	// with the slot of whomever it followed before.
	if err := w.nameSlot(ctx, srv, slot); err != nil {
		return "", err
	}
	return "primary_conninfo is set" + said, srv.AlterSystem(ctx, "primary_conninfo", conninfo)
}

// patience is how long a standby may be without a connection to its primary
// before it is given up; it tries every wal_retrieve_retry_interval, 5 s by
// default.
const patience = 45 * time.Second

// connecting waits until the primary streams to the standby, as long as it
// takes to catch up. A standby that cannot have what it asks for, or is gone,
// has no connection at all, and only its own log says why.
func (w *World) connecting(ctx context.Context, s plan.Step, _ func(string)) error {
	srv, err := w.server(from(s))
	if err != nil {
		return err
	}
	seen := w.Clock.Now()
	return clock.Every(ctx, w.Clock, 50*time.Millisecond, func() (bool, string, error) {
		_, state, err := srv.StreamsTo(ctx, s.Node)
		now := w.Clock.Now()
		if err == nil && state != "absent" {
			seen = now
		}
		if err == nil && state == sql.SlotLost {
			return false, state, fmt.Errorf("%s wrote more than max_slot_wal_keep_size before %s had connected: the WAL that its replication slot held is gone", from(s), s.Node)
		}
		if now.Sub(seen) > patience {
			return false, state, fmt.Errorf("%s has had no connection to %s for %s; its log says why", s.Node, from(s), patience)
		}
		if errors.Is(err, execute.ErrUnknown) || errors.Is(err, execute.ErrUnreachable) {
			return false, err.Error(), nil
		}
		return state == "streaming", state, err
	})
}

func (w *World) streaming(ctx context.Context, s plan.Step) (bool, string, error) {
	srv, err := w.server(from(s))
	if err != nil {
		return false, "", err
	}
	return srv.StreamsTo(ctx, s.Node)
}
