package daemon

import (
	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/proxyd/session"
)

// limitsOf is what the data plane can be told while it runs.
func limitsOf(c *config.Config) session.Limits {
	p := c.Proxy
	return session.Limits{
		Mode: session.Mode(p.PoolMode), MaxClients: p.MaxClients, MaxLogins: p.MaxLogins, MaxLoginsPerAddress: p.MaxLoginsPerAddress, PoolSize: p.PoolSize, MaxServers: p.MaxServers,
		HoldTimeout: p.HoldTimeout.Std(), LoginTimeout: p.LoginTimeout.Std(), ConnectTimeout: p.ConnectTimeout.Std(),
		ServerIdleTimeout: p.ServerIdleTimeout.Std(), ServerLifetime: p.ServerLifetime.Std(),
	}
}
