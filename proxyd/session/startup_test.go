package session

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// firstMessages gives what a server answers to a startup packet until it asks
// for a proof.
func firstMessages(t *testing.T, port int, version uint32, params ...wire.Param) (said []string) {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	start, err := wire.AppendStartupFor(nil, version, params)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(start); err != nil {
		t.Fatal(err)
	}
	for {
		typ, body, err := wire.ReadMessage(conn, nil, wire.MaxAuth)
		if err == io.EOF {
			return said
		}
		if err != nil {
			t.Fatal(err)
		}
		if typ == wire.ErrorResponse {
			n := wire.ParseNotice(body)
			said = append(said, fmt.Sprintf("E %s %s %s", n.Severity, n.Code, n.Message))
			continue
		}
		said = append(said, fmt.Sprintf("%c %q", typ, body))
		if typ == wire.Authentication {
			return said
		}
	}
}

// TestStartupIsAnsweredAsPostgreSQLDoes sends the same packets to both.
func TestStartupIsAnsweredAsPostgreSQLDoes(t *testing.T) {
	user := wire.Param{Name: "user", Value: "test1"}
	p := startProxy(t, ModeTransaction, func(o *Options) {
		newest := uint32(wire.Version32)
		if strings.HasPrefix(firstMessages(t, pg.Port, wire.Version32, user)[0], "v ") {
			newest = wire.Version30
		}
		o.Newest = func() uint32 { return newest }
	})
	long := strings.Repeat("x", 9000)
	for _, c := range []struct {
		story   string
		version uint32
		params  []wire.Param
	}{
		{"3.0", wire.Version30, []wire.Param{user}},
		{"an option that nobody knows", wire.Version30, []wire.Param{user, {Name: "_pq_.grease", Value: "1"}}},
		{"two of them", wire.Version30, []wire.Param{{Name: "_pq_.b", Value: ""}, user, {Name: "_pq_.a", Value: "1"}}},
		{"no user", wire.Version30, []wire.Param{{Name: "database", Value: "test1"}}},
		{"an empty user", wire.Version30, []wire.Param{{Name: "user", Value: ""}}},
		{"a name too long for a role (CVE-2012-4575)", wire.Version30, []wire.Param{{Name: "user", Value: long}}},
		{"a database too long", wire.Version30, []wire.Param{user, {Name: "database", Value: long}}},
		{"3.2", wire.Version32, []wire.Param{user}},
		{"3.2 and an option", wire.Version32, []wire.Param{user, {Name: "_pq_.grease", Value: "1"}}},
		{"a version that never will be", 3<<16 | 9999, []wire.Param{user}},
		{"4.0", 4 << 16, []wire.Param{user}},
	} {
		ours, theirs := firstMessages(t, p.port, c.version, c.params...), firstMessages(t, pg.Port, c.version, c.params...)
		if fmt.Sprint(ours) != fmt.Sprint(theirs) {
			t.Errorf("%s:\nthe proxy  %v\nPostgreSQL %v", c.story, ours, theirs)
		}
	}
}

// TestANewerProtocol is what PostgreSQL 18 and 19 speak, which the server here
// need not: the proxy speaks 3.2 before any of them, and the daemon grants it
// where they do, too.
func TestANewerProtocol(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	user := wire.Param{Name: "user", Value: "test1"}
	sasl := fmt.Sprintf("R %q", "\x00\x00\x00\x0a"+wire.ScramSHA256+"\x00\x00")
	for _, c := range []struct {
		story   string
		version uint32
		params  []wire.Param
		want    string
	}{
		{"3.2", wire.Version32, []wire.Param{user}, sasl},
		{"3.5", 3<<16 | 5, []wire.Param{user}, `v "\x00\x03\x00\x02\x00\x00\x00\x00" ` + sasl},
		{"grease", 3<<16 | 9999, []wire.Param{user, {Name: "_pq_.test_protocol_negotiation", Value: ""}},
			`v "\x00\x03\x00\x02\x00\x00\x00\x01_pq_.test_protocol_negotiation\x00" ` + sasl},
		{"4.0", 4 << 16, []wire.Param{user}, "E FATAL 0A000 unsupported frontend protocol 4.0: server supports 3.0 to 3.2"},
		{"2.0", 2 << 16, []wire.Param{user}, "E FATAL 0A000 unsupported frontend protocol 2.0: server supports 3.0 to 3.2"},
	} {
		if got := strings.Join(firstMessages(t, p.port, c.version, c.params...), " "); got != c.want {
			t.Errorf("%s:\n%s, want\n%s", c.story, got, c.want)
		}
	}
	for version, length := range map[string]int{"3.0": 4, "3.2": 32} {
		conn := p.connect(t, "max_protocol_version="+version)
		if key := conn.PgConn().SecretKey(); len(key) != length {
			t.Errorf("a key of %d bytes with %s, want %d", len(key), version, length)
		}
		slept := make(chan error, 1)
		go func() { _, err := conn.Exec(within(t), "SELECT pg_sleep(60)"); slept <- err }()
		sleeping(t)
		if err := conn.PgConn().CancelRequest(within(t)); err != nil {
			t.Error(err)
		}
		expect(t, "canceled with "+version, code(<-slept), "57014")
	}
}

// TestAWrongKeyCancelsNothing, however much of it is right.
func TestAWrongKeyCancelsNothing(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	conn := p.connect(t, "max_protocol_version=3.2")
	pid, right := conn.PgConn().PID(), conn.PgConn().SecretKey()
	slept := make(chan error, 1)
	go func() { _, err := conn.Exec(within(t), "SELECT pg_sleep(0.5)"); slept <- err }()
	sleeping(t)
	wrong := append(wire.CancelKey(nil), right...)
	wrong[31]++
	for name, key := range map[string]wire.CancelKey{
		"the last bit": wrong, "its beginning": right[:4], "and more": append(append(wire.CancelKey(nil), right...), 0),
		"as long as may be": make(wire.CancelKey, wire.MaxKey),
	} {
		cancel := p.dialRaw(t)
		if _, err := cancel.Write(wire.AppendCancel(nil, pid, key)); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(cancel); err != nil || len(b) > 0 {
			t.Errorf("%s is answered: %q, %v", name, b, err)
		}
	}
	if err := <-slept; err != nil {
		t.Errorf("it was canceled: %v", err)
	}
}

// TestAServerWithTheLongestKey stands a server of protocol 3.2 before the real
// one, whose keys have 256 bytes.
func TestAServerWithTheLongestKey(t *testing.T) {
	long := wire.CancelKey(strings.Repeat("k", wire.MaxKey))
	asked := make(chan uint32, 10)
	keys := make(chan wire.CancelKey, 10)
	node := server(t, func(conn net.Conn) error {
		start, err := wire.ReadStartup(conn)
		if err != nil {
			return err
		}
		to, err := real(t)
		if err != nil {
			return err
		}
		defer to.Close()
		if start.Code == wire.CancelCode {
			if !start.Key.Equal(long) {
				return fmt.Errorf("the key was not given back whole: %d bytes", len(start.Key))
			}
			select {
			case key := <-keys:
				_, err = to.Write(wire.AppendCancel(nil, start.PID, key))
			default:
				err = fmt.Errorf("a cancel request before there was a key")
			}
			return err
		}
		asked <- start.Code
		packet, err := wire.AppendStartup(nil, start.Params)
		if err != nil {
			return err
		}
		if _, err := to.Write(packet); err != nil {
			return err
		}
		return speak32(conn, to, keys, long)
	})
	p := startProxy(t, ModeTransaction)
	p.lead(t, node)
	conn := p.connect(t, "")
	if got := <-asked; got != wire.Version32 {
		t.Errorf("the server was asked for %x", got)
	}
	slept := make(chan error, 1)
	go func() { _, err := conn.Exec(within(t), "SELECT pg_sleep(60)"); slept <- err }()
	sleeping(t)
	if err := conn.PgConn().CancelRequest(within(t)); err != nil {
		t.Error(err)
	}
	expect(t, "canceled", code(<-slept), "57014")
	for form, text := range secretForms("the server's key", long) {
		if strings.Contains(p.log.String(), text) {
			t.Errorf("%s is in the log", form)
		}
	}
}

// speak32 hands on what a server and a client say, but for the key.
func speak32(client, to net.Conn, keys chan<- wire.CancelKey, long wire.CancelKey) error {
	go func() {
		io.Copy(to, client) //nolint:errcheck // the other direction ends it
		to.Close()
	}()
	for {
		typ, body, err := wire.ReadMessage(to, nil, wire.MaxLarge)
		if err != nil {
			return err
		}
		out, at := wire.Begin(nil, typ)
		out = wire.End(append(out, body...), at)
		if typ == wire.BackendKeyData {
			pid, key, err := wire.ParseKey(body)
			if err != nil {
				return err
			}
			keys <- key
			out = wire.AppendKey(nil, pid, long)
		}
		if _, err := client.Write(out); err != nil {
			return err
		}
	}
}

// TestNothingRunsBeforeTheProof: what a stranger writes into his startup packet
// reaches no server (CVE-2025-12819), and a role that does not exist is nobody
// else (CVE-2015-6817).
func TestNothingRunsBeforeTheProof(t *testing.T) {
	pg.Exec(t, "test1", "CREATE SCHEMA IF NOT EXISTS evil", "CREATE TABLE IF NOT EXISTS evil.ran (who text)",
		"CREATE OR REPLACE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $$ INSERT INTO evil.ran VALUES (current_user); SELECT pg_catalog.now() $$")
	t.Cleanup(func() { pg.Exec(t, "test1", "DROP SCHEMA evil CASCADE") })
	for _, mode := range bothModes {
		p := startProxy(t, mode)
		for _, user := range []string{"test1", "postgres", "nobody", "pg_read_all_data"} {
			_, err := pgx.Connect(within(t), p.as(user, "guess", "test1", "options='-c search_path=evil,pg_catalog' search_path=evil,pg_catalog"))
			expect(t, user, code(err), "28P01")
		}
		if s := p.Stats(); s.ServersActive+s.ServersIdle != 0 {
			t.Errorf("servers were opened for strangers: %+v", s)
		}
	}
	admin, err := pgx.Connect(within(t), pg.URL("test1"))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background()) //nolint:errcheck // a test's connection
	var ran int
	if err := admin.QueryRow(within(t), "SELECT count(*) FROM evil.ran").Scan(&ran); err != nil || ran != 0 {
		t.Errorf("it ran %d times, %v", ran, err)
	}
}

// TestTheLoginTimeoutIsAbsolute: whoever sends a byte now and then has no more
// time than who sends none, whatever he was in the middle of.
func TestTheLoginTimeoutIsAbsolute(t *testing.T) {
	ca := newAuthority(t)
	startup, err := wire.AppendStartup(nil, []wire.Param{{Name: "user", Value: "test1"}, {Name: "options", Value: strings.Repeat(" ", 5000)}})
	if err != nil {
		t.Fatal(err)
	}
	for story, c := range map[string]struct {
		first []byte // at once
		drip  []byte // byte by byte
	}{
		"a startup packet":   {nil, startup},
		"a TLS handshake":    {wire.AppendRequest(nil, wire.SSLRequest), make([]byte, 5000)},
		"a direct handshake": {[]byte{wire.TLSHandshake, 3, 1, 0x10, 0}, make([]byte, 4000)},
		"a proof":            {append(startup[:len(startup):len(startup)], wire.Password, 0, 0, 3, 0xff), make([]byte, 1000)},
	} {
		p := encrypted(t, ca, TLSAllow, func(o *Options) { o.Limits.LoginTimeout = 100 * time.Millisecond })
		conn := p.dialRaw(t)
		if _, err := conn.Write(c.first); err != nil {
			t.Fatal(err)
		}
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			io.Copy(io.Discard, conn) //nolint:errcheck // only the end matters
		}()
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		began, over := time.Now(), false
		for _, b := range c.drip {
			select {
			case <-closed:
				over = true
			case <-tick.C:
				conn.Write([]byte{b}) //nolint:errcheck // it may be closed
			}
			if over {
				break
			}
		}
		if !over {
			t.Errorf("%s: still open after %v", story, time.Since(began))
		}
	}
}

// TestLyingLengths: nobody is waited for who announces more than he may send.
func TestLyingLengths(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	for _, n := range []uint32{0, 3, 7, 10001, 1 << 16, 1 << 31, 1<<32 - 1} {
		conn := p.dialRaw(t)
		if _, err := conn.Write(binary.BigEndian.AppendUint32(nil, n)); err != nil {
			t.Fatal(err)
		}
		if answer, _ := io.ReadAll(conn); n>>24 != wire.TLSHandshake && !strings.Contains(string(answer), "invalid length of startup packet") {
			t.Errorf("a startup packet of %d bytes: %q", n, answer)
		}
	}
	start, err := wire.AppendStartup(nil, []wire.Param{{Name: "user", Value: "test1"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint32{0, 3, maxSASL + 5, 1 << 31, 1<<32 - 1} {
		conn := p.dialRaw(t)
		if _, err := conn.Write(binary.BigEndian.AppendUint32(append(start[:len(start):len(start)], wire.Password), n)); err != nil {
			t.Fatal(err)
		}
		if answer, _ := io.ReadAll(conn); !strings.Contains(string(answer), "08P01") {
			t.Errorf("a proof of %d bytes: %q", n, answer)
		}
	}
}
