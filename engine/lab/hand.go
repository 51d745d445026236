package lab

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

// Run runs a program to its end as the account that everything in the lab runs
// as, on a node's host: what an operator there would do. It gives its output;
// an error holds it too.
func (l *Lab) Run(ctx context.Context, node, name string, args ...string) ([]byte, error) {
	n, err := l.node(node)
	if err != nil {
		return nil, err
	}
	return output(l.asOn(ctx, n, name, args...))
}

func (l *Lab) node(name string) (nodeState, error) {
	for _, n := range l.state.Nodes {
		if n.Name == name {
			return n, nil
		}
	}
	return nodeState{}, fmt.Errorf("there is no node %q in the lab", name)
}

// SSHDPID is the pid of a node's sshd; 0 when it does not run.
func (l *Lab) SSHDPID(node string) int {
	n, err := l.node(node)
	if err != nil {
		return 0
	}
	p, _ := l.sshdPID(n)
	return p
}

// KillDaemon kills proxyd as a crash would, and returns when it is gone. One
// that does not run is left at that.
func (l *Lab) KillDaemon(ctx context.Context) error {
	n, up := l.proxydPID()
	if !up {
		return nil
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill proxyd: %w", err)
	}
	return gone(ctx, n)
}
