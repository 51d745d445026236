package daemon

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// manager is a service manager that writes down what it is told.
type manager struct {
	told []string
	now  time.Time
}

func (m *manager) notifier(watchdog time.Duration) *notifier {
	m.now = noon
	return &notifier{log: silent(), now: func() time.Time { return m.now }, interval: watchdog / 4,
		send: func(s string) error { m.told = append(m.told, s); return nil }}
}

func silent() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func state(gate, text string) api.State {
	return api.State{Term: 4, Primary: "pgsql1", Mode: "sync", GateState: gate, Rule: api.Rule{Name: text}, Verdict: api.Verdict{Text: "for 1.234s"}}
}

func TestReadyOnlyWhenAPrimaryIsProved(t *testing.T) {
	var m manager
	n := m.notifier(0)
	n.State(api.State{GateState: "closed", Verdict: api.Verdict{Text: "nothing is known of pgsql2 yet"}})
	n.State(api.State{GateState: "closed", Verdict: api.Verdict{Text: "nothing is known of pgsql2 yet"}})
	n.Reloading()()
	n.State(state("open", "all is well"))
	n.State(state("open", "all is well"))
	n.State(state("closed", "primary lost"))
	n.State(state("open", "all is well"))
	n.Stopping()
	want := []string{
		"STATUS=no primary yet: nothing is known of pgsql2 yet",
		"READY=1\nSTATUS=term 4, primary pgsql1, sync, gate open: all is well",
		"STATUS=term 4, primary pgsql1, sync, gate closed: primary lost",
		"STATUS=term 4, primary pgsql1, sync, gate open: all is well",
		"STOPPING=1",
	}
	if !slices.Equal(m.told, want) {
		t.Errorf("told\n%s\nwant\n%s", strings.Join(m.told, "\n"), strings.Join(want, "\n"))
	}
}

func TestAReloadIsBracketed(t *testing.T) {
	var m manager
	n := m.notifier(0)
	n.State(state("open", "all is well"))
	m.told = nil
	n.Reloading()()
	if len(m.told) != 2 || !strings.HasPrefix(m.told[0], "RELOADING=1\nMONOTONIC_USEC=") || m.told[1] != "READY=1" {
		t.Errorf("told %q", m.told)
	}
}

func TestTheWatchdogIsFedByTheEngineFourTimesInItsLimit(t *testing.T) {
	var m manager
	n := m.notifier(20 * time.Second)
	for range 200 { // ten seconds of turns
		n.Beat()
		m.now = m.now.Add(50 * time.Millisecond)
	}
	if want := []string{"WATCHDOG=1", "WATCHDOG=1"}; !slices.Equal(m.told, want) {
		t.Errorf("told %q, want %q", m.told, want)
	}
	m.told = nil
	off := m.notifier(0)
	off.Beat()
	if len(m.told) != 0 {
		t.Errorf("without a watchdog: told %q", m.told)
	}
}

func TestADeafManagerIsMentionedOnce(t *testing.T) {
	var log bytes.Buffer
	n := (&manager{}).notifier(0)
	n.log = slog.New(slog.NewTextHandler(&log, nil))
	n.send = func(string) error { return errors.New("connection refused") }
	n.State(state("open", "all is well"))
	n.State(state("closed", "primary lost"))
	n.Stopping()
	if c := strings.Count(log.String(), "connection refused"); c != 1 {
		t.Errorf("complained %d times:\n%s", c, log.String())
	}
}
