package present

import (
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// Tone is what a piece of text means; how it looks is the theme's business.
type Tone uint8

// Tones.
const (
	Plain  Tone = iota
	Muted       // labels, explanations
	Strong      // what the eye should find first
	Good        // as it should be
	Warn        // look at this
	Alarm       // act on this
	Accent      // names, keys
	Faint       // old values, ornaments
	Added       // a line of a diff
	Removed
	Marked // the present one of several
)

// Span is a piece of a line in one tone.
type Span struct {
	Text string
	Tone Tone
}

// Line is one line of text, without its end.
type Line []Span

// S makes a span.
func S(t Tone, text string) Span { return Span{Text: text, Tone: t} }

// L makes a line of spans.
func L(spans ...Span) Line { return spans }

// P makes a plain line.
func P(text string) Line { return Line{{Text: text}} }

// Text is the line without its tones.
func (l Line) Text() string {
	var b strings.Builder
	for _, s := range l {
		b.WriteString(s.Text)
	}
	return b.String()
}

// Width is the number of terminal cells of the line.
func (l Line) Width() int {
	w := 0
	for _, s := range l {
		w += ansi.StringWidth(s.Text)
	}
	return w
}

// Cut shortens the line to width cells; what is cut is marked by tail.
func (l Line) Cut(width int, tail string) Line {
	if width <= 0 {
		return nil
	}
	if l.Width() <= width {
		return l
	}
	room := max(0, width-ansi.StringWidth(tail))
	var out Line
	for _, s := range l {
		w := ansi.StringWidth(s.Text)
		if w <= room {
			out = append(out, s)
			room -= w
			continue
		}
		s.Text = ansi.Truncate(s.Text, room, "") + tail
		return append(out, s)
	}
	return out
}

// Fill makes the line exactly width cells wide.
func (l Line) Fill(width int, tail string) Line {
	l = l.Cut(width, tail)
	if gap := width - l.Width(); gap > 0 {
		l = append(append(Line{}, l...), Span{Text: strings.Repeat(" ", gap)})
	}
	return l
}

// In gives the line with every span in one tone.
func (l Line) In(t Tone) Line {
	out := make(Line, len(l))
	for i, s := range l {
		out[i] = Span{s.Text, t}
	}
	return out
}

// Indent puts the line behind a margin.
func (l Line) Indent(n int) Line {
	return append(Line{{Text: strings.Repeat(" ", n)}}, l...)
}

// Safe gives the line with every span made safe to show. Whatever shows lines
// asks for it last, so that nothing depends on who made them.
func (l Line) Safe() Line {
	for i, s := range l {
		if strings.IndexFunc(s.Text, unsafeRune) < 0 {
			continue
		}
		out := append(Line{}, l...)
		for j := i; j < len(out); j++ {
			out[j].Text = Clean(out[j].Text)
		}
		return out
	}
	return l
}

// Text joins lines as they are printed, each with its end and without blanks
// before it.
func Text(lines []Line) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(strings.TrimRight(l.Safe().Text(), " "))
		b.WriteByte('\n')
	}
	return b.String()
}

// Wrap breaks words into lines of at most width cells.
func Wrap(text string, width int) []string {
	if width < 8 {
		width = 8
	}
	return strings.Split(ansi.Wrap(Clean(text), width, " "), "\n")
}

// WrapLines is Wrap in one tone, with the lines after the first indented.
func WrapLines(t Tone, text string, width, indent int) []Line {
	var out []Line
	for i, s := range Wrap(text, width-indent) {
		l := Line{{Text: strings.TrimRight(s, " "), Tone: t}}
		if i > 0 {
			l = l.Indent(indent)
		}
		out = append(out, l)
	}
	return out
}

// Clean makes text safe to show: control characters, which could steer the
// terminal, become blanks or go away.
func Clean(s string) string {
	if strings.IndexFunc(s, unsafeRune) < 0 {
		return s
	}
	s = ansi.Strip(strings.ReplaceAll(s, "\t", "    "))
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r':
			return ' '
		case unsafeRune(r):
			return -1
		}
		return r
	}, s)
}

// unsafeRune finds the control characters C0 and C1 and the controls of
// writing direction, which make text look like other text.
func unsafeRune(r rune) bool {
	return r < 0x20 || (r >= 0x7f && r < 0xa0) || r == 0x2028 || r == 0x2029 ||
		(r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069)
}
