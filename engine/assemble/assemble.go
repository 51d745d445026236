// Package assemble makes the engine's parts from the configuration: nodes and
// policy, connections to the servers, ssh to their hosts. It is the one place
// where config and engine meet, shared by the daemon and the lab.
//
// It builds and starts nothing by itself.
package assemble

import (
	"context"
	"crypto/tls"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute/sql"
	"github.com/pgtandem/pgtandem/engine/observe"
)

// Node is a configured node as the engine knows it.
func Node(n config.Node) cluster.Node {
	return cluster.Node{
		ID: cluster.NodeID(n.Name), Host: n.Host, Port: n.Port, Weight: n.Weight, FailoverAllowed: n.AllowFailover,
		DataDirectory: n.DataDirectory, ConfigDirectory: n.ConfigDirectory, BinDirectory: n.BinDirectory,
		OSUser: n.OSUser, LogFile: n.LogFile, SSHHost: n.SSHHost, SSHPort: n.SSHPort,
		StartCommand: n.StartCommand, StopCommand: n.StopCommand, ReloadCommand: n.ReloadCommand, RestartCommand: n.RestartCommand,
	}
}

// Nodes are all of them, in their order.
func Nodes(c *config.Config) []cluster.Node {
	out := make([]cluster.Node, len(c.Nodes))
	for i, n := range c.Nodes {
		out[i] = Node(n)
	}
	return out
}

// Policy is what the configuration wants.
func Policy(c *config.Config) cluster.Policy {
	p := cluster.Policy{
		Cluster: c.Cluster.Name, Nodes: Nodes(c),
		Failover: cluster.Automation(c.Failover.Policy), Rejoin: cluster.Automation(c.Failover.Rejoin),
		Degrade: cluster.DegradeAsync, UnsafePromote: c.Failover.NotInSync == "promote",
		SwapMethod: cluster.SwapMethod(c.Sync.SwapMethod), SyncK: c.Sync.Standbys, SyncMethod: strings.ToUpper(c.Sync.Method),
		CheckPeriod: time.Duration(c.HealthCheck.Period), CheckTimeout: time.Duration(c.HealthCheck.Timeout), CheckRetries: c.HealthCheck.Retries,
		BrokenPath: cluster.PathBroken(c.Failover.BrokenPath), DampingWindow: time.Duration(c.Failover.Damping),
		Slots:       c.Sync.Slots,
		AsyncLimit:  time.Duration(c.Sync.AsyncLimit),
		HoldTimeout: time.Duration(c.Proxy.HoldTimeout), DrainLimit: time.Duration(c.Failover.DrainLimit),
	}
	if c.Failover.StandbyLost == "wait" {
		p.Degrade = cluster.DegradeNever
	}
	return p
}

// PassFile is where, on its host, a node keeps the passwords it connects to its
// peers with: beside the data directory and not in it, because a rewind or a
// clone replaces what is inside.
func PassFile(c *config.Config, n cluster.Node) string {
	return path.Join(path.Dir(n.DataDirectory), fmt.Sprintf(".pgtandem-%s-%s.pgpass", c.Cluster.Name, n.ID))
}

// ConnConfig is how we connect to a node as one of the configured roles.
func ConnConfig(c *config.Config, n cluster.Node, cred config.Credential, database string) (*pgx.ConnConfig, error) {
	password, err := cred.Resolve()
	if err != nil {
		return nil, fmt.Errorf("password of role %s: %w", cred.User, err)
	}
	words := []string{"host=" + quote(n.Host), fmt.Sprintf("port=%d", n.Port), "sslmode=" + quote(c.Proxy.ServerTLS.Mode),
		"user=" + quote(cred.User), "dbname=" + quote(database), fmt.Sprintf("connect_timeout=%d", max(1, int(time.Duration(c.Proxy.ConnectTimeout).Seconds())))}
	for _, w := range []struct{ key, value string }{
		{"sslrootcert", c.Proxy.ServerTLS.CAFile}, {"sslcert", c.Proxy.ServerTLS.CertFile}, {"sslkey", c.Proxy.ServerTLS.KeyFile},
		{"sslnegotiation", c.Proxy.ServerTLS.Negotiation}, {"channel_binding", c.Proxy.ServerTLS.ChannelBinding},
		{"require_auth", c.Proxy.ServerTLS.RequireAuth},
	} {
		if w.value != "" {
			words = append(words, w.key+"="+quote(w.value))
		}
	}
	cfg, err := pgx.ParseConfig(strings.Join(words, " "))
	if err != nil {
		return nil, fmt.Errorf("connection to %s: %w", n.ID, err)
	}
	if c.Proxy.ServerTLS.MinVersion == "TLSv1.3" {
		atLeast13(cfg)
	}
	cfg.Password = password
	cfg.DialFunc = dialer().DialContext
	return cfg, nil
}

// atLeast13 keeps every attempt at a connection to TLS 1.3.
func atLeast13(cfg *pgx.ConnConfig) {
	if cfg.TLSConfig != nil {
		cfg.TLSConfig.MinVersion = tls.VersionTLS13
	}
	for _, f := range cfg.Fallbacks {
		if f.TLSConfig != nil {
			f.TLSConfig.MinVersion = tls.VersionTLS13
		}
	}
}

// quote writes a value of a connection string (PostgreSQL docs, 34.1.1.1).
func quote(v string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
}

// Servers are the nodes as the recovery role reaches them.
func Servers(c *config.Config) map[cluster.NodeID]*sql.Server {
	out := map[cluster.NodeID]*sql.Server{}
	for _, n := range Nodes(c) {
		out[n.ID] = sql.New(n.ID, func(ctx context.Context) (*pgx.Conn, error) {
			cfg, err := ConnConfig(c, n, c.Recovery.Credential, c.HealthCheck.Database)
			if err != nil {
				return nil, err
			}
			cfg.RuntimeParams["application_name"] = sql.Application
			return pgx.ConnectConfig(ctx, cfg)
		})
	}
	return out
}

// Observer watches the configured nodes; Run starts it.
func Observer(c *config.Config, hosts map[cluster.NodeID]observe.HostProbe) *observe.Observer {
	return observe.New(observe.Options{
		Nodes: Nodes(c), Hosts: hosts, Now: time.Now, Check: Check(c),
		Config: func(n cluster.Node, role observe.Role) (*pgx.ConnConfig, error) {
			cred := c.ReplicationCheck.Credential
			if role == observe.Health {
				cred = c.HealthCheck.Credential
			}
			return ConnConfig(c, n, cred, c.HealthCheck.Database)
		},
	})
}

// Check is how often the nodes are looked at.
func Check(c *config.Config) observe.Check {
	return observe.Check{Period: time.Duration(c.HealthCheck.Period), Timeout: time.Duration(c.HealthCheck.Timeout),
		Positions: time.Duration(c.ReplicationCheck.Period)}
}
