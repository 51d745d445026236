package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// contradictions reports values that are right alone and wrong together.
func (r *report) contradictions(c *Config) {
	r.eachNode(c)
	r.nodesTogether(c)
	r.syncAndFailover(c)
	r.pool(c)
	r.reads(c)
	r.tls(c)
	r.rules(c)
	r.credentials(c)
}

func (r *report) eachNode(c *Config) {
	for i, n := range c.Nodes {
		at := fmt.Sprintf("node[%d].", i)
		for _, need := range []struct{ key, value string }{
			{"name", n.Name}, {"host", n.Host}, {"data_directory", n.DataDirectory},
		} {
			if need.value == "" && !r.complained(at+need.key) {
				r.add(at+need.key, "is missing", "every node needs it; allowed: "+keys["node."+need.key].allowed)
			}
		}
		if (len(n.StartCommand) == 0) != (len(n.StopCommand) == 0) {
			r.add(at+"start_command", "start_command and stop_command are set one without the other",
				"set both, so that what stopped the server is what starts it, or neither for pg_ctl")
		}
		if n.ArchiveDirectory != "" && n.ArchiveDirectory == n.DataDirectory {
			r.add(at+"archive_directory", "is the data directory itself", "name a directory of its own, beside it")
		}
	}
}

// complained says whether the value was refused already, so that its place is
// empty for that reason.
func (r *report) complained(path string) bool {
	line := r.at.line(path)
	return slices.ContainsFunc(r.problems, func(p Problem) bool { return p.Key == bareKey(path) && p.Line == line })
}

func (r *report) nodesTogether(c *Config) {
	if len(c.Nodes) < 2 && !r.complained("node") {
		r.add("node", fmt.Sprintf("%d of them", len(c.Nodes)), "a tandem has at least two: add a [[node]] for each server")
	}
	names, addresses, homes := map[string]string{}, map[string]string{}, map[string]string{}
	for i, n := range c.Nodes {
		at := fmt.Sprintf("node[%d].", i)
		// PostgreSQL compares the names in synchronous_standby_names without
		// regard to case (PostgreSQL docs, 20.6.2).
		r.once(names, strings.ToLower(n.Name), n.Name, at+"name", "name")
		if n.Host != "" {
			r.once(addresses, net.JoinHostPort(n.Host, fmt.Sprint(n.Port)), n.Name, at+"host", "host and port")
		}
		if n.DataDirectory != "" {
			r.once(homes, fmt.Sprintf("%s:%d:%s", n.SSHHost, n.SSHPort, n.DataDirectory), n.Name, at+"data_directory", "host and data directory")
		}
		if n.Port == c.Proxy.Port && loopback(n.Host) && listensHere(c.Proxy.ListenAddresses) {
			r.add(at+"port", fmt.Sprintf("%d on this host is proxy.port too: the proxy would connect to itself", n.Port),
				"give one of them another port")
		}
	}
}

// once reports a value that an earlier node has already.
func (r *report) once(seen map[string]string, value, node, at, what string) {
	if value == "" {
		return
	}
	if first, dup := seen[value]; dup {
		r.add(at, fmt.Sprintf("node %q has the same %s as node %q", node, what, first), "every node needs its own")
		return
	}
	seen[value] = node
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

func listensHere(addresses []string) bool {
	return slices.ContainsFunc(addresses, func(a string) bool {
		return a == "*" || a == "0.0.0.0" || a == "::" || loopback(a)
	})
}

func (r *report) syncAndFailover(c *Config) {
	if n := len(c.Nodes); n >= 2 && c.Sync.Standbys >= n {
		r.add("sync.standbys", fmt.Sprintf("%d standbys must confirm, but %d nodes leave only %d", c.Sync.Standbys, n, n-1),
			fmt.Sprintf("allowed with these nodes: 1 to %d", n-1))
	}
	if c.Sync.Standbys > 1 && !c.Sync.Slots {
		r.add(r.standing("sync.slots", "sync.standbys"), fmt.Sprintf("%d standbys must confirm and sync.slots is false: PostgreSQL counts connections, so without slots one standby that comes back could be counted twice", c.Sync.Standbys),
			"set sync.slots = true, or sync.standbys = 1")
	}
	movable := slices.ContainsFunc(c.Nodes, func(n Node) bool { return n.AllowFailover })
	if c.Failover.Policy == "automatic" && len(c.Nodes) >= 2 && !movable {
		r.add(r.standing("failover.policy", "node[0].allow_failover"), `failover.policy is "automatic", but no node has allow_failover = true`,
			`allow it for the nodes that may take over, or set failover.policy = "manual"`)
	}
	h := c.HealthCheck
	detection := h.Detection()
	if c.Proxy.HoldTimeout.Std() < detection {
		r.add(r.standing("proxy.hold_timeout", "health_check"), fmt.Sprintf("proxy.hold_timeout %s is shorter than the %s that health_check takes to find a silent node lost (retries %d, period %s, timeout %s)",
			c.Proxy.HoldTimeout, Duration(detection), h.Retries, h.Period, h.Timeout),
			"held clients would be turned away before the failover begins: hold longer, or check faster")
	}
}

// Detection is how long it takes, at the longest, to find a silent node lost.
// It falls silent between two questions, and then owes the answer to the next:
// the first failure is a timeout of that, and each further one a timeout more,
// or a period where that is longer.
func (h HealthCheck) Detection() time.Duration {
	return h.Period.Std() + h.Timeout.Std() + time.Duration(h.Retries-1)*max(h.Period.Std(), h.Timeout.Std())
}

func (r *report) pool(c *Config) {
	if c.Metrics.Port != 0 && c.Metrics.Port == c.Proxy.Port {
		r.add(r.standing("metrics.port", "proxy.port"), fmt.Sprintf("%d is proxy.port too", c.Metrics.Port), "give one of them another port")
	}
	r.sizes("proxy.", c.Proxy)
	r.pools(c)
	if c.Drill.Allow && c.Drill.User == "" {
		r.add("drill.allow", "drills are allowed, but drill.user is not set", "name the role the drill's clients log in as, and its password")
	}
}

// sizes reports those of a pool that exclude each other; table is where they
// stand, as "proxy.".
func (r *report) sizes(table string, p Proxy) {
	standing := func(key string) string { return r.standing(table+key, "proxy."+key) }
	if p.PoolSize > p.MaxServers {
		r.add(r.standing(table+"pool_size", "proxy.pool_size", "proxy.max_servers"),
			fmt.Sprintf("pool_size = %d for each database and user is more than max_servers = %d for all", p.PoolSize, p.MaxServers),
			"lower pool_size or raise max_servers")
	}
	if p.MinPoolSize > p.PoolSize {
		r.add(standing("min_pool_size"), fmt.Sprintf("min_pool_size = %d is more than pool_size = %d", p.MinPoolSize, p.PoolSize),
			"lower min_pool_size or raise pool_size")
	}
}

// pools reports exceptions for nobody, twice for the same, and of what is no
// matter of one database and user.
func (r *report) pools(c *Config) {
	first := map[string]bool{}
	for i := range c.Pools {
		p, at := &c.Pools[i], fmt.Sprintf("pool[%d]", i)
		if p.Database == "" && p.User == "" {
			if !r.complained(at+".database") && !r.complained(at+".user") {
				r.add(at, "names neither a database nor a user", "name one of them, or both; what holds for all stands in [proxy]")
			}
			continue
		}
		if first[p.who()] {
			r.add(at, "is about the same database and user as another [[pool]]", "put the two together")
		}
		first[p.who()] = true
		if p.Database != "" && p.User != "" {
			if p.MaxServers != nil {
				r.add(at+".max_servers", "stands with both a database and a user", "it is for one of them alone; a user's servers in one database are limited by pool_size")
			}
			if p.MaxClients != nil {
				r.add(at+".max_clients", "stands with both a database and a user", "it is for one of them alone")
			}
		}
		r.sizes(at+".", p.Over(c.Proxy))
	}
}

// reads reports what would keep every read on the primary.
func (r *report) reads(c *Config) {
	if !c.Reads.Balance {
		return
	}
	if c.Proxy.PoolMode == "session" {
		r.add(r.standing("reads.balance", "proxy.pool_mode"), `reads are balanced, but pool_mode = "session" leaves a client on one server`,
			`set pool_mode = "transaction", or balance = false`)
	}
	takes := func(n Node) bool { return n.AllowReads && n.Weight > 0 }
	if len(c.Nodes) > 0 && !slices.ContainsFunc(c.Nodes, takes) {
		r.add("reads.balance", "reads are balanced, but no node has both allow_reads = true and a weight above 0",
			"let one take reads, or set balance = false")
	}
	// What a standby is known to show is as old as the last look at the primary,
	// even where there is nothing to replay.
	look := min(c.HealthCheck.Period, c.ReplicationCheck.Period)
	if limit := c.Reads.LagLimit; limit > 0 && limit < 2*look {
		r.add(r.standing("reads.lag_limit", "replication_check.period", "health_check.period"),
			fmt.Sprintf("reads.lag_limit %s is shorter than two looks at the primary, %s apart: no standby would ever be known to be within it", limit, look),
			"allow more lag, or look more often")
	}
}

func (r *report) tls(c *Config) {
	t := c.Proxy.ClientTLS
	if t.Mode != "disable" {
		if t.CertFile == "" {
			r.add("proxy.client_tls.mode", fmt.Sprintf("%q without cert_file", t.Mode), "set cert_file and key_file, or mode = \"disable\"")
		}
		if t.KeyFile == "" {
			r.add("proxy.client_tls.mode", fmt.Sprintf("%q without key_file", t.Mode), "set cert_file and key_file, or mode = \"disable\"")
		}
	}
	s := c.Proxy.ServerTLS
	if strings.HasPrefix(s.Mode, "verify-") && s.CAFile == "" {
		r.add("proxy.server_tls.mode", fmt.Sprintf("%q without ca_file", s.Mode), "set ca_file to the certificates that are trusted, or choose a mode that verifies nothing")
	}
	if (s.CertFile == "") != (s.KeyFile == "") {
		r.add(r.standing("proxy.server_tls.cert_file", "proxy.server_tls.key_file"), "cert_file and key_file are set one without the other", "set both, or neither")
	}
	if weak := s.Mode == "disable" || s.Mode == "allow" || s.Mode == "prefer"; weak {
		if s.Negotiation == "direct" {
			r.add("proxy.server_tls.negotiation", fmt.Sprintf(`"direct" with mode = %q: from TLS in the first byte there is no way back to plaintext`, s.Mode), `set mode = "require" or better`)
		}
		if s.ChannelBinding == "require" {
			r.add("proxy.server_tls.channel_binding", fmt.Sprintf(`"require" with mode = %q: without TLS there is nothing to bind to`, s.Mode), `set mode = "require" or better`)
		}
	}
}

func (r *report) rules(c *Config) {
	if c.Proxy.IdentFile != "" && c.Proxy.HBAFile == "" {
		r.add("proxy.ident_file", "is set without hba_file, whose rules are what names its maps", "set hba_file, or leave ident_file away")
	}
	if c.Proxy.MaxLoginsPerAddress > c.Proxy.MaxLogins {
		r.add(r.standing("proxy.max_logins_per_address", "proxy.max_logins"), fmt.Sprintf("max_logins_per_address = %d is more than max_logins = %d for all", c.Proxy.MaxLoginsPerAddress, c.Proxy.MaxLogins),
			"lower max_logins_per_address or raise max_logins")
	}
}

// namedCredentials lists the credentials as they stand in the file.
func (c *Config) namedCredentials() []struct {
	table string
	Credential
} {
	return []struct {
		table string
		Credential
	}{
		{"health_check", c.HealthCheck.Credential},
		{"replication", c.Replication.Credential},
		{"replication_check", c.ReplicationCheck.Credential},
		{"recovery", c.Recovery.Credential},
		{"drill", c.Drill.Credential},
	}
}

func (r *report) credentials(c *Config) {
	for _, n := range c.namedCredentials() {
		var set []string
		if n.Password.IsSet() {
			set = append(set, "password")
		}
		if n.PasswordFile != "" {
			set = append(set, "password_file")
		}
		if n.PasswordEnv != "" {
			set = append(set, "password_env")
		}
		if len(set) < 2 {
			continue
		}
		at := n.table + "." + set[1]
		if _, own := r.at[at]; !own {
			continue // inherited; told where it stands
		}
		r.add(at, strings.Join(set, " and ")+" are set together", "keep one of them")
	}
}
