package steps

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgtandem/pgtandem/engine/clock"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// ensureSlot gives the name of a standby's slot after making sure that the
// primary has it. A primary that refuses, because it has no slot to spare, is
// followed without one where one confirmation is enough: to be protected comes
// before holding WAL. said is for the report.
func (w *World) ensureSlot(ctx context.Context, id, primary cluster.NodeID) (slot, said string, err error) {
	p := w.Policy()
	if !p.Slots {
		return "", "", nil
	}
	srv, err := w.server(primary)
	if err != nil {
		return "", "", err
	}
	slot = cluster.SlotName(id)
	err = srv.EnsureSlot(ctx, slot)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && (refused.Code == configurationLimit || refused.Code == notInState) && p.SyncK < 2 {
		return "", fmt.Sprintf(", without a replication slot: %s refuses it: %s", primary, refused.Message), nil
	}
	return slot, ", with slot " + slot, err
}

// SQLSTATEs of a server whose max_replication_slots is reached, or is 0
// (PostgreSQL docs, appendix A).
const (
	configurationLimit = "53400"
	notInState         = "55000"
)

// nameSlot has a running standby use a slot, or none: one that another primary
// had for it is not on this one. The receiver starts anew where that changes
// anything.
func (w *World) nameSlot(ctx context.Context, srv Server, slot string) error {
	const setting = "primary_slot_name"
	has, err := srv.Show(ctx, setting)
	if err != nil || has.Value == slot {
		return err
	}
	return srv.AlterSystem(ctx, setting, slot)
}

// slot gives a standby that follows as it should its replication slot, and
// drops those it has kept from when it was the primary.
func (w *World) slot(ctx context.Context, s plan.Step) (string, error) {
	srv, err := w.server(s.Node)
	if err != nil {
		return "", err
	}
	if left := strings.Fields(s.Args["drop"]); len(left) > 0 {
		if err := srv.DropSlots(ctx, left); err != nil {
			return "", err
		}
	}
	slot := cluster.SlotName(s.Node)
	primary, err := w.server(from(s))
	if err != nil {
		return "", err
	}
	if err := primary.EnsureSlot(ctx, slot); err != nil {
		return "", err
	}
	if err := w.nameSlot(ctx, srv, slot); err != nil {
		return "", err
	}
	return "slot " + slot, clock.Every(ctx, w.Clock, 10*time.Millisecond, func() (bool, string, error) {
		has, err := srv.Show(ctx, "primary_slot_name")
		return has.Value == slot, fmt.Sprintf("primary_slot_name is %q from %s", has.Value, has.Source), err
	})
}
