package relay

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

var _ net.Conn = (*Conn)(nil)

// NetConn is the connection that was wrapped. It is of no use once the
// connection was started.
func (c *Conn) NetConn() net.Conn { return c.nc }

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// SetDeadline implements net.Conn. A started connection waits for nothing, and
// must not be given one.
func (c *Conn) SetDeadline(t time.Time) error { return c.nc.SetDeadline(t) }

// SetReadDeadline is as SetDeadline.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.nc.SetReadDeadline(t) }

// SetWriteDeadline is as SetDeadline.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.nc.SetWriteDeadline(t) }

// peekBefore is Peek for a connection that was not started.
func peekBefore(nc net.Conn) (some bool, err error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false, nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false, err
	}
	if e := raw.Control(func(fd uintptr) { some, err = peek(int(fd)) }); e != nil {
		return false, e
	}
	return some, err
}

// peek looks at a socket without taking anything from it.
func peek(fd int) (bool, error) {
	var b [1]byte
	n, _, err := syscall.Recvfrom(fd, b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	switch {
	case errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR):
		return false, nil
	case err != nil:
		return false, os.NewSyscallError("recvfrom", err)
	case n == 0:
		return false, io.EOF
	}
	return true, nil
}
