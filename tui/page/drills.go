package page

import (
	"fmt"
	"time"

	"github.com/charmbracelet/bubbles/key"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/present"
)

// Drills are the failures that can be rehearsed, and the reports of those that
// were, each of which can be replayed.
type Drills struct {
	base
	rows   list
	replay *replay
}

// replay is a report that is being looked at.
type replay struct {
	report   api.DrillReport
	cursor   float64 // milliseconds after the start
	from, to float64
	speed    float64
	playing  bool
	clients  bool
	last     time.Time
}

// NewDrills makes the third screen.
func NewDrills() *Drills { return &Drills{} }

// Title names the screen.
func (*Drills) Title() string { return "Drills" }

var (
	keyDrill   = bind("run the selected drill", "d", "d")
	keyReplay  = bind("open the selected report", "enter", "enter")
	keyPlay    = bind("play, pause", "space", " ")
	keyLeft    = bind("to the moment before", "←", "left", "h")
	keyRight   = bind("to the next moment", "→", "right", "l")
	keyFaster  = bind("faster", "+", "+", "=")
	keySlower  = bind("slower", "-", "-")
	keyZoom    = bind("closer, wider", "z", "z")
	keyClients = bind("table or lanes of the clients", "c", "c")
)

// Keys of the screen.
func (d *Drills) Keys() []key.Binding {
	if d.replay != nil {
		return []key.Binding{keyPlay, keyLeft, keyRight, keyHome, keyEnd, keyFaster, keySlower, keyZoom, keyClients, keyBack}
	}
	return append(moving(), keyDrill, keyReplay)
}

// Needs the drills and reports.
func (*Drills) Needs() Fetch { return FetchDrills }

// Batch is the screen's command.
func (d *Drills) Batch(f *Facts) string {
	if d.replay != nil {
		return "drill --reports --json"
	}
	if i, ok := d.drill(f); ok {
		return "drill " + i.Name
	}
	return "drill --list"
}

// Replaying says that a report is open.
func (d *Drills) Replaying() bool { return d.replay != nil }

// Playing while a replay runs.
func (d *Drills) Playing() bool { return d.replay != nil && d.replay.playing }

// Open shows a report.
func (d *Drills) Open(r api.DrillReport) {
	w := present.WindowOf(r)
	d.rows.id = "report " + r.ID
	d.replay = &replay{report: r, cursor: r.FaultAtMS, from: w.From, to: w.To, speed: 0.25, clients: true}
}

// ids are the drills, then the reports.
func (d *Drills) ids(f *Facts) []string {
	var out []string
	for _, i := range f.Drills {
		out = append(out, "drill "+i.Name)
	}
	for _, r := range f.Reports {
		out = append(out, "report "+r.ID)
	}
	return out
}

func (d *Drills) drill(f *Facts) (api.DrillInfo, bool) {
	for _, i := range f.Drills {
		if d.rows.id == "drill "+i.Name {
			return i, true
		}
	}
	return api.DrillInfo{}, false
}

// Update handles a key.
func (d *Drills) Update(pressed string, f *Facts) Wish {
	if d.replay != nil {
		if is(pressed, keyBack) {
			d.replay = nil
			return nil
		}
		d.replay.update(pressed, f)
		return nil
	}
	if d.rows.id == "" && len(f.Drills) > 0 {
		d.rows.id = "drill " + f.Drills[0].Name
		if is(pressed, keyDown) || is(pressed, keyUp) {
			return nil
		}
	}
	switch {
	case d.rows.update(pressed, d.ids(f), 10):
	case is(pressed, keyDrill):
		i, ok := d.drill(f)
		switch {
		case !ok:
			return Say{"select a drill first (up, down)"}
		case !i.Allowed:
			return Say{"this drill may not run here: " + i.WhyNot}
		}
		return WantDrill{i}
	case is(pressed, keyReplay):
		for _, r := range f.Reports {
			if d.rows.id == "report "+r.ID {
				d.Open(r)
				return nil
			}
		}
		return Say{"enter opens a report; d runs the selected drill"}
	}
	return nil
}

func (p *replay) update(pressed string, f *Facts) {
	moments := present.Timeline{Report: p.report}.Moments()
	switch {
	case is(pressed, keyPlay):
		p.playing, p.last = !p.playing, f.Now
		if p.playing && p.cursor >= p.to {
			p.cursor = p.from
		}
	case is(pressed, keyLeft):
		for i := len(moments) - 1; i >= 0; i-- {
			if moments[i].AtMS < p.cursor-0.01 {
				p.cursor = moments[i].AtMS
				break
			}
		}
	case is(pressed, keyRight):
		for _, m := range moments {
			if m.AtMS > p.cursor+0.01 {
				p.cursor = m.AtMS
				break
			}
		}
	case is(pressed, keyHome):
		p.cursor = p.from
	case is(pressed, keyEnd):
		p.cursor = p.to
	case is(pressed, keyFaster):
		p.speed = min(16, p.speed*2)
	case is(pressed, keySlower):
		p.speed = max(1.0/64, p.speed/2)
	case is(pressed, keyZoom):
		p.zoom()
	case is(pressed, keyClients):
		p.clients = !p.clients
	}
	p.follow()
}

// zoom goes from the moments around the fault to the whole drill and back.
func (p *replay) zoom() {
	if w := present.WindowOf(p.report); p.to-p.from < p.report.TookMS-1 && p.from == w.From {
		p.from, p.to = 0, p.report.TookMS
	} else {
		p.from, p.to = w.From, w.To
	}
}

// follow moves the window where the cursor has left it.
func (p *replay) follow() {
	if width := p.to - p.from; p.cursor > p.to || p.cursor < p.from {
		p.from = max(0, p.cursor-width/4)
		p.to = p.from + width
	}
}

// Tick moves a replay that plays.
func (d *Drills) Tick(f *Facts) {
	p := d.replay
	if p == nil || !p.playing {
		return
	}
	p.cursor += float64(f.Now.Sub(p.last).Microseconds()) / 1000 * p.speed
	p.last = f.Now
	if p.cursor >= p.report.TookMS {
		p.cursor, p.playing = p.report.TookMS, false
	}
	p.follow()
}

// Rows shows the drills and reports, or the replay.
func (d *Drills) Rows(f *Facts, width, height int) []Row {
	if d.replay != nil {
		return d.replay.show(f, width, height)
	}
	g := f.Glyphs
	rows := []Row{{Line: Rule("DRILLS", "a failure rehearsed on purpose, measured, and put back", width, g)}}
	rows = append(rows, problem(f, FetchDrills)...)
	marked := func(prefix, id string) string {
		if d.rows.id == prefix+id {
			return id
		}
		return "\x00"
	}
	name := "\x00"
	for _, i := range f.Drills {
		if marked("drill ", i.Name) == i.Name {
			name = i.Name
		}
	}
	rows = append(rows, tableRows(present.DrillsTable(f.Drills, name, g), width, g)...)
	rows = append(rows, Row{}, Row{Line: Rule("REPORTS", read(f, FetchDrills, present.Count(len(f.Reports), "report")), width, g)})
	id := "\x00"
	at := -1
	for i, r := range f.Reports {
		if marked("report ", r.ID) == r.ID {
			id, at = r.ID, i
		}
	}
	table := tableRows(present.ReportsTable(f.Reports, id, g), width, g)
	rows = append(rows, table[0])
	from, to := d.rows.window(at, len(f.Reports), height-len(rows))
	rows = append(rows, table[1+from:1+to]...)
	if len(f.Reports) == 0 {
		rows = append(rows, row(present.S(present.Muted, " none yet; d runs the selected drill")))
	}
	return grey(rows, f.Live)
}

// problem says why something could not be read, or that it is being read.
func problem(f *Facts, what Fetch) []Row {
	if err := f.Errors[what]; err != nil {
		return []Row{row(present.S(present.Alarm, " "+f.Glyphs.Alarm+" "+present.Clean(err.Error())))}
	}
	if f.Fetched[what].IsZero() {
		return []Row{row(present.S(present.Muted, " asking the daemon"))}
	}
	return nil
}

func (p *replay) show(f *Facts, width, height int) []Row {
	g := f.Glyphs
	r := p.report
	word := "paused"
	if p.playing {
		word = "playing"
	}
	rows := []Row{{Line: present.ReportHead(r, g).Indent(1)}}
	for _, l := range append(present.ReportWhy(r, width-2, g), present.ReportFigures(r, g)...) {
		rows = append(rows, Row{Line: l.Indent(1)})
	}
	rows = append(rows, Row{Line: Rule("TIMELINE", fmt.Sprintf("%s  %+.0f ms from the fault  speed x%g", word, p.cursor-r.FaultAtMS, p.speed), width, g)})
	lanes := 0
	if p.clients && height >= 22 {
		lanes = min(len(r.Clients), max(0, height-20))
	}
	t := present.Timeline{Report: r, From: p.from, To: p.to, Cursor: p.cursor, Clients: lanes}
	for _, l := range t.Lines(width-2, g) {
		rows = append(rows, Row{Line: l.Indent(1)})
	}
	if !p.clients {
		rows = append(rows, Row{Line: Rule("WHAT EACH CLIENT SAW", "", width, g)})
		return append(rows, Rows(present.DrillClientsTable(r.Clients, g).Lines(width, g))...)
	}
	var checks []present.Line
	if height >= 26 {
		checks = present.ReportChecks(r, width-2, g)
	}
	rows = append(rows, Row{Line: Rule("WHAT HAPPENED", "left and right step through it", width, g)})
	room := height - len(rows)
	if len(checks) > 0 {
		room -= len(checks) + 1
	}
	rows = append(rows, p.moments(t.Moments(), room, f)...)
	if len(checks) > 0 {
		rows = append(rows, Row{Line: Rule("CHECKS", "", width, g)})
		for _, l := range checks {
			rows = append(rows, Row{Line: l.Indent(1)})
		}
	}
	return rows
}

// moments shows those around the cursor; what is still to come is faint.
func (p *replay) moments(ms []present.Moment, height int, f *Facts) []Row {
	at := -1
	for i, m := range ms {
		if m.AtMS <= p.cursor+0.01 {
			at = i
		}
	}
	height = max(1, height)
	from := max(0, min(at-height/2, len(ms)-height))
	to := min(len(ms), from+height)
	var rows []Row
	for i := from; i < to; i++ {
		r := Row{Line: ms[i].Line(p.report.FaultAtMS).Indent(1)}
		switch {
		case i == at:
			r.Ground = Selected
			r.Line[0] = present.S(present.Accent, f.Glyphs.Select)
		case i > at:
			r.Line = r.In(present.Faint)
		}
		rows = append(rows, r)
	}
	for len(rows) < height {
		rows = append(rows, Row{})
	}
	return rows
}
