package main

import (
	"bytes"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/pgtandem/pgtandem/tui/present"
)

// ornaments are those of the locale, unless the terminal draws them two cells
// wide. Unicode leaves the width of ─ ▲ ✓ to the context (UAX 11, ambiguous):
// terminals set up for Chinese, Japanese or Korean may take two cells, on which
// every frame and table would break. There is no way to know but to draw one
// and to ask where the cursor stands.
func ornaments(in, out *os.File, getenv func(string) string) present.Glyphs {
	g := glyphs(getenv)
	if g.H == present.ASCII().H || !eastAsian(getenv) {
		return g
	}
	if cellsOf(in, out, g.H) == 2 {
		return present.ASCII()
	}
	return g
}

// eastAsian says whether the locale is one in which such terminals are met.
func eastAsian(getenv func(string) string) bool {
	for _, k := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(getenv(k)); v != "" {
			return strings.HasPrefix(v, "ja") || strings.HasPrefix(v, "ko") || strings.HasPrefix(v, "zh")
		}
	}
	return false
}

// answersWithin is how long a terminal may take to say where its cursor is,
// over a slow connection too; one that never answers costs this once.
const answersWithin = 500 * time.Millisecond

// cellsOf draws a glyph and gives its width on this terminal; 0 where it does
// not say.
func cellsOf(in, out *os.File, glyph string) int {
	old, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return 0
	}
	defer func() { _ = term.Restore(int(in.Fd()), old) }()
	if _, err := out.WriteString("\r" + glyph + "\x1b[6n"); err != nil {
		return 0
	}
	column := cursorColumn(in)
	_, _ = out.WriteString("\r\x1b[K")
	return max(0, column-1)
}

// cursorColumn reads the answer to DSR 6, ESC [ row ; column R; 0 is none.
func cursorColumn(in *os.File) int {
	var got []byte
	for deadline := time.Now().Add(answersWithin); ; {
		left := time.Until(deadline)
		fds := []unix.PollFd{{Fd: int32(in.Fd()), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, int(left.Milliseconds())); left <= 0 || (err != nil && err != unix.EINTR) || (err == nil && n == 0) {
			return 0
		} else if err == unix.EINTR {
			continue
		}
		b := make([]byte, 64)
		n, err := in.Read(b)
		if err != nil {
			return 0
		}
		got = append(got, b[:n]...)
		if column, ok := parseCursor(got); ok {
			return column
		}
	}
}

func parseCursor(b []byte) (column int, ok bool) {
	_, b, found := bytes.Cut(b, []byte("\x1b["))
	if !found {
		return 0, false
	}
	body, _, ended := bytes.Cut(b, []byte("R"))
	_, digits, two := bytes.Cut(body, []byte(";"))
	if !ended || !two {
		return 0, false
	}
	for _, d := range digits {
		if d < '0' || d > '9' || column > 9999 {
			return 0, false
		}
		column = column*10 + int(d-'0')
	}
	return column, true
}
