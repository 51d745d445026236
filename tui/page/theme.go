package page

import (
	"strings"

	"github.com/muesli/termenv"

	"github.com/pgtandem/pgtandem/tui/present"
)

// Ground is what a line lies on.
type Ground uint8

// Grounds.
const (
	Paper    Ground = iota // the terminal's own
	Bar                    // the line at the top
	Selected               // the selected row
	Banner                 // something is wrong
	grounds
)

const tones = int(present.Marked) + 1

// Theme turns tones into what a terminal understands. In monochrome nothing
// but bold, underline and reverse is used; without even these the text says
// everything.
type Theme struct {
	Glyphs present.Glyphs
	open   [grounds][tones]string
}

// palette is the colours of one kind of background.
type palette struct {
	tone   [tones]string
	ground [grounds]string
	marked [2]string // fore- and background of the present one of several
}

var dark = palette{
	tone: [tones]string{
		present.Plain: "", present.Muted: "#8a93b8", present.Strong: "#eef1ff", present.Good: "#9ece6a", present.Warn: "#e6b450",
		present.Alarm: "#ff7a90", present.Accent: "#7dcfff", present.Faint: "#6b7394", present.Added: "#9ece6a", present.Removed: "#ff7a90",
	},
	ground: [grounds]string{Bar: "#232a45", Selected: "#2b3558", Banner: "#5c2333"},
	marked: [2]string{"#10131f", "#7aa2f7"},
}

var light = palette{
	tone: [tones]string{
		present.Plain: "", present.Muted: "#5a6076", present.Strong: "#0d1020", present.Good: "#2f6f1f", present.Warn: "#8a5a00",
		present.Alarm: "#b3123a", present.Accent: "#0b5cad", present.Faint: "#7b8095", present.Added: "#2f6f1f", present.Removed: "#b3123a",
	},
	ground: [grounds]string{Bar: "#e3e7f5", Selected: "#d3ddf7", Banner: "#ffd9df"},
	marked: [2]string{"#ffffff", "#2f5fd0"},
}

// NewTheme makes the theme of a terminal. The profile Ascii is monochrome.
func NewTheme(profile termenv.Profile, darkBackground bool, g present.Glyphs) Theme {
	t := Theme{Glyphs: g}
	if profile == termenv.Ascii {
		t.monochrome()
		return t
	}
	p := light
	if darkBackground {
		p = dark
	}
	for ground := range grounds {
		for tone := range tones {
			t.open[ground][tone] = sgr(p.codes(profile, ground, present.Tone(tone)))
		}
	}
	return t
}

func (p palette) codes(profile termenv.Profile, ground Ground, tone present.Tone) []string {
	var c []string
	switch tone {
	case present.Strong, present.Alarm, present.Marked:
		c = append(c, "1")
	}
	fore, back := p.tone[tone], p.ground[ground]
	if tone == present.Marked {
		fore, back = p.marked[0], p.marked[1]
	}
	if fore != "" {
		c = append(c, profile.Color(fore).Sequence(false))
	}
	if back != "" {
		c = append(c, profile.Color(back).Sequence(true))
	}
	return c
}

func (t *Theme) monochrome() {
	for ground := range grounds {
		for tone := range tones {
			var c []string
			switch present.Tone(tone) {
			case present.Strong, present.Alarm, present.Warn, present.Added, present.Removed:
				c = append(c, "1")
			case present.Marked:
				c = append(c, "1", "7")
			}
			if ground == Selected || ground == Banner {
				c = append(c, "7")
			}
			t.open[ground][tone] = sgr(c)
		}
	}
}

// Plain is a theme without any attribute.
func Plain(g present.Glyphs) Theme { return Theme{Glyphs: g} }

func sgr(codes []string) string {
	if len(codes) == 0 {
		return ""
	}
	return "\x1b[" + strings.Join(codes, ";") + "m"
}

// Line renders a line exactly width cells wide.
func (t Theme) Line(l present.Line, ground Ground, width int) string {
	var b strings.Builder
	for _, s := range l.Safe().Fill(width, t.Glyphs.Ellipsis) {
		if s.Text == "" {
			continue
		}
		open := t.open[ground][s.Tone]
		if open == "" {
			b.WriteString(s.Text)
			continue
		}
		b.WriteString(open)
		b.WriteString(s.Text)
		b.WriteString("\x1b[0m")
	}
	return b.String()
}

// Row is a line with what it lies on.
type Row struct {
	present.Line
	Ground Ground
}

// Rows puts lines on the page.
func Rows(lines []present.Line) []Row {
	out := make([]Row, len(lines))
	for i, l := range lines {
		out[i] = Row{Line: l}
	}
	return out
}

// Screen renders rows as exactly height lines of width cells.
func (t Theme) Screen(rows []Row, width, height int) string {
	var b strings.Builder
	for i := range height {
		if i > 0 {
			b.WriteByte('\n')
		}
		var r Row
		if i < len(rows) {
			r = rows[i]
		}
		b.WriteString(t.Line(r.Line, r.Ground, width))
	}
	return b.String()
}

// Rule is a line across the page with a title in it, and at its end a note.
func Rule(title, note string, width int, g present.Glyphs) present.Line {
	l := present.L(present.S(present.Faint, g.H+" "), present.S(present.Strong, title), present.S(present.Faint, " "))
	end := ""
	if note != "" {
		end = " " + note + " " + g.H
	}
	gap := width - l.Width() - present.P(end).Width()
	if gap < 0 && end != "" {
		return Rule(title, "", width, g)
	}
	if gap < 0 {
		return l.Cut(width, g.Ellipsis)
	}
	return append(l, present.S(present.Faint, strings.Repeat(g.H, gap)), present.S(present.Muted, end))
}
