package session

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

func (p *proxy) as(user, password, database, more string) string {
	return strings.NewReplacer("user=test1", "user="+user, "password=test1", "password='"+password+"'", "dbname=test1", "dbname="+database).Replace(p.dsn(more))
}

func TestRefusedLogins(t *testing.T) {
	pg.Exec(t, "postgres", "DROP ROLE IF EXISTS nologin, expired, nopass, later",
		"CREATE ROLE nologin NOLOGIN PASSWORD 'x'", "CREATE ROLE expired LOGIN PASSWORD 'x' VALID UNTIL '2001-01-01'",
		"CREATE ROLE nopass LOGIN", "CREATE ROLE later LOGIN PASSWORD 'x' VALID UNTIL 'infinity'")
	for _, mode := range bothModes {
		p := startProxy(t, mode)
		for _, c := range []struct{ name, user, password, database, code, text string }{
			{"wrong password", "test1", "wrong", "test1", "28P01", `password authentication failed for user "test1"`},
			{"unknown user", "nobody", "x", "test1", "28P01", `password authentication failed for user "nobody"`},
			{"expired", "expired", "x", "test1", "28P01", `password authentication failed for user "expired"`},
			{"no password", "nopass", "x", "test1", "28P01", `password authentication failed for user "nopass"`},
			{"may not log in", "nologin", "x", "test1", "28000", `role "nologin" is not permitted to log in`},
			{"unknown database", "test1", "test1", "nowhere", "3D000", `database "nowhere" does not exist`},
			{"valid until infinity", "later", "x", "test1", "", ""},
		} {
			t.Run(string(mode)+"/"+c.name, func(t *testing.T) {
				conn, err := pgx.Connect(within(t), p.as(c.user, c.password, c.database, ""))
				if err == nil {
					conn.Close(within(t)) //nolint:errcheck // a test's connection
				}
				if code(err) != c.code || err != nil && !strings.Contains(err.Error(), c.text) {
					t.Errorf("%v; want %s %s", err, c.code, c.text)
				}
			})
		}
	}
}

// counted says how often each role was looked up.
type counted struct {
	Verifiers
	mu    sync.Mutex
	asked map[string]int
}

func (c *counted) Lookup(ctx context.Context, user string) (Verifier, error) {
	c.mu.Lock()
	c.asked[user]++
	c.mu.Unlock()
	return c.Verifiers.Lookup(ctx, user)
}

// TestAFailureTakesTheSameWay for a role that exists and for one that does not:
// neither how long it takes nor what it is asked with tells them apart.
func TestAFailureTakesTheSameWay(t *testing.T) {
	source := &counted{Verifiers: sqlVerifiers{pg}, asked: map[string]int{}}
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Verifiers = source })
	for range 3 {
		for _, user := range []string{"test1", "nobody"} {
			_, err := pgx.Connect(within(t), p.as(user, "wrong", "test1", ""))
			expect(t, user, code(err), "28P01")
		}
	}
	if source.asked["test1"] != source.asked["nobody"] {
		t.Errorf("looked up: %v", source.asked)
	}
	const iterations = 4097
	secret, _ := strings.CutPrefix(credentialText(t), "SCRAM-SHA-256$4096:")
	pg.Exec(t, "postgres", "DROP ROLE IF EXISTS slow", fmt.Sprintf("CREATE ROLE slow LOGIN PASSWORD 'SCRAM-SHA-256$%d:%s'", iterations, secret))
	if _, err := pgx.Connect(within(t), p.as("slow", "wrong", "test1", "")); code(err) != "28P01" {
		t.Errorf("%v", err)
	}
	if got := p.verifiers.iterations.Load(); got != iterations {
		t.Errorf("%d iterations for those who do not exist, %d for those who do", got, iterations)
	}
}

// credentialText is a verifier as the server keeps it.
func credentialText(t *testing.T) string {
	t.Helper()
	v, err := sqlVerifiers{pg}.Lookup(within(t), "test1")
	if err != nil {
		t.Fatal(err)
	}
	return v.Secret
}

func TestAChangedPasswordIsNoticed(t *testing.T) {
	pg.Exec(t, "postgres", "DROP ROLE IF EXISTS changing", "CREATE ROLE changing LOGIN PASSWORD 'old'")
	p := startProxy(t, ModeSession)
	login := func(password string) string {
		conn, err := pgx.Connect(within(t), p.as("changing", password, "postgres", ""))
		if err == nil {
			conn.Close(within(t)) //nolint:errcheck // a test's connection
		}
		return code(err)
	}
	expect(t, "old", login("old"), "")
	pg.Exec(t, "postgres", "ALTER ROLE changing PASSWORD 'new'")
	// The first attempt may meet the cached verifier; it makes the proxy look.
	if first := login("new"); first != "" {
		expect(t, "first attempt", first, "28P01")
	}
	expect(t, "new", login("new"), "")
	expect(t, "old again", login("old"), "28P01")
}

func TestTooManyClients(t *testing.T) {
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Limits.MaxClients = 1 })
	first := p.connect(t, "")
	_, err := pgx.Connect(within(t), p.dsn(""))
	expect(t, "the second", code(err), "53300")
	if _, err := first.Exec(within(t), "SELECT 1"); err != nil {
		t.Errorf("the first is disturbed: %v", err)
	}
}

// TestConnectionLimits: a role's and a database's own limit hold, and are told
// in the server's words.
func TestConnectionLimits(t *testing.T) {
	pg.Exec(t, "postgres", "DROP ROLE IF EXISTS limited", "CREATE ROLE limited LOGIN PASSWORD 'x' CONNECTION LIMIT 1",
		"DROP DATABASE IF EXISTS narrow", "CREATE DATABASE narrow CONNECTION LIMIT 1")
	t.Cleanup(func() { pg.Exec(t, "postgres", "DROP DATABASE IF EXISTS narrow WITH (FORCE)") })
	for _, c := range []struct{ user, password, database, want string }{
		{"limited", "x", "postgres", `too many connections for role "limited"`},
		{"test1", "test1", "narrow", `too many connections for database "narrow"`},
	} {
		p := startProxy(t, ModeSession, func(o *Options) { o.Limits.HoldTimeout = 50 * time.Millisecond })
		first, err := pgx.Connect(within(t), p.as(c.user, c.password, c.database, ""))
		if err != nil {
			t.Fatal(err)
		}
		_, err = pgx.Connect(within(t), p.as(c.user, c.password, c.database, ""))
		if code(err) != "53300" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
		first.Close(within(t)) //nolint:errcheck // a test's connection
		eventually(t, "the place is free", func() bool {
			conn, err := pgx.Connect(within(t), p.as(c.user, c.password, c.database, ""))
			if err == nil {
				conn.Close(within(t)) //nolint:errcheck // a test's connection
			}
			return err == nil
		})
	}
}

// dialRaw opens a bare connection.
func (p *proxy) dialRaw(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestGarbage(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	other := p.connect(t, "")
	startup, err := wire.AppendStartup(nil, []wire.Param{{Name: "user", Value: "test1"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, bytes := range map[string][]byte{
		"http":                 []byte("GET / HTTP/1.0\r\n\r\n"),
		"length zero":          {0, 0, 0, 0, 0, 3, 0, 0},
		"length huge":          {0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		"no terminator":        {0, 0, 0, 12, 0, 3, 0, 0, 'u', 's', 'e', 'r'},
		"bytes behind the end": {0, 0, 0, 12, 0, 3, 0, 0, 0, 0, 0, 0},
		"protocol 2":           {0, 0, 0, 8, 0, 2, 0, 0},
		"no user":              {0, 0, 0, 9, 0, 3, 0, 0, 0},
		"query before login":   append(startup, wire.AppendString(nil, wire.Query, "SELECT 1")...),
		"huge password":        append(startup, 'p', 0x7f, 0xff, 0xff, 0xff),
	} {
		t.Run(name, func(t *testing.T) {
			conn := p.dialRaw(t)
			if _, err := conn.Write(bytes); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(conn)
			if err != nil && !strings.Contains(err.Error(), "reset") {
				t.Fatalf("the connection is not closed: %v", err)
			}
			if !strings.Contains(string(answer), "FATAL") {
				t.Errorf("no error was sent: %q", answer)
			}
		})
	}
	if _, err := other.Exec(within(t), "SELECT 1"); err != nil {
		t.Errorf("another client is disturbed: %v", err)
	}
}

func TestUnknownMessageEndsTheSession(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	for name, bytes := range map[string][]byte{
		"type": {'!', 0, 0, 0, 4}, "length": {'S', 0xff, 0xff, 0xff, 0xff}, "short": {'Q', 0, 0, 0, 3},
	} {
		t.Run(name, func(t *testing.T) {
			conn := p.bare(t)
			if _, err := conn.Write(bytes); err != nil {
				t.Fatal(err)
			}
			answer, _ := io.ReadAll(conn)
			if !strings.Contains(string(answer), "08P01") {
				t.Errorf("%q", answer)
			}
		})
	}
}

func TestLoginTimeout(t *testing.T) {
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Limits.LoginTimeout = 20 * time.Millisecond })
	conn := p.dialRaw(t)
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("the connection is not closed: %v", err)
	}
}

func TestNewerProtocolIsNegotiated(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	conn := p.dialRaw(t)
	body := append([]byte{0, 3, 0x27, 0x0f}, "user\x00test1\x00_pq_.grease\x001\x00\x00"...)
	packet := binary.BigEndian.AppendUint32(nil, uint32(len(body)+4))
	if _, err := conn.Write(append(packet, body...)); err != nil {
		t.Fatal(err)
	}
	typ, got, err := wire.ReadMessage(conn, nil, wire.MaxAuth)
	if err != nil || typ != wire.NegotiateVersion {
		t.Fatalf("%q, %v", typ, err)
	}
	expect(t, "answer", string(got), "\x00\x03\x00\x02\x00\x00\x00\x01_pq_.grease\x00")
}

// certificate makes a self-signed certificate for 127.0.0.1.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "proxyd"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestClientTLS(t *testing.T) {
	cert := certificate(t)
	for _, mode := range bothModes {
		p := startProxy(t, mode, func(o *Options) { o.Security.ClientTLS = ClientTLS{Mode: TLSRequire, Certificate: &cert} })
		secure := strings.Replace(p.dsn(""), "sslmode=disable", "sslmode=require", 1)
		for range 2 {
			conn, err := pgx.Connect(within(t), secure)
			if err != nil {
				t.Fatal(err)
			}
			var n int
			if err := conn.QueryRow(within(t), "SELECT length($1)", strings.Repeat("x", 100000)).Scan(&n); err != nil || n != 100000 {
				t.Errorf("%d, %v", n, err)
			}
			if v := p.Clients(); !v[0].TLS {
				t.Error("the client is not shown as encrypted")
			}
			if _, err := p.gate.Close(within(t), "rehearsal", true); err != nil {
				t.Fatal(err)
			}
			term, _ := p.gate.Target()
			p.open(t, term.Term+1)
			if _, err := conn.Exec(within(t), "SELECT 1"); err != nil {
				t.Errorf("after a failover: %v", err)
			}
			conn.Close(context.Background()) //nolint:errcheck // a test's connection
		}
		_, err := pgx.Connect(within(t), p.dsn(""))
		expect(t, "without TLS", code(err), "28000")
	}
}

func TestBytesBehindSSLRequest(t *testing.T) {
	cert := certificate(t)
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Security.ClientTLS = ClientTLS{Mode: TLSAllow, Certificate: &cert} })
	conn := p.dialRaw(t)
	if _, err := conn.Write(append(wire.AppendRequest(nil, wire.SSLRequest), "injected"...)); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(conn)
	if !strings.Contains(string(answer), "08P01") {
		t.Errorf("%q, want 08P01 and the end", answer)
	}
}

func TestServerAuthenticationMethods(t *testing.T) {
	t.Cleanup(func() {
		if err := pg.SetHBA("host all all 127.0.0.1/32 scram-sha-256"); err != nil {
			t.Error(err)
		}
	})
	for _, c := range []struct {
		method, want string
		only         bool // SCRAM is required
	}{
		{"scram-sha-256", "", false}, {"trust", "", false}, {"password", "28000", false}, {"reject", "28000", false},
		{"scram-sha-256", "", true}, {"trust", "28000", true},
	} {
		method, want := c.method, c.want
		t.Run(fmt.Sprintf("%s, SCRAM is required: %v", method, c.only), func(t *testing.T) {
			if err := pg.SetHBA("host all all 127.0.0.1/32 " + method); err != nil {
				t.Fatal(err)
			}
			p := startProxy(t, ModeSession, func(o *Options) { o.Security.ServerTLS.RequireSCRAM = c.only })
			// The server reads its file a moment after it was told to.
			eventually(t, method, func() bool {
				conn, err := pgx.Connect(within(t), p.dsn(""))
				if err == nil {
					conn.Close(within(t)) //nolint:errcheck // a test's connection
				}
				return code(err) == want
			})
		})
	}
}

func TestALoginIsServedFromTheCacheWhileThePrimaryIsAway(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	p.connect(t, "")
	if _, err := p.gate.Close(within(t), "rehearsal", true); err != nil {
		t.Fatal(err)
	}
	p.connect(t, "") // its parameters and its verifier are known
}
