// Package page holds the console's screens: what each selects, shows and asks
// for. A page gets keys and facts and gives rows and wishes; it does no I/O,
// has no clock, and cannot change anything: what it wishes for is the app's to
// judge.
package page

import (
	"time"

	"github.com/charmbracelet/bubbles/key"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/present"
)

// Facts are what the console knows at one moment.
type Facts struct {
	Now      time.Time
	Glyphs   present.Glyphs
	State    api.State
	Known    bool // there has been a state
	Received time.Time
	Live     bool // the daemon answers
	Armed    bool
	Events   []api.Event
	Samples  Samples

	Drills     []api.DrillInfo
	Reports    []api.DrillReport
	Operations []api.Operation
	Files      api.SyncFiles
	Errors     map[Fetch]error // why something could not be read
	Fetched    map[Fetch]time.Time
}

// Later is how long ago the state came in.
func (f *Facts) Later() time.Duration { return max(0, f.Now.Sub(f.Received)) }

// Fetch names what a page wants read beyond the state and the events.
type Fetch string

// What can be read.
const (
	FetchDrills     Fetch = "drills"
	FetchOperations Fetch = "operations"
	FetchFiles      Fetch = "sync-files"
)

// Wish is what a page wants done. The app decides.
type Wish any

type (
	// Say shows a message.
	Say struct{ Text string }
	// WantPlan asks for a plan, as the first step of an action.
	WantPlan struct{ Request api.PlanRequest }
	// WantDrill asks to rehearse.
	WantDrill struct{ Drill api.DrillInfo }
	// WantMaintenance asks to turn the engine's hands off, or on again.
	WantMaintenance struct{ On bool }
	// WantAttach follows an operation.
	WantAttach struct{ Operation api.Operation }
)

// Page is a screen.
type Page interface {
	Title() string
	Keys() []key.Binding
	// Update handles a key.
	Update(pressed string, f *Facts) Wish
	// Rows fills width x height; fewer rows are padded, more are cut.
	Rows(f *Facts, width, height int) []Row
	// Batch is the page's --batch command.
	Batch(f *Facts) string
	// Needs is what it shows beyond state and events, "" when nothing.
	Needs() Fetch
	// Capturing says that the page takes every key, as while text is typed.
	Capturing() bool
	// Playing says that it moves by itself and wants to be told the time.
	Playing() bool
	// Tick tells the time to a page that plays.
	Tick(f *Facts)
}

// base is what most pages share.
type base struct{}

func (base) Capturing() bool { return false }
func (base) Playing() bool   { return false }
func (base) Tick(*Facts)     {}
func (base) Needs() Fetch    { return "" }

func bind(help string, show string, keys ...string) key.Binding {
	return key.NewBinding(key.WithKeys(keys...), key.WithHelp(show, help))
}

// is says whether a key is one of a binding's.
func is(pressed string, b key.Binding) bool {
	if !b.Enabled() {
		return false
	}
	for _, k := range b.Keys() {
		if k == pressed {
			return true
		}
	}
	return false
}

var (
	keyUp       = bind("up", "↑/k", "up", "k")
	keyDown     = bind("down", "↓/j", "down", "j")
	keyPageUp   = bind("a page up", "pgup", "pgup", "ctrl+b")
	keyPageDown = bind("a page down", "pgdn", "pgdown", "ctrl+f")
	keyHome     = bind("first", "home/g", "home", "g")
	keyEnd      = bind("last", "end/G", "end", "G")
	keyBack     = bind("back", "esc", "esc")
)

func moving() []key.Binding {
	return []key.Binding{keyUp, keyDown, keyPageUp, keyPageDown, keyHome, keyEnd}
}

// list selects a row by its name, so that rows that come, go or change places
// never move the selection to another one.
type list struct {
	id  string
	top int
}

// at is the selected row's place, -1 when it is not there.
func (l *list) at(ids []string) int {
	for i, id := range ids {
		if id == l.id {
			return i
		}
	}
	return -1
}

// update moves the selection; it says whether the key was one that moves.
func (l *list) update(pressed string, ids []string, page int) bool {
	i, moves := step(pressed, l.at(ids), len(ids), page)
	if moves && len(ids) > 0 {
		l.id = ids[i]
	}
	return moves
}

// step is where a key leads to from the i-th of n rows, and whether it is a
// key that moves.
func step(pressed string, i, n, page int) (int, bool) {
	switch {
	case is(pressed, keyUp):
		i--
	case is(pressed, keyDown):
		i++
	case is(pressed, keyPageUp):
		i -= page
	case is(pressed, keyPageDown):
		i += page
	case is(pressed, keyHome):
		i = 0
	case is(pressed, keyEnd):
		i = n - 1
	default:
		return i, false
	}
	return max(0, min(i, n-1)), true
}

// window is the part of n rows that fits into height and shows the selection.
func (l *list) window(at, n, height int) (from, to int) {
	height = max(height, 1)
	if at >= 0 {
		l.top = min(l.top, at)
		l.top = max(l.top, at-height+1)
	}
	l.top = max(0, min(l.top, n-height))
	return l.top, min(n, l.top+height)
}

// scroll is a text that is longer than its place.
type scroll struct{ top int }

func (s *scroll) update(pressed string, page int) bool {
	switch {
	case is(pressed, keyUp):
		s.top--
	case is(pressed, keyDown):
		s.top++
	case is(pressed, keyPageUp):
		s.top -= page
	case is(pressed, keyPageDown):
		s.top += page
	case is(pressed, keyHome):
		s.top = 0
	case is(pressed, keyEnd):
		s.top = 1 << 30
	default:
		return false
	}
	s.top = max(s.top, 0)
	return true
}

func (s *scroll) cut(rows []Row, height int) []Row {
	height = max(height, 1)
	s.top = max(0, min(s.top, len(rows)-height))
	return rows[s.top:min(len(rows), s.top+height)]
}

// tableRows turns a table's lines into rows, the marked one highlighted.
func tableRows(t present.Table, width int, g present.Glyphs) []Row {
	out := Rows(t.Lines(width, g))
	for i, r := range t.Rows {
		if r.Mark {
			out[i+1].Ground = Selected
		}
	}
	return out
}

// grey fades what is not known to be true any more.
func grey(rows []Row, live bool) []Row {
	if live {
		return rows
	}
	for i := range rows {
		rows[i].Line = rows[i].In(present.Faint)
	}
	return rows
}

// read adds to a note how old what the page needed is.
func read(f *Facts, what Fetch, note string) string {
	switch at := f.Fetched[what]; {
	case at.IsZero():
		return note
	case f.Errors[what] != nil:
		return note + "  not read now"
	default:
		return note + "  read " + present.Age(f.Now.Sub(at)) + " ago"
	}
}

func row(spans ...present.Span) Row { return Row{Line: present.L(spans...)} }
