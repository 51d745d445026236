package page

import (
	"github.com/charmbracelet/bubbles/key"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/present"
)

// Configuration is the sync and async configuration of the primary: which is
// in force, how they differ, and whether somebody has edited the one in force.
type Configuration struct {
	base
	view   int
	scroll scroll
	high   int
	placed bool // the first difference has been brought into view
}

// views of the two files.
const (
	viewBeside = iota
	viewDiff
	viewDrift
	views
)

// NewConfiguration makes the fourth screen.
func NewConfiguration() *Configuration { return &Configuration{} }

// Title names the screen.
func (*Configuration) Title() string { return "Configuration" }

var keyNextDifference = bind("the next difference", "n", "n")

var keyView = bind("side by side, as a diff, drift", "v", "v")

// Keys of the screen.
func (*Configuration) Keys() []key.Binding {
	return append(moving(), keyView, keyNextDifference, keyMode)
}

// Needs the files.
func (*Configuration) Needs() Fetch { return FetchFiles }

// Batch is the screen's command.
func (*Configuration) Batch(*Facts) string { return "sync-files" }

// Update handles a key.
func (c *Configuration) Update(pressed string, f *Facts) Wish {
	switch {
	case c.scroll.update(pressed, max(1, c.high-1)):
	case is(pressed, keyView):
		c.view, c.scroll.top, c.placed = (c.view+1)%views, 0, false
	case is(pressed, keyNextDifference):
		c.next(f)
	case is(pressed, keyMode):
		return WantPlan{api.PlanRequest{Action: "set-mode", Mode: other(f.State.Mode)}}
	}
	return nil
}

// Rows shows which is in force, and the files.
func (c *Configuration) Rows(f *Facts, width, height int) []Row {
	g := f.Glyphs
	s := f.Files
	rows := []Row{{Line: Rule("SYNC AND ASYNC", read(f, FetchFiles, "m swaps them"), width, g)}}
	rows = append(rows, problem(f, FetchFiles)...)
	if f.Fetched[FetchFiles].IsZero() {
		return rows
	}
	for _, l := range present.SyncFilesHead(s, g) {
		rows = append(rows, Row{Line: l.Indent(1)})
	}
	title, body := c.body(s, width, g)
	rows = append(rows, Row{Line: Rule(title, "v: side by side, diff, drift", width, g)})
	if c.view == viewBeside {
		rows = append(rows, Row{Line: heads(s, width, g)})
	}
	c.high = height - len(rows)
	if !c.placed {
		c.placed = true
		c.scroll.top = max(0, difference(body, 0)-c.high/2)
	}
	return grey(append(rows, c.scroll.cut(Rows(body), c.high)...), f.Live)
}

// difference is the first line of body that the two do not share, from a line
// on; -1 when there is none.
func difference(body []present.Line, from int) int {
	for i := from; i < len(body); i++ {
		for _, s := range body[i] {
			if s.Tone == present.Added || s.Tone == present.Removed {
				return i
			}
		}
	}
	return -1
}

// next goes to the next difference, and after the last to the first.
func (c *Configuration) next(f *Facts) {
	_, body := c.body(f.Files, 80, f.Glyphs)
	at := difference(body, min(c.scroll.top+c.high/2+1, len(body)))
	if at < 0 {
		at = difference(body, 0)
	}
	c.scroll.top = max(0, at-c.high/2)
}

func (c *Configuration) body(s api.SyncFiles, width int, g present.Glyphs) (string, []present.Line) {
	nothing := func(text string) []present.Line {
		return []present.Line{present.L(present.S(present.Muted, " "+text))}
	}
	switch c.view {
	case viewDiff:
		if s.Diff == "" {
			return "DIFF, SYNC TO ASYNC", nothing("the two do not differ")
		}
		return "DIFF, SYNC TO ASYNC", indent(present.Diff(s.Diff))
	case viewDrift:
		if s.Drift == "" {
			return "DRIFT", nothing("none: what is in force is what it should be")
		}
		return "DRIFT", indent(present.Diff(s.Drift))
	}
	return "SIDE BY SIDE", present.SideBySide(s.Sync, s.Async, width, g)
}

// heads names the two sides, and stays while they are scrolled.
func heads(s api.SyncFiles, width int, g present.Glyphs) present.Line {
	mark := func(name string) string {
		if s.InForce == name {
			return " (in force)"
		}
		return ""
	}
	return present.Heads("  "+heading(s, "sync")+mark("sync"), "  "+heading(s, "async")+mark("async"), width, g)
}

func heading(s api.SyncFiles, mode string) string {
	if s.Method == "files" {
		return "postgresql.conf." + mode
	}
	return mode
}

func indent(lines []present.Line) []present.Line {
	for i := range lines {
		lines[i] = lines[i].Indent(1)
	}
	return lines
}
