package batch

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/present"
)

// action is an action that has a plan.
type action struct {
	name, use, short string
	args             cobra.PositionalArgs
	fill             func(q *api.PlanRequest, args []string) error
	force            bool // it has --force
}

var actions = []action{
	{name: "promote", use: "promote NODE", short: "make a standby the primary, whatever the old one does", args: oneArg("a node's name"), force: true,
		fill: func(q *api.PlanRequest, a []string) error { q.Node = a[0]; return nil }},
	{name: "switchover", use: "switchover NODE", short: "hand over to a standby without an error to any client", args: oneArg("a node's name"),
		fill: func(q *api.PlanRequest, a []string) error { q.Node = a[0]; return nil }},
	{name: "set-mode", use: "set-mode sync|async", short: "let commits wait for a standby, or not", args: oneArg("sync or async"),
		fill: func(q *api.PlanRequest, a []string) error {
			if a[0] != "sync" && a[0] != "async" {
				return fmt.Errorf("there is no mode %q: it is sync or async", a[0])
			}
			q.Mode = a[0]
			return nil
		}},
	{name: "rejoin", use: "rejoin NODE", short: "let a node that fell out follow the primary again", args: oneArg("a node's name"),
		fill: func(q *api.PlanRequest, a []string) error { q.Node = a[0]; return nil }},
	{name: "provision", use: "provision", short: "set up replication on hosts that have PostgreSQL and ssh", args: cobra.NoArgs,
		fill: func(*api.PlanRequest, []string) error { return nil }},
}

func oneArg(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%s needs %s", c.Name(), what)
		}
		return nil
	}
}

// command builds the action's command; more adds flags of its own.
func (a action) command(env *Env, run func(ctx context.Context, q api.PlanRequest) error, more func(*cobra.Command)) *cobra.Command {
	q := api.PlanRequest{Action: a.name}
	c := &cobra.Command{Use: a.use, Short: a.short, Args: a.args, RunE: func(c *cobra.Command, args []string) error {
		if err := a.fill(&q, args); err != nil {
			return err
		}
		return ran(run(c.Context(), q))
	}}
	c.Flags().StringVar(&q.Reason, "reason", "", "why, for the journal and the event log")
	if a.force {
		c.Flags().BoolVar(&q.Force, "force", false, "promote although acknowledged commits would be lost")
	}
	if more != nil {
		more(c)
	}
	return c
}

// acting are the commands that change something.
func acting(env *Env) []*cobra.Command {
	var out []*cobra.Command
	for _, a := range actions {
		var s sure
		out = append(out, a.command(env, func(ctx context.Context, q api.PlanRequest) error {
			if s.dryRun {
				return showPlan(ctx, env, env.Look, q)
			}
			return env.act(ctx, q, s)
		}, s.flags))
	}
	return append(out, drillCommand(env), reloadCommand(env), maintenanceCommand(env))
}

// act asks for the plan, shows it, has it confirmed, runs it and waits.
func (e *Env) act(ctx context.Context, q api.PlanRequest, s sure) error {
	p, err := e.Look.Plan(ctx, q)
	if err != nil {
		return err
	}
	e.say(present.Plan(p, e.Glyphs)...)
	if len(p.Steps) == 0 {
		e.sayf("nothing is left to do")
		return e.data(api.Operation{ID: p.ID, Plan: p, State: api.OpDone, Started: p.Created, Ended: &p.Created}, func() []present.Line {
			return []present.Line{present.P(q.Action + ": nothing is left to do")}
		})
	}
	if err := s.confirm(ctx, e, p.Confirm, "to "+strings.TrimSpace(q.Action+" "+q.Node+q.Mode)); err != nil {
		return err
	}
	op, err := e.Act.Run(ctx, p.ID, p.Confirm)
	if err != nil {
		return err
	}
	op, err = e.await(ctx, op, s.timeout)
	if err != nil {
		return err
	}
	if err := e.data(op, func() []present.Line { return []present.Line{present.OperationHead(op, e.Now(), e.Glyphs)} }); err != nil {
		return err
	}
	return outcome(op)
}

// outcome is an ended operation as an error, nil when it is done.
func outcome(op api.Operation) error {
	switch op.State {
	case api.OpDone:
		return nil
	case api.OpUnknown:
		return fail(ExitUnknown, "operation %s: the outcome is unknown: %s (look with `operation %s`; do not repeat it)", op.ID, op.Error, op.ID)
	case api.OpStopped:
		return fail(ExitPrecondition, "operation %s was stopped: %s", op.ID, op.Error)
	}
	for _, s := range op.Plan.Steps {
		if s.State == "failed" && !s.Optional && s.DeadlineMS > 0 && s.TookMS >= float64(s.DeadlineMS) {
			return fail(ExitTimeout, "operation %s: step %q was not done in its time: %s", op.ID, s.Title, present.Or(s.Detail, op.Error))
		}
	}
	return fail(ExitInternal, "operation %s failed: %s", op.ID, present.Or(op.Error, "no reason was given"))
}

func drillCommand(env *Env) *cobra.Command {
	var s sure
	var list, reports bool
	var clients int
	c := &cobra.Command{Use: "drill NAME | --list | --reports", Short: "rehearse a failure, measure what clients saw, put the cluster back",
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case (list || reports) && len(args) > 0:
				return errors.New("--list and --reports take no name")
			case list && reports:
				return errors.New("either --list or --reports")
			case !list && !reports && len(args) != 1:
				return errors.New("drill needs a name; `drill --list` has them")
			case clients < 0:
				return errors.New("--clients cannot be negative")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case list:
				ds, err := env.Look.Drills(c.Context())
				if err != nil {
					return ran(err)
				}
				return ran(env.data(ds, func() []present.Line { return present.DrillsTable(ds, "", env.Glyphs).Lines(0, env.Glyphs) }))
			case reports:
				rs, err := env.Look.DrillReports(c.Context())
				if err != nil {
					return ran(err)
				}
				return ran(env.data(rs, func() []present.Line { return present.ReportsTable(rs, "", env.Glyphs).Lines(0, env.Glyphs) }))
			}
			return ran(env.drill(c.Context(), api.DrillRequest{Name: args[0], Clients: clients}, s))
		}}
	c.Flags().BoolVar(&list, "list", false, "list the drills")
	c.Flags().BoolVar(&reports, "reports", false, "list the reports that the daemon keeps")
	c.Flags().IntVar(&clients, "clients", 0, "how many clients write meanwhile; 0 is the default")
	s.flags(c)
	return c
}

func (e *Env) drill(ctx context.Context, q api.DrillRequest, s sure) error {
	d, err := findDrill(ctx, e.Look, q.Name)
	if err != nil {
		return err
	}
	if s.dryRun {
		return e.data(d, func() []present.Line { return drillPlan(d, e.Glyphs) })
	}
	if !d.Allowed {
		return fail(ExitPrecondition, "drill %s may not run here: %s", d.Name, d.WhyNot)
	}
	e.say(drillPlan(d, e.Glyphs)...)
	if err := s.confirm(ctx, e, d.Confirm, "to rehearse "+d.Name+" on it"); err != nil {
		return err
	}
	q.Confirm = d.Confirm
	op, err := e.Act.StartDrill(ctx, q)
	if err != nil {
		return err
	}
	op, err = e.await(ctx, op, s.timeout)
	if err != nil {
		return err
	}
	return e.verdict(op)
}

// verdict prints a drill's report and gives its verdict as an error. A drill
// that could not put the cluster back has a report and has failed.
func (e *Env) verdict(op api.Operation) error {
	r := op.Drill
	if r == nil {
		if err := outcome(op); err != nil {
			return err
		}
		return fail(ExitInternal, "drill %s has ended without a report", op.ID)
	}
	if err := e.data(*r, func() []present.Line { return present.Report(*r, 100, e.Glyphs) }); err != nil {
		return err
	}
	if r.Verdict != "pass" {
		return fail(ExitVerdict, "the verdict on %s is %s: %s", r.Name, r.Verdict, strings.Join(r.Why, "; "))
	}
	return outcome(op)
}

func drillPlan(d api.DrillInfo, g present.Glyphs) []present.Line {
	out := []present.Line{
		present.L(present.S(present.Strong, "DRILL "), present.S(present.Accent, present.Clean(d.Name)), present.S(present.Plain, "  "+present.Clean(d.Title))),
		present.L(present.S(present.Muted, "fault    "), present.S(present.Plain, present.Clean(d.Fault))),
		present.L(present.S(present.Muted, "expected "), present.S(present.Plain, present.Clean(d.Expects))),
	}
	if !d.Allowed {
		out = append(out, present.L(present.S(present.Warn, g.Warn+" may not run here: "+present.Clean(d.WhyNot))))
	}
	return out
}

func findDrill(ctx context.Context, l Looker, name string) (api.DrillInfo, error) {
	ds, err := l.Drills(ctx)
	if err != nil {
		return api.DrillInfo{}, err
	}
	var names []string
	for _, d := range ds {
		if d.Name == name {
			return d, nil
		}
		names = append(names, d.Name)
	}
	return api.DrillInfo{}, fail(ExitUsage, "there is no drill %q; there are %s", name, present.Or(strings.Join(names, ", "), "none"))
}

func reloadCommand(env *Env) *cobra.Command {
	var dryRun bool
	c := &cobra.Command{Use: "reload", Short: "let the daemon read its configuration again", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		if dryRun {
			return ran(env.checkConfig(c.Context()))
		}
		r, err := env.Act.Reload(c.Context())
		if err != nil {
			return ran(err)
		}
		return ran(env.data(r, func() []present.Line { return present.Reload(r, env.Glyphs) }))
	}}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only check the configuration file for faults")
	return c
}

// checked is what a dry run of a reload found.
type checked struct {
	Path  string `json:"path"`
	Valid bool   `json:"valid"`
}

func (e *Env) checkConfig(ctx context.Context) error {
	cfg, err := e.Look.Config(ctx)
	if err != nil {
		return err
	}
	if err := e.CheckConfig(cfg.Path); err != nil {
		return fail(ExitPrecondition, "%w", err)
	}
	return e.data(checked{cfg.Path, true}, func() []present.Line {
		return []present.Line{present.P(cfg.Path + " is valid; a reload would read it")}
	})
}

func maintenanceCommand(env *Env) *cobra.Command {
	var dryRun bool
	var reason string
	c := &cobra.Command{Use: "maintenance on|off", Short: "turn the engine's hands off, or on again", Args: oneArg("on or off"),
		RunE: func(c *cobra.Command, args []string) error {
			if args[0] != "on" && args[0] != "off" {
				return fmt.Errorf("maintenance %q: it is on or off", args[0])
			}
			on := args[0] == "on"
			ask := func() (api.State, error) {
				return env.Act.Maintenance(c.Context(), api.MaintenanceRequest{On: on, Reason: reason})
			}
			if dryRun {
				ask = func() (api.State, error) { return env.Look.State(c.Context()) }
			}
			s, err := ask()
			if err != nil {
				return ran(err)
			}
			return ran(env.data(s, func() []present.Line { return maintenanceLines(s, on, dryRun, env.Glyphs) }))
		}}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only show what is now")
	c.Flags().StringVar(&reason, "reason", "", "why, for the event log")
	return c
}

// maintenanceLines tell more than the word: what is not done from now on.
func maintenanceLines(s api.State, on, dryRun bool, g present.Glyphs) []present.Line {
	word := map[bool]string{true: "on: the engine keeps its hands off; nothing is promoted", false: "off: the engine acts"}
	if dryRun {
		return []present.Line{present.P("maintenance is " + word[s.Maintenance]), present.P("it would be " + word[on])}
	}
	out := []present.Line{present.P("maintenance is " + word[s.Maintenance])}
	if s.Maintenance {
		out = append(out, present.Verdict(s, g)...)
	}
	return out
}
