package sql

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// Receiving is what a standby receives and has replayed.
type Receiving struct {
	Conninfo string // primary_conninfo as in force, secrets and all: compare, never show
	Receiver bool   // there is a walreceiver, were it only about to connect
	Received cluster.LSN
	Replayed cluster.LSN
	Idle     bool // the startup process waits for more WAL: all that is here has been replayed
}

// Position is the WAL the standby holds.
func (r Receiving) Position() cluster.LSN { return max(r.Received, r.Replayed) }

// Receiving reads a standby's receiver, positions and whether replay has
// nothing left to do.
func (s *Server) Receiving(ctx context.Context) (Receiving, error) {
	var r Receiving
	err := s.do(ctx, "read the receiver", func(c *pgx.Conn) error {
		var recv, replay string
		err := c.QueryRow(ctx, `SELECT current_setting('primary_conninfo'),
			EXISTS (SELECT FROM pg_stat_wal_receiver) OR EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walreceiver'),
			coalesce(pg_last_wal_receive_lsn()::text, ''), coalesce(pg_last_wal_replay_lsn()::text, ''),
			EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'startup'
				AND wait_event IN ('RecoveryWalStream', 'RecoveryRetrieveRetryInterval'))`).
			Scan(&r.Conninfo, &r.Receiver, &recv, &replay, &r.Idle)
		if err != nil {
			return err
		}
		if r.Received, err = cluster.ParseLSN(recv); err != nil {
			return err
		}
		r.Replayed, err = cluster.ParseLSN(replay)
		return err
	})
	return r, err
}

// ResumeReplay ends a pause of a standby's replay, if there is one.
func (s *Server) ResumeReplay(ctx context.Context) error {
	return s.do(ctx, "pg_wal_replay_resume", func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, "SELECT pg_wal_replay_resume() WHERE pg_is_wal_replay_paused()")
		return err
	})
}

// SwitchLSN reads, from the server's own history file, where a timeline
// branched off its parent. The first timeline has no file and no such point.
func (s *Server) SwitchLSN(ctx context.Context, tli cluster.Timeline) (cluster.LSN, error) {
	if tli <= 1 {
		return 0, nil
	}
	var text string
	err := s.do(ctx, "read the timeline history", func(c *pgx.Conn) error {
		return c.QueryRow(ctx, "SELECT pg_read_file($1)", fmt.Sprintf("pg_wal/%08X.history", uint32(tli))).Scan(&text)
	})
	if err != nil {
		return 0, err
	}
	return lastSwitch(text)
}

// lastSwitch takes the switch position from the last line of a history file:
// parent timeline, position, reason (src/backend/access/transam/timeline.c).
func lastSwitch(history string) (cluster.LSN, error) {
	var last []string
	for _, line := range strings.Split(history, "\n") {
		if f := strings.Fields(line); len(f) >= 2 && !strings.HasPrefix(line, "#") {
			last = f
		}
	}
	if last == nil {
		return 0, fmt.Errorf("read the timeline history: no entry in %q", history)
	}
	return cluster.ParseLSN(last[1])
}

// Confirmed is how far standbys have confirmed the primary's WAL.
type Confirmed struct {
	Names   string // synchronous_standby_names as this session has it
	Flushed cluster.LSN
	By      map[cluster.NodeID]cluster.LSN // flush_lsn of those that stream and have a sync priority
	Twice   map[cluster.NodeID]bool        // names that two senders claim
	Waiting int                            // backends in SyncRep
	// Settled: the checkpointer is idle, so it has taken up the last reload.
	// It is the process that publishes the setting to all others, and while it
	// writes an immediate checkpoint commits still follow the old value.
	Settled bool
}

// Confirmed reads the state of synchronous replication on a primary.
func (s *Server) Confirmed(ctx context.Context) (Confirmed, error) {
	r := Confirmed{By: map[cluster.NodeID]cluster.LSN{}, Twice: map[cluster.NodeID]bool{}}
	err := s.do(ctx, "read the confirmed positions", func(c *pgx.Conn) error {
		clear(r.By)
		clear(r.Twice)
		var flush string
		err := c.QueryRow(ctx, `SELECT current_setting('synchronous_standby_names'), pg_current_wal_flush_lsn()::text,
			(SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'),
			EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'checkpointer'
				AND wait_event IN ('CheckpointerMain', 'CheckpointWriteDelay'))`).
			Scan(&r.Names, &flush, &r.Waiting, &r.Settled)
		if err != nil {
			return err
		}
		if r.Flushed, err = cluster.ParseLSN(flush); err != nil {
			return err
		}
		rows, err := c.Query(ctx, `SELECT application_name, flush_lsn::text FROM pg_stat_replication
			WHERE state = 'streaming' AND sync_priority > 0 AND flush_lsn IS NOT NULL`)
		if err != nil {
			return err
		}
		var name, lsn string
		_, err = pgx.ForEachRow(rows, []any{&name, &lsn}, func() error {
			id := cluster.NodeID(name)
			if _, seen := r.By[id]; seen {
				r.Twice[id] = true
			}
			v, err := cluster.ParseLSN(lsn)
			r.By[id] = v
			return err
		})
		return err
	})
	return r, err
}

// StreamsTo says whether the primary streams to a standby.
func (s *Server) StreamsTo(ctx context.Context, id cluster.NodeID) (streaming bool, state string, err error) {
	err = s.do(ctx, "read pg_stat_replication", func(c *pgx.Conn) error {
		return c.QueryRow(ctx, `SELECT coalesce(max(state), 'absent') FROM pg_stat_replication WHERE application_name = $1`, string(id)).Scan(&state)
	})
	return state == "streaming", state, err
}
