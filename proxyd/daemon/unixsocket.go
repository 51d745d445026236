package daemon

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
)

// unixName is what libpq looks for.
func unixName(port int) string { return fmt.Sprintf(".s.PGSQL.%d", port) }

// listenUnix opens the socket that libpq looks for in a directory. permissions
// are octal; group is "" for our own. One that a dead server left behind is
// replaced, a live one is not.
func listenUnix(dir string, port int, permissions, group string) (*listening, error) {
	mode, err := strconv.ParseUint(permissions, 8, 32)
	if err != nil {
		return nil, fmt.Errorf("proxy.unix_socket_permissions: %w", err)
	}
	gid := -1
	if group != "" {
		g, err := user.LookupGroup(group)
		if err != nil {
			return nil, fmt.Errorf("proxy.unix_socket_group: %w", err)
		}
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return nil, fmt.Errorf("proxy.unix_socket_group: group %q has the id %q", group, g.Gid)
		}
	}
	path := filepath.Join(dir, unixName(port))
	lock, err := lockSocket(path, dir, port)
	if err != nil {
		return nil, err
	}
	l, err := openSocket(path, fs.FileMode(mode), gid)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &listening{l, unixKey(path), lock}, nil
}

// socketLock is PostgreSQL's lock file beside the socket, held by the kernel's
// lock too, which ends with us however we end.
type socketLock struct{ file *os.File }

// lockSocket takes the name. The file is as CreateLockFile() in miscinit.c
// makes it: a server that the same account starts in the same place finds our
// process in it and goes elsewhere. One of another account would take the
// socket from anybody, us included.
func lockSocket(path, dir string, port int) (*socketLock, error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the socket: %w (the directory must be there, and the account of proxyd be able to write in it)", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("another proxyd has the socket %s: stop it first, or choose another port or directory", path)
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	if err := inUse(path); err != nil {
		_ = f.Close()
		return nil, err
	}
	lock := &socketLock{f}
	if err := lock.write(dir, port); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// write says in the file whose the lock is: ours.
func (l *socketLock) write(dir string, port int) error {
	text := fmt.Sprintf("%d\n%s\n%d\n%d\n%s\n", os.Getpid(), dir, time.Now().Unix(), port, dir)
	err := l.file.Truncate(0)
	if err == nil {
		_, err = l.file.WriteAt([]byte(text), 0)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", l.file.Name(), err)
	}
	return nil
}

// leave gives our part of the lock up to a process that has it too.
func (l *socketLock) leave() {
	if l.file != nil {
		_ = l.file.Close() // the other one holds it
		l.file = nil
	}
}

// Close removes the file while it is still locked.
func (l *socketLock) Close() error {
	if l.file == nil {
		return nil
	}
	f := l.file
	l.file = nil
	return errors.Join(os.Remove(f.Name()), f.Close())
}

// inUse says why the path cannot be taken. A socket where nobody answers is no
// reason.
func inUse(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s is there and is no socket: remove it, or choose another directory", path)
	}
	conn, err := net.DialTimeout("unix", path, 2*time.Second)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("somebody listens on %s, a PostgreSQL server perhaps: choose another port or directory", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("look who listens on %s: %w", path, err)
	}
	return nil
}

func openSocket(path string, mode fs.FileMode, gid int) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket that a dead server left: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if gid >= 0 {
		err = os.Chown(path, -1, gid)
	}
	if err == nil {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set who may open %s: %w", path, err), l.Close())
	}
	return l, nil
}
