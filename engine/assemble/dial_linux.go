package assemble

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// unacknowledged bounds how long what was sent may stay without an
// acknowledgement (RFC 5482; tcp(7), TCP_USER_TIMEOUT).
func unacknowledged(_, _ string, c syscall.RawConn) error {
	var set error
	err := c.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds()))
	})
	if err != nil || set != nil {
		return fmt.Errorf("bound the wait for acknowledgements: %w", errors.Join(err, set))
	}
	return nil
}
