package daemon

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/config"
)

func listenOn(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // mostly closed already
	return l
}

// TestSocketsOfSystemd: what the .socket unit has opened is used, what is
// missing is opened, and a socket that the configuration does not name is an
// error, because nobody would answer there.
func TestSocketsOfSystemd(t *testing.T) {
	dir := shortDir(t)
	tcp := listenOn(t, "tcp", "127.0.0.1:0")
	port := tcp.Addr().(*net.TCPAddr).Port
	unix := listenOn(t, "unix", filepath.Join(dir, unixName(port)))
	p := config.Proxy{ListenAddresses: []string{"127.0.0.1", "::1"}, Port: port, UnixSocketDirectories: []string{dir}, UnixSocketPermissions: "0777"}
	ls, err := listen(p, &given{activated: []net.Listener{tcp, unix}})
	if err != nil {
		t.Fatal(err)
	}
	if len(ls) != 3 || ls[0].Listener != tcp || ls[2].Listener != unix || ls[2].lock != nil {
		t.Errorf("%+v", ls)
	}
	closeAll(ls)

	other := listenOn(t, "tcp", "127.0.0.1:0")
	if _, err := listen(config.Proxy{ListenAddresses: []string{"::1"}, Port: port}, &given{activated: []net.Listener{other}}); err == nil ||
		!strings.Contains(err.Error(), other.Addr().String()) {
		t.Errorf("a socket that is not named: %v", err)
	}
	all := listenOn(t, "tcp", ":0")
	p = config.Proxy{ListenAddresses: []string{"*"}, Port: all.Addr().(*net.TCPAddr).Port}
	if ls, err := listen(p, &given{activated: []net.Listener{all}}); err != nil || ls[0].Listener != all {
		t.Errorf("all addresses: %v", err)
	}
}

// TestWhoDrainsIsAwaited: a proxyd that is started apart from one that serves
// clients without an engine does not act beside it.
func TestWhoDrainsIsAwaited(t *testing.T) {
	dir := t.TempDir()
	if err := awaitDrained(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	lock, err := lockDraining(dir)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := lockDraining(dir); err != nil { // several may
		t.Error(err)
	} else if err := second.Close(); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := awaitDrained(short, dir); err == nil || !strings.Contains(err.Error(), "still serves clients") {
		t.Errorf("beside one that drains: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := awaitDrained(t.Context(), dir); err != nil {
		t.Error(err)
	}
}
