package metrics

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pgtandem/pgtandem/proxyd/admin"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

var update = flag.Bool("update", false, "write what is got as what is wanted; then read the difference")

// moment is a source of one moment.
type moment struct{ err error }

func (moment) View() admin.View {
	return admin.View{
		Limits:    admin.Limits{MaxClients: 1000, PoolSize: 20, MaxServers: 80},
		Gate:      admin.Gate{Held: 1, OldestHeld: 1500 * time.Millisecond, Holds: 7, HoldTime: 2500 * time.Millisecond},
		Databases: []admin.Database{{Name: "night", Paused: true, Disabled: true}, {Name: "shop"}},
		Pools:     []admin.Pool{{Database: "shop", User: "web \"quoted\"\n", Connecting: 1, Idle: 2, Active: 3, Cleaning: 1, OldestWait: 250 * time.Millisecond}},
		Clients: []admin.Client{
			{Database: "shop", User: "web", State: admin.ClientActive, Pinned: "a temporary table"},
			{Database: "shop", User: "web", State: admin.ClientHeld},
			{Database: "made up", User: "by a stranger", State: admin.ClientLogin},
		},
		Totals: map[string]admin.Totals{"shop": {Assignments: 1, Transactions: 2, Queries: 3, Received: 4, Sent: 5, Logins: 6,
			TransactionTime: time.Second, QueryTime: 500 * time.Millisecond, WaitTime: time.Millisecond, ClientParses: 7, ServerParses: 8, Binds: 9}},
		Statements: map[string]uint64{"pgsql1": 3},
		Errors:     map[string]uint64{"57P03": 2},
		Routes:     map[string]uint64{"standby": 40, "text": 2},
	}
}

func (m moment) State(context.Context) (api.State, error) {
	return api.State{Cluster: "shop", Version: "1.2.3", Primary: "pgsql1", Term: 4, Mode: "sync", Verdict: api.Verdict{Level: "warn"}, History: make([]api.History, 2), Nodes: []api.Node{
		{Name: "pgsql1", Role: "primary", Reachable: true, SeenMS: 250, Eligible: true, SyncWaiters: 1},
		{Name: "pgsql2", Role: "unknown", LagBytes: -1, FlushLagBytes: -1, SeenMS: -1, InSyncSet: true, Fenced: true, Warnings: []string{"it does not answer"}},
	}}, m.err
}

func TestMetrics(t *testing.T) {
	const file = "testdata/metrics.golden"
	if *update {
		r := httptest.NewRecorder()
		Handler(moment{}).ServeHTTP(r, httptest.NewRequest("GET", "/metrics", nil))
		var ours strings.Builder
		for line := range strings.Lines(r.Body.String()) {
			if strings.Contains(line, "pgtandem_") {
				ours.WriteString(line)
			}
		}
		if err := os.WriteFile(file, []byte(ours.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := testutil.CollectAndCompare(Collector(moment{}), bytes.NewReader(want)); err != nil {
		t.Error(err)
	}
}

// TestNamesFollowPrometheusRules: units, suffixes and help, as promlint has
// them.
func TestNamesFollowPrometheusRules(t *testing.T) {
	problems, err := testutil.CollectAndLint(Collector(moment{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestWhatIsLeftWithoutTheEngine: the data plane is seen when the state of the
// cluster cannot be read.
func TestWhatIsLeftWithoutTheEngine(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(Collector(moment{errors.New("the store is away")}))
	if err := testutil.GatherAndCompare(r, strings.NewReader(`
# HELP pgtandem_engine_readable 1 when the state of the cluster could be read; 0 leaves the metrics of the cluster out.
# TYPE pgtandem_engine_readable gauge
pgtandem_engine_readable 0
# HELP pgtandem_gate_open 1 when clients are let through to the primary, 0 when they are held.
# TYPE pgtandem_gate_open gauge
pgtandem_gate_open 0
`), "pgtandem_engine_readable", "pgtandem_gate_open", "pgtandem_term"); err != nil {
		t.Error(err)
	}
}
