package config

import (
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// DefaultPath is where the configuration is looked for.
const DefaultPath = "/etc/pgtandem/pgtandem.toml"

// EnvPath names the environment variable that overrides DefaultPath.
const EnvPath = "PGTANDEM_CONFIG"

// FindConfig is the path of the configuration: $PGTANDEM_CONFIG, else
// DefaultPath. It does not say that the file exists.
func FindConfig() string {
	if p := os.Getenv(EnvPath); p != "" {
		return p
	}
	return DefaultPath
}

// Default is the configuration of an empty file: every default there is but
// those of a node, which DefaultNode gives, and without nodes. It is not valid
// by itself.
func Default() *Config {
	c := defaults()
	c.inherit()
	return &c
}

// defaults leaves empty what inherit fills in.
func defaults() Config {
	return Config{
		Cluster: Cluster{Name: "pgtandem"},
		Proxy: Proxy{
			ListenAddresses:       []string{"*"},
			Port:                  9999,
			UnixSocketPermissions: "0777",
			PoolMode:              "transaction",
			MaxClients:            1000,
			MaxLogins:             100,
			MaxLoginsPerAddress:   50,
			PoolSize:              20,
			ReservePoolDelay:      Duration(5 * time.Second),
			MaxServers:            80,
			HoldTimeout:           Duration(30 * time.Second),
			WaitTimeout:           Duration(2 * time.Minute),
			LoginTimeout:          Duration(10 * time.Second),
			WriteTimeout:          Duration(time.Hour),
			MaxMessageBytes:       1<<30 - 1,
			ServerIdleTimeout:     Duration(10 * time.Minute),
			ServerLifetime:        Duration(time.Hour),
			ConnectTimeout:        Duration(5 * time.Second),
			TCPKeepalivesIdle:     Duration(15 * time.Second),
			TCPKeepalivesInterval: Duration(15 * time.Second),
			TCPKeepalivesCount:    4,
			DrainTimeout:          Duration(time.Hour),
			SourceAddress:         "127.0.0.1",
			ClientTLS:             ClientTLS{Mode: "disable", MinVersion: "TLSv1.2"},
			ServerTLS:             ServerTLS{Mode: "disable", Negotiation: "postgres", ChannelBinding: "prefer", MinVersion: "TLSv1.2"},
		},
		Control: Control{Socket: "/run/pgtandem/proxyd.sock"},
		Metrics: Metrics{Address: "127.0.0.1"},
		State:   State{Directory: "/var/lib/pgtandem", EventsKept: 100000},
		HealthCheck: HealthCheck{
			Period:     Duration(500 * time.Millisecond),
			Timeout:    Duration(time.Second),
			Retries:    2,
			Database:   "postgres",
			Credential: Credential{User: "postgres"},
		},
		Replication: Replication{Credential{User: "replicator"}},
		Failover: Failover{
			Policy:      "automatic",
			NotInSync:   "hold",
			StandbyLost: "async",
			Rejoin:      "automatic",
			BrokenPath:  "promote",
			Damping:     Duration(10 * time.Minute),
			DrainLimit:  Duration(5 * time.Second),
		},
		Sync: Sync{SwapMethod: "alter_system", Method: "FIRST", Standbys: 1, Slots: true},
		Reads: Reads{
			LagLimit:      Duration(10 * time.Second),
			CatalogPeriod: Duration(30 * time.Second),
			CacheBytes:    16 << 20,
		},
		SSH: SSH{
			User:       "postgres",
			KeyFile:    "/etc/pgtandem/id_ed25519",
			KnownHosts: "/etc/pgtandem/known_hosts",
			Timeout:    Duration(5 * time.Second),
			KeepAlive:  Duration(15 * time.Second),
		},
		Drill: Drill{Database: "postgres"},
		Log:   Log{Level: "info", Format: "text"},
	}
}

// DefaultNode is a node before its own keys are read.
func DefaultNode() Node {
	return Node{Port: 5432, Weight: 1, AllowFailover: true, AllowReads: true, OSUser: "postgres", SSHPort: 22}
}

// inherit fills in what is unset from where it is inherited: a deployment
// with one superuser names it once.
func (c *Config) inherit() {
	if c.ReplicationCheck.Period == 0 {
		c.ReplicationCheck.Period = c.HealthCheck.Period
	}
	c.ReplicationCheck.Credential = inherited(c.ReplicationCheck.Credential, c.HealthCheck.Credential)
	c.Recovery.Credential = inherited(c.Recovery.Credential, c.HealthCheck.Credential)
	for i := range c.Nodes {
		c.Nodes[i].fill(c.SSH)
	}
}

// inherited takes the user where none is set, and the password only where the
// role is the same one: another role's password is never tried.
func inherited(c, from Credential) Credential {
	if c.User == "" {
		c.User = from.User
	}
	if c.User == from.User && !c.IsSet() {
		c.Password, c.PasswordFile, c.PasswordEnv = from.Password, from.PasswordFile, from.PasswordEnv
	}
	return c
}

// fill derives what a node does not say from what it does.
func (n *Node) fill(ssh SSH) {
	if n.ReplicationAddress == "" {
		n.ReplicationAddress = n.Host
	}
	if n.SSHHost == "" {
		n.SSHHost = n.Host
	}
	if n.SSHUser == "" {
		n.SSHUser = ssh.User
	}
	if n.DataDirectory == "" {
		return
	}
	n.DataDirectory = filepath.Clean(n.DataDirectory)
	if n.ConfigDirectory == "" {
		n.ConfigDirectory = n.DataDirectory
	}
	if n.BinDirectory == "" {
		n.BinDirectory = binDirectory(n.DataDirectory)
	}
	// Beside and not inside the data directory: a re-clone empties that.
	if n.ArchiveDirectory == "" {
		n.ArchiveDirectory = n.DataDirectory + "_archive"
	}
	if n.LogFile == "" {
		n.LogFile = n.DataDirectory + ".log"
	}
}

var binConventions = []struct {
	data *regexp.Regexp
	bin  string
}{
	{regexp.MustCompile(`^/var/lib/postgresql/(\d+)/`), "/usr/lib/postgresql/$1/bin"}, // Debian, Ubuntu
	{regexp.MustCompile(`^/var/lib/pgsql/(\d+)/`), "/usr/pgsql-$1/bin"},               // the PGDG packages for Red Hat
	{regexp.MustCompile(`^/usr/local/pgsql/`), "/usr/local/pgsql/bin"},                // built from source
}

// binDirectory guesses by the convention the data directory follows; empty
// means that the node's PATH finds the programs.
func binDirectory(data string) string {
	for _, c := range binConventions {
		if m := c.data.FindStringSubmatchIndex(data + "/"); m != nil {
			return string(c.data.ExpandString(nil, c.bin, data+"/", m))
		}
	}
	return ""
}
