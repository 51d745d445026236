package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/chaos/check"
	"github.com/pgtandem/pgtandem/engine/chaos/history"
	"github.com/pgtandem/pgtandem/engine/chaos/workload"
	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/control"
	"github.com/pgtandem/pgtandem/engine/lab/fault"
	"github.com/pgtandem/pgtandem/engine/lab/labtest"
)

// TestWhatIsPlantedOnARealClusterIsFound lets the clients work on a cluster
// that nobody breaks, and then changes behind their back what the servers hold.
func TestWhatIsPlantedOnARealClusterIsFound(t *testing.T) {
	l := labtest.Up(t, lab.Options{})
	c := &cluster{Lab: l.Lab, daemon: control.New(l.Socket()), faults: fault.New(l.Lab, "")}
	t.Cleanup(func() { c.faults.Close(); c.daemon.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	state, err := c.daemon.Whole(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.prepare(ctx, false); err != nil {
		t.Fatal(err)
	}
	ops := history.New()
	proxy, nodes := c.proxy()
	load, err := workload.Start(ctx, ops, proxy, nodes, 1, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := load.Served(ctx, time.Second); err != nil {
		t.Fatal(err)
	}
	if err := load.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if _, found := c.judge(ctx, state, ops.Ops()); len(found) > 0 {
		t.Fatalf("a cluster that nobody broke: %v", found)
	}
	acked := latest(t, ops.Ops(), history.SetAdd)
	paid := latest(t, ops.Ops(), history.BankTransfer)
	stale := latest(t, ops.Ops(), history.RegWrite)
	primary := l.SQL(state.Primary, lab.Database)
	for _, c2 := range []struct {
		want, plant, back string
	}{
		{check.Lost, fmt.Sprintf("DELETE FROM chaos_set WHERE id = %d", acked.Value), fmt.Sprintf("INSERT INTO chaos_set VALUES (%d)", acked.Value)},
		{check.Phantom, "INSERT INTO chaos_set VALUES (-1)", "DELETE FROM chaos_set WHERE id = -1"},
		{check.Duplicate, fmt.Sprintf("INSERT INTO chaos_transfer SELECT * FROM chaos_transfer WHERE id = %d", paid.Value),
			fmt.Sprintf("DELETE FROM chaos_transfer WHERE ctid = (SELECT max(ctid) FROM chaos_transfer WHERE id = %d)", paid.Value)},
		{check.Total, "UPDATE chaos_account SET balance = balance - 1 WHERE id = 1", "UPDATE chaos_account SET balance = balance + 1 WHERE id = 1"},
		{check.Order, fmt.Sprintf("UPDATE chaos_register SET v = v - 1000000000 WHERE k = %d", stale.Key), fmt.Sprintf("UPDATE chaos_register SET v = v + 1000000000 WHERE k = %d", stale.Key)},
	} {
		if _, err := primary.Exec(ctx, c2.plant); err != nil {
			t.Fatal(err)
		}
		if _, found := c.judge(ctx, state, ops.Ops()); !has(found, c2.want) {
			t.Errorf("%q was planted by %s; found: %v", c2.want, c2.plant, found)
		}
		if _, err := primary.Exec(ctx, c2.back); err != nil {
			t.Fatal(err)
		}
	}
}

// latest is the last acknowledged request of a kind.
func latest(t *testing.T, ops []history.Op, kind history.Kind) history.Op {
	t.Helper()
	for i := len(ops) - 1; i >= 0; i-- {
		if ops[i].Kind == kind && ops[i].Outcome == history.OK {
			return ops[i]
		}
	}
	t.Fatalf("nobody was acknowledged a %s", kind)
	return history.Op{}
}

func has(found []check.Violation, what string) bool {
	for _, v := range found {
		if v.What == what {
			return true
		}
	}
	return false
}
