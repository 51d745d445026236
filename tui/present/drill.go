package present

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// DrillsTable lists what can be rehearsed.
func DrillsTable(ds []api.DrillInfo, selected string, g Glyphs) Table {
	t := Table{Columns: []Column{{Title: "DRILL"}, {Title: "FAULT", Keep: 50}, {Title: "EXPECTED", Keep: 40, Grow: true}, {Title: "MAY RUN"}}}
	for _, d := range ds {
		may := S(Good, g.OK+" yes")
		if !d.Allowed {
			may = S(Warn, g.Warn+" no: "+d.WhyNot)
		}
		t.Rows = append(t.Rows, Row{ID: d.Name, Mark: d.Name == selected, Cells: []Span{
			S(Accent, d.Name), S(Plain, d.Fault), S(Muted, d.Expects), may,
		}})
	}
	return t
}

// ReportsTable lists reports.
func ReportsTable(rs []api.DrillReport, selected string, g Glyphs) Table {
	t := Table{Columns: []Column{
		{Title: "STARTED"}, {Title: "DRILL"}, {Title: "VERDICT"}, {Title: "PAUSE", Right: true}, {Title: "LOST", Right: true},
		{Title: "ERRORS", Right: true, Keep: 60}, {Title: "ACKED", Right: true, Keep: 50}, {Title: "TOOK", Right: true, Keep: 40},
		{Title: "WHY", Keep: 30, Grow: true},
	}}
	for _, r := range rs {
		t.Rows = append(t.Rows, Row{ID: r.ID, Mark: r.ID == selected, Cells: []Span{
			S(Muted, DateTime(r.Started)), S(Accent, r.Name), drillVerdict(r, g), S(Strong, MS(r.LongestPauseMS)), lostCell(r.Lost),
			S(Plain, fmt.Sprint(countErrors(r)+r.ConnectErrors)), S(Plain, Thousands(uint64(max(0, r.Acknowledged)))),
			S(Plain, MS(r.TookMS)), S(Muted, strings.Join(r.Why, "; ")),
		}})
	}
	return t
}

func drillVerdict(r api.DrillReport, g Glyphs) Span {
	if r.Verdict == "pass" {
		return S(Good, g.OK+" PASS")
	}
	return S(Alarm, g.Alarm+" "+strings.ToUpper(Or(r.Verdict, "no verdict")))
}

func lostCell(n int) Span {
	if n > 0 {
		return S(Alarm, fmt.Sprint(n))
	}
	return S(Good, "0")
}

func countErrors(r api.DrillReport) int {
	n := 0
	for _, c := range r.Errors {
		n += c
	}
	return n
}

// ReportHead is the verdict of a drill in one line.
func ReportHead(r api.DrillReport, g Glyphs) Line {
	return L(drillVerdict(r, g), S(Strong, "  "+Clean(r.Name)), S(Muted, "  on "), S(Accent, Clean(r.Cluster)),
		S(Muted, "  "+DateTime(r.Started)+"  took "+MS(r.TookMS)))
}

// ReportFigures is what the clients went through, in numbers.
func ReportFigures(r api.DrillReport, g Glyphs) []Line {
	lost := S(Good, g.OK+" none lost")
	if r.Lost > 0 {
		lost = S(Alarm, fmt.Sprintf("%s %d LOST", g.Alarm, r.Lost))
	}
	out := []Line{
		L(S(Muted, "longest pause "), S(Strong, MS(r.LongestPauseMS)), S(Muted, "   acknowledged "), S(Strong, Thousands(uint64(max(0, r.Acknowledged)))),
			S(Muted, "   of them "), lost),
		L(S(Muted, "errors        "), S(Plain, errorList(r.Errors)), S(Muted, fmt.Sprintf("   in flight at the fault %d", r.InFlight)),
			S(Muted, "   refused connections "), S(Plain, fmt.Sprint(r.ConnectErrors))),
		L(S(Muted, "outcome unknown "), S(Plain, fmt.Sprint(r.Unknown)), S(Muted, fmt.Sprintf(" (%d of them had been written)", r.UnknownPresent)),
			S(Muted, "   slowest connection "), S(Plain, MS(r.LongestConnectMS))),
	}
	return out
}

func errorList(errs map[string]int) string {
	var w []string
	for _, k := range slices.Sorted(maps.Keys(errs)) {
		w = append(w, fmt.Sprintf("%s %dx", Clean(k), errs[k]))
	}
	return Or(strings.Join(w, ", "), "none")
}

// ReportWhy is why a drill failed.
func ReportWhy(r api.DrillReport, width int, g Glyphs) []Line {
	var out []Line
	for _, w := range r.Why {
		out = append(out, bullet(Alarm, Alarm, g.Alarm, w, width)...)
	}
	return out
}

// ReportChecks are the recipe's own checks.
func ReportChecks(r api.DrillReport, width int, g Glyphs) []Line {
	var out []Line
	for _, c := range r.Checks {
		sign, word, tone := g.OK, "ok", Good
		if !c.OK {
			sign, word, tone = g.Alarm, "FAILED", Alarm
		}
		l := L(S(tone, sign+" "+word+"  "), S(Plain, Clean(c.Name)))
		if c.Saw != "" {
			l = append(l, S(Muted, "  saw "+Clean(c.Saw)))
		}
		out = append(out, limit(l, width, g))
	}
	return out
}

// DrillClientsTable is what each client saw.
func DrillClientsTable(cs []api.DrillClient, g Glyphs) Table {
	t := Table{Columns: []Column{{Title: "CLIENT"}, {Title: "KIND"}, {Title: "ACKED", Right: true}, {Title: "PAUSE", Right: true}, {Title: "SAW", Grow: true}}}
	for _, c := range cs {
		saw := S(Good, g.OK+" no error")
		if len(c.Errors) > 0 {
			saw = S(Warn, clientErrors(c.Errors))
		}
		t.Rows = append(t.Rows, Row{ID: c.Name, Cells: []Span{S(Accent, c.Name), S(Muted, c.Kind), num(c.Acknowledged), S(Plain, MS(c.LongestPauseMS)), saw}})
	}
	return t
}

func clientErrors(es []api.DrillError) string {
	var w []string
	for _, e := range es {
		s := fmt.Sprintf("%s at %s", e.Code, MS(e.AtMS))
		if e.Outcome != "" {
			s += " (row " + e.Outcome + ")"
		}
		w = append(w, s+": "+e.Text)
	}
	return strings.Join(w, "; ")
}

// Report is a whole report as batch prints it.
func Report(r api.DrillReport, width int, g Glyphs) []Line {
	out := []Line{ReportHead(r, g)}
	out = append(out, ReportWhy(r, width, g)...)
	out = append(out, ReportFigures(r, g)...)
	out = append(out, nil)
	out = append(out, Timeline{Report: r, From: WindowOf(r).From, To: WindowOf(r).To, Cursor: -1}.Lines(width, g)...)
	out = append(out, nil)
	out = append(out, L(S(Muted, "what the daemon did:")))
	for i, s := range r.Steps {
		out = append(out, StepLine(i, s, g).Indent(1))
	}
	out = append(out, L(S(Muted, "checks:")))
	for _, l := range ReportChecks(r, 0, g) {
		out = append(out, l.Indent(1))
	}
	out = append(out, DrillClientsTable(r.Clients, g).Lines(0, g)...)
	return out
}
