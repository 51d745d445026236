package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/client"
	"github.com/pgtandem/pgtandem/tui/batch"
)

// globals are the flags that may stand before --batch and after it.
type globals struct {
	socket, config, file string
	json                 bool
}

// cutBatch divides the arguments at --batch, unless a command of its own, such
// as lab, stands before it.
func cutBatch(args []string) (before, after []string, found bool) {
	for i, a := range args {
		switch {
		case a == "--batch":
			return args[:i:i], args[i+1:], true
		case a == "--" || a == "lab" || a == "help":
			return nil, nil, false
		}
	}
	return nil, nil, false
}

// take moves the global flags out of args.
func (g *globals) take(args *[]string) error {
	var rest []string
	in := *args
	for i := 0; i < len(in); i++ {
		if in[i] == "--" {
			rest = append(rest, in[i:]...)
			break
		}
		if in[i] == "--json" {
			g.json = true
			continue
		}
		name, value, joined := strings.Cut(in[i], "=")
		to := map[string]*string{"--socket": &g.socket, "--config": &g.config, "-f": &g.file, "--file": &g.file}[name]
		if to == nil {
			rest = append(rest, in[i])
			continue
		}
		if !joined {
			if i++; i == len(in) {
				return usage("%s needs a value", name)
			}
			value = in[i]
		}
		*to = value
	}
	*args = rest
	return nil
}

// resolve finds the control socket: the flag's, else the configuration's, else
// the only running lab's.
func (g *globals) resolve() (string, error) {
	if g.socket != "" {
		return g.socket, nil
	}
	path, asked := g.config, g.config != ""
	if !asked {
		path, asked = config.FindConfig(), os.Getenv(config.EnvPath) != ""
	}
	c, err := config.Load(path)
	switch {
	case err == nil:
		return c.Control.Socket, nil
	case errors.Is(err, fs.ErrNotExist) && !asked:
	case errors.Is(err, fs.ErrPermission) && !asked:
		// The file holds secrets, and who may use the socket need not read it.
		return config.Default().Control.Socket, nil
	default:
		return "", usage("%w", err)
	}
	socket, err := labSocket()
	if err != nil {
		return "", &batch.Error{Code: batch.ExitUnreachable, Err: fmt.Errorf("which daemon? there is no %s and no single running lab: %w (name a socket with --socket, or start a lab with `pgtandem lab up`)", path, err)}
	}
	return socket, nil
}

// door is the client of the daemon, whose socket is looked for at the first
// question, so that help and usage errors need none.
type door struct {
	resolve func() (string, error)
	c       *client.Client
}

func (d *door) open() (*client.Client, error) {
	if d.c != nil {
		return d.c, nil
	}
	socket, err := d.resolve()
	if err != nil {
		return nil, err
	}
	d.c = client.New(socket)
	return d.c, nil
}

func through[T any](d *door, f func(*client.Client) (T, error)) (T, error) {
	c, err := d.open()
	if err != nil {
		var none T
		return none, err
	}
	return f(c)
}

func (d *door) State(ctx context.Context) (api.State, error) {
	return through(d, func(c *client.Client) (api.State, error) { return c.State(ctx) })
}

func (d *door) Events(ctx context.Context, since uint64, limit int) ([]api.Event, error) {
	return through(d, func(c *client.Client) ([]api.Event, error) { return c.Events(ctx, since, limit) })
}

func (d *door) Watch(ctx context.Context, since uint64, fn func(api.Message) error) error {
	_, err := through(d, func(c *client.Client) (struct{}, error) { return struct{}{}, c.Watch(ctx, since, fn) })
	return err
}

func (d *door) Plan(ctx context.Context, r api.PlanRequest) (api.Plan, error) {
	return through(d, func(c *client.Client) (api.Plan, error) { return c.Plan(ctx, r) })
}

func (d *door) Operation(ctx context.Context, id string, wait time.Duration) (api.Operation, error) {
	return through(d, func(c *client.Client) (api.Operation, error) { return c.Operation(ctx, id, wait) })
}

func (d *door) Operations(ctx context.Context) ([]api.Operation, error) {
	return through(d, func(c *client.Client) ([]api.Operation, error) { return c.Operations(ctx) })
}

func (d *door) Drills(ctx context.Context) ([]api.DrillInfo, error) {
	return through(d, func(c *client.Client) ([]api.DrillInfo, error) { return c.Drills(ctx) })
}

func (d *door) DrillReports(ctx context.Context) ([]api.DrillReport, error) {
	return through(d, func(c *client.Client) ([]api.DrillReport, error) { return c.DrillReports(ctx) })
}

func (d *door) SyncFiles(ctx context.Context) (api.SyncFiles, error) {
	return through(d, func(c *client.Client) (api.SyncFiles, error) { return c.SyncFiles(ctx) })
}

func (d *door) Config(ctx context.Context) (api.Config, error) {
	return through(d, func(c *client.Client) (api.Config, error) { return c.Config(ctx) })
}

func (d *door) Pools(ctx context.Context) ([]api.Pool, error) {
	return through(d, func(c *client.Client) ([]api.Pool, error) { return c.Pools(ctx) })
}

func (d *door) Clients(ctx context.Context) ([]api.Client, error) {
	return through(d, func(c *client.Client) ([]api.Client, error) { return c.Clients(ctx) })
}

func (d *door) Run(ctx context.Context, planID, confirm string) (api.Operation, error) {
	return through(d, func(c *client.Client) (api.Operation, error) { return c.Run(ctx, planID, confirm) })
}

func (d *door) StartDrill(ctx context.Context, r api.DrillRequest) (api.Operation, error) {
	return through(d, func(c *client.Client) (api.Operation, error) { return c.StartDrill(ctx, r) })
}

func (d *door) Reload(ctx context.Context) (api.ReloadResult, error) {
	return through(d, func(c *client.Client) (api.ReloadResult, error) { return c.Reload(ctx) })
}

func (d *door) Maintenance(ctx context.Context, r api.MaintenanceRequest) (api.State, error) {
	return through(d, func(c *client.Client) (api.State, error) { return c.Maintenance(ctx, r) })
}
