// Package config reads the TOML file that proxyd and pgtandem share: types with
// their defaults, strict decoding, validation that names file, line and key,
// redaction, what a reload may change, and the import of a pgpool.conf.
//
// It is a leaf: it must never know of the engine, the proxy or the console.
package config

import "cmp"

// Config is the whole file.
type Config struct {
	Cluster          Cluster          `toml:"cluster"`
	Proxy            Proxy            `toml:"proxy"`
	Control          Control          `toml:"control"`
	Metrics          Metrics          `toml:"metrics"`
	State            State            `toml:"state"`
	HealthCheck      HealthCheck      `toml:"health_check"`
	Replication      Replication      `toml:"replication"`
	ReplicationCheck ReplicationCheck `toml:"replication_check"`
	Recovery         Recovery         `toml:"recovery"`
	Failover         Failover         `toml:"failover"`
	Sync             Sync             `toml:"sync"`
	Reads            Reads            `toml:"reads"`
	SSH              SSH              `toml:"ssh"`
	Drill            Drill            `toml:"drill"`
	Log              Log              `toml:"log"`
	Pools            []Pool           `toml:"pool"`
	Nodes            []Node           `toml:"node"`

	// Path is the file it was read from.
	Path string `toml:"-"`
}

// Cluster names the cluster.
type Cluster struct {
	Name string `toml:"name"`
	Lab  bool   `toml:"lab"` // a practice cluster on one machine: drills need no confirmation
}

// Proxy is what clients meet.
type Proxy struct {
	ListenAddresses       []string  `toml:"listen_addresses"`        // "*" for all
	Port                  int       `toml:"port"`                    // 9999
	UnixSocketDirectories []string  `toml:"unix_socket_directories"` // none: no Unix socket
	UnixSocketGroup       string    `toml:"unix_socket_group"`
	UnixSocketPermissions string    `toml:"unix_socket_permissions"` // octal
	MaxClients            int       `toml:"max_clients"`
	MaxClientsPerDatabase int       `toml:"max_clients_per_database"` // 0: no limit
	MaxClientsPerUser     int       `toml:"max_clients_per_user"`
	MaxLogins             int       `toml:"max_logins"`             // connections that have not proved themselves
	MaxLoginsPerAddress   int       `toml:"max_logins_per_address"` // of one address
	PoolMode              string    `toml:"pool_mode"`              // session, transaction
	PoolSize              int       `toml:"pool_size"`              // servers for each database and user
	MinPoolSize           int       `toml:"min_pool_size"`          // of them, that are kept
	ReservePoolSize       int       `toml:"reserve_pool_size"`      // servers more, for who has waited
	ReservePoolDelay      Duration  `toml:"reserve_pool_delay"`     // for so long
	MaxServers            int       `toml:"max_servers"`
	MaxServersPerDatabase int       `toml:"max_servers_per_database"` // 0: no limit
	MaxServersPerUser     int       `toml:"max_servers_per_user"`
	Loops                 int       `toml:"loops"` // event loops; 0: by the number of processors
	ServerIdleTimeout     Duration  `toml:"server_idle_timeout"`
	ServerLifetime        Duration  `toml:"server_lifetime"`
	ConnectTimeout        Duration  `toml:"connect_timeout"`
	HoldTimeout           Duration  `toml:"hold_timeout"`      // while there is no primary
	WaitTimeout           Duration  `toml:"wait_timeout"`      // for a free server
	LoginTimeout          Duration  `toml:"login_timeout"`     // of a client
	StatementTimeout      Duration  `toml:"statement_timeout"` // this and the next by PostgreSQL's names
	TransactionTimeout    Duration  `toml:"transaction_timeout"`
	IdleInTransaction     Duration  `toml:"idle_in_transaction_session_timeout"`
	IdleSession           Duration  `toml:"idle_session_timeout"`
	TCPKeepalivesIdle     Duration  `toml:"tcp_keepalives_idle"` // 0: none are sent
	TCPKeepalivesInterval Duration  `toml:"tcp_keepalives_interval"`
	TCPKeepalivesCount    int       `toml:"tcp_keepalives_count"`
	WriteTimeout          Duration  `toml:"write_timeout"`     // how long a client may take nothing of what it was sent; 0: for ever
	MaxMessageBytes       int       `toml:"max_message_bytes"` // of a client's message, once it has logged in
	DrainTimeout          Duration  `toml:"drain_timeout"`     // how long clients may stay with a proxyd that was followed by another; 0: for ever
	SourceAddress         string    `toml:"source_address"`    // what the nodes see us connect from, for pg_hba.conf
	HBAFile               string    `toml:"hba_file"`          // who may connect from where; "": anybody, by SCRAM-SHA-256
	IdentFile             string    `toml:"ident_file"`        // its user name maps
	AdminUsers            []string  `toml:"admin_users"`       // roles that may do everything in the database pgtandem
	StatsUsers            []string  `toml:"stats_users"`       // roles that may look there
	ClientTLS             ClientTLS `toml:"client_tls"`
	ServerTLS             ServerTLS `toml:"server_tls"`
}

// Pool is what differs from Proxy for a database, a user, or one in the other;
// nil and "" is what does not. What is said of a user goes before what is said
// of a database, and what is said of both before either.
type Pool struct {
	Database           string    `toml:"database"` // "": every one
	User               string    `toml:"user"`     // "": every one
	PoolMode           string    `toml:"pool_mode"`
	PoolSize           *int      `toml:"pool_size"`
	MinPoolSize        *int      `toml:"min_pool_size"`
	ReservePoolSize    *int      `toml:"reserve_pool_size"`
	ReservePoolDelay   *Duration `toml:"reserve_pool_delay"`
	MaxServers         *int      `toml:"max_servers"` // of the database, or of the user, in all; 0: no limit
	MaxClients         *int      `toml:"max_clients"`
	ServerIdleTimeout  *Duration `toml:"server_idle_timeout"`
	ServerLifetime     *Duration `toml:"server_lifetime"`
	WaitTimeout        *Duration `toml:"wait_timeout"`
	StatementTimeout   *Duration `toml:"statement_timeout"`
	TransactionTimeout *Duration `toml:"transaction_timeout"`
	IdleInTransaction  *Duration `toml:"idle_in_transaction_session_timeout"`
	IdleSession        *Duration `toml:"idle_session_timeout"`
}

// who names whom it is about, as labels have it.
func (p *Pool) who() string { return cmp.Or(p.Database, "*") + "/" + cmp.Or(p.User, "*") }

// Over gives the settings of Proxy with what is different for the Pool. The
// limits of all servers and clients are as in Proxy.
func (p *Pool) Over(x Proxy) Proxy {
	x.PoolMode = cmp.Or(p.PoolMode, x.PoolMode)
	set(&x.PoolSize, p.PoolSize)
	set(&x.MinPoolSize, p.MinPoolSize)
	set(&x.ReservePoolSize, p.ReservePoolSize)
	set(&x.ReservePoolDelay, p.ReservePoolDelay)
	set(&x.ServerIdleTimeout, p.ServerIdleTimeout)
	set(&x.ServerLifetime, p.ServerLifetime)
	set(&x.WaitTimeout, p.WaitTimeout)
	set(&x.StatementTimeout, p.StatementTimeout)
	set(&x.TransactionTimeout, p.TransactionTimeout)
	set(&x.IdleInTransaction, p.IdleInTransaction)
	set(&x.IdleSession, p.IdleSession)
	return x
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// ClientTLS is TLS between clients and us.
type ClientTLS struct {
	Mode       string `toml:"mode"` // disable, allow, require
	CertFile   string `toml:"cert_file"`
	KeyFile    string `toml:"key_file"`
	CAFile     string `toml:"ca_file"` // who may sign clients' certificates
	MinVersion string `toml:"min_version"`
}

// ServerTLS is TLS between us and the servers.
type ServerTLS struct {
	Mode           string `toml:"mode"` // disable, allow, prefer, require, verify-ca, verify-full
	CAFile         string `toml:"ca_file"`
	CertFile       string `toml:"cert_file"` // what proxyd shows to servers that ask
	KeyFile        string `toml:"key_file"`
	Negotiation    string `toml:"negotiation"`     // postgres, direct
	ChannelBinding string `toml:"channel_binding"` // disable, prefer, require
	RequireAuth    string `toml:"require_auth"`    // scram-sha-256, or "" for whatever the server asks for
	MinVersion     string `toml:"min_version"`
}

// Control is the control socket.
type Control struct {
	Socket        string `toml:"socket"`
	OperatorGroup string `toml:"operator_group"` // its members may change things; others with access may look
	ViewerGroup   string `toml:"viewer_group"`
}

// Metrics is where Prometheus reads. The control socket has the same figures.
type Metrics struct {
	Address string `toml:"address"`
	Port    int    `toml:"port"` // 0: nowhere
}

// State is where durable state lives.
type State struct {
	Directory  string `toml:"directory"`
	EventsKept int    `toml:"events_kept"`
}

// Credential is a role and where its password comes from. At most one of the
// password keys may be set.
type Credential struct {
	User         string `toml:"user"`
	Password     Secret `toml:"password"`
	PasswordFile string `toml:"password_file"`
	PasswordEnv  string `toml:"password_env"`
}

// HealthCheck decides whether a node answers.
type HealthCheck struct {
	Period   Duration `toml:"period"`
	Timeout  Duration `toml:"timeout"`
	Retries  int      `toml:"retries"`
	Database string   `toml:"database"`
	Credential
}

// ReplicationCheck watches positions; the health check's role unless set.
type ReplicationCheck struct {
	Period Duration `toml:"period"`
	Credential
}

// Recovery is the superuser that promotes, changes settings, rewinds and
// reads the verifiers that clients prove themselves against.
type Recovery struct {
	Credential
}

// Replication is the role standbys connect with.
type Replication struct {
	Credential
}

// Failover is the policy.
type Failover struct {
	Policy      string   `toml:"policy"`            // automatic, manual
	NotInSync   string   `toml:"when_not_in_sync"`  // hold, promote
	StandbyLost string   `toml:"when_standby_lost"` // async, wait
	Rejoin      string   `toml:"rejoin"`            // automatic, manual
	BrokenPath  string   `toml:"broken_path"`       // hold, promote
	Damping     Duration `toml:"damping"`           // how far back failovers and losses count; 0: not at all
	DrainLimit  Duration `toml:"drain_limit"`
}

// Sync is synchronous replication.
type Sync struct {
	SwapMethod string `toml:"swap_method"` // files, alter_system
	Method     string `toml:"method"`      // FIRST, ANY
	Standbys   int    `toml:"standbys"`    // k

	// AsyncLimit ends an async that a person asked for after so long; 0 never.
	AsyncLimit Duration `toml:"async_limit"`

	// Slots gives every standby a replication slot on its primary.
	Slots bool `toml:"slots"`
}

// Reads is how reads are spread over the nodes.
type Reads struct {
	Balance       bool     `toml:"balance"`
	LagLimit      Duration `toml:"lag_limit"`       // age of what a standby shows; 0 for none
	LagLimitBytes int      `toml:"lag_limit_bytes"` // of WAL not replayed; 0 for none
	CatalogPeriod Duration `toml:"catalog_period"`
	CacheBytes    int      `toml:"cache_bytes"` // for each database
}

// SSH reaches the nodes' hosts.
type SSH struct {
	User       string   `toml:"user"`
	KeyFile    string   `toml:"key_file"`
	KnownHosts string   `toml:"known_hosts"`
	Timeout    Duration `toml:"timeout"`
	KeepAlive  Duration `toml:"keepalive"`
}

// Drill allows failures to be rehearsed.
type Drill struct {
	Allow    bool   `toml:"allow"` // on a cluster that is no lab
	Database string `toml:"database"`
	Credential
}

// Log is the daemon's own log.
type Log struct {
	Level  string `toml:"level"`  // debug, info, warn, error
	Format string `toml:"format"` // text, json
}

// Node is one server.
type Node struct {
	Name               string   `toml:"name"`
	Host               string   `toml:"host"`
	Port               int      `toml:"port"`
	Weight             int      `toml:"weight"`
	AllowFailover      bool     `toml:"allow_failover"`
	AllowReads         bool     `toml:"allow_reads"`
	DataDirectory      string   `toml:"data_directory"`
	ConfigDirectory    string   `toml:"config_directory"`
	BinDirectory       string   `toml:"bin_directory"`
	ArchiveDirectory   string   `toml:"archive_directory"`
	LogFile            string   `toml:"log_file"`
	OSUser             string   `toml:"os_user"`
	ReplicationAddress string   `toml:"replication_address"` // what peers see it as, for pg_hba.conf; host unless set
	SSHHost            string   `toml:"ssh_host"`
	SSHPort            int      `toml:"ssh_port"`
	SSHUser            string   `toml:"ssh_user"`
	StartCommand       []string `toml:"start_command"`
	StopCommand        []string `toml:"stop_command"`
	ReloadCommand      []string `toml:"reload_command"`
	RestartCommand     []string `toml:"restart_command"`
}
