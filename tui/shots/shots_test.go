package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"strings"
	"testing"

	"github.com/muesli/termenv"

	"github.com/pgtandem/pgtandem/tui/fixture"
	"github.com/pgtandem/pgtandem/tui/page"
	"github.com/pgtandem/pgtandem/tui/present"
)

// view is the made-up cluster's status, coloured as the console colours it.
func view(width, height int) string {
	g := present.Unicode()
	return page.NewTheme(termenv.TrueColor, true, g).Screen(page.Rows(present.Status(fixture.State(fixture.Epoch), g)), width, height)
}

func TestAPictureSaysWhatTheScreenSays(t *testing.T) {
	p := render("pgtandem", view(100, 12), 100, 12)
	var text strings.Builder
	d := xml.NewDecoder(strings.NewReader(svg(p)))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the SVG is no XML: %v", err)
		}
		if c, ok := token.(xml.CharData); ok {
			text.Write(c)
			text.WriteByte(' ')
		}
	}
	said := strings.Join(strings.Fields(text.String()), " ")
	for _, want := range []string{"if pgsql1 dies now: pgsql2 is promoted", "0/7A3F1C8", "✓ standby"} {
		if !strings.Contains(said, want) {
			t.Errorf("the SVG does not say %q:\n%s", want, said)
		}
	}
}

func TestTheSameScreenIsTheSamePicture(t *testing.T) {
	var a, b bytes.Buffer
	for _, w := range []*bytes.Buffer{&a, &b} {
		p := render("pgtandem", view(80, 10), 80, 10)
		w.WriteString(svg(p))
		if err := writePNG(w, p); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("two pictures of one screen differ")
	}
}

func TestThePNGHasItsSizeAndItsInk(t *testing.T) {
	p := render("pgtandem", view(80, 10), 80, 10)
	var b bytes.Buffer
	if err := writePNG(&b, p); err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(&b)
	if err != nil {
		t.Fatal(err)
	}
	w, h := size(p)
	if got := img.Bounds().Size(); got.X != int(w*scale) || got.Y != int(h*scale) {
		t.Errorf("%v for %gx%g", got, w, h)
	}
	inked := 0
	for y := int(bar * scale); y < img.Bounds().Dy()-int(margin*scale); y++ {
		for x := int(margin * scale); x < img.Bounds().Dx()-int(margin*scale); x++ {
			if r, g, b, _ := img.At(x, y).RGBA(); r>>8 != uint32(paper.R) || g>>8 != uint32(paper.G) || b>>8 != uint32(paper.B) {
				inked++
			}
		}
	}
	if inked < 10_000 {
		t.Errorf("only %d points are drawn on", inked)
	}
}

// What the console draws bars and lines with is drawn here as shapes, so that
// no font can leave gaps in it.
func TestEveryOrnamentIsAShapeOrALetter(t *testing.T) {
	g := present.Unicode()
	for _, s := range append(append([]string{g.Full, g.Ghost, g.Light, g.H, g.V, g.Select}, g.Parts...), g.Levels[1:]...) {
		rs, _, ok := shape(s)
		if !ok || len(rs) == 0 {
			t.Errorf("%q is left to the font", s)
		}
		for _, r := range rs {
			if r.x0 < 0 || r.y0 < 0 || r.x1 > 1 || r.y1 > 1 || r.x1 <= r.x0 || r.y1 <= r.y0 {
				t.Errorf("%q is drawn outside its cell: %+v", s, r)
			}
		}
	}
}
