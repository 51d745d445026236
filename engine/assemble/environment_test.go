package assemble_test

import (
	"crypto/tls"
	"testing"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine/assemble"
	"github.com/pgtandem/pgtandem/engine/cluster"
)

func TestServerTLSIsTheEnginesToo(t *testing.T) {
	c := config.Default()
	c.Proxy.ServerTLS = config.ServerTLS{Mode: "require", Negotiation: "direct", ChannelBinding: "require", RequireAuth: "scram-sha-256", MinVersion: "TLSv1.3"}
	got, err := assemble.ConnConfig(c, cluster.Node{ID: "pgsql1", Host: "127.0.0.1", Port: 5433}, config.Credential{User: "postgres"}, "postgres")
	if err != nil {
		t.Fatal(err)
	}
	if got.TLSConfig == nil || got.TLSConfig.MinVersion != tls.VersionTLS13 || got.SSLNegotiation != "direct" || got.ChannelBinding != "require" || got.RequireAuth != "scram-sha-256" {
		t.Errorf("%+v", got)
	}
}

// What somebody has set for psql does not reach the engine's connections.
func TestPsqlsEnvironmentIsNotOurs(t *testing.T) {
	t.Setenv("PGTARGETSESSIONATTRS", "standby")
	t.Setenv("PGOPTIONS", "-c default_transaction_read_only=on")
	t.Setenv("PGAPPNAME", "psql")
	t.Setenv("PGSERVICE", "none")
	t.Setenv("PGSERVICEFILE", "/nowhere")
	t.Setenv("PGHOST", "elsewhere")
	t.Setenv("PGPORT", "1")
	t.Setenv("PGUSER", "somebody")
	t.Setenv("PGPASSWORD", "theirs")
	t.Setenv("PGSSLMODE", "verify-full")
	assemble.ForgetLibpq()
	c := &config.Config{}
	c.Proxy.ServerTLS.Mode = "disable"
	got, err := assemble.ConnConfig(c, cluster.Node{ID: "pgsql1", Host: "127.0.0.1", Port: 5433}, config.Credential{User: "postgres"}, "postgres")
	if err != nil {
		t.Fatal(err)
	}
	if got.ValidateConnect != nil || len(got.RuntimeParams) > 0 || got.TLSConfig != nil || got.Host != "127.0.0.1" || got.Port != 5433 ||
		got.User != "postgres" || got.Password != "" || len(got.Fallbacks) > 0 {
		t.Errorf("host %s, port %d, user %s, password %q, parameters %v, TLS %v, choosy %v", got.Host, got.Port, got.User, got.Password,
			got.RuntimeParams, got.TLSConfig != nil, got.ValidateConnect != nil)
	}
}
