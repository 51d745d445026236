package daemon

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute/sql"
	"github.com/pgtandem/pgtandem/engine/execute/steps"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

// filesHost is a machine with some files and nothing else.
type filesHost struct {
	steps.Host
	files map[string]string
}

func (h filesHost) ReadFile(_ context.Context, path string) ([]byte, error) {
	b, ok := h.files[path]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(b), nil
}

func TestSyncFiles(t *testing.T) {
	const syncConf = "port = 5432\nsynchronous_standby_names = 'FIRST 1 (\"pgsql2\")'\n"
	const asyncConf = "port = 5432\nsynchronous_standby_names = ''\n"
	inFile := sql.Setting{Value: `FIRST 1 ("pgsql2")`, Source: "/etc/pg/postgresql.conf:2"}
	for _, tc := range []struct {
		story   string
		method  cluster.SwapMethod
		mode    cluster.Mode
		current string
		missing bool
		running sql.Setting
		showErr error
		check   func(api.SyncFiles) bool
		warns   string
	}{
		{"sync is in force", cluster.SwapFiles, cluster.ModeSync, syncConf, false, inFile, nil, func(s api.SyncFiles) bool {
			return s.InForce == "sync" && s.Drift == "" && s.Winner == "" && s.Error == "" && s.Current == syncConf &&
				strings.Contains(s.Diff, "--- postgresql.conf.sync\n+++ postgresql.conf.async\n") && strings.Contains(s.Diff, "-synchronous_standby_names = 'FIRST 1") && strings.Contains(s.Diff, "+synchronous_standby_names = ''")
		}, ""},
		{"async is in force, as recorded", cluster.SwapFiles, cluster.ModeAsync, asyncConf, false, sql.Setting{Source: "/etc/pg/postgresql.conf:2"}, nil, func(s api.SyncFiles) bool {
			return s.InForce == "async" && s.Drift == ""
		}, ""},
		{"async is in force and sync is recorded", cluster.SwapFiles, cluster.ModeSync, asyncConf, false, sql.Setting{Source: "/etc/pg/postgresql.conf:2"}, nil, func(s api.SyncFiles) bool {
			return s.InForce == "async" && strings.Contains(s.Drift, "+synchronous_standby_names = ''")
		}, "is not the recorded mode"},
		{"somebody edited postgresql.conf", cluster.SwapFiles, cluster.ModeSync, syncConf + "work_mem = '1GB'\n", false, inFile, nil, func(s api.SyncFiles) bool {
			return s.InForce == "neither" && strings.Contains(s.Drift, "+work_mem = '1GB'")
		}, "was edited"},
		{"postgresql.auto.conf wins over the file", cluster.SwapFiles, cluster.ModeSync, syncConf, false, sql.Setting{Value: "x", Source: "/data/postgresql.auto.conf:3"}, nil, func(s api.SyncFiles) bool {
			return s.Winner == "/data/postgresql.auto.conf:3" && s.Running == "x"
		}, "postgresql.auto.conf:3, which wins"},
		{"the files are not there", cluster.SwapFiles, cluster.ModeSync, syncConf, true, inFile, nil, func(s api.SyncFiles) bool {
			return strings.Contains(s.Error, "is missing on pgsql1") && s.Running != ""
		}, ""},
		{"the server does not answer, the files do", cluster.SwapFiles, cluster.ModeSync, syncConf, false, sql.Setting{}, errors.New("connection refused"), func(s api.SyncFiles) bool {
			return s.Error == "connection refused" && s.InForce == "sync"
		}, ""},
		{"ALTER SYSTEM, in sync", cluster.SwapAlterSystem, cluster.ModeSync, "", false, sql.Setting{Value: `FIRST 1 ("pgsql2")`, Source: "/data/postgresql.auto.conf:3"}, nil, func(s api.SyncFiles) bool {
			return s.InForce == "sync" && s.Winner == "" && s.Sync == "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (\"pgsql2\")';\n" && s.Async == "ALTER SYSTEM SET synchronous_standby_names = '';\n"
		}, ""},
		{"ALTER SYSTEM, in async", cluster.SwapAlterSystem, cluster.ModeAsync, "", false, sql.Setting{Source: "default"}, nil, func(s api.SyncFiles) bool {
			return s.InForce == "async" && s.Winner == ""
		}, ""},
		{"ALTER SYSTEM against the command line", cluster.SwapAlterSystem, cluster.ModeSync, "", false, sql.Setting{Value: "x", Source: "command line"}, nil, func(s api.SyncFiles) bool {
			return s.Winner == "command line"
		}, "comes from command line"},
	} {
		t.Run(tc.story, func(t *testing.T) {
			v := healthy()
			v.Policy.SwapMethod, v.Record.Mode = tc.method, tc.mode
			n := v.Policy.Nodes[0]
			n.ConfigDirectory = "/etc/pg"
			h := filesHost{files: map[string]string{"/etc/pg/postgresql.conf": tc.current, "/etc/pg/postgresql.conf.sync": syncConf, "/etc/pg/postgresql.conf.async": asyncConf}}
			if tc.missing {
				delete(h.files, "/etc/pg/postgresql.conf.async")
			}
			show := func(context.Context, string) (sql.Setting, error) { return tc.running, tc.showErr }
			s := syncFiles(t.Context(), v.Policy, v.Record, n, h, show)
			if s.Node != "pgsql1" || s.Method != string(tc.method) || !tc.check(s) {
				t.Errorf("seen as %+v", s)
			}
			if w := driftSentence(s); s.Error == "" && (tc.warns == "" && w != "" || !strings.Contains(w, tc.warns)) {
				t.Errorf("says %q, want %q", w, tc.warns)
			}
		})
	}
}
