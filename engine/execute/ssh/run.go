package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

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
	s, err := c.session(ctx)
	if err != nil {
		return execute.Result{}, err
	}
	return c.run(ctx, s, cmd)
}

// session opens a session. A kept connection that turns out to be dead is
// dialled again once: nothing has been sent on it yet.
func (c *Client) session(ctx context.Context) (*ssh.Session, error) {
	for {
		open, fresh, err := c.connect(ctx)
		if err != nil {
			return nil, err
		}
		s, err := c.openSession(ctx, open)
		if err == nil {
			return s, nil
		}
		var refused *ssh.OpenChannelError
		if errors.As(err, &refused) {
			return nil, fmt.Errorf("ssh %s: %w: it opens no further session: %w", c.cfg.Addr, execute.ErrUnreachable, err)
		}
		if ctx.Err() == nil || errors.Is(err, errSilent) {
			c.drop(open)
		}
		if fresh || ctx.Err() != nil {
			return nil, fmt.Errorf("ssh %s: %w: open a session: %w", c.cfg.Addr, execute.ErrUnreachable, err)
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

// run starts the command on an open session and gathers what it leaves.
func (c *Client) run(ctx context.Context, s *ssh.Session, cmd execute.Command) (execute.Result, error) {
	defer func() { _ = s.Close() }()
	unwatch := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer unwatch()
	var stdout, stderr bytes.Buffer
	lines := &lineSplitter{emit: cmd.Lines}
	s.Stdout = &capture{name: "stdout", buf: &stdout, lines: lines.stream()}
	s.Stderr = &capture{name: "stderr", buf: &stderr, lines: lines.stream()}
	stdin, err := feed(s, cmd.Stdin)
	if err != nil {
		return execute.Result{}, fmt.Errorf("ssh %s: %w: %w", c.cfg.Addr, execute.ErrUnreachable, err)
	}
	if err := s.Start(shellescape.QuoteCommand(cmd.Argv)); err != nil {
		return execute.Result{}, c.lost(ctx, cmd.Argv[0], err)
	}
	stdin()
	err = s.Wait()
	lines.flush()
	res := execute.Result{Stdout: stdout.Bytes(), Stderr: stderr.Bytes()}
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return res, nil
	case errors.As(err, &exit):
		res.Exit = exit.ExitStatus()
		return res, nil
	}
	return res, c.lost(ctx, cmd.Argv[0], err)
}

// lost types the end of a command whose exit status never came. Only the
// program's name is told: the words after it may be long or private.
func (c *Client) lost(ctx context.Context, program string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("ssh %s: run %s: %w: %w", c.cfg.Addr, program, execute.ErrUnknown, ctx.Err())
	}
	return fmt.Errorf("ssh %s: run %s: %w: %w", c.cfg.Addr, program, execute.ErrUnknown, err)
}

// feed connects the command's input. The copying ends with the input or with
// the session; a command that stops reading early is no fault of ours.
func feed(s *ssh.Session, from io.Reader) (start func(), err error) {
	if from == nil {
		return func() {}, nil
	}
	to, err := s.StdinPipe()
	if err != nil {
		return nil, err
	}
	return func() {
		go func() {
			_, _ = io.Copy(to, from)
			_ = to.Close()
		}()
	}, nil
}
