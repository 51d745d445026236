package app

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/exp/golden"
	"github.com/muesli/termenv"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/fixture"
	"github.com/pgtandem/pgtandem/tui/page"
	"github.com/pgtandem/pgtandem/tui/present"
)

// scenes are the console's screens, each as a story of what happened before.
var scenes = []struct {
	name string
	play func(c *console)
}{
	{"before the first word", func(*console) {}},
	{"no daemon from the start", func(c *console) { c.lose(); c.pass(4 * time.Second) }},
	{"overview", func(c *console) { healthy(c) }},
	{"overview of a lonely primary", func(c *console) { c.state(fixture.Lost(c.now)) }},
	{"overview, the daemon lost", func(c *console) { healthy(c); c.lose(); c.pass(12 * time.Second) }},
	{"overview, all about a node", func(c *console) { healthy(c); c.press("enter") }},
	{"overview, an operation runs", func(c *console) { healthy(c); c.state(atStep(c, 4)) }},
	{"overview, halted in maintenance", func(c *console) {
		s := fixture.State(c.now)
		s.Halted, s.Maintenance = "two nodes acknowledge in term 4", true
		c.state(s)
	}},
	{"events", func(c *console) { healthy(c); c.press("2") }},
	{"events, filtered and one opened", func(c *console) { healthy(c); c.press("2", "l", "n", "n", "n", "up", "up", "enter") }},
	{"drills", func(c *console) { healthy(c); c.press("3", "down") }},
	{"replay", func(c *console) {
		healthy(c)
		c.press("3", "down", "down", "down", "enter", "right", "right", "right", "right")
	}},
	{"configuration", func(c *console) { healthy(c); c.press("4") }},
	{"configuration, diff", func(c *console) { healthy(c); c.press("4", "v") }},
	{"operations", func(c *console) { healthy(c); c.press("5", "down") }},
	{"operation", func(c *console) { healthy(c); c.press("5", "down", "enter") }},
	{"promote, unarmed", func(c *console) { healthy(c); c.press("p") }},
	{"promote, plan", func(c *console) { healthy(c); c.press("W", "p"); c.typeWord("pgs") }},
	{"promote, wrong name", func(c *console) { healthy(c); c.press("W", "p"); c.typeWord("pgx") }},
	{"promote, running", func(c *console) { promote(c, 5) }},
	{"promote, done", func(c *console) { promote(c, 7) }},
	{"promote, refused", func(c *console) {
		healthy(c)
		c.daemon.planErr = &api.Error{Code: api.CodeStale, Message: "the plan is stale", Moved: []string{"term was 4 and is 5"}, Remedy: "ask for a new one"}
		c.press("W", "p")
	}},
	{"swap, plan", func(c *console) { healthy(c); c.press("W", "m") }},
	{"drill, plan", func(c *console) { healthy(c); c.press("W", "3", "down", "d") }},
	{"overview, async by hand", func(c *console) { c.state(fixture.ByHand(c.now)) }},
	{"overview, abandoned in maintenance", func(c *console) { c.state(fixture.Abandoned(c.now)) }},
	{"why", func(c *console) { healthy(c); c.press("w") }},
	{"why, further down", func(c *console) { healthy(c); c.press("w", "end") }},
	{"why, the way to the rule", func(c *console) { healthy(c); c.press("6", "t") }},
	{"why of a lonely primary", func(c *console) { c.state(fixture.Lost(c.now)); c.press("6") }},
	{"why, abandoned in maintenance", func(c *console) { c.state(fixture.Abandoned(c.now)); c.press("6") }},
	{"why, the daemon lost", func(c *console) { healthy(c); c.press("6"); c.lose(); c.pass(12 * time.Second) }},
	{"maintenance, asked for", func(c *console) { healthy(c); c.press("W", "6", "M"); c.typeWord("maint") }},
	{"maintenance, turned on", func(c *console) { healthy(c); c.press("W", "M"); c.typeWord("maintenance"); c.press("enter") }},
	{"maintenance, to be turned off", func(c *console) { c.state(fixture.Abandoned(c.now)); c.press("W", "M") }},
	{"help", func(c *console) { healthy(c); c.press("?") }},
	{"as a command", func(c *console) { healthy(c); c.press("2", "l", "l", "y") }},
}

func healthy(c *console) {
	for range 3 {
		s := fixture.State(c.now)
		s.Pool.Transactions += uint64(c.now.Sub(fixture.Epoch).Seconds() * 900)
		c.state(s)
		c.pass(time.Second)
	}
	c.state(fixture.State(c.now))
}

// atStep is a state in which a promotion has come to a step.
func atStep(c *console, step int) api.State {
	s := fixture.State(c.now)
	p, err := fixture.Plan(api.PlanRequest{Action: "promote", Node: "pgsql2"}, c.now)
	if err != nil {
		c.t.Fatal(err)
	}
	op := fixture.Run(p, c.now.Add(-200*time.Millisecond))[step]
	s.Operation = &op
	s.GateState, s.Gate = "closed", api.Gate{State: "closed", Reason: "promote pgsql2", Held: 41, OldestHeldMS: 187}
	s.Pool.Held = 41
	return s
}

// promote confirms a promotion and lets it come to a step; 7 is its end.
func promote(c *console, step int) {
	healthy(c)
	c.press("W", "p")
	c.typeWord("pgsql2")
	c.press("enter")
	s := atStep(c, step)
	s.Operation.ID = c.m.flow.op.ID
	if step == 7 {
		s = fixture.State(c.now)
		op := fixture.Promoted(c.now)
		op.ID = c.m.flow.op.ID
		c.daemon.ops[op.ID] = op
	}
	c.state(s)
}

func TestScreens(t *testing.T) {
	looks := []struct {
		name          string
		width, height int
		theme         page.Theme
	}{
		{"100x30 colour", 100, 30, theme(termenv.TrueColor, present.Unicode())},
		{"100x30 NO_COLOR", 100, 30, theme(termenv.Ascii, present.Unicode())},
		{"80x24 NO_COLOR", 80, 24, theme(termenv.Ascii, present.Unicode())},
		{"80x24 16 colours", 80, 24, theme(termenv.ANSI, present.Unicode())},
		{"60x20 NO_COLOR, ASCII", 60, 20, theme(termenv.Ascii, present.ASCII())},
	}
	for _, l := range looks {
		for _, s := range scenes {
			t.Run(l.name+"/"+s.name, func(t *testing.T) {
				c := newConsole(t, l.width, l.height, l.theme)
				s.play(c)
				view := c.m.View()
				exactly(t, view, l.width, l.height)
				golden.RequireEqual(t, []byte(view+"\n"))
			})
		}
	}
}

func exactly(t *testing.T, view string, width, height int) {
	t.Helper()
	lines := strings.Split(view, "\n")
	if len(lines) != height {
		t.Errorf("%d lines, want %d", len(lines), height)
	}
	for i, l := range lines {
		if w := ansi.StringWidth(l); w != width {
			t.Errorf("line %d is %d wide, want %d: %q", i+1, w, width, ansi.Strip(l))
		}
	}
}

func TestEverySizeIsFilledExactly(t *testing.T) {
	for _, s := range scenes {
		c := newConsole(t, 80, 24, theme(termenv.TrueColor, present.Unicode()))
		s.play(c)
		for _, width := range []int{1, 7, 20, 40, 59, 60, 61, 72, 79, 81, 99, 120, 200} {
			for _, height := range []int{1, 2, 5, 19, 20, 23, 28, 60} {
				c.send(sized(width, height))
				exactly(t, c.m.View(), width, height)
			}
		}
	}
}

func TestTooSmallSaysTheSizeAndTheVerdict(t *testing.T) {
	c := newConsole(t, 40, 12, page.Plain(present.ASCII()))
	c.state(fixture.Lost(c.now))
	c.sees("needs 60x20, has 40x12", "pgsql1 runs alone", "if pgsql1 dies now:")
}

func TestInASCIINothingElseIsShown(t *testing.T) {
	for _, s := range scenes {
		c := newConsole(t, 90, 28, page.Plain(present.ASCII()))
		s.play(c)
		for _, r := range c.m.View() {
			if r > 0x7e {
				t.Errorf("%s: shows %q", s.name, r)
			}
		}
	}
}

func TestWithoutColoursNoColourIsSent(t *testing.T) {
	for _, s := range scenes {
		c := newConsole(t, 90, 28, theme(termenv.Ascii, present.Unicode()))
		s.play(c)
		for _, code := range []string{"[3", "[4", ";3", ";4", "[9"} {
			if strings.Contains(c.m.View(), "\x1b"+code) || strings.Contains(c.m.View(), code+"8;") {
				t.Errorf("%s: sends %q", s.name, code)
			}
		}
	}
}

func TestWhatTheDaemonSaysCannotSteerTheTerminal(t *testing.T) {
	evil := "x\x1b[2J\x1b]0;owned\a\u009b31m\u202eq\r\n"
	c := newConsole(t, 100, 30, page.Plain(present.Unicode()))
	s := fixture.State(c.now)
	s.Cluster, s.Primary, s.Verdict.Text, s.Rule.Reason, s.Halted = evil, evil, evil, evil, evil
	s.Nodes[0].Name, s.Nodes[0].LSN, s.Nodes[1].EligibleReason, s.Nodes[1].Error = evil, evil, evil, evil
	s.IfDies[0].Node, s.IfDies[0].Text = evil, evil
	s.Gate.Node, s.Gate.Reason = evil, evil
	op := fixture.Promoted(c.now)
	op.ID, op.Error, op.Progress, op.State = evil, evil, evil, evil
	op.Plan.Action, op.Plan.Steps[0].Title, op.Plan.Steps[0].Detail = evil, evil, evil
	s.Operation = &op
	c.state(s)
	c.send(feedMsg{events: []api.Event{{Seq: 99, At: c.now, Level: evil, Kind: evil, Node: evil, Text: evil}}})
	for _, key := range []string{"1", "enter", "2", "up", "enter", "5", "down", "enter"} {
		c.press(key)
		exactly(t, c.m.View(), 100, 30)
		for i, r := range c.m.View() {
			if r != '\n' && (r < ' ' || (r >= 0x7f && r < 0xa0) || r == 0x202e) {
				t.Fatalf("after %s the screen holds %q: %q", key, r, c.m.View()[max(0, i-40):min(len(c.m.View()), i+20)])
			}
		}
	}
}

func TestHelpNamesEveryKeyOfEveryScreen(t *testing.T) {
	for i, p := range live(t).m.pages {
		c := live(t)
		c.send(sized(100, 70))
		c.press(fmt.Sprint(i+1), "?")
		for _, b := range append(p.Keys(), everywhere()...) {
			c.sees(b.Help().Key, b.Help().Desc)
		}
	}
}
