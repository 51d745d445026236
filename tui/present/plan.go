package present

import (
	"fmt"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// PlanHead names a plan.
func PlanHead(p api.Plan) Line {
	l := L(S(Strong, strings.ToUpper(Clean(p.Action))))
	if p.Node != "" {
		l = append(l, S(Accent, " "+Clean(p.Node)))
	}
	if p.Mode != "" {
		l = append(l, S(Accent, " "+Clean(p.Mode)))
	}
	return append(l, S(Muted, "  plan "+Clean(p.ID)))
}

// PlanEffects is what the plan brings about and what to look out for.
func PlanEffects(p api.Plan, width int, g Glyphs) []Line {
	var out []Line
	if p.Reason != "" {
		out = append(out, L(S(Muted, "because "), S(Plain, Clean(p.Reason))).Cut(width, g.Ellipsis))
	}
	for _, e := range p.Effects {
		out = append(out, bullet(Plain, Good, g.Arrow, e, width)...)
	}
	for _, w := range p.Warn {
		out = append(out, bullet(Warn, Warn, g.Warn, w, width)...)
	}
	return out
}

func bullet(words, sign Tone, glyph, text string, width int) []Line {
	var out []Line
	for i, w := range Wrap(text, max(width-2, 8)) {
		if i == 0 {
			out = append(out, L(S(sign, glyph+" "), S(words, w)))
			continue
		}
		out = append(out, L(S(Plain, "  "), S(words, w)))
	}
	return out
}

// Detail says how much of each step of a plan is listed.
type Detail int

// Details of steps.
const (
	Titles   Detail = iota
	Commands        // and the command
	Proofs          // and how it is verified
)

// PlanSteps lists the steps that are ahead.
func PlanSteps(p api.Plan, detail Detail, width int, g Glyphs) []Line {
	var out []Line
	for i, s := range p.Steps {
		title := Clean(s.Title)
		if s.Optional {
			title += " (may fail)"
		}
		l := L(S(Muted, fmt.Sprintf("%3d ", i+1)), S(Plain, title))
		if right := expectation(s); right != "" && width > 40 {
			l = append(l.Fill(width-len(right)-1, g.Ellipsis), S(Muted, " "+right))
		} else if width > 0 {
			l = l.Cut(width, g.Ellipsis)
		} else if right != "" {
			l = append(l, S(Muted, "  "+right))
		}
		out = append(out, l)
		if detail >= Commands && s.Command != "" {
			out = append(out, limit(L(S(Faint, "      $ "), S(Muted, Clean(s.Command))), width, g))
		}
		if detail >= Proofs && s.Post != "" {
			out = append(out, limit(L(S(Faint, "      then "), S(Muted, Clean(s.Post))), width, g))
		}
	}
	return out
}

func limit(l Line, width int, g Glyphs) Line {
	if width <= 0 {
		return l
	}
	return l.Cut(width, g.Ellipsis)
}

// expectation is how long a step should take, and at most may.
func expectation(s api.Step) string {
	most := ""
	if s.DeadlineMS > 0 {
		most = "limit " + longTime(s.DeadlineMS)
	}
	if s.ExpectMS > 0 {
		return fmt.Sprintf("~%s  %s", MS(float64(s.ExpectMS)), most)
	}
	return most
}

func longTime(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	switch {
	case d < 10*time.Second && d%time.Second != 0:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour && d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return Duration(d)
}

// Plan is a whole plan as batch prints it.
func Plan(p api.Plan, g Glyphs) []Line {
	out := []Line{PlanHead(p)}
	out = append(out, PlanEffects(p, 100, g)...)
	out = append(out, L(S(Muted, "steps:")))
	out = append(out, PlanSteps(p, Proofs, 0, g)...)
	if len(p.Facts) > 0 {
		var facts []string
		for _, f := range p.Facts {
			facts = append(facts, f.Name+"="+f.Value)
		}
		out = append(out, L(S(Muted, "made from: "), S(Muted, Clean(strings.Join(facts, ", ")))))
	}
	return out
}

// Expected is how long the whole plan should take, 0 when nothing is known.
func Expected(steps []api.Step) time.Duration {
	var sum int64
	for _, s := range steps {
		sum += s.ExpectMS
	}
	return time.Duration(sum) * time.Millisecond
}

// StepSign gives the sign, the word and the tone of a step's state.
func StepSign(state string, g Glyphs) (sign, word string, tone Tone) {
	switch state {
	case "done":
		return g.OK, "done", Good
	case "running":
		return g.Running, "running", Accent
	case "skipped":
		return g.Skipped, "held already", Muted
	case "failed":
		return g.Alarm, "FAILED", Alarm
	case "unknown":
		return g.Unknown, "UNKNOWN", Warn
	}
	return g.Pending, "pending", Muted
}

// OperationSign does the same for an operation.
func OperationSign(state string, g Glyphs) (sign, word string, tone Tone) {
	switch state {
	case api.OpDone:
		return g.OK, "DONE", Good
	case api.OpRunning:
		return g.Running, "RUNNING", Accent
	case api.OpFailed:
		return g.Alarm, "FAILED", Alarm
	case api.OpStopped:
		return g.Warn, "STOPPED", Warn
	case api.OpUnknown:
		return g.Unknown, "OUTCOME UNKNOWN", Warn
	}
	return g.Unknown, strings.ToUpper(state), Muted
}

// OperationHead names an operation, how it stands and how long it took.
func OperationHead(op api.Operation, now time.Time, g Glyphs) Line {
	sign, word, tone := OperationSign(op.State, g)
	l := L(S(tone, sign+" "+word+" "), S(Strong, Clean(op.Plan.Action)))
	if target := Target(op); target != "" {
		l = append(l, S(Accent, " "+target))
	}
	return append(l, S(Muted, "  "+Clean(op.ID)+"  "), S(Plain, MS(Took(op, now))))
}

// Target is what an operation is about.
func Target(op api.Operation) string {
	if op.Drill != nil && op.Plan.Node == "" {
		return Clean(op.Drill.Name)
	}
	return Clean(Or(op.Plan.Node, op.Plan.Mode))
}

// Took is an operation's duration in milliseconds, until now where it runs.
func Took(op api.Operation, now time.Time) float64 {
	if op.Ended != nil || op.State != api.OpRunning {
		if op.TookMS > 0 || op.Ended == nil {
			return op.TookMS
		}
		return float64(op.Ended.Sub(op.Started).Microseconds()) / 1000
	}
	return max(0, float64(now.Sub(op.Started).Microseconds())/1000)
}

// StepLine is one step with its timing; batch prints it when the step ends.
func StepLine(i int, s api.Step, g Glyphs) Line {
	sign, word, tone := StepSign(s.State, g)
	l := L(S(tone, fmt.Sprintf("%s %2d ", sign, i+1)), S(Plain, Clean(s.Title)), S(tone, "  "+word))
	if s.State != "skipped" && s.TookMS > 0 {
		l = append(l, S(Muted, " in "+MS(s.TookMS)))
	}
	if s.Detail != "" {
		l = append(l, S(Muted, "  "+Clean(s.Detail)))
	}
	return l
}

// StepBars shows the steps of an operation with a bar for each: what it took
// against what was expected. All bars have one scale.
func StepBars(steps []api.Step, now time.Time, width int, g Glyphs) []Line {
	const timing = 20
	longest, most := 12, 1.0
	for _, s := range steps {
		most = max(most, stepTook(s, now), float64(s.ExpectMS))
		longest = max(longest, ansi.StringWidth(Clean(s.Title)))
	}
	titleWidth := min(longest, max(24, width-timing-22))
	barWidth := min(max(0, width-timing-titleWidth-8), 48)
	var out []Line
	for i, s := range steps {
		sign, word, tone := StepSign(s.State, g)
		titleTone := Plain
		if s.State == "pending" || s.State == "" || s.State == "skipped" {
			titleTone = Muted
		}
		l := L(S(tone, sign), S(Muted, fmt.Sprintf("%3d ", i+1)))
		l = append(l, L(S(titleTone, Clean(s.Title))).Fill(titleWidth, g.Ellipsis)...)
		l = append(l, S(tone, fmt.Sprintf(" %9s", stepWord(s, word, now))), S(Muted, fmt.Sprintf(" %9s ", expected(s))))
		if barWidth > 4 {
			l = append(l, bar(stepTook(s, now), float64(s.ExpectMS), most, barWidth, tone, g)...)
		}
		out = append(out, l.Cut(width, g.Ellipsis))
		if s.Detail != "" && (s.State == "failed" || s.State == "unknown") {
			for _, d := range WrapLines(tone, s.Detail, max(20, width-5), 0) {
				out = append(out, d.Indent(5))
			}
		}
	}
	return out
}

// stepWord is how long a step took, or how it stands.
func stepWord(s api.Step, word string, now time.Time) string {
	switch s.State {
	case "skipped":
		return "held"
	case "done", "running":
		if t := stepTook(s, now); t > 0 {
			return MS(t)
		}
	}
	return word
}

func expected(s api.Step) string {
	if s.ExpectMS <= 0 || s.State == "skipped" {
		return ""
	}
	return "~" + MS(float64(s.ExpectMS))
}

func stepTook(s api.Step, now time.Time) float64 {
	if s.State == "running" && s.Started != nil {
		return max(0, float64(now.Sub(*s.Started).Microseconds())/1000)
	}
	return s.TookMS
}

// bar draws value on a scale of most, to an eighth of a cell where the locale
// has such glyphs, with a mark where it was expected.
func bar(value, expect, most float64, width int, tone Tone, g Glyphs) Line {
	cells := value / most * float64(width)
	full := min(int(cells), width)
	part := ""
	if n := len(g.Parts); n > 0 && full < width {
		if i := int((cells - float64(full)) * float64(n)); i > 0 || (full == 0 && value > 0) {
			part = g.Parts[max(i, 1)-1]
		}
	} else if full == 0 && value > 0 {
		part = g.Full
	}
	ghost := -1
	if expect > 0 {
		ghost = min(int(expect/most*float64(width)), width-1)
	}
	if tone == Good && expect > 0 && value > 2*expect && value > 50 {
		tone = Warn
	}
	var out Line
	for i := range width {
		switch {
		case i < full:
			out = append(out, S(tone, g.Full))
		case i == full && part != "":
			out = append(out, S(tone, part))
		case i == ghost:
			out = append(out, S(Faint, g.Ghost))
		default:
			out = append(out, S(Plain, " "))
		}
	}
	return join(out)
}

// join merges neighbours of one tone.
func join(l Line) Line {
	var out Line
	for _, s := range l {
		if n := len(out); n > 0 && out[n-1].Tone == s.Tone {
			out[n-1].Text += s.Text
			continue
		}
		out = append(out, s)
	}
	return out
}

// OperationResult says how an operation ended, and what to do about it.
func OperationResult(op api.Operation, width int, g Glyphs) []Line {
	sign, word, tone := OperationSign(op.State, g)
	switch op.State {
	case api.OpRunning:
		return nil
	case api.OpDone:
		return []Line{L(S(tone, fmt.Sprintf("%s %s in %s", sign, word, MS(Took(op, op.Started)))))}
	}
	out := bullet(tone, tone, sign, word+": "+Or(op.Error, "no reason was given"), width)
	if op.State == api.OpUnknown {
		out = append(out, L(S(Plain, "  The daemon looks until it knows. Do not repeat the action.")))
	}
	return out
}

// Operation is a whole operation as batch prints it.
func Operation(op api.Operation, now time.Time, g Glyphs) []Line {
	out := []Line{OperationHead(op, now, g)}
	out = append(out, L(S(Muted, "started "+DateTime(op.Started)+"  by "+Or(Clean(op.Plan.By), "?")+"  because "+Or(Clean(op.Plan.Reason), "?"))))
	for i, s := range op.Plan.Steps {
		out = append(out, StepLine(i, s, g))
	}
	out = append(out, OperationResult(op, 100, g)...)
	if op.Drill != nil {
		out = append(out, nil)
		out = append(out, Report(*op.Drill, 100, g)...)
	}
	return out
}

// OperationsTable lists operations.
func OperationsTable(ops []api.Operation, now time.Time, selected string, g Glyphs) Table {
	t := Table{Columns: []Column{
		{Title: "STARTED"}, {Title: "ACTION"}, {Title: "TARGET"}, {Title: "STATE"}, {Title: "TOOK", Right: true, Keep: 80},
		{Title: "BY", Keep: 60}, {Title: "ID", Keep: 20}, {Title: "WHY", Keep: 40, Grow: true},
	}}
	for _, op := range ops {
		sign, word, tone := OperationSign(op.State, g)
		why := op.Plan.Reason
		if op.Error != "" {
			why = op.Error
		}
		t.Rows = append(t.Rows, Row{ID: op.ID, Mark: op.ID == selected, Cells: []Span{
			S(Muted, DateTime(op.Started)), S(Strong, op.Plan.Action), S(Accent, Or(Target(op), "-")), S(tone, sign+" "+strings.ToLower(word)),
			S(Plain, MS(Took(op, now))), S(Plain, Or(op.Plan.By, "-")), S(Muted, op.ID), S(Muted, why),
		}})
	}
	return t
}
