package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// effect says what a changed key needs.
type effect int

const (
	applies  effect = iota // a reload applies it
	restarts               // only a restart of proxyd applies it
)

// key is what is known of one key of the file.
type key struct {
	effect  effect
	allowed string // for people, ends the sentence "allowed: ..."
	ok      func(any) bool
}

// keys is the table of every key: what a reload does with it and which values
// it may have. A test by reflection holds it complete.
//
// What binds a socket, opens a file or a connection that lives as long as the
// daemon, or says who a node is, needs a restart; what is read anew at each
// use is applied.
var keys = map[string]key{
	"cluster.name": {restarts, "letters, digits, '_', '-' and '.'", name},
	"cluster.lab":  {restarts, "true or false", nil},

	"proxy.listen_addresses":                    {restarts, `host names or addresses, or "*" for all`, words},
	"proxy.port":                                port(restarts),
	"proxy.unix_socket_directories":             {restarts, "absolute paths of at most 90 bytes, or [] for no Unix socket", socketDirectories},
	"proxy.unix_socket_group":                   {restarts, "a group of this host", word},
	"proxy.unix_socket_permissions":             {restarts, `an octal mode in quotes, as "0770"`, mode},
	"proxy.pool_mode":                           oneOf(applies, "session", "transaction"),
	"proxy.max_clients":                         integer(applies, 1, 1000000),
	"proxy.max_logins":                          integer(applies, 1, 100000),
	"proxy.max_logins_per_address":              integer(applies, 1, 100000),
	"proxy.max_clients_per_database":            integer(applies, 0, 1000000),
	"proxy.max_clients_per_user":                integer(applies, 0, 1000000),
	"proxy.pool_size":                           poolSize,
	"proxy.min_pool_size":                       someServers,
	"proxy.reserve_pool_size":                   someServers,
	"proxy.reserve_pool_delay":                  reserveDelay,
	"proxy.max_servers":                         integer(applies, 1, 100000),
	"proxy.max_servers_per_database":            integer(applies, 0, 100000),
	"proxy.max_servers_per_user":                integer(applies, 0, 100000),
	"proxy.loops":                               integer(restarts, 0, 1024),
	"proxy.hold_timeout":                        duration(applies, 10*time.Millisecond, 24*time.Hour),
	"proxy.login_timeout":                       duration(applies, time.Second, time.Hour),
	"proxy.server_idle_timeout":                 upToAWeek,
	"proxy.server_lifetime":                     upToAWeek,
	"proxy.wait_timeout":                        upToAWeek,
	"proxy.statement_timeout":                   upToAWeek,
	"proxy.transaction_timeout":                 upToAWeek,
	"proxy.idle_in_transaction_session_timeout": upToAWeek,
	"proxy.idle_session_timeout":                upToAWeek,
	"proxy.connect_timeout":                     duration(applies, 10*time.Millisecond, time.Hour),
	"proxy.write_timeout":                       upToAWeek,
	"proxy.max_message_bytes":                   integer(applies, 1<<14, 1<<30-1),
	"proxy.drain_timeout":                       upToAWeek,
	"proxy.tcp_keepalives_idle":                 keepalive(0),
	"proxy.tcp_keepalives_interval":             keepalive(time.Second),
	"proxy.tcp_keepalives_count":                integer(applies, 1, 127),
	"proxy.source_address":                      {applies, "an address, or a host name", word},
	"proxy.hba_file":                            {applies, "an absolute path", absolute},
	"proxy.ident_file":                          {applies, "an absolute path", absolute},
	"proxy.admin_users":                         {applies, "names of roles", roles},
	"proxy.stats_users":                         {applies, "names of roles", roles},
	"proxy.client_tls.mode":                     oneOf(applies, "disable", "allow", "require"),
	"proxy.client_tls.cert_file":                {applies, "an absolute path", absolute},
	"proxy.client_tls.key_file":                 {applies, "an absolute path", absolute},
	"proxy.client_tls.ca_file":                  {applies, "an absolute path", absolute},
	"proxy.client_tls.min_version":              oneOf(applies, "TLSv1.2", "TLSv1.3"),
	"proxy.server_tls.mode":                     oneOf(applies, "disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
	"proxy.server_tls.ca_file":                  {applies, "an absolute path", absolute},
	"proxy.server_tls.cert_file":                {applies, "an absolute path", absolute},
	"proxy.server_tls.key_file":                 {applies, "an absolute path", absolute},
	"proxy.server_tls.negotiation":              oneOf(applies, "postgres", "direct"),
	"proxy.server_tls.channel_binding":          oneOf(applies, "disable", "prefer", "require"),
	"proxy.server_tls.require_auth":             oneOf(applies, "", "scram-sha-256"),
	"proxy.server_tls.min_version":              oneOf(applies, "TLSv1.2", "TLSv1.3"),

	"control.socket":         {restarts, "an absolute path of at most 107 bytes, the kernel's limit for a Unix socket", socketPath},
	"control.operator_group": {restarts, "a group of this host", word},
	"control.viewer_group":   {restarts, "a group of this host", word},

	"metrics.address": {restarts, `a host name or an address, or "*" for all`, filledWord},
	"metrics.port":    integer(restarts, 0, 65535),

	"state.directory":   {restarts, "an absolute path", absolute},
	"state.events_kept": integer(restarts, 1000, 100000000),

	"health_check.period":        duration(applies, 10*time.Millisecond, time.Hour),
	"health_check.timeout":       duration(applies, 10*time.Millisecond, time.Hour),
	"health_check.retries":       integer(applies, 1, 1000),
	"health_check.database":      {applies, "a database's name", text},
	"health_check.user":          {applies, "a role's name", text},
	"health_check.password":      secret,
	"health_check.password_file": passwordFile,
	"health_check.password_env":  passwordEnv,

	"replication.user":          {applies, "a role's name", text},
	"replication.password":      secret,
	"replication.password_file": passwordFile,
	"replication.password_env":  passwordEnv,

	"replication_check.period":        duration(applies, 10*time.Millisecond, time.Hour),
	"replication_check.user":          {applies, "a role's name", text},
	"replication_check.password":      secret,
	"replication_check.password_file": passwordFile,
	"replication_check.password_env":  passwordEnv,

	"recovery.user":          {applies, "a superuser's name", text},
	"recovery.password":      secret,
	"recovery.password_file": passwordFile,
	"recovery.password_env":  passwordEnv,

	"failover.policy":            oneOf(applies, "automatic", "manual"),
	"failover.when_not_in_sync":  oneOf(applies, "hold", "promote"),
	"failover.when_standby_lost": oneOf(applies, "async", "wait"),
	"failover.rejoin":            oneOf(applies, "automatic", "manual"),
	"failover.broken_path":       oneOf(applies, "hold", "promote"),
	"failover.damping":           duration(applies, 0, 24*time.Hour),
	"failover.drain_limit":       duration(applies, 0, time.Hour),

	"sync.swap_method": oneOf(applies, "files", "alter_system"),
	"sync.method":      oneOf(applies, "FIRST", "ANY"),
	"sync.standbys":    integer(applies, 1, 100),
	"sync.slots":       {applies, "true or false", nil},
	"sync.async_limit": duration(applies, 0, 7*24*time.Hour),

	"reads.balance":         {applies, "true or false", nil},
	"reads.lag_limit":       duration(applies, 0, 24*time.Hour),
	"reads.lag_limit_bytes": integer(applies, 0, 1<<31-1),
	"reads.catalog_period":  duration(applies, time.Second, 24*time.Hour),
	"reads.cache_bytes":     integer(restarts, 64<<10, 1<<30),

	"ssh.user":        {restarts, "an account's name", word},
	"ssh.key_file":    {restarts, "an absolute path", absolute},
	"ssh.known_hosts": {restarts, "an absolute path", absolute},
	"ssh.timeout":     duration(restarts, 10*time.Millisecond, time.Hour),
	"ssh.keepalive":   duration(restarts, 100*time.Millisecond, time.Hour),

	"drill.allow":         {applies, "true or false", nil},
	"drill.database":      {applies, "a database's name", text},
	"drill.user":          {applies, "a role's name", text},
	"drill.password":      secret,
	"drill.password_file": passwordFile,
	"drill.password_env":  passwordEnv,

	"log.level":  oneOf(applies, "debug", "info", "warn", "error"),
	"log.format": oneOf(restarts, "text", "json"),

	"pool.database":                            {applies, "a database's name", filledText},
	"pool.user":                                {applies, "a role's name", filledText},
	"pool.pool_mode":                           oneOf(applies, "session", "transaction"),
	"pool.pool_size":                           poolSize,
	"pool.min_pool_size":                       someServers,
	"pool.reserve_pool_size":                   someServers,
	"pool.reserve_pool_delay":                  reserveDelay,
	"pool.max_servers":                         integer(applies, 0, 100000),
	"pool.max_clients":                         integer(applies, 0, 1000000),
	"pool.server_idle_timeout":                 upToAWeek,
	"pool.server_lifetime":                     upToAWeek,
	"pool.wait_timeout":                        upToAWeek,
	"pool.statement_timeout":                   upToAWeek,
	"pool.transaction_timeout":                 upToAWeek,
	"pool.idle_in_transaction_session_timeout": upToAWeek,
	"pool.idle_session_timeout":                upToAWeek,

	"node.name":                {restarts, "a letter, then letters, digits, '_', '-' and '.', at most 63 bytes: it is the application_name in synchronous_standby_names", nodeName},
	"node.host":                {restarts, "a host name or an address", word},
	"node.port":                port(restarts),
	"node.weight":              integer(applies, 0, 1000000),
	"node.allow_failover":      {applies, "true or false", nil},
	"node.allow_reads":         {applies, "true or false", nil},
	"node.data_directory":      {restarts, "an absolute path on the node, not /", dataPath},
	"node.config_directory":    {restarts, "an absolute path on the node", absolute},
	"node.bin_directory":       {restarts, "an absolute path on the node", absolute},
	"node.archive_directory":   {restarts, "an absolute path on the node", absolute},
	"node.log_file":            {restarts, "an absolute path on the node", absolute},
	"node.os_user":             {restarts, "an account's name on the node", word},
	"node.replication_address": {restarts, "an address, a network as 10.0.0.0/24, or a host name", word},
	"node.ssh_host":            {restarts, "a host name or an address", word},
	"node.ssh_port":            port(restarts),
	"node.ssh_user":            {restarts, "an account's name on the node", word},
	"node.start_command":       command,
	"node.stop_command":        command,
	"node.reload_command":      command,
	"node.restart_command":     command,
}

var (
	secret       = key{applies, "a text without line ends; better still, password_file", secretText}
	passwordFile = key{applies, "an absolute path", absolute}
	passwordEnv  = key{applies, "the name of an environment variable", envName}
	poolSize     = integer(applies, 1, 10000)
	someServers  = integer(applies, 0, 10000)
	reserveDelay = duration(applies, 10*time.Millisecond, time.Hour)
	upToAWeek    = duration(applies, 0, 7*24*time.Hour)
	command      = key{restarts, `a program and its arguments, as ["sudo", "systemctl", "start", "postgresql"]; no shell reads them`, argv}
)

func integer(e effect, low, high int) key {
	return key{e, fmt.Sprintf("a whole number from %d to %d", low, high), func(v any) bool {
		n := v.(int)
		return n >= low && n <= high
	}}
}

func port(e effect) key { return integer(e, 1, 65535) }

func duration(e effect, low, high time.Duration) key {
	return key{e, fmt.Sprintf(`a duration in quotes from "%s" to "%s"`, Duration(low), Duration(high)), func(v any) bool {
		d := v.(Duration).Std()
		return d >= low && d <= high
	}}
}

// keepalive is counted in whole seconds by the kernel, which takes 32767 at most
// (tcp(7), MAX_TCP_KEEPIDLE).
func keepalive(low time.Duration) key { return duration(applies, low, 9*time.Hour) }

func oneOf(e effect, values ...string) key {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = fmt.Sprintf("%q", v)
	}
	return key{e, strings.Join(quoted, ", "), func(v any) bool {
		for _, w := range values {
			if v.(string) == w {
				return true
			}
		}
		return false
	}}
}

var (
	nameForm     = regexp.MustCompile(`^[\pL\pN_.-]{1,63}$`)
	nodeNameForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,62}$`)
	modeForm     = regexp.MustCompile(`^0?[0-7]{3}$`)
	envNameForm  = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*)?$`)
)

func name(v any) bool     { return nameForm.MatchString(v.(string)) }
func nodeName(v any) bool { return nodeNameForm.MatchString(v.(string)) }
func envName(v any) bool  { return envNameForm.MatchString(v.(string)) }

// text may hold anything but what would end a line or a C string.
func text(v any) bool { return !strings.ContainsAny(v.(string), "\x00\r\n") }

func secretText(v any) bool { return !strings.ContainsAny(v.(Secret).Reveal(), "\x00\r\n") }

// word has no white space and is no option to a program that it is passed to.
func word(v any) bool {
	s := v.(string)
	return !strings.ContainsAny(s, " \t\x00\r\n") && !strings.HasPrefix(s, "-")
}

func absolute(v any) bool {
	s := v.(string)
	return text(v) && (s == "" || strings.HasPrefix(s, "/"))
}

func dataPath(v any) bool {
	return absolute(v) && strings.Trim(v.(string), "/.") != ""
}

// socketPath holds sun_path's size (unix(7)) less its closing zero byte.
func socketPath(v any) bool {
	s := v.(string)
	return absolute(v) && s != "" && len(s) <= 107
}

func mode(v any) bool { return modeForm.MatchString(v.(string)) }

// socketDirectories leave room for the socket's own name, .s.PGSQL. and a port,
// below socketPath's limit.
func socketDirectories(v any) bool {
	for _, s := range v.([]string) {
		if s == "" || !absolute(s) || len(s) > 90 {
			return false
		}
	}
	return true
}

func words(v any) bool {
	list := v.([]string)
	for _, s := range list {
		if s == "" || !word(s) {
			return false
		}
	}
	return len(list) > 0
}

func filledWord(v any) bool { return v.(string) != "" && word(v) }

func filledText(v any) bool { return v.(string) != "" && text(v) }

// roles may be none at all.
func roles(v any) bool {
	return !slices.ContainsFunc(v.([]string), func(s string) bool { return s == "" || !text(s) })
}

func argv(v any) bool {
	list := v.([]string)
	for _, s := range list {
		if strings.ContainsAny(s, "\x00\r\n") {
			return false
		}
	}
	return len(list) == 0 || list[0] != ""
}
