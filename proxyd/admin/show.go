package admin

import (
	"context"
	"slices"
)

// show is one answer of SHOW.
type show struct {
	word    string
	alias   string // another word for the same
	columns []column
	help    string
	rows    func(ctx context.Context, c *Console) ([]row, error)
}

// ofView makes rows from the view of the data plane alone.
func ofView(f func(v *View) []row) func(context.Context, *Console) ([]row, error) {
	return func(_ context.Context, c *Console) ([]row, error) {
		v := c.opt.Plane.View()
		return f(&v), nil
	}
}

// none is an answer that PgBouncer has and that is always empty here.
func none(context.Context, *Console) ([]row, error) { return nil, nil }

// statColumns are the figures of SHOW STATS, in its order.
var statColumns = []string{
	"server_assignment_count", "xact_count", "query_count", "received", "sent",
	"xact_time", "query_time", "wait_time", "client_parse_count", "server_parse_count", "bind_count", "client_login_count",
}

// prefixed puts a prefix before each name, but for those that have another
// name under it.
func prefixed(prefix string, names []string, other map[string]string) []string {
	out := make([]string, 0, len(names))
	for _, n := range names {
		if o, ok := other[n]; ok {
			out = append(out, o)
			continue
		}
		out = append(out, prefix+n)
	}
	return out
}

// socketColumns are those of SHOW CLIENTS and SHOW SERVERS.
func socketColumns() []column {
	return slices.Concat(
		texts("type", "user", "database", "replication", "state", "addr"), int4s("port"),
		texts("local_addr"), int4s("local_port"), texts("connect_time", "request_time"),
		int4s("wait", "wait_us", "close_needed"), texts("ptr", "link"), int4s("remote_pid"),
		texts("tls", "application_name"), int4s("prepared_statements"), int8s("id"),
	)
}

// bufferColumns are what SHOW SOCKETS has beside them.
func bufferColumns() []column {
	return int4s("recv_pos", "pkt_pos", "pkt_remain", "send_pos", "send_remain", "pkt_avail", "send_avail")
}

// shows is every answer, by its word. The columns up to those that a comment
// names as ours are PgBouncer 1.25's, or pgpool-II 4.3's for NODES.
func shows() []show {
	return []show{
		{word: "ACTIVE_SOCKETS", columns: slices.Concat(socketColumns(), bufferColumns(), socketExtra()),
			help: "the sockets of SHOW SOCKETS that have something to do", rows: ofView(activeSocketRows)},
		{word: "CLIENTS", columns: slices.Concat(socketColumns(), texts("node", "pinned", "waits_for", "route")), // the last four are ours
			help: "every client; why one is pinned to its server, what one waits for, and where it was routed and why", rows: ofView(clientRows)},
		{word: "CONFIG", columns: texts("key", "value", "default", "changeable"),
			help: "the configuration in force, and under PgBouncer's names what has one", rows: configRows},
		{word: "DATABASES", columns: slices.Concat(texts("name", "host"), int4s("port"), texts("database", "force_user"),
			int4s("pool_size", "min_pool_size", "reserve_pool_size", "server_lifetime"), texts("pool_mode", "load_balance_hosts"),
			int4s("max_connections", "current_connections", "max_client_connections", "current_client_connections", "paused", "disabled"),
			texts("gate")), // ours
			help: "the databases that are known, and which are paused or disabled", rows: databaseRows},
		{word: "DNS_HOSTS", columns: slices.Concat(texts("hostname"), int8s("ttl"), texts("addrs")),
			help: "always empty: names are asked for anew at each connection", rows: none},
		{word: "DNS_ZONES", columns: slices.Concat(texts("zonename"), int8s("serial"), int4s("count")),
			help: "always empty: names are asked for anew at each connection", rows: none},
		{word: "LISTS", columns: slices.Concat(texts("list"), int4s("items")), help: "how many there are of what", rows: ofView(listRows)},
		{word: "MEM", columns: slices.Concat(texts("name"), int4s("size", "used", "free"), int8s("memtotal")),
			help: "what memory is used for", rows: ofView(memRows)},
		{word: "NODES", alias: "POOL_NODES", columns: slices.Concat(
			texts("node_id", "hostname", "port", "status", "pg_status", "lb_weight", "role", "pg_role", "select_cnt",
				"load_balance_node", "replication_delay", "replication_state", "replication_sync_state", "last_status_change"),
			texts("name", "gate", "timeline", "lsn", "eligible", "warnings")), // ours
			help: "the PostgreSQL servers, with the columns of pgpool-II's SHOW POOL_NODES", rows: nodeRows},
		{word: "PEERS", columns: slices.Concat(int4s("peer_id"), texts("host"), int4s("port", "pool_size")),
			help: "always empty: there are no peers", rows: none},
		{word: "PEER_POOLS", columns: int4s("peer_id", "cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active_cancel", "sv_login"),
			help: "always empty: there are no peers", rows: none},
		{word: "POOLS", columns: slices.Concat(texts("database", "user"),
			int4s("cl_active", "cl_waiting", "cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active", "sv_active_cancel", "sv_being_canceled",
				"sv_idle", "sv_used", "sv_tested", "sv_login", "maxwait", "maxwait_us"), texts("pool_mode", "load_balance_hosts"),
			int4s("cl_held", "cl_pinned"), texts("gate"), int4s("pool_size", "min_pool_size", "reserve_pool_size")), // ours
			help: "one pool for each database and user; clients held at the gate, and pinned; its limits", rows: ofView(poolRows)},
		{word: "ROUTES", columns: slices.Concat(texts("to", "reason"), int8s("count"), texts("meaning")), // ours
			help: "how often something went to a standby or to the primary, by the reason", rows: ofView(routeRows)},
		{word: "SERVERS", columns: slices.Concat(socketColumns(), texts("node", "pinned")), // the last two are ours
			help: "every connection to a node", rows: ofView(serverRows)},
		{word: "SOCKETS", columns: slices.Concat(socketColumns(), bufferColumns(), socketExtra()),
			help: "clients and servers together", rows: ofView(socketRows)},
		{word: "STATE", columns: texts("key", "value"), help: "whether all is active or paused, and the gate", rows: ofView(stateRows)},
		{word: "STATS", columns: slices.Concat(texts("database"), numerics(prefixed("total_", statColumns, nil)...),
			numerics(prefixed("avg_", statColumns, map[string]string{"received": "avg_recv"})...)),
			help: "counted since the start, and averages of the last period", rows: statRows},
		{word: "STATS_AVERAGES", columns: slices.Concat(texts("database"), numerics(append(prefixed("", statColumns[:8], byteNames),
			prefixed("avg_", statColumns[8:], nil)...)...)), help: "the averages of SHOW STATS", rows: averageRows},
		{word: "STATS_TOTALS", columns: slices.Concat(texts("database"), numerics(prefixed("", statColumns, byteNames)...)),
			help: "the totals of SHOW STATS", rows: totalRows},
		{word: "TOTALS", columns: slices.Concat(texts("name"), numerics("value")), help: "SHOW STATS of all databases together", rows: sumRows},
		{word: "USERS", columns: slices.Concat(texts("name", "pool_size", "reserve_pool_size", "pool_mode"),
			int4s("max_user_connections", "current_connections", "max_user_client_connections", "current_client_connections")),
			help: "the users that are known", rows: ofView(userRows)},
		{word: "VERSION", columns: texts("version"), help: "the version of proxyd", rows: versionRows},
	}
}

// byteNames are how STATS_TOTALS and STATS_AVERAGES call two of the figures.
var byteNames = map[string]string{"received": "bytes_received", "sent": "bytes_sent"}

func socketExtra() []column { return texts("node", "pinned", "waits_for") }
