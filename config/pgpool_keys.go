package config

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// config maps what has a counterpart, in the order of our file.
func (im *importer) config() {
	im.proxy()
	im.listenTLS()
	im.healthCheck()
	im.credential("sr_check", "replication_check")
	im.period("sr_check_period", "replication_check", "period")
	im.credential("recovery", "recovery")
	im.failover()
	im.reads()
	im.log()
	weights := im.weights()
	names := map[string]bool{}
	for _, i := range im.backends() {
		im.node(i, weights[i], names)
	}
	im.note(0, "replication: standbys connect as a role of their own here: write its password to /etc/pgtandem/replication.password (mode 0600)")
	im.put("replication", "password_file", "/etc/pgtandem/replication.password", setting{})
	im.note(0, "ssh: give the key with which proxyd reaches the nodes to ssh.key_file, and the nodes' host keys to ssh.known_hosts (ssh-keyscan)")
}

func (im *importer) proxy() {
	if s, ok := im.take("listen_addresses"); ok && s.value != "" {
		im.put("proxy", "listen_addresses", splitList(s.value), s)
	} else {
		im.put("proxy", "listen_addresses", []string{"localhost"}, setting{}) // pgpool's own default
	}
	im.number("port", "proxy", "port")
	if s, ok := im.take("num_init_children"); ok {
		im.number("num_init_children", "proxy", "max_clients")
		im.note(s.line, "num_init_children: a client needs no process of its own here; max_clients can be far higher at no cost")
	}
	im.period("authentication_timeout", "proxy", "login_timeout")
	if s, ok := im.take("client_idle_limit"); ok && s.value != "0" {
		im.period("client_idle_limit", "proxy", "idle_session_timeout")
	}
	im.period("connection_life_time", "proxy", "server_idle_timeout")
	im.milliseconds("connect_timeout", "proxy", "connect_timeout")
}

func (im *importer) listenTLS() {
	s, ok := im.take("ssl")
	cert, hasCert := im.take("ssl_cert")
	key, hasKey := im.take("ssl_key")
	if !ok || !isOn(s.value) {
		return
	}
	if !hasCert || !hasKey || !strings.HasPrefix(cert.value, "/") || !strings.HasPrefix(key.value, "/") {
		im.note(s.line, "ssl is on, but ssl_cert and ssl_key are not absolute paths: set proxy.client_tls by hand")
		return
	}
	im.put("proxy.client_tls", "mode", "allow", s)
	im.put("proxy.client_tls", "cert_file", cert.value, cert)
	im.put("proxy.client_tls", "key_file", key.value, key)
	im.put("proxy.server_tls", "mode", "prefer", s)
}

func (im *importer) healthCheck() {
	h := Default().HealthCheck
	if d, ok := im.period("health_check_period", "health_check", "period"); ok {
		h.Period = d
	}
	if d, ok := im.period("health_check_timeout", "health_check", "timeout"); ok {
		h.Timeout = d
	}
	if s, ok := im.take("health_check_max_retries"); ok {
		// pgpool counts what follows the first attempt, we count all.
		if n, err := strconv.Atoi(s.value); err == nil {
			h.Retries = n + 1
			im.put("health_check", "retries", h.Retries, s)
		} else {
			im.note(s.line, "health_check_max_retries = %q is not a number; ignored", s.value)
		}
	}
	if s, ok := im.take("health_check_retry_delay"); ok {
		im.note(s.line, "health_check_retry_delay: attempts are health_check.period apart here, in failure too")
	}
	if d := h.Detection(); d > Default().Proxy.HoldTimeout.Std() {
		im.put("proxy", "hold_timeout", Duration(2*d), setting{})
		im.note(0, "health_check takes %s to find a silent node lost, so clients are held for up to %s; the defaults find it in %s", Duration(d), Duration(2*d), Duration(Default().HealthCheck.Detection()))
	}
	im.words("health_check_database", "health_check", "database")
	im.credential("health_check", "health_check")
}

// credential maps PREFIX_user and PREFIX_password.
func (im *importer) credential(prefix, table string) {
	im.words(prefix+"_user", table, "user")
	s, ok := im.take(prefix + "_password")
	file := "/etc/pgtandem/" + table + ".password"
	if ok && s.value != "" {
		im.put(table, "password_file", file, s)
		im.note(s.line, "%s_password is not copied: write it to %s (mode 0600, owned by the account that runs proxyd)", prefix, file)
	}
	if s, ok := im.take("sr_check_database"); ok && table == "replication_check" && s.value != "" {
		im.note(s.line, "sr_check_database: every check uses health_check.database")
	}
}

func (im *importer) failover() {
	if s, ok := im.take("failover_command"); ok && s.value != "" {
		im.note(s.line, "failover_command: its work is the engine's: promoting when the primary is lost, turning the primary to async when the standby is; the event log records what failover.log did. The script is not called")
		im.put("failover", "policy", "automatic", s)
	} else {
		im.note(s.line, "failover_command is empty, so pgpool promoted nothing: failover.policy is manual until you set it to automatic")
		im.put("failover", "policy", "manual", s)
	}
	if s, ok := im.take("auto_failback"); ok && !isOn(s.value) {
		im.note(s.line, "auto_failback is off: a standby that returns is taken back here as soon as it has caught up; failover.rejoin is about old primaries only")
	}
}

// reads maps what pgpool calls load balancing. Where it is not set, pgpool 4.3
// has it on; here it is off until somebody asks for it.
func (im *importer) reads() {
	if s, ok := im.take("load_balance_mode"); ok {
		im.put("reads", "balance", isOn(s.value), s)
	}
	if s, ok := im.take("delay_threshold"); ok {
		if n, err := strconv.Atoi(s.value); err == nil && n > 0 {
			im.put("reads", "lag_limit_bytes", n, s)
		}
		im.note(s.line, "delay_threshold: it limits reads only; a standby that lags is never promoted unless it holds every acknowledged commit, whatever its lag")
	}
}

func (im *importer) log() {
	s, ok := im.take("log_min_messages")
	if !ok {
		return
	}
	level := map[string]string{"info": "info", "notice": "info", "warning": "warn", "error": "error", "log": "info", "fatal": "error", "panic": "error"}[strings.ToLower(s.value)]
	if strings.HasPrefix(strings.ToLower(s.value), "debug") {
		level = "debug"
	}
	im.put("log", "level", level, s)
}

// weights turns pgpool's fractions into whole numbers of the same proportion.
func (im *importer) weights() map[int]int {
	shares := map[int]float64{}
	scale := 1.0
	for _, i := range im.backends() {
		s, ok := im.take(fmt.Sprintf("backend_weight%d", i))
		w, err := strconv.ParseFloat(s.value, 64)
		if !ok || err != nil || w < 0 {
			w = 1
		}
		shares[i] = w
		for scale < 1000 && math.Abs(w*scale-math.Round(w*scale)) > 1e-9 {
			scale *= 10
		}
	}
	out := map[int]int{}
	for i, w := range shares {
		out[i] = int(math.Round(w * scale))
	}
	return out
}

func (im *importer) node(i, weight int, names map[string]bool) {
	table := fmt.Sprintf("node %d", i)
	of := func(key string) (setting, bool) { return im.take(fmt.Sprintf("backend_%s%d", key, i)) }
	host, _ := of("hostname")
	name := im.nodeName(i, host.value)
	if names[strings.ToLower(name)] {
		name = fmt.Sprintf("node%d", i)
	}
	names[strings.ToLower(name)] = true
	im.put(table, "name", name, host)
	if strings.HasPrefix(host.value, "/") {
		im.note(host.line, "backend_hostname%d is a directory of Unix sockets: here a node is reached over TCP, as localhost until you change it", i)
		host.value = "localhost"
	}
	im.put(table, "host", host.value, host)
	im.number(fmt.Sprintf("backend_port%d", i), table, "port")
	im.put(table, "weight", weight, setting{})
	if s, ok := of("data_directory"); ok {
		im.put(table, "data_directory", path.Clean(s.value), s)
	} else {
		im.note(host.line, "backend_data_directory%d is not set: add data_directory to node %q", i, name)
	}
	if s, ok := of("flag"); ok {
		im.flag(table, s)
	}
}

// nodeName prefers what pgpool was told, then the host's name, which is what
// the recipe uses as application_name.
func (im *importer) nodeName(i int, host string) string {
	s, ok := im.take(fmt.Sprintf("backend_application_name%d", i))
	if ok && nodeName(s.value) {
		return s.value
	}
	if short, _, _ := strings.Cut(host, "."); nodeName(short) && short != "localhost" {
		return short
	}
	return fmt.Sprintf("node%d", i)
}

func (im *importer) flag(table string, s setting) {
	flags := strings.FieldsFunc(s.value, func(r rune) bool { return r == '|' || r == ' ' })
	allow := !slices.Contains(flags, "DISALLOW_TO_FAILOVER")
	im.put(table, "allow_failover", allow, s)
	for _, f := range flags {
		switch f {
		case "ALLOW_TO_FAILOVER", "DISALLOW_TO_FAILOVER":
		case "ALWAYS_PRIMARY":
			im.note(s.line, "%s: ALWAYS_PRIMARY has no counterpart: the engine proves who is primary; with DISALLOW_TO_FAILOVER it moves nothing", s.key)
		default:
			im.note(s.line, "%s: the flag %q is unknown; ignored", s.key, f)
		}
	}
}

func (im *importer) words(from, table, key string) {
	if s, ok := im.take(from); ok && s.value != "" {
		im.put(table, key, s.value, s)
	}
}

func (im *importer) number(from, table, key string) {
	s, ok := im.take(from)
	if !ok {
		return
	}
	n, err := strconv.Atoi(s.value)
	if err != nil {
		im.note(s.line, "%s = %q is not a number; ignored", s.key, s.value)
		return
	}
	im.put(table, key, n, s)
}

// period maps pgpool's time, seconds where no unit stands.
func (im *importer) period(from, table, key string) (Duration, bool) {
	return im.time(from, table, key, time.Second)
}

// milliseconds maps pgpool's few times whose bare number counts milliseconds.
func (im *importer) milliseconds(from, table, key string) {
	im.time(from, table, key, time.Millisecond)
}

// pgpoolUnits are PostgreSQL's units of time, which pgpool has taken over.
var pgpoolUnits = []struct {
	suffix string
	unit   time.Duration
}{
	{"ms", time.Millisecond}, {"us", time.Microsecond}, {"min", time.Minute},
	{"s", time.Second}, {"h", time.Hour}, {"d", 24 * time.Hour},
}

func (im *importer) time(from, table, key string, unit time.Duration) (Duration, bool) {
	s, ok := im.take(from)
	if !ok {
		return 0, false
	}
	number := s.value
	for _, u := range pgpoolUnits {
		if bare, has := strings.CutSuffix(number, u.suffix); has {
			number, unit = strings.TrimSpace(bare), u.unit
			break
		}
	}
	n, err := strconv.Atoi(number)
	switch {
	case err != nil:
		im.note(s.line, "%s = %q is not a time; ignored", s.key, s.value)
	case n == 0:
		im.note(s.line, "%s = 0 switches it off in pgpool; here %s.%s has its default", s.key, table, key)
	default:
		d := Duration(time.Duration(n) * unit)
		im.put(table, key, d, s)
		return d, true
	}
	return 0, false
}

func isOn(v string) bool {
	return slices.Contains([]string{"on", "true", "yes", "1"}, strings.ToLower(v))
}

func splitList(v string) []string {
	return strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' })
}

// pgpoolNotes says what becomes of the settings without a counterpart; an
// empty text means that nothing is lost.
var pgpoolNotes = map[string]string{
	"pid_file_name":                     "the service manager knows the process; no file is needed",
	"logdir":                            "",
	"log_destination":                   "the log goes to standard error, which is the journal under systemd",
	"logging_collector":                 "",
	"log_connections":                   "",
	"log_hostname":                      "",
	"log_line_prefix":                   "",
	"log_statement":                     "statements are not logged; PostgreSQL's log_statement does that",
	"log_per_node_statement":            "statements are not logged; PostgreSQL's log_statement does that",
	"debug_level":                       "see log.level",
	"socket_dir":                        "see proxy.unix_socket_directories",
	"unix_socket_directories":           "see proxy.unix_socket_directories",
	"pcp_port":                          "pgtandem --batch, over the control socket, takes the place of the pcp commands",
	"pcp_listen_addresses":              "pgtandem --batch, over the control socket, takes the place of the pcp commands",
	"pcp_socket_dir":                    "see control.socket; rights come from the caller's account, not from pcp.conf",
	"pcp_timeout":                       "",
	"listen_backlog_multiplier":         "",
	"reserved_connections":              "",
	"serialize_accept":                  "",
	"process_management_mode":           "there are no processes to manage",
	"min_spare_children":                "",
	"max_spare_children":                "",
	"max_pool":                          "servers are pooled for all clients together: see proxy.pool_size and proxy.max_servers",
	"connection_cache":                  "connections are always pooled",
	"child_life_time":                   "",
	"child_max_connections":             "",
	"reset_query_list":                  "a server is reset by DISCARD ALL before another session gets it",
	"enable_pool_hba":                   "clients prove themselves against the servers' own verifiers; for rules, see proxy.hba_file, which reads pool_hba.conf's syntax",
	"pool_passwd":                       "clients prove themselves against the servers' own verifiers; no file of passwords is needed",
	"allow_clear_text_frontend_auth":    "",
	"ssl_ca_cert":                       "see proxy.client_tls.ca_file and proxy.server_tls.ca_file",
	"ssl_ca_cert_dir":                   "",
	"ssl_ciphers":                       "",
	"ssl_prefer_server_ciphers":         "",
	"ssl_ecdh_curve":                    "",
	"ssl_dh_params_file":                "",
	"ssl_passphrase_command":            "a key with a passphrase is not supported",
	"backend_clustering_mode":           "there is one mode here, PostgreSQL's streaming replication",
	"master_slave_mode":                 "there is one mode here, PostgreSQL's streaming replication",
	"master_slave_sub_mode":             "there is one mode here, PostgreSQL's streaming replication",
	"replication_mode":                  "replication is PostgreSQL's own; statements are never sent twice",
	"replicate_select":                  "",
	"insert_lock":                       "",
	"lobj_lock_table":                   "",
	"ignore_leading_white_space":        "",
	"read_only_function_list":           "functions are judged by what the catalog says of them: declare them STABLE or IMMUTABLE",
	"write_function_list":               "functions are judged by what the catalog says of them: declare them VOLATILE",
	"white_function_list":               "functions are judged by what the catalog says of them: declare them STABLE or IMMUTABLE",
	"black_function_list":               "functions are judged by what the catalog says of them: declare them VOLATILE",
	"statement_level_load_balance":      "",
	"disable_load_balance_on_write":     "a client that has written reads the primary until a standby has replayed it, and no longer",
	"database_redirect_preference_list": "reads go by the nodes' weights, whatever the database",
	"app_name_redirect_preference_list": "reads go by the nodes' weights, whatever the application",
	"allow_sql_comments":                "",
	"log_standby_delay":                 "the console shows every standby's lag",
	"prefer_lower_delay_standby":        "",
	"follow_primary_command":            "the other standbys are repointed by the engine",
	"follow_master_command":             "the other standbys are repointed by the engine",
	"failback_command":                  "the engine turns back to sync by itself; nothing is called",
	"fail_over_on_backend_error":        "a broken connection is looked into by the engine, never taken for a dead node",
	"failover_on_backend_error":         "a broken connection is looked into by the engine, never taken for a dead node",
	"failover_on_backend_shutdown":      "",
	"failover_when_quorum_exists":       "",
	"failover_require_consensus":        "",
	"detach_false_primary":              "a second primary is fenced before it can take one write",
	"search_primary_node_timeout":       "see proxy.hold_timeout",
	"auto_failback_interval":            "",
	"recovery_1st_stage_command":        "an old primary is brought back by pg_rewind or pg_basebackup, over ssh; no script is needed",
	"recovery_2nd_stage_command":        "an old primary is brought back by pg_rewind or pg_basebackup, over ssh; no script is needed",
	"recovery_timeout":                  "",
	"client_idle_limit_in_recovery":     "",
	"use_watchdog":                      "one proxyd is the default; its state survives it",
	"memory_cache_enabled":              "answers are not cached",
	"memqcache_method":                  "",
	"relcache_expire":                   "",
	"relcache_size":                     "",
	"check_temp_table":                  "",
	"check_unlogged_table":              "",
	"parallel_mode":                     "",
	"pgpool2_hostname":                  "",
	"system_db_hostname":                "",
}
