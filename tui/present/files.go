package present

import (
	"strings"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// SyncFilesHead says which of the two configurations is in force and why.
func SyncFilesHead(f api.SyncFiles, g Glyphs) []Line {
	sign, tone := g.OK, Good
	if f.InForce != "sync" && f.InForce != "async" {
		sign, tone = g.Warn, Warn
	}
	out := []Line{
		L(S(Muted, "in force  "), S(tone, sign+" "+Or(f.InForce, "unknown")), S(Muted, "  on "), S(Accent, Or(Clean(f.Node), "?")),
			S(Muted, "  swapped by "), S(Plain, Or(Clean(f.Method), "?"))),
		L(S(Muted, "running   "), S(Plain, "synchronous_standby_names = '"+Clean(f.Running)+"'"), S(Muted, "  "+Clean(f.Source))),
	}
	if f.Winner != "" {
		out = append(out, L(S(Warn, g.Warn+" another entry wins: "+Clean(f.Winner))))
	}
	if f.Drift != "" {
		out = append(out, L(S(Warn, g.Warn+" drift: the file in force is not what it should be; a swap is refused until it is settled")))
	}
	if f.Error != "" {
		out = append(out, L(S(Alarm, g.Alarm+" "+Clean(f.Error))))
	}
	return out
}

// Diff shows a unified diff, each line in the tone of its sign.
func Diff(diff string) []Line {
	var out []Line
	for _, s := range lines(diff) {
		tone := Plain
		switch {
		case strings.HasPrefix(s, "+++"), strings.HasPrefix(s, "---"):
			tone = Strong
		case strings.HasPrefix(s, "@@"):
			tone = Muted
		case strings.HasPrefix(s, "+"):
			tone = Added
		case strings.HasPrefix(s, "-"):
			tone = Removed
		}
		out = append(out, L(S(tone, Clean(s))))
	}
	return out
}

// SideBySide sets the lines of two texts against each other; lines that only
// one has are marked. Comments and blank lines stay, because they are the
// file's.
func SideBySide(left, right string, width int, g Glyphs) []Line {
	var out []Line
	for _, p := range align(lines(left), lines(right)) {
		l, r := S(Plain, "  "+Clean(p.left)), S(Plain, "  "+Clean(p.right))
		if !p.both {
			if p.hasLeft {
				l = S(Removed, "- "+Clean(p.left))
			}
			if p.hasRight {
				r = S(Added, "+ "+Clean(p.right))
			}
		}
		out = append(out, beside(l, r, width, g))
	}
	return out
}

// Heads names the two sides.
func Heads(left, right string, width int, g Glyphs) Line {
	return beside(S(Strong, left), S(Strong, right), width, g)
}

func beside(l, r Span, width int, g Glyphs) Line {
	half := max(10, (width-3)/2)
	line := append(Line{}, L(l).Fill(half, g.Ellipsis)...)
	line = append(line, S(Faint, " "+g.V+" "))
	return append(line, L(r).Cut(half, g.Ellipsis)...)
}

// Changes are the lines by which two texts differ.
func Changes(from, to string) []Line {
	var out []Line
	for _, p := range align(lines(from), lines(to)) {
		if p.both {
			continue
		}
		if p.hasLeft {
			out = append(out, L(S(Removed, "- "+Clean(p.left))))
		}
		if p.hasRight {
			out = append(out, L(S(Added, "+ "+Clean(p.right))))
		}
	}
	return out
}

// Lines are the lines of a text as it is.
func Lines(text string) []Line {
	var out []Line
	for _, s := range lines(text) {
		out = append(out, P(Clean(s)))
	}
	return out
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimRight(s, "\n"), "\n")
}

// pair is a line of a side-by-side view.
type pair struct {
	left, right       string
	hasLeft, hasRight bool
	both              bool
}

// align finds a longest common subsequence. The files are alike but for a few
// lines, so what they share at both ends is set aside first.
func align(a, b []string) []pair {
	var head, tail []pair
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		head = append(head, pair{a[0], b[0], true, true, true})
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		x := a[len(a)-1]
		tail = append([]pair{{x, x, true, true, true}}, tail...)
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return append(append(head, middle(a, b)...), tail...)
}

// mostCompared bounds the work of a comparison; beyond it the rest is shown
// as different.
const mostCompared = 4_000_000

func middle(a, b []string) []pair {
	if len(a)*len(b) > mostCompared {
		return zip(a, b)
	}
	n, m := len(a), len(b)
	l := make([][]int, n+1)
	for i := range l {
		l[i] = make([]int, m+1)
	}
	for i := n - 1; i >= 0; i-- {
		for j := m - 1; j >= 0; j-- {
			if a[i] == b[j] {
				l[i][j] = l[i+1][j+1] + 1
			} else {
				l[i][j] = max(l[i+1][j], l[i][j+1])
			}
		}
	}
	var out []pair
	i, j, ri, rj := 0, 0, 0, 0 // ri, rj: where the present run of differences began
	for i < n && j < m {
		switch {
		case a[i] == b[j]:
			out = append(append(out, zip(a[ri:i], b[rj:j])...), pair{a[i], b[j], true, true, true})
			i, j = i+1, j+1
			ri, rj = i, j
		case l[i+1][j] >= l[i][j+1]:
			i++
		default:
			j++
		}
	}
	return append(out, zip(a[ri:], b[rj:])...)
}

// zip sets lines that differ beside each other.
func zip(a, b []string) []pair {
	var out []pair
	for i := range max(len(a), len(b)) {
		var p pair
		if i < len(a) {
			p.left, p.hasLeft = a[i], true
		}
		if i < len(b) {
			p.right, p.hasRight = b[i], true
		}
		out = append(out, p)
	}
	return out
}

// SyncFiles is both configurations as batch prints them.
func SyncFiles(f api.SyncFiles, g Glyphs) []Line {
	out := SyncFilesHead(f, g)
	out = append(out, nil, L(S(Muted, "from sync to async:")))
	if f.Diff == "" {
		out = append(out, L(S(Muted, "(no difference)")))
	} else {
		out = append(out, Diff(f.Diff)...)
	}
	if f.Drift != "" {
		out = append(out, nil, L(S(Warn, g.Warn+" drift, from what should be in force to what is:")))
		out = append(out, Diff(f.Drift)...)
	}
	return out
}

// Reload says what a reload did.
func Reload(r api.ReloadResult, g Glyphs) []Line {
	if r.Unchanged || len(r.Applied)+len(r.Restart) == 0 {
		return []Line{P("nothing has changed")}
	}
	var out []Line
	for _, k := range r.Applied {
		out = append(out, L(S(Good, g.OK+" applied  "), S(Plain, Clean(k))))
	}
	for _, k := range r.Restart {
		out = append(out, L(S(Warn, g.Warn+" needs a restart of proxyd  "), S(Plain, Clean(k))))
	}
	return out
}
