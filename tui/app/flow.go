package app

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/page"
)

// stage of a flow.
type stage int

const (
	planning   stage = iota // the plan was asked for
	refused                 // there is no plan, or it was not run
	confirming              // the plan is shown and the name can be typed
	starting                // the plan was sent
	running                 // the operation runs, in the daemon
	ended                   // its outcome is shown
)

// A dialog that comes up ignores keys for quiet, since they were meant for
// what was there before; a key that is held down is swallowed until it has
// been let go for longer than a keyboard's first repeat takes.
const (
	quiet  = 300 * time.Millisecond
	letGo  = 700 * time.Millisecond
	longID = 64
)

// flow leads through one action: plan, typed name, steps, result.
type flow struct {
	id    int
	stage stage
	req   api.PlanRequest
	drill *api.DrillInfo
	hands *bool  // maintenance is turned on, or off
	said  string // how it ended, where there is nothing more to be shown

	plan  api.Plan
	files api.SyncFiles
	word  string // what must be typed
	sent  string // what the daemon is sent as the confirmation
	typed string
	err   error

	op     api.Operation
	absent bool // the state does not tell of it any more
	asking bool
	top    int // first step shown

	since     time.Time // of the stage
	opener    string    // the key that led to this stage
	openerAt  time.Time
	typedOnce bool // some other key has been taken since
}

// flowMsg is an answer for a flow; one for another flow is dropped.
type flowMsg struct {
	flow  int
	apply func(*flow)
}

func (f *flow) name() string {
	if f.drill != nil {
		return "drill " + f.drill.Name
	}
	return strings.TrimSpace(f.req.Action + " " + f.req.Node + f.req.Mode)
}

// command is the flow as a --batch line.
func (f *flow) command() string {
	if f.stage >= running {
		return "operation " + f.op.ID + " --wait 1h"
	}
	line := f.name()
	if f.hands != nil {
		return line // it is confirmed to a person alone
	}
	if f.sent != "" {
		line += " --confirm " + f.sent
	}
	return line
}

func (f *flow) moving() bool { return f.stage != refused && f.stage != confirming && f.stage != ended }

// enter begins a stage.
func (f *flow) enter(s stage, now time.Time) {
	f.stage, f.since, f.openerAt, f.typedOnce, f.top = s, now, now, false, 0
}

// swallows says whether a key was meant for what was there before.
func (f *flow) swallows(pressed string, now time.Time) bool {
	held := pressed == f.opener && !f.typedOnce && now.Sub(f.openerAt) < letGo
	if pressed == f.opener {
		f.openerAt = now
	}
	if held || now.Sub(f.since) < quiet {
		return true
	}
	f.typedOnce = true
	return false
}

// mayAct says why nothing may be changed now, "" when it may.
func (m *Model) mayAct() string {
	switch {
	case !m.facts.Known || !m.link.live:
		return "the daemon does not answer: actions are off"
	case m.armedUntil.IsZero() || m.facts.Now.After(m.armedUntil):
		return "read-only: W arms the console for 10 minutes"
	}
	return ""
}

// wish does what a page asked for, if that is allowed.
func (m *Model) wish(w page.Wish) tea.Cmd {
	switch w := w.(type) {
	case page.Say:
		m.say("%s", w.Text)
	case page.WantAttach:
		m.flow = m.newFlow()
		m.flow.op, m.flow.req = w.Operation, api.PlanRequest{Action: w.Operation.Plan.Action, Node: w.Operation.Plan.Node, Mode: w.Operation.Plan.Mode}
		m.flow.enter(running, m.facts.Now)
	case page.WantPlan:
		if why := m.mayAct(); why != "" {
			m.say("%s", why)
			return nil
		}
		m.flow = m.newFlow()
		m.flow.req = w.Request
		m.flow.enter(planning, m.facts.Now)
		return m.askPlan(m.flow)
	case page.WantDrill:
		if why := m.mayAct(); why != "" {
			m.say("%s", why)
			return nil
		}
		m.flow = m.newFlow()
		d := w.Drill
		m.flow.drill, m.flow.sent, m.flow.word = &d, d.Confirm, d.Confirm
		if m.flow.word == "" {
			m.flow.word = d.Name // Enter alone confirms nothing, in a lab either
		}
		m.flow.enter(confirming, m.facts.Now)
	case page.WantMaintenance:
		if why := m.mayAct(); why != "" {
			m.say("%s", why)
			return nil
		}
		m.flow = m.newFlow()
		m.flow.hands, m.flow.word = &w.On, "maintenance"
		m.flow.req = api.PlanRequest{Action: "maintenance", Mode: map[bool]string{true: "on", false: "off"}[w.On]}
		m.flow.enter(confirming, m.facts.Now)
	}
	return nil
}

func (m *Model) newFlow() *flow {
	m.flows++
	return &flow{id: m.flows, opener: m.lastKey}
}

// ask does a question for a flow away from the screen.
func (m *Model) ask(f *flow, question func(ctx context.Context) func(*flow)) tea.Cmd {
	id, parent := f.id, m.ctx
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(parent, answerIn)
		defer cancel()
		return flowMsg{id, question(ctx)}
	}
}

func (m *Model) askPlan(f *flow) tea.Cmd {
	d, q, now := m.opt.Daemon, f.req, m.opt.Now
	return m.ask(f, func(ctx context.Context) func(*flow) {
		p, err := d.Plan(ctx, q)
		var files api.SyncFiles
		if err == nil && q.Action == "set-mode" {
			// The difference is shown where it can be read; the plan says the
			// rest.
			files, _ = d.SyncFiles(ctx)
		}
		return func(f *flow) {
			if err != nil {
				f.err = err
				f.enter(refused, now())
				return
			}
			f.plan, f.files, f.word, f.sent = p, files, p.Confirm, p.Confirm
			if f.word == "" {
				f.word = p.Action
			}
			f.enter(confirming, now())
		}
	})
}

// fire is the one place from which something is changed.
func (m *Model) fire() tea.Cmd {
	f := m.flow
	if f == nil || f.stage != confirming || f.word == "" || f.typed != f.word {
		return nil
	}
	if why := m.mayAct(); why != "" {
		m.say("%s", why)
		return nil
	}
	f.opener = "enter"
	f.enter(starting, m.facts.Now)
	if f.hands != nil {
		return m.turnHands(f, *f.hands)
	}
	d, now, plan, sent, drill := m.opt.Daemon, m.opt.Now, f.plan.ID, f.sent, f.drill
	return m.ask(f, func(ctx context.Context) func(*flow) {
		var op api.Operation
		var err error
		if drill != nil {
			op, err = d.StartDrill(ctx, api.DrillRequest{Name: drill.Name, Confirm: sent})
		} else {
			op, err = d.Run(ctx, plan, sent)
		}
		return func(f *flow) {
			if err != nil {
				f.err = err
				f.enter(refused, now())
				return
			}
			f.op = op
			f.enter(running, now())
			f.settle(now())
		}
	})
}

// turnHands turns maintenance on or off. There is no operation: it is done when
// the daemon has answered.
func (m *Model) turnHands(f *flow, on bool) tea.Cmd {
	d, now := m.opt.Daemon, m.opt.Now
	return m.ask(f, func(ctx context.Context) func(*flow) {
		s, err := d.Maintenance(ctx, api.MaintenanceRequest{On: on})
		return func(f *flow) {
			switch {
			case err != nil:
				f.err = err
				f.enter(refused, now())
			case s.Maintenance:
				f.said = "maintenance is on: the engine watches and does nothing"
			default:
				f.said = "maintenance is off: the engine acts again"
			}
		}
	})
}

// conclude closes a flow that ended with a word.
func (m *Model) conclude() {
	if m.flow.said != "" {
		m.say("%s", m.flow.said)
		m.flow = nil
	}
}

// heard takes over what a state says about the operation in progress.
func (f *flow) heard(op *api.Operation, now time.Time) {
	if f.stage != running {
		return
	}
	f.absent = op == nil || op.ID != f.op.ID
	if !f.absent {
		f.op = *op
		f.settle(now)
	}
}

// settle shows the result once there is one.
func (f *flow) settle(now time.Time) {
	if f.stage == running && f.op.State != api.OpRunning && f.op.State != "" {
		f.enter(ended, now)
	}
}

// watchFlow asks for an operation that the state no longer tells of.
func (m *Model) watchFlow() tea.Cmd {
	f := m.flow
	if f == nil || f.stage != running || !f.absent || f.asking || !m.link.live {
		return nil
	}
	f.asking = true
	d, id, now := m.opt.Daemon, f.op.ID, m.opt.Now
	return m.ask(f, func(ctx context.Context) func(*flow) {
		op, err := d.Operation(ctx, id, 0)
		return func(f *flow) {
			f.asking = false
			var e *api.Error
			switch {
			case err == nil:
				f.op = op
				f.settle(now())
			case errors.As(err, &e):
				f.err = err
				f.enter(refused, now())
			}
		}
	})
}

// flowKey handles a key while a flow is shown.
func (m *Model) flowKey(pressed string) tea.Cmd {
	f := m.flow
	if f.swallows(pressed, m.facts.Now) {
		return nil
	}
	switch f.stage {
	case confirming:
		return m.confirmKey(f, pressed)
	case ended:
		if pressed == "enter" && f.op.Drill != nil {
			m.openReport(*f.op.Drill)
			return m.fetch(true)
		}
	}
	switch pressed {
	case "esc", "q", "enter":
		if f.stage == starting || (pressed == "enter" && f.stage == running) {
			return nil
		}
		if f.stage == running {
			m.say("detached: the daemon goes on; o follows it again")
		}
		m.flow = nil
	case "up", "down", "pgup", "pgdown", "k", "j":
		f.scroll(pressed)
	}
	return nil
}

func (m *Model) confirmKey(f *flow, pressed string) tea.Cmd {
	switch pressed {
	case "esc":
		m.flow = nil
		m.say("nothing was changed")
	case "enter":
		if f.typed != f.word {
			m.say("type %s in full, then enter; esc leaves", f.word)
			return nil
		}
		return m.fire()
	case "backspace":
		if _, n := utf8.DecodeLastRuneInString(f.typed); n > 0 {
			f.typed = f.typed[:len(f.typed)-n]
		}
	case "ctrl+u":
		f.typed = ""
	case "up", "down", "pgup", "pgdown":
		f.scroll(pressed)
	default:
		if r, n := utf8.DecodeRuneInString(pressed); n == len(pressed) && r >= ' ' && r != 0x7f && len(f.typed) < longID {
			f.typed += pressed
		}
	}
	return nil
}

func (f *flow) scroll(pressed string) {
	switch pressed {
	case "up", "k":
		f.top--
	case "down", "j":
		f.top++
	case "pgup":
		f.top -= 8
	case "pgdown":
		f.top += 8
	}
	f.top = max(0, f.top)
}

// openReport leaves the flow for the replay of its report.
func (m *Model) openReport(r api.DrillReport) {
	m.flow = nil
	for i, p := range m.pages {
		if d, ok := p.(*page.Drills); ok {
			m.at = i
			d.Open(r)
		}
	}
}
