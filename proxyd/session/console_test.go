package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// desk is a console that answers a byte with a greeting and remembers who came.
type desk struct {
	trusts bool // whoever comes by a Unix socket

	mu       sync.Mutex
	visits   []Visit
	canceled int
}

func (*desk) Owns(database string) bool { return database == "desk" }

func (d *desk) Owner(conn net.Conn, user string) bool {
	_, unix := conn.(*net.UnixConn)
	return d.trusts && unix && user == "owner"
}

// Serve greets as a server would, and then waits until it is ended.
func (d *desk) Serve(ctx context.Context, v Visit) error {
	d.mu.Lock()
	d.visits = append(d.visits, v)
	d.mu.Unlock()
	v.OnCancel(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.canceled++
	})
	if _, err := v.Conn.Write(wire.AppendReady(bytes.Clone(v.KeyData), wire.TxIdle)); err != nil {
		return err
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		wire.ReadMessage(v.Conn, nil, 1000) //nolint:errcheck // its end is what matters
	}()
	select {
	case <-gone:
	case <-ctx.Done():
		v.Conn.Close()
		<-gone
	}
	return errors.New("the visit is over")
}

func (d *desk) seen() (v Visit, n, canceled int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n = len(d.visits); n > 0 {
		v = d.visits[n-1]
	}
	return v, n, d.canceled
}

// TestTheConsoleIsReachedByTheOrdinaryLogin: with the password that the
// servers know, whatever the gate, a pause and max_clients say.
func TestTheConsoleIsReachedByTheOrdinaryLogin(t *testing.T) {
	d := &desk{}
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Console, o.Limits.MaxClients = d, 1 })
	keep := p.connect(t, "")
	do(t, keep, "SELECT 1")
	if err := p.Pause(within(t), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := p.gate.Close(within(t), "no primary", true); err != nil {
		t.Fatal(err)
	}
	if err := loginOnly(p); code(err) != wire.CodeTooManyConnections {
		t.Errorf("one client more than there may be: %v", err)
	}
	conn, err := pgx.Connect(within(t), p.dsn("dbname=desk application_name=me"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background()) //nolint:errcheck // a test's connection
	v, n, _ := d.seen()
	if n != 1 || v.User != "test1" || v.Database != "desk" || v.Owner || v.Params["application_name"] != "me" || v.Address == "" {
		t.Errorf("%d visits: %+v", n, v)
	}
	if err := conn.PgConn().CancelRequest(within(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cancel request comes", func() bool { _, _, canceled := d.seen(); return canceled == 1 })
	if _, err := pgx.Connect(within(t), p.dsn("dbname=desk password=wrong")); code(err) != wire.CodeInvalidPassword {
		t.Errorf("a wrong password: %v", err)
	}
	p.Kill("") // is not for whoever gives it
	if l := p.Look(); len(l.Clients) == 0 || !l.Clients[len(l.Clients)-1].Console {
		t.Errorf("the visit is not seen: %+v", l.Clients)
	}
	if s := p.Stats(); s.ServersActive+s.ServersIdle != 0 {
		t.Errorf("a visit has cost a server: %+v", s)
	}
}

// TestTheOwnerNeedsNoPassword, not even when no server is there that knows it.
func TestTheOwnerNeedsNoPassword(t *testing.T) {
	socket := filepath.Join(t.TempDir(), ".s.PGSQL.9999")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{trusts: true}
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Console, o.Listeners = d, append(o.Listeners, l) })
	if _, err := p.gate.Close(within(t), "no primary", true); err != nil {
		t.Fatal(err)
	}
	dsn := fmt.Sprintf("host=%s port=9999 sslmode=disable dbname=desk user=", filepath.Dir(socket))
	conn, err := pgx.Connect(within(t), dsn+"owner")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background()) //nolint:errcheck // a test's connection
	if v, n, _ := d.seen(); n != 1 || !v.Owner {
		t.Errorf("%d visits: %+v", n, v)
	}
	if c := p.Look().Clients; len(c) != 1 || c[0].PID != os.Getpid() {
		t.Errorf("its process is not known: %+v", c)
	}
	if _, err := pgx.Connect(within(t), dsn+"test1 password=wrong"); code(err) != wire.CodeInvalidPassword && err == nil {
		t.Errorf("another name: %v", err)
	}
}

// TestTheEndIsNotKeptWaitingByAVisit: who stops the proxy need not look first
// whether somebody sits at the console.
func TestTheEndIsNotKeptWaitingByAVisit(t *testing.T) {
	d := &desk{}
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Console = d })
	conn, err := pgx.Connect(within(t), p.dsn("dbname=desk"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background()) //nolint:errcheck // a test's connection
	began := time.Now()
	if err := p.Shutdown(within(t)); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("it took %v", took)
	}
}
