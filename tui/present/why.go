package present

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// Part is a titled part of a longer view.
type Part struct {
	Title, Note string
	Lines       []Line
}

// Why tells why the engine does what it does, and what it would do next: the
// rule in force, what stands recorded of each node, what its death would lead
// to, and each policy with its present effect. later is how long ago the state
// came in. With trace it tells the facts and the rules that were looked at too.
func Why(s api.State, later time.Duration, trace bool, width int, g Glyphs) []Part {
	parts := []Part{ruleWhy(s, later, trace, width, g)}
	if trace {
		parts = append(parts, factsWhy(s, width))
		if len(s.Rule.Considered) > 0 {
			parts = append(parts, tableWhy(s, width, g))
		}
	}
	return append(parts, nodesWhy(s, later, width, g), deathsWhy(s, width, g), policiesWhy(s, width, g))
}

// explainWidth is what batch wraps an explanation at.
const explainWidth = 100

// Explain is Why as batch prints it.
func Explain(s api.State, g Glyphs) []Line {
	var out []Line
	for i, p := range Why(s, 0, true, explainWidth, g) {
		if i > 0 {
			out = append(out, nil)
		}
		head := L(S(Strong, p.Title))
		if p.Note != "" {
			head = append(head, S(Muted, "  "+p.Note))
		}
		out = append(out, head)
		for _, l := range p.Lines {
			out = append(out, l.Indent(1))
		}
	}
	return out
}

// Fold puts text behind a head, on more lines where it is long, unless one
// line is all there is room for.
func Fold(head Line, tone Tone, text string, width int, one bool) []Line {
	text = Clean(text)
	room := width - head.Width()
	if one || P(text).Width() <= room || room < 24 {
		return []Line{append(head, S(tone, text))}
	}
	var out []Line
	for i, w := range Wrap(text, room) {
		if i == 0 {
			out = append(out, append(head, S(tone, w)))
			continue
		}
		out = append(out, L(S(tone, w)).Indent(width-room))
	}
	return out
}

// hang puts text behind a head; its later lines stand under the head itself,
// so that a long head leaves them room.
func hang(head Line, tone Tone, text string, width, indent int) []Line {
	var out []Line
	line, room := "", max(8, width-head.Width())
	end := func() {
		if len(out) == 0 {
			out = append(out, append(head, S(tone, line)))
		} else {
			out = append(out, L(S(tone, line)).Indent(indent))
		}
		line, room = "", max(8, width-indent)
	}
	for _, w := range strings.Fields(Clean(text)) {
		if line != "" && P(line+" "+w).Width() > room || line == "" && len(out) == 0 && P(w).Width() > room {
			end()
		}
		if line != "" {
			line += " "
		}
		line += w
	}
	end()
	return out
}

// words is how the words beside a sign look: loud where the sign is.
func words(sign Tone) Tone {
	if sign == Warn || sign == Alarm {
		return sign
	}
	return Plain
}

func ago(now time.Time, t *time.Time) string {
	if t == nil {
		return ""
	}
	return Duration(max(0, now.Sub(*t)))
}

func ruleWhy(s api.State, later time.Duration, trace bool, width int, g Glyphs) Part {
	p := Part{Title: "RULE IN FORCE"}
	if s.Rule.Number == 0 {
		p.Lines = []Line{L(S(Muted, "none has been decided yet"))}
		return p
	}
	if s.Rule.Since != nil {
		p.Note = "for " + ago(s.At.Add(later), s.Rule.Since)
	}
	sign, tone := g.Level(s.Verdict.Level)
	head := L(S(tone, sign+" "), S(Accent, fmt.Sprint(s.Rule.Number)), S(Strong, " "+Clean(s.Rule.Name)+": "))
	p.Lines = hang(head, words(tone), s.Verdict.Text, width, 5)
	if s.Rule.Text != "" {
		p.Lines = append(p.Lines, hang(L(S(Muted, "  it is for when ")), Muted, s.Rule.Text, width, 4)...)
	}
	if n := len(s.Rule.Considered); n > 0 {
		line := fmt.Sprintf("  %s looked at before it and did not hold", wereRules(n-held(s.Rule)))
		if h := held(s.Rule); h > 0 {
			line += fmt.Sprintf(", %d held and will be tried again", h)
		}
		if !trace {
			line += ": t lists them"
		}
		p.Lines = append(p.Lines, WrapLines(Muted, line, width, 2)...)
	}
	return p
}

func wereRules(n int) string {
	if n == 1 {
		return "1 rule was"
	}
	return fmt.Sprintf("%d rules were", n)
}

func held(r api.Rule) int {
	n := 0
	for _, c := range r.Considered {
		if c.Held {
			n++
		}
	}
	return n
}

func factsWhy(s api.State, width int) Part {
	p := Part{Title: "FACTS", Note: "what the rules speak of"}
	for _, f := range s.Facts {
		p.Lines = append(p.Lines, Fold(L(S(Muted, fmt.Sprintf("%-19s", Clean(f.Name)))), Plain, f.Value, width, false)...)
	}
	if len(s.Facts) == 0 {
		p.Lines = []Line{L(S(Muted, "none are told"))}
	}
	return p
}

func tableWhy(s api.State, width int, g Glyphs) Part {
	p := Part{Title: "RULES LOOKED AT BEFORE IT", Note: "in their order; the first that holds is in force"}
	for _, c := range s.Rule.Considered {
		sign, tone := g.Pending+" ", Muted
		text := c.Text
		if c.Held {
			sign, tone = g.Warn+" ", Warn
			text = "held; its last attempt failed, and it will be tried again: " + text
		}
		p.Lines = append(p.Lines, hang(L(S(tone, fmt.Sprintf("%s%2d ", sign, c.Number)), S(Plain, Clean(c.Name)+": ")), tone, text, width, 5)...)
	}
	return p
}

func nodesWhy(s api.State, later time.Duration, width int, g Glyphs) Part {
	now := s.At.Add(later)
	p := Part{Title: "NODES", Note: fmt.Sprintf("term %d, primary %s", s.Term, Or(s.Primary, "none"))}
	t := Table{Columns: []Column{{Title: "NODE"}, {Title: "ROLE"}, {Title: "TL", Right: true, Keep: 50}, {Title: "SYNC SET", Keep: 70},
		{Title: "ELIGIBLE", Keep: 90}, {Title: "SINCE", Right: true, Keep: 40}, {Title: "PROMISE", Keep: 80, Grow: true}}}
	for _, n := range s.Nodes {
		since := Or(ago(now, n.EligibleSince), "-")
		if n.Name == s.Primary {
			since = "-"
		}
		t.Rows = append(t.Rows, Row{ID: n.Name, Cells: []Span{S(Accent, n.Name), roleCell(n, s, g), S(Plain, fmt.Sprint(n.Timeline)),
			setCell(n, s), eligibleWord(n, s, g), S(Plain, since), promiseCell(n, g)}})
	}
	// The table's first cell is for the mark of a selection, which there is
	// none of here.
	for _, l := range t.Lines(tableWidth(width), g) {
		p.Lines = append(p.Lines, l[1:])
	}
	for _, n := range s.Nodes {
		p.Lines = append(p.Lines, nodeReason(n, s, width, g)...)
	}
	p.Lines = append(p.Lines, PromotionLines(s, width, g)...)
	return p
}

func tableWidth(width int) int {
	if width == 0 {
		return 0
	}
	return width + 1
}

func setCell(n api.Node, s api.State) Span {
	switch {
	case n.Name == s.Primary:
		return S(Faint, "-")
	case n.InSyncSet:
		return S(Good, "in it")
	}
	return S(Warn, "not in it")
}

func eligibleWord(n api.Node, s api.State, g Glyphs) Span {
	switch {
	case n.Name == s.Primary && !n.Fenced:
		return S(Faint, "-")
	case n.Fenced:
		return S(Warn, g.Warn+" fenced")
	case n.Eligible:
		return S(Good, g.OK+" yes")
	}
	return S(Warn, g.Warn+" no")
}

func promiseCell(n api.Node, g Glyphs) Span {
	switch {
	case n.PromisedTerm == 0:
		return S(Faint, "none")
	case n.PromiseCounts:
		return S(Good, fmt.Sprintf("%s term %d at %s", g.OK, n.PromisedTerm, Or(n.PromisedLSN, "?")))
	}
	return S(Muted, fmt.Sprintf("past: term %d at %s", n.PromisedTerm, Or(n.PromisedLSN, "?")))
}

// nodeReason says why a node is eligible or not, and what else keeps it from
// being promoted.
func nodeReason(n api.Node, s api.State, width int, g Glyphs) []Line {
	if n.Name == s.Primary {
		return nil
	}
	head := L(S(Accent, n.Name), S(Muted, " "))
	word, tone := "is not eligible", Warn
	switch {
	case n.Fenced:
		word = "is fenced"
	case n.Eligible:
		word, tone = "is eligible", Plain
	}
	if n.EligibleLSN != "" {
		word += " (it held " + n.EligibleLSN + " then)"
	}
	if n.EligibleReason != "" {
		word += ": " + n.EligibleReason
	}
	if n.NotPromotable != "" && n.NotPromotable != n.EligibleReason {
		word, tone = word+"; it could not be promoted: "+n.NotPromotable, Warn
	}
	return hang(head, tone, word, width, 4)
}

// PromotionLines say how many promises a promotion would need, and has.
func PromotionLines(s api.State, width int, g Glyphs) []Line {
	p := s.Promotion
	if p.Term <= 1 {
		return nil // no primary is recorded yet
	}
	level, text := "ok", ""
	switch {
	case p.Needed == 0:
		level, text = "warn", "no promise would prove anything: commits wait for nobody"
	case p.Given >= p.Needed:
		text = fmt.Sprintf("needs %s and has %d", Count(p.Needed, "promise"), p.Given)
	case p.Able >= p.Needed:
		text = fmt.Sprintf("needs %s, has %d, could have %d", Count(p.Needed, "promise"), p.Given, p.Able)
	default:
		level, text = "alarm", fmt.Sprintf("needs %s, has %d, and could have only %d: %s silent", Count(p.Needed, "promise"), p.Given, p.Able, are(p.Silent))
	}
	if len(p.Candidates) > 0 {
		text += "; best " + p.Candidates[0]
	}
	sign, tone := g.Level(level)
	return hang(L(S(tone, sign+" "), S(Muted, fmt.Sprintf("promotion to term %d: ", p.Term))), words(tone), text, width, 4)
}

func are(names []string) string {
	if len(names) == 1 {
		return names[0] + " is"
	}
	return strings.Join(names, ", ") + " are"
}

// deathsWhy is what each node's death would lead to, for clients too.
func deathsWhy(s api.State, width int, g Glyphs) Part {
	p := Part{Title: "IF IT DIES NOW"}
	for _, v := range Consequences(s) {
		sign, tone := g.Level(v.Level)
		head := L(S(tone, sign+" "), S(Accent, v.Node), S(Muted, ": "))
		p.Lines = append(p.Lines, hang(head, words(tone), IfDiesText(v), width, 4)...)
		if v.Clients != "" {
			p.Lines = append(p.Lines, hang(L(S(Muted, "  clients: ")), Plain, v.Clients, width, 4)...)
		}
	}
	for _, v := range s.IfDies {
		if v.Gone {
			p.Lines = append(p.Lines, hang(L(S(Muted, g.Skipped+" "), S(Accent, v.Node), S(Muted, ": ")), Muted, IfDiesText(v), width, 4)...)
		}
	}
	if len(p.Lines) == 0 {
		p.Lines = []Line{L(S(Muted, "nothing can be said before a primary is recorded"))}
	}
	return p
}

// policiesWhy is each policy with what it leads to now; those that want a
// person's eye stand first.
func policiesWhy(s api.State, width int, g Glyphs) Part {
	p := Part{Title: "POLICIES", Note: "and what each leads to now"}
	for _, level := range []string{"alarm", "warn", "ok", ""} {
		for _, x := range s.Policies {
			if x.Level == level {
				p.Lines = append(p.Lines, policy(x, width, g)...)
			}
		}
	}
	return p
}

func policy(x api.Policy, width int, g Glyphs) []Line {
	sign, tone := g.Level(x.Level)
	if x.Level == "" {
		sign = g.Bullet
	}
	head := L(S(tone, sign+" "), S(Accent, Clean(x.Name)), S(Muted, " = "), S(Strong, Clean(x.Value)))
	out := []Line{head}
	if x.Now != "" {
		out = hang(append(head, S(Muted, ": ")), words(tone), x.Now, width, 4)
	}
	return append(out, hang(L(S(Plain, "    ")), Muted, x.Text, width, 4)...)
}

// MaintenanceEffects says what turning maintenance on, or off, leads to now.
func MaintenanceEffects(s api.State, on bool, width int, g Glyphs) []Line {
	if !on {
		out := Fold(L(S(Good, g.OK+" ")), Plain, "the engine acts again, at once, on what it sees", width, false)
		if s.Verdict.Level != "ok" {
			out = append(out, Fold(L(S(Warn, g.Warn+" now: ")), Warn, s.Verdict.Text, width, false)...)
		}
		return out
	}
	out := Fold(L(S(Warn, g.Warn+" ")), Warn, "the engine watches and does NOTHING, whatever fails, until maintenance is turned off", width, false)
	for _, text := range []string{
		"if the primary fails, no standby is promoted: clients wait to their limit and are turned away",
		"if a standby that commits wait for fails, commits wait, without an error and without an end",
	} {
		out = append(out, Fold(L(S(Muted, "  ")), Plain, text, width, false)...)
	}
	return append(out, Fold(L(S(Muted, "  ")), Muted, "a person can still promote, switch over, swap and rejoin by hand", width, false)...)
}
