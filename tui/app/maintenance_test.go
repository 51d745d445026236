package app

import (
	"strings"
	"testing"
	"time"

	"github.com/muesli/termenv"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/fixture"
	"github.com/pgtandem/pgtandem/tui/present"
)

// Maintenance takes away what a failover would save, so it is turned on like
// everything that is dangerous: armed, over a live connection, with a word.
func TestMaintenanceIsTurnedOnByAWord(t *testing.T) {
	c := live(t)
	c.press("M")
	c.sees("read-only: W arms")
	c.press("W", "M")
	c.sees("MAINTENANCE on", "does NOTHING, whatever fails", "Type maintenance to go ahead", "--batch maintenance on")
	c.press("enter")
	c.typeWord("maintain")
	c.press("enter")
	c.changed()
	c.press("ctrl+u")
	c.typeWord("maintenance")
	c.press("enter")
	c.changed("maintenance true")
	c.sees("maintenance is on: the engine watches and does nothing")
	if c.m.flow != nil {
		t.Error("the dialog is still there")
	}
}

func TestMaintenanceIsTurnedOffWhereItIsOn(t *testing.T) {
	c := live(t)
	c.state(fixture.Abandoned(c.now))
	c.sees("MAINT", "NOTHING WILL BE DONE")
	c.press("W", "6", "M")
	c.sees("MAINTENANCE off", "the engine acts again, at once", "rule 31 primary lost, promote pgsql2")
	c.typeWord("maintenance")
	c.press("enter")
	c.changed("maintenance false")
	c.sees("maintenance is off: the engine acts again")
}

func TestMaintenanceThatTheDaemonRefuses(t *testing.T) {
	c := live(t)
	c.daemon.runErr = &api.Error{Code: api.CodePermission, Message: "eve may look and not change", Remedy: "ask an operator"}
	c.press("W", "M")
	c.typeWord("maintenance")
	c.press("enter")
	c.sees("Not done. eve may look and not change", "ask an operator")
	c.press("esc")
	c.sees("NODES")
}

func TestMaintenanceWaitsForTheDaemon(t *testing.T) {
	c := live(t)
	c.press("W", "M")
	c.typeWord("maintenance")
	c.lose()
	c.press("enter")
	c.changed()
	c.sees("actions are off")
}

// On every page it is said that nobody will act.
func TestMaintenanceIsSeenOnEveryPage(t *testing.T) {
	c := newConsole(t, 60, 20, theme(termenv.Ascii, present.ASCII()))
	c.state(fixture.Abandoned(c.now))
	for _, screen := range []string{"1", "2", "3", "4", "5", "6"} {
		c.press(screen)
		if head, _, _ := strings.Cut(c.text(), "\n"); !strings.Contains(head, "MAINT") {
			t.Errorf("page %s: %q", screen, head)
		}
	}
}

// w leads to the reasons from wherever one stands, but not out of a text that
// is being typed.
func TestWhyIsOneKeyAway(t *testing.T) {
	for _, screen := range []string{"1", "2", "3", "4", "5", "6"} {
		c := live(t)
		c.press(screen, "w")
		c.sees("RULE IN FORCE", "POLICIES")
	}
	c := live(t)
	c.press("2", "/", "w")
	if strings.Contains(c.text(), "RULE IN FORCE") {
		t.Errorf("a letter of a filter left the page:\n%s", c.text())
	}
}

// The clock of what is told goes on between two states.
func TestWhyGrowsOlder(t *testing.T) {
	c := live(t)
	c.state(fixture.Lost(c.now))
	c.press("w")
	c.sees("for 4m01s")
	c.pass(time.Minute)
	c.sees("for 5m01s")
}

// Nothing is repeated of a node that is gone already.
func TestANodeThatIsGoneDoesNotDieAgain(t *testing.T) {
	c := live(t)
	c.state(fixture.Abandoned(c.now))
	if text := c.text(); strings.Contains(text, "if pgsql1 dies now") {
		t.Errorf("it is gone:\n%s", text)
	}
	c.press("w")
	c.sees("pgsql1: it is stopped already")
}
