package daemon

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/engine/plan"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

var update = flag.Bool("update", false, "write the goldens anew")

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

const system = 7300000000000000001

// healthy is a pair in sync: pgsql1 is the primary, pgsql2 is 16 bytes behind
// in replay and has flushed everything.
func healthy() engine.View {
	nodes := []cluster.Node{
		{ID: "pgsql1", Host: "10.0.0.1", Port: 5432, Weight: 1, FailoverAllowed: true, DataDirectory: "/data1"},
		{ID: "pgsql2", Host: "10.0.0.2", Port: 5432, Weight: 1, FailoverAllowed: true, DataDirectory: "/data2"},
	}
	up := func(id cluster.NodeID, r cluster.Role) cluster.NodeFacts {
		return cluster.NodeFacts{
			ID: id, Reach: cluster.ReachOK, ReachSince: noon.Add(-time.Hour), LastTry: noon.Add(-300 * time.Millisecond), LastOK: noon.Add(-300 * time.Millisecond),
			Host: cluster.HostFacts{Reachable: true, LastTry: noon.Add(-2 * time.Second), LastOK: noon.Add(-2 * time.Second), Postmaster: cluster.PostmasterRunning, PID: 4711},
			Role: r, ServerVersion: 150018, SystemIdentifier: system, Timeline: 3, SynchronousCommit: "on",
		}
	}
	p := up("pgsql1", cluster.RolePrimary)
	p.InsertLSN, p.FlushLSN = 0x5000158, 0x5000148
	p.SyncStandbyNames, p.SyncNamesSource = `FIRST 1 ("pgsql2")`, "/data1/postgresql.auto.conf:3"
	p.Senders = []cluster.Sender{{ApplicationName: "pgsql2", State: "streaming", SyncState: "sync", SyncPriority: 1,
		SentLSN: 0x5000148, WriteLSN: 0x5000148, FlushLSN: 0x5000148, ReplayLSN: 0x5000138,
		WriteLag: 250 * time.Microsecond, FlushLag: 1500 * time.Microsecond, ReplayLag: -time.Second}}
	s := up("pgsql2", cluster.RoleStandby)
	s.ReceiveLSN, s.ReplayLSN = 0x5000148, 0x5000140
	s.Conninfo = "host=10.0.0.1"
	s.Receiver = &cluster.Receiver{Status: "streaming", ReceivedTLI: 3}
	v := engine.View{
		Snapshot: cluster.Snapshot{Now: noon, Nodes: []cluster.NodeFacts{p, s}},
		Record: cluster.Record{
			Revision: 9, Cluster: "main", SystemIdentifier: system, Term: 4, Primary: "pgsql1", Timeline: 3, Mode: cluster.ModeSync, WantMode: cluster.ModeSync,
			SyncSet: cluster.SyncSet{Method: "FIRST", K: 1, Members: []cluster.NodeID{"pgsql2"}},
			Members: map[cluster.NodeID]cluster.Member{
				"pgsql1": {Eligible: true, Reason: "the primary"},
				"pgsql2": {Eligible: true, Reason: "it confirmed everything the primary had flushed", Promised: 3, PromisedLSN: 0x4000000},
			},
			History: []cluster.HistoryEntry{{SystemIdentifier: system, Timeline: 3, SwitchLSN: 0x4000000, Node: "pgsql1", Term: 4, At: noon.Add(-time.Hour)}},
		},
		Policy: cluster.Policy{Cluster: "main", Nodes: nodes, Failover: cluster.Automatic, Rejoin: cluster.Automatic, Degrade: cluster.DegradeAsync,
			SwapMethod: cluster.SwapAlterSystem, SyncK: 1, SyncMethod: "FIRST", CheckPeriod: time.Second, CheckTimeout: 2 * time.Second, CheckRetries: 3,
			BrokenPath: cluster.PathPromote, DampingWindow: 10 * time.Minute},
		GateOpen: true, Since: noon.Add(-time.Hour),
	}
	decided(&v)
	return v
}

// decided fills in what the engine would say of the view.
func decided(v *engine.View) {
	in := decide.Input{Snapshot: v.Snapshot, Record: v.Record, Policy: v.Policy, GateOpen: true}
	v.Decision, _, v.Trace = decide.Decide(in)
	v.IfDies = map[cluster.NodeID]decide.Decision{}
	for _, n := range v.Policy.Nodes {
		v.IfDies[n.ID] = decide.IfDies(in, n.ID)
	}
}

func seen(v engine.View) api.State {
	c := config.Default()
	c.HealthCheck.Period, c.HealthCheck.Timeout, c.HealthCheck.Retries = config.Duration(v.Policy.CheckPeriod), config.Duration(v.Policy.CheckTimeout), v.Policy.CheckRetries
	return stateOf(sight{Version: "0.1.0", Started: noon.Add(-time.Hour), Seq: 42, Config: c, View: v,
		Gate: api.Gate{State: "open", Node: "pgsql1", Term: 4, Since: noon.Add(-time.Hour)},
		Pool: api.PoolSummary{Clients: 3, MaxClients: 1000}})
}

// TestTheStateOfAHealthyPair holds the whole of it, since consoles and scripts
// read every field.
func TestTheStateOfAHealthyPair(t *testing.T) {
	st := seen(healthy())
	if n := len(st.Rule.Considered); n < 20 {
		t.Errorf("%d rules were considered before the last one", n)
	}
	st.Rule.Considered = st.Rule.Considered[:2] // the table has a golden of its own
	b, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "healthy.json", string(b)+"\n")
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func TestNodesAsTheyAreSeen(t *testing.T) {
	primary := func(v *engine.View) *cluster.NodeFacts { return &v.Snapshot.Nodes[0] }
	standby := func(v *engine.View) *cluster.NodeFacts { return &v.Snapshot.Nodes[1] }
	lost := func(f *cluster.NodeFacts) {
		f.Reach, f.LastError, f.Failures = cluster.ReachRefused, "connection refused", 5
		f.Host.Postmaster = cluster.PostmasterStopped
	}
	for _, tc := range []struct {
		story  string
		change func(*engine.View)
		node   int
		check  func(api.Node) bool
		warns  string // part of a warning; "" for none at all
	}{
		{"the primary is behind nobody", func(*engine.View) {}, 0, func(n api.Node) bool {
			return n.Role == "primary" && n.LagBytes == 0 && n.LSN == "0/5000148" && n.SyncState == "" && n.WriteLagMS == nil && n.ServerVersion == "15.18"
		}, ""},
		{"lag in bytes and in time, where PostgreSQL tells it", func(*engine.View) {}, 1, func(n api.Node) bool {
			return n.LagBytes == 16 && n.FlushLagBytes == 0 && *n.WriteLagMS == 0.25 && *n.FlushLagMS == 1.5 && n.ReplayLagMS == nil && n.SyncState == "sync"
		}, ""},
		{"every value has its age", func(*engine.View) {}, 1, func(n api.Node) bool { return n.SeenMS == 300 && n.HostSeenMS == 2000 }, ""},
		{"never seen is not seen a moment ago", func(v *engine.View) { v.Snapshot.Nodes[1] = cluster.NodeFacts{ID: "pgsql2"} }, 1, func(n api.Node) bool {
			return n.SeenMS == -1 && n.HostSeenMS == -1 && n.Role == "unknown" && !n.Reachable && n.LSN == ""
		}, ""},
		{"without a sender the lag is taken from what the standby says", func(v *engine.View) { primary(v).Senders = nil }, 1, func(n api.Node) bool {
			return n.LagBytes == 8 && n.FlushLagBytes == 0 && n.State == "" && n.SyncState == ""
		}, ""},
		{"a lost primary says nothing about its standby any more", func(v *engine.View) { lost(primary(v)) }, 1, func(n api.Node) bool {
			return n.LagBytes == -1 && n.FlushLagBytes == -1 && n.SyncState == "" && n.State == "" && n.Eligible
		}, ""},
		{"a lost node keeps its last values, with the error", func(v *engine.View) { lost(primary(v)) }, 0, func(n api.Node) bool {
			return !n.Reachable && n.Reach == "refused" && n.Error == "connection refused" && n.LSN == "0/5000148" && n.Postmaster == "stopped"
		}, ""},
		{"two senders with one name", func(v *engine.View) { p := primary(v); p.Senders = append(p.Senders, p.Senders[0]) }, 1, func(n api.Node) bool {
			return n.SyncState == "" && n.LagBytes == 8
		}, "2 servers replicate under the name pgsql2"},
		{"replay is paused", func(v *engine.View) { standby(v).ReplayPaused = true }, 1, func(n api.Node) bool { return n.ReplayPaused }, "pg_wal_replay_resume"},
		{"ssh does not answer", func(v *engine.View) { standby(v).Host.Reachable, standby(v).Host.LastError = false, "timeout" }, 1, func(n api.Node) bool {
			return n.Reachable && !n.HostReachable && n.HostError == "timeout"
		}, "could be neither stopped nor rejoined"},
		{"the setting was changed behind our back", func(v *engine.View) { primary(v).SyncStandbyNames = "" }, 0, func(n api.Node) bool { return n.SyncStandbyNames == "" }, `synchronous_standby_names is ""`},
		{"commits wait for no standby by default", func(v *engine.View) { primary(v).SynchronousCommit = "local" }, 0, func(api.Node) bool { return true }, "synchronous_commit is local"},
		{"commits hang", func(v *engine.View) { primary(v).SyncWaiters, primary(v).OldestWait = 7, 3210*time.Millisecond }, 0, func(n api.Node) bool {
			return n.SyncWaiters == 7 && n.OldestWaitMS == 3210
		}, "7 commits wait for a standby, the oldest for 3.2s"},
		{"a file has an error", func(v *engine.View) {
			standby(v).ConfigErrors = []string{"/data2/postgresql.conf:7 wal_levle: unrecognized"}
		}, 1, func(api.Node) bool { return true }, "wal_levle"},
		{"nothing is received", func(v *engine.View) { standby(v).Receiver = nil }, 1, func(api.Node) bool { return true }, "no WAL receiver runs"},
		{"a standby that was told to stop receiving", func(v *engine.View) { standby(v).Receiver, standby(v).Conninfo = nil, "" }, 1, func(api.Node) bool { return true }, "follows nobody"},
		{"a second writer", func(v *engine.View) { standby(v).Role = cluster.RolePrimary }, 1, func(n api.Node) bool { return n.Role == "primary" }, "takes writes although pgsql1"},
		{"another system", func(v *engine.View) { standby(v).SystemIdentifier = 1 }, 1, func(n api.Node) bool { return n.SystemIdentifier == "1" }, "another database system"},
		{"another major version", func(v *engine.View) { standby(v).ServerVersion = 160002 }, 1, func(n api.Node) bool { return n.ServerVersion == "16.2" }, "PostgreSQL 16.2"},
		{"the engine may not touch it", func(v *engine.View) { v.Policy.Nodes[1].FailoverAllowed = false }, 1, func(n api.Node) bool { return !n.FailoverAllowed }, "allow_failover"},
		{"fenced", func(v *engine.View) {
			v.Record.Members["pgsql2"] = cluster.Member{Fenced: true, Reason: "a former primary"}
		}, 1, func(n api.Node) bool {
			return n.Fenced && !n.Eligible && n.EligibleReason == "a former primary"
		}, ""},
	} {
		t.Run(tc.story, func(t *testing.T) {
			v := healthy()
			tc.change(&v)
			n := seen(v).Nodes[tc.node]
			if !tc.check(n) {
				t.Errorf("seen as %+v", n)
			}
			if tc.warns == "" && len(n.Warnings) > 0 {
				t.Errorf("warned of %q", n.Warnings)
			}
			if !slices.ContainsFunc(append(n.Warnings, ""), func(w string) bool { return strings.Contains(w, tc.warns) }) {
				t.Errorf("no warning says %q: %q", tc.warns, n.Warnings)
			}
		})
	}
}

func TestVerdicts(t *testing.T) {
	for _, tc := range []struct {
		story    string
		change   func(*engine.View)
		level    string
		says     string
		ifDies   []string // levels, node by node
		dieSays1 string
	}{
		{"in sync", func(*engine.View) {}, "ok", "", []string{"ok", "warn"}, "pgsql2 is promoted, nothing acknowledged is lost"},
		{"async by hand", func(v *engine.View) {
			v.Record.Mode, v.Record.WantMode, v.Record.SyncSet = cluster.ModeAsync, cluster.ModeAsync, cluster.SyncSet{}
			v.Record.Members["pgsql2"] = cluster.Member{Reason: "async was asked for"}
			v.Snapshot.Nodes[0].SyncStandbyNames = ""
		}, "warn", "async", []string{"alarm", "warn"}, "nothing is promoted"},
		{"the engine has halted", func(v *engine.View) { v.Halted = "the term would fall" }, "alarm", "the term would fall", nil, ""},
	} {
		t.Run(tc.story, func(t *testing.T) {
			v := healthy()
			tc.change(&v)
			decided(&v)
			st := seen(v)
			if st.Verdict.Level != tc.level || !strings.Contains(st.Verdict.Text, tc.says) {
				t.Errorf("verdict %+v, want %s saying %q", st.Verdict, tc.level, tc.says)
			}
			var levels []string
			for _, d := range st.IfDies {
				levels = append(levels, d.Level)
			}
			if tc.ifDies != nil && !slices.Equal(levels, tc.ifDies) {
				t.Errorf("if a node dies: %+v, want levels %v", st.IfDies, tc.ifDies)
			}
			if !strings.Contains(st.IfDies[0].Text, tc.dieSays1) {
				t.Errorf("if pgsql1 dies: %q, want %q", st.IfDies[0].Text, tc.dieSays1)
			}
		})
	}
}

func TestBeforeAnythingIsRecorded(t *testing.T) {
	v := healthy()
	v.Record, v.Decision, v.IfDies = cluster.Record{}, decide.Decision{}, nil
	st := seen(v)
	if st.Primary != "" || st.Verdict.Level != "warn" || st.WantMode != "sync" || len(st.IfDies) != 0 || st.History == nil {
		t.Errorf("%+v", st)
	}
	for _, n := range st.Nodes {
		if n.LagBytes != -1 || len(n.Warnings) > 0 {
			t.Errorf("%s: lag %d, warnings %q", n.Name, n.LagBytes, n.Warnings)
		}
	}
}

func TestOnlyOpenPromisesAreShown(t *testing.T) {
	v := healthy()
	if ps := seen(v).Promises; len(ps) != 0 {
		t.Errorf("kept promises are shown: %+v", ps)
	}
	v.Record.Members["pgsql2"] = cluster.Member{Eligible: true, Promised: 5, PromisedLSN: 0x5000148}
	if ps := seen(v).Promises; len(ps) != 1 || ps[0] != (api.Promise{Node: "pgsql2", Term: 5, LSN: "0/5000148"}) {
		t.Errorf("open promises: %+v", ps)
	}
}

func TestDriftIsAWarningOfThePrimary(t *testing.T) {
	c := config.Default()
	st := stateOf(sight{Config: c, View: healthy(), Drift: "postgresql.conf was edited"})
	if w := st.Nodes[0].Warnings; len(w) != 1 || w[0] != "postgresql.conf was edited" || len(st.Nodes[1].Warnings) != 0 {
		t.Errorf("%q, %q", w, st.Nodes[1].Warnings)
	}
}

// TestEveryPolicyIsExplained: whatever the configuration allows has a sentence.
func TestEveryPolicyIsExplained(t *testing.T) {
	for _, change := range []func(*config.Config){
		func(*config.Config) {},
		func(c *config.Config) {
			c.Failover = config.Failover{Policy: "manual", NotInSync: "promote", StandbyLost: "wait", Rejoin: "manual", BrokenPath: "hold"}
			c.Sync = config.Sync{SwapMethod: "files", Method: "ANY", Standbys: 2}
			c.Proxy.PoolMode = "session"
			c.Nodes = []config.Node{{Name: "pgsql3"}}
		},
	} {
		c := config.Default()
		change(c)
		for _, p := range policiesOf(sight{Config: c, View: healthy()}) {
			if p.Name == "" || p.Value == "" || len(p.Text) < 20 {
				t.Errorf("%+v says too little", p)
			}
		}
	}
}

func TestAnOperationOnItsWay(t *testing.T) {
	op := plan.Operation{
		ID: "o1", Outcome: plan.Running, Started: noon.Add(-2 * time.Second),
		Plan: plan.Plan{ID: "o1", Action: cluster.Promote, Node: "pgsql2", Rule: 31, Steps: []plan.Step{
			{ID: "1", Kind: plan.GateClose, Title: "close the gate", Deadline: time.Second},
			{ID: "2", Kind: plan.NodePromote, Node: "pgsql2", Title: "promote", Deadline: time.Minute, Expect: 50 * time.Millisecond},
			{ID: "3", Kind: plan.GateOpen, Title: "open the gate"}}},
		Steps: []plan.StepRun{
			{Outcome: plan.Done, Detail: "closed", Started: noon.Add(-2 * time.Second), Took: 1500 * time.Microsecond},
			{Outcome: plan.Running, Started: noon.Add(-time.Second)}},
	}
	a := operationOf(op, "waiting for pgsql2", noon)
	if a.State != api.OpRunning || a.Ended != nil || a.TookMS != 2000 || a.Progress != "waiting for pgsql2" {
		t.Errorf("%+v", a)
	}
	var states []string
	for _, s := range a.Plan.Steps {
		states = append(states, s.State)
	}
	if !slices.Equal(states, []string{"done", "running", "pending"}) {
		t.Errorf("steps are %v", states)
	}
	if s := a.Plan.Steps; s[0].TookMS != 1.5 || s[1].TookMS != 1000 || s[2].Started != nil || s[1].ExpectMS != 50 || s[0].DeadlineMS != 1000 {
		t.Errorf("timings of %+v", s)
	}
	op.Outcome, op.Ended = plan.Stopped, noon.Add(-time.Second)
	if a := operationOf(op, "", noon); a.State != api.OpStopped || a.TookMS != 1000 || !a.Ended.Equal(op.Ended) {
		t.Errorf("ended: %+v", a)
	}
}
