package present

import (
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// Column of a table. Keep says what leaves first where the width is short: the
// columns with the smallest Keep above 0; 0 never leaves.
type Column struct {
	Title string
	Right bool // numbers stand at the right
	Keep  int
	Grow  bool // takes what width is left, and shrinks first
}

// Row of a table; ID is what selects it, whatever its place.
type Row struct {
	ID    string
	Cells []Span
	Mark  bool // selected
}

// Table is rows under columns.
type Table struct {
	Columns []Column
	Rows    []Row
}

const (
	gutter     = 2
	leastGrown = 12 // what a column that can shrink needs at least
)

// Lines lays the table out in width cells; 0 means as wide as it needs. The
// first line is the head. Columns that find no room leave by their Keep, and
// the head's end says that there is more.
func (t Table) Lines(width int, g Glyphs) []Line {
	widths := t.natural()
	shown := t.fit(widths, width)
	if width > 0 {
		t.stretch(shown, widths, width)
	}
	lines := make([]Line, 0, len(t.Rows)+1)
	head := Line{S(Plain, " ")}
	for i, c := range shown {
		s := S(Muted, t.Columns[c].Title)
		head = append(head, pad(s, widths[c], t.Columns[c].Right, i == len(shown)-1, g)...)
	}
	if len(shown) < len(t.Columns) && width > 0 {
		head = append(head.Fill(width-1, ""), S(Muted, g.Right))
	}
	lines = append(lines, head)
	for _, r := range t.Rows {
		lines = append(lines, t.row(r, shown, widths, g))
	}
	return lines
}

func (t Table) row(r Row, shown, widths []int, g Glyphs) Line {
	l := Line{S(Plain, " ")}
	if r.Mark {
		l[0] = S(Accent, g.Select)
	}
	for i, c := range shown {
		var cell Span
		if c < len(r.Cells) {
			cell = r.Cells[c]
		}
		cell.Text = Clean(cell.Text)
		l = append(l, pad(cell, widths[c], t.Columns[c].Right, i == len(shown)-1, g)...)
	}
	return l
}

// natural widths: of the widest cell of each column.
func (t Table) natural() []int {
	widths := make([]int, len(t.Columns))
	for i, c := range t.Columns {
		widths[i] = ansi.StringWidth(c.Title)
		for _, r := range t.Rows {
			if i < len(r.Cells) {
				widths[i] = max(widths[i], ansi.StringWidth(Clean(r.Cells[i].Text)))
			}
		}
	}
	return widths
}

// fit chooses the columns for which there is room.
func (t Table) fit(widths []int, width int) []int {
	shown := make([]int, len(t.Columns))
	for i := range shown {
		shown[i] = i
	}
	if width <= 0 {
		return shown
	}
	leaving := slices.Clone(shown)
	slices.SortStableFunc(leaving, func(a, b int) int { return t.Columns[a].Keep - t.Columns[b].Keep })
	for _, c := range leaving {
		if t.total(shown, widths) <= width {
			break
		}
		if t.Columns[c].Keep > 0 {
			shown = slices.DeleteFunc(shown, func(s int) bool { return s == c })
		}
	}
	return shown
}

// total width that the chosen columns need at least.
func (t Table) total(shown, widths []int) int {
	sum := 1 + gutter*max(0, len(shown)-1)
	for _, c := range shown {
		if t.Columns[c].Grow {
			sum += min(widths[c], leastGrown)
			continue
		}
		sum += widths[c]
	}
	return sum
}

func (t Table) stretch(shown, widths []int, width int) {
	rest, grows := width-1-gutter*max(0, len(shown)-1), -1
	for _, c := range shown {
		if t.Columns[c].Grow && grows < 0 {
			grows = c
			continue
		}
		rest -= widths[c]
	}
	if grows >= 0 {
		widths[grows] = max(4, rest)
	}
}

func pad(s Span, width int, right, last bool, g Glyphs) Line {
	w := ansi.StringWidth(s.Text)
	if w > width {
		s.Text = ansi.Truncate(s.Text, width, g.Ellipsis)
		w = ansi.StringWidth(s.Text)
	}
	gap := strings.Repeat(" ", max(0, width-w))
	out := Line{s}
	if right {
		out = Line{S(Plain, gap), s}
	} else if !last {
		out = append(out, S(Plain, gap))
	}
	if !last {
		out = append(out, S(Plain, strings.Repeat(" ", gutter)))
	}
	return out
}
