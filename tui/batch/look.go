package batch

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/client"
	"github.com/pgtandem/pgtandem/tui/present"
)

// looking are the commands that change nothing.
func looking(env *Env) []*cobra.Command {
	return []*cobra.Command{
		show(env, "status", "the whole state, with the verdict", Looker.State, func(s api.State) []present.Line { return present.Status(s, env.Glyphs) }),
		show(env, "nodes", "the nodes alone", func(l Looker, ctx context.Context) ([]api.Node, error) {
			s, err := l.State(ctx)
			return slices.Clip(append([]api.Node{}, s.Nodes...)), err
		}, func(ns []api.Node) []present.Line {
			return present.NodesTable(stateOf(ns), 0, "", env.Glyphs).Lines(0, env.Glyphs)
		}),
		show(env, "pools", "the proxy's pools", Looker.Pools, func(ps []api.Pool) []present.Line { return present.PoolsTable(ps).Lines(0, env.Glyphs) }),
		show(env, "clients", "the proxy's clients", Looker.Clients, func(cs []api.Client) []present.Line { return present.ClientsTable(cs).Lines(0, env.Glyphs) }),
		show(env, "config", "the running configuration, without its secrets", Looker.Config, func(c api.Config) []present.Line {
			return append([]present.Line{present.P("# " + c.Path)}, present.Lines(c.Text)...)
		}),
		show(env, "sync-files", "the sync and async configuration of the primary, and which is in force", Looker.SyncFiles,
			func(f api.SyncFiles) []present.Line { return present.SyncFiles(f, env.Glyphs) }),
		show(env, "operations", "operations, newest first", Looker.Operations, func(ops []api.Operation) []present.Line {
			return present.OperationsTable(ops, env.Now(), "", env.Glyphs).Lines(0, env.Glyphs)
		}),
		show(env, "explain", "why: the rule in force and the way to it, what stands recorded, what would happen, the policies",
			func(l Looker, ctx context.Context) (explanation, error) {
				s, err := l.State(ctx)
				return explanation{s.At, s.Cluster, s.Term, s.Primary, s.Verdict, s.Rule, s.Facts, s.Promotion, s.Nodes, s.IfDies, s.Policies, s.Async, s.Damping, s.Maintenance, s.Halted, s}, err
			}, func(e explanation) []present.Line {
				return append(present.Notices(e.state, env.Glyphs), present.Explain(e.state, env.Glyphs)...)
			}),
		operationCommand(env), eventsCommand(env), planCommand(env),
	}
}

// explanation is what explain gives as JSON: the part of the state that tells
// why. Fields are added, never renamed or removed.
type explanation struct {
	At          time.Time     `json:"at"`
	Cluster     string        `json:"cluster"`
	Term        uint64        `json:"term"`
	Primary     string        `json:"primary"`
	Verdict     api.Verdict   `json:"verdict"`
	Rule        api.Rule      `json:"rule"`
	Facts       []api.Fact    `json:"facts"`
	Promotion   api.Promotion `json:"promotion"`
	Nodes       []api.Node    `json:"nodes"`
	IfDies      []api.Verdict `json:"if_dies"`
	Policies    []api.Policy  `json:"policies"`
	Async       *api.Async    `json:"async_by_hand,omitempty"`
	Damping     *api.Damping  `json:"damping,omitempty"`
	Maintenance bool          `json:"maintenance"`
	Halted      string        `json:"halted,omitempty"`

	state api.State
}

// stateOf is a state that holds the nodes, so that one table serves both.
func stateOf(ns []api.Node) api.State {
	s := api.State{Nodes: ns}
	for _, n := range ns {
		if n.Role == "primary" {
			s.Primary = n.Name
		}
	}
	return s
}

// show is a command that asks one question and prints the answer.
func show[T any](env *Env, use, short string, ask func(Looker, context.Context) (T, error), lines func(T) []present.Line) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		v, err := ask(env.Look, c.Context())
		if err != nil {
			return ran(err)
		}
		return ran(env.data(v, func() []present.Line { return lines(v) }))
	}}
}

func operationCommand(env *Env) *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{Use: "operation ID", Short: "one operation, with its steps", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
		op, err := env.Look.Operation(c.Context(), args[0], wait)
		if err != nil {
			return ran(err)
		}
		return ran(env.data(op, func() []present.Line { return present.Operation(op, env.Now(), env.Glyphs) }))
	}}
	c.Flags().DurationVar(&wait, "wait", 0, "wait for its end at most this long, e.g. 30s")
	return c
}

func planCommand(env *Env) *cobra.Command {
	c := &cobra.Command{Use: "plan", Short: "show what an action would do; nothing is changed", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("a plan of what? promote, switchover, set-mode, rejoin or provision")
		}}
	for _, a := range actions {
		c.AddCommand(a.command(env, func(ctx context.Context, q api.PlanRequest) error { return showPlan(ctx, env, env.Look, q) }, nil))
	}
	return c
}

// planner is all that a dry run has: it cannot change anything.
type planner interface {
	Plan(ctx context.Context, r api.PlanRequest) (api.Plan, error)
}

func showPlan(ctx context.Context, env *Env, p planner, q api.PlanRequest) error {
	plan, err := p.Plan(ctx, q)
	if err != nil {
		return err
	}
	return env.data(plan, func() []present.Line { return present.Plan(plan, env.Glyphs) })
}

// eventQuery is what events are asked for.
type eventQuery struct {
	present.Filter
	since  uint64
	limit  int
	follow bool
}

func eventsCommand(env *Env) *cobra.Command {
	var q eventQuery
	c := &cobra.Command{Use: "events", Short: "the event log; --follow goes on for ever", Args: cobra.NoArgs,
		Long: "Events, oldest first. With --json they are an array, with --json --follow one object on each line.",
		RunE: func(c *cobra.Command, _ []string) error {
			if q.Level != "" && !slices.Contains(present.Levels, q.Level) {
				return fmt.Errorf("--level %q: it is info, warn or error", q.Level)
			}
			if q.follow {
				return ran(follow(c.Context(), env, q))
			}
			return ran(listEvents(c.Context(), env, q))
		}}
	f := c.Flags()
	f.Uint64Var(&q.since, "since", 0, "only events after this sequence number")
	f.IntVar(&q.limit, "limit", 0, "at most so many (without --since: the newest)")
	f.StringVar(&q.Level, "level", "", "at least info, warn or error")
	f.StringVar(&q.Node, "node", "", "only those of a node")
	f.StringVar(&q.Filter.Text, "text", "", "only those that contain this, whatever its case")
	f.BoolVarP(&q.follow, "follow", "F", false, "go on as they happen")
	return c
}

func listEvents(ctx context.Context, env *Env, q eventQuery) error {
	chosen := []api.Event{}
	for since := q.since; ; {
		es, err := env.Look.Events(ctx, since, api.MaxEvents)
		if err != nil {
			return err
		}
		for _, e := range es {
			if q.Match(e) {
				chosen = append(chosen, e)
			}
		}
		if q.since == 0 || len(es) < api.MaxEvents || (q.limit > 0 && len(chosen) >= q.limit) {
			break
		}
		since = es[len(es)-1].Seq
	}
	limit := q.limit
	if limit == 0 && q.since == 0 {
		limit = api.DefaultEvents
	}
	if limit > 0 && len(chosen) > limit {
		if q.since > 0 {
			chosen = chosen[:limit]
		} else {
			chosen = chosen[len(chosen)-limit:]
		}
	}
	return env.data(chosen, func() []present.Line {
		var out []present.Line
		for _, e := range chosen {
			out = append(out, present.EventLine(e, time.Time{}, env.Glyphs))
		}
		return out
	})
}

// Retries of a follower whose daemon went away.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// tail is how many events a follower is shown first.
const tail = 10

// follow prints the newest events, then more as they happen. A daemon that
// goes away is waited for and resumed after the last event that was printed:
// a follower ends only when it is told to.
func follow(ctx context.Context, env *Env, q eventQuery) error {
	since, pause := q.since, firstRetry
	print := func(e api.Event) error {
		since = max(since, e.Seq)
		return env.event(e, q.Filter)
	}
	if since == 0 {
		es, err := env.Look.Events(ctx, 0, cmp.Or(q.limit, tail))
		if err != nil {
			return err
		}
		for _, e := range es {
			if err := print(e); err != nil {
				return err
			}
		}
	}
	for {
		err := env.Look.Watch(ctx, since, func(m api.Message) error {
			pause = firstRetry
			switch {
			case m.Event != nil:
				return print(*m.Event)
			case m.State != nil && since == 0:
				since = m.State.Seq
			}
			return nil
		})
		if !errors.Is(err, client.ErrUnreachable) {
			return err
		}
		env.sayf("%s; trying again, resuming after event %d", present.Clean(err.Error()), since)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, lastRetry)
	}
}

func (e *Env) event(ev api.Event, f present.Filter) error {
	if !f.Match(ev) {
		return nil
	}
	if !e.JSON {
		return e.print(present.Text([]present.Line{present.EventLine(ev, time.Time{}, e.Glyphs)}))
	}
	b, err := json.Marshal(ev)
	if err != nil {
		return fmt.Errorf("encode an event: %w", err)
	}
	return e.print(string(b) + "\n")
}
