package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/tailscale/peercred"
)

// Inheritance is what this process was given by an earlier one.
type Inheritance struct {
	Parent   *Earlier
	Draining []*Earlier // that the parent followed itself
	Sockets  []Inherited
}

// Inherited is a listener of the earlier process.
type Inherited struct {
	Key      string
	Listener net.Listener
	Lock     *os.File // nil for none
}

// Earlier is a process that serves the clients it has, and takes no new ones.
type Earlier struct {
	*Peer
	process *os.Process
}

// Inherit takes over what an earlier process handed to this one, nil where
// there is none.
func Inherit() (*Inheritance, error) {
	text, ok := os.LookupEnv(variable)
	if !ok {
		return nil, nil
	}
	if err := os.Unsetenv(variable); err != nil {
		return nil, err
	}
	var m manifest
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return nil, fmt.Errorf("read %s: %w", variable, err)
	}
	in := &Inheritance{}
	var err error
	if in.Parent, err = takeEarlier(m.Stream, os.Getppid()); err != nil {
		return nil, err
	}
	for _, e := range m.Draining {
		d, err := takeEarlier(e.FD, e.PID)
		if err != nil {
			return nil, err
		}
		in.Draining = append(in.Draining, d)
	}
	for _, p := range m.Sockets {
		f := inheritFD(p.FD, p.Key)
		l, err := net.FileListener(f)
		_ = f.Close() // it was duplicated
		if err != nil {
			return nil, fmt.Errorf("take the listener %s over: %w", p.Key, err)
		}
		s := Inherited{Key: p.Key, Listener: l}
		if p.Lock != 0 {
			s.Lock = inheritFD(p.Lock, p.File)
		}
		in.Sockets = append(in.Sockets, s)
	}
	return in, nil
}

// inheritFD keeps a descriptor from going on to programs that we start.
func inheritFD(fd int, name string) *os.File {
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}

// takeEarlier takes a stream over, and makes sure of who is at its other end:
// the kernel keeps who made it.
func takeEarlier(fd, pid int) (*Earlier, error) {
	f := inheritFD(fd, "handover")
	defer func() { _ = f.Close() }() // it is duplicated
	peer, err := newPeer(f, pid)
	if err != nil {
		return nil, err
	}
	e := &Earlier{Peer: peer}
	if err = trusted(peer.conn, pid); err == nil {
		e.process, err = os.FindProcess(pid) // keeps the number from meaning another
	}
	if err != nil {
		peer.Close()
		return nil, fmt.Errorf("take the stream of process %d over: %w", pid, err)
	}
	return e, nil
}

func trusted(conn net.Conn, pid int) error {
	cred, err := peercred.Get(conn)
	if err != nil {
		return fmt.Errorf("see who is at its other end: %w", err)
	}
	maker, _ := cred.PID()
	user, _ := cred.UserID()
	if maker != pid || user != strconv.Itoa(os.Geteuid()) {
		return fmt.Errorf("it is process %d's, of user %s: it is not trusted", maker, user)
	}
	return nil
}

// Close lets go of a process that has ended.
func (e *Earlier) Close() {
	e.Peer.Close()
	e.process.Release() //nolint:errcheck // only a second call fails
}

// End kills the process unless it has ended, and waits until it has, at most
// for limit. Without an error it serves nobody any more.
func (e *Earlier) End(limit time.Duration) error {
	select {
	case <-e.Done():
		return nil
	default:
	}
	if err := e.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		select {
		case <-e.Done(): // and was closed just now
			return nil
		default:
			return fmt.Errorf("kill process %d: %w", e.pid, err)
		}
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-e.Done():
		return nil
	case <-timer.C:
		return fmt.Errorf("process %d was killed, and is there %v later", e.pid, limit)
	}
}
