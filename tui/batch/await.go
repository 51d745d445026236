package batch

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/client"
	"github.com/pgtandem/pgtandem/tui/present"
)

// sure is how an acting command is told to go ahead.
type sure struct {
	dryRun  bool
	word    string // --confirm
	timeout time.Duration
}

func (s *sure) flags(c *cobra.Command) {
	c.Flags().BoolVar(&s.dryRun, "dry-run", false, "only show what would be done")
	c.Flags().StringVar(&s.word, "confirm", "", "the name that a person would have to type: the node's, the mode, the cluster's")
	c.Flags().DurationVar(&s.timeout, "timeout", 0, "wait for the end at most this long (0: as long as it takes); the operation goes on in the daemon")
}

// confirm compares what was confirmed with what must be. Without --confirm it
// asks, where there is somebody to ask.
func (s sure) confirm(ctx context.Context, e *Env, want, what string) error {
	switch {
	case want == "" && s.word == "", want != "" && s.word == want:
		return nil
	case s.word != "" && want == "":
		return nil // more than was asked for
	case s.word != "":
		return fail(ExitPrecondition, "--confirm %s does not match: it must be %s; nothing was changed", s.word, want)
	case !e.Terminal:
		return fail(ExitPrecondition, "a confirmation is missing and there is no terminal to ask at: pass --confirm %s %s; nothing was changed", Quote(want), what)
	}
	_, _ = io.WriteString(e.Err, "Type "+want+" "+what+": ")
	typed, err := readLine(ctx, e.In)
	if err != nil {
		return err
	}
	if typed != want {
		return fail(ExitPrecondition, "%q is not %s; nothing was changed", typed, want)
	}
	return nil
}

// readLine reads a line, or gives up when the context ends. A read from a
// terminal cannot be broken off; the one left behind ends with the program,
// which is about to end.
func readLine(ctx context.Context, r io.Reader) (string, error) {
	type answer struct {
		s   string
		err error
	}
	c := make(chan answer, 1)
	go func() {
		s, err := bufio.NewReader(r).ReadString('\n')
		c <- answer{s, err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case a := <-c:
		if a.err != nil && !errors.Is(a.err, io.EOF) {
			return "", fail(ExitInternal, "read the confirmation: %w", a.err)
		}
		return strings.TrimSpace(a.s), nil
	}
}

const (
	lookEvery = 200 * time.Millisecond // how soon an ended step is printed
	patience  = 30 * time.Second       // with a daemon that is restarting
	sayEvery  = time.Second            // how often a running step says how far it is
)

// await follows an operation to its end and prints its steps as they end. The
// daemon owns the operation: whatever ends the waiting leaves it running. A
// daemon that restarts goes on with it, so its absence is waited for.
func (e *Env) await(ctx context.Context, op api.Operation, timeout time.Duration) (api.Operation, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	id := op.ID
	said := progress{env: e, last: e.Now()}
	var gone time.Time
	for {
		said.tell(op)
		if op.State != api.OpRunning && op.State != "" {
			return op, nil
		}
		next, err := e.Look.Operation(ctx, id, lookEvery)
		switch {
		case err == nil:
			op, gone = next, time.Time{}
			continue
		case ctx.Err() != nil:
			return op, stillRunning(ctx.Err(), id, timeout)
		case !errors.Is(err, client.ErrUnreachable):
			return op, err
		}
		now := e.Now()
		if gone.IsZero() {
			gone = now
			e.sayf("the daemon stopped answering; waiting for it to come back: %s", present.Clean(err.Error()))
		}
		if now.Sub(gone) > patience {
			return op, fail(ExitUnknown, "operation %s: the outcome is unknown, the daemon has been away for %s (look with `operation %s` when it is back)", id, patience, id)
		}
		select {
		case <-ctx.Done():
			return op, stillRunning(ctx.Err(), id, timeout)
		case <-time.After(lookEvery):
		}
	}
}

func stillRunning(err error, id string, timeout time.Duration) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fail(ExitTimeout, "operation %s has not ended within %s and goes on in the daemon (see `operation %s --wait 1h`)", id, timeout, id)
	}
	return fail(ExitInterrupted, "interrupted; operation %s goes on in the daemon (see `operation %s --wait 1h`)", id, id)
}

// progress prints what is new about an operation.
type progress struct {
	env  *Env
	done int // steps printed
	last time.Time
	line string
}

func (p *progress) tell(op api.Operation) {
	steps := op.Plan.Steps
	for p.done < len(steps) && ended(steps[p.done].State) {
		p.env.say(present.StepLine(p.done, steps[p.done], p.env.Glyphs))
		p.done++
		p.last = p.env.Now()
	}
	now, line := p.env.Now(), present.Clean(op.Progress)
	// Without steps, as in a drill, the progress is all there is to tell.
	news := len(steps) == 0 && line != "" && line != p.line
	if op.State != api.OpRunning || (now.Sub(p.last) < sayEvery && !news) {
		return
	}
	if line == "" && p.done < len(steps) {
		line = present.Clean(steps[p.done].Title)
	}
	if line == p.line && now.Sub(p.last) < 10*sayEvery {
		return
	}
	p.last, p.line = now, line
	p.env.say(present.L(present.S(present.Accent, p.env.Glyphs.Running), present.S(present.Muted, " "+present.MS(present.Took(op, now))+"  "), present.S(present.Plain, line)))
}

func ended(state string) bool {
	switch state {
	case "done", "skipped", "failed", "unknown":
		return true
	}
	return false
}
