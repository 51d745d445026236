package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/tailscale/peercred"
)

// Modes of what Listen makes: the group may look, others not even see.
const (
	directoryMode = 0o750
	socketMode    = 0o660
)

// ErrInUse is wrapped when a live program listens on the socket already.
var ErrInUse = errors.New("the control socket is in use")

// Listen opens the control socket at path. Its directory is made where it is
// missing. group, where it is not empty, is given the socket, and the
// directory where that is closed to others already. A socket left behind by a
// dead daemon is replaced; a live one is refused with its process id.
func Listen(path, group string) (net.Listener, error) {
	gid, err := groupID(group)
	if err != nil {
		return nil, err
	}
	if err := makeDirectory(filepath.Dir(path), gid); err != nil {
		return nil, err
	}
	lock, err := lockBeside(path)
	if err != nil {
		return nil, err
	}
	l, err := listenLocked(path, gid)
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	return &listener{UnixListener: l, lock: lock}, nil
}

// listener holds the lock for as long as it listens.
type listener struct {
	*net.UnixListener
	lock *os.File
}

// Close removes the socket, then gives up the lock.
func (l *listener) Close() error {
	return errors.Join(l.UnixListener.Close(), ignoreClosed(l.lock.Close()))
}

func ignoreClosed(err error) error {
	if errors.Is(err, fs.ErrClosed) {
		return nil
	}
	return err
}

func groupID(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("control socket: there is no group %q (create it with `groupadd --system %s`, or change control.viewer_group and control.operator_group): %w", name, name, err)
	}
	return strconv.Atoi(g.Gid)
}

// makeDirectory never touches the mode or group of a directory that others
// use too, such as /tmp.
func makeDirectory(dir string, gid int) error {
	_, err := os.Stat(dir)
	made := errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(dir, directoryMode); err != nil {
		return fmt.Errorf("control socket: make its directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	ours := ok && int(st.Uid) == os.Geteuid() && info.Mode().Perm()&0o007 == 0
	if !made && (!ours || gid < 0) {
		return nil
	}
	if err := os.Chown(dir, -1, gid); err != nil {
		return fmt.Errorf("control socket: give its directory to the group: %w", err)
	}
	if err := os.Chmod(dir, directoryMode); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// lockBeside keeps two starting daemons from both replacing a dead socket.
// The lock is the kernel's, so it ends with the process however it ends.
func lockBeside(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("control socket: open its lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, inUse(path, holder(path))
		}
		return nil, fmt.Errorf("control socket: lock %s: %w", f.Name(), err)
	}
	return f, nil
}

func inUse(path string, pid int) error {
	who := "another proxyd"
	if pid > 0 {
		who = fmt.Sprintf("process %d", pid)
	}
	return fmt.Errorf("%w: %s listens on %s (stop it first, or choose another control.socket)", ErrInUse, who, path)
}

// holder is the process id of who listens on path; 0 when nobody answers.
func holder(path string) int {
	conn, err := net.DialTimeout("unix", path, 2*time.Second)
	if err != nil {
		return 0
	}
	defer conn.Close()
	cred, err := peercred.Get(conn)
	if err != nil {
		return 0
	}
	pid, _ := cred.PID()
	return pid
}

func listenLocked(path string, gid int) (*net.UnixListener, error) {
	if err := clearStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: listen on %s: %w", path, err)
	}
	if gid >= 0 {
		err = os.Chown(path, -1, gid)
	}
	if err == nil {
		err = os.Chmod(path, socketMode)
	}
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("control socket: set who may open it: %w", err)
	}
	return l, nil
}

// clearStale removes a socket that nobody listens on, and nothing else.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("control socket: %s exists and is no socket (remove it, or choose another control.socket)", path)
	}
	conn, err := net.DialTimeout("unix", path, 2*time.Second)
	if err == nil {
		_ = conn.Close()
		return inUse(path, holder(path))
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("control socket: look who listens on %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("control socket: remove the one a dead daemon left: %w", err)
	}
	return nil
}
