package session

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// replicates gives the shared server a role that may replicate.
func replicates(t *testing.T) {
	t.Helper()
	pg.Exec(t, "postgres", "DROP ROLE IF EXISTS copier", "CREATE ROLE copier LOGIN REPLICATION PASSWORD 'pw'")
	if err := pg.SetHBA("host all all 127.0.0.1/32 scram-sha-256\nhost replication copier 127.0.0.1/32 scram-sha-256"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.SetHBA("host all all 127.0.0.1/32 scram-sha-256"); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the server has read its rules", func() bool {
		conn, err := pgconn.Connect(within(t), fmt.Sprintf("host=127.0.0.1 port=%d user=copier password=pw dbname=postgres replication=true sslmode=disable", pg.Port))
		if err == nil {
			conn.Close(within(t)) //nolint:errcheck // a test's connection
		}
		return err == nil
	})
}

// TestABaseBackupGoesThroughTheProxy: PostgreSQL's own program copies the
// server, in either mode, with the log streaming beside it.
func TestABaseBackupGoesThroughTheProxy(t *testing.T) {
	replicates(t)
	for _, mode := range bothModes {
		p := startProxy(t, mode)
		dir, err := os.MkdirTemp("/tmp", "pgt-copy")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		cmd := exec.CommandContext(within(t), pg.Bin("pg_basebackup"), "-D", filepath.Join(dir, "copy"), "-X", "stream", "-c", "fast", "--no-sync",
			"-d", fmt.Sprintf("host=127.0.0.1 port=%d user=copier", p.port))
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PGPASSWORD=pw", "LC_ALL=C"}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", mode, err, out)
		}
		if _, err := os.Stat(filepath.Join(dir, "copy", "backup_manifest")); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		eventually(t, "no server of a replication connection is kept", func() bool {
			s := p.Stats()
			return s.ServersActive+s.ServersIdle == 0
		})
	}
}

// TestALogicalStream reads changes through the proxy while others write there.
func TestALogicalStream(t *testing.T) {
	replicates(t)
	p := startProxy(t, ModeTransaction)
	stream, err := pgconn.Connect(within(t), p.as("copier", "pw", "test1", "replication=database"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close(context.Background()) //nolint:errcheck // a test's connection
	got, err := stream.Exec(within(t), "IDENTIFY_SYSTEM").ReadAll()
	if err != nil || len(got) != 1 || string(got[0].Rows[0][3]) != "test1" {
		t.Fatalf("%v, %v", got, err)
	}
	if got, err := stream.Exec(within(t), "SELECT current_user").ReadAll(); err != nil || string(got[0].Rows[0][0]) != "copier" {
		t.Errorf("SQL in a logical walsender: %v, %v", got, err)
	}
	other := p.connect(t, "")
	if _, err := other.Exec(within(t), "SELECT 1"); err != nil {
		t.Errorf("a client beside it: %v", err)
	}
}

func TestReplicationIsRefusedAsPostgreSQLDoes(t *testing.T) {
	replicates(t)
	p := startProxy(t, ModeTransaction, func(o *Options) {
		o.Security.Rules = rulesOf(t, "host all all 127.0.0.1/32 scram-sha-256\nhost replication copier 127.0.0.1/32 scram-sha-256")
	})
	for _, c := range []struct{ user, password, more string }{
		{"test1", "test1", "replication=true"},     // no rule: all is not for replication
		{"test1", "test1", "replication=database"}, // a rule, and no right
		{"copier", "wrong", "replication=1"},
		{"copier", "pw", "replication=perhaps"},
	} {
		who := fmt.Sprintf(" user=%s password=%s dbname=test1 sslmode=disable %s", c.user, c.password, c.more)
		ours, theirs := pgError(t, fmt.Sprintf("host=127.0.0.1 port=%d", p.port)+who), pgError(t, fmt.Sprintf("host=127.0.0.1 port=%d", pg.Port)+who)
		if ours.Code != theirs.Code || ours.Message != theirs.Message || ours.Detail != theirs.Detail {
			t.Errorf("%s: the proxy: %+v\nPostgreSQL: %+v", c.more, ours, theirs)
		}
	}
	for v, want := range map[string]string{"true": "on", "T": "on", "y": "on", "on": "on", "1": "on", "false": "off", "F": "off", "n": "off", "of": "off", "0": "off",
		"o": "", "11": "", "truth": "", "perhaps": ""} {
		on, ok := parseBool(v)
		if got := map[bool]string{true: "on", false: "off"}[on]; ok != (want != "") || ok && got != want {
			t.Errorf("%s: %s, %v", v, got, ok)
		}
	}
}
