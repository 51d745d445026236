//go:build !portable

package relay

import "syscall"

// Sockets have no calls of their own there, and these ignore what they are given
// too much.
const (
	sysReceive = syscall.SYS_READ
	sysSend    = syscall.SYS_WRITE
)
