package drill_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/drill"
	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/labtest"
)

// A bout measures a fault that it does not make: here somebody locks the table
// for a while and takes rows away that were acknowledged.
func TestABoutMeasuresWhatOthersDo(t *testing.T) {
	l := labtest.Up(t, lab.Options{WithoutDaemon: true})
	s := l.Status()
	target := drill.Target{Host: s.Nodes[0].Host, Port: s.Nodes[0].Port, Database: s.Database, User: s.User, Password: s.Password}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	b, err := drill.Begin(ctx, target, "robbed-1", 2)
	if err != nil {
		t.Fatal(err)
	}
	const held = 200 * time.Millisecond
	thief := l.SQL("pgsql1", s.Database)
	taken := 0
	faultErr := b.Fault(func() error {
		return pgx.BeginFunc(ctx, thief, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "LOCK pgtandem_bout_robbed_1"); err != nil {
				return err
			}
			tag, err := tx.Exec(ctx, "DELETE FROM pgtandem_bout_robbed_1")
			if err != nil {
				return err
			}
			taken = int(tag.RowsAffected())
			_, err = tx.Exec(ctx, "SELECT pg_sleep($1)", held.Seconds())
			return err
		})
	})
	if err := b.Settled(ctx, 0); err != nil {
		t.Error(err)
	}
	m, err := b.End(ctx, false, func(ctx context.Context) (*pgx.Conn, error) { return l.Connect(ctx, "pgsql1", s.Database) })
	if faultErr != nil || err != nil {
		t.Fatal(faultErr, err)
	}
	if taken == 0 || m.Lost != taken || m.Verdict != "fail" {
		t.Errorf("%d rows were taken; %d are reported lost, and the verdict is %s", taken, m.Lost, m.Verdict)
	}
	if pause := held.Seconds() * 1000; m.WorstClientMS < pause || m.Beyond != 0 || m.Lies != 0 {
		t.Errorf("the table was locked for %.0f ms; the pause was %.0f ms, and %d statements failed beyond those in flight: %v", pause, m.WorstClientMS, m.Beyond, m.Why)
	}
	if _, err := thief.Exec(ctx, "SELECT 1 FROM pgtandem_bout_robbed_1"); err == nil {
		t.Error("the bout's table is there still")
	}
}
