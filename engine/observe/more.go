package observe

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// allowed says what a role beyond pg_monitor may see: errors of the
// configuration files, and the timeline history.
const allowed = `
SELECT has_table_privilege('pg_file_settings', 'SELECT') AND has_function_privilege('pg_show_all_file_settings()', 'EXECUTE'),
  has_function_privilege('pg_read_file(text, bigint, bigint, boolean)', 'EXECUTE')`

// oldestWAL is the number of the oldest WAL file, which two timelines share
// where one branched off within it, and the size of a file. Files that are made
// ready for later have higher numbers.
const oldestWAL = `
SELECT coalesce(min(substr(name, 9)), ''), pg_size_bytes(current_setting('wal_segment_size'))
FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'`

const configErrors = `
SELECT sourcefile || ':' || sourceline || ' ' || coalesce(name, '') || ': ' || error FROM pg_file_settings WHERE error IS NOT NULL`

// historyFile gives NULL where there is no such file.
const historyFile = `SELECT coalesce(pg_read_file($1, 0, 1000000, true), '')`

// gatherMore asks what changes rarely or makes the server read files.
func gatherMore(ctx context.Context, conn *pgx.Conn, f *cluster.NodeFacts) error {
	var mayReadErrors, mayReadHistory bool
	b := &pgx.Batch{}
	b.Queue(allowed).QueryRow(func(r pgx.Row) error { return r.Scan(&mayReadErrors, &mayReadHistory) })
	if f.Role == cluster.RolePrimary {
		b.Queue(oldestWAL).QueryRow(func(r pgx.Row) error { return scanOldest(r, f) })
	}
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("look at the WAL files: %w", err)
	}
	b = &pgx.Batch{}
	if mayReadErrors {
		b.Queue(configErrors).Query(func(rows pgx.Rows) (err error) {
			f.ConfigErrors, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		})
	}
	text, read := "", f.Timeline == 1
	if mayReadHistory && !read {
		b.Queue(historyFile, fmt.Sprintf("pg_wal/%08X.history", uint32(f.Timeline))).QueryRow(func(r pgx.Row) error {
			err := r.Scan(&text)
			read = text != ""
			return err
		})
	}
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("look at the configuration files and the timeline history: %w", err)
	}
	if !read {
		return nil
	}
	var err error
	f.SwitchHistory, err = history(f.SystemIdentifier, f.Timeline, text)
	return err
}

// history reads a history file: on each line a timeline, where it was left,
// and why (src/backend/access/transam/timeline.c).
func history(system uint64, tli cluster.Timeline, text string) ([]cluster.HistoryEntry, error) {
	var h []cluster.HistoryEntry
	began := cluster.LSN(0)
	for _, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		if len(words) < 2 || strings.HasPrefix(words[0], "#") {
			continue
		}
		n, err := strconv.ParseUint(words[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read the history of timeline %d: %q is no timeline", tli, words[0])
		}
		h = append(h, cluster.HistoryEntry{SystemIdentifier: system, Timeline: cluster.Timeline(n), SwitchLSN: began})
		if began, err = cluster.ParseLSN(words[1]); err != nil {
			return nil, fmt.Errorf("read the history of timeline %d: %w", tli, err)
		}
	}
	return append(h, cluster.HistoryEntry{SystemIdentifier: system, Timeline: tli, SwitchLSN: began}), nil
}

// scanOldest turns the number of a WAL file into where it begins: eight digits
// of the upper half of a position, and eight that count files in the lower
// (src/include/access/xlog_internal.h).
func scanOldest(r pgx.Row, f *cluster.NodeFacts) error {
	var number string
	var size uint64
	if err := r.Scan(&number, &size); err != nil || number == "" {
		return err
	}
	var err error
	f.OldestWAL, err = beginOfWAL(number, size)
	return err
}

func beginOfWAL(number string, size uint64) (cluster.LSN, error) {
	if len(number) != 16 {
		return 0, fmt.Errorf("WAL file %q: want sixteen hexadecimal digits", number)
	}
	high, err := strconv.ParseUint(number[:8], 16, 32)
	if err != nil {
		return 0, fmt.Errorf("WAL file %q: %w", number, err)
	}
	low, err := strconv.ParseUint(number[8:], 16, 32)
	if err != nil {
		return 0, fmt.Errorf("WAL file %q: %w", number, err)
	}
	// A position of 0 would say that it was not read.
	return max(1, cluster.LSN(high<<32+low*size)), nil
}

func scanSlots(rows pgx.Rows, f *cluster.NodeFacts) error {
	var s cluster.Slot
	var restart string
	_, err := pgx.ForEachRow(rows, []any{&s.Name, &s.Active, &s.WALStatus, &restart}, func() (err error) {
		s.RestartLSN, err = cluster.ParseLSN(restart)
		f.Slots = append(f.Slots, s)
		return err
	})
	return err
}
