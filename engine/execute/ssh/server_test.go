package ssh_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/pgtandem/pgtandem/engine/execute/ssh"
)

// key makes a key pair, its private half in a file of mode 0600.
func key(t testing.TB) (xssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := xssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "id_ed25519")
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := xssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer, path
}

// machine is an ssh server that runs commands with a real /bin/sh, as sshd does.
type machine struct {
	t      *testing.T
	addr   string
	host   xssh.Signer
	config *xssh.ServerConfig
	greet  func(*xssh.ServerConn) // called once somebody is in; nil for nothing
	wg     sync.WaitGroup

	mu       sync.Mutex
	conns    map[net.Conn]bool
	accepted int
	deaf     bool // reads, never answers a request
}

func startMachine(t *testing.T, login xssh.PublicKey, more ...xssh.Signer) *machine {
	t.Helper()
	host, _ := key(t)
	m := &machine{t: t, host: host, conns: map[net.Conn]bool{}}
	m.config = &xssh.ServerConfig{PublicKeyCallback: func(_ xssh.ConnMetadata, k xssh.PublicKey) (*xssh.Permissions, error) {
		if string(k.Marshal()) != string(login.Marshal()) {
			return nil, fmt.Errorf("not this key")
		}
		return &xssh.Permissions{}, nil
	}}
	for _, k := range append(more, host) {
		m.config.AddHostKey(k)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.addr = l.Addr().String()
	m.wg.Go(func() { m.accept(l) })
	t.Cleanup(func() {
		_ = l.Close()
		m.cut()
		m.wg.Wait()
	})
	return m
}

func (m *machine) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		m.mu.Lock()
		m.conns[c] = true
		m.accepted++
		m.mu.Unlock()
		m.wg.Go(func() { m.serve(c) })
	}
}

// cut ends every connection as a power failure does.
func (m *machine) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.conns {
		_ = c.Close()
		delete(m.conns, c)
	}
}

func (m *machine) connections() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.accepted
}

func (m *machine) setDeaf() {
	m.mu.Lock()
	m.deaf = true
	m.mu.Unlock()
}

func (m *machine) isDeaf() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.deaf
}

func (m *machine) serve(c net.Conn) {
	defer c.Close()
	conn, chans, reqs, err := xssh.NewServerConn(c, m.config)
	if err != nil {
		return
	}
	m.wg.Go(func() {
		for r := range reqs {
			if r.WantReply && !m.isDeaf() {
				_ = r.Reply(false, nil)
			}
		}
	})
	if m.greet != nil {
		m.wg.Go(func() { m.greet(conn) })
	}
	for n := range chans {
		if m.isDeaf() {
			continue
		}
		ch, requests, err := n.Accept()
		if err != nil {
			continue
		}
		m.wg.Go(func() { session(ch, requests) })
	}
	_ = conn.Close()
}

func session(ch xssh.Channel, requests <-chan *xssh.Request) {
	var run *exec.Cmd
	ended := make(chan struct{})
	for r := range requests {
		if r.Type != "exec" || run != nil {
			_ = r.Reply(false, nil)
			continue
		}
		var payload struct{ Command string }
		_ = xssh.Unmarshal(r.Payload, &payload)
		run = exec.Command("/bin/sh", "-c", payload.Command)
		run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that the shell's children end with it
		stdin, _ := run.StdinPipe()
		run.Stdout, run.Stderr = ch, ch.Stderr()
		_ = r.Reply(true, nil)
		if err := run.Start(); err != nil {
			break
		}
		go func() { _, _ = io.Copy(stdin, ch); _ = stdin.Close() }()
		go func() {
			defer close(ended)
			_ = run.Wait()
			_, _ = ch.SendRequest("exit-status", false, xssh.Marshal(struct{ Status uint32 }{uint32(run.ProcessState.ExitCode())}))
			_ = ch.Close()
		}()
	}
	if run != nil && run.Process != nil {
		_ = syscall.Kill(-run.Process.Pid, syscall.SIGKILL)
		<-ended
	}
}

// knows writes a known_hosts that holds the given key for addr.
func knows(t testing.TB, addr string, k xssh.PublicKey) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(path, []byte(knownhosts.Line([]string{addr}, k)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// reach is a machine and a client that it lets in.
func reach(t *testing.T, change func(*ssh.Config)) (*machine, *ssh.Client) {
	t.Helper()
	signer, path := key(t)
	m := startMachine(t, signer.PublicKey())
	cfg := ssh.Config{Addr: m.addr, User: "postgres", KeyFile: path, KnownHosts: knows(t, m.addr, m.host.PublicKey()), Timeout: 5 * time.Second}
	if change != nil {
		change(&cfg)
	}
	c := ssh.New(cfg)
	t.Cleanup(func() { _ = c.Close() })
	return m, c
}
