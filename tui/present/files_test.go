package present_test

import (
	"strings"
	"testing"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/present"
)

func TestOnlyTheLinesThatDifferAreAChange(t *testing.T) {
	for _, c := range []struct{ name, from, to, want string }{
		{"nothing", "a\nb\n", "a\nb\n", ""},
		{"one setting", "a\nnames = 'x'\nb\n", "a\nnames = ''\nb\n", "- names = 'x'\n+ names = ''\n"},
		{"a line more", "a\nb\n", "a\nx\nb\n", "+ x\n"},
		{"a line less", "a\nx\nb\n", "a\nb\n", "- x\n"},
		{"all of it", "", "a\nb\n", "+ a\n+ b\n"},
		{"in the middle", "1\n2\n3\n4\n5\n", "1\nx\n3\ny\n5\n", "- 2\n+ x\n- 4\n+ y\n"},
	} {
		if got := present.Text(present.Changes(c.from, c.to)); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

// Whatever is set side by side, each side read downwards is its file.
func FuzzEachSideIsItsFile(f *testing.F) {
	f.Add("a\nb\nc", "a\nc")
	f.Add("", "x")
	f.Add("1\n2\n1\n2", "2\n1\n2\n1")
	f.Fuzz(func(t *testing.T, left, right string) {
		if len(left)+len(right) > 400 || strings.ContainsFunc(left+right, func(r rune) bool { return r != '\n' && (r < 'a' || r > 'z') }) {
			return
		}
		const width = 2*410 + 7
		var l, r []string
		for _, line := range present.SideBySide(left, right, width, present.ASCII()) {
			a, b, _ := strings.Cut(line.Text(), " | ")
			if a = strings.TrimRight(a, " "); a != "" && a[0] == '-' {
				l = append(l, strings.TrimPrefix(a, "- "))
			} else if len(a) > 0 {
				l = append(l, strings.TrimSpace(a))
			}
			if b = strings.TrimRight(b, " "); b != "" && b[0] == '+' {
				r = append(r, strings.TrimPrefix(b, "+ "))
			} else if len(b) > 0 {
				r = append(r, strings.TrimSpace(b))
			}
		}
		want := func(s string) string { return strings.Join(strings.Fields(s), "\n") }
		clean := func(s []string) string { return strings.Join(strings.Fields(strings.Join(s, "\n")), "\n") }
		if got := strings.ReplaceAll(clean(l), "-\n", ""); strings.Trim(got, "-\n") != want(left) {
			t.Fatalf("left of %q and %q reads %q", left, right, got)
		}
		if got := strings.ReplaceAll(clean(r), "+\n", ""); strings.Trim(got, "+\n") != want(right) {
			t.Fatalf("right of %q and %q reads %q", left, right, got)
		}
	})
}

// Two files without anything in common must not take the console's memory.
func TestHugeFilesAreStillCompared(t *testing.T) {
	var a, b strings.Builder
	for i := range 5000 {
		a.WriteString(strings.Repeat("a", i%7+1) + "\n")
		b.WriteString(strings.Repeat("b", i%5+1) + "\n")
	}
	lines := present.SideBySide("same\n"+a.String(), "same\n"+b.String(), 100, present.ASCII())
	if len(lines) != 5001 {
		t.Errorf("%d lines", len(lines))
	}
}

func TestTheHeadSaysWhatIsInForceAndWhatWins(t *testing.T) {
	for _, c := range []struct {
		name  string
		files api.SyncFiles
		want  []string
	}{
		{"sync", api.SyncFiles{Node: "pgsql1", Method: "files", InForce: "sync", Running: "FIRST 1 (pgsql2)"}, []string{"+ sync", "on pgsql1", "'FIRST 1 (pgsql2)'"}},
		{"neither", api.SyncFiles{InForce: "neither"}, []string{"! neither"}},
		{"another entry", api.SyncFiles{InForce: "sync", Winner: "postgresql.auto.conf:3"}, []string{"! another entry wins: postgresql.auto.conf:3"}},
		{"edited by hand", api.SyncFiles{InForce: "sync", Drift: "@@"}, []string{"! drift", "refused until it is settled"}},
		{"not readable", api.SyncFiles{Error: "permission denied"}, []string{"! unknown", "X permission denied"}},
	} {
		got := present.Text(present.SyncFilesHead(c.files, present.ASCII()))
		for _, w := range c.want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: no %q in\n%s", c.name, w, got)
			}
		}
	}
}
