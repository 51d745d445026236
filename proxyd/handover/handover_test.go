package handover

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const patience = 20 * time.Second

// TestMain is also the next process: it says over the stream what it was given,
// and serves what it inherited until it is told to end.
func TestMain(m *testing.M) {
	in, err := Inherit()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	if in == nil {
		os.Exit(m.Run())
	}
	child(in)
}

func child(in *Inheritance) {
	end := make(chan struct{})
	var mu sync.Mutex
	var told []string
	in.Parent.Serve(func(_ context.Context, op string, body json.RawMessage) (any, error) {
		switch op {
		case "echo":
			return body, nil
		case "earlier":
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			e := in.Draining[0]
			e.Serve(func(_ context.Context, op string, _ json.RawMessage) (any, error) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, op)
				return nil, nil
			})
			var name string
			err := e.Call(ctx, "who", nil, &name)
			return name, err
		case "told":
			mu.Lock()
			defer mu.Unlock()
			return told, nil
		case "end":
			close(end)
		}
		return nil, errors.New("not known")
	})
	for _, s := range in.Sockets {
		go func() {
			for {
				c, err := s.Listener.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "%s by %d, locked %v\n", s.Key, os.Getpid(), s.Lock != nil)
				_ = c.Close() // all is said
			}
		}()
	}
	in.Parent.Tell("ready", len(in.Sockets))
	select {
	case <-end:
	case <-in.Parent.Done():
	}
	os.Exit(0)
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// next starts this test binary as the next process, and waits until it is ready.
func next(t *testing.T, sockets []Socket, earlier ...*Peer) *Child {
	t.Helper()
	c, err := Start([]string{os.Args[0]}, os.Stderr, sockets, earlier)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Kill() //nolint:errcheck // it may have ended
		c.Close()
	})
	ready := make(chan struct{})
	c.Serve(func(_ context.Context, op string, _ json.RawMessage) (any, error) {
		switch op {
		case "ready":
			close(ready)
		case "who":
			return "the first", nil
		}
		return nil, nil
	})
	select {
	case <-ready:
	case <-c.Done():
		t.Fatal("the next process has ended")
	case <-time.After(patience):
		t.Fatal("the next process is not ready")
	}
	return c
}

func said(t *testing.T, network, address string) string {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()                                //nolint:errcheck // a test's connection
	conn.SetDeadline(time.Now().Add(patience))        //nolint:errcheck // the reading says so
	line, err := bufio.NewReader(conn).ReadString(10) // a line
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// TestTheNextProcessHasTheSockets: who connects while they change hands waits in
// the kernel's queue, and is served.
func TestTheNextProcessHasTheSockets(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	unix, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	unix.(*net.UnixListener).SetUnlinkOnClose(false)
	lock, err := os.Create(dir + "/s.lock")
	if err != nil {
		t.Fatal(err)
	}
	waits, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer waits.Close() //nolint:errcheck // a test's connection
	c := next(t, []Socket{{Key: "one", Listener: tcp.(*net.TCPListener)}, {Key: "two", Listener: unix.(*net.UnixListener), Lock: lock}})
	for _, l := range []net.Listener{tcp, unix} {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	line, err := bufio.NewReader(waits).ReadString(10)
	if want := fmt.Sprintf("one by %d, locked false", c.PID()); err != nil || strings.TrimSpace(line) != want {
		t.Errorf("who waited was told %q, %v", line, err)
	}
	if got, want := said(t, "unix", dir+"/s"), fmt.Sprintf("two by %d, locked true", c.PID()); got != want {
		t.Errorf("told %q, want %q", got, want)
	}
}

// TestNothingHandedOverBlocks: a socket is one for both processes. Were it to
// block, who accepts or reads here could not be stopped any more.
func TestNothingHandedOverBlocks(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close() //nolint:errcheck // a test's listener
	first := next(t, nil)
	// A program that does nothing with what it inherits, so that what is seen is
	// what Start did.
	c, err := Start([]string{"/bin/sleep", "60"}, os.Stderr, []Socket{{Key: "one", Listener: tcp.(*net.TCPListener)}}, []*Peer{first.Peer})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer c.Kill() //nolint:errcheck // it is killed
	for name, s := range map[string]syscall.Conn{"listener": tcp.(*net.TCPListener), "stream": first.conn} {
		raw, err := s.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		err = raw.Control(func(fd uintptr) {
			flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
			if err != nil || flags&unix.O_NONBLOCK == 0 {
				t.Errorf("the %s blocks: flags %x, %v", name, flags, err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestTheStream: questions are answered, also at the same time; the end of the
// other process ends those that wait.
func TestTheStream(t *testing.T) {
	c := next(t, nil)
	for i := range 3 {
		var got int
		if err := c.Call(within(t), "echo", i, &got); err != nil || got != i {
			t.Errorf("%d, %v", got, err)
		}
	}
	if err := c.Call(within(t), "nonsense", nil, nil); err == nil || !strings.Contains(err.Error(), "not known") {
		t.Errorf("an error: %v", err)
	}
	if err := c.Call(within(t), "echo", strings.Repeat("x", maxMessage), nil); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("too much: %v", err)
	}
	if err := c.Call(within(t), "end", nil, nil); err != nil && !errors.Is(err, ErrGone) && !strings.Contains(err.Error(), "not known") {
		t.Errorf("its end: %v", err)
	}
	select {
	case <-c.Done():
	case <-time.After(patience):
		t.Fatal("the end is not noticed")
	}
	if err := c.Call(within(t), "echo", 1, nil); !errors.Is(err, ErrGone) {
		t.Errorf("to nobody: %v", err)
	}
}

// TestTheStreamIsGivenOn: the process after the next one speaks to the first
// over the very same stream, and what was said between two readers is not lost.
func TestTheStreamIsGivenOn(t *testing.T) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]*Peer, 2)
	for i, fd := range pair {
		f := os.NewFile(uintptr(fd), "end")
		if ends[i], err = newPeer(f, os.Getpid()); err != nil {
			t.Fatal(err)
		}
		defer ends[i].Close()
		f.Close() //nolint:errcheck // it was duplicated
	}
	first, passedOn := ends[0], ends[1]
	first.Serve(func(_ context.Context, op string, _ json.RawMessage) (any, error) { return "the first", nil })
	heard := make(chan string, 1)
	passedOn.Serve(func(_ context.Context, op string, _ json.RawMessage) (any, error) {
		heard <- op
		return nil, nil
	})
	first.Tell("hello", nil)
	select {
	case <-heard:
	case <-time.After(patience):
		t.Fatal("nothing is heard")
	}
	c := next(t, nil, passedOn)
	passedOn.Pause()
	first.Tell("while nobody reads", nil)
	var name string
	if err := c.Call(within(t), "earlier", nil, &name); err != nil || name != "the first" {
		t.Errorf("%q, %v", name, err)
	}
	var told []string
	if err := c.Call(within(t), "told", nil, &told); err != nil || !slices.Equal(told, []string{"while nobody reads"}) {
		t.Errorf("told %q, %v", told, err)
	}
}

// TestWhatIsNotTrusted: a stream whose maker is not the one it is said to be.
func TestWhatIsNotTrusted(t *testing.T) {
	c := next(t, nil)
	f, err := c.file()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := takeEarlier(int(f.Fd()), c.PID()); err == nil || !strings.Contains(err.Error(), "not trusted") {
		t.Errorf("%v", err)
	}
}
