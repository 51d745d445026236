package assemble

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/host"
	"github.com/pgtandem/pgtandem/engine/execute/ssh"
	"github.com/pgtandem/pgtandem/engine/execute/steps"
	"github.com/pgtandem/pgtandem/engine/observe"
	"github.com/pgtandem/pgtandem/engine/provision"
)

// MachineSet is the nodes' hosts, each over one ssh connection that is kept.
type MachineSet struct {
	Hosts   map[cluster.NodeID]*host.Host
	clients []*ssh.Client
}

// Machines reaches the hosts of the configured nodes; nothing is dialled yet.
func Machines(c *config.Config) *MachineSet {
	m := &MachineSet{Hosts: map[cluster.NodeID]*host.Host{}}
	for i, n := range Nodes(c) {
		user := c.Nodes[i].SSHUser
		if user == "" {
			user = c.SSH.User
		}
		client := ssh.New(ssh.Config{Addr: net.JoinHostPort(n.SSHHost, strconv.Itoa(n.SSHPort)), User: user, KeyFile: c.SSH.KeyFile,
			KnownHosts: c.SSH.KnownHosts, Timeout: time.Duration(c.SSH.Timeout), KeepAlive: time.Duration(c.SSH.KeepAlive)})
		m.clients = append(m.clients, client)
		m.Hosts[n.ID] = host.New(n, client, host.Options{ReplicationUser: c.Replication.User, RecoveryUser: c.Recovery.User, PassFile: PassFile(c, n), Login: user})
	}
	return m
}

// Close ends the ssh connections.
func (m *MachineSet) Close() error {
	var errs []error
	for _, c := range m.clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Probes are the hosts as the observer asks them.
func (m *MachineSet) Probes() map[cluster.NodeID]observe.HostProbe {
	out := map[cluster.NodeID]observe.HostProbe{}
	for id, h := range m.Hosts {
		out[id] = h
	}
	return out
}

// ForSteps are the hosts as the engine's steps use them.
func (m *MachineSet) ForSteps() map[cluster.NodeID]steps.Host {
	out := map[cluster.NodeID]steps.Host{}
	for id, h := range m.Hosts {
		out[id] = h
	}
	return out
}

// ProvisionSpec is what the configuration wants of its hosts. The first node
// is the primary until a record says otherwise.
func ProvisionSpec(c *config.Config) provision.Spec {
	p := Policy(c)
	s := provision.Spec{Cluster: c.Cluster.Name, ProxyAddress: c.Proxy.SourceAddress, SwapMethod: p.SwapMethod, SyncMethod: p.SyncMethod, SyncK: p.SyncK, Slots: p.Slots,
		Recovery: c.Recovery.User, Replication: c.Replication.User, Monitors: monitors(c)}
	for i, n := range Nodes(c) {
		peer := c.Nodes[i].ReplicationAddress
		if peer == "" {
			peer = n.Host
		}
		s.Nodes = append(s.Nodes, provision.Node{Node: n, Archive: c.Nodes[i].ArchiveDirectory, Peer: peer, PassFile: PassFile(c, n)})
	}
	if len(s.Nodes) > 0 {
		s.Primary = s.Nodes[0].ID
	}
	return s
}

func monitors(c *config.Config) (out []string) {
	for _, u := range []string{c.HealthCheck.User, c.ReplicationCheck.User} {
		if u != "" && u != c.Recovery.User {
			out = append(out, u)
		}
	}
	return out
}

// ProvisionWorld is what the Doers of a provisioning plan work on.
func ProvisionWorld(c *config.Config, spec provision.Spec, m *MachineSet) *provision.World {
	hosts := map[cluster.NodeID]provision.Host{}
	for id, h := range m.Hosts {
		hosts[id] = h
	}
	return &provision.World{Spec: spec, Hosts: hosts, Secret: secret(c),
		Connect: func(ctx context.Context, n cluster.Node, database string) (*pgx.Conn, error) {
			cfg, err := ConnConfig(c, n, c.Recovery.Credential, database)
			if err != nil {
				return nil, err
			}
			return pgx.ConnectConfig(ctx, cfg)
		}}
}

// secret finds a role's password among the configured credentials.
func secret(c *config.Config) func(string) (string, error) {
	return func(role string) (string, error) {
		for _, cred := range []config.Credential{c.Recovery.Credential, c.Replication.Credential, c.HealthCheck.Credential, c.ReplicationCheck.Credential, c.Drill.Credential} {
			if cred.User == role {
				return cred.Resolve()
			}
		}
		return "", fmt.Errorf("%w: no password is configured for role %q", execute.ErrRefused, role)
	}
}
