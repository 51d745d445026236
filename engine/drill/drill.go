package drill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// World is the cluster as a drill needs it.
type World interface {
	Proxy() (Target, error)
	Record() cluster.Record
	Snapshot() cluster.Snapshot
	GateOpen() bool
	// Operations gives the latest operations, newest first.
	Operations(ctx context.Context) ([]plan.Operation, error)
	// Watch gives a channel that has a value after every change.
	Watch() (changed <-chan struct{}, stop func())

	Stop(ctx context.Context, node cluster.NodeID, mode string) error
	Start(ctx context.Context, node cluster.NodeID) error
	// Switchover hands over to node and returns when that has ended.
	Switchover(ctx context.Context, node cluster.NodeID) error
	// Direct opens a connection to a node, past the proxy.
	Direct(ctx context.Context, node cluster.NodeID) (*pgx.Conn, error)
}

// Scenario is a failure that can be rehearsed.
type Scenario struct {
	Name    string
	Title   string
	Fault   string
	Expects string

	fault   func(r cluster.Record) (cluster.NodeID, error)
	over    func(before, now cluster.Record) bool // the engine has dealt with it
	action  cluster.Action                        // what the engine should have run
	mayFail bool
	checks  func(ctx context.Context, w World, before cluster.Record) []Check
}

// Scenarios are the recipe's two tests.
func Scenarios() []Scenario {
	return []Scenario{
		{
			Name: "primary-stop", Title: "the primary is stopped", Fault: "pg_ctl -m immediate stop on the primary",
			Expects: "the standby is promoted, nothing acknowledged is lost, clients are held for a moment",
			fault:   func(r cluster.Record) (cluster.NodeID, error) { return r.Primary, nil },
			over:    func(b, now cluster.Record) bool { return now.Term > b.Term && now.Primary != b.Primary },
			action:  cluster.Promote, mayFail: true, checks: promotedChecks,
		},
		{
			Name: "standby-stop", Title: "the standby is stopped", Fault: "pg_ctl -m immediate stop on the standby",
			Expects: "the primary goes on in async, and no client sees an error",
			fault:   syncStandby,
			over:    func(_, now cluster.Record) bool { return now.Mode == cluster.ModeAsync },
			action:  cluster.Degrade, checks: asyncChecks,
		},
	}
}

func syncStandby(r cluster.Record) (cluster.NodeID, error) {
	if len(r.SyncSet.Members) != 1 {
		return "", fmt.Errorf("%w: %d standbys confirm commits; this drill is for one", ErrPrecondition, len(r.SyncSet.Members))
	}
	return r.SyncSet.Members[0], nil
}

// Errors of a drill.
var (
	ErrNoScenario   = errors.New("no such drill")
	ErrPrecondition = errors.New("the cluster is not ready for a drill")
)

// Options steer one run.
type Options struct {
	ID         string
	Cluster    string
	Lasting    int           // clients that keep their connection
	Connecting int           // clients that connect anew for each row
	Limit      time.Duration // on the longest pause; 0 for none
	After      time.Duration // how long clients go on once the cluster has recovered
	Progress   func(string)
}

// drill is one run.
type drill struct {
	w        World
	opt      Options
	s        Scenario
	report   Report
	load     *load
	before   cluster.Record
	faulted  cluster.NodeID
	stopped  bool // the fault was made
	judgment judged
}

// Find finds a scenario by its name.
func Find(name string) (Scenario, error) {
	var names []string
	for _, s := range Scenarios() {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Scenario{}, fmt.Errorf("%w: %q; there are %s", ErrNoScenario, name, strings.Join(names, ", "))
}

// Run rehearses a scenario and puts the cluster back. The report is whole even
// when the verdict is fail; an error means that the drill itself could not be
// run or the cluster could not be put back.
func Run(ctx context.Context, w World, s Scenario, opt Options) (Report, error) {
	d := &drill{w: w, opt: opt, s: s, before: w.Record()}
	d.report = Report{ID: opt.ID, Name: s.Name, Cluster: opt.Cluster, Started: time.Now()}
	if d.opt.Progress == nil {
		d.opt.Progress = func(string) {}
	}
	node, err := d.ready()
	if err != nil {
		return d.report, err
	}
	d.faulted = node
	if err := d.setUp(ctx); err != nil {
		return d.report, err
	}
	runErr := d.rehearse(ctx)
	// The cluster is put back also when the drill failed or was cancelled.
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), 4*time.Minute)
	defer cancel()
	if runErr == nil {
		runErr = d.look(back)
	}
	if runErr != nil {
		d.blame("the drill did not get to its end: %v", runErr)
	}
	restoreErr := d.restore(back)
	if restoreErr != nil {
		d.blame("the pair was not put back: %v", restoreErr)
	}
	if d.judgment.present == nil {
		// The rows say what was lost, even where the drill ended early.
		if err := d.readBack(back); err != nil {
			d.blame("nothing is known of lost rows: %v", err)
		}
	}
	d.tearDown(back)
	judge(&d.report, d.judgment)
	slices.SortStableFunc(d.report.Marks, func(a, b Mark) int { return cmp.Compare(a.AtMS, b.AtMS) })
	d.report.TookMS = ms(time.Since(d.report.Started))
	return d.report, errors.Join(runErr, restoreErr)
}

// Ready says whether a scenario can be rehearsed now. It changes nothing; the
// error wraps ErrPrecondition.
func Ready(w World, s Scenario) error {
	_, err := (&drill{w: w, s: s, before: w.Record()}).ready()
	return err
}

// ready refuses a cluster on which the drill would prove nothing, or harm.
func (d *drill) ready() (cluster.NodeID, error) {
	r := d.before
	node, err := d.s.fault(r)
	switch {
	case r.Maintenance:
		return "", fmt.Errorf("%w: it is in maintenance, so the engine would not act", ErrPrecondition)
	case r.Mode != cluster.ModeSync || !d.w.GateOpen():
		return "", fmt.Errorf("%w: it must be in sync with its gate open; it is %s", ErrPrecondition, r.Mode)
	case err != nil:
		return "", err
	}
	for id, m := range r.Members {
		if !m.Eligible {
			return "", fmt.Errorf("%w: %s is not eligible: %s", ErrPrecondition, id, m.Reason)
		}
	}
	return node, nil
}

// blame adds a reason why the verdict is fail.
func (d *drill) blame(format string, args ...any) {
	d.judgment.why = append(d.judgment.why, fmt.Sprintf(format, args...))
}

func (d *drill) since() time.Duration { return time.Since(d.report.Started) }

func (d *drill) mark(who, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	d.report.Marks = append(d.report.Marks, Mark{AtMS: ms(d.since()), Who: who, Text: text})
	d.opt.Progress(text)
}

func (d *drill) setUp(ctx context.Context) error {
	t, err := d.w.Proxy()
	if err != nil {
		return err
	}
	d.load = &load{target: t, started: d.report.Started, pace: 4 * time.Millisecond,
		table: pgx.Identifier{"pgtandem_drill_" + strings.Map(safe, strings.ToLower(d.opt.ID))}.Sanitize()}
	return d.through(ctx, "CREATE TABLE "+d.load.table+" (client integer, n integer, PRIMARY KEY (client, n))")
}

func safe(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
		return r
	}
	return '_'
}

// through runs a statement through the proxy as the clients do.
func (d *drill) through(ctx context.Context, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	cfg, err := d.load.target.config()
	if err != nil {
		return err
	}
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("connect through the proxy: %w", err)
	}
	defer func() { _ = c.Close(ctx) }()
	if _, err := c.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// rehearse runs the clients over the fault until the cluster has recovered.
func (d *drill) rehearse(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	j := &d.judgment
	j.mayFail, j.limit = d.s.mayFail, d.opt.Limit
	if err := d.load.run(ctx, d.opt.Lasting, d.opt.Connecting); err != nil {
		return err
	}
	defer func() {
		d.load.stop()
		j.end, j.attempts, j.clients = d.since(), d.load.attempts, d.load.clients
	}()
	if err := d.load.all(ctx, 0); err != nil {
		return fmt.Errorf("before the fault: %w", err)
	}
	d.mark("clients", "%d clients write through the proxy", len(d.load.clients))
	changed, unwatch := d.w.Watch()
	defer unwatch()
	j.faultAt = d.since()
	d.mark("fault", "%s: %s", d.faulted, d.s.Fault)
	d.stopped = true // or half so, when an error comes back
	if err := d.w.Stop(ctx, d.faulted, "immediate"); err != nil {
		return fmt.Errorf("make the fault: %w", err)
	}
	j.goneAt = d.since()
	d.mark("fault", "%s is down", d.faulted)
	for !d.s.over(d.before, d.w.Record()) || !d.w.GateOpen() {
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("the engine did not deal with it: %w", ctx.Err())
		}
	}
	d.mark("daemon", "dealt with: primary %s, term %d, %s", d.w.Record().Primary, d.w.Record().Term, d.w.Record().Mode)
	if err := d.load.all(ctx, d.since()+d.opt.After); err != nil {
		return fmt.Errorf("after the fault: %w", err)
	}
	d.mark("clients", "every client writes again")
	return nil
}

// look reads back what is there, and checks what the recipe checks.
func (d *drill) look(ctx context.Context) error {
	if err := d.readBack(ctx); err != nil {
		return err
	}
	d.judgment.checks = append(d.judgment.checks, d.writes(ctx))
	d.judgment.checks = append(d.judgment.checks, d.s.checks(ctx, d.w, d.before)...)
	return d.engineSteps(ctx)
}

// readBack reads the rows past the proxy, from the primary as it is now.
func (d *drill) readBack(ctx context.Context) error {
	primary := d.w.Record().Primary
	c, err := d.direct(ctx, primary)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }()
	if d.judgment.present, err = rowsIn(ctx, c, d.load.table); err != nil {
		return fmt.Errorf("read the rows back from %s: %w", primary, err)
	}
	return nil
}

// rowsIn are a table's rows, by client and number.
func rowsIn(ctx context.Context, c *pgx.Conn, table string) (map[[2]int]bool, error) {
	rows, err := c.Query(ctx, "SELECT client, n FROM "+table)
	if err != nil {
		return nil, err
	}
	present := map[[2]int]bool{}
	var k [2]int
	_, err = pgx.ForEachRow(rows, []any{&k[0], &k[1]}, func() error { present[k] = true; return nil })
	return present, err
}

func (d *drill) direct(ctx context.Context, node cluster.NodeID) (*pgx.Conn, error) {
	c, err := d.w.Direct(ctx, node)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", node, err)
	}
	return c, nil
}

func (d *drill) writes(ctx context.Context) Check {
	c := Check{Name: "writes succeed through the proxy", OK: true, Saw: "INSERT 0 1"}
	if err := d.through(ctx, "INSERT INTO "+d.load.table+" (client, n) VALUES (-1, 1)"); err != nil {
		c.OK, c.Saw = false, err.Error()
	}
	return c
}

// engineSteps takes over the steps of what the engine did about the fault.
func (d *drill) engineSteps(ctx context.Context) error {
	ops, err := d.w.Operations(ctx)
	if err != nil {
		return err
	}
	for _, op := range ops {
		if op.Plan.Action == d.s.action && op.Started.After(d.report.Started) {
			d.report.Steps = stepsOf(op)
			d.report.Marks = append(d.report.Marks, Mark{AtMS: ms(op.Started.Sub(d.report.Started)), Who: "daemon", Text: fmt.Sprintf("rule %d: %s", op.Plan.Rule, op.Plan.Reason)})
			for i, s := range op.Steps {
				if !s.Started.IsZero() && i < len(op.Plan.Steps) {
					d.report.Marks = append(d.report.Marks, Mark{AtMS: ms(s.Started.Sub(d.report.Started)), Who: "daemon", Text: op.Plan.Steps[i].Title})
				}
			}
			return nil
		}
	}
	d.blame("the engine ran no %s", d.s.action)
	return nil
}
