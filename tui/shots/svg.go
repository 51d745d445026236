package main

import (
	"fmt"
	"html"
	"image/color"
	"strings"
)

// Measures of a picture in SVG units. A cell is a whole number of pixels wide,
// so that neighbours meet; DejaVu Sans Mono's advance is 0.602 em.
const (
	cellW  = 8.5
	cellH  = 18.0
	fontPx = 14.0
	rise   = 13.4 // from a cell's top to the baseline
	margin = 14.0
	bar    = 36.0 // of the window, with the room below it
	head   = 28.0 // of the window alone
	radius = 10.0
)

func size(p picture) (w, h float64) {
	return float64(len(p.cells[0]))*cellW + 2*margin, float64(len(p.cells))*cellH + bar + margin
}

func hex(c color.RGBA) string { return fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B) }

// svg draws a picture as text that can be selected and searched.
func svg(p picture) string {
	w, h := size(p)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" font-family="'DejaVu Sans Mono','JetBrains Mono',Menlo,Consolas,monospace" font-size="%.0f" role="img" aria-label="%s">`+"\n",
		w, h, w, h, fontPx, html.EscapeString(p.title))
	fmt.Fprintf(&b, `<rect x="0.5" y="0.5" width="%.1f" height="%.1f" rx="%.0f" fill="%s" stroke="%s"/>`+"\n", w-1, h-1, radius, hex(paper), hex(edge))
	fmt.Fprintf(&b, `<path d="M1 %.1f V%.1f A%.0f %.0f 0 0 1 %.1f 1 H%.1f A%.0f %.0f 0 0 1 %.1f %.1f V%.1f Z" fill="%s"/>`+"\n",
		head, radius, radius-1, radius-1, radius, w-radius, radius-1, radius-1, w-1, radius, head, hex(frame))
	for i, c := range dots {
		fmt.Fprintf(&b, `<circle cx="%.0f" cy="14.5" r="5" fill="%s"/>`+"\n", 18+float64(i)*17, hex(c))
	}
	fmt.Fprintf(&b, `<text x="%.1f" y="18.5" text-anchor="middle" fill="%s" font-size="12">%s</text>`+"\n", w/2, hex(titleInk), html.EscapeString(p.title))
	for y, row := range p.cells {
		top := bar + float64(y)*cellH
		for _, r := range runs(row, func(a, c cell) bool { return a.back == c.back }) {
			if r.back != paper {
				fmt.Fprintf(&b, `<rect x="%.2f" y="%.2f" width="%.2f" height="%.2f" fill="%s"/>`+"\n", margin+float64(r.x)*cellW, top, float64(r.n)*cellW, cellH, hex(r.back))
			}
		}
		svgShapes(&b, row, top)
		svgText(&b, row, top)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func svgShapes(b *strings.Builder, row []cell, top float64) {
	for _, r := range runs(row, func(a, c cell) bool { return a.text == c.text && a.fore == c.fore && wide(a.text) }) {
		rs, alpha, ok := shape(r.cell.text)
		if !ok {
			continue
		}
		for _, s := range rs {
			s = inset(r.cell.text, s)
			x, width := margin+(float64(r.x)+s.x0)*cellW, (s.x1-s.x0)*cellW
			if wide(r.cell.text) { // what reaches from side to side is drawn as one
				width = float64(r.n) * cellW
			}
			fmt.Fprintf(b, `<rect x="%.2f" y="%.2f" width="%.2f" height="%.2f" fill="%s"%s/>`+"\n", x, top+s.y0*cellH, width, (s.y1-s.y0)*cellH, hex(r.fore), opacity(alpha))
		}
	}
}

func opacity(a float64) string {
	if a >= 1 {
		return ""
	}
	return fmt.Sprintf(` fill-opacity="%.2f"`, a)
}

// wide says that a shape reaches from side to side of its cell.
func wide(s string) bool {
	rs, _, ok := shape(s)
	return ok && rs[0].x0 == 0 && rs[0].x1 == 1
}

// svgText draws words; each has its place and width, so that columns stand
// whatever font the reader has.
func svgText(b *strings.Builder, row []cell, top float64) {
	blank := func(c cell) bool { _, _, ok := shape(c.text); return ok || c.text == " " }
	for _, r := range runs(row, func(a, c cell) bool { return a.fore == c.fore && a.bold == c.bold && blank(a) == blank(c) }) {
		if blank(r.cell) {
			continue
		}
		weight := ""
		if r.bold {
			weight = ` font-weight="bold"`
		}
		fmt.Fprintf(b, `<text x="%.2f" y="%.2f" fill="%s"%s textLength="%.2f" lengthAdjust="spacingAndGlyphs">%s</text>`+"\n",
			margin+float64(r.x)*cellW, top+rise, hex(r.fore), weight, float64(r.n)*cellW, html.EscapeString(r.text))
	}
}
