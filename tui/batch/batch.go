package batch

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/present"
)

// Looker is the daemon as it can be looked at. Asking for a plan changes
// nothing.
type Looker interface {
	State(ctx context.Context) (api.State, error)
	Events(ctx context.Context, since uint64, limit int) ([]api.Event, error)
	Watch(ctx context.Context, since uint64, fn func(api.Message) error) error
	Plan(ctx context.Context, r api.PlanRequest) (api.Plan, error)
	Operation(ctx context.Context, id string, wait time.Duration) (api.Operation, error)
	Operations(ctx context.Context) ([]api.Operation, error)
	Drills(ctx context.Context) ([]api.DrillInfo, error)
	DrillReports(ctx context.Context) ([]api.DrillReport, error)
	SyncFiles(ctx context.Context) (api.SyncFiles, error)
	Config(ctx context.Context) (api.Config, error)
	Pools(ctx context.Context) ([]api.Pool, error)
	Clients(ctx context.Context) ([]api.Client, error)
}

// Actor is what changes something.
type Actor interface {
	Run(ctx context.Context, planID, confirm string) (api.Operation, error)
	StartDrill(ctx context.Context, r api.DrillRequest) (api.Operation, error)
	Reload(ctx context.Context) (api.ReloadResult, error)
	Maintenance(ctx context.Context, r api.MaintenanceRequest) (api.State, error)
}

// Env is what commands run with.
type Env struct {
	Look Looker
	Act  Actor
	// CheckConfig reads the daemon's configuration file and finds its faults.
	CheckConfig func(path string) error

	In       io.Reader
	Out, Err io.Writer
	Terminal bool // somebody sits at In and Err and can be asked
	JSON     bool
	Now      func() time.Time
	Glyphs   present.Glyphs
}

// errWrite wraps a failure to write data, e.g. a closed pipe.
var errWrite = errors.New("write the output")

// Run runs one command given as its words.
func Run(ctx context.Context, env Env, args []string) error {
	root := Command(&env)
	root.SetArgs(append([]string{}, args...)) // nil would mean the program's own
	err := root.ExecuteContext(ctx)
	var ran *ranError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ran):
		return ran.err
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	}
	return fail(ExitUsage, "%w (see `pgtandem --batch help`)", err)
}

// ranError marks an error of a command that ran, as against one that cobra
// found in its words.
type ranError struct{ err error }

func (e *ranError) Error() string { return e.err.Error() }
func (e *ranError) Unwrap() error { return e.err }

func ran(err error) error {
	if err == nil {
		return nil
	}
	return &ranError{err}
}

// File runs commands line by line, and stops at the first that fails. The
// error names the file and the line and keeps the exit code.
func File(ctx context.Context, env Env, name string, r io.Reader) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for n := 1; sc.Scan(); n++ {
		words, err := Words(sc.Text())
		if err != nil {
			return fail(ExitUsage, "%s:%d: %w", name, n, err)
		}
		if len(words) == 0 {
			continue
		}
		if words[0] == "pgtandem" || words[0] == "--batch" {
			return fail(ExitUsage, "%s:%d: write the command alone, without %q before it", name, n, words[0])
		}
		if err := Run(ctx, env, words); err != nil {
			return &Error{Code: ExitCode(err), Err: fmt.Errorf("%s:%d: %s: %w", name, n, strings.Join(words, " "), err)}
		}
	}
	if err := sc.Err(); err != nil {
		return fail(ExitUsage, "read %s: %w", name, err)
	}
	return nil
}

// Command is the tree of batch commands.
func Command(env *Env) *cobra.Command {
	root := &cobra.Command{
		Use:           "pgtandem",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "pgtandem --batch"},
		Short:         "one command to the daemon, for scripts",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("which command? e.g. `pgtandem --batch status`")
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	root.SetIn(env.In)
	root.PersistentFlags().BoolVar(&env.JSON, "json", env.JSON, "data as JSON; the schema only grows")
	root.AddCommand(looking(env)...)
	root.AddCommand(acting(env)...)
	root.AddCommand(&cobra.Command{Use: "exit-codes", Short: "explain the exit codes", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return ran(env.print(ExitCodesHelp)) }})
	return root
}

// data prints v as JSON, or its lines as text.
func (e *Env) data(v any, lines func() []present.Line) error {
	if !e.JSON {
		return e.print(present.Text(lines()))
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the output: %w", err)
	}
	return e.print(string(b) + "\n")
}

func (e *Env) print(s string) error {
	if _, err := io.WriteString(e.Out, s); err != nil {
		return fmt.Errorf("%w: %w", errWrite, err)
	}
	return nil
}

// say prints a message for the person; nobody may be reading, so a failure to
// write it is none.
func (e *Env) say(lines ...present.Line) {
	_, _ = io.WriteString(e.Err, present.Text(lines))
}

func (e *Env) sayf(format string, args ...any) { e.say(present.P(fmt.Sprintf(format, args...))) }
