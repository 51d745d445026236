package present_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/fixture"
	"github.com/pgtandem/pgtandem/tui/present"
)

func TestAFilterChooses(t *testing.T) {
	e := api.Event{Level: "warn", Kind: "node.lost", Node: "pgsql2", Text: "Connection refused", By: "engine", Op: "op-7"}
	for _, c := range []struct {
		filter present.Filter
		want   bool
	}{
		{present.Filter{}, true},
		{present.Filter{Level: "info"}, true},
		{present.Filter{Level: "warn"}, true},
		{present.Filter{Level: "error"}, false},
		{present.Filter{Node: "pgsql2"}, true},
		{present.Filter{Node: "pgsql"}, false}, // a whole name, or pgsql1 would show pgsql10
		{present.Filter{Text: "REFUSED"}, true},
		{present.Filter{Text: "node.lost"}, true},
		{present.Filter{Text: "op-7"}, true},
		{present.Filter{Text: "accepted"}, false},
		{present.Filter{Level: "warn", Node: "pgsql2", Text: "connection"}, true},
		{present.Filter{Level: "warn", Node: "pgsql1", Text: "connection"}, false},
	} {
		if got := c.filter.Match(e); got != c.want {
			t.Errorf("%s: %v", c.filter, got)
		}
	}
}

func TestAFilterReadsAsItIsTyped(t *testing.T) {
	for want, f := range map[string]present.Filter{
		"none":                               {Level: "info"},
		"level>=warn":                        {Level: "warn"},
		"level>=error node=pgsql2 text~slot": {Level: "error", Node: "pgsql2", Text: "slot"},
	} {
		if got := f.String(); got != want {
			t.Errorf("%+v reads %q, want %q", f, got, want)
		}
	}
}

// An event of today is told by its time, an older one by its day: a bare
// 03:11 of last week has misled people at night.
func TestAnEventOfAnotherDayCarriesItsDate(t *testing.T) {
	e := api.Event{At: fixture.Epoch, Level: "info", Kind: "x", Text: "y"}
	for want, today := range map[string]time.Time{
		"09:26:53.589 ":            fixture.Epoch.Add(time.Hour),
		"Mar 14 09:26 ":            fixture.Epoch.Add(24 * time.Hour),
		"2026-03-14 09:26:53.589 ": {},
	} {
		if got := present.EventLine(e, today, present.ASCII()).Text(); !strings.HasPrefix(got, want) {
			t.Errorf("on %s: %q, want %q first", today, got, want)
		}
	}
}

func TestTheLevelIsAWordAndNotOnlyAColour(t *testing.T) {
	for _, level := range present.Levels {
		got := present.EventLine(api.Event{Level: level}, fixture.Epoch, present.ASCII()).Text()
		if !strings.Contains(got, strings.ToUpper(level)) {
			t.Errorf("no %s in %q", level, got)
		}
	}
}

func TestAllThatFailoverLogRecordedIsShown(t *testing.T) {
	e := fixture.Events(fixture.Epoch)
	got := ""
	for _, x := range e {
		if x.Kind == "node.lost" {
			got = present.Text(present.EventDetail(x, 100, present.ASCII()))
		}
	}
	for _, want := range []string{"failed_node            pgsql2", "failed_host            192.0.2.12", "failed_port            5432", "old_primary            pgsql1"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
