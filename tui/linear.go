package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pgtandem/pgtandem/tui/batch"
	"github.com/pgtandem/pgtandem/tui/present"
)

// linear is the console for whom a drawn screen is of no use: a screen reader,
// an editor's terminal, TERM=dumb. It prints the status and then runs one
// --batch command after another, asking for names as they do. Like the drawn
// console it ends only when it is told to.
func (c *console) linear(ctx context.Context) error {
	env := c.env()
	env.Glyphs = present.ASCII() // ornaments are read out
	c.linearCommand(ctx, env, []string{"status"})
	fmt.Fprintln(c.err, "\nCommands are those of --batch, e.g. nodes, events, plan promote NODE, promote NODE; help lists them, quit leaves.")
	for {
		_, _ = io.WriteString(c.err, "pgtandem> ")
		line, err := readLine(ctx, c.in)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		words, err := batch.Words(line)
		switch {
		case err != nil:
			fmt.Fprintln(c.err, "pgtandem:", err)
		case len(words) == 0:
		case words[0] == "quit" || words[0] == "exit":
			return nil
		default:
			c.linearCommand(ctx, env, words)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (c *console) linearCommand(ctx context.Context, env batch.Env, words []string) {
	if err := batch.Run(ctx, env, words); err != nil {
		fmt.Fprintf(c.err, "pgtandem: %s (exit code %d)\n", batch.Message(err), batch.ExitCode(err))
	}
}

// readLine reads one line and nothing of the next, which a command may ask
// for. A read from a terminal cannot be broken off: the one that is left
// behind when the context ends, ends with the program.
func readLine(ctx context.Context, f *os.File) (string, error) {
	type answer struct {
		line string
		err  error
	}
	c := make(chan answer, 1)
	go func() {
		var line []byte
		for b := make([]byte, 1); ; {
			n, err := f.Read(b)
			switch {
			case n == 1 && b[0] == '\n':
				c <- answer{string(line), nil}
				return
			case n == 1:
				line = append(line, b[0])
			case err == io.EOF && len(line) > 0:
				c <- answer{string(line), nil}
				return
			case err != nil:
				c <- answer{"", err}
				return
			}
		}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case a := <-c:
		return a.line, a.err
	}
}
