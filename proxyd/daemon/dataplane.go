package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/proxyd/session"
)

// limitsOf is what the data plane can be told while it runs.
func limitsOf(c *config.Config) session.Limits {
	p := c.Proxy
	return session.Limits{
		Mode: session.Mode(p.PoolMode), MaxClients: p.MaxClients, PoolSize: p.PoolSize, MaxServers: p.MaxServers,
		HoldTimeout: p.HoldTimeout.Std(), LoginTimeout: p.LoginTimeout.Std(), ConnectTimeout: p.ConnectTimeout.Std(),
		ServerIdleTimeout: p.ServerIdleTimeout.Std(), ServerLifetime: p.ServerLifetime.Std(),
	}
}

// listen opens every address at which clients are taken, or none.
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
	return ls, nil
}

func closeAll(ls []net.Listener) {
	for _, l := range ls {
		_ = l.Close() // nobody was let in yet
	}
}

// tlsOf reads the certificates for both sides.
func tlsOf(p config.Proxy, o *session.Security) error {
	o.ClientTLS.Mode, o.ServerTLS.Mode = p.ClientTLS.Mode, p.ServerTLS.Mode
	if p.ClientTLS.Mode != session.TLSDisable {
		cert, err := tls.LoadX509KeyPair(p.ClientTLS.CertFile, p.ClientTLS.KeyFile)
		if err != nil {
			return fmt.Errorf("proxy.client_tls: %w", err)
		}
		o.ClientTLS.Certificate = &cert
	}
	if p.ServerTLS.CAFile == "" {
		return nil
	}
	pem, err := os.ReadFile(p.ServerTLS.CAFile)
	if err != nil {
		return fmt.Errorf("proxy.server_tls.ca_file: %w", err)
	}
	o.ServerTLS.Roots = x509.NewCertPool()
	if !o.ServerTLS.Roots.AppendCertsFromPEM(pem) {
		return errors.New("proxy.server_tls.ca_file: there is no certificate in " + p.ServerTLS.CAFile)
	}
	return nil
}
