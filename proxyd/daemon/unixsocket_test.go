package daemon

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// shortDir is a directory whose name leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "pgt-sock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestTheUnixSocketHasPostgreSQLsName(t *testing.T) {
	dir := shortDir(t)
	l, err := listenUnix(dir, 9999, "0770", "")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, ".s.PGSQL.9999")
	info, err := os.Stat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o770 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	text, err := os.ReadFile(path + ".lock")
	if lines := strings.Split(string(text), "\n"); err != nil || len(lines) != 6 || lines[0] == "" || lines[3] != "9999" || lines[4] != dir {
		t.Errorf("the lock file: %q, %v", text, err)
	}
	if conn, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{path, path + ".lock"} {
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was left: %v", name, err)
		}
	}
}

func TestAUnixSocketThatSomebodyHas(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, ".s.PGSQL.9999")
	refused := func(story, why string) {
		t.Helper()
		if _, err := listenUnix(dir, 9999, "0777", ""); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", story, err)
		}
	}
	ours, err := listenUnix(dir, 9999, "0777", "")
	if err != nil {
		t.Fatal(err)
	}
	refused("another proxyd", "another proxyd has the socket")
	if _, err := net.Dial("unix", path); err != nil {
		t.Errorf("the refused one took the socket away: %v", err)
	}
	if err := ours.Close(); err != nil {
		t.Fatal(err)
	}

	server, err := net.Listen("unix", path) // a PostgreSQL server, as far as anybody can see
	if err != nil {
		t.Fatal(err)
	}
	refused("a server", "somebody listens on "+path)
	if _, err := net.Dial("unix", path); err != nil {
		t.Errorf("the server lost its socket: %v", err)
	}
	server.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := server.Close(); err != nil { // it crashes
		t.Fatal(err)
	}
	l, err := listenUnix(dir, 9999, "0777", "")
	if err != nil {
		t.Fatalf("what a dead server left is in the way: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("a file", "is no socket")
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Errorf("the file was touched: %q, %v", text, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path + ".lock"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", path+".lock"); err != nil {
		t.Fatal(err)
	}
	refused("a link in a directory that others may write in", syscall.ELOOP.Error())
	if _, err := listenUnix(filepath.Join(dir, "none"), 9999, "0777", ""); err == nil || !strings.Contains(err.Error(), "the directory must be there") {
		t.Errorf("no directory: %v", err)
	}
	if _, err := listenUnix(dir, 9998, "0777", "no such group"); err == nil || !strings.Contains(err.Error(), "unix_socket_group") {
		t.Errorf("no group: %v", err)
	}
}
