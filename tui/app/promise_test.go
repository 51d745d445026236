package app

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/muesli/termenv"
	"github.com/spf13/cobra"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/batch"
	"github.com/pgtandem/pgtandem/tui/fixture"
	"github.com/pgtandem/pgtandem/tui/present"
)

// What y shows can be run: each line is a command of --batch, with flags and
// arguments that it knows.
func TestEveryLineThatIsCopiedIsACommand(t *testing.T) {
	lines := map[string]bool{}
	for _, s := range scenes {
		c := live(t)
		s.play(c)
		if c.m.flow != nil {
			lines[c.m.flow.command()] = true
		}
		lines[c.m.page().Batch(&c.m.facts)] = true
	}
	if len(lines) < 12 {
		t.Errorf("only %d different lines were seen: %v", len(lines), lines)
	}
	for line := range lines {
		words, err := batch.Words(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		root := batch.Command(&batch.Env{})
		cmd, args, err := root.Find(words)
		if err != nil || cmd == root {
			t.Errorf("%q is no command of --batch: %v", line, err)
			continue
		}
		if err := parse(cmd, args); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func parse(cmd *cobra.Command, args []string) error {
	if err := cmd.ParseFlags(args); err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

// Colours add nothing: without them the same words are there.
func TestColoursCarryNoMeaningOfTheirOwn(t *testing.T) {
	for _, s := range scenes {
		var text [2]string
		for i, profile := range []termenv.Profile{termenv.TrueColor, termenv.Ascii} {
			c := newConsole(t, 100, 30, theme(profile, present.Unicode()))
			s.play(c)
			text[i] = ansi.Strip(c.m.View())
		}
		if text[0] != text[1] {
			t.Errorf("%s says something else without colours:\n%s\n%s", s.name, text[0], text[1])
		}
	}
}

// Grey alone says nothing on a terminal without colours: a lost daemon's last
// verdict says that it is of the past.
func TestAVerdictOfThePastSaysSo(t *testing.T) {
	c := live(t)
	c.sees("✓ PROTECTED")
	c.lose()
	c.pass(42 * time.Second)
	c.sees("✓ was PROTECTED", "all below is 42s old")
	c.state(fixture.State(c.now))
	c.sees("✓ PROTECTED")
}

// What keeps the engine from acting stands before what it says of the nodes.
func TestAHaltIsTheFirstThingThatIsSaid(t *testing.T) {
	s := fixture.State(fixture.Epoch)
	s.Halted = "two nodes acknowledge in term 4"
	for _, size := range [][2]int{{60, 20}, {80, 24}, {100, 30}} {
		c := newConsole(t, size[0], size[1], theme(termenv.Ascii, present.ASCII()))
		c.state(s)
		text := c.text()
		halted, verdict := strings.Index(text, "HALTED"), strings.Index(text, "PROTECTED")
		if halted < 0 || verdict < halted {
			t.Errorf("at %dx%d:\n%s", size[0], size[1], text)
		}
	}
}

// It ran, and the daemon that comes back does not know of it: nobody may read
// that it was not done.
func TestAnOperationThatTheDaemonForgotIsNotCalledUndone(t *testing.T) {
	c := live(t)
	c.press("W", "p")
	c.typeWord("pgsql2")
	c.press("enter")
	c.state(fixture.State(c.now))
	c.sees("The outcome is UNKNOWN. operation")
	if strings.Contains(c.text(), "Not done") {
		t.Errorf("it says that nothing was done:\n%s", c.text())
	}
}

// While the daemon is away its operation is not over.
func TestAnOperationOutlivesTheConnection(t *testing.T) {
	c := live(t)
	c.press("W", "p")
	c.typeWord("pgsql2")
	c.press("enter")
	c.lose()
	for range 60 {
		c.pass(time.Second)
	}
	c.sees("UNKNOWN while the daemon does not answer", "NO ANSWER")
	before := c.text()
	c.pass(100 * time.Millisecond)
	if steps(before) != steps(c.text()) {
		t.Errorf("its steps go on by themselves:\n%s", c.text())
	}
	op := fixture.Promoted(c.now)
	op.ID = c.m.flow.op.ID
	c.daemon.ops[op.ID] = op
	c.state(fixture.State(c.now))
	c.sees("RESULT", "DONE in 264 ms")
	c.changed("run pgsql2")
}

// steps is a screen from the operation's head on.
func steps(text string) string { return text[strings.Index(text, "RUNNING"):] }

// An answer that comes when the person has gone on belongs to nothing.
func TestALateAnswerIsDropped(t *testing.T) {
	c := live(t)
	c.press("W", "p")
	old := c.m.flow.id
	c.press("esc", "m")
	c.send(flowMsg{old, func(f *flow) { f.word, f.typed = "x", "x" }})
	c.sees("SET-MODE async", "Type async to go ahead: _")
	c.press("enter")
	c.changed()
}

// Steps that do not fit are scrolled; the place to type stays.
func TestALongPlanLeavesRoomToType(t *testing.T) {
	c := newConsole(t, 60, 20, theme(termenv.Ascii, present.ASCII()))
	c.state(fixture.State(c.now))
	c.press("W", "p")
	c.sees("Type pgsql2 to go ahead: _", "1 close the gate")
	c.press("down", "down", "down", "down", "down", "down", "down", "down", "down")
	c.sees("Type pgsql2 to go ahead: _", "7 open the gate to pgsql2")
}

func TestADrillThatMayNotRunSaysWhy(t *testing.T) {
	c := live(t)
	c.press("W", "3")
	c.m.facts.Drills[0].Allowed, c.m.facts.Drills[0].WhyNot = false, "this is no lab and drills.allowed is false"
	c.press("down", "d")
	c.sees("this drill may not run here: this is no lab")
	c.changed()
}

// On what is no lab the cluster's name is typed, and sent.
func TestADrillOnARealClusterAsksForItsName(t *testing.T) {
	c := live(t)
	s := fixture.State(c.now)
	s.Lab = false
	c.state(s)
	c.press("W", "3")
	c.m.facts.Drills[0].Confirm = "main"
	c.press("down", "d")
	c.sees("main is no lab: real clients are held", "Type main to go ahead", "--batch drill primary-stop --confirm main")
	c.typeWord("primary-stop")
	c.press("enter")
	c.changed()
	c.press("ctrl+u")
	c.typeWord("main")
	c.press("enter")
	c.changed("drill primary-stop")
}

// An error of what a page reads stays on the page until it is read again, and
// takes away nothing that was read before.
func TestAPageKeepsWhatItReadBefore(t *testing.T) {
	c := live(t)
	c.press("3")
	c.sees("2 reports")
	c.m.facts.Errors["drills"] = &api.Error{Message: "the store is full"}
	c.sees("the store is full", "2 reports")
	c.pass(6 * time.Second)
	if strings.Contains(c.text(), "the store is full") {
		t.Errorf("it was read again:\n%s", c.text())
	}
}

func TestDriftAndWhatWinsAreShown(t *testing.T) {
	c := live(t)
	c.daemon.files.Drift = "--- postgresql.conf.sync\n+++ postgresql.conf\n@@ -1 +1 @@\n-max_connections = 100\n+max_connections = 500\n"
	c.daemon.files.Winner = "postgresql.auto.conf:3 synchronous_standby_names"
	c.press("4", "v", "v")
	c.sees("another entry wins: postgresql.auto.conf:3", "a swap is refused until it is settled", "+max_connections = 500")
}

// The list has an end; the oldest leave, none in between.
func TestEventsAreBounded(t *testing.T) {
	c := live(t)
	for part := range 12 {
		var es []api.Event
		for i := range 10_000 {
			es = append(es, api.Event{Seq: uint64(1000 + part*10_000 + i), Level: "info"})
		}
		c.send(feedMsg{events: es})
	}
	es := c.m.facts.Events
	if len(es) != eventsKept || es[len(es)-1].Seq != 120_999 || es[0].Seq != 21_000 {
		t.Errorf("%d events from %d to %d", len(es), es[0].Seq, es[len(es)-1].Seq)
	}
	if !slices.IsSortedFunc(es, func(a, b api.Event) int { return int(a.Seq) - int(b.Seq) }) {
		t.Error("they are out of order")
	}
}

// A filter keeps up with what comes, what leaves, and a log that begins anew.
func TestAFilterKeepsUp(t *testing.T) {
	c := live(t)
	c.press("2", "l", "l")
	c.sees("1 of 11", "password authentication failed")
	c.send(feedMsg{events: []api.Event{{Seq: 60, At: c.now, Level: "error", Text: "the disk is full"}, {Seq: 61, At: c.now, Level: "info", Text: "no error"}}})
	c.sees("2 of 13", "the disk is full")
	var flood []api.Event
	for i := range eventsKept {
		flood = append(flood, api.Event{Seq: uint64(100 + i), At: c.now, Level: "info"})
	}
	c.send(feedMsg{events: flood})
	c.sees(fmt.Sprintf("0 of %d", eventsKept), "no event matches")
	c.send(feedMsg{events: []api.Event{{Seq: 1, At: c.now, Level: "error", Text: "a log that begins anew"}}})
	c.sees(fmt.Sprintf("1 of %d", eventsKept), "a log that begins anew")
}

// Bubble Tea draws after every message, so drawing must be cheap: the goal is
// 4 ms with 32 nodes and 100 000 events on 200x60.
func BenchmarkView(b *testing.B) {
	c := newConsole(b, 200, 60, theme(termenv.TrueColor, present.Unicode()))
	s := fixture.State(fixture.Epoch)
	for i := range 30 {
		n := fixture.Standby()
		n.Name = fmt.Sprintf("pgsql%d", i+3)
		s.Nodes = append(s.Nodes, n)
	}
	c.state(s)
	e := fixture.Events(fixture.Epoch)[0]
	for i := range eventsKept {
		e.Seq = uint64(100 + i)
		c.m.facts.Events = append(c.m.facts.Events, e)
	}
	for _, screen := range []struct {
		name string
		keys []string
	}{{"overview", nil}, {"events", []string{"2"}}, {"filtered events", []string{"l", "l"}}} {
		c.press(screen.keys...)
		b.Run(screen.name, func(b *testing.B) {
			for b.Loop() {
				_ = c.m.View()
			}
		})
	}
}

// Each page says how old what it shows is, and that it is of the past once the
// daemon is gone.
func TestEveryPageShowsItsAge(t *testing.T) {
	for _, screen := range []string{"3", "4", "5"} {
		c := live(t)
		c.press(screen)
		c.sees("read 0.0s ago")
		c.pass(3 * time.Second)
		c.sees("read 3.0s ago")
		c.pass(3 * time.Second)
		c.sees("read 0.0s ago")
		c.lose()
		c.pass(42 * time.Second)
		c.sees("read 42s ago", "NO ANSWER")
		c.state(fixture.State(c.now))
		c.pass(time.Second)
		c.sees("read 0.0s ago")
		c.m.facts.Errors[c.m.page().Needs()] = &api.Error{Message: "the store is full"}
		c.sees("not read now", "the store is full")
	}
}
