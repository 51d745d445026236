package steps

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

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
	if errors.As(err, &refused) && p.SyncK < 2 {
		return "", fmt.Sprintf(", without a replication slot: %s refuses it: %s", primary, refused.Message), nil
	}
	return slot, ", with slot " + slot, err
}

// nameSlot has a running standby use a slot; the receiver starts anew where
// that changes anything.
func (w *World) nameSlot(ctx context.Context, srv Server, slot string) error {
	if !w.Policy().Slots {
		return nil
	}
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
	if err := srv.DropSlots(ctx); err != nil {
		return "", err
	}
	slot := cluster.SlotName(s.Node)
	primary, err := w.server(from(s))
	if err != nil {
		return "", err
	}
	if err := primary.EnsureSlot(ctx, slot); err != nil {
		return "", err
	}
	return "slot " + slot, w.nameSlot(ctx, srv, slot)
}
