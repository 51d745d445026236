package sql

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// limitSlots bounds what a slot that nobody reads may hold, where nothing does:
// without a limit it would hold WAL until the disk is full. Four times what the
// server writes between two checkpoints is its own idea of a large backlog. The
// limit is the server's, so it is not set where somebody else has slots too.
const limitSlots = `
SELECT (4 * setting::bigint)::text || 'MB' FROM pg_settings WHERE name = 'max_wal_size'
  AND EXISTS (SELECT FROM pg_settings WHERE name = 'max_slot_wal_keep_size' AND setting = '-1')
  AND NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_type = 'logical' OR NOT starts_with(slot_name, $1))`

// dropLost drops a slot whose WAL is gone: PostgreSQL gives it to no standby any
// more (PostgreSQL docs, 54.19, wal_status lost).
const dropLost = `
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active AND wal_status = 'lost'`

const createSlot = `
SELECT pg_create_physical_replication_slot($1, true) WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)`

// EnsureSlot makes a physical replication slot on a primary, which holds WAL
// from now on, unless it is there.
func (s *Server) EnsureSlot(ctx context.Context, name string) error {
	return s.do(ctx, "create the replication slot "+name, func(c *pgx.Conn) error {
		var limit string
		switch err := c.QueryRow(ctx, limitSlots, cluster.SlotPrefix).Scan(&limit); {
		case err == nil:
			if _, err := c.Exec(ctx, "ALTER SYSTEM SET max_slot_wal_keep_size = "+literal(limit)); err != nil {
				return err
			}
			if _, err := c.Exec(ctx, "SELECT pg_reload_conf()"); err != nil {
				return err
			}
		case !errors.Is(err, pgx.ErrNoRows):
			return fmt.Errorf("read how much WAL a slot may hold: %w", err)
		}
		if _, err := c.Exec(ctx, dropLost, name); err != nil {
			return err
		}
		_, err := c.Exec(ctx, createSlot, name)
		return err
	})
}

// DropSlots drops slots that a standby still has from when it was the primary,
// unless somebody uses them: nobody else reads them, and they hold WAL.
func (s *Server) DropSlots(ctx context.Context, names []string) error {
	return s.do(ctx, "drop the replication slots left behind", func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
			WHERE pg_is_in_recovery() AND NOT active AND slot_type = 'physical' AND slot_name = ANY($1)`, names)
		return err
	})
}
