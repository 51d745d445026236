package session

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// listenLocal opens a Unix socket of PostgreSQL's name, as the daemon does.
func listenLocal(t testing.TB, dir string, port int) net.Listener {
	t.Helper()
	path := filepath.Join(dir, fmt.Sprintf(".s.PGSQL.%d", port))
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	return l
}

// TestPeerOpensAServerThatTrustsUs: the kernel's word is enough for us, and ours
// for a server that is told so.
func TestPeerOpensAServerThatTrustsUs(t *testing.T) {
	pg.Exec(t, "postgres", "DROP ROLE IF EXISTS by_peer", "CREATE ROLE by_peer LOGIN")
	t.Cleanup(func() {
		if err := pg.SetHBA("host all all 127.0.0.1/32 scram-sha-256"); err != nil {
			t.Error(err)
		}
	})
	if err := pg.SetHBA("host all by_peer 127.0.0.1/32 trust"); err != nil {
		t.Fatal(err)
	}
	dir := socketDir(t)
	startProxy(t, ModeTransaction, func(o *Options) {
		o.Listeners = append(o.Listeners, listenLocal(t, dir, 4321))
		o.Security.Rules, o.Security.Maps = rulesOf(t, "local all all peer map=m"), mapsOf(t, "m postgres by_peer")
	})
	conninfo := fmt.Sprintf("host=%s port=4321 user=by_peer dbname=test1", dir)
	eventually(t, "the server has read its rules", func() bool {
		out, _ := libpq(t, "postgres", conninfo, "", "SELECT current_user")
		return out == "by_peer"
	})
	if _, complaint := libpq(t, "nobody", conninfo, "", "SELECT 1"); complaint != `FATAL:  Peer authentication failed for user "by_peer"` {
		t.Errorf("another account: %s", complaint)
	}
}

// TestTheUnixSocket: it is as good as TCP, in both modes, and no rule about
// encryption holds for it.
func TestTheUnixSocket(t *testing.T) {
	ca := newAuthority(t)
	shown := ca.sign(t, "proxyd", loopback)
	for _, mode := range bothModes {
		dir := socketDir(t)
		p := startProxy(t, mode, func(o *Options) {
			o.Listeners = append(o.Listeners, listenLocal(t, dir, 4321))
			o.Security.ClientTLS = ClientTLS{Mode: TLSRequire, Certificate: &shown.Certificate}
		})
		dsn := fmt.Sprintf("host=%s port=4321 user=test1 password=test1 dbname=test1", dir)
		conn, err := pgx.Connect(within(t), dsn)
		if err != nil {
			t.Fatal(err)
		}
		if v := p.Clients(); len(v) != 1 || v[0].Address != "[local]" || v[0].TLS {
			t.Errorf("%+v", v)
		}
		var n int
		if err := conn.QueryRow(within(t), "SELECT length($1)", string(make([]byte, 0, 1))+fmt.Sprintf("%0100000d", 1)).Scan(&n); err != nil || n != 100000 {
			t.Errorf("%d, %v", n, err)
		}
		target, _ := p.gate.Target()
		if _, err := p.gate.Close(within(t), "rehearsal", true); err != nil {
			t.Fatal(err)
		}
		p.open(t, target.Term+1)
		if _, err := conn.Exec(within(t), "SELECT 1"); err != nil {
			t.Errorf("after a failover: %v", err)
		}
		ctx, cancel := context.WithCancel(within(t))
		slept := make(chan error, 1)
		go func() { _, err := conn.Exec(ctx, "SELECT pg_sleep(60)"); slept <- err }()
		sleeping(t)
		if err := conn.PgConn().CancelRequest(within(t)); err != nil {
			t.Error(err)
		}
		expect(t, "canceled through the socket", code(<-slept), "57014")
		cancel()
		conn.Close(context.Background()) //nolint:errcheck // a test's connection

		bare, err := net.Dial("unix", filepath.Join(dir, ".s.PGSQL.4321"))
		if err != nil {
			t.Fatal(err)
		}
		defer bare.Close()
		if _, err := bare.Write(wire.AppendRequest(nil, wire.SSLRequest)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		if _, err := io.ReadFull(bare, b); err != nil || b[0] != 'N' {
			t.Errorf("TLS through a Unix socket: %q, %v", b, err)
		}
		if out, complaint := libpq(t, "", fmt.Sprintf("host=%s port=4321 user=test1 dbname=test1", dir), "test1", "SELECT 'in'"); out != "in" {
			t.Errorf("psql: %s, %s", out, complaint)
		}
	}
}
