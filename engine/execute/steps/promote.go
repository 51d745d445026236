package steps

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/pgtandem/pgtandem/engine/clock"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/sql"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// promised looks at the server as well as at the record: a standby that
// somebody told to follow again since can confirm commits, whatever it promised
// in an earlier attempt at the same term.
func (w *World) promised(ctx context.Context, s plan.Step) (bool, string, error) {
	m := w.Records.Record().Members[s.Node]
	if fmt.Sprint(uint64(m.Promised)) != s.Args["term"] {
		return false, fmt.Sprintf("it promised for term %d", m.Promised), nil
	}
	srv, err := w.server(s.Node)
	if err != nil {
		return false, "", err
	}
	r, err := srv.Receiving(ctx)
	if err != nil {
		return false, "", err
	}
	return r.Conninfo == "" && !r.Receiver && r.Position() <= m.PromisedLSN, fmt.Sprintf("holds %s", m.PromisedLSN), nil
}

// takeBack forgets, durably, what a node promised for a term that has not
// begun. It comes before the node may receive again: a promise that only the
// record still holds would let a later promotion leave the node out of its
// count, while it confirms commits.
func (w *World) takeBack(ctx context.Context, id cluster.NodeID) error {
	if r := w.Records.Record(); r.Members[id].Promised <= r.Term {
		return nil
	}
	return w.member(ctx, id, func(m *cluster.Member) { m.Promised, m.PromisedLSN = 0, 0 })
}

// promise makes a standby stop receiving, durably, and records what it holds.
// Emptying primary_conninfo is durable on the standby (postgresql.auto.conf)
// and its receiver does not start again; from then on the old primary cannot
// collect its confirmation.
func (w *World) promise(ctx context.Context, s plan.Step, _ func(string)) error {
	term, err := strconv.ParseUint(s.Args["term"], 10, 64)
	if err != nil {
		return fmt.Errorf("%w: read the term of step %s: %w", execute.ErrRefused, s.ID, err)
	}
	srv, err := w.server(s.Node)
	if err != nil {
		return err
	}
	id, err := srv.Identity(ctx)
	if err != nil {
		return err
	}
	if !id.InRecovery {
		return fmt.Errorf("%w: %s is not in recovery, so it cannot promise", execute.ErrRefused, s.Node)
	}
	if err := w.stopReceiving(ctx, srv); err != nil {
		return err
	}
	if !s.Optional || s.Args["resume"] == "true" {
		// Before a pause ends nobody knows what it holds; and a promotion ends
		// it in any case.
		if err := srv.ResumeReplay(ctx); err != nil {
			return err
		}
	}
	held, err := w.quiet(ctx, s.Node, srv)
	if err != nil {
		return err
	}
	return w.member(ctx, s.Node, func(m *cluster.Member) { m.Promised, m.PromisedLSN = cluster.Term(term), held })
}

// stopReceiving empties primary_conninfo. Clients are held meanwhile, so a
// statement without an answer is settled by looking at once, and sent again
// only where the server says that it was not done.
func (w *World) stopReceiving(ctx context.Context, srv Server) error {
	return clock.Every(ctx, w.Clock, 20*time.Millisecond, func() (bool, string, error) {
		err := srv.AlterSystem(ctx, "primary_conninfo", "")
		if err == nil || !errors.Is(err, execute.ErrUnknown) {
			return err == nil, "", err
		}
		r, look := srv.Receiving(ctx)
		return look == nil && r.Conninfo == "", err.Error(), nil
	})
}

// quiet waits until the receiver is gone and local WAL is replayed, and gives
// the position. pg_last_wal_receive_lsn() alone restarts at a segment's start,
// so only a replayed position compares.
func (w *World) quiet(ctx context.Context, id cluster.NodeID, srv Server) (cluster.LSN, error) {
	var held, before cluster.LSN
	silent := 0
	err := clock.Every(ctx, w.Clock, 3*time.Millisecond, func() (bool, string, error) {
		r, err := srv.Receiving(ctx)
		if err != nil {
			return false, "", err
		}
		saw := fmt.Sprintf("receiver %v, received %s, replayed %s", r.Receiver, r.Received, r.Replayed)
		held = r.Position()
		if r.Conninfo != "" || r.Receiver {
			silent = 0
			return false, saw, nil
		}
		// The startup process may have begun to start a receiver with what it
		// had read before, when we looked first.
		silent++
		ended := replayedAll(r, before)
		before = r.Replayed
		return ended && silent > 1, saw, nil
	})
	if err != nil {
		return 0, fmt.Errorf("wait until %s receives nothing: %w", id, err)
	}
	return held, nil
}

// replayedAll says whether a standby that receives nothing has replayed all it
// has. before is what it had replayed when it was looked at last.
func replayedAll(r sql.Receiving, before cluster.LSN) bool {
	// A standby that was restarted and has received nothing since may have
	// much in pg_wal that it has yet to replay, and no position that says so.
	if r.Received != 0 && r.Replayed >= r.Received {
		return true
	}
	// The last record may have arrived in part; then replay ends before the
	// received position and waits for WAL that will not come.
	return r.Idle && r.Replayed == before
}

// countPromises holds the rule that makes a promotion safe: with n members of
// the sync set of whom any k acknowledge, n-k+1 that stopped receiving include
// one that has every acknowledged commit, and leave too few to acknowledge
// more.
func (w *World) countPromises(ctx context.Context, s plan.Step) (string, error) {
	r := w.Records.Record()
	term := r.Term + 1
	if err := w.kept(ctx, r); err != nil {
		return "", err
	}
	mine := r.Members[s.Node]
	if mine.Promised != term {
		return "", fmt.Errorf("%w: %s has not promised for term %d", execute.ErrRefused, s.Node, term)
	}
	if s.Args["force"] == "true" {
		return "forced by a person or by policy: nothing is counted", nil
	}
	if !decide.HoldsAll(r, s.Node) {
		return "", fmt.Errorf("%w: %s is not eligible: %s", execute.ErrRefused, s.Node, mine.Reason)
	}
	n, k, q := len(r.SyncSet.Members), r.SyncSet.K, 0
	for _, id := range r.SyncSet.Members {
		m := r.Members[id]
		if m.Promised != term {
			continue
		}
		q++
		// Eligible or not: one that is being dropped or taken in may have been
		// the only one to confirm a commit.
		if m.PromisedLSN > mine.PromisedLSN {
			return "", fmt.Errorf("%w: %s holds %s, more than %s with %s", execute.ErrRefused, id, m.PromisedLSN, s.Node, mine.PromisedLSN)
		}
	}
	if n == 0 || !slices.Contains(r.SyncSet.Members, s.Node) {
		return "", fmt.Errorf("%w: %s is not in the recorded sync set", execute.ErrRefused, s.Node)
	}
	if q < n-k+1 {
		return "", fmt.Errorf("%w: %d of %d promised and %d are needed (k = %d): the old primary could still acknowledge", execute.ErrRefused, q, n, n-k+1, k)
	}
	return fmt.Sprintf("%d of %d promised, %d needed; %s holds %s", q, n, n-k+1, s.Node, mine.PromisedLSN), nil
}

// kept looks once more at everybody who has promised: a receiver that was being
// started when the promise was given is seen now, and what came over it.
func (w *World) kept(ctx context.Context, r cluster.Record) error {
	for id, m := range r.Members {
		if m.Promised != r.Term+1 {
			continue
		}
		srv, err := w.server(id)
		if err != nil {
			return err
		}
		is, err := srv.Receiving(ctx)
		if errors.Is(err, execute.ErrUnreachable) {
			continue // it receives nothing while it is down, and remembers what it was told
		}
		if err != nil {
			return err
		}
		if is.Conninfo != "" || is.Receiver || is.Position() > m.PromisedLSN {
			return fmt.Errorf("%w: %s promised at %s, and receives (%v) or holds %s now: the promises are asked for again", execute.ErrRetry, id, m.PromisedLSN, is.Receiver, is.Position())
		}
	}
	return nil
}

func (w *World) promotedAlready(ctx context.Context, s plan.Step) (bool, string, error) {
	srv, err := w.server(s.Node)
	if err != nil {
		return false, "", err
	}
	id, err := srv.Identity(ctx)
	if err != nil {
		return false, "", err
	}
	return !id.InRecovery, fmt.Sprintf("timeline %d", id.Timeline), nil
}

func (w *World) promote(ctx context.Context, s plan.Step, _ func(string)) error {
	srv, err := w.server(s.Node)
	if err != nil {
		return err
	}
	// The count is done; this is for a promotion that goes on from the journal.
	if r := w.Records.Record(); r.Members[s.Node].Promised != r.Term+1 {
		return fmt.Errorf("%w: promote %s: it has not promised for term %d", execute.ErrRefused, s.Node, r.Term+1)
	}
	// A new primary that waits for a standby which does not exist yet would
	// hang its first commit.
	v, err := srv.Show(ctx, syncNames)
	if err != nil {
		return err
	}
	if v.Value != "" {
		off := plan.Step{ID: s.ID, Node: s.Node, Args: map[string]string{"names": "", "mode": string(cluster.ModeAsync)}}
		if err := w.swap(ctx, off); err != nil {
			return err
		}
	}
	return srv.Promote(ctx)
}

func (w *World) writable(ctx context.Context, s plan.Step) (bool, string, error) {
	srv, err := w.server(s.Node)
	if err != nil {
		return false, "", err
	}
	id, err := srv.Identity(ctx)
	if err != nil {
		return false, "", err
	}
	r := w.Records.Record()
	saw := fmt.Sprintf("in recovery: %v, timeline %d, system %d", id.InRecovery, id.Timeline, id.SystemIdentifier)
	if id.SystemIdentifier != r.SystemIdentifier || id.Timeline != r.Timeline {
		return false, saw, fmt.Errorf("%w: %s has timeline %d of system %d, recorded are %d and %d",
			execute.ErrRefused, s.Node, id.Timeline, id.SystemIdentifier, r.Timeline, r.SystemIdentifier)
	}
	if !id.InRecovery && r.Stopping == s.Node {
		if _, err := w.Records.Update(ctx, func(r *cluster.Record) error { r.Stopping = ""; return nil }); err != nil {
			return false, saw, err
		}
	}
	return !id.InRecovery, saw, nil
}

func (w *World) checkpoint(ctx context.Context, s plan.Step) (string, error) {
	srv, err := w.server(s.Node)
	if err != nil {
		return "", err
	}
	return "done", srv.Checkpoint(ctx)
}

// receivedAll compares a cleanly stopped primary's last record, its shutdown
// checkpoint, with what the standby holds.
func (w *World) receivedAll(ctx context.Context, s plan.Step) (bool, string, error) {
	h, err := w.host(from(s))
	if err != nil {
		return false, "", err
	}
	srv, err := w.server(s.Node)
	if err != nil {
		return false, "", err
	}
	cd, err := h.ControlData(ctx)
	if err != nil {
		return false, "", err
	}
	if cd.State != "shut down" {
		return false, cd.State, fmt.Errorf("%w: %s is %q, not cleanly shut down", execute.ErrRefused, from(s), cd.State)
	}
	r, err := srv.Receiving(ctx)
	if err != nil {
		return false, "", err
	}
	// The position is that of the record's beginning: to be past it is to
	// have it.
	return r.Position() > cd.CheckpointLSN, fmt.Sprintf("shutdown checkpoint at %s, %s holds %s", cd.CheckpointLSN, s.Node, r.Position()), nil
}
