package daemon

import (
	"fmt"
	"net"
	"strconv"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/proxyd/session"
)

// limitsOf is what the data plane can be told while it runs.
func limitsOf(c *config.Config) session.Limits {
	p := c.Proxy
	return session.Limits{
		Terms:      session.Terms{Mode: session.Mode(p.PoolMode), PoolSize: p.PoolSize, IdleTimeout: p.ServerIdleTimeout.Std(), Lifetime: p.ServerLifetime.Std()},
		MaxClients: p.MaxClients, MaxLogins: p.MaxLogins, MaxLoginsPerAddress: p.MaxLoginsPerAddress, MaxServers: p.MaxServers,
		HoldTimeout: p.HoldTimeout.Std(), LoginTimeout: p.LoginTimeout.Std(), ConnectTimeout: p.ConnectTimeout.Std(),
	}
}

// listen opens every address and Unix socket at which clients are taken, or
// none.
func listen(p config.Proxy) ([]net.Listener, error) {
	var ls []net.Listener
	for _, a := range p.ListenAddresses {
		if a == "*" {
			a = ""
		}
		l, err := net.Listen("tcp", net.JoinHostPort(a, strconv.Itoa(p.Port)))
		if err != nil {
			closeAll(ls)
			return nil, fmt.Errorf("listen for clients (proxy.listen_addresses, proxy.port): %w", err)
		}
		ls = append(ls, l)
	}
	for _, dir := range p.UnixSocketDirectories {
		l, err := listenUnix(dir, p.Port, p.UnixSocketPermissions, p.UnixSocketGroup)
		if err != nil {
			closeAll(ls)
			return nil, fmt.Errorf("listen for clients (proxy.unix_socket_directories, proxy.port): %w", err)
		}
		ls = append(ls, l)
	}
	return ls, nil
}

func closeAll(ls []net.Listener) {
	for _, l := range ls {
		_ = l.Close() // nobody was let in yet
	}
}
