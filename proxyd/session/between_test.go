package session

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// server takes connections in place of PostgreSQL, until the test ends. Each is
// closed after handle.
func server(t *testing.T, handle func(net.Conn) error) cluster.Node {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]struct{}{}
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[conn] = struct{}{}
			mu.Unlock()
			all.Go(func() {
				defer conn.Close()
				if err := handle(conn); err != nil {
					t.Logf("the server in PostgreSQL's place: %v", err)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for conn := range open {
			conn.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return cluster.Node{ID: "pgsql1", Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port}
}

// pass hands bytes to and fro until either side is done.
func pass(a, b net.Conn) error {
	var both sync.WaitGroup
	var first error
	var once sync.Once
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			_, err := io.Copy(way[0], way[1])
			once.Do(func() { first = err })
			a.Close()
			b.Close()
		})
	}
	both.Wait()
	return first
}

// real connects to PostgreSQL.
func real(t *testing.T) (net.Conn, error) {
	return net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", pg.Port))
}

// realTLS does so and asks for TLS.
func realTLS(t *testing.T) (net.Conn, error) {
	conn, err := real(t)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(wire.AppendRequest(nil, wire.SSLRequest)); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil || answer[0] != 'S' {
		return nil, fmt.Errorf("%q to an SSLRequest: %w", answer, err)
	}
	return tls.Client(conn, &tls.Config{InsecureSkipVerify: true}), nil
}

// lead opens the gate to another node.
func (p *proxy) lead(t *testing.T, node cluster.Node) {
	t.Helper()
	if _, err := p.gate.Close(within(t), "another server", true); err != nil {
		t.Fatal(err)
	}
	target, _ := p.gate.Target()
	if err := p.gate.Open(within(t), target.Term+100, node); err != nil {
		t.Fatal(err)
	}
}

// answersSSLRequest is what a server does first whose clients ask for TLS.
func answersSSLRequest(conn net.Conn, answer string) error {
	start, err := wire.ReadStartup(conn)
	if err != nil {
		return err
	}
	if start.Code != wire.SSLRequest {
		return fmt.Errorf("no SSLRequest came, but %x", start.Code)
	}
	_, err = io.WriteString(conn, answer)
	return err
}

// packet is one message of the protocol.
func packet(typ byte, body string) string {
	b, at := wire.Begin(nil, typ)
	return string(wire.End(append(b, body...), at))
}

// authRequest is one AuthenticationRequest.
func authRequest(kind uint32, data string) string {
	return string(wire.AppendAuth(nil, kind, []byte(data)))
}

var ready = string(wire.AppendReady(nil, wire.TxIdle))

// TestHostileServers: whatever comes in PostgreSQL's place, the client is told
// something of which nothing was made up by an unauthenticated server, with a
// code, and the proxy serves the others.
func TestHostileServers(t *testing.T) {
	nonce := func(conn net.Conn) (string, error) {
		if _, _, err := wire.ReadMessage(conn, nil, wire.MaxAuth); err != nil {
			return "", err
		}
		return authRequest(wire.AuthSASLContinue, "r="+strings.Repeat("x", 60000)+",s=AAAA,i=4096"), nil
	}
	says := func(parts ...any) func(net.Conn) error {
		return func(conn net.Conn) error {
			if _, err := wire.ReadStartup(conn); err != nil {
				return err
			}
			for _, part := range parts {
				text, ok := part.(string)
				if !ok {
					var err error
					if text, err = part.(func(net.Conn) (string, error))(conn); err != nil {
						return err
					}
				}
				if _, err := io.WriteString(conn, text); err != nil {
					return err
				}
			}
			_, err := io.Copy(io.Discard, conn)
			return err
		}
	}
	in := authRequest(wire.AuthOK, "")
	scram := authRequest(wire.AuthSASL, wire.ScramSHA256+"\x00\x00")
	p := startProxy(t, ModeTransaction)
	for _, c := range []struct {
		story string
		tls   ServerTLS
		says  func(net.Conn) error
		code  string
	}{
		{"an error without a code (CVE-2026-6666)", ServerTLS{}, says(packet('E', "SFATAL\x00Moops\x00\x00")), "XX000"},
		{"an error without anything", ServerTLS{}, says(packet('E', "")), "XX000"},
		{"an error that is cut short", ServerTLS{}, says(packet('E', "SFATAL\x00C28")), "XX000"},
		{"a nonce that is too long (CVE-2026-6665)", ServerTLS{}, says(scram, nonce), "57P03"},
		{"a length that wraps (CVE-2026-6664)", ServerTLS{}, says("R\xff\xff\xff\xff"), "57P03"},
		{"a length below its own", ServerTLS{}, says("R\x00\x00\x00\x03"), "57P03"},
		{"one parameter after another", ServerTLS{}, says(in, strings.Repeat(packet('S', "a\x00"+strings.Repeat("b", 1000)+"\x00"), 1000)), "57P03"},
		{"ready without having let us in", ServerTLS{}, says(ready), "57P03"},
		{"no proof of its own", ServerTLS{}, says(scram, in, ready), "57P03"},
		{"a request after it let us in", ServerTLS{}, says(in, scram, ready), "57P03"},
		{"a key that is too long", ServerTLS{}, says(in, packet('K', strings.Repeat("k", 4+wire.MaxKey+1)), ready), "57P03"},
		{"a key that is too short", ServerTLS{}, says(in, packet('K', "1234567"), ready), "57P03"},
		{"a protocol nobody asked for", ServerTLS{}, says(packet('v', "\x00\x03\x27\x0f\x00\x00\x00\x00"), in, ready), "57P03"},
		{"rows before anybody asked", ServerTLS{}, says(packet('D', "\x00\x00"), in, ready), "57P03"},
		{"nothing but the end", ServerTLS{}, func(net.Conn) error { return nil }, "57P03"},
		{"it wants the password", ServerTLS{}, says(authRequest(wire.AuthCleartext, "")), "28000"},
		{"it wants an MD5 of it", ServerTLS{}, says(authRequest(wire.AuthMD5, "salt")), "28000"},
		{"an error in place of TLS (CVE-2024-10977)", ServerTLS{Mode: TLSRequire}, func(conn net.Conn) error {
			return answersSSLRequest(conn, packet('E', "SFATAL\x00C57P03\x00Mcall this number at once\x00\x00"))
		}, "57P03"},
		{"plaintext behind the S (CVE-2021-23222)", ServerTLS{Mode: TLSRequire}, func(conn net.Conn) error {
			return answersSSLRequest(conn, "S"+in+ready)
		}, "57P03"},
		{"no TLS where it is required", ServerTLS{Mode: TLSVerifyFull}, func(conn net.Conn) error { return answersSSLRequest(conn, "N") }, "57P03"},
	} {
		t.Run(c.story, func(t *testing.T) {
			p.Apply(Limits{Terms: Terms{Mode: ModeTransaction}, MaxClients: 100, HoldTimeout: 1})
			if err := p.Secure(Security{ServerTLS: c.tls}); err != nil {
				t.Fatal(err)
			}
			p.lead(t, server(t, c.says))
			e := pgError(t, p.dsn("application_name='"+strings.ReplaceAll(c.story, "'", "")+"'"))
			if e.Code != c.code || e.Severity != wire.SevFatal || strings.Contains(e.Message+e.Detail+e.Hint, "call this number") {
				t.Errorf("%+v", e)
			}
		})
	}
	p.Apply(Limits{Terms: Terms{Mode: ModeTransaction}, MaxClients: 100})
	if err := p.Secure(Security{}); err != nil {
		t.Fatal(err)
	}
	p.lead(t, pg.Node("pgsql1"))
	p.connect(t, "")
}
