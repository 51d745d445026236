package daemon_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestReadsAcrossAnUpgrade: the earlier process no longer looks at the nodes, so
// its clients read on the primary, whatever its standby showed when it last
// looked; who comes anew reads on the standby. What the earlier one has open on a
// standby ends when the one that leads leaves that node.
func TestReadsAcrossAnUpgrade(t *testing.T) {
	p := balance(t) // no limit of lag: nothing that is known would ever be too old
	stays, reading := p.connect(pgx.QueryExecModeCacheStatement), p.connect(pgx.QueryExecModeExec)
	p.exec(stays, "CREATE TABLE goods (id int PRIMARY KEY, name text)")
	p.until(stays, "pgsql2")
	p.until(reading, "pgsql2")
	tx := p.begun(reading, pgx.ReadOnly, "pgsql2")
	upgrade(t, p.Lab)
	for range 20 {
		if got := p.at(stays, where); got != "pgsql1" {
			t.Fatalf("the earlier process reads on %s, at which it does not look any more", got)
		}
	}
	if got := p.at(tx, where); got != "pgsql2" {
		t.Errorf("the transaction that was open goes on on %s", got)
	}
	anew := p.connect(pgx.QueryExecModeExec)
	p.until(anew, "pgsql2")

	standby := p.SQL("pgsql2", "postgres")
	if _, err := standby.Exec(t.Context(), "SELECT pg_wal_replay_pause()"); err != nil {
		t.Fatal(err)
	}
	p.exec(anew, "INSERT INTO goods VALUES (1, 'tea')")
	var name string
	if err := stays.QueryRow(t.Context(), "SELECT name FROM goods WHERE id = 1").Scan(&name); err != nil || name != "tea" {
		t.Errorf("while the standby stands still, a client of the earlier process reads %q, %v", name, err)
	}
	if _, err := standby.Exec(t.Context(), "SELECT pg_wal_replay_resume()"); err != nil {
		t.Fatal(err)
	}
	p.stream.until(t, "the pair is well", protected("pgsql1"))
	switchedOver(t, p.control, "pgsql2")
	var err error
	for limit := time.Now().Add(10 * time.Second); err == nil; pause(t, 20*time.Millisecond) {
		if _, err = tx.Exec(t.Context(), where); time.Now().After(limit) {
			t.Fatal("the transaction of the earlier process is still open on what is the primary now")
		}
	}
	if !strings.Contains(err.Error(), "40001") {
		t.Errorf("the transaction of the earlier process ended with %v", err)
	}
	_ = tx.Rollback(t.Context())
	for range 20 {
		if got := p.at(stays, where); got != "pgsql2" {
			t.Fatalf("after the switchover the earlier process reads on %s", got)
		}
	}
}
