package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/proxyd/handover"
)

// listening is one address or Unix socket at which clients are taken.
type listening struct {
	net.Listener
	key  string      // what the configuration calls it
	lock *socketLock // nil: a TCP address, or another's socket
}

// given are listeners that we need not open: an earlier proxyd's, or systemd's.
type given struct {
	inherited []handover.Inherited
	activated []net.Listener
}

// givenTo takes what this process was started with.
func givenTo(in *handover.Inheritance) (*given, error) {
	if in != nil {
		return &given{inherited: in.Sockets}, nil
	}
	ls, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("take the sockets of socket activation: %w", err)
	}
	for i, l := range ls {
		if l == nil {
			return nil, fmt.Errorf("socket %d of socket activation takes no connections: ListenStream= is what proxyd needs", i+1)
		}
	}
	return &given{activated: ls}, nil
}

func tcpKey(address string, port int) string {
	return "tcp " + net.JoinHostPort(address, strconv.Itoa(port))
}
func unixKey(path string) string { return "unix " + path }

// tcp finds a listener for an address of the configuration.
func (g *given) tcp(address string, port int) (net.Listener, bool) {
	if l, _, ok := g.byKey(tcpKey(address, port)); ok {
		return l, true
	}
	want, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
	if err != nil {
		return nil, false // Listen says why
	}
	return g.find(func(a net.Addr) bool {
		has, ok := a.(*net.TCPAddr)
		return ok && has.Port == want.Port && (has.IP.Equal(want.IP) || has.IP.IsUnspecified() && (want.IP == nil || want.IP.IsUnspecified()))
	})
}

// unix finds a listener for the path of a socket.
func (g *given) unix(path string) (l net.Listener, lock *os.File, ok bool) {
	if l, lock, ok := g.byKey(unixKey(path)); ok {
		return l, lock, true
	}
	l, ok = g.find(func(a net.Addr) bool { return a.Network() == "unix" && a.String() == path })
	return l, nil, ok
}

func (g *given) byKey(key string) (l net.Listener, lock *os.File, ok bool) {
	i := slices.IndexFunc(g.inherited, func(s handover.Inherited) bool { return s.Key == key })
	if i < 0 {
		return nil, nil, false
	}
	s := g.inherited[i]
	g.inherited = slices.Delete(g.inherited, i, i+1)
	return s.Listener, s.Lock, true
}

func (g *given) find(is func(net.Addr) bool) (net.Listener, bool) {
	i := slices.IndexFunc(g.activated, func(l net.Listener) bool { return is(l.Addr()) })
	if i < 0 {
		return nil, false
	}
	l := g.activated[i]
	g.activated = slices.Delete(g.activated, i, i+1)
	return l, true
}

// rest ends what the configuration has no use for. What an earlier proxyd had
// is closed; a socket of systemd's is a unit that does not fit.
func (g *given) rest() error {
	for _, s := range g.inherited {
		_ = s.Listener.Close() // nobody is let in there any more
		if path, ok := strings.CutPrefix(s.Key, "unix "); ok && s.Lock != nil {
			_ = os.Remove(path) // the earlier one leaves it to us
			_ = (&socketLock{s.Lock}).Close()
		}
	}
	var names []string
	for _, l := range g.activated {
		names = append(names, l.Addr().String())
		_ = l.Close() // it is systemd's own still
	}
	if len(names) > 0 {
		return fmt.Errorf("systemd has passed a socket for %s, which proxy.listen_addresses, proxy.unix_socket_directories and proxy.port do not name: let the .socket unit and the configuration agree",
			strings.Join(names, " and for "))
	}
	return nil
}

// listen opens every address and Unix socket at which clients are taken, or
// none, but for those that are given.
func listen(p config.Proxy, g *given) (ls []*listening, err error) {
	defer func() {
		if err != nil {
			closeAll(ls)
			ls = nil
		}
	}()
	for _, a := range p.ListenAddresses {
		if a == "*" {
			a = ""
		}
		l, ok := g.tcp(a, p.Port)
		if !ok {
			if l, err = net.Listen("tcp", net.JoinHostPort(a, strconv.Itoa(p.Port))); err != nil {
				return ls, fmt.Errorf("listen for clients (proxy.listen_addresses, proxy.port): %w", err)
			}
		}
		ls = append(ls, &listening{Listener: l, key: tcpKey(a, p.Port)})
	}
	for _, dir := range p.UnixSocketDirectories {
		l, err := listenAt(p, dir, g)
		if err != nil {
			return ls, fmt.Errorf("listen for clients (proxy.unix_socket_directories, proxy.port): %w", err)
		}
		ls = append(ls, l)
	}
	return ls, g.rest()
}

func listenAt(p config.Proxy, dir string, g *given) (*listening, error) {
	path := filepath.Join(dir, unixName(p.Port))
	got, file, ok := g.unix(path)
	if !ok {
		return listenUnix(dir, p.Port, p.UnixSocketPermissions, p.UnixSocketGroup)
	}
	if file == nil { // systemd's, which keeps it beyond our end
		return &listening{got, unixKey(path), nil}, nil
	}
	lock := &socketLock{file}
	if err := lock.write(dir, p.Port); err != nil {
		return nil, err
	}
	if l, ok := got.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(true)
	}
	return &listening{got, unixKey(path), lock}, nil
}

// Close removes the socket, then the lock.
func (l *listening) Close() error {
	err := l.Listener.Close()
	if l.lock != nil {
		err = errors.Join(err, l.lock.Close())
	}
	return err
}

// keepPaths leaves the sockets' files to the next process.
func keepPaths(ls []*listening) {
	for _, l := range ls {
		if u, ok := l.Listener.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		if l.lock != nil {
			l.lock.leave()
		}
	}
}

// socketsOf is what the next process is given.
func socketsOf(ls []*listening) []handover.Socket {
	out := make([]handover.Socket, 0, len(ls))
	for _, l := range ls {
		s := handover.Socket{Key: l.key, Listener: l.Listener.(syscall.Conn)}
		if l.lock != nil {
			s.Lock = l.lock.file
		}
		out = append(out, s)
	}
	return out
}

func asListeners(ls []*listening) []net.Listener {
	out := make([]net.Listener, len(ls))
	for i, l := range ls {
		out[i] = l
	}
	return out
}

func closeAll(ls []*listening) {
	for _, l := range ls {
		_ = l.Close() // nobody was let in yet
	}
}
