package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// variable of the environment says what a process has inherited, and which
// descriptors that is.
const variable = "PGTANDEM_HANDOVER"

// firstFD is the first descriptor that a child inherits behind its standard
// ones.
const firstFD = 3

// Socket is a listener on its way to the next process.
type Socket struct {
	Key      string       // by which it is found again
	Listener syscall.Conn // *net.TCPListener, *net.UnixListener
	Lock     *os.File     // held beside it, nil for none
}

// manifest is what the variable holds.
type manifest struct {
	Stream   int       `json:"stream"`
	Sockets  []place   `json:"sockets"`
	Draining []earlier `json:"draining"`
}

type place struct {
	Key  string `json:"key"`
	FD   int    `json:"fd"`
	Lock int    `json:"lock,omitempty"`
	File string `json:"file,omitempty"` // of the lock
}

type earlier struct {
	FD  int `json:"fd"`
	PID int `json:"pid"`
}

// Child is the next process.
type Child struct {
	*Peer
	cmd   *exec.Cmd
	ended chan struct{}
	err   error
}

// Start runs a program as the next process. It inherits the sockets, and the
// streams to still earlier processes, of which only one reads at a time: Pause
// them before the other is told to begin.
func Start(argv []string, output io.Writer, sockets []Socket, draining []*Peer) (*Child, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make the stream to the next process: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "handover"), os.NewFile(uintptr(pair[1]), "handover")
	defer func() { _, _ = ours.Close(), theirs.Close() }() // both have been duplicated
	b := &bundle{}
	defer b.close()
	m := manifest{Stream: b.add(theirs)}
	for _, s := range sockets {
		p := place{Key: s.Key}
		if p.FD, err = b.duplicate(s.Listener, s.Key); err != nil {
			return nil, fmt.Errorf("hand %s over: %w", s.Key, err)
		}
		if s.Lock != nil {
			p.Lock, p.File = b.add(s.Lock), s.Lock.Name()
		}
		m.Sockets = append(m.Sockets, p)
	}
	for _, d := range draining {
		f, err := d.file()
		if err != nil {
			return nil, fmt.Errorf("hand the stream to process %d over: %w", d.pid, err)
		}
		b.own = append(b.own, f)
		m.Draining = append(m.Draining, earlier{b.add(f), d.pid})
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.ExtraFiles = b.files
	cmd.Env = append(environment(), variable+"="+string(text))
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the next process: %w", err)
	}
	peer, err := newPeer(ours, cmd.Process.Pid)
	if err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	c := &Child{Peer: peer, cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		c.err = cmd.Wait()
	}()
	return c, nil
}

// environment is ours without what is said of this very process: what the
// service manager gave it by socket activation is handed over as the rest is.
func environment() []string {
	ours := []string{variable, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"}
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(ours, name)
	})
}

// Kill ends the next process, and waits for its end.
func (c *Child) Kill() error {
	_ = c.cmd.Process.Kill() // it may have ended by itself
	<-c.ended
	return c.err
}

// bundle is what a child inherits.
type bundle struct {
	files []*os.File
	own   []*os.File // of these, what is ours to close
}

func (b *bundle) add(f *os.File) (fd int) {
	b.files = append(b.files, f)
	return firstFD + len(b.files) - 1
}

func (b *bundle) duplicate(l syscall.Conn, name string) (fd int, err error) {
	f, err := duplicate(l, name)
	if err != nil {
		return 0, err
	}
	b.own = append(b.own, f)
	return b.add(f), nil
}

func (b *bundle) close() {
	for _, f := range b.own {
		_ = f.Close() // the child has its own
	}
}

// duplicate makes another descriptor of a socket. The File of package net would
// do too, were it not for what becomes of it in a child: it makes the socket a
// blocking one, for every process that has it. Whoever then accepts or reads is
// caught in the kernel, where neither Close nor a deadline reaches it.
func duplicate(c syscall.Conn, name string) (*os.File, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var made int
	var failed error
	err = raw.Control(func(fd uintptr) { made, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, failed); err != nil {
		return nil, fmt.Errorf("duplicate its descriptor: %w", err)
	}
	return os.NewFile(uintptr(made), name), nil
}
