package page

import (
	"strings"

	"github.com/charmbracelet/bubbles/key"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/present"
)

// Why is why the engine does what it does, and what it would do next: the rule
// in force, what stands recorded of each node, what a death would lead to, and
// what each policy leads to now.
type Why struct {
	base
	trace  bool // the facts and the rules that were looked at are shown too
	scroll scroll
	high   int
}

// NewWhy makes the sixth screen.
func NewWhy() *Why { return &Why{} }

// Title names the screen.
func (*Why) Title() string { return "Why" }

var (
	keyTrace       = bind("the facts, and the rules looked at before", "t", "t")
	keyMaintenance = bind("maintenance on or off", "M", "M")
)

// Keys of the screen.
func (*Why) Keys() []key.Binding { return append(moving(), keyTrace, keyMode, keyMaintenance) }

// Batch is the screen's command.
func (*Why) Batch(*Facts) string { return "explain" }

// Update handles a key.
func (w *Why) Update(pressed string, f *Facts) Wish {
	switch {
	case w.scroll.update(pressed, max(1, w.high-1)):
	case is(pressed, keyTrace):
		w.trace, w.scroll.top = !w.trace, 0
	case is(pressed, keyMode):
		return WantPlan{api.PlanRequest{Action: "set-mode", Mode: other(f.State.Mode)}}
	case is(pressed, keyMaintenance):
		return WantMaintenance{!f.State.Maintenance}
	}
	return nil
}

// Rows shows the parts one below the other.
func (w *Why) Rows(f *Facts, width, height int) []Row {
	if !f.Known {
		return []Row{{}, row(present.S(present.Muted, " waiting for the daemon's first word"))}
	}
	g := f.Glyphs
	var rows []Row
	for _, n := range present.Notices(f.State, g) {
		rows = append(rows, Rows(notice(n, width))...)
	}
	for _, p := range present.Why(f.State, f.Later(), w.trace, width-2, g) {
		rows = append(rows, Row{Line: Rule(p.Title, p.Note, width, g)})
		rows = append(rows, Rows(indent(p.Lines))...)
	}
	w.high = height
	if len(rows) > height && height > 1 {
		w.high-- // the last line says how much there is beyond it
	}
	shown := w.scroll.cut(rows, w.high)
	if below := len(rows) - w.scroll.top - len(shown); below > 0 {
		shown = append(shown[:len(shown):len(shown)], row(present.S(present.Muted, " "+present.Count(below, "line")+" more below (down, pgdn)")))
	}
	return grey(shown, f.Live)
}

// notice is what must be known before anything else, on as many lines as it
// needs.
func notice(n present.Line, width int) []present.Line {
	sign, text, _ := strings.Cut(n.Text(), " ")
	return present.Fold(present.L(present.S(n[0].Tone, " "+sign+" ")), n[0].Tone, text, width, false)
}
