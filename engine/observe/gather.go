package observe

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// oneLook gathers a node's own facts in one query. What is secret in
// primary_conninfo is cut before it leaves the server, in the keyword form
// and in the form of a URI (PostgreSQL docs, 34.1.1).
//
// A primary's timeline is that of the WAL it writes. A standby's is the one it
// receives; where it receives nothing, the control file alone would be behind,
// since it is written at restartpoints only, and a standby that has followed a
// promotion would seem to belong to the history before it. So the newest
// timeline that has a WAL file for the standby's position counts as well.
//
// A run of the server begins with its checkpointer: a backend that crashes takes
// all others down and WAL is replayed, under the same postmaster.
const oneLook = `
SELECT r, s.system_identifier, current_setting('server_version_num')::int,
  greatest(pg_postmaster_start_time(), (SELECT max(backend_start) FROM pg_stat_activity WHERE backend_type = 'checkpointer')),
  CASE WHEN r THEN coalesce((SELECT nullif(received_tli, 0) FROM pg_stat_wal_receiver),
         greatest(c.timeline_id, m.min_recovery_end_timeline,
           (SELECT max(('x' || substr(name, 1, 8))::bit(32)::bigint) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' AND substr(name, 9) = p.file)))
       ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint END,
  CASE WHEN r THEN '' ELSE pg_current_wal_insert_lsn()::text END,
  CASE WHEN r THEN '' ELSE pg_current_wal_flush_lsn()::text END,
  coalesce(pg_last_wal_receive_lsn()::text, ''), coalesce(pg_last_wal_replay_lsn()::text, ''),
  CASE WHEN r THEN pg_is_wal_replay_paused() ELSE false END,
  n.setting, coalesce(n.sourcefile || ':' || n.sourceline, ''), current_setting('synchronous_commit'),
  coalesce(regexp_replace(regexp_replace(current_setting('primary_conninfo', true),
      '(password|scram_client_key|scram_server_key)(\s*=\s*)(''(\\.|[^''\\])*''|\S+)', '\1\2********', 'g'),
      '(://[^:/@\s]*):[^@\s]*@', '\1:********@'), ''), coalesce(current_setting('primary_slot_name', true), ''),
  w.n, coalesce(w.oldest, 0), CASE WHEN r THEN 0 ELSE coalesce(w.xact, 0) END
FROM pg_is_in_recovery() r, pg_control_system() s, pg_control_checkpoint() c, pg_control_recovery() m, pg_settings n,
  (SELECT count(*) FILTER (WHERE wait_event = 'SyncRep')::int n,
     extract(epoch FROM max(clock_timestamp() - state_change) FILTER (WHERE wait_event = 'SyncRep'))::float8 oldest,
     extract(epoch FROM max(clock_timestamp() - xact_start) FILTER (WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()))::float8 xact
     FROM pg_stat_activity) w,
  (SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), '0/1') - '0/1'::pg_lsn AS byte,
     pg_size_bytes(current_setting('wal_segment_size')) AS size) l,
  LATERAL (SELECT upper(lpad(to_hex(div(byte, 4294967296)::bigint), 8, '0') || lpad(to_hex(div(mod(byte, 4294967296), size)::bigint), 8, '0')) AS file) p
WHERE n.name = 'synchronous_standby_names'`

const senders = `
SELECT application_name, coalesce(host(client_addr), ''), state, sync_state, sync_priority,
  coalesce(sent_lsn::text, ''), coalesce(write_lsn::text, ''), coalesce(flush_lsn::text, ''), coalesce(replay_lsn::text, ''),
  coalesce(extract(epoch FROM write_lag), -1)::float8, coalesce(extract(epoch FROM flush_lag), -1)::float8, coalesce(extract(epoch FROM replay_lag), -1)::float8,
  coalesce(reply_time, 'epoch'), coalesce((SELECT slot_name FROM pg_replication_slots s WHERE s.active_pid = r.pid), '')
FROM pg_stat_replication r WHERE application_name IS NOT NULL AND state IS NOT NULL AND state <> 'backup' ORDER BY application_name, pid`

const receiver = `
SELECT status, coalesce(sender_host, ''), coalesce(sender_port, 0), coalesce(received_tli, 0),
  coalesce(written_lsn::text, ''), coalesce(flushed_lsn::text, ''), coalesce(latest_end_lsn::text, ''), coalesce(last_msg_receipt_time, 'epoch'), clock_timestamp()
FROM pg_stat_wal_receiver WHERE status IS NOT NULL`

const slots = `
SELECT slot_name, active, coalesce(wal_status, ''), coalesce(restart_lsn::text, '') FROM pg_replication_slots WHERE slot_type = 'physical' ORDER BY slot_name`

// gather asks one node what a decision may depend on at once, in one batch: one
// round trip.
func gather(ctx context.Context, conn *pgx.Conn, asked time.Time) (f cluster.NodeFacts, err error) {
	b := &pgx.Batch{}
	b.Queue(oneLook).QueryRow(func(r pgx.Row) error { return scanNode(r, &f) })
	b.Queue(senders).Query(func(rows pgx.Rows) error { return scanSenders(rows, &f) })
	b.Queue(slots).Query(func(rows pgx.Rows) error { return scanSlots(rows, &f) })
	b.Queue(receiver).Query(func(rows pgx.Rows) error { return scanReceiver(rows, &f, asked) })
	err = conn.SendBatch(ctx, b).Close()
	if code(err) == notAllowed {
		return f, fmt.Errorf("look at the node: role %s may not see what is needed; GRANT pg_monitor TO it: %w", conn.Config().User, err)
	}
	if err != nil {
		return f, fmt.Errorf("look at the node: %w", err)
	}
	return f, nil
}

func scanNode(r pgx.Row, f *cluster.NodeFacts) error {
	var recovery bool
	var system, timeline int64
	var insert, flush, received, replayed string
	var oldest, xact float64
	err := r.Scan(&recovery, &system, &f.ServerVersion, &f.StartedAt, &timeline, &insert, &flush, &received, &replayed,
		&f.ReplayPaused, &f.SyncStandbyNames, &f.SyncNamesSource, &f.SynchronousCommit, &f.Conninfo, &f.SlotName, &f.SyncWaiters, &oldest, &xact)
	if err != nil {
		return err
	}
	f.Role = cluster.RolePrimary
	if recovery {
		f.Role = cluster.RoleStandby
	}
	f.SystemIdentifier, f.Timeline = uint64(system), cluster.Timeline(timeline)
	f.OldestWait, f.OldestXact = seconds(oldest), seconds(xact)
	return lsns(pair{insert, &f.InsertLSN}, pair{flush, &f.FlushLSN}, pair{received, &f.ReceiveLSN}, pair{replayed, &f.ReplayLSN})
}

// pair is a position as text and where it goes.
type pair struct {
	text string
	to   *cluster.LSN
}

func lsns(pairs ...pair) error {
	for _, p := range pairs {
		v, err := cluster.ParseLSN(p.text)
		if err != nil {
			return err
		}
		*p.to = v
	}
	return nil
}

// seconds turns PostgreSQL's seconds into a duration; NULL came as -1 and
// stays negative: there is no measurement.
func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func scanSenders(rows pgx.Rows, f *cluster.NodeFacts) error {
	var s cluster.Sender
	var sent, write, flush, replay string
	var writeLag, flushLag, replayLag float64
	_, err := pgx.ForEachRow(rows, []any{&s.ApplicationName, &s.ClientAddr, &s.State, &s.SyncState, &s.SyncPriority,
		&sent, &write, &flush, &replay, &writeLag, &flushLag, &replayLag, &s.ReplyTime, &s.Slot}, func() error {
		s.WriteLag, s.FlushLag, s.ReplayLag = seconds(writeLag), seconds(flushLag), seconds(replayLag)
		err := lsns(pair{sent, &s.SentLSN}, pair{write, &s.WriteLSN}, pair{flush, &s.FlushLSN}, pair{replay, &s.ReplayLSN})
		f.Senders = append(f.Senders, s)
		return err
	})
	return err
}

// scanReceiver tells the time of the last message by our clock: hosts' clocks
// differ, and it is compared with when we lost the primary.
func scanReceiver(rows pgx.Rows, f *cluster.NodeFacts, asked time.Time) error {
	var r cluster.Receiver
	var tli int64
	var written, flushed, end string
	var received, there time.Time
	_, err := pgx.ForEachRow(rows, []any{&r.Status, &r.SenderHost, &r.SenderPort, &tli, &written, &flushed, &end, &received, &there}, func() error {
		r.LastMsgReceipt = asked.Add(received.Sub(there))
		r.ReceivedTLI = cluster.Timeline(tli)
		err := lsns(pair{written, &r.WrittenLSN}, pair{flushed, &r.FlushedLSN}, pair{end, &r.LatestEndLSN})
		c := r
		f.Receiver = &c
		return err
	})
	return err
}
