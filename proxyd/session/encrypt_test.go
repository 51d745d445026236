package session

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/proxyd/auth"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// encrypted is a proxy that speaks TLS with a certificate of this authority.
func encrypted(t *testing.T, ca *authority, mode string, change ...func(*Options)) *proxy {
	t.Helper()
	shown := ca.sign(t, "proxyd", loopback)
	return startProxy(t, ModeTransaction, append([]func(*Options){func(o *Options) {
		o.Security.ClientTLS = ClientTLS{Mode: mode, Certificate: &shown.Certificate, CAs: ca.pool}
	}}, change...)...)
}

// TestLibpqsModesAgainstOurs: psql with each sslmode, against each mode of ours.
func TestLibpqsModesAgainstOurs(t *testing.T) {
	ca := newAuthority(t)
	root := written(t, string(ca.pem))
	for mode, want := range map[string]map[string]string{
		TLSDisable: {"disable": "plain", "allow": "plain", "prefer": "plain", "require": "refused", "verify-ca": "refused", "verify-full": "refused"},
		TLSAllow:   {"disable": "plain", "allow": "plain", "prefer": "tls", "require": "tls", "verify-ca": "tls", "verify-full": "tls"},
		TLSRequire: {"disable": "refused", "allow": "tls", "prefer": "tls", "require": "tls", "verify-ca": "tls", "verify-full": "tls"},
	} {
		p := encrypted(t, ca, mode)
		for theirs, want := range want {
			conninfo := fmt.Sprintf("host=127.0.0.1 port=%d user=test1 dbname=test1 sslmode=%s sslrootcert=%s", p.port, theirs, root)
			got, complaint := libpq(t, "", conninfo, "test1", `\conninfo`)
			switch {
			case strings.Contains(got, "SSL connection"):
				got = "tls"
			case got != "":
				got = "plain"
			default:
				got = "refused"
			}
			if got != want {
				t.Errorf("our %s, psql's %s: %s, want %s; %s", mode, theirs, got, want, complaint)
			}
		}
	}
}

func TestDirectTLS(t *testing.T) {
	ca := newAuthority(t)
	p := encrypted(t, ca, TLSRequire)
	t.Run("a client of PostgreSQL 17", func(t *testing.T) {
		dsn := strings.Replace(p.dsn("sslnegotiation=direct sslrootcert="+written(t, string(ca.pem))), "sslmode=disable", "sslmode=verify-full", 1)
		conn, err := pgx.Connect(within(t), dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background()) //nolint:errcheck // a test's connection
		if _, err := conn.Exec(within(t), "SELECT 1"); err != nil {
			t.Error(err)
		}
	})
	handshake := func(protocols ...string) (*tls.Conn, error) {
		conn := tls.Client(p.dialRaw(t), &tls.Config{RootCAs: ca.pool, ServerName: "127.0.0.1", NextProtos: protocols})
		return conn, conn.HandshakeContext(within(t))
	}
	t.Run("a client that names no protocol is not answered", func(t *testing.T) {
		conn, err := handshake()
		if err != nil {
			t.Fatal(err)
		}
		startup, err := wire.AppendStartup(nil, []wire.Param{{Name: "user", Value: "test1"}})
		if err != nil {
			t.Fatal(err)
		}
		conn.Write(startup) //nolint:errcheck // it may be closed already
		if b, _ := io.ReadAll(conn); len(b) > 0 {
			t.Errorf("%q", b)
		}
	})
	t.Run("a client of another protocol is refused", func(t *testing.T) {
		if _, err := handshake("http/1.1", "h2"); err == nil || !strings.Contains(err.Error(), "no application protocol") {
			t.Errorf("%v", err)
		}
	})
	t.Run("TLS is not asked for inside of TLS", func(t *testing.T) {
		conn, err := handshake(wire.ALPN)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(wire.AppendRequest(nil, wire.SSLRequest)); err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(conn); !strings.Contains(string(b), "unsupported frontend protocol 1234.5679") {
			t.Errorf("%q", b)
		}
	})
	t.Run("where TLS is off", func(t *testing.T) {
		plain := startProxy(t, ModeTransaction)
		conn := plain.dialRaw(t)
		if _, err := conn.Write([]byte{wire.TLSHandshake, 3, 1, 0, 200, 1, 0, 0}); err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(conn); !strings.Contains(string(b), "invalid length of startup packet") {
			t.Errorf("%q", b)
		}
	})
}

// TestRequestsOfEncryption are answered as PostgreSQL answers them, and once.
func TestRequestsOfEncryption(t *testing.T) {
	ca := newAuthority(t)
	for _, c := range []struct {
		story, mode string
		asks        []uint32
		want        string
	}{
		{"GSSAPI is not spoken", TLSAllow, []uint32{wire.GSSENCRequest}, "N"},
		{"nor a second time", TLSAllow, []uint32{wire.GSSENCRequest, wire.GSSENCRequest}, "Nunsupported frontend protocol 1234.5680"},
		{"GSSAPI, then TLS", TLSAllow, []uint32{wire.GSSENCRequest, wire.SSLRequest}, "NS"},
		{"TLS is off", TLSDisable, []uint32{wire.SSLRequest}, "N"},
		{"TLS is off, GSSAPI after it", TLSDisable, []uint32{wire.SSLRequest, wire.GSSENCRequest}, "NN"},
		{"TLS is off, asked for twice", TLSDisable, []uint32{wire.SSLRequest, wire.SSLRequest}, "Nunsupported frontend protocol 1234.5679"},
	} {
		p := encrypted(t, ca, c.mode)
		conn := p.dialRaw(t)
		var got strings.Builder
		for i, ask := range c.asks {
			if _, err := conn.Write(wire.AppendRequest(nil, ask)); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 1)
			if _, err := io.ReadFull(conn, b); err != nil {
				t.Fatal(err)
			}
			if b[0] == wire.ErrorResponse && i > 0 {
				rest, _ := io.ReadAll(conn)
				b = []byte(wire.ParseNotice(rest[4:]).Message)
			}
			got.Write(b)
		}
		if !strings.HasPrefix(got.String(), c.want) {
			t.Errorf("%s: %q, want %q", c.story, got.String(), c.want)
		}
	}
}

// TestBytesBehindARequestOfEncryption: nothing that came unprotected is read
// as if it had been (CVE-2021-3935, CVE-2021-23214), whatever the answer is.
func TestBytesBehindARequestOfEncryption(t *testing.T) {
	ca := newAuthority(t)
	startup, err := wire.AppendStartup(nil, []wire.Param{{Name: "user", Value: "test1"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		story, mode string
		ask         uint32
		want        string
	}{
		{"TLS is spoken", TLSAllow, wire.SSLRequest, "received unencrypted data after SSL request"},
		{"TLS is off", TLSDisable, wire.SSLRequest, "received unencrypted data after SSL request"},
		{"GSSAPI", TLSAllow, wire.GSSENCRequest, "received unencrypted data after GSSAPI encryption request"},
	} {
		p := encrypted(t, ca, c.mode)
		conn := p.dialRaw(t)
		if _, err := conn.Write(append(wire.AppendRequest(nil, c.ask), startup...)); err != nil {
			t.Fatal(err)
		}
		if answer, _ := io.ReadAll(conn); !strings.Contains(string(answer), c.want) || !strings.Contains(string(answer), "08P01") {
			t.Errorf("%s: %q", c.story, answer)
		}
	}
}

func TestTLSVersions(t *testing.T) {
	ca := newAuthority(t)
	for _, c := range []struct {
		ours, theirs uint16
		ok           bool
	}{
		{0, tls.VersionTLS11, false}, {0, tls.VersionTLS12, true}, {0, tls.VersionTLS13, true},
		{tls.VersionTLS13, tls.VersionTLS12, false}, {tls.VersionTLS13, tls.VersionTLS13, true},
		{tls.VersionTLS10, tls.VersionTLS11, false}, // never below 1.2
	} {
		p := encrypted(t, ca, TLSRequire, func(o *Options) { o.Security.ClientTLS.MinVersion = c.ours })
		conn := tls.Client(p.dialRaw(t), &tls.Config{RootCAs: ca.pool, ServerName: "127.0.0.1", NextProtos: []string{wire.ALPN}, MinVersion: tls.VersionTLS10, MaxVersion: c.theirs})
		if err := conn.HandshakeContext(within(t)); (err == nil) != c.ok {
			t.Errorf("at least %x, a client with %x: %v", c.ours, c.theirs, err)
		}
	}
}

// TestNewCertificatesDropNobody: after a change new connections follow it, and
// those that are there are not touched.
func TestNewCertificatesDropNobody(t *testing.T) {
	ca, next := newAuthority(t), newAuthority(t)
	p := encrypted(t, ca, TLSRequire)
	dial := func(a *authority) (*pgx.Conn, error) {
		cfg, err := pgx.ParseConfig(strings.Replace(p.dsn(""), "sslmode=disable", "sslmode=verify-full sslrootcert="+written(t, string(a.pem)), 1))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := pgx.ConnectConfig(within(t), cfg)
		if err == nil {
			t.Cleanup(func() { conn.Close(context.Background()) }) //nolint:errcheck // a test's connection
		}
		return conn, err
	}
	old, err := dial(ca)
	if err != nil {
		t.Fatal(err)
	}
	fresh := next.sign(t, "proxyd", loopback)
	if err := p.Secure(Security{ClientTLS: ClientTLS{Mode: TLSRequire, Certificate: &fresh.Certificate}, Rules: rulesOf(t, "hostssl all test1 all scram-sha-256")}); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(next); err != nil {
		t.Errorf("the new certificate: %v", err)
	}
	if _, err := dial(ca); err == nil {
		t.Error("the old certificate is still shown")
	}
	for name, s := range map[string]Security{
		"no certificate": {ClientTLS: ClientTLS{Mode: TLSRequire}}, "direct with a way back": {ServerTLS: ServerTLS{Mode: TLSPrefer, Direct: true}},
		"certificates nobody can check": {Rules: rulesOf(t, "hostssl all all all cert")}, "a map that is not there": {Rules: rulesOf(t, "local all all peer map=m")},
	} {
		if err := p.Secure(s); err == nil || s.Check() == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if err := p.Secure(Security{Rules: rulesOf(t, "host all all all reject")}); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Exec(within(t), "SELECT 1"); err != nil {
		t.Errorf("a connection that was there: %v", err)
	}
	if _, err := pgx.Connect(within(t), p.dsn("")); code(err) != "28000" {
		t.Errorf("the new rules: %v", err)
	}
}

// TestWaysToAServer: "allow" and "prefer" try the other way where the server's
// rules refuse the first.
func TestWaysToAServer(t *testing.T) {
	serveTLS(t)
	t.Cleanup(func() {
		if err := pg.SetHBA("host all all 127.0.0.1/32 scram-sha-256"); err != nil {
			t.Error(err)
		}
	})
	secure := func(p *proxy) string {
		conn, err := pgx.Connect(within(t), p.dsn(""))
		if err != nil {
			return code(err)
		}
		defer conn.Close(within(t)) //nolint:errcheck // a test's connection
		var on bool
		if err := conn.QueryRow(within(t), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&on); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(on)
	}
	for _, c := range []struct{ rules, mode, want string }{
		{"host", TLSAllow, "false"}, {"host", TLSPrefer, "true"},
		{"hostssl", TLSAllow, "true"}, {"hostssl", TLSPrefer, "true"}, {"hostssl", TLSDisable, "28000"},
		{"hostnossl", TLSPrefer, "false"}, {"hostnossl", TLSAllow, "false"}, {"hostnossl", TLSRequire, "28000"},
	} {
		if err := pg.SetHBA(c.rules + " all all 127.0.0.1/32 scram-sha-256"); err != nil {
			t.Fatal(err)
		}
		p := startProxy(t, ModeSession, func(o *Options) { o.Security.ServerTLS.Mode = c.mode })
		eventually(t, fmt.Sprintf("%s to a server that has %s: %s", c.mode, c.rules, c.want), func() bool { return secure(p) == c.want })
	}
}

// TestDirectTLSToAServer stands a server of PostgreSQL 17's manners before the
// real one.
func TestDirectTLSToAServer(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.sign(t, "server", loopback)
	for _, c := range []struct {
		story     string
		protocols []string
		want      string
	}{
		{"it names the protocol", []string{wire.ALPN}, ""},
		{"it names none", nil, "57P03"},
	} {
		node := server(t, func(conn net.Conn) error {
			secure := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert.Certificate}, NextProtos: c.protocols})
			if err := secure.HandshakeContext(t.Context()); err != nil {
				return err
			}
			to, err := real(t)
			if err != nil {
				return err
			}
			return pass(secure, to)
		})
		p := startProxy(t, ModeTransaction, func(o *Options) {
			o.Security.ServerTLS = ServerTLS{Mode: TLSVerifyFull, Roots: ca.pool, Direct: true}
			o.Limits.HoldTimeout = 1
		})
		p.lead(t, node)
		conn, err := pgx.Connect(within(t), p.dsn(""))
		if err == nil {
			conn.Close(within(t)) //nolint:errcheck // a test's connection
		}
		expect(t, c.story, code(err), c.want)
	}
}

// TestSomebodyBetweenUsAndTheServer has a certificate of his own and hands
// everything on. Where the certificate is not verified only channel binding
// notices him.
func TestSomebodyBetweenUsAndTheServer(t *testing.T) {
	serveTLS(t)
	his := newAuthority(t).sign(t, "server", loopback)
	node := server(t, func(conn net.Conn) error {
		if err := answersSSLRequest(conn, "S"); err != nil {
			return err
		}
		to, err := realTLS(t)
		if err != nil {
			return err
		}
		return pass(tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{his.Certificate}}), to)
	})
	for binding, want := range map[auth.Binding]string{auth.BindingDisable: "", auth.BindingPrefer: "28000", auth.BindingRequire: "28000"} {
		p := startProxy(t, ModeTransaction, func(o *Options) {
			o.Security.ServerTLS = ServerTLS{Mode: TLSRequire, ChannelBinding: binding}
		})
		p.connect(t, "application_name=before") // without him
		p.lead(t, node)
		conn, err := pgx.Connect(within(t), p.dsn("application_name=before"))
		if err == nil { // in transaction mode the first statement needs the server
			_, err = conn.Exec(within(t), "SELECT 1")
			conn.Close(within(t)) //nolint:errcheck // a test's connection
		}
		expect(t, "channel binding "+string(binding), code(err), want)
	}
}

func TestAServerThatDoesNotBind(t *testing.T) {
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Security.ServerTLS.ChannelBinding = auth.BindingRequire })
	_, err := pgx.Connect(within(t), p.dsn(""))
	expect(t, "without TLS, though binding is required", code(err), "28000")
}

func TestTheServersName(t *testing.T) {
	ca := newAuthority(t)
	for _, c := range []struct {
		story, cn, host string
		names           []string
		ok              bool
	}{
		{"an alternative name", "x", "db.example.com", []string{"db.example.com"}, true},
		{"a wildcard", "x", "db.example.com", []string{"*.example.com"}, true},
		{"the common name does not count beside it", "db.example.com", "db.example.com", []string{"other"}, false},
		{"only a common name, as the documentation makes it", "db.example.com", "db.example.com", nil, true},
		{"another common name", "other", "db.example.com", nil, false},
		{"an address as the common name", "10.0.0.1", "10.0.0.1", nil, true},
		{"no name", "", "db.example.com", nil, false},
	} {
		p := ca.sign(t, c.cn, func(x *x509.Certificate) { x.DNSNames, x.Subject = c.names, pkix.Name{CommonName: c.cn} })
		leaf, err := x509.ParseCertificate(p.Certificate.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		err = ServerTLS{Mode: TLSVerifyFull, Roots: ca.pool}.config(c.host).VerifyConnection(tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}})
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.story, err)
		}
	}
}
