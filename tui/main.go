// Command pgtandem is the console of a pgtandem cluster: interactive on a
// terminal, or --batch for one command or a file of them. It reaches the
// daemon through its control socket alone.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/proxyd/client"
	"github.com/pgtandem/pgtandem/tui/app"
	"github.com/pgtandem/pgtandem/tui/batch"
	"github.com/pgtandem/pgtandem/tui/present"
)

// version is stamped by the linker.
var version = "devel"

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := console{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	err := c.start(ctx, args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgtandem:", batch.Message(err))
	}
	return batch.ExitCode(err)
}

// console is the program with the files it speaks through.
type console struct {
	in       *os.File
	out, err *os.File
	lines    bool
	globals
}

func (c *console) start(ctx context.Context, args []string) error {
	before, words, isBatch := cutBatch(args)
	if isBatch {
		if err := c.take(&before); err != nil {
			return err
		}
		if len(before) > 0 {
			return usage("%q stands before --batch; everything but --socket, --config, --json and -f follows it", strings.Join(before, " "))
		}
		if err := c.take(&words); err != nil {
			return err
		}
		return c.batch(ctx, words)
	}
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var own *batch.Error
	if err != nil && !errors.As(err, &own) && strings.HasPrefix(err.Error(), "unknown ") {
		return usage("%w (see `pgtandem help`; commands to the daemon follow --batch)", err)
	}
	return err
}

func usage(format string, args ...any) error {
	return &batch.Error{Code: batch.ExitUsage, Err: fmt.Errorf(format, args...)}
}

// root is the tree of what is no batch command.
func (c *console) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "pgtandem [--socket PATH | --config PATH] [--batch COMMAND | --batch -f FILE]",
		Short: "the console of a pgtandem cluster",
		Long: "Without --batch it opens the interactive console, read-only until it is armed.\n" +
			"With --batch everything after it is one command to the daemon (`pgtandem --batch help`).",
		Example: "  pgtandem\n  pgtandem --batch status --json\n  pgtandem --batch switchover pgsql2 --confirm pgsql2\n" +
			"  pgtandem --batch -f maintenance.pgt\n  pgtandem lab up",
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return c.interactive(cmd.Context()) },
	}
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w (see `%s --help`)", err, cmd.CommandPath())
	})
	f := root.Flags()
	f.StringVar(&c.socket, "socket", "", "the control socket (default: the configuration's, else the only running lab's)")
	f.StringVar(&c.config, "config", "", "the configuration (default: $"+config.EnvPath+", else "+config.DefaultPath+" where it exists)")
	f.BoolVar(&c.json, "json", false, "with --batch: data as JSON")
	f.StringVarP(&c.file, "file", "f", "", "with --batch: run the commands of a file, - is standard input")
	f.BoolVar(&c.lines, "lines", false, "a console of lines instead of a drawn screen, for screen readers; also where TERM=dumb")
	f.Bool("batch", false, "everything after it is one command to the daemon")
	root.AddCommand(labCommands()...)
	root.AddCommand(
		&cobra.Command{Use: "version", Short: "print the version", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(c.out, "pgtandem", version)
			return err
		}},
		&cobra.Command{Use: "exit-codes", Short: "what the exit codes of --batch mean", Long: batch.ExitCodesHelp})
	return root
}

// env is what batch commands run with.
func (c *console) env() batch.Env {
	door := &door{resolve: c.resolve}
	return batch.Env{
		Look: door, Act: door,
		CheckConfig: func(path string) error { _, err := config.Load(path); return err },
		In:          c.in, Out: c.out, Err: c.err,
		Terminal: isTerminal(c.in) && isTerminal(c.err),
		JSON:     c.json, Now: time.Now, Glyphs: glyphs(os.Getenv),
	}
}

// batch runs one command, or those of a file.
func (c *console) batch(ctx context.Context, words []string) error {
	env := c.env()
	if c.file == "" {
		if len(words) == 1 && strings.ContainsAny(words[0], " \t") {
			split, err := batch.Words(words[0])
			if err != nil {
				return usage("%w", err)
			}
			words = split
		}
		return batch.Run(ctx, env, words)
	}
	if len(words) > 0 {
		return usage("with -f the commands stand in the file; %q is too much", strings.Join(words, " "))
	}
	if c.file == "-" {
		env.Terminal = false // standard input is the script
		return batch.File(ctx, env, "-", c.in)
	}
	f, err := os.Open(c.file)
	if err != nil {
		return usage("%w", err)
	}
	defer f.Close()
	return batch.File(ctx, env, c.file, f)
}

// interactive opens the console, or where there is no terminal says how the
// cluster is and how to ask for more.
func (c *console) interactive(ctx context.Context) error {
	if c.json || c.file != "" {
		return usage("--json and -f are for --batch, e.g. `pgtandem --batch status --json`")
	}
	atTerminal := isTerminal(c.in) && isTerminal(c.out)
	if c.lines || (atTerminal && os.Getenv("TERM") == "dumb") {
		return c.linear(ctx)
	}
	socket, err := c.resolve()
	if err != nil {
		return err
	}
	cl := client.New(socket)
	defer cl.Close()
	if !atTerminal {
		return c.plain(ctx, cl)
	}
	opt := app.Options{Daemon: cl, Theme: app.Terminal(c.out, ornaments(c.in, c.out, os.Getenv)), Now: time.Now}
	if c.socket != "" {
		opt.Socket = socket
	}
	return app.Run(ctx, opt, c.in, c.out)
}

func (c *console) plain(ctx context.Context, cl *client.Client) error {
	s, err := cl.State(ctx)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(c.out, present.Text(present.Status(s, glyphs(os.Getenv)))); err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	fmt.Fprintln(c.err, "\nThis is no terminal, so here is only the status. In a terminal `pgtandem` opens the console;")
	fmt.Fprintln(c.err, "scripts use `pgtandem --batch COMMAND` (see `pgtandem --batch help`).")
	return nil
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// glyphs follows the locale: LC_ALL before LC_CTYPE before LANG, as in POSIX.
func glyphs(getenv func(string) string) present.Glyphs {
	for _, k := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		v := strings.ToLower(getenv(k))
		if v == "" {
			continue
		}
		// Where the width that we count with is two, as RUNEWIDTH_EASTASIAN
		// asks, frames do not fit either.
		if g := present.Unicode(); (strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")) && present.P(g.H).Width() == 1 {
			return g
		}
		return present.ASCII()
	}
	return present.ASCII()
}
