package decide

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// watchWishes keeps since when async by hand was seen.
func (f *facts) watchWishes(mem *Memory) {
	if f.Record.WantMode != cluster.ModeAsync {
		mem.AsyncSince = time.Time{}
	} else if mem.AsyncSince.IsZero() {
		mem.AsyncSince = f.now
	}
}

// watchTerms counts failovers: changes of primary after the one before was
// found lost. A switchover is none.
func (f *facts) watchTerms(mem *Memory) {
	switch {
	case mem.LostTerm == 0:
	case f.Record.Term > mem.LostTerm:
		mem.LostTerm = 0
		if f.Policy.DampingWindow > 0 {
			mem.Failovers = append(mem.Failovers, f.now)
		}
	case f.lost == present:
		mem.LostTerm = 0 // it came back by itself
	}
}

// watchSenders finds the standbys that commits wait for and that are gone.
// The running value counts, not the recorded mode: a commit waits for what
// the server has in force.
func (f *facts) watchSenders(mem *Memory) {
	if !f.primary.Up() || f.primary.Role != cluster.RolePrimary {
		return
	}
	for _, s := range f.others {
		row, ok := f.primary.SenderTo(s.ID)
		streaming := ok && row.State == "streaming"
		since(mem.StreamingSince, s.ID, streaming, f.now)
		f.follow(mem, s.ID, row, streaming)
		rows := f.sendersOf(s.ID)
		if len(rows) > 1 {
			f.claimed = append(f.claimed, claimOf(s.ID, rows))
		}
		if !f.counted(s.ID) {
			delete(mem.SenderMissing, s.ID)
			delete(mem.Out, s.ID)
			continue
		}
		since(mem.SenderMissing, s.ID, !streaming, f.now)
		gone := len(f.absent)
		f.weighStandby(s, rows, mem.SenderMissing[s.ID], f.stalled(s.ID))
		f.countLoss(mem, s.ID, len(f.absent) > gone)
	}
}

// since keeps the moment from which something has held without interruption.
func since(times map[cluster.NodeID]time.Time, id cluster.NodeID, holds bool, now time.Time) {
	if _, seen := times[id]; !holds {
		delete(times, id)
	} else if !seen {
		times[id] = now
	}
}

// countLoss counts a loss once, however long it lasts.
func (f *facts) countLoss(mem *Memory, id cluster.NodeID, gone bool) {
	switch {
	case !gone:
		delete(mem.Out, id)
	case !mem.Out[id]:
		mem.Out[id] = true
		if f.Policy.DampingWindow > 0 {
			mem.Losses[id] = append(mem.Losses[id], f.now)
		}
	}
}

func (f *facts) sendersOf(id cluster.NodeID) (rows []cluster.Sender) {
	for _, row := range f.primary.Senders {
		if row.ApplicationName == string(id) {
			rows = append(rows, row)
		}
	}
	return rows
}

// claimOf tells two servers from one that was cut off and is back before the
// primary has noticed: the addresses differ, or they do not.
func claimOf(id cluster.NodeID, rows []cluster.Sender) claim {
	c := claim{id: id}
	for _, r := range rows {
		if !slices.Contains(c.from, r.ClientAddr) {
			c.from = append(c.from, r.ClientAddr)
		}
	}
	c.why = fmt.Sprintf("%d replication connections claim the name %s, all from %q", len(rows), id, c.from[0])
	if c.two() {
		c.why = fmt.Sprintf("%d servers claim the name %s, from %s", len(c.from), id, strings.Join(c.from, " and "))
	}
	return c
}

// two: they are two servers for certain.
func (c claim) two() bool { return len(c.from) > 1 }

// confirmed is what of a sender's row releases a commit (PostgreSQL docs,
// 20.5.1, synchronous_commit).
func confirmed(p cluster.NodeFacts, row cluster.Sender) cluster.LSN {
	switch p.SynchronousCommit {
	case "remote_apply":
		return row.ReplayLSN
	case "remote_write":
		return row.WriteLSN
	}
	return row.FlushLSN
}

// follow keeps since when a standby that streams has been behind without
// confirming anything more.
func (f *facts) follow(mem *Memory, id cluster.NodeID, row cluster.Sender, streaming bool) {
	at := confirmed(f.primary, row)
	if was, seen := mem.Confirmed[id]; !streaming || at >= f.primary.FlushLSN {
		delete(mem.Confirmed, id)
	} else if !seen || was.LSN != at {
		mem.Confirmed[id] = Progress{at, f.primary.LastOK}
	}
}

// still is how long a standby that seems to stream has been behind and has
// confirmed nothing more: the network between it and the primary is cut, one
// way or both, and neither has noticed, which takes a minute by default
// (wal_sender_timeout).
func (f *facts) still(id cluster.NodeID) time.Duration {
	p, seen := f.Memory.Confirmed[id]
	if !seen {
		return 0
	}
	// From look to look: a look that is late says nothing of the standby.
	return max(0, f.primary.LastOK.Sub(p.Since))
}

// stalled is the same where commits wait, so that it matters, and at most for as
// long as the server itself says that one has waited.
func (f *facts) stalled(id cluster.NodeID) time.Duration {
	if f.primary.SyncWaiters == 0 {
		return 0
	}
	return min(f.still(id), f.primary.OldestWait)
}

func (f *facts) weighStandby(s cluster.NodeFacts, rows []cluster.Sender, missing time.Time, stalled time.Duration) {
	grade, why := evidence(s, f.Policy.CheckRetries)
	if grade == lost && missing.IsZero() && f.primary.OldestWait < f.Policy.CheckPeriod {
		// We do not reach it, and it confirms what the primary sends.
		grade, why = suspected, why+", and the primary streams to it"
	}
	what := "the primary has no usable replication connection from it"
	switch len(rows) {
	case 0:
	case 1:
		// One that catches up confirms nothing either, however long it takes.
		what = "the primary does not stream to it"
	default:
		what = claimOf(s.ID, rows).why
	}
	long := patience(f.Policy)
	switch {
	case grade == proven, grade == lost:
		f.absent = append(f.absent, lostStandby{s, why})
	case !missing.IsZero() && f.now.Sub(missing) >= long:
		f.absent = append(f.absent, lostStandby{s, what + " since " + f.now.Sub(missing).Round(time.Millisecond).String()})
	case stalled >= long:
		f.absent = append(f.absent, lostStandby{s, fmt.Sprintf("commits wait, and it has confirmed nothing for %s although the primary streams to it", stalled.Round(time.Millisecond))})
	case grade != present:
		f.waiting = append(f.waiting, lostStandby{s, why})
	case !missing.IsZero():
		f.waiting = append(f.waiting, lostStandby{s, what})
	case stalled >= long/2:
		f.waiting = append(f.waiting, lostStandby{s, fmt.Sprintf("commits wait, and it has confirmed nothing for %s", stalled.Round(time.Millisecond))})
	}
}

// watchIdle follows the standbys that receive nothing: whether their replay
// moves, as it does where an archive serves them, and whether they hold WAL
// that the primary lacks.
func (f *facts) watchIdle(mem *Memory) {
	for _, s := range f.others {
		idle := s.Up() && s.Role == cluster.RoleStandby && s.Receiver == nil && f.primary.Up()
		since(mem.Ahead, s.ID, idle && ahead(f.Record, f.primary, s) > 0, f.now)
		if was, seen := mem.Replayed[s.ID]; !idle {
			delete(mem.Replayed, s.ID)
		} else if !seen || was.LSN != s.ReplayLSN {
			mem.Replayed[s.ID] = Progress{s.ReplayLSN, f.now}
		}
	}
}

// stretch is how long a standby must still stream without interruption before
// commits wait for it again, with the reason; zero where it may be taken back.
func (f *facts) stretch(id cluster.NodeID) (left time.Duration, why string) {
	losses := len(f.Memory.Losses[id])
	needed := stretchNeeded(f.Policy, losses)
	if needed == 0 {
		return 0, ""
	}
	streamed := time.Duration(0)
	if t, ok := f.Memory.StreamingSince[id]; ok {
		streamed = f.now.Sub(t)
	}
	return max(0, needed-streamed), fmt.Sprintf("it was lost %d times in the last %s, so it must stream for %s without interruption, %s so far",
		losses, f.Policy.DampingWindow, needed, streamed.Round(100*time.Millisecond))
}
