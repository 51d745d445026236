package present_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"

	"github.com/pgtandem/pgtandem/tui/present"
)

// What comes from servers and clients can hold anything; none of it may steer
// the terminal or pass for something else.
func TestNothingFromOutsideSteersTheTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                                  "plain",
		"\x1b[2Jgone":                            "gone",
		"\x1b]0;title\x07after":                  "after",
		"two\nlines\r":                           "two lines ",
		"tab\tbed":                               "tab    bed",
		"bell\x07 back\x08 null\x00":             "bell back null",
		"\u009b31mC1":                            "31mC1",
		"pg\u202egro.elpmaxe\u202c":              "pggro.elpmaxe",
		"isolate\u2066d\u2069, line\u2028":       "isolated, line",
		"日本語 stays, and so do é and 🐘":           "日本語 stays, and so do é and 🐘",
		"half an escape \x1b":                    "half an escape ",
		"a log line: FATAL:  \x1b[31mred\x1b[0m": "a log line: FATAL:  red",
	} {
		if got := present.Clean(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// Whoever made a line forgot nothing: what prints it makes it safe.
func TestWhatIsPrintedIsSafe(t *testing.T) {
	got := present.Text([]present.Line{present.L(present.S(present.Plain, "a"), present.S(present.Warn, "\x1b[2Jb\r\n"), present.S(present.Plain, "c\x07"))})
	if got != "ab  c\n" {
		t.Errorf("%q", got)
	}
}

func FuzzNoControlIsLeft(f *testing.F) {
	for _, s := range []string{"", "a\x1b[1mb", "\x1b]8;;x\x07", "\u202e", "日本\n", "\xff\x9b1m", "\x1bP\x1b\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range present.Clean(s) {
			if r < 0x20 || (r >= 0x7f && r < 0xa0) || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) {
				t.Fatalf("%q kept %U", s, r)
			}
		}
	})
}

// A line that is too wide is cut by the terminal where it likes, and one that
// is too narrow leaves what was there before.
func FuzzAFilledLineIsAsWideAsAsked(f *testing.F) {
	f.Add("pgsql1", "日本語", 7)
	f.Add("", "", 0)
	f.Add("e\u0301", "🐘🐘", 3)
	f.Fuzz(func(t *testing.T, a, b string, width int) {
		if width < 0 || width > 300 || !utf8.ValidString(a) || !utf8.ValidString(b) {
			return
		}
		l := present.L(present.S(present.Plain, present.Clean(a)), present.S(present.Warn, present.Clean(b)))
		for _, tail := range []string{"", "~", "…"} {
			if got := l.Fill(width, tail).Width(); got != width {
				t.Fatalf("%q filled to %d with tail %q is %d wide", l.Text(), width, tail, got)
			}
			if got := l.Cut(width, tail).Width(); got > width {
				t.Fatalf("%q cut to %d with tail %q is %d wide", l.Text(), width, tail, got)
			}
		}
	})
}

func TestACutSaysThatSomethingIsMissing(t *testing.T) {
	l := present.L(present.S(present.Accent, "pgsql1"), present.S(present.Plain, " is gone"))
	for width, want := range map[int]string{14: "pgsql1 is gone", 13: "pgsql1 is go~", 7: "pgsql1~", 6: "pgsql~", 1: "~", 0: ""} {
		if got := l.Cut(width, "~").Text(); got != want {
			t.Errorf("in %d cells: %q, want %q", width, got, want)
		}
	}
}

// table is of servers with names and reasons of every kind.
func table(rows ...[]string) present.Table {
	t := present.Table{Columns: []present.Column{
		{Title: "NODE"}, {Title: "STATE", Keep: 50}, {Title: "LAG", Right: true, Keep: 80}, {Title: "WHY", Keep: 90, Grow: true},
	}}
	for _, r := range rows {
		row := present.Row{ID: r[0]}
		for _, c := range r {
			row.Cells = append(row.Cells, present.S(present.Plain, c))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func TestColumnsLeaveInTheirOrderAndTheHeadSaysSo(t *testing.T) {
	tb := table([]string{"pgsql1", "streaming", "96 kB", "it holds all"})
	g := present.ASCII()
	for width, want := range map[int]string{
		0:  " NODE    STATE        LAG  WHY",
		60: " NODE    STATE        LAG  WHY",
		39: " NODE    STATE        LAG  WHY",
		30: " NODE      LAG  WHY          >",
		22: " NODE    WHY         >",
		12: " NODE      >",
	} {
		if got := tb.Lines(width, g)[0].Text(); strings.TrimRight(got, " ") != want {
			t.Errorf("in %d cells:\n%q, want\n%q", width, got, want)
		}
	}
}

func TestTheColumnThatGrowsIsCutBeforeAnotherLeaves(t *testing.T) {
	tb := table([]string{"pgsql2", "catchup", "33 MB", "commits are acknowledged without it since 03:11"})
	got := present.Text(tb.Lines(44, present.ASCII())[1:])
	if want := " pgsql2  catchup  33 MB  commits are acknow~\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTheSelectedRowHasASign(t *testing.T) {
	tb := table([]string{"pgsql1", "", "", ""}, []string{"pgsql2", "", "", ""})
	tb.Rows[1].Mark = true
	lines := tb.Lines(0, present.ASCII())
	if first, second := lines[1].Text()[0], lines[2].Text()[0]; first != ' ' || second != '>' {
		t.Errorf("rows begin with %q and %q", first, second)
	}
}

// Cells with colours or wide letters once broke a table that counted bytes.
func FuzzNoTableLineIsWiderThanItsPlace(f *testing.F) {
	f.Add("pgsql1", "日本語", "\x1b[31mred", 40)
	f.Add("", "🐘", "very long text that goes on and on and on", 13)
	f.Fuzz(func(t *testing.T, a, b, c string, width int) {
		least := 1 + ansi.StringWidth(present.Clean(a)) // a name never leaves
		if width < max(least, 12) || width > 300 || !utf8.ValidString(a+b+c) {
			return
		}
		for _, g := range []present.Glyphs{present.ASCII(), present.Unicode()} {
			for _, l := range table([]string{a, b, "1 kB", c}, []string{"x", c, b, a}).Lines(width, g) {
				if l.Width() > width {
					t.Fatalf("%d cells: %q is %d wide", width, l.Text(), l.Width())
				}
				if strings.ContainsAny(l.Text(), "\x1b\n\r\t") {
					t.Fatalf("a control in %q", l.Text())
				}
			}
		}
	})
}
