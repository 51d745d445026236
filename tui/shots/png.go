package main

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"

	"github.com/go-fonts/dejavu/dejavusansmono"
	"github.com/go-fonts/dejavu/dejavusansmonobold"
	"golang.org/x/image/font"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

// scale is how many pixels an SVG unit has.
const scale = 2

// canvas is a PNG being drawn.
type canvas struct {
	*image.RGBA
	plain, bold, small font.Face
}

func face(ttf []byte, px float64) (font.Face, error) {
	f, err := opentype.Parse(ttf)
	if err != nil {
		return nil, fmt.Errorf("read the font: %w", err)
	}
	return opentype.NewFace(f, &opentype.FaceOptions{Size: px * scale, DPI: 72, Hinting: font.HintingNone})
}

func newCanvas(w, h float64) (*canvas, error) {
	c := &canvas{RGBA: image.NewRGBA(image.Rect(0, 0, int(math.Round(w*scale)), int(math.Round(h*scale))))}
	var err error
	if c.plain, err = face(dejavusansmono.TTF, fontPx); err != nil {
		return nil, err
	}
	if c.bold, err = face(dejavusansmonobold.TTF, fontPx); err != nil {
		return nil, err
	}
	c.small, err = face(dejavusansmono.TTF, 12)
	return c, err
}

// writePNG draws a picture as pixels.
func writePNG(w io.Writer, p picture) error {
	width, height := size(p)
	c, err := newCanvas(width, height)
	if err != nil {
		return err
	}
	c.window(width, height, p.title)
	for y, row := range p.cells {
		top := bar + float64(y)*cellH
		for x, l := range row {
			if left := margin + float64(x)*cellW; l.back != paper {
				c.fill(left, top, left+cellW, top+cellH, l.back, 1)
			}
		}
		for x, l := range row {
			c.cell(margin+float64(x)*cellW, top, l)
		}
	}
	e := png.Encoder{CompressionLevel: png.BestCompression}
	return e.Encode(w, c)
}

func (c *canvas) cell(left, top float64, l cell) {
	if rs, alpha, ok := shape(l.text); ok {
		for _, r := range rs {
			r = inset(l.text, r)
			c.fill(left+r.x0*cellW, top+r.y0*cellH, left+r.x1*cellW, top+r.y1*cellH, l.fore, alpha)
		}
		return
	}
	if l.text == " " {
		return
	}
	f := c.plain
	if l.bold {
		f = c.bold
	}
	c.text(left, top+rise, l.text, f, l.fore)
}

func (c *canvas) text(x, y float64, s string, f font.Face, fore color.RGBA) {
	d := font.Drawer{Dst: c, Src: image.NewUniform(fore), Face: f, Dot: fixed.Point26_6{X: fixed.Int26_6(x * scale * 64), Y: fixed.Int26_6(y * scale * 64)}}
	d.DrawString(s)
}

// fill covers a rectangle; its edges fall on whole pixels, so that neighbours
// meet.
func (c *canvas) fill(x0, y0, x1, y1 float64, col color.RGBA, alpha float64) {
	px := func(v float64) int { return int(math.Round(v * scale)) }
	r := image.Rect(px(x0), px(y0), max(px(x1), px(x0)+1), max(px(y1), px(y0)+1))
	src := image.NewUniform(color.NRGBA{col.R, col.G, col.B, uint8(math.Round(alpha * 255))})
	draw.Draw(c, r, src, image.Point{}, draw.Over)
}

// window draws the frame that the SVG has as well.
func (c *canvas) window(w, h float64, title string) {
	c.round(0, 0, w, h, radius, edge)
	c.round(1, 1, w-1, h-1, radius-1, paper)
	c.round(1, 1, w-1, head, radius-1, frame)
	c.fill(1, head-radius, w-1, head, frame, 1)
	for i, d := range dots {
		x := 18 + float64(i)*17
		c.round(x-5, 9.5, x+5, 19.5, 5, d)
	}
	wide := float64(font.MeasureString(c.small, title)) / 64 / scale
	c.text(w/2-wide/2, 18.5, title, c.small, titleInk)
}

// round fills a rectangle with round corners, each pixel by how much of it is
// inside.
func (c *canvas) round(x0, y0, x1, y1, r float64, col color.RGBA) {
	for y := int(y0 * scale); y < int(math.Ceil(y1*scale)); y++ {
		for x := int(x0 * scale); x < int(math.Ceil(x1*scale)); x++ {
			px, py := (float64(x)+0.5)/scale, (float64(y)+0.5)/scale
			dx, dy := max(x0+r-px, px-(x1-r), 0), max(y0+r-py, py-(y1-r), 0)
			if cover := min(max((r-math.Hypot(dx, dy))*scale+0.5, 0), 1); cover > 0 {
				c.SetRGBA(x, y, blend(c.RGBAAt(x, y), col, cover))
			}
		}
	}
}

func blend(under, over color.RGBA, a float64) color.RGBA {
	mix := func(u, o uint8) uint8 { return uint8(math.Round(float64(u)*(1-a) + float64(o)*a)) }
	return color.RGBA{mix(under.R, over.R), mix(under.G, over.G), mix(under.B, over.B), mix(under.A, 255)}
}
