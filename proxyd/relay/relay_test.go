package relay

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const patience = 30 * time.Second

// party is a handler that a test tells what to do.
type party struct {
	sock     *Conn
	conn     net.Conn // sock, or TLS over it
	readable func(*party)
	drained  chan struct{}
	closed   chan struct{}
	closings atomic.Int32
	buf      [4096]byte
}

func (p *party) Readable() {
	if p.readable != nil {
		p.readable(p)
	}
}

func (p *party) Drained() {
	select {
	case p.drained <- struct{}{}:
	default:
	}
}

func (p *party) Closed() {
	if p.closings.Add(1) == 1 {
		close(p.closed)
	}
}

// echo sends back what comes, and closes at the end.
func echo(p *party) {
	for {
		n, err := p.conn.Read(p.buf[:])
		switch {
		case n > 0:
			p.conn.Write(p.buf[:n]) //nolint:errcheck // the peer sees what is missing
			continue
		case !errors.Is(err, ErrAgain):
			p.sock.Close()
		}
		return
	}
}

func loops(t *testing.T, n int) *Group {
	t.Helper()
	g, err := New(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// pair is a TCP connection: one end wrapped and not started yet, the other
// plain.
func pair(t *testing.T) (*party, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	peer.SetDeadline(time.Now().Add(patience))
	inner, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	p := &party{sock: Wrap(inner), drained: make(chan struct{}, 1), closed: make(chan struct{})}
	p.conn = p.sock
	t.Cleanup(func() {
		peer.Close()
		p.sock.Close()
	})
	return p, peer.(*net.TCPConn)
}

func (p *party) start(t *testing.T, l *Loop, readable func(*party)) {
	t.Helper()
	p.readable = readable
	if err := p.sock.Start(l, p); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.sock.Close()
		await(t, p.closed, "the end of a connection")
	})
}

func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("not within %v: %s", patience, what)
	}
}

// run is a task made of a function.
type run func()

func (r run) Run() { r() }

// in runs something in the loop and waits for it.
func in(t *testing.T, l *Loop, f func()) {
	t.Helper()
	done := make(chan struct{})
	l.Post(run(func() { f(); close(done) }))
	await(t, done, "a task in the loop")
}

func TestWhatIsSentComesBack(t *testing.T) {
	for _, n := range []int{1, 3} {
		g := loops(t, n)
		var all sync.WaitGroup
		for i := range 40 {
			p, peer := pair(t)
			p.start(t, g.Next(), echo)
			all.Go(func() {
				for round := range 50 {
					sent := bytes.Repeat([]byte{byte(i + round)}, 1+97*round)
					if _, err := peer.Write(sent); err != nil {
						t.Error(err)
						return
					}
					got := make([]byte, len(sent))
					if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, sent) {
						t.Errorf("round %d: not what was sent: %v", round, err)
						return
					}
				}
			})
		}
		all.Wait()
	}
}

func TestWhatWasSentBeforeTheStartIsSeen(t *testing.T) {
	p, peer := pair(t)
	peer.Write([]byte("early")) //nolint:errcheck // read below
	peer.CloseWrite()           //nolint:errcheck // as well
	p.start(t, loops(t, 1).Next(), echo)
	if got, err := io.ReadAll(peer); string(got) != "early" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestAPeerThatDoesNotRead: nothing blocks, what it has not taken is counted,
// and when it has taken all that is told.
func TestAPeerThatDoesNotRead(t *testing.T) {
	p, peer := pair(t)
	l := loops(t, 1).Next()
	p.start(t, l, nil)
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	total := 0
	in(t, l, func() {
		for range 32 { // more than two sockets hold
			n, err := p.sock.Write(chunk)
			if n != len(chunk) || err != nil {
				t.Errorf("Write: %d, %v", n, err)
			}
			total += n
		}
	})
	if p.sock.Pending() == 0 {
		t.Fatal("32 MB are on their way to a peer that does not read")
	}
	if n, err := io.CopyN(io.Discard, peer, int64(total)); err != nil {
		t.Fatalf("after %d bytes: %v", n, err)
	}
	await(t, p.drained, "Drained")
	if n := p.sock.Pending(); n != 0 {
		t.Errorf("%d bytes are pending after Drained", n)
	}
}

func TestPausedIsNotRead(t *testing.T) {
	p, peer := pair(t)
	l := loops(t, 1).Next()
	var calls atomic.Int32
	heard := make(chan struct{}, 100)
	in(t, l, func() { p.sock.Pause() })
	p.start(t, l, func(p *party) {
		n, _ := p.conn.Read(p.buf[:])
		if n > 0 {
			calls.Add(1)
			heard <- struct{}{}
		}
	})
	peer.Write([]byte("hello")) //nolint:errcheck // read by the handler
	in(t, l, func() {})
	in(t, l, func() {})
	before := calls.Load()
	p.sock.Resume()
	await(t, heard, "what was sent meanwhile")
	if before > 1 { // the first call comes by itself, and may have seen it
		t.Errorf("%d calls while paused", before)
	}
}

// TestAPausedPeerThatIsGone must not keep the loop busy, and is seen once it is
// read again.
func TestAPausedPeerThatIsGone(t *testing.T) {
	p, peer := pair(t)
	l := loops(t, 1).Next()
	p.start(t, l, func(p *party) { echo(p) })
	in(t, l, func() { p.sock.Pause() })
	peer.SetLinger(0) //nolint:errcheck // makes it a reset
	peer.Close()
	in(t, l, func() {})
	p.sock.Resume()
	await(t, p.closed, "the end")
}

// TestTheLastWordsOfAPeerThatIsGone are heard although more was to be written to
// it than it will ever take.
func TestTheLastWordsOfAPeerThatIsGone(t *testing.T) {
	for range 20 {
		p, peer := pair(t)
		l := loops(t, 1).Next()
		var heard bytes.Buffer
		p.start(t, l, func(p *party) {
			n, err := p.conn.Read(p.buf[:11])
			if heard.Write(p.buf[:n]); n == 0 && !errors.Is(err, ErrAgain) {
				p.sock.Close()
			}
		})
		words := bytes.Repeat([]byte("last words "), 100)
		in(t, l, func() {
			p.sock.Write(make([]byte, 32<<20)) //nolint:errcheck // more than two sockets hold
			peer.Write(words)                  //nolint:errcheck // compared below
			peer.SetLinger(0)                  //nolint:errcheck // makes it a reset
			peer.Close()
		})
		await(t, p.closed, "the end")
		if !bytes.Equal(heard.Bytes(), words) {
			t.Fatalf("%d of %d bytes were heard", heard.Len(), len(words))
		}
	}
}

func TestClosedComesOnceWhoeverCloses(t *testing.T) {
	g := loops(t, 2)
	for range 50 {
		p, peer := pair(t)
		p.start(t, g.Next(), echo)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { p.sock.Close() })
			all.Go(func() { p.sock.Write([]byte("x")) }) //nolint:errcheck // may come too late
		}
		all.Go(func() { peer.Close() })
		all.Wait()
		await(t, p.closed, "Closed")
		if _, err := p.sock.Write([]byte("x")); err == nil {
			t.Error("a closed connection was written to")
		}
		if some, err := p.sock.Peek(); some || err == nil {
			t.Errorf("Peek after the end: %v, %v", some, err)
		}
		if n := p.closings.Load(); n != 1 {
			t.Fatalf("Closed was called %d times", n)
		}
	}
}

func TestClosedBeforeItIsStarted(t *testing.T) {
	p, _ := pair(t)
	p.sock.Close()
	if err := p.sock.Start(loops(t, 1).Next(), p); err == nil {
		t.Error("it was started")
	}
}

func TestFinishSendsTheRest(t *testing.T) {
	p, peer := pair(t)
	l := loops(t, 1).Next()
	p.start(t, l, nil)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<19)
	in(t, l, func() {
		p.sock.Write(sent) //nolint:errcheck // compared below
		p.sock.Finish(patience)
	})
	if got, err := io.ReadAll(peer); !bytes.Equal(got, sent) || err != nil {
		t.Errorf("%d of %d bytes, %v", len(got), len(sent), err)
	}
	await(t, p.closed, "the end")
}

func TestFinishDoesNotWaitForEver(t *testing.T) {
	p, _ := pair(t)
	l := loops(t, 1).Next()
	p.start(t, l, nil)
	in(t, l, func() {
		p.sock.Write(make([]byte, 32<<20)) //nolint:errcheck // nobody reads it
		p.sock.Finish(time.Millisecond)
	})
	await(t, p.closed, "the end")
}

func TestPeek(t *testing.T) {
	p, peer := pair(t)
	look := func(what string, wantSome, wantErr bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			some, err := p.sock.Peek()
			if some == wantSome && (err != nil) == wantErr {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v, %v", what, some, err)
			}
		}
	}
	look("nothing, not started", false, false)
	peer.Write([]byte("x")) //nolint:errcheck // seen below
	look("a byte, not started", true, false)
	l := loops(t, 1).Next()
	read := make(chan struct{}, 1)
	p.start(t, l, func(p *party) {
		select {
		case <-read:
			p.conn.Read(p.buf[:]) //nolint:errcheck // the byte
		default:
			p.sock.Pause()
		}
	})
	look("a byte", true, false)
	read <- struct{}{}
	p.sock.Resume()
	look("nothing", false, false)
	peer.CloseWrite() //nolint:errcheck // seen below
	look("the end", false, true)
}

// TestTLSGoesOverToTheLoop: a handshake that was made the ordinary way, records
// that come in pieces, and one that came before the start.
func TestTLSGoesOverToTheLoop(t *testing.T) {
	config, roots := certificate(t)
	p, peer := pair(t)
	client := tls.Client(peer, &tls.Config{RootCAs: roots, ServerName: "loop"})
	server := tls.Server(p.sock, config)
	shaken := make(chan error, 1)
	go func() { shaken <- client.Handshake() }()
	if err := errors.Join(server.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	client.Write([]byte("before ")) //nolint:errcheck // comes back
	var first [3]byte
	if _, err := io.ReadFull(server, first[:]); err != nil { // the rest of the record stays in it
		t.Fatal(err)
	}
	p.conn = server
	p.start(t, loops(t, 1).Next(), echo)
	sent := bytes.Repeat([]byte("after "), 100000)
	go client.Write(sent) //nolint:errcheck // comes back
	got := make([]byte, len("ore ")+len(sent))
	if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, append([]byte("ore "), sent...)) {
		t.Errorf("not what was sent: %v", err)
	}
}

func TestTasksRunInOrderFromAnywhere(t *testing.T) {
	l := loops(t, 1).Next()
	const posters, each = 8, 1000
	var last [posters]int
	var all sync.WaitGroup
	for i := range posters {
		all.Go(func() {
			for n := 1; n <= each; n++ {
				l.Post(run(func() {
					if last[i] != n-1 {
						t.Errorf("poster %d: %d came behind %d", i, n, last[i])
					}
					last[i] = n
				}))
			}
		})
	}
	all.Wait()
	in(t, l, func() {
		for i, n := range last {
			if n != each {
				t.Errorf("poster %d: %d of %d", i, n, each)
			}
		}
	})
}

func certificate(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"loop"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, roots
}
