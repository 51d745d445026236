package admin

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

func versionRows(_ context.Context, c *Console) ([]row, error) {
	return []row{{"pgtandem " + c.opt.Version}}, nil
}

func stateRows(v *View) []row {
	yes := func(b bool) string {
		if b {
			return "yes"
		}
		return "no"
	}
	gate := "open"
	if !v.Gate.Open {
		gate = "closed"
	}
	return []row{
		{"active", yes(!v.PausedAll)}, {"paused", yes(v.PausedAll)}, {"suspended", "no"},
		{"gate", gate}, {"gate_node", v.Gate.Node}, {"gate_reason", v.Gate.Reason}, {"held", strconv.Itoa(v.Gate.Held)}, // ours
	}
}

func listRows(v *View) []row {
	var login int
	users := make(map[string]bool)
	for _, c := range v.Clients {
		login += bit(c.State == ClientLogin)
		users[c.User] = true
	}
	servers := 0
	for _, p := range v.Pools {
		servers += p.Connecting + p.Idle + p.Active + p.Cleaning
		users[p.User] = true
	}
	return []row{
		{"databases", len(v.Databases)}, {"users", len(users)}, {"peers", 0}, {"pools", len(v.Pools)}, {"peer_pools", 0},
		{"free_clients", 0}, {"used_clients", len(v.Clients)}, {"login_clients", login},
		{"free_servers", 0}, {"used_servers", servers},
		{"dns_names", 0}, {"dns_zones", 0}, {"dns_queries", 0}, {"dns_pending", 0},
	}
}

// memRows are Go's own accounts: connections have no slabs of their own. What
// is in use is "used", what the system could have back is "free".
func memRows(v *View) []row {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	bytes := func(name string, inUse, idle uint64) row {
		return row{name, 1, int64(inUse), int64(idle), int64(inUse + idle)}
	}
	return []row{
		bytes("heap", m.HeapInuse, m.HeapIdle-m.HeapReleased),
		bytes("stacks", m.StackInuse, m.StackSys-m.StackInuse),
		bytes("collector", m.GCSys, 0),
		bytes("other", m.OtherSys+m.BuckHashSys+m.MSpanInuse+m.MCacheInuse, 0),
		{"clients", nil, len(v.Clients), nil, nil},
		{"servers", nil, len(v.Servers), nil, nil},
	}
}

// userFigures count a user's connections.
func userRows(v *View) []row {
	servers, clients := make(map[string]int), make(map[string]int)
	for _, p := range v.Pools {
		servers[p.User] += p.Connecting + p.Idle + p.Active + p.Cleaning
	}
	for _, c := range v.Clients {
		if c.State != ClientLogin {
			clients[c.User]++
		}
	}
	var out []row
	for _, u := range v.Users {
		out = append(out, row{u.Name, strconv.Itoa(u.PoolSize), strconv.Itoa(u.ReserveSize), u.Mode,
			tightest(u.MaxServers, v.Limits.MaxServers), servers[u.Name], tightest(u.MaxClients, v.Limits.MaxClients), clients[u.Name]})
		delete(clients, u.Name)
	}
	for name, n := range clients { // of the console alone
		out = append(out, row{name, nil, nil, nil, 0, 0, 0, n})
	}
	slices.SortFunc(out, func(a, b row) int { return strings.Compare(a[0].(string), b[0].(string)) })
	return out
}

// tightest is the lower of two limits, of which zero is none.
func tightest(a, b int) int {
	if a > 0 && b > 0 {
		return min(a, b)
	}
	return max(a, b)
}

func databaseRows(ctx context.Context, c *Console) ([]row, error) {
	v := c.opt.Plane.View()
	servers, clients := make(map[string]int), make(map[string]int)
	for _, p := range v.Pools {
		servers[p.Database] += p.Connecting + p.Idle + p.Active + p.Cleaning
	}
	for _, cl := range v.Clients {
		if cl.State != ClientLogin {
			clients[cl.Database]++
		}
	}
	host, port := any(nil), 0
	if s, err := c.opt.Daemon.State(ctx); err == nil { // without it the rest is still true
		for _, n := range s.Nodes {
			if n.Name == cmp.Or(v.Gate.Node, s.Primary) {
				host, port = n.Host, n.Port
			}
		}
	}
	var out []row
	for _, d := range v.Databases {
		if Owns(d.Name) {
			continue
		}
		out = append(out, row{d.Name, host, port, d.Name, nil, d.PoolSize, d.MinPoolSize, d.ReserveSize, seconds(d.ServerLifetime), d.Mode, nil,
			tightest(d.MaxServers, v.Limits.MaxServers), servers[d.Name], tightest(d.MaxClients, v.Limits.MaxClients), clients[d.Name],
			bit(v.PausedAll || d.Paused), bit(d.Disabled), v.gateWord(d.Name)})
	}
	return out, nil
}

// theirNames are the keys of ours that mean what one of PgBouncer's means, in
// PgBouncer's units: what reads SHOW CONFIG of a PgBouncer finds them.
var theirNames = []struct{ theirs, ours string }{
	{"admin_users", "proxy.admin_users"}, {"client_idle_timeout", "proxy.idle_session_timeout"}, {"client_login_timeout", "proxy.login_timeout"}, {"client_tls_cert_file", "proxy.client_tls.cert_file"},
	{"client_tls_key_file", "proxy.client_tls.key_file"}, {"client_tls_sslmode", "proxy.client_tls.mode"}, {"conffile", "path"},
	{"default_pool_size", "proxy.pool_size"}, {"listen_addr", "proxy.listen_addresses"}, {"listen_port", "proxy.port"},
	{"idle_transaction_timeout", "proxy.idle_in_transaction_session_timeout"},
	{"max_client_conn", "proxy.max_clients"}, {"max_db_client_connections", "proxy.max_clients_per_database"},
	{"max_db_connections", "proxy.max_servers_per_database"}, {"max_user_client_connections", "proxy.max_clients_per_user"},
	{"max_user_connections", "proxy.max_servers_per_user"}, {"max_packet_size", "proxy.max_message_bytes"}, {"min_pool_size", "proxy.min_pool_size"}, {"pool_mode", "proxy.pool_mode"},
	{"query_timeout", "proxy.statement_timeout"}, {"query_wait_timeout", "proxy.wait_timeout"},
	{"reserve_pool_size", "proxy.reserve_pool_size"}, {"reserve_pool_timeout", "proxy.reserve_pool_delay"}, {"server_connect_timeout", "proxy.connect_timeout"},
	{"server_idle_timeout", "proxy.server_idle_timeout"}, {"server_lifetime", "proxy.server_lifetime"},
	{"server_tls_ca_file", "proxy.server_tls.ca_file"}, {"server_tls_sslmode", "proxy.server_tls.mode"}, {"stats_users", "proxy.stats_users"},
	{"tcp_keepcnt", "proxy.tcp_keepalives_count"}, {"tcp_keepidle", "proxy.tcp_keepalives_idle"}, {"tcp_keepintvl", "proxy.tcp_keepalives_interval"},
	{"transaction_timeout", "proxy.transaction_timeout"},
}

func configRows(_ context.Context, c *Console) ([]row, error) {
	settings := c.opt.Daemon.Settings()
	byKey := make(map[string]Setting, len(settings))
	var out []row
	add := func(key string, s Setting, value func(string) string) {
		out = append(out, row{key, value(s.Value), value(s.Default), map[bool]string{true: "yes", false: "no"}[s.Changeable]})
	}
	for _, s := range settings {
		byKey[s.Key] = s
		add(s.Key, s, func(v string) string { return v })
	}
	for _, n := range theirNames {
		if s, ok := byKey[n.ours]; ok {
			add(n.theirs, s, theirValue)
		}
	}
	return out, nil
}

// theirValue writes a value as PgBouncer would: a duration in seconds, a list
// with commas.
func theirValue(v string) string {
	if d, err := time.ParseDuration(v); err == nil && v != "0" {
		return strconv.FormatFloat(d.Seconds(), 'f', -1, 64)
	}
	if list, ok := strings.CutPrefix(v, "["); ok {
		return strings.NewReplacer(`"`, "", "]", "").Replace(list)
	}
	return v
}

// nodeRows has pgpool-II's words: status is what we do with the node, pg_status
// what it says itself.
func nodeRows(ctx context.Context, c *Console) ([]row, error) {
	s, err := c.opt.Daemon.State(ctx)
	if err != nil {
		return nil, wire.Errorf(wire.CodeInternalError, "the state of the cluster cannot be read").WithDetail("%v", err)
	}
	v := c.opt.Plane.View()
	weights := 0
	for _, n := range s.Nodes {
		weights += n.Weight
	}
	var out []row
	for i, n := range s.Nodes {
		status, role := nodeStatus(s, n)
		c.nodes.note(n.Name, status+" "+role, v.At)
		share := 0.0
		if weights > 0 {
			share = float64(n.Weight) / float64(weights)
		}
		pgStatus, delay, gate := "down", "", ""
		if n.Reachable {
			pgStatus = "up"
		}
		if n.LagBytes >= 0 {
			delay = strconv.FormatInt(n.LagBytes, 10)
		}
		reads := v.Gate.Open && v.Gate.Node == n.Name
		if n.Name == s.Primary {
			gate = s.GateState
		}
		out = append(out, row{strconv.Itoa(i), n.Host, strconv.Itoa(n.Port), status, pgStatus, fmt.Sprintf("%f", share), role, n.Role,
			strconv.FormatUint(v.Statements[n.Name], 10), strconv.FormatBool(reads), delay, n.State, n.SyncState,
			c.nodes.since(n.Name).UTC().Format("2006-01-02 15:04:05"),
			n.Name, gate, strconv.FormatUint(uint64(n.Timeline), 10), n.LSN, strconv.FormatBool(n.Eligible), strings.Join(n.Warnings, "; ")})
	}
	return out, nil
}

// nodeStatus gives status and role as pgpool-II's pcp_node_info has them: a
// node that is up and out of use is in quarantine.
func nodeStatus(s api.State, n api.Node) (status, role string) {
	role = "standby"
	if n.Name == s.Primary {
		role = "primary"
	}
	switch {
	case !n.Reachable:
		status = "down"
	case n.Fenced:
		status = "quarantine"
	case n.Role == role:
		status = "up"
	default:
		status = "quarantine"
	}
	return status, role
}
