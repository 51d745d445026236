package daemon

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/pmezard/go-difflib/difflib"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/engine/execute/sql"
	"github.com/pgtandem/pgtandem/engine/execute/steps"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

const syncNames = "synchronous_standby_names"

// setting reads a running setting of a node.
type setting func(ctx context.Context, name string) (sql.Setting, error)

// syncFiles looks at how the primary is turned between sync and async, and
// which is in force. What cannot be read is said in Error; the rest stands.
func syncFiles(ctx context.Context, p cluster.Policy, r cluster.Record, n cluster.Node, h steps.Host, show setting) api.SyncFiles {
	s := api.SyncFiles{Node: string(n.ID), Method: string(p.SwapMethod)}
	running, err := show(ctx, syncNames)
	if err != nil {
		s.Error = err.Error()
	} else {
		s.Running, s.Source = running.Value, running.Source
	}
	if p.SwapMethod != cluster.SwapFiles {
		alterSystem(&s, p, r, n.ID)
		return s
	}
	f, err := steps.ReadFiles(ctx, h, n)
	if err != nil {
		s.Error = err.Error()
		return s
	}
	s.Sync, s.Async, s.Current, s.InForce = string(f.Sync), string(f.Async), string(f.Current), f.InForce()
	s.Diff = unified("postgresql.conf.sync", "postgresql.conf.async", s.Sync, s.Async)
	s.Drift = drift(r.Mode, s)
	s.Winner = winner(s.Source, path.Join(n.ConfigDirectory, "postgresql.conf"))
	return s
}

// alterSystem is the pair for the method that needs no files.
func alterSystem(s *api.SyncFiles, p cluster.Policy, r cluster.Record, primary cluster.NodeID) {
	names := r.SyncSet
	if len(names.Members) == 0 {
		names = cluster.SyncSet{Method: p.SyncMethod, K: p.SyncK}
		for _, n := range p.Nodes {
			if n.ID != primary {
				names.Members = append(names.Members, n.ID)
			}
		}
	}
	statement := func(v string) string {
		return fmt.Sprintf("ALTER SYSTEM SET %s = '%s';\n", syncNames, strings.ReplaceAll(v, "'", "''"))
	}
	s.Sync, s.Async = statement(decide.FormatSyncNames(names)), statement("")
	s.Diff = unified("sync", "async", s.Sync, s.Async)
	if s.Error == "" {
		s.InForce = string(cluster.ModeSync)
		if len(decide.ParseSyncNames(s.Running).Members) == 0 {
			s.InForce = string(cluster.ModeAsync)
		}
	}
	if s.Source != "" && s.Source != "default" && !strings.Contains(s.Source, "/") {
		s.Winner = s.Source // the command line, say: no file can win over it
	}
}

// drift compares postgresql.conf with what it should be: the file of the
// recorded mode.
func drift(mode cluster.Mode, s api.SyncFiles) string {
	if mode == cluster.ModeAsync {
		return unified("postgresql.conf.async", "postgresql.conf", s.Async, s.Current)
	}
	return unified("postgresql.conf.sync", "postgresql.conf", s.Sync, s.Current)
}

// winner is where the running value comes from, when that is not the file
// which is swapped: an include, postgresql.auto.conf, the command line. A
// default has no place, and says that the file sets nothing.
func winner(source, file string) string {
	if source == "" || source == "default" || strings.HasPrefix(source, file+":") {
		return ""
	}
	return source
}

func unified(from, to, a, b string) string {
	text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: difflib.SplitLines(a), B: difflib.SplitLines(b), FromFile: from, ToFile: to, Context: 3,
	})
	if err != nil { // only a writer can fail, and this one writes to memory
		return err.Error()
	}
	return text
}

// driftSentence sums up what syncFiles found wrong, for the node's warnings;
// "" when all is well.
func driftSentence(s api.SyncFiles) string {
	switch {
	case s.Winner != "":
		return fmt.Sprintf("%s comes from %s, which wins over what is swapped here", syncNames, s.Winner)
	case s.InForce == "neither":
		return "postgresql.conf was edited and is neither postgresql.conf.sync nor .async: it will not be swapped"
	case s.Drift != "":
		return fmt.Sprintf("postgresql.conf is postgresql.conf.%s, which is not the recorded mode", s.InForce)
	}
	return ""
}
