//go:build linux && !386 && !portable

package relay

import "syscall"

// What a socket is read and written with: a little less is looked at on the way
// than for a file.
const (
	sysReceive = syscall.SYS_RECVFROM
	sysSend    = syscall.SYS_SENDTO
)
