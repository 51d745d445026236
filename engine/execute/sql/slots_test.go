package sql_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/assemble"
	"github.com/pgtandem/pgtandem/engine/clock"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute/sql"
	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/labtest"
)

// TestSlots tells a slot's life: made once, bounded, made anew when its WAL is
// gone, and dropped where it was left behind.
func TestSlots(t *testing.T) {
	l := labtest.Up(t, lab.Options{WithoutDaemon: true})
	c := labtest.Config(t, l.Lab)
	server := func(i int) *sql.Server {
		node := assemble.Nodes(c)[i]
		s := sql.New(node.ID, func(ctx context.Context) (*pgx.Conn, error) {
			cfg, err := assemble.ConnConfig(c, node, c.Recovery.Credential, "postgres")
			if err != nil {
				return nil, err
			}
			return pgx.ConnectConfig(ctx, cfg)
		})
		t.Cleanup(s.Close)
		return s
	}
	primary, standby := server(0), server(1)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ask := func(node, query string) (v string) {
		t.Helper()
		must(l.SQL(node, "postgres").QueryRow(t.Context(), query).Scan(&v))
		return v
	}
	exec := func(node, query string) {
		t.Helper()
		_, err := l.SQL(node, "postgres").Exec(t.Context(), query)
		must(err)
	}
	const slots = "SELECT coalesce(string_agg(slot_name || ' ' || active || ' ' || wal_status, ',' ORDER BY slot_name), '') FROM pg_replication_slots"

	used := "pgtandem_pgsql2 true reserved"
	if got := ask("pgsql1", slots); got != used {
		t.Fatalf("provisioned: %s, want %s", got, used)
	}
	must(primary.EnsureSlot(t.Context(), cluster.SlotName("pgsql2")))
	if got := ask("pgsql1", slots); got != used {
		t.Errorf("made once more: %s, want %s", got, used)
	}

	limited := func(value string) {
		t.Helper()
		must(primary.AlterSystem(t.Context(), "max_slot_wal_keep_size", value))
		must(clock.Every(t.Context(), clock.System{}, time.Millisecond, func() (bool, string, error) {
			v, err := primary.Show(t.Context(), "max_slot_wal_keep_size")
			return v.Value == value, v.Value, err
		}))
	}
	limited("-1")
	other := cluster.SlotName("pgsql3")
	must(primary.EnsureSlot(t.Context(), other))
	limit := "SELECT setting FROM pg_file_settings WHERE name = 'max_slot_wal_keep_size' AND applied"
	if got, want := ask("pgsql1", limit), ask("pgsql1", "SELECT 4 * setting::int || 'MB' FROM pg_settings WHERE name = 'max_wal_size'"); got != want {
		t.Errorf("a slot may hold %s, want %s", got, want)
	}

	exec("pgsql1", "ALTER SYSTEM SET wal_keep_size = 0")
	limited("16")
	err := clock.Every(t.Context(), clock.System{}, 0, func() (bool, string, error) {
		exec("pgsql1", "CREATE TABLE to_write ()")
		exec("pgsql1", "DROP TABLE to_write")
		exec("pgsql1", "SELECT pg_switch_wal()")
		exec("pgsql1", "CHECKPOINT")
		got := ask("pgsql1", "SELECT wal_status FROM pg_replication_slots WHERE slot_name = '"+other+"'")
		return got == "lost", got, nil
	})
	must(err)
	if on, state, err := primary.StreamsTo(t.Context(), "pgsql3"); err != nil || on || state != sql.SlotLost {
		t.Errorf("a standby whose slot is lost: %v, %q, %v", on, state, err)
	}
	must(primary.EnsureSlot(t.Context(), other))
	if on, state, err := primary.StreamsTo(t.Context(), "pgsql3"); err != nil || on || state != "absent" {
		t.Errorf("a standby that is not there: %v, %q, %v", on, state, err)
	}
	if got, want := ask("pgsql1", slots), used+",pgtandem_pgsql3 false reserved"; got != want {
		t.Errorf("made anew: %s, want %s", got, want)
	}

	must(primary.DropSlots(t.Context(), []string{other}))
	if got, want := ask("pgsql1", slots), used+",pgtandem_pgsql3 false reserved"; got != want {
		t.Errorf("a primary's stay: %s, want %s", got, want)
	}
	exec("pgsql2", "SELECT pg_create_physical_replication_slot('"+cluster.SlotName("pgsql1")+"')")
	exec("pgsql2", "SELECT pg_create_physical_replication_slot('somebody_elses')")
	must(standby.DropSlots(t.Context(), []string{cluster.SlotName("pgsql1"), "none"}))
	if got, want := ask("pgsql2", "SELECT string_agg(slot_name, ',') FROM pg_replication_slots"), "somebody_elses"; got != want {
		t.Errorf("left behind: %s, want %s", got, want)
	}
}
