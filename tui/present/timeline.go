package present

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// Window is a part of a report's time, in milliseconds after its start.
type Window struct{ From, To float64 }

// WindowOf is the part of a report worth looking at first: from a second
// before the fault until the clients go on, or the steps are over.
func WindowOf(r api.DrillReport) Window {
	end := r.FaultAtMS + r.LongestPauseMS + 700
	for _, s := range r.Steps {
		if s.Started != nil {
			end = max(end, sinceStart(r, *s.Started)+s.TookMS+300)
		}
	}
	from := max(0, r.FaultAtMS-700)
	// A rejoin can take minutes; the moment of the fault is what matters.
	return Window{from, min(end, from+20_000)}
}

func sinceStart(r api.DrillReport, t time.Time) float64 {
	return float64(t.Sub(r.Started).Microseconds()) / 1000
}

// Timeline draws a report over time: the fault, the daemon's steps, the
// acknowledgements and what each client saw.
type Timeline struct {
	Report   api.DrillReport
	From, To float64
	Cursor   float64 // milliseconds after the start; below 0 is none
	Clients  int     // how many clients' lanes to draw
}

const laneHead = 14

// Lines draws the timeline in width cells.
func (t Timeline) Lines(width int, g Glyphs) []Line {
	w := max(20, width-laneHead-1)
	if t.To <= t.From {
		t.To = t.From + 1000
	}
	lane := func(title string, body Line) Line {
		return append(Line{S(Muted, fmt.Sprintf("%-*s", laneHead, cutText(title, laneHead-1, g)))}, body...)
	}
	out := []Line{lane("", t.axis(w, g))}
	out = append(out, lane("fault", t.fault(w, g)))
	out = append(out, lane("daemon", t.daemon(w, g)))
	out = append(out, lane("commits", t.acks(w, g)))
	for i, c := range t.Report.Clients {
		if i >= t.Clients {
			break
		}
		out = append(out, lane(Clean(c.Name), t.client(c, w, g)))
	}
	return out
}

func cutText(s string, n int, g Glyphs) string { return ansi.Truncate(s, n, g.Ellipsis) }

func (t Timeline) cell(ms float64, w int) int {
	return int((ms - t.From) / (t.To - t.From) * float64(w))
}

// axis names moments relative to the fault.
func (t Timeline) axis(w int, g Glyphs) Line {
	row := []rune(strings.Repeat(" ", w))
	step := niceStep((t.To - t.From) / float64(max(2, w/10)))
	first := float64(int((t.From-t.Report.FaultAtMS)/step)-1) * step
	for rel := first; rel <= t.To-t.Report.FaultAtMS; rel += step {
		at := t.cell(rel+t.Report.FaultAtMS, w)
		label := []rune(axisLabel(rel, step))
		if at < 0 || at+len(label) > w {
			continue
		}
		copy(row[at:], label)
	}
	line := L(S(Muted, string(row)))
	if t.Cursor < 0 {
		return line
	}
	return overlay(line, t.cell(t.Cursor, w), g.Cursor, Warn)
}

func axisLabel(ms, step float64) string {
	switch {
	case ms > -0.5 && ms < 0.5:
		return "|0"
	case step < 1000:
		return fmt.Sprintf("|%+.0fms", ms)
	}
	return fmt.Sprintf("|%+.0fs", ms/1000)
}

func niceStep(least float64) float64 {
	for _, s := range []float64{10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000} {
		if s >= least {
			return s
		}
	}
	return 300_000
}

func (t Timeline) fault(w int, g Glyphs) Line {
	at := t.cell(t.Report.FaultAtMS, w)
	if at < 0 || at >= w {
		return nil
	}
	text := g.Alarm
	for _, m := range t.Report.Marks {
		if m.Who == "fault" {
			text += " " + Clean(m.Text)
			break
		}
	}
	return L(S(Plain, strings.Repeat(" ", at)), S(Alarm, cutText(text, w-at, g)))
}

// daemon draws each step from its start to its end, named where there is
// room. The present lane has one line: steps come one after another.
func (t Timeline) daemon(w int, g Glyphs) Line {
	line := L(S(Plain, strings.Repeat(" ", w)))
	for i, s := range t.Report.Steps {
		if s.Started == nil {
			continue
		}
		from := sinceStart(t.Report, *s.Started)
		a, b := t.cell(from, w), t.cell(from+s.TookMS, w)
		if b < 0 || a >= w {
			continue
		}
		a, b = max(a, 0), min(b, w-1)
		tone := Accent
		if i%2 == 1 {
			tone = Good
		}
		if s.State == "failed" {
			tone = Alarm
		}
		room := b - a + 1
		text := strings.Repeat(g.Full, room)
		if name := stepName(s); room >= 6 {
			text = cutText(name, room-1, g)
			text += strings.Repeat(g.H, room-ansi.StringWidth(text))
		}
		line = replace(line, a, text, tone)
	}
	return line
}

// stepName is the last part of a kind: promote of node.promote.
func stepName(s api.Step) string {
	if i := strings.LastIndexByte(s.Kind, '.'); i >= 0 {
		return Clean(s.Kind[i+1:])
	}
	return Clean(s.Kind)
}

// acks is a sparkline of acknowledgements: the least of each cell's tenths of
// a second, because a mean hides a pause. No acknowledgement shows as a gap.
func (t Timeline) acks(w int, g Glyphs) Line {
	most := 1
	if len(t.Report.Acks) > 0 {
		most = max(1, slices.Max(t.Report.Acks))
	}
	var out Line
	for x := range w {
		from := t.From + (t.To-t.From)*float64(x)/float64(w)
		to := t.From + (t.To-t.From)*float64(x+1)/float64(w)
		a, b := max(0, int(from/100)), int((to-0.001)/100)
		if a >= len(t.Report.Acks) {
			break
		}
		least := t.Report.Acks[a]
		for i := a; i <= b && i < len(t.Report.Acks); i++ {
			least = min(least, t.Report.Acks[i])
		}
		if least == 0 {
			out = append(out, S(Alarm, g.Pending))
			continue
		}
		top := len(g.Levels) - 1
		// The least level looks like the gap in ASCII.
		out = append(out, S(Good, g.Levels[min(top, 2+least*(top-2)/most)]))
	}
	return join(out)
}

// client draws one client's errors on a line of its life.
func (t Timeline) client(c api.DrillClient, w int, g Glyphs) Line {
	line := L(S(Faint, strings.Repeat(g.H, w)))
	if c.LongestPauseMS > 0 {
		a, b := t.cell(t.Report.FaultAtMS, w), t.cell(t.Report.FaultAtMS+c.LongestPauseMS, w)
		if a < w && b >= 0 {
			a, b = max(0, a), min(w-1, b)
			line = replace(line, a, strings.Repeat(g.Light, b-a+1), Warn)
		}
	}
	for _, e := range c.Errors {
		if at := t.cell(e.AtMS, w); at >= 0 && at < w {
			line = replace(line, at, cutText(g.Alarm+e.Code, w-at, g), Alarm)
		}
	}
	return line
}

// Moments are the marks, steps and errors up to the cursor, the latest last:
// what a replay tells.
func (t Timeline) Moments() []Moment {
	r := t.Report
	var out []Moment
	for _, m := range r.Marks {
		if told(r, m) {
			continue
		}
		tone := Plain
		if m.Who == "fault" {
			tone = Alarm
		}
		out = append(out, Moment{m.AtMS, Clean(m.Who), Clean(m.Text), tone})
	}
	for _, s := range r.Steps {
		if s.Started != nil {
			text := Clean(s.Title) + " (" + MS(s.TookMS) + ")"
			tone := Plain
			if s.State == "failed" {
				text, tone = text+" FAILED: "+Clean(s.Detail), Alarm
			}
			out = append(out, Moment{sinceStart(r, *s.Started), "daemon", text, tone})
		}
	}
	for _, c := range r.Clients {
		for _, e := range c.Errors {
			text := Clean(e.Code + ": " + e.Text)
			if e.Outcome != "" {
				text += " (row " + Clean(e.Outcome) + ")"
			}
			out = append(out, Moment{e.AtMS, Clean(c.Name), text, Warn})
		}
	}
	slices.SortStableFunc(out, func(a, b Moment) int {
		switch {
		case a.AtMS < b.AtMS:
			return -1
		case a.AtMS > b.AtMS:
			return 1
		}
		return 0
	})
	return out
}

// told says that a mark is the beginning of a step, which is told with its
// duration.
func told(r api.DrillReport, m api.DrillMark) bool {
	return slices.ContainsFunc(r.Steps, func(s api.Step) bool {
		return s.Started != nil && s.Title == m.Text && math.Abs(sinceStart(r, *s.Started)-m.AtMS) < 50
	})
}

// Moment is one thing that happened in a drill.
type Moment struct {
	AtMS float64
	Who  string
	Text string
	Tone Tone
}

// Line shows a moment relative to the fault.
func (m Moment) Line(faultAt float64) Line {
	return L(S(Faint, fmt.Sprintf("%+9.0f ms  ", m.AtMS-faultAt)), S(Accent, fmt.Sprintf("%-12s ", m.Who)), S(m.Tone, m.Text))
}

// replace puts text over the cells of a line from at on.
func replace(l Line, at int, text string, tone Tone) Line {
	w := l.Width()
	end := at + ansi.StringWidth(text)
	out := append(Line{}, l.Cut(at, "")...)
	out = append(out, S(tone, text))
	if end < w {
		rest := Line{}
		x := 0
		for _, s := range l {
			n := ansi.StringWidth(s.Text)
			if x+n > end {
				rest = append(rest, S(s.Tone, ansi.Cut(s.Text, max(0, end-x), n)))
			}
			x += n
		}
		out = append(out, rest...)
	}
	return out.Cut(w, "")
}

func overlay(l Line, at int, text string, tone Tone) Line {
	if at < 0 || at >= l.Width() {
		return l
	}
	return replace(l, at, text, tone)
}
