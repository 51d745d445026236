package session

import (
	"context"
	"crypto/x509"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
)

// serveTLS makes the shared server speak TLS, until the test ends.
func serveTLS(t *testing.T) (roots *x509.CertPool) {
	t.Helper()
	ca := newAuthority(t)
	serveTLSWith(t, ca)
	return ca.pool
}

// serveTLSWith does so with certificates of an authority, whose clients it
// trusts.
func serveTLSWith(t *testing.T, ca *authority) {
	t.Helper()
	cert := ca.sign(t, "server", loopback)
	for name, text := range map[string][]byte{"server.crt": cert.cert, "server.key": cert.key, "root.crt": ca.pem} {
		if err := pg.WriteFile(filepath.Join("data", name), text); err != nil {
			t.Fatal(err)
		}
	}
	pg.Exec(t, "postgres", "ALTER SYSTEM SET ssl_ca_file = 'root.crt'", "ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()")
	t.Cleanup(func() {
		pg.Exec(t, "postgres", "ALTER SYSTEM SET ssl = off", "ALTER SYSTEM RESET ssl_ca_file", "SELECT pg_reload_conf()")
		usesTLS(t, false)
	})
	usesTLS(t, true)
}

// usesTLS waits until the server has read its configuration.
func usesTLS(t *testing.T, want bool) {
	t.Helper()
	eventually(t, "the server has read its configuration", func() bool {
		conn, err := pgx.Connect(within(t), pg.URL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background()) //nolint:errcheck // a test's connection
		var on bool
		if err := conn.QueryRow(within(t), "SELECT current_setting('ssl')::bool").Scan(&on); err != nil {
			t.Fatal(err)
		}
		return on == want
	})
}

func TestServerTLS(t *testing.T) {
	roots := serveTLS(t)
	for _, c := range []struct {
		mode  string
		roots *x509.CertPool
		want  string // SQLSTATE of the login
		tls   bool
	}{
		{TLSDisable, nil, "", false},
		{TLSPrefer, nil, "", true},
		{TLSRequire, nil, "", true},
		{TLSRequire, x509.NewCertPool(), "57P03", true},
		{TLSVerifyCA, roots, "", true},
		{TLSVerifyCA, x509.NewCertPool(), "57P03", true},
		{TLSVerifyFull, roots, "", true},
		{TLSVerifyFull, x509.NewCertPool(), "57P03", true},
	} {
		t.Run(c.mode, func(t *testing.T) {
			p := startProxy(t, ModeTransaction, func(o *Options) {
				o.Security.ServerTLS = ServerTLS{Mode: c.mode, Roots: c.roots}
				o.Limits.HoldTimeout = 1 // nothing is held: the certificate does not get better
			})
			conn, err := pgx.Connect(within(t), p.dsn(""))
			expect(t, "login", code(err), c.want)
			if err != nil {
				return
			}
			defer conn.Close(context.Background()) //nolint:errcheck // a test's connection
			var secure bool
			err = conn.QueryRow(within(t), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&secure)
			if err != nil || secure != c.tls {
				t.Errorf("encrypted %v, %v", secure, err)
			}
		})
	}
}

func TestAServerWithoutTLSIsRefusedWhereItIsRequired(t *testing.T) {
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Security.ServerTLS.Mode, o.Limits.HoldTimeout = TLSRequire, 1 })
	_, err := pgx.Connect(within(t), p.dsn(""))
	expect(t, "login", code(err), "57P03")
}
