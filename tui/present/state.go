package present

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// Verdict is the one line that a person can act on: how the cluster is, and
// what happens if the primary dies now.
func Verdict(s api.State, g Glyphs) []Line {
	out := []Line{verdictLine(s.Verdict, Strong, g)}
	for _, v := range Consequences(s) {
		out = append(out, ifDies(v, g))
	}
	return out
}

func verdictLine(v api.Verdict, plain Tone, g Glyphs) Line {
	sign, tone := g.Level(v.Level)
	if tone == Plain || tone == Good {
		return L(S(tone, sign+" "), S(plain, Clean(v.Text)))
	}
	return L(S(tone, sign+" "+Clean(v.Text)))
}

// Consequences are the verdicts on each node's death, the primary's first; not
// on that of a node which is gone already.
func Consequences(s api.State) []api.Verdict {
	out := slices.DeleteFunc(slices.Clone(s.IfDies), func(v api.Verdict) bool { return v.Gone })
	slices.SortStableFunc(out, func(a, b api.Verdict) int {
		switch s.Primary {
		case a.Node:
			return -1
		case b.Node:
			return 1
		}
		return 0
	})
	return out
}

// ifDies says what would happen without a node.
func ifDies(v api.Verdict, g Glyphs) Line {
	sign, tone := g.Level(v.Level)
	words := Plain
	if tone == Warn || tone == Alarm {
		words = tone
	}
	return L(S(tone, sign+" "), S(Strong, fmt.Sprintf("if %s dies now: ", v.Node)), S(words, IfDiesText(v)))
}

// IfDiesText is what would happen without a node, without the words that name
// it, with which the daemon's own sentence may begin.
func IfDiesText(v api.Verdict) string {
	return strings.TrimSpace(strings.TrimPrefix(Clean(v.Text), fmt.Sprintf("if %s dies now:", v.Node)))
}

// Health says in one word, and a tone, what the verdict's level means.
func Health(level string) Span {
	switch level {
	case "ok":
		return S(Good, "PROTECTED")
	case "warn":
		return S(Warn, "ATTENTION")
	case "alarm":
		return S(Alarm, "ALARM")
	}
	return S(Muted, "UNKNOWN")
}

// NodesTable shows every node; later is how long ago the state came in, and is
// added to the ages that it names.
func NodesTable(s api.State, later time.Duration, selected string, g Glyphs) Table {
	t := Table{Columns: []Column{
		{Title: "NODE"},
		{Title: "ROLE"},
		{Title: "SYNC", Keep: 95},
		{Title: "STATE", Keep: 75},
		{Title: "TL", Right: true, Keep: 60},
		{Title: "LSN", Keep: 55},
		{Title: "LAG", Right: true, Keep: 85},
		{Title: "TIME", Right: true, Keep: 70},
		{Title: "SEEN", Right: true, Keep: 80},
		{Title: "ELIGIBLE", Keep: 90, Grow: true},
	}}
	for _, n := range s.Nodes {
		t.Rows = append(t.Rows, nodeRow(n, s, later, n.Name == selected, g))
	}
	return t
}

func nodeRow(n api.Node, s api.State, later time.Duration, mark bool, g Glyphs) Row {
	age := time.Duration(n.SeenMS)*time.Millisecond + later
	lost := FreshnessOf(age) == Lost || !n.Reachable
	old := func(s Span) Span {
		if lost && s.Tone != Alarm && s.Tone != Warn {
			s.Tone = Faint
		}
		return s
	}
	lag, lagTime := Bytes(n.LagBytes), Lag(n.ReplayLagMS)
	if n.Role == "primary" {
		lag, lagTime = "-", "-"
	}
	return Row{ID: n.Name, Mark: mark, Cells: []Span{
		S(Accent, n.Name), old(roleCell(n, s, g)), old(syncCell(n)), stateCell(n, old),
		old(S(Plain, fmt.Sprint(n.Timeline))), old(S(Plain, Or(n.LSN, "-"))),
		old(S(lagTone(n), lag)), old(S(Plain, lagTime)), Aged(age), eligibleCell(n, g),
	}}
}

func roleCell(n api.Node, s api.State, g Glyphs) Span {
	switch {
	case !n.Reachable:
		return S(Alarm, g.Alarm+" "+Or(n.Role, "unknown"))
	case n.Role == "primary" && n.Name == s.Primary:
		return S(Good, g.OK+" primary")
	case n.Role == "primary":
		return S(Alarm, g.Alarm+" primary!")
	case n.Role == "standby":
		return S(Plain, g.OK+" standby")
	}
	return S(Warn, g.Unknown+" "+Or(n.Role, "unknown"))
}

func syncCell(n api.Node) Span {
	switch {
	case n.Role == "primary":
		return S(Faint, "-")
	case n.SyncState == "sync" || n.SyncState == "quorum":
		return S(Good, n.SyncState)
	}
	return S(Plain, Or(n.SyncState, "-"))
}

// stalledMS is how long a commit waits for its standby before it is worth a
// word: every synchronous commit waits a moment.
const stalledMS = 1000

func stateCell(n api.Node, old func(Span) Span) Span {
	switch {
	case !n.Reachable:
		return S(Alarm, Or(n.Reach, "unreachable"))
	case n.ReplayPaused:
		return S(Warn, "replay paused")
	case n.Role == "primary" && n.SyncWaiters > 0 && n.OldestWaitMS >= stalledMS:
		return S(Warn, fmt.Sprintf("%d wait", n.SyncWaiters))
	case n.State == "" && n.Role == "standby":
		return S(Warn, "no sender")
	}
	return old(S(Plain, Or(n.State, "-")))
}

func lagTone(n api.Node) Tone {
	switch {
	case n.LagBytes < 0:
		return Muted
	case n.LagBytes > 16<<20: // a segment
		return Warn
	}
	return Plain
}

func eligibleCell(n api.Node, g Glyphs) Span {
	switch {
	case n.Fenced:
		return S(Warn, g.Warn+" fenced"+because(n.EligibleReason))
	case n.Role == "primary":
		return S(Faint, "-")
	case n.Eligible:
		return S(Good, g.OK+" yes"+because(n.EligibleReason))
	}
	return S(Warn, g.Warn+" no"+because(n.EligibleReason))
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// NodeDetail tells all that is known of one node.
func NodeDetail(n api.Node, later time.Duration, width int, g Glyphs) []Line {
	rows := [][2]string{
		{"address", fmt.Sprintf("%s:%d", n.Host, n.Port)},
		{"data directory", n.DataDirectory},
		{"server", strings.TrimSpace(Or(n.ServerVersion, "?") + "  system " + Or(n.SystemIdentifier, "?"))},
		{"connection", fmt.Sprintf("%s, %s ago", Or(n.Reach, "?"), Age(time.Duration(n.SeenMS)*time.Millisecond+later))},
		{"host over ssh", fmt.Sprintf("%s, postmaster %s", reachable(n.HostReachable), Or(n.Postmaster, "unknown"))},
		{"positions", positions(n)},
		{"behind", fmt.Sprintf("flush %s, replay %s", Bytes(n.FlushLagBytes), Bytes(n.LagBytes))},
		{"lag", fmt.Sprintf("write %s, flush %s, replay %s", Lag(n.WriteLagMS), Lag(n.FlushLagMS), Lag(n.ReplayLagMS))},
		{"waits for", fmt.Sprintf("synchronous_standby_names = '%s' %s", n.SyncStandbyNames, n.SyncNamesSource)},
		{"commits waiting", waiting(n)},
		{"failover", failoverWord(n)},
	}
	var out []Line
	for _, r := range rows {
		out = append(out, L(S(Muted, fmt.Sprintf("%-16s", r[0])), S(Plain, Clean(r[1]))).Cut(width, g.Ellipsis))
	}
	for _, e := range []string{n.Error, n.HostError} {
		if e != "" {
			out = append(out, L(S(Muted, fmt.Sprintf("%-16s", "error")), S(Alarm, g.Alarm+" "+Clean(e))).Cut(width, g.Ellipsis))
		}
	}
	for _, w := range n.Warnings {
		out = append(out, L(S(Muted, fmt.Sprintf("%-16s", "warning")), S(Warn, g.Warn+" "+Clean(w))).Cut(width, g.Ellipsis))
	}
	return out
}

func positions(n api.Node) string {
	if n.SentLSN == "" {
		return Or(n.LSN, "?")
	}
	return fmt.Sprintf("sent %s  write %s  flush %s  replay %s", n.SentLSN, Or(n.WriteLSN, "?"), Or(n.FlushLSN, "?"), Or(n.ReplayLSN, "?"))
}

func waiting(n api.Node) string {
	if n.SyncWaiters == 0 {
		return "none"
	}
	return fmt.Sprintf("%d, the oldest for %s", n.SyncWaiters, MS(float64(n.OldestWaitMS)))
}

func reachable(ok bool) string {
	if ok {
		return "reachable"
	}
	return "not reachable"
}

func failoverWord(n api.Node) string {
	w := fmt.Sprintf("weight %d", n.Weight)
	if !n.FailoverAllowed {
		return w + ", never promoted (failover_allowed = false)"
	}
	return w
}

// PoolLine is the proxy's clients and servers in one line.
func PoolLine(s api.State) Line {
	p := s.Pool
	l := L(S(Muted, "clients "), S(Strong, fmt.Sprintf("%d", p.Clients)), S(Muted, fmt.Sprintf("/%d", p.MaxClients)))
	held := S(Plain, fmt.Sprintf("  held %d", p.Held))
	if p.Held > 0 {
		held.Tone = Warn
		if s.Gate.OldestHeldMS > 0 {
			held.Text += " (oldest " + MS(float64(s.Gate.OldestHeldMS)) + ")"
		}
	}
	return append(l, held,
		S(Plain, fmt.Sprintf("  waiting %d", p.Waiting)),
		S(Muted, "  servers "), S(Plain, fmt.Sprintf("%d active, %d idle", p.ServersActive, p.ServersIdle)),
		S(Muted, "  tx "), S(Plain, Thousands(p.Transactions)))
}

// GateLine says where the traffic goes, and who confirms it.
func GateLine(s api.State, g Glyphs) Line {
	if s.GateState != "open" && s.Gate.State != "open" {
		return L(S(Muted, "gate "), S(Warn, g.Warn+" closed"), S(Muted, "  term "), S(Plain, fmt.Sprint(s.Term)),
			S(Warn, "  "+Clean(s.Gate.Reason)))
	}
	to := Or(s.Gate.Node, s.Primary)
	l := L(S(Muted, "gate "), S(Good, g.OK+" open"), S(Plain, " "+g.Arrow+" "), S(Accent, to))
	for _, n := range s.Nodes {
		switch {
		case n.Name == to || n.State == "":
		case n.SyncState == "sync" || n.SyncState == "quorum":
			l = append(l, S(Good, " "+g.Tie+" sync "+g.Tie+" "), S(Accent, n.Name))
		default:
			l = append(l, S(Muted, " "+g.LooseTie+" "+Or(n.SyncState, n.State)+" "+g.LooseTie+" "), S(Accent, n.Name))
		}
	}
	return append(l, S(Muted, "  term "), S(Plain, fmt.Sprint(s.Term)))
}

// RuleLine is the rule in force, with its reason.
func RuleLine(s api.State) Line {
	if s.Rule.Number == 0 && s.Rule.Name == "" {
		return L(S(Muted, "rule "), S(Muted, "none has been decided yet"))
	}
	return L(S(Muted, "rule "), S(Accent, fmt.Sprint(s.Rule.Number)), S(Strong, " "+Clean(s.Rule.Name)), S(Muted, ": "+Clean(s.Rule.Reason)))
}

// Notices are what a person must know before anything else: an engine that
// does not act.
func Notices(s api.State, g Glyphs) []Line {
	var out []Line
	if s.Halted != "" {
		out = append(out, L(S(Alarm, g.Alarm+" HALTED: the engine does not act until a person has looked: "+Clean(s.Halted))))
	}
	if s.Maintenance {
		line := L(S(Warn, g.Warn+" MAINTENANCE: the engine keeps its hands off; nothing is promoted"))
		if s.Halted == "" && s.Verdict.Level == "alarm" {
			line = L(S(Alarm, g.Alarm+" MAINTENANCE: nothing is done about what follows, until it is turned off"))
		}
		out = append(out, line)
	}
	if s.Async != nil && s.Mode == s.WantMode {
		out = append(out, L(S(Warn, g.Warn+" ASYNC BY HAND"+asyncLeft(*s.Async))))
	}
	if s.Damping != nil && s.Damping.Text != "" {
		out = append(out, L(S(Warn, g.Warn+" DAMPED: "+Clean(s.Damping.Text))))
	}
	if s.WantMode != "" && s.Mode != "" && s.WantMode != s.Mode {
		out = append(out, L(S(Warn, fmt.Sprintf("%s the mode is %s, %s is wanted", g.Warn, s.Mode, s.WantMode))))
	}
	return out
}

// asyncLeft is how long an async by hand will last.
func asyncLeft(a api.Async) string {
	if a.LeftMS < 0 {
		return ": nothing ends it but a person"
	}
	return ": sync comes back in " + Duration(time.Duration(a.LeftMS)*time.Millisecond)
}

// Status is the whole state as batch prints it.
func Status(s api.State, g Glyphs) []Line {
	head := L(S(Strong, Or(s.Cluster, "(no name)")))
	if s.Lab && s.Cluster != "lab" {
		head = append(head, S(Muted, " [lab]"))
	}
	head = append(head, S(Muted, "  primary "), S(Accent, Or(s.Primary, "none")), S(Muted, "  mode "), S(Plain, Or(s.Mode, "unknown")),
		S(Muted, "  term "), S(Plain, fmt.Sprint(s.Term)), S(Muted, "  proxyd "), S(Plain, Or(s.Version, "?")),
		S(Muted, "  up "), S(Plain, Duration(s.At.Sub(s.Started))))
	out := []Line{head}
	out = append(out, Notices(s, g)...)
	out = append(out, Verdict(s, g)...)
	out = append(out, nil)
	out = append(out, NodesTable(s, 0, "", g).Lines(0, g)...)
	out = append(out, nil, GateLine(s, g), PoolLine(s), RuleLine(s))
	out = append(out, PromotionLines(s, explainWidth, g)...)
	for _, p := range s.Promises {
		out = append(out, L(S(Muted, "promise "), S(Accent, Clean(p.Node)), S(Plain, fmt.Sprintf(" receives nothing more from the primary before term %d, and holds %s", p.Term, p.LSN))))
	}
	if s.Operation != nil {
		out = append(out, OperationHead(*s.Operation, s.At, g))
	}
	return out
}

// Thousands groups the digits of a large number.
func Thousands(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

// PoolsTable lists pools.
func PoolsTable(ps []api.Pool) Table {
	t := Table{Columns: []Column{
		{Title: "DATABASE"}, {Title: "USER"}, {Title: "MODE"}, {Title: "ACTIVE", Right: true}, {Title: "WAITING", Right: true},
		{Title: "HELD", Right: true}, {Title: "IDLE", Right: true}, {Title: "SERVERS", Right: true}, {Title: "SIZE", Right: true},
		{Title: "OLDEST WAIT", Right: true},
	}}
	for _, p := range ps {
		t.Rows = append(t.Rows, Row{ID: p.Database + "/" + p.User, Cells: []Span{
			S(Accent, p.Database), S(Plain, p.User), S(Plain, p.Mode), num(p.ClientsActive), num(p.ClientsWaiting), num(p.ClientsHeld),
			num(p.ClientsIdle), S(Plain, fmt.Sprintf("%d+%d", p.ServersActive, p.ServersIdle)), num(p.Size), S(Plain, MS(float64(p.OldestWaitMS))),
		}})
	}
	return t
}

// ClientsTable lists clients.
func ClientsTable(cs []api.Client) Table {
	t := Table{Columns: []Column{
		{Title: "ID", Right: true}, {Title: "ADDRESS"}, {Title: "DATABASE"}, {Title: "USER"}, {Title: "APPLICATION"},
		{Title: "STATE"}, {Title: "FOR", Right: true}, {Title: "SERVER"}, {Title: "TLS"},
	}}
	for _, c := range cs {
		t.Rows = append(t.Rows, Row{ID: fmt.Sprint(c.ID), Cells: []Span{
			S(Muted, fmt.Sprint(c.ID)), S(Plain, c.Address), S(Accent, c.Database), S(Plain, c.User), S(Plain, c.Application),
			S(Plain, c.State), S(Plain, MS(float64(c.StateMS))), S(Plain, Or(c.Server, "-")), S(Plain, Bool(c.TLS)),
		}})
	}
	return t
}

func num(n int) Span { return S(Plain, fmt.Sprint(n)) }
