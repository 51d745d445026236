package assemble

import (
	"net"
	"time"
)

// deadAfter is how long a host may leave what we sent, or our keepalives,
// without an acknowledgement before its connections are given up. The kernel's
// own patience is two minutes for the one and a quarter of an hour for the
// other, in which an operation of ours would wait on a host that is gone.
const deadAfter = 15 * time.Second

// dialer makes connections that notice when the other host is gone.
func dialer() *net.Dialer {
	return &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: deadAfter / 3, Interval: deadAfter / 3, Count: 2},
		Control:         unacknowledged,
	}
}
