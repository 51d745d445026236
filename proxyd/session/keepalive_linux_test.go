package session

import (
	"syscall"
	"testing"
	"time"
)

// TestKeepAlive: the kernel is told, of clients and of servers, what a reload
// has made of it by then.
func TestKeepAlive(t *testing.T) {
	p := startProxy(t, ModeSession, func(o *Options) {
		o.Limits.KeepAlive = KeepAlive{Idle: 7 * time.Second, Interval: 3 * time.Second, Count: 5}
	})
	first := p.raw(t)
	l := *p.limits()
	l.KeepAlive = KeepAlive{}
	p.Apply(l)
	second := p.raw(t)
	expect(t, "both serve", first.ask("SELECT 1")+second.ask("SELECT 1"), "T D:1 C:SELECT 1 Z:IT D:1 C:SELECT 1 Z:I")
	seen := sockets(p.port)
	if want := [4]int{1, 7, 3, 5}; seen[want] != 2 {
		t.Errorf("%v, two of them %v", seen, want)
	}
	off := 0
	for o, n := range seen {
		if o[0] == 0 {
			off += n
		}
	}
	if off != 2 {
		t.Errorf("%v, two of them off", seen)
	}
}

// sockets counts this process's connections that were accepted at a port or go
// to the server, by whether they are kept alive, and how.
func sockets(port int) map[[4]int]int {
	seen := make(map[[4]int]int)
	for fd := range 1024 {
		own, err := syscall.Getsockname(fd)
		if err != nil {
			continue
		}
		peer, err := syscall.Getpeername(fd)
		if err != nil {
			continue
		}
		o, ok1 := own.(*syscall.SockaddrInet4)
		r, ok2 := peer.(*syscall.SockaddrInet4)
		if !ok1 || !ok2 || o.Port != port && r.Port != pg.Port {
			continue
		}
		var out [4]int
		for i, opt := range [][2]int{{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE}, {syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE},
			{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL}, {syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT}} {
			out[i], _ = syscall.GetsockoptInt(fd, opt[0], opt[1]) //nolint:errcheck // 0 is wrong, too
		}
		seen[out]++
	}
	return seen
}
