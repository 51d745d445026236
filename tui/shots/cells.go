package main

import (
	"image/color"
	"strings"

	uv "github.com/charmbracelet/ultraviolet"
	"github.com/charmbracelet/x/vt"
)

// cell is one place of the terminal as it is drawn.
type cell struct {
	text string
	fore color.RGBA
	back color.RGBA
	bold bool
}

// picture is a whole terminal.
type picture struct {
	title string
	cells [][]cell
}

// Colours of the terminal that is drawn.
var (
	paper    = color.RGBA{0x16, 0x1a, 0x2b, 0xff}
	ink      = color.RGBA{0xc5, 0xcd, 0xf0, 0xff}
	frame    = color.RGBA{0x0e, 0x11, 0x1e, 0xff}
	edge     = color.RGBA{0x2f, 0x37, 0x5c, 0xff}
	titleInk = color.RGBA{0x8a, 0x93, 0xb8, 0xff}
	dots     = []color.RGBA{{0xff, 0x5f, 0x57, 0xff}, {0xfe, 0xbc, 0x2e, 0xff}, {0x28, 0xc8, 0x40, 0xff}}
)

// render has a terminal show a view and reads its cells.
func render(title, view string, width, height int) picture {
	e := vt.NewEmulator(width, height)
	_, _ = e.WriteString(strings.ReplaceAll(view, "\n", "\r\n"))
	p := picture{title: title}
	for y := range height {
		row := make([]cell, width)
		for x := range width {
			row[x] = cellOf(e.CellAt(x, y))
		}
		p.cells = append(p.cells, row)
	}
	_ = e.Close()
	return p
}

func cellOf(c *uv.Cell) cell {
	out := cell{text: " ", fore: ink, back: paper}
	if c == nil {
		return out
	}
	if c.Content != "" {
		out.text = c.Content
	}
	if c.Style.Fg != nil {
		out.fore = color.RGBAModel.Convert(c.Style.Fg).(color.RGBA)
	}
	if c.Style.Bg != nil {
		out.back = color.RGBAModel.Convert(c.Style.Bg).(color.RGBA)
	}
	if c.Style.Attrs&uv.AttrReverse != 0 {
		out.fore, out.back = out.back, out.fore
	}
	out.bold = c.Style.Attrs&uv.AttrBold != 0
	return out
}

// rect is a part of a cell, in its width and height.
type rect struct{ x0, y0, x1, y1 float64 }

// shape gives block elements and lines as rectangles, so that they meet
// without gaps whatever the font; ok is false for everything else. alpha below
// 1 is a shade.
func shape(s string) (rs []rect, alpha float64, ok bool) {
	r := []rune(s)
	if len(r) != 1 {
		return nil, 1, false
	}
	const t = 0.05 // a line's thickness in cell heights; in widths twice as much
	h := func(y, x0, x1 float64) rect { return rect{x0, y - t/2, x1, y + t/2} }
	v := func(x, y0, y1 float64) rect { return rect{x - t, y0, x + t, y1} }
	switch c := r[0]; {
	case c >= '▁' && c <= '█':
		return []rect{{0, 1 - float64(c-'▁'+1)/8, 1, 1}}, 1, true
	case c == '▌':
		return []rect{{0, 0, 0.5, 1}}, 1, true
	case c >= '▉' && c <= '▏':
		return []rect{{0, 0, 1 - float64(c-'█')/8, 1}}, 1, true
	case c == '░':
		return []rect{{0, 0.25, 1, 0.75}}, 0.35, true
	case c == '─':
		return []rect{h(0.5, 0, 1)}, 1, true
	case c == '│':
		return []rect{v(0.5, 0, 1)}, 1, true
	case c == '═':
		return []rect{h(0.42, 0, 1), h(0.58, 0, 1)}, 1, true
	case c == '┄':
		return []rect{h(0.5, 0.04, 0.26), h(0.5, 0.38, 0.6), h(0.5, 0.72, 0.94)}, 1, true
	case c == '┊':
		return []rect{v(0.5, 0.05, 0.2), v(0.5, 0.3, 0.45), v(0.5, 0.55, 0.7), v(0.5, 0.8, 0.95)}, 1, true
	}
	return nil, 1, false
}

// bars leave a little room above and below, so that one row of them is told
// from the next.
func inset(s string, r rect) rect {
	c := []rune(s)[0]
	if c == '█' || (c >= '▉' && c <= '▏' && c != '▌') {
		r.y0, r.y1 = 0.14, 0.86
	}
	return r
}

// run is a stretch of cells of one row that look alike.
type run struct {
	x, n int
	text string
	cell
}

// runs divides a row; alike says what may be drawn at once.
func runs(row []cell, alike func(a, b cell) bool) []run {
	var out []run
	for x, c := range row {
		if n := len(out); n > 0 && alike(out[n-1].cell, c) {
			out[n-1].n++
			out[n-1].text += c.text
			continue
		}
		out = append(out, run{x, 1, c.text, c})
	}
	return out
}
