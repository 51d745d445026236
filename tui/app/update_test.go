package app

import (
	"errors"
	"strings"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/fixture"
	"github.com/pgtandem/pgtandem/tui/page"
	"github.com/pgtandem/pgtandem/tui/present"
)

func sized(w, h int) tea.WindowSizeMsg { return tea.WindowSizeMsg{Width: w, Height: h} }

func TestReadOnlyUntilArmed(t *testing.T) {
	for _, key := range []string{"p", "s", "m", "R"} {
		c := live(t)
		c.press(key)
		c.sees("read-only: W arms the console")
		if c.m.flow != nil {
			t.Errorf("%s opened a dialog", key)
		}
	}
}

func TestTheArmRunsOut(t *testing.T) {
	c := live(t)
	c.press("W")
	c.sees("ARMED 10m00s")
	c.pass(9*time.Minute + 59*time.Second)
	c.sees("ARMED 1s")
	c.state(fixture.State(c.now))
	c.press("p")
	c.pass(2 * time.Second)
	c.sees("the ten minutes are over")
	c.typeWord("pgsql2")
	c.press("enter")
	c.sees("read-only: W arms")
	c.changed()
}

func TestAKeyHeldDownDoesNotFlickerTheArm(t *testing.T) {
	c := live(t)
	c.press("W")
	for range 20 {
		c.now = c.now.Add(30 * time.Millisecond)
		c.key("W")
	}
	c.sees("ARMED")
}

func TestTheNameInFullAndEnterRunIt(t *testing.T) {
	c := live(t)
	c.press("W", "p")
	c.sees("PROMOTE pgsql2", "acknowledged commits lost: 0", "Type pgsql2 to go ahead", "pgtandem --batch promote pgsql2 --confirm pgsql2")
	c.changed()
	c.typeWord("pgsql2")
	c.sees("enter goes ahead")
	c.changed()
	c.press("enter")
	c.changed("run pgsql2")
	c.sees("RUNNING promote pgsql2")
}

func TestNothingLessRunsIt(t *testing.T) {
	for name, keys := range map[string][]string{
		"enter alone":         {"enter"},
		"enter many times":    {"enter", "enter", "enter", "enter", "enter"},
		"half the name":       {"p", "g", "s", "q", "l", "enter"},
		"another node":        {"p", "g", "s", "q", "l", "1", "enter"},
		"more than the name":  {"p", "g", "s", "q", "l", "2", "2", "enter"},
		"capitals":            {"P", "G", "S", "Q", "L", "2", "enter"},
		"yes":                 {"y", "e", "s", "enter"},
		"a blank behind":      {"p", "g", "s", "q", "l", "2", "space", "enter"},
		"typed, then emptied": {"p", "g", "s", "q", "l", "2", "ctrl+u", "enter"},
		"typed, then left":    {"p", "g", "s", "q", "l", "2", "esc", "enter"},
		"typed, without":      {"p", "g", "s", "q", "l", "2"},
	} {
		c := live(t)
		c.press("W", "p")
		c.press(keys...)
		if len(c.daemon.changes) > 0 {
			t.Errorf("%s ran it", name)
		}
	}
}

func TestADialogIgnoresWhatWasMeantForTheScreenBefore(t *testing.T) {
	c := live(t)
	c.press("W", "p")
	for range 6 { // 290 ms
		c.now = c.now.Add(48 * time.Millisecond)
		c.key("x")
	}
	if c.m.flow.typed != "" {
		t.Errorf("took %q within the quiet time", c.m.flow.typed)
	}
	// The p that opened it is held down for three seconds.
	for range 100 {
		c.now = c.now.Add(30 * time.Millisecond)
		c.key("p")
	}
	if c.m.flow.typed != "" {
		t.Errorf("took %q from the key that opened it", c.m.flow.typed)
	}
	c.typeWord("pgsql2")
	if c.m.flow.typed != "pgsql2" {
		t.Errorf("took %q once it was let go", c.m.flow.typed)
	}
}

func TestEnterHeldDownConfirmsOnceAndClosesNothing(t *testing.T) {
	c := live(t)
	c.press("W", "p")
	c.typeWord("pgsql2")
	c.press("enter")
	op := fixture.Promoted(c.now)
	op.ID = c.m.flow.op.ID
	c.daemon.ops[op.ID] = op
	c.state(fixture.State(c.now))
	for range 100 {
		c.now = c.now.Add(30 * time.Millisecond)
		c.key("enter")
	}
	c.changed("run pgsql2")
	c.sees("RESULT", "DONE in 264 ms")
	c.press("esc")
	if c.m.flow != nil {
		t.Error("esc does not close the result")
	}
}

func TestPastingIsNotTyping(t *testing.T) {
	c := live(t)
	c.press("W", "p")
	c.now = c.now.Add(time.Second)
	c.send(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune("pgsql2"), Paste: true})
	c.sees("pasting is off")
	c.press("enter")
	c.changed()
}

func TestTypingFastArrivesAsOneMessage(t *testing.T) {
	c := live(t)
	c.press("W", "p")
	c.press("pgsql2", "enter")
	c.changed("run pgsql2")
}

func TestALostDaemonTurnsActionsOff(t *testing.T) {
	c := live(t)
	c.press("W", "p")
	c.typeWord("pgsql2")
	c.lose()
	c.press("enter")
	c.changed()
	c.sees("NO ANSWER", "actions are off")
	c.state(fixture.State(c.now))
	c.press("enter")
	c.changed("run pgsql2")
}

func TestALostDaemonIsNeverAnExit(t *testing.T) {
	c := live(t)
	c.lose()
	for range 100 {
		c.pass(time.Minute)
	}
	c.sees("NO ANSWER from the daemon for 1h40m", "pgsql2", "LOST 1h40m")
	if c.quit {
		t.Error("the console has ended")
	}
	c.state(fixture.State(c.now))
	if text := c.text(); strings.Contains(text, "NO ANSWER") || !strings.Contains(text, "LIVE 0.0s") {
		t.Errorf("back again, it shows\n%s", text)
	}
}

func TestRefusalsAreExplained(t *testing.T) {
	c := live(t)
	c.daemon.planErr = &api.Error{Code: api.CodeUnsafe, Message: "pgsql2 is not known to hold every acknowledged commit", Remedy: "wait until it is eligible"}
	c.press("W", "p")
	c.sees("Not done. pgsql2 is not known", "wait until it is eligible")
	c.press("enter")
	if c.m.flow != nil {
		t.Error("the refusal stays")
	}

	c = live(t)
	c.daemon.runErr = &api.Error{Code: api.CodeUnknown, Message: "the daemon gave no answer", Remedy: "look at the state"}
	c.press("W", "p")
	c.typeWord("pgsql2")
	c.press("enter")
	c.sees("The outcome is UNKNOWN. the daemon gave no answer", "look at the state")

	c = live(t)
	c.daemon.planErr = errors.New("no such socket")
	c.press("W", "s")
	c.sees("Not done. no such socket")
}

func TestAnOperationIsFollowedAndLeft(t *testing.T) {
	c := live(t)
	c.state(atStep(c, 4))
	c.press("o")
	c.sees("RUNNING promote pgsql2", "the daemon owns it", "41")
	c.press("esc")
	c.sees("detached: the daemon goes on")
	c.press("5", "down", "enter")
	c.sees("RUNNING promote pgsql2")
	end := fixture.Promoted(c.now)
	end.ID, end.State, end.Error = c.m.flow.op.ID, api.OpFailed, "promote pgsql2: no answer within 70s"
	c.daemon.ops[end.ID] = end
	c.state(fixture.State(c.now))
	c.sees("RESULT", "FAILED: promote pgsql2: no answer within 70s")
}

func TestTheSwapShowsWhatChangesAndAsksForTheMode(t *testing.T) {
	c := live(t)
	c.press("W", "m")
	c.sees("SET-MODE async", "3 commits that wait now are acknowledged without a standby", `- synchronous_standby_names = 'FIRST 1 ("pgsql2")'`,
		"+ synchronous_standby_names = ''", "Type async to go ahead")
	c.typeWord("async")
	c.press("enter")
	c.changed("run async")
}

func TestADrillAsksForItsNameInALabToo(t *testing.T) {
	c := live(t)
	c.press("W", "3", "down", "d")
	c.sees("pg_ctl -m immediate stop on the primary", "Type primary-stop to go ahead")
	c.press("enter")
	c.changed()
	c.typeWord("primary-stop")
	c.press("enter")
	c.changed("drill primary-stop")
	report := fixture.Report(c.now)
	c.daemon.ops["drill-1"] = api.Operation{ID: "drill-1", State: api.OpDone, Started: c.now, Drill: &report, Plan: api.Plan{Action: "drill"}}
	c.state(fixture.State(c.now))
	c.sees("RESULT", "PASS", "longest pause 318 ms", "none lost")
	c.press("enter")
	c.sees("TIMELINE", "WHAT HAPPENED")
}

func TestAReplayPlaysAndSteps(t *testing.T) {
	c := live(t)
	c.press("3", "down", "down", "down", "enter")
	c.sees("paused  +0 ms from the fault")
	c.press("right")
	c.sees("+15 ms from the fault")
	c.press("space")
	c.pass(400 * time.Millisecond)
	c.sees("playing  +115 ms from the fault")
	c.press("space", "home", "left")
	c.sees("paused")
	c.press("esc")
	c.sees("REPORTS")
}

func TestTheSelectionFollowsItsNode(t *testing.T) {
	c := live(t)
	c.sees("▌pgsql2")
	s := fixture.State(c.now)
	s.Nodes[0], s.Nodes[1] = s.Nodes[1], s.Nodes[0]
	c.state(s)
	c.sees("▌pgsql2")
	s.Nodes = s.Nodes[1:]
	c.state(s)
	if strings.Contains(c.text(), "▌") {
		t.Error("the selection moved to another node by itself")
	}
	c.press("W", "p")
	c.sees("select a node first")
}

func TestEventsAreFilteredAndFollowed(t *testing.T) {
	c := live(t)
	c.press("2")
	c.sees("11 of 11  following")
	c.press("l", "l")
	c.sees("level>=error", "1 of 11", "password authentication failed")
	c.press("c", "/")
	c.typeWord("reload")
	c.sees("text contains: reload_", "2 of 11")
	c.press("q") // typed, not pressed
	if c.quit {
		t.Error("q quits while a text is typed")
	}
	c.press("backspace", "enter")
	c.sees("text~reload")
	c.press("y")
	c.sees(`pgtandem --batch events --text "reload" --follow`)
}

func TestEventsThatComeDoNotMoveTheSelection(t *testing.T) {
	c := live(t)
	c.press("2", "up", "up", "enter")
	c.sees("follow off", "#46")
	c.send(feedMsg{events: []api.Event{{Seq: 49, At: c.now, Level: "info", Kind: "test", Text: "a new one"}}})
	c.sees("#46", "12 of 12")
	c.press("f")
	c.sees("a new one")
}

func TestValuesShowTheirAge(t *testing.T) {
	c := live(t)
	c.sees("LIVE 0.0s")
	c.pass(4 * time.Second)
	c.sees("LIVE 4.0s", "4.4s !")
	c.pass(4 * time.Second)
	c.sees("8.4s ?")
}

func TestCtrlCEndsTheConsoleWhereverItIs(t *testing.T) {
	for _, keys := range [][]string{{}, {"?"}, {"2", "/"}, {"W", "p"}, {"y"}} {
		c := live(t)
		c.press(append(keys, "ctrl+c")...)
		if !c.quit {
			t.Errorf("after %v it goes on", keys)
		}
	}
}

// Without these letters no name that is asked for can be typed: not a node's,
// not a mode, not a drill's.
const unnameable = "2y-"

func FuzzKeysNeverChangeAnythingWithoutTheName(f *testing.F) {
	keys := []string{"enter", "esc", "up", "down", "left", "right", "tab", "backspace", "pgup", "pgdown", "home", "end", "space", "shift+tab", "ctrl+u", "ctrl+r", "lose", "live", "wait", "resize"}
	for r := rune('!'); r <= '~'; r++ {
		if !strings.ContainsRune(unnameable, r) {
			keys = append(keys, string(r))
		}
	}
	f.Add([]byte("Wppppp\r\r\r"))
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19})
	f.Fuzz(func(t *testing.T, in []byte) {
		c := newConsole(t, 80, 24, page.Plain(present.Unicode()))
		c.state(fixture.State(c.now))
		c.press("W")
		for i, b := range in {
			c.now = c.now.Add(time.Duration(b) * 4 * time.Millisecond)
			switch k := keys[int(b)%len(keys)]; k {
			case "lose":
				c.lose()
			case "live":
				c.state(atStep(c, i%8))
			case "wait":
				c.pass(time.Second)
			case "resize":
				c.send(sized(i%130, i%50))
			default:
				c.key(k)
			}
			if len(c.daemon.changes) > 0 {
				t.Fatalf("key %d of %q asked for %v", i, in, c.daemon.changes)
			}
		}
		if c.m.width > 0 && c.m.height > 0 {
			exactly(t, c.m.View(), c.m.width, c.m.height)
		}
	})
}
