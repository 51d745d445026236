package app

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/x/ansi"
	"github.com/muesli/termenv"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/fixture"
	"github.com/pgtandem/pgtandem/tui/page"
	"github.com/pgtandem/pgtandem/tui/present"
)

// fakeDaemon answers from memory and remembers what it was asked to change.
type fakeDaemon struct {
	changes []string
	planErr error
	runErr  error
	ops     map[string]api.Operation
	files   api.SyncFiles
}

func (d *fakeDaemon) Events(context.Context, uint64, int) ([]api.Event, error) {
	return fixture.Events(fixture.Epoch), nil
}

func (d *fakeDaemon) Watch(ctx context.Context, _ uint64, _ func(api.Message) error) error {
	<-ctx.Done()
	return ctx.Err()
}

func (d *fakeDaemon) Plan(_ context.Context, r api.PlanRequest) (api.Plan, error) {
	if d.planErr != nil {
		return api.Plan{}, d.planErr
	}
	return fixture.Plan(r, fixture.Epoch)
}

func (d *fakeDaemon) Operation(_ context.Context, id string, _ time.Duration) (api.Operation, error) {
	op, ok := d.ops[id]
	if !ok {
		return op, &api.Error{Code: api.CodeNotFound, Message: "operation " + id + " is not known"}
	}
	return op, nil
}

func (d *fakeDaemon) Operations(context.Context) ([]api.Operation, error) {
	return []api.Operation{fixture.Promoted(fixture.Epoch.Add(-time.Hour))}, nil
}

func (d *fakeDaemon) Drills(context.Context) ([]api.DrillInfo, error) { return fixture.Drills(), nil }

func (d *fakeDaemon) DrillReports(context.Context) ([]api.DrillReport, error) {
	return []api.DrillReport{fixture.Report(fixture.Epoch), fixture.FailedReport(fixture.Epoch)}, nil
}

func (d *fakeDaemon) SyncFiles(context.Context) (api.SyncFiles, error) { return d.files, nil }

func (d *fakeDaemon) Run(_ context.Context, id, confirm string) (api.Operation, error) {
	d.changes = append(d.changes, "run "+confirm)
	if d.runErr != nil {
		return api.Operation{}, d.runErr
	}
	p, err := fixture.Plan(api.PlanRequest{Action: "promote", Node: "pgsql2"}, fixture.Epoch)
	if err != nil {
		return api.Operation{}, err
	}
	p.ID = id
	return fixture.Run(p, fixture.Epoch)[0], nil
}

func (d *fakeDaemon) StartDrill(_ context.Context, r api.DrillRequest) (api.Operation, error) {
	d.changes = append(d.changes, "drill "+r.Name)
	return api.Operation{ID: "drill-1", State: api.OpRunning, Started: fixture.Epoch, Progress: "4 clients write through the proxy",
		Plan: api.Plan{Action: "drill", Node: r.Name, Reason: "asked for by anna"}}, nil
}

func (d *fakeDaemon) Maintenance(_ context.Context, r api.MaintenanceRequest) (api.State, error) {
	d.changes = append(d.changes, fmt.Sprintf("maintenance %v", r.On))
	if d.runErr != nil {
		return api.State{}, d.runErr
	}
	s := fixture.State(fixture.Epoch)
	s.Maintenance = r.On
	return s, nil
}

// console is a Model that is driven without a terminal, a clock or I/O.
type console struct {
	t      testing.TB
	m      *Model
	daemon *fakeDaemon
	now    time.Time
	quit   bool
}

func theme(profile termenv.Profile, g present.Glyphs) page.Theme {
	return page.NewTheme(profile, true, g)
}

func newConsole(t testing.TB, width, height int, th page.Theme) *console {
	t.Helper()
	c := &console{t: t, now: fixture.Epoch, daemon: &fakeDaemon{ops: map[string]api.Operation{}, files: fixture.SyncFiles()}}
	// A context that has ended lets commands that wait for news return at
	// once; the daemon from memory does not look at it.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c.m = New(ctx, Options{Daemon: c.daemon, Theme: th, Now: func() time.Time { return c.now }})
	c.m.after = func(time.Duration, func(time.Time) tea.Msg) tea.Cmd { return nil }
	c.send(tea.WindowSizeMsg{Width: width, Height: height})
	return c
}

// live is a console on a healthy pair.
func live(t *testing.T) *console {
	c := newConsole(t, 100, 30, page.Plain(present.Unicode()))
	c.state(fixture.State(c.now))
	return c
}

func (c *console) send(msg tea.Msg) {
	_, cmd := c.m.Update(msg)
	c.run(cmd)
}

func (c *console) run(cmd tea.Cmd) {
	if cmd == nil {
		return
	}
	switch msg := cmd().(type) {
	case nil:
	case tea.BatchMsg:
		for _, cmd := range msg {
			c.run(cmd)
		}
	case tea.QuitMsg:
		c.quit = true
	default:
		c.send(msg)
	}
}

// state is news of the daemon.
func (c *console) state(s api.State) {
	msg := feedMsg{state: &s, received: c.now, link: &link{live: true, since: c.now}}
	if len(c.m.facts.Events) == 0 {
		msg.events = fixture.Events(c.now)
	}
	c.send(msg)
}

// lose is the daemon gone.
func (c *console) lose() {
	c.send(feedMsg{link: &link{err: context.DeadlineExceeded, since: c.now}})
}

// pass lets time go by and the clock strike.
func (c *console) pass(d time.Duration) {
	c.now = c.now.Add(d)
	c.send(tickMsg{c.m.ticks})
}

var special = map[string]tea.KeyType{
	"enter": tea.KeyEnter, "esc": tea.KeyEsc, "up": tea.KeyUp, "down": tea.KeyDown, "left": tea.KeyLeft, "right": tea.KeyRight, "tab": tea.KeyTab,
	"backspace": tea.KeyBackspace, "ctrl+c": tea.KeyCtrlC, "ctrl+u": tea.KeyCtrlU, "pgup": tea.KeyPgUp, "pgdown": tea.KeyPgDown, "home": tea.KeyHome,
	"end": tea.KeyEnd, "space": tea.KeySpace, "shift+tab": tea.KeyShiftTab, "ctrl+r": tea.KeyCtrlR,
}

// press presses keys one after the other, a second apart as a calm person
// would.
func (c *console) press(keys ...string) {
	for _, k := range keys {
		c.now = c.now.Add(time.Second)
		c.key(k)
	}
}

func (c *console) key(k string) {
	t, ok := special[k]
	switch {
	case k == "space":
		c.send(tea.KeyMsg{Type: tea.KeySpace, Runes: []rune{' '}})
	case ok:
		c.send(tea.KeyMsg{Type: t})
	default:
		c.send(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune(k)})
	}
}

// typeWord types a word letter by letter.
func (c *console) typeWord(w string) {
	for _, r := range w {
		c.press(string(r))
	}
}

func (c *console) text() string { return ansi.Strip(c.m.View()) }

func (c *console) sees(parts ...string) {
	c.t.Helper()
	text := c.text()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			c.t.Errorf("the screen does not show %q:\n%s", p, text)
		}
	}
}

func (c *console) changed(want ...string) {
	c.t.Helper()
	if strings.Join(c.daemon.changes, ",") != strings.Join(want, ",") {
		c.t.Errorf("asked the daemon for %q, want %q", c.daemon.changes, want)
	}
}
