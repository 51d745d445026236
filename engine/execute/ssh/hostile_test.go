package ssh_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/ssh"
)

// impostor takes connections in sshd's place and says something in each.
func impostor(t testing.TB, says func(net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			says(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// text says it, and waits for the other side's end.
func text(parts ...string) func(net.Conn) {
	return func(conn net.Conn) {
		for _, p := range parts {
			if _, err := io.WriteString(conn, p); err != nil {
				return
			}
		}
		io.Copy(io.Discard, conn) //nolint:errcheck // it hangs up
	}
}

// TestWhatIsNoSSHD: whatever listens in sshd's place, the command is not run, and
// that is told in time.
func TestWhatIsNoSSHD(t *testing.T) {
	const hello = "SSH-2.0-OpenSSH_9.2\r\n"
	packet := func(n uint32, more string) string { return string(binary.BigEndian.AppendUint32(nil, n)) + more }
	for story, says := range map[string]func(net.Conn){
		"it hangs up":                       func(net.Conn) {},
		"another protocol":                  text("220 smtp.example.com ESMTP\r\n"),
		"a version that is none":            text("SSH-1.5-old\r\n"),
		"a greeting without end":            text(strings.Repeat("x", 1<<20)),
		"lines without end before it":       text(strings.Repeat("wait\r\n", 1<<17)),
		"a packet that claims to be 4 GB":   text(hello, packet(1<<32-1, "x")),
		"a packet of nothing":               text(hello, packet(0, "")),
		"more padding than packet":          text(hello, packet(12, "\xff"+strings.Repeat("x", 64))),
		"packets that mean nothing":         text(hello, strings.Repeat(packet(12, "\x04\x02aaaaaaaaaa"), 1<<15)),
		"a key exchange with an empty list": text(hello, packet(84, "\x04\x14"+strings.Repeat("\x00", 82))),
		"success before anybody asked":      text(hello, packet(12, "\x0a\x34aaaaaaaaaa")),
	} {
		t.Run(story, func(t *testing.T) {
			other, keyFile := key(t)
			addr := impostor(t, says)
			c := ssh.New(ssh.Config{Addr: addr, User: "postgres", KeyFile: keyFile, KnownHosts: knows(t, addr, other.PublicKey()), Timeout: 2 * time.Second})
			defer c.Close()
			began := time.Now()
			_, err := c.Run(t.Context(), execute.Command{Argv: []string{"true"}})
			if !errors.Is(err, execute.ErrUnreachable) && !errors.Is(err, execute.ErrRefused) {
				t.Errorf("got %v", err)
			}
			if len(err.Error()) > 1000 {
				t.Errorf("its words are told: %d bytes", len(err.Error()))
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// TestAMachineGetsNothingOfOurs: a machine that let us in may ask for no channel
// into us, neither to an agent nor to our network, and for no forwarding.
func TestAMachineGetsNothingOfOurs(t *testing.T) {
	asked := make(chan string, 100)
	signer, path := key(t)
	m := startMachine(t, signer.PublicKey())
	m.greet = func(conn *xssh.ServerConn) {
		for _, kind := range []string{"auth-agent@openssh.com", "forwarded-tcpip", "forwarded-streamlocal@openssh.com", "direct-tcpip", "x11", "session"} {
			if _, _, err := conn.OpenChannel(kind, make([]byte, 64)); err == nil {
				asked <- kind + " is opened"
			}
		}
		for _, kind := range []string{"tcpip-forward", "hostkeys-00@openssh.com"} {
			if ok, _, err := conn.SendRequest(kind, true, make([]byte, 64)); err != nil || ok {
				asked <- kind + " is granted"
			}
		}
		close(asked)
	}
	c := ssh.New(ssh.Config{Addr: m.addr, User: "postgres", KeyFile: path, KnownHosts: knows(t, m.addr, m.host.PublicKey())})
	defer c.Close()
	run(t, c, "true")
	for got := range asked {
		t.Error(got)
	}
}

// FuzzImpostor: whatever comes in sshd's place behind its greeting, nothing is
// run, and it is over when the other side hangs up.
func FuzzImpostor(f *testing.F) {
	for _, s := range []string{
		"", "SSH-2.0-x\r\n", "SSH-2.0-x\n\x00\x00\x00\x0c\x04\x14", "SSH-2.0-x\r\n\xff\xff\xff\xff", "one\r\ntwo\r\nSSH-2.0-x\r\n",
		"SSH-2.0-x\r\n\x00\x00\x00\x54\x04\x14" + strings.Repeat("\x00", 82),
	} {
		f.Add([]byte(s))
	}
	said := make(chan []byte, 1)
	addr := impostor(f, func(conn net.Conn) {
		conn.Write(<-said)               //nolint:errcheck // it may have hung up
		conn.(*net.TCPConn).CloseWrite() //nolint:errcheck // the same
		io.Copy(io.Discard, conn)        //nolint:errcheck // it hangs up
	})
	other, keyFile := key(f)
	cfg := ssh.Config{Addr: addr, User: "postgres", KeyFile: keyFile, KnownHosts: knows(f, addr, other.PublicKey()), Timeout: 5 * time.Second}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := ssh.New(cfg)
		defer c.Close()
		said <- b
		_, err := c.Run(t.Context(), execute.Command{Argv: []string{"true"}})
		if !errors.Is(err, execute.ErrUnreachable) && !errors.Is(err, execute.ErrRefused) {
			t.Errorf("got %v", err)
		}
	})
}
