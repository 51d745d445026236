// Package config reads the TOML file that proxyd and pgtandem share: types with
// their defaults, strict decoding, validation that names file, line and key,
// redaction, what a reload may change, and the import of a pgpool.conf.
//
// It is a leaf: it must never know of the engine, the proxy or the console.
package config

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
	PoolMode              string    `toml:"pool_mode"`               // session, transaction
	MaxClients            int       `toml:"max_clients"`
	MaxLogins             int       `toml:"max_logins"`             // connections that have not proved themselves
	MaxLoginsPerAddress   int       `toml:"max_logins_per_address"` // of one address
	PoolSize              int       `toml:"pool_size"`              // servers for each database and user
	MaxServers            int       `toml:"max_servers"`
	Loops                 int       `toml:"loops"` // event loops; 0: by the number of processors
	HoldTimeout           Duration  `toml:"hold_timeout"`
	LoginTimeout          Duration  `toml:"login_timeout"`
	ServerIdleTimeout     Duration  `toml:"server_idle_timeout"`
	ServerLifetime        Duration  `toml:"server_lifetime"`
	ConnectTimeout        Duration  `toml:"connect_timeout"`
	SourceAddress         string    `toml:"source_address"` // what the nodes see us connect from, for pg_hba.conf
	HBAFile               string    `toml:"hba_file"`       // who may connect from where; "": anybody, by SCRAM-SHA-256
	IdentFile             string    `toml:"ident_file"`     // its user name maps
	AdminUsers            []string  `toml:"admin_users"`    // roles that may do everything in the database pgtandem
	StatsUsers            []string  `toml:"stats_users"`    // roles that may look there
	ClientTLS             ClientTLS `toml:"client_tls"`
	ServerTLS             ServerTLS `toml:"server_tls"`
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
