package page

import (
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/charmbracelet/bubbles/key"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/present"
)

// Events is the event log, filtered.
type Events struct {
	base
	filter   present.Filter
	chosen   chosen
	selected uint64 // by its sequence number
	rows     list   // where the list stands
	follow   bool
	typing   bool
	detail   bool
	high     int // rows that were shown last, for paging
}

// NewEvents makes the second screen; it follows until a row is selected.
func NewEvents() *Events { return &Events{follow: true} }

// Title names the screen.
func (*Events) Title() string { return "Events" }

var (
	keyFollow = bind("follow the newest", "f", "f")
	keyLevel  = bind("at least info, warn, error", "l", "l")
	keyNode   = bind("only one node", "n", "n")
	keySearch = bind("only those that contain a text", "/", "/")
	keyClear  = bind("no filter", "c", "c")
	keyEvent  = bind("all about the selected event", "enter", "enter")
)

// Keys of the screen.
func (*Events) Keys() []key.Binding {
	return append(moving(), keyEvent, keyFollow, keyLevel, keyNode, keySearch, keyClear)
}

// Batch is the screen's command.
func (e *Events) Batch(*Facts) string {
	line := "events" + e.filter.Flags()
	if e.filter.Text != "" {
		line += " --text " + strconv.Quote(e.filter.Text)
	}
	if e.follow {
		line += " --follow"
	}
	return line
}

// Capturing while the text of the filter is typed.
func (e *Events) Capturing() bool { return e.typing }

// Update handles a key.
func (e *Events) Update(pressed string, f *Facts) Wish {
	if e.typing {
		e.typed(pressed)
		return nil
	}
	shown := e.shown(f)
	if i, moves := step(pressed, e.at(shown), len(shown), max(1, e.high-1)); moves {
		e.follow = false
		if len(shown) > 0 {
			e.selected = shown[i].Seq
		}
		return nil
	}
	switch {
	case is(pressed, keyFollow):
		e.follow = !e.follow
	case is(pressed, keyLevel):
		e.filter.Level = after(present.Levels, e.filter.Level)
	case is(pressed, keyNode):
		e.filter.Node = after(append([]string{""}, nodeNames(f.State)...), e.filter.Node)
	case is(pressed, keySearch):
		e.typing = true
	case is(pressed, keyClear):
		e.filter = present.Filter{}
	case is(pressed, keyEvent):
		e.detail = !e.detail
	case is(pressed, keyBack):
		e.detail = false
	}
	return nil
}

// after is what follows in a circle; an unknown value counts as the first.
func after(all []string, v string) string {
	return all[(max(0, slices.Index(all, v))+1)%len(all)]
}

func (e *Events) typed(pressed string) {
	switch pressed {
	case "enter":
		e.typing = false
	case "esc":
		e.typing, e.filter.Text = false, ""
	case "backspace":
		if _, n := utf8.DecodeLastRuneInString(e.filter.Text); n > 0 {
			e.filter.Text = e.filter.Text[:len(e.filter.Text)-n]
		}
	default:
		if utf8.RuneCountInString(pressed) == 1 {
			e.filter.Text += pressed
		}
	}
}

func (e *Events) shown(f *Facts) []api.Event {
	if e.filter.Empty() {
		return f.Events
	}
	return e.chosen.of(f.Events, e.filter)
}

// at is the place of the selected event, the newest while it is followed, -1
// when it is not shown. Events come in order and the selected one is mostly
// among the newest.
func (e *Events) at(shown []api.Event) int {
	if e.follow {
		return len(shown) - 1
	}
	for i, ev := range slices.Backward(shown) {
		if ev.Seq == e.selected {
			return i
		}
	}
	return -1
}

// chosen keeps what a filter chose, so that a hundred thousand events are not
// looked through for each picture.
type chosen struct {
	filter present.Filter
	events []api.Event
	last   api.Event // that was looked at
	seen   int
}

func (c *chosen) of(all []api.Event, f present.Filter) []api.Event {
	goesOn := c.filter == f && c.seen > 0 && c.seen <= len(all) && all[c.seen-1].Seq == c.last.Seq && all[c.seen-1].At.Equal(c.last.At)
	if !goesOn {
		*c = chosen{filter: f}
	}
	for _, e := range all[c.seen:] {
		if f.Match(e) {
			c.events = append(c.events, e)
		}
	}
	if c.seen = len(all); c.seen > 0 {
		c.last = all[c.seen-1]
	}
	return c.events
}

// Rows shows the filter, the events and all about the selected one.
func (e *Events) Rows(f *Facts, width, height int) []Row {
	g := f.Glyphs
	shown := e.shown(f)
	follow := "follow off"
	if e.follow {
		follow = "following"
	}
	rows := []Row{{Line: Rule("EVENTS", fmt.Sprintf("%d of %d  %s", len(shown), len(f.Events), follow), width, g)}}
	filter := present.L(present.S(present.Muted, " filter "), present.S(present.Accent, e.filter.String()))
	if e.typing {
		filter = present.L(present.S(present.Muted, " text contains: "), present.S(present.Strong, e.filter.Text+"_"), present.S(present.Muted, "  enter keeps it, esc clears it"))
	}
	rows = append(rows, Row{Line: filter})
	at := e.at(shown)
	if e.follow && at >= 0 {
		e.selected = shown[at].Seq
	}
	var detail []Row
	if e.detail && at >= 0 {
		detail = append(detail, Row{Line: Rule("EVENT", "esc closes", width, g)})
		for _, l := range present.EventDetail(shown[at], width-2, g) {
			detail = append(detail, Row{Line: l.Indent(1)})
		}
		detail = detail[:min(len(detail), height/2)]
	}
	e.high = max(1, height-len(rows)-len(detail))
	from, to := e.rows.window(at, len(shown), e.high)
	for i := from; i < to; i++ {
		r := Row{Line: present.EventLine(shown[i], f.Now, g).Indent(1)}
		if i == at && !e.follow {
			r.Ground = Selected
			r.Line[0] = present.S(present.Accent, g.Select)
		}
		rows = append(rows, r)
	}
	if len(shown) == 0 {
		rows = append(rows, row(present.S(present.Muted, " no event matches")))
	}
	for len(detail) > 0 && len(rows) < height-len(detail) {
		rows = append(rows, Row{})
	}
	return append(rows, detail...)
}
