package lab

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// whose tells which side a connection to the relay comes from. Between
// namespaces its address says so. On the loopback all addresses are alike, so
// the process is looked for that holds its other end.
func (l *Lab) whose(c net.Conn) string {
	from, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return DaemonSide
	}
	if l.state.Network.spaced() {
		for _, n := range l.state.Nodes {
			if from.IP.String() == n.Listen {
				return n.Name
			}
		}
		return DaemonSide
	}
	inode := inodeOf(from)
	if inode == "" {
		return DaemonSide // it is closed already
	}
	for _, n := range l.state.Nodes {
		if l.holds(n, "socket:["+inode+"]") {
			return n.Name
		}
	}
	return DaemonSide
}

// inodeOf finds a local socket by its address, in the form of proc(5): the
// address as the kernel has it in memory, and the port, in hexadecimal.
func inodeOf(a *net.TCPAddr) string {
	b, err := os.ReadFile("/proc/net/tcp")
	ip := a.IP.To4()
	if err != nil || ip == nil {
		return ""
	}
	want := fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(ip), a.Port)
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 9 && f[1] == want {
			return f[9]
		}
	}
	return ""
}

// holds says whether a process on a node's host has a socket open: a server,
// which works in the node's data directory, or what proxyd runs there over
// ssh, such as pg_rewind, which names a file of the node's.
func (l *Lab) holds(n nodeState, socket string) bool {
	home := l.path(n.Name) + "/"
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return false // the pattern is a constant
	}
	for _, d := range dirs {
		cwd, err := os.Readlink(d + "/cwd")
		if err != nil {
			continue
		}
		if !strings.HasPrefix(cwd+"/", home) {
			cmdline, err := os.ReadFile(d + "/cmdline")
			if err != nil || !strings.Contains(string(cmdline), home) || strings.Contains(string(cmdline), l.Config()) {
				continue
			}
		}
		fds, err := filepath.Glob(d + "/fd/*")
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && to == socket {
				return true
			}
		}
	}
	return false
}
