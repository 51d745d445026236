package session

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/auth"
	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/session/internal/pgtest"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// patience bounds every wait of a test.
const patience = 60 * time.Second

// pg is the server that all tests of the package share.
var pg *pgtest.Server

func TestMain(m *testing.M) {
	var err error
	if pg, err = pgtest.New(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	pg.Destroy()
	os.Exit(code)
}

// sqlVerifiers asks the server itself, as the daemon does.
type sqlVerifiers struct{ pg *pgtest.Server }

func (v sqlVerifiers) Lookup(ctx context.Context, user string) (Verifier, error) {
	conn, err := pgx.Connect(ctx, v.pg.URL("postgres"))
	if err != nil {
		return Verifier{}, err
	}
	defer conn.Close(ctx) //nolint:errcheck // a test's connection
	var secret *string
	var until *time.Time
	var out Verifier
	err = conn.QueryRow(ctx, `SELECT rolpassword, CASE WHEN isfinite(rolvaliduntil) THEN rolvaliduntil END, rolcanlogin,
			ARRAY(SELECT g.rolname FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE m.member = a.oid)
		FROM pg_catalog.pg_authid a WHERE rolname = $1`, user).
		Scan(&secret, &until, &out.CanLogin, &out.MemberOf)
	if errors.Is(err, pgx.ErrNoRows) {
		return out, ErrNoRole
	}
	if secret != nil {
		out.Secret = *secret
	}
	if until != nil {
		out.ValidUntil = *until
	}
	return out, err
}

// proxy is a Server that runs.
type proxy struct {
	*Server
	gate *pool.Gate
	addr string
	port int
	log  *syncBuffer

	mu     sync.Mutex
	failed []cluster.NodeID
}

// syncBuffer is a log that can be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  []byte
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b = append(b.b, p...)
	return len(p), nil
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.b)
}

// startProxy runs a proxy in front of pg, its gate open, until the test ends.
func startProxy(t testing.TB, mode Mode, change ...func(*Options)) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{gate: pool.NewGate(time.Now), addr: l.Addr().String(), port: l.Addr().(*net.TCPAddr).Port, log: &syncBuffer{}}
	o := Options{
		Listeners: []net.Listener{l}, Loops: 2,
		Limits:    Limits{Terms: Terms{Mode: mode, PoolSize: 20}, MaxClients: 100, HoldTimeout: 30 * time.Second},
		Verifiers: sqlVerifiers{pg}, Gate: p.gate,
		Log: slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		BackendFailed: func(n cluster.NodeID, _ error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.failed = append(p.failed, n)
		},
	}
	for _, f := range change {
		f(&o)
	}
	if p.Server, err = New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- p.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-served:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(patience):
			t.Error("Serve does not end")
		}
		if t.Failed() {
			t.Logf("the proxy's log:\n%s", p.log.String())
		}
	})
	p.open(t, 1)
	return p
}

func (p *proxy) open(t testing.TB, term cluster.Term) {
	t.Helper()
	if err := p.gate.Open(context.Background(), term, pg.Node("pgsql1")); err != nil {
		t.Fatal(err)
	}
}

func (p *proxy) dsn(more string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=test1 password=test1 dbname=test1 sslmode=disable %s", p.port, more)
}

// within bounds a test's calls.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// connect opens a pgx connection through the proxy.
func (p *proxy) connect(t testing.TB, more string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(within(t), p.dsn(more))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) }) //nolint:errcheck // a test's connection
	return conn
}

// bare is a connection that is logged in, for a test that reads and writes the
// bytes itself. (A connection taken out of pgx may still be read by it.)
func (p *proxy) bare(t *testing.T) net.Conn {
	t.Helper()
	role, err := sqlVerifiers{pg}.Lookup(within(t), pgtest.User)
	if err != nil {
		t.Fatal(err)
	}
	conn := p.dialRaw(t)
	params := []wire.Param{{Name: "user", Value: pgtest.User}, {Name: "database", Value: pgtest.Database}}
	if _, err := logIn(conn, params, auth.NewProof(credentialOf(t, role.Secret, pgtest.Password), nil, auth.BindingPrefer)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// credentialOf is what a client that knows the password comes to.
func credentialOf(t testing.TB, secret, password string) auth.Credential {
	t.Helper()
	v, err := wire.ParseVerifier(secret)
	if err != nil {
		t.Fatal(err)
	}
	salted, err := pbkdf2.Key(sha256.New, password, v.Salt, v.Iterations, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, salted)
	mac.Write([]byte("Client Key"))
	return auth.Credential{SCRAM: v, Key: wire.Key(mac.Sum(nil)), Proved: true}
}

// code is the SQLSTATE of an error, "" for none.
func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
