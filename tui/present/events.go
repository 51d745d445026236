package present

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// Filter chooses events. The zero Filter chooses all.
type Filter struct {
	Level string // at least: info, warn, error
	Node  string // exactly
	Text  string // anywhere, whatever its case
}

// Levels of events, the least first.
var Levels = []string{"info", "warn", "error"}

// Match says whether the event is chosen.
func (f Filter) Match(e api.Event) bool {
	if f.Level != "" && slices.Index(Levels, e.Level) < slices.Index(Levels, f.Level) {
		return false
	}
	if f.Node != "" && e.Node != f.Node {
		return false
	}
	if f.Text == "" {
		return true
	}
	all := strings.ToLower(strings.Join([]string{e.Kind, e.Node, e.Text, e.By, e.Op}, " "))
	return strings.Contains(all, strings.ToLower(f.Text))
}

// Empty says that everything is chosen.
func (f Filter) Empty() bool { return f == Filter{} || f == Filter{Level: "info"} }

func (f Filter) String() string {
	var w []string
	if f.Level != "" && f.Level != "info" {
		w = append(w, "level>="+f.Level)
	}
	if f.Node != "" {
		w = append(w, "node="+f.Node)
	}
	if f.Text != "" {
		w = append(w, "text~"+f.Text)
	}
	return Or(strings.Join(w, " "), "none")
}

// Flags is the filter as --batch events has it.
func (f Filter) Flags() string {
	out := ""
	if f.Level != "" && f.Level != "info" {
		out += " --level " + f.Level
	}
	if f.Node != "" {
		out += " --node " + f.Node
	}
	return out
}

// EventLine is one event in one line. Events of today carry their time alone;
// the zero time is no day, so that all carry their date.
func EventLine(e api.Event, today time.Time, g Glyphs) Line {
	_, tone := g.Level(e.Level)
	kind := Muted
	if tone != Plain {
		kind = tone
	}
	level := tone
	if tone == Plain {
		level = Muted
	}
	return L(S(Faint, eventTime(e.At, today)+" "), S(level, fmt.Sprintf("%-5s ", strings.ToUpper(e.Level))),
		S(kind, fmt.Sprintf("%-17s ", Clean(e.Kind))), S(Accent, fmt.Sprintf("%-7s ", Or(Clean(e.Node), "-"))), S(Plain, Clean(e.Text)))
}

func eventTime(at, today time.Time) string {
	switch {
	case today.IsZero():
		return at.Format("2006-01-02 15:04:05.000")
	case at.Format(time.DateOnly) == today.In(at.Location()).Format(time.DateOnly):
		return Clock(at)
	}
	return at.Format("Jan _2 15:04")
}

// EventDetail is everything an event carries.
func EventDetail(e api.Event, width int, g Glyphs) []Line {
	sign, tone := g.Level(e.Level)
	out := []Line{L(S(tone, sign+" "+strings.ToUpper(e.Level)+" "), S(Strong, Clean(e.Kind)), S(Muted, "  "+DateTime(e.At)+fmt.Sprintf("  #%d", e.Seq)))}
	out = append(out, WrapLines(Plain, e.Text, width, 0)...)
	pairs := [][2]string{{"node", e.Node}, {"operation", e.Op}, {"by", e.By}}
	if e.Term > 0 {
		pairs = append(pairs, [2]string{"term", fmt.Sprint(e.Term)})
	}
	if e.Rule > 0 {
		pairs = append(pairs, [2]string{"rule", fmt.Sprint(e.Rule)})
	}
	for _, k := range slices.Sorted(maps.Keys(e.Fields)) {
		pairs = append(pairs, [2]string{k, e.Fields[k]})
	}
	for _, p := range pairs {
		if p[1] != "" {
			out = append(out, L(S(Muted, fmt.Sprintf("%-22s ", Clean(p[0]))), S(Plain, Clean(p[1]))).Cut(width, g.Ellipsis))
		}
	}
	return out
}
