// Package metrics writes what the console shows for Prometheus. Nothing is
// counted for it: every figure is read when somebody scrapes, so that a
// statement costs no more with metrics than without.
//
// It owns the names and units of the metrics, which are kept. It must never
// know where the figures come from.
package metrics

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pgtandem/pgtandem/proxyd/admin"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

// Source gives the figures of one moment.
type Source interface {
	View() admin.View
	State(ctx context.Context) (api.State, error)
}

// scrapeLimit bounds one reading; Prometheus gives up after 10s by default.
const scrapeLimit = 5 * time.Second

// Handler answers scrapes with the figures of the source, and with those of
// the Go runtime and of the process.
func Handler(s Source) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(Collector(s), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// Collector reads the source at each scrape.
func Collector(s Source) prometheus.Collector { return collector{s} }

type collector struct{ source Source }

// Describe implements prometheus.Collector: the labels depend on what there
// is, so that nothing is promised.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	v := c.source.View()
	dataPlane(out, &v)
	pools(out, &v)
	databases(out, &v)
	ctx, cancel := context.WithTimeout(context.Background(), scrapeLimit)
	defer cancel()
	st, err := c.source.State(ctx)
	engineUp.gauge(out, float64(bit(err == nil)))
	if err == nil {
		engine(out, &st)
		nodes(out, &st, &v)
	}
}

// metric is a name with its labels.
type metric struct{ desc *prometheus.Desc }

func define(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("pgtandem_"+name, help, labels, nil)}
}

func (m metric) gauge(out chan<- prometheus.Metric, v float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, v, labels...)
}

func (m metric) counter(out chan<- prometheus.Metric, v float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, v, labels...)
}

// Of the data plane.
var (
	gateOpen       = define("gate_open", "1 when clients are let through to the primary, 0 when they are held.")
	heldClients    = define("held_clients", "Clients that are held now, at the gate or by a pause.")
	oldestHold     = define("oldest_hold_seconds", "How long the oldest of them has been held.")
	holdsEnded     = define("holds_total", "Waits at the gate or in a pause that have ended.")
	holdTime       = define("hold_seconds_total", "Time of those waits together.")
	pausedAll      = define("paused", "1 when everything is paused by an administrator.")
	clientLimit    = define("clients_limit", "Clients that may be connected at one time.")
	serverLimit    = define("servers_limit", "Server connections that there may be in all.")
	errorsSent     = define("errors_total", "Errors that the proxy itself has sent to clients, by SQLSTATE.", "sqlstate")
	routed         = define("routes_total", "Decisions where something is read, by reason: \"standby\" went there, all others to the primary or to another node.", "reason")
	pinnedClients  = define("pinned_clients", "Clients that keep their server because of what they hold there.", "reason")
	poolClients    = define("pool_clients", "Clients of a pool by state.", "database", "user", "state")
	poolServers    = define("pool_servers", "Server connections of a pool by state.", "database", "user", "state")
	poolOldestWait = define("pool_oldest_wait_seconds", "How long the client has waited that waits longest for a server of the pool.", "database", "user")
	poolLimit      = define("pool_servers_limit", "Server connections that each pool may have.")
	dbPaused       = define("database_paused", "1 when the database is paused.", "database")
	dbDisabled     = define("database_disabled", "1 when logins to the database are refused.", "database")
	dbLogins       = define("logins_total", "Logins that succeeded.", "database")
	dbQueries      = define("queries_total", "Answers that ended with ReadyForQuery.", "database")
	dbTransactions = define("transactions_total", "Transactions that have ended.", "database")
	dbAssignments  = define("server_assignments_total", "Times that a client was given a server.", "database")
	dbReceived     = define("received_bytes_total", "Bytes from clients that were passed on to servers.", "database")
	dbSent         = define("sent_bytes_total", "Bytes from servers that were passed on to clients.", "database")
	dbQueryTime    = define("query_seconds_total", "Time that servers had something to answer.", "database")
	dbTxTime       = define("transaction_seconds_total", "Time that servers were in a transaction.", "database")
	dbWaitTime     = define("wait_seconds_total", "Time that clients waited until they were given a server.", "database")
	dbClientParses = define("client_parses_total", "Named statements that clients have prepared.", "database")
	dbServerParses = define("server_parses_total", "Named statements that were prepared on servers.", "database")
	dbBinds        = define("binds_total", "Statements that were bound.", "database")
)

// Of the engine.
var (
	engineUp     = define("engine_readable", "1 when the state of the cluster could be read; 0 leaves the metrics of the cluster out.")
	info         = define("info", "Always 1; the labels name the cluster and the version.", "cluster", "version")
	term         = define("term", "The number that grows with each change of primary.")
	promotions   = define("promotions_recorded", "Changes of primary in the recorded history, the first primary included.")
	modeSync     = define("synchronous", "1 when commits wait for a standby, 0 when the primary acknowledges alone.")
	maintenance  = define("maintenance", "1 when the engine only watches.")
	halted       = define("halted", "1 when an invariant was found broken and the engine does not act.")
	verdict      = define("verdict", "How the cluster stands: 0 ok, 1 warn, 2 alarm.")
	nodeUp       = define("node_up", "1 when the node answers.", "node")
	nodeRole     = define("node_role", "1 for the role that the node says it has.", "node", "role")
	nodePrimary  = define("node_primary", "1 for the node that is recorded as the primary.", "node")
	nodeEligible = define("node_eligible", "1 when it is recorded that the node holds every acknowledged commit.", "node")
	nodeSyncSet  = define("node_in_sync_set", "1 when commits wait for the node.", "node")
	nodeFenced   = define("node_fenced", "1 when the node is kept from clients.", "node")
	nodeLag      = define("node_replay_lag_bytes", "WAL that the primary has flushed and the node has not replayed; absent where not known.", "node")
	nodeFlushLag = define("node_flush_lag_bytes", "WAL that the primary has flushed and the node has not; absent where not known.", "node")
	nodeSeen     = define("node_seen_age_seconds", "Age of what is known of the node; absent where it was never seen.", "node")
	nodeWaiters  = define("node_sync_waiters", "Commits on the node that wait for a standby.", "node")
	nodeWarnings = define("node_warnings", "What a person should look at; SHOW NODES says what it is.", "node")
	nodeQueries  = define("node_queries_total", "Answers of the node that ended with ReadyForQuery.", "node")
)

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func dataPlane(out chan<- prometheus.Metric, v *admin.View) {
	gateOpen.gauge(out, float64(bit(v.Gate.Open)))
	heldClients.gauge(out, float64(v.Gate.Held))
	oldestHold.gauge(out, v.Gate.OldestHeld.Seconds())
	holdsEnded.counter(out, float64(v.Gate.Holds))
	holdTime.counter(out, v.Gate.HoldTime.Seconds())
	pausedAll.gauge(out, float64(bit(v.PausedAll)))
	clientLimit.gauge(out, float64(v.Limits.MaxClients))
	serverLimit.gauge(out, float64(v.Limits.MaxServers))
	poolLimit.gauge(out, float64(v.Limits.PoolSize))
	for code, n := range v.Errors {
		errorsSent.counter(out, float64(n), code)
	}
	for reason, n := range v.Routes {
		routed.counter(out, float64(n), reason)
	}
	pinned := make(map[string]int)
	for _, c := range v.Clients {
		if c.Pinned != "" {
			pinned[c.Pinned]++
		}
	}
	for reason, n := range pinned {
		pinnedClients.gauge(out, float64(n), reason)
	}
}

type poolID struct{ database, user string }

// clientStates are the values of the label state, those without a client
// included, so that a series does not come and go.
var clientStates = []string{admin.ClientIdle, admin.ClientActive, admin.ClientInTx, admin.ClientWaiting, admin.ClientHeld}

func pools(out chan<- prometheus.Metric, v *admin.View) {
	clients := make(map[poolID]map[string]int)
	of := func(id poolID) map[string]int {
		if clients[id] == nil {
			clients[id] = make(map[string]int)
		}
		return clients[id]
	}
	for _, c := range v.Clients {
		if c.State != admin.ClientLogin { // a stranger's words make no series
			of(poolID{c.Database, c.User})[c.State]++
		}
	}
	for _, p := range v.Pools {
		of(poolID{p.Database, p.User})
		for state, n := range map[string]int{"connecting": p.Connecting, "idle": p.Idle, "active": p.Active, "cleaning": p.Cleaning} {
			poolServers.gauge(out, float64(n), p.Database, p.User, state)
		}
		poolOldestWait.gauge(out, p.OldestWait.Seconds(), p.Database, p.User)
	}
	for id, states := range clients {
		for _, state := range clientStates {
			poolClients.gauge(out, float64(states[state]), id.database, id.user, state)
		}
	}
}

func databases(out chan<- prometheus.Metric, v *admin.View) {
	for _, d := range v.Databases {
		dbPaused.gauge(out, float64(bit(v.PausedAll || d.Paused)), d.Name)
		dbDisabled.gauge(out, float64(bit(d.Disabled)), d.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(v.Totals)) {
		t := v.Totals[name]
		for m, n := range map[metric]uint64{
			dbLogins: t.Logins, dbQueries: t.Queries, dbTransactions: t.Transactions, dbAssignments: t.Assignments,
			dbReceived: t.Received, dbSent: t.Sent, dbClientParses: t.ClientParses, dbServerParses: t.ServerParses, dbBinds: t.Binds,
		} {
			m.counter(out, float64(n), name)
		}
		for m, d := range map[metric]time.Duration{dbQueryTime: t.QueryTime, dbTxTime: t.TransactionTime, dbWaitTime: t.WaitTime} {
			m.counter(out, d.Seconds(), name)
		}
	}
}

// levels of a verdict, as numbers that an alert can compare.
var levels = map[string]float64{"ok": 0, "warn": 1, "alarm": 2}

func engine(out chan<- prometheus.Metric, s *api.State) {
	info.gauge(out, 1, s.Cluster, s.Version)
	term.gauge(out, float64(s.Term))
	promotions.gauge(out, float64(len(s.History)))
	modeSync.gauge(out, float64(bit(s.Mode == "sync")))
	maintenance.gauge(out, float64(bit(s.Maintenance)))
	halted.gauge(out, float64(bit(s.Halted != "")))
	verdict.gauge(out, levels[s.Verdict.Level])
}

func nodes(out chan<- prometheus.Metric, s *api.State, v *admin.View) {
	for _, n := range s.Nodes {
		nodeUp.gauge(out, float64(bit(n.Reachable)), n.Name)
		for _, role := range []string{"primary", "standby", "unknown"} {
			nodeRole.gauge(out, float64(bit(n.Role == role)), n.Name, role)
		}
		nodePrimary.gauge(out, float64(bit(n.Name == s.Primary)), n.Name)
		nodeEligible.gauge(out, float64(bit(n.Eligible)), n.Name)
		nodeSyncSet.gauge(out, float64(bit(n.InSyncSet)), n.Name)
		nodeFenced.gauge(out, float64(bit(n.Fenced)), n.Name)
		for m, known := range map[metric]int64{nodeLag: n.LagBytes, nodeFlushLag: n.FlushLagBytes} {
			if known >= 0 {
				m.gauge(out, float64(known), n.Name)
			}
		}
		if n.SeenMS >= 0 {
			nodeSeen.gauge(out, float64(n.SeenMS)/1000, n.Name)
		}
		nodeWaiters.gauge(out, float64(n.SyncWaiters), n.Name)
		nodeWarnings.gauge(out, float64(len(n.Warnings)), n.Name)
		nodeQueries.counter(out, float64(v.Statements[n.Name]), n.Name)
	}
}
