package app

import (
	"fmt"
	"strings"

	"github.com/charmbracelet/bubbles/key"

	"github.com/pgtandem/pgtandem/tui/batch"
	"github.com/pgtandem/pgtandem/tui/page"
	"github.com/pgtandem/pgtandem/tui/present"
)

// The least size in which a screen says what it must.
const (
	leastWidth  = 60
	leastHeight = 20
	roomy       = 28 // from here on there is room for an empty line
)

// View draws exactly height lines of width cells.
func (m *Model) View() string {
	if m.width <= 0 || m.height <= 0 {
		return ""
	}
	t := m.opt.Theme
	if m.width < leastWidth || m.height < leastHeight {
		return t.Screen(m.tooSmall(), m.width, m.height)
	}
	rows := []page.Row{m.header(), m.tabs()}
	if b := m.banner(); b != nil {
		rows = append(rows, *b)
	}
	if m.height >= roomy {
		rows = append(rows, page.Row{})
	}
	foot := m.footer()
	room := m.height - len(rows) - len(foot)
	rows = append(rows, fit(m.body(m.width, room), room)...)
	return t.Screen(append(rows, foot...), m.width, m.height)
}

func fit(rows []page.Row, n int) []page.Row {
	for len(rows) < n {
		rows = append(rows, page.Row{})
	}
	return rows[:max(0, n)]
}

func (m *Model) body(width, height int) []page.Row {
	switch {
	case m.help:
		return m.helpRows(width, height)
	case m.flow != nil:
		return m.flowRows(m.flow, width, height)
	case m.batch:
		rows := []page.Row{{Line: page.Rule("AS A COMMAND", "any key closes", width, m.facts.Glyphs)}, {}}
		for _, l := range present.WrapLines(present.Strong, m.commandLine(m.page().Batch(&m.facts)), width-2, 4) {
			rows = append(rows, page.Row{Line: l.Indent(1)})
		}
		return rows
	}
	if !m.facts.Known && m.link.err != nil {
		head, _, remedy, _ := explain(m.link.err)
		rows := append([]page.Row{{}}, indented(present.WrapLines(present.Plain, head, width-2, 0))...)
		return append(rows, indented(present.WrapLines(present.Plain, remedy, width-2, 0))...)
	}
	return m.page().Rows(&m.facts, width, height)
}

// commandLine is a batch command as it is typed in a shell.
func (m *Model) commandLine(command string) string {
	line := "pgtandem"
	if m.opt.Socket != "" {
		line += " --socket " + batch.Quote(m.opt.Socket)
	}
	return line + " --batch " + command
}

// tooSmall says what size is needed, and the verdict, which somebody may be
// looking for in a hurry.
func (m *Model) tooSmall() []page.Row {
	g := m.facts.Glyphs
	var lines []present.Line
	if b := m.banner(); b != nil {
		lines = append(lines, present.WrapLines(present.Alarm, strings.TrimSpace(b.Text()), m.width, 0)...)
	}
	if m.facts.Known {
		for _, v := range present.Verdict(m.facts.State, g) {
			tone := v[0].Tone
			lines = append(lines, present.WrapLines(tone, v.Text(), m.width, 0)...)
		}
	}
	size := present.WrapLines(present.Muted, fmt.Sprintf("needs %dx%d, has %dx%d", leastWidth, leastHeight, m.width, m.height), m.width, 0)
	lines = lines[:max(0, min(len(lines), m.height-len(size)))]
	return page.Rows(append(lines, size...))
}

// sides puts two lines at the ends of one.
func sides(left, right present.Line, width int, tail string) present.Line {
	room := width - right.Width()
	if room < 10 {
		return left.Fill(width, tail)
	}
	return append(left.Fill(room, tail), right...)
}

func (m *Model) header() page.Row {
	s := m.facts.State
	left := present.L(present.S(present.Strong, " pgtandem "))
	if m.facts.Known {
		left = append(left, present.S(present.Accent, " "+present.Clean(present.Or(s.Cluster, "(no name)"))))
		if s.Lab && s.Cluster != "lab" {
			left = append(left, present.S(present.Muted, " lab"))
		}
		if s.Maintenance {
			left = append(left, present.S(present.Warn, " "+m.facts.Glyphs.Warn+" MAINT"))
		}
		primary, mode := "  primary ", "  mode "
		if m.width < 96 {
			primary, mode = "  ", "  "
		}
		left = append(left, present.S(present.Muted, primary), present.S(present.Strong, present.Or(s.Primary, "no primary")),
			present.S(present.Muted, mode), present.S(present.Strong, present.Or(s.Mode, "?")))
	}
	arms := present.S(present.Muted, "READ-ONLY (W arms) ")
	if m.width < 72 || s.Maintenance {
		arms.Text = "READ-ONLY "
	}
	if !m.armedUntil.IsZero() {
		arms = present.S(present.Warn, m.facts.Glyphs.Warn+" ARMED "+present.Duration(m.armedUntil.Sub(m.facts.Now))+" ")
	}
	live := present.S(present.Muted, " connecting")
	switch {
	case m.link.live:
		age := m.facts.Later()
		live = present.S(present.Good, " LIVE "+present.Age(age))
		if present.FreshnessOf(age) != present.Fresh {
			live.Tone = present.Warn
		}
	case m.facts.Known:
		live = present.S(present.Alarm, " LOST "+present.Age(m.facts.Later()))
	}
	clock := present.S(present.Muted, "  "+m.facts.Now.Format("15:04:05")+" ")
	right := present.L(arms, live, clock)
	if m.width < 72 {
		right = present.L(arms, live, present.S(present.Plain, " "))
	}
	return page.Row{Line: sides(left, right, m.width, m.facts.Glyphs.Ellipsis), Ground: page.Bar}
}

func (m *Model) tabs() page.Row {
	var l present.Line
	for i, p := range m.pages {
		title := p.Title()
		if m.width < 64 {
			title = strings.NewReplacer("Configuration", "Config", "Operations", "Ops").Replace(title)
		}
		name := fmt.Sprintf(" %d %s ", i+1, title)
		if i == m.at {
			l = append(l, present.S(present.Marked, "["+strings.TrimSpace(name)+"]"))
			continue
		}
		l = append(l, present.S(present.Muted, name))
	}
	return page.Row{Line: l}
}

// banner says that the daemon is gone, and how old everything is.
func (m *Model) banner() *page.Row {
	if m.link.live || (m.link.err == nil && !m.facts.Known) {
		return nil
	}
	g := m.facts.Glyphs
	text := fmt.Sprintf(" %s NO ANSWER from the daemon for %s", g.Alarm, present.Age(m.facts.Now.Sub(m.link.since)))
	if m.facts.Known {
		text += "; all below is " + present.Age(m.facts.Later()) + " old; actions are off"
	}
	if m.link.err != nil {
		text += "; trying again: " + present.Clean(m.link.err.Error())
	}
	return &page.Row{Line: present.L(present.S(present.Alarm, text)), Ground: page.Banner}
}

// footer is the message, or what the keys do.
func (m *Model) footer() []page.Row {
	if m.message != "" {
		return []page.Row{{Line: present.L(present.S(present.Strong, " "+present.Clean(m.message))), Ground: page.Bar}}
	}
	hints := m.hints()
	for len(hints) > 3 && m.hintLine(hints).Width() > m.width {
		hints = append(hints[:len(hints)-3], hints[len(hints)-2:]...) // help and quit stay
	}
	return []page.Row{{Line: m.hintLine(hints), Ground: page.Bar}}
}

func (m *Model) hintLine(hints []key.Binding) present.Line {
	l := present.L(present.S(present.Plain, " "))
	for _, b := range hints {
		l = append(l, present.S(present.Accent, m.glyphs(b.Help().Key)), present.S(present.Muted, " "+b.Help().Desc+"  "))
	}
	return l
}

// glyphs writes arrows as a locale without them has them.
func (m *Model) glyphs(s string) string {
	if m.facts.Glyphs.H != "-" {
		return s
	}
	return strings.NewReplacer("↑/", "up/", "↓/", "down/", "↑ ↓", "up down", "←", "left", "→", "right").Replace(s)
}

// hints are the keys that matter most now.
func (m *Model) hints() []key.Binding {
	short := func(b key.Binding, desc string) key.Binding { return bind(desc, b.Help().Key, b.Keys()...) }
	switch {
	case m.help:
		return []key.Binding{bind("scrolls", "↑ ↓"), bind("closes", "any key")}
	case m.flow != nil:
		return m.flow.hints()
	}
	var out []key.Binding
	if !m.facts.Armed {
		out = append(out, short(keyArm, "arm"))
	}
	switch m.page().(type) {
	case *page.Overview:
		out = append(out, bind("why", "w"), bind("node", "enter"), bind("promote", "p"), bind("switchover", "s"), bind("mode", "m"), bind("rejoin", "R"), bind("maintenance", "M"))
	case *page.Why:
		out = append(out, bind("scroll", "↑ ↓"), bind("trace", "t"), bind("mode", "m"), bind("maintenance", "M"))
	case *page.Events:
		out = append(out, bind("filter", "/"), bind("level", "l"), bind("node", "n"), bind("follow", "f"), bind("open", "enter"))
	case *page.Drills:
		if m.page().(*page.Drills).Replaying() {
			out = append(out, bind("play", "space"), bind("step", "← →"), bind("speed", "+ -"), bind("zoom", "z"), bind("clients", "c"), bind("back", "esc"))
		} else {
			out = append(out, bind("run", "d"), bind("replay", "enter"))
		}
	case *page.Configuration:
		out = append(out, bind("view", "v"), bind("swap", "m"))
	case *page.Operations:
		out = append(out, bind("steps", "enter"), bind("follow", "o"))
	}
	return append(out, short(keyBatch, "as --batch"), short(keyHelp, "help"), short(keyQuit, "quit"))
}

func (f *flow) hints() []key.Binding {
	switch f.stage {
	case confirming:
		return []key.Binding{bind("confirms once "+f.word+" is typed", "enter"), bind("leaves, nothing is changed", "esc"), bind("steps", "↑ ↓")}
	case running:
		return []key.Binding{bind("detaches; the daemon goes on", "esc")}
	case ended:
		if f.op.Drill != nil {
			return []key.Binding{bind("replays it", "enter"), bind("closes", "esc")}
		}
	case starting:
		return nil
	}
	return []key.Binding{bind("closes", "esc")}
}

// helpRows is made from the bindings, so that it cannot be wrong.
func (m *Model) helpRows(width, height int) []page.Row {
	g := m.facts.Glyphs
	var lines []present.Line
	section := func(title string, bs []key.Binding) {
		lines = append(lines, page.Rule(title, "", width, g))
		for _, b := range bs {
			h := b.Help()
			lines = append(lines, present.L(present.S(present.Accent, fmt.Sprintf("  %-12s ", m.glyphs(h.Key))), present.S(present.Plain, h.Desc)))
		}
	}
	section(strings.ToUpper(m.page().Title()), m.page().Keys())
	section("EVERYWHERE", everywhere())
	section("IN A DIALOG", inDialog())
	lines = append(lines, page.Rule("WHAT IT MEANS", "", width, g))
	for _, l := range []string{
		"Grey values are old: the daemon, or the node, has not answered since. ! is missed once or twice, ? is lost.",
		"The console is read-only until W. A plan is shown before anything is done, and a name has to be typed.",
		"The daemon owns what runs: leaving the console changes nothing, and any console can follow it.",
	} {
		for _, w := range present.WrapLines(present.Muted, l, width-4, 0) {
			lines = append(lines, w.Indent(2))
		}
	}
	m.helpTop = max(0, min(m.helpTop, len(lines)-height))
	return page.Rows(lines[m.helpTop:])
}
