package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// ErrUnreachable is wrapped by every error that means: no daemon answers on
// the socket, or it has stopped answering. Nothing was changed.
var ErrUnreachable = errors.New("proxyd is unreachable")

var (
	errNoAnswer = errors.New("no answer in time")
	errSilent   = errors.New("the event stream fell silent")
)

// failed types an error of the transport by what the caller may do about it.
// Refused before anything was sent is unreachable; lost after a change was
// sent is unknown, and never repeated here.
func (c *Client) failed(ctx context.Context, err error, what string) error {
	if dial := dialError(err); dial != nil {
		return c.undialled(ctx, dial)
	}
	if what != "" {
		return &api.Error{
			Code:    api.CodeUnknown,
			Message: fmt.Sprintf("the daemon on %s was asked for %s and gave no answer: %v", c.socket, what, reason(ctx, err)),
			Remedy:  "look at the state and the operations before asking again",
		}
	}
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), errNoAnswer) && !errors.Is(context.Cause(ctx), errSilent) {
		return ctx.Err()
	}
	return fmt.Errorf("%w: the daemon on %s stopped answering: %w", ErrUnreachable, c.socket, reason(ctx, err))
}

// undialled explains why the socket could not be opened.
func (c *Client) undialled(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return &api.Error{
			Code:    api.CodePermission,
			Message: fmt.Sprintf("not allowed to open the control socket %s", c.socket),
			Remedy:  "become a member of the group that owns the socket's directory (control.viewer_group or control.operator_group), or use sudo",
		}
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no socket %s (start it with `systemctl start proxyd` or `pgtandem lab up`, or name another with --socket)", ErrUnreachable, c.socket)
	case errors.Is(err, syscall.ECONNREFUSED) && !isSocket(c.socket):
		return fmt.Errorf("%w: %s is %s", ErrUnreachable, c.socket, notASocket(c.socket))
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: nobody listens on %s, its daemon has died (see `journalctl -u proxyd`, then start it again)", ErrUnreachable, c.socket)
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errNoAnswer):
		return ctx.Err()
	}
	return fmt.Errorf("%w: open the control socket %s: %w", ErrUnreachable, c.socket, err)
}

func dialError(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return op
	}
	return nil
}

// reason prefers why a context ended over the fact that it has.
func reason(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// usualName is the control socket's by default, and in a lab.
const usualName = "proxyd.sock"

func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err != nil || info.Mode()&fs.ModeSocket != 0
}

// notASocket says what a path is instead, and which socket may be meant.
func notASocket(path string) string {
	entries, err := os.ReadDir(path)
	if err != nil {
		return "a file and no socket: name the control socket with --socket (control.socket in proxyd's configuration)"
	}
	found := ""
	for _, e := range entries {
		if e.Type()&fs.ModeSocket != 0 && (found == "" || e.Name() == usualName) {
			found = e.Name()
		}
	}
	if found != "" {
		return fmt.Sprintf("a directory: name the socket in it, --socket %s", filepath.Join(path, found))
	}
	return "a directory without a socket in it: name the control socket itself with --socket (control.socket in proxyd's configuration)"
}
