package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"al.essio.dev/pkg/shellescape"
	"golang.org/x/crypto/ssh"

	"github.com/pgtandem/pgtandem/engine/execute"
)

// Run executes a command and waits for its end. When ctx ends first, the
// session is closed and the error wraps both execute.ErrUnknown and ctx's: the
// command may go on over there.
func (c *Client) Run(ctx context.Context, cmd execute.Command) (execute.Result, error) {
	if len(cmd.Argv) == 0 {
		return execute.Result{}, fmt.Errorf("ssh %s: %w: no command", c.cfg.Addr, execute.ErrRefused)
	}
	open, s, err := c.session(ctx)
	if err != nil {
		return execute.Result{}, err
	}
	return c.run(ctx, open, s, cmd)
}

// session opens a session. A kept connection that turns out to be dead is
// dialled again once: nothing has been sent on it yet.
func (c *Client) session(ctx context.Context) (*conn, *ssh.Session, error) {
	for {
		open, fresh, err := c.connect(ctx)
		if err != nil {
			return nil, nil, err
		}
		s, err := c.openSession(ctx, open)
		if err == nil {
			return open, s, nil
		}
		var refused *ssh.OpenChannelError
		if errors.As(err, &refused) {
			return nil, nil, fmt.Errorf("ssh %s: %w: it opens no further session: %w", c.cfg.Addr, execute.ErrUnreachable, err)
		}
		if ctx.Err() == nil || errors.Is(err, errSilent) {
			c.drop(open)
		}
		if fresh || ctx.Err() != nil {
			return nil, nil, fmt.Errorf("ssh %s: %w: open a session: %w", c.cfg.Addr, execute.ErrUnreachable, err)
		}
	}
}

var errSilent = errors.New("no answer in time")

// openSession opens a session within the configured timeout. The library
// cannot be told to give up, so a late session is closed when it comes.
func (c *Client) openSession(ctx context.Context, open *conn) (*ssh.Session, error) {
	limited, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	type opened struct {
		s   *ssh.Session
		err error
	}
	got := make(chan opened)
	open.wg.Go(func() {
		s, err := open.NewSession()
		select {
		case got <- opened{s, err}:
		case <-limited.Done():
			if err == nil {
				_ = s.Close()
			}
		}
	})
	select {
	case o := <-got:
		return o.s, o.err
	case <-limited.Done():
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, errSilent
	}
}

// run starts the command on an open session and gathers what it leaves. The
// waiting is done aside, because closing a session on a machine that has gone
// silent ends nothing here until the connection itself ends.
func (c *Client) run(ctx context.Context, open *conn, s *ssh.Session, cmd execute.Command) (execute.Result, error) {
	out := newOutput(cmd.Lines)
	ended := make(chan error, 1)
	open.wg.Go(func() {
		ended <- converse(s, cmd, out)
		_ = s.Close()
	})
	var err error
	select {
	case err = <-ended:
	case <-out.overflow:
		err = out.refusal()
	case <-ctx.Done():
		err = ctx.Err()
	}
	_ = s.Close()
	res := out.seal()
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return res, nil
	case errors.As(err, &exit):
		res.Exit = exit.ExitStatus()
		return res, nil
	case errors.Is(err, execute.ErrRefused):
		return res, fmt.Errorf("ssh %s: run %s: %w", c.cfg.Addr, cmd.Argv[0], err)
	}
	// Only the program's name is told: the words after it may be private.
	return res, fmt.Errorf("ssh %s: run %s: %w: %w", c.cfg.Addr, cmd.Argv[0], execute.ErrUnknown, err)
}

// converse runs the command to its end. Copying its input ends with the input
// or with the session; a command that stops reading early is no fault.
func converse(s *ssh.Session, cmd execute.Command, out *output) error {
	s.Stdout, s.Stderr = out.writer("stdout"), out.writer("stderr")
	var stdin io.WriteCloser
	if cmd.Stdin != nil {
		var err error
		if stdin, err = s.StdinPipe(); err != nil {
			return err
		}
	}
	if err := s.Start(shellescape.QuoteCommand(cmd.Argv)); err != nil {
		return err
	}
	if stdin == nil {
		return s.Wait()
	}
	var copying sync.WaitGroup
	copying.Go(func() {
		_, _ = io.Copy(stdin, cmd.Stdin)
		_ = stdin.Close()
	})
	err := s.Wait()
	_ = s.Close()
	copying.Wait()
	return err
}
