package present_test

import (
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/exp/golden"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/fixture"
	"github.com/pgtandem/pgtandem/tui/present"
)

// What --batch prints, whole, as a person or a script reads it. A change here
// is a change of the product: read the difference before it is accepted.
func TestWhatIsPrinted(t *testing.T) {
	at := fixture.Epoch
	plan := func(q api.PlanRequest) api.Plan {
		p, err := fixture.Plan(q, at)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	promote := plan(api.PlanRequest{Action: "promote", Node: "pgsql2"})
	failed := fixture.Run(promote, at)[3]
	failed.Plan.Steps = append([]api.Step(nil), failed.Plan.Steps...)
	failed.Plan.Steps[3].State, failed.Plan.Steps[3].Detail = "failed", "pgsql2 promised at 0/7A00000, behind the recorded 0/7A3F1C8"
	failed.State, failed.Error = api.OpStopped, "no member of the sync set holds every acknowledged commit"
	for name, lines := range map[string]func(g present.Glyphs) []present.Line{
		"status":                     func(g present.Glyphs) []present.Line { return present.Status(fixture.State(at), g) },
		"status of a lonely primary": func(g present.Glyphs) []present.Line { return present.Status(fixture.Lost(at), g) },
		"status of a halted engine": func(g present.Glyphs) []present.Line {
			s := fixture.Lost(at)
			s.Halted, s.Maintenance, s.GateState, s.Gate = "two primaries in term 4", true, "closed", api.Gate{State: "closed", Reason: "pgsql1 is gone", Held: 7, OldestHeldMS: 1250}
			s.Pool.Held = 7
			return present.Status(s, g)
		},
		"status of an abandoned pair": func(g present.Glyphs) []present.Line { return present.Status(fixture.Abandoned(at), g) },
		"status of an async by hand":  func(g present.Glyphs) []present.Line { return present.Status(fixture.ByHand(at), g) },
		"status while promises stand": func(g present.Glyphs) []present.Line {
			s := fixture.State(at)
			s.Nodes[1].PromisedTerm, s.Nodes[1].PromisedLSN, s.Nodes[1].PromiseCounts = 5, "0/7A3F1C8", true
			s.Promotion.Given, s.Promises = 1, []api.Promise{{Node: "pgsql2", Term: 5, LSN: "0/7A3F1C8"}}
			return present.Status(s, g)
		},
		"explain":                   func(g present.Glyphs) []present.Line { return present.Explain(fixture.State(at), g) },
		"explain a lonely primary":  func(g present.Glyphs) []present.Line { return present.Explain(fixture.Lost(at), g) },
		"explain an abandoned pair": func(g present.Glyphs) []present.Line { return present.Explain(fixture.Abandoned(at), g) },
		"explain an async by hand":  func(g present.Glyphs) []present.Line { return present.Explain(fixture.ByHand(at), g) },
		"explain silent members": func(g present.Glyphs) []present.Line {
			s := fixture.State(at)
			third := fixture.Standby()
			third.Name, third.Reachable, third.Reach, third.NotPromotable = "pgsql3", false, "timeout", "it does not answer"
			s.Nodes = append(s.Nodes, third)
			s.Nodes[1].NotPromotable = "pgsql3 does not answer and may hold commits that the others lack"
			s.Promotion = api.Promotion{Term: 5, Needed: 2, Able: 1, Silent: []string{"pgsql3"}}
			return present.Explain(s, g)
		},
		"explain before the first word": func(g present.Glyphs) []present.Line {
			return present.Explain(api.State{Verdict: api.Verdict{Level: "warn", Text: "the nodes are being looked at for the first time"}}, g)
		},
		"plan": func(g present.Glyphs) []present.Line { return present.Plan(promote, g) },
		"plan of a swap": func(g present.Glyphs) []present.Line {
			return present.Plan(plan(api.PlanRequest{Action: "set-mode", Mode: "async"}), g)
		},
		"operation": func(g present.Glyphs) []present.Line { return present.Operation(fixture.Promoted(at), at, g) },
		"operation that runs": func(g present.Glyphs) []present.Line {
			return present.Operation(fixture.Run(promote, at)[2], at.Add(250*time.Millisecond), g)
		},
		"operation that stopped": func(g present.Glyphs) []present.Line { return present.Operation(failed, at, g) },
		"report":                 func(g present.Glyphs) []present.Line { return present.Report(fixture.Report(at), 100, g) },
		"report of a failure":    func(g present.Glyphs) []present.Line { return present.Report(fixture.FailedReport(at), 100, g) },
		"sync-files":             func(g present.Glyphs) []present.Line { return present.SyncFiles(fixture.SyncFiles(), g) },
		"reload": func(g present.Glyphs) []present.Line {
			return present.Reload(api.ReloadResult{Applied: []string{"proxy.hold_timeout"}, Restart: []string{"proxy.port"}}, g)
		},
	} {
		t.Run(name, func(t *testing.T) { golden.RequireEqual(t, present.Text(lines(present.ASCII()))) })
	}
}

// Every ornament is one cell wide, in both sets, or tables and bars shift.
func TestOrnamentsAreOneCellWide(t *testing.T) {
	for name, g := range map[string]present.Glyphs{"ASCII": present.ASCII(), "Unicode": present.Unicode()} {
		one := []string{g.OK, g.Warn, g.Alarm, g.Running, g.Pending, g.Skipped, g.Unknown, g.Select, g.Ellipsis, g.Arrow, g.Dash, g.Bullet,
			g.H, g.V, g.TL, g.TR, g.BL, g.BR, g.LT, g.RT, g.Full, g.Ghost, g.Light, g.Left, g.Right}
		one = append(append(one, g.Parts...), g.Levels...)
		for _, s := range one {
			if w := present.P(s).Width(); w != 1 {
				t.Errorf("%s: %q is %d cells wide", name, s, w)
			}
			if name == "ASCII" && (len(s) != 1 || s[0] < ' ' || s[0] > '~') {
				t.Errorf("%q is not ASCII", s)
			}
		}
	}
}

// Good and bad have different signs in each set, so that no meaning is carried
// by a colour alone.
func TestMeaningsHaveDifferentSigns(t *testing.T) {
	for _, g := range []present.Glyphs{present.ASCII(), present.Unicode()} {
		levels, steps, ops := map[string]string{}, map[string]string{}, map[string]string{}
		for _, l := range []string{"ok", "warn", "alarm", "nonsense"} {
			sign, _ := g.Level(l)
			unique(t, levels, sign, l)
		}
		for _, s := range []string{"pending", "running", "done", "skipped", "failed", "unknown"} {
			sign, _, _ := present.StepSign(s, g)
			unique(t, steps, sign, s)
		}
		for _, s := range []string{api.OpRunning, api.OpDone, api.OpFailed, api.OpStopped, api.OpUnknown} {
			sign, _, _ := present.OperationSign(s, g)
			unique(t, ops, sign, s)
		}
	}
}

func unique(t *testing.T, seen map[string]string, sign, meaning string) {
	t.Helper()
	if other, taken := seen[sign]; taken {
		t.Errorf("%q means %s and %s", sign, meaning, other)
	}
	seen[sign] = meaning
}

func TestAStepThatTakesLongerThanExpectedIsSeen(t *testing.T) {
	steps := []api.Step{
		{Title: "as expected", State: "done", TookMS: 60, ExpectMS: 60},
		{Title: "much longer", State: "done", TookMS: 600, ExpectMS: 60},
		{Title: "not begun", State: "pending", ExpectMS: 60},
		{Title: "held already", State: "skipped", ExpectMS: 60},
	}
	got := present.Text(present.StepBars(steps, fixture.Epoch, 100, present.ASCII()))
	lines := strings.Split(got, "\n")
	if strings.Count(lines[0], "#") >= strings.Count(lines[1], "#") {
		t.Errorf("the longer step has no longer bar:\n%s", got)
	}
	if !strings.Contains(lines[1], "600 ms") || !strings.Contains(lines[1], "~60 ms") {
		t.Errorf("no numbers beside the bar:\n%s", got)
	}
	if strings.Contains(lines[2], "#") || !strings.Contains(lines[2], "pending") || !strings.Contains(lines[3], "held") {
		t.Errorf("steps that did not run:\n%s", got)
	}
}

// A step that failed says why, in full, since that is what a person acts on.
func TestWhyAStepFailedIsNeverCut(t *testing.T) {
	why := strings.Repeat("a long reason ", 12) + "THE END"
	steps := []api.Step{{Title: "promote", State: "failed", Detail: why}}
	got := present.Text(present.StepBars(steps, fixture.Epoch, 60, present.ASCII()))
	if !strings.Contains(got, "THE END") {
		t.Errorf("cut:\n%s", got)
	}
}

func TestAPauseIsAGapInTheCommits(t *testing.T) {
	r := fixture.Report(fixture.Epoch)
	line := func(from, to float64) string {
		l := present.Timeline{Report: r, From: from, To: to, Cursor: -1}.Lines(85, present.ASCII())
		return l[3].Text()[14:]
	}
	if got := line(1500, 2900); !strings.Contains(got, "....") {
		t.Errorf("no gap in %q", got)
	}
	// Seen from far, where one cell holds many tenths of a second, the pause
	// is still there: a mean would have hidden it.
	if got := line(0, 9000); strings.Count(got, ".") == 0 {
		t.Errorf("no gap in %q", got)
	}
	if got := line(3000, 9000); strings.Contains(got, ".") {
		t.Errorf("a gap where there was none: %q", got)
	}
	// Few are not none.
	for i := range r.Acks {
		r.Acks[i] = min(1, r.Acks[i])
	}
	r.Acks[0] = 1000
	if got := line(3000, 9000); strings.Contains(got, ".") {
		t.Errorf("a gap where there were few: %q", got)
	}
}

func TestAReplayTellsMomentsInTheirOrder(t *testing.T) {
	moments := present.Timeline{Report: fixture.Report(fixture.Epoch)}.Moments()
	var who []string
	for i, m := range moments {
		if i > 0 && m.AtMS < moments[i-1].AtMS {
			t.Errorf("%.0f ms comes after %.0f ms", m.AtMS, moments[i-1].AtMS)
		}
		who = append(who, m.Who)
	}
	all := strings.Join(who, " ")
	for _, want := range []string{"fault daemon", "lasting-1", "connecting-1", "restore"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in %s", want, all)
		}
	}
}

// The window is on the fault, whatever else took long.
func TestTheWindowShowsTheFaultAndThePause(t *testing.T) {
	r := fixture.Report(fixture.Epoch)
	w := present.WindowOf(r)
	if w.From > r.FaultAtMS || w.To < r.FaultAtMS+r.LongestPauseMS || w.To-w.From > 20_000 {
		t.Errorf("%.0f to %.0f for a fault at %.0f", w.From, w.To, r.FaultAtMS)
	}
}

func FuzzATimelineStaysInItsPlace(f *testing.F) {
	f.Add(0.0, 9000.0, 2012.0, 100, 4)
	f.Add(2000.0, 2000.0, -1.0, 20, 0)
	f.Add(-5.0, 1e7, 3.5, 41, 9)
	f.Fuzz(func(t *testing.T, from, to, cursor float64, width, clients int) {
		if width < 36 || width > 300 || from != from || to != to || from < -1e6 || to > 1e7 {
			return
		}
		tl := present.Timeline{Report: fixture.Report(fixture.Epoch), From: from, To: to, Cursor: cursor, Clients: clients}
		for _, l := range tl.Lines(width, present.Unicode()) {
			if l.Width() > width {
				t.Fatalf("%d to %q of %d", width, l.Text(), l.Width())
			}
		}
	})
}
