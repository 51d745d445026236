package page

import (
	"fmt"
	"slices"

	"github.com/charmbracelet/bubbles/key"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/present"
)

// Overview is how the cluster is, and what happens if a node dies now.
type Overview struct {
	base
	nodes  list
	chosen bool // a node has been selected once
	detail bool
}

// NewOverview makes the first screen.
func NewOverview() *Overview { return &Overview{} }

// Title names the screen.
func (*Overview) Title() string { return "Overview" }

var (
	keyPromote    = bind("promote the selected node", "p", "p")
	keySwitchover = bind("switch over to the selected node", "s", "s")
	keyMode       = bind("swap sync and async", "m", "m")
	keyRejoin     = bind("rejoin the selected node", "R", "R")
	keyDetail     = bind("all about the selected node", "enter", "enter")
	keyFollowOp   = bind("follow the running operation", "o", "o")
)

// Keys of the screen.
func (*Overview) Keys() []key.Binding {
	return []key.Binding{keyUp, keyDown, keyDetail, keyPromote, keySwitchover, keyMode, keyRejoin, keyMaintenance, keyFollowOp}
}

// Batch is the screen's command.
func (*Overview) Batch(*Facts) string { return "status" }

// Selected is the selected node's name, "" when none is.
func (o *Overview) Selected(f *Facts) string {
	o.choose(f)
	if o.nodes.at(nodeNames(f.State)) < 0 {
		return ""
	}
	return o.nodes.id
}

// choose selects a standby once, so that there is something to act on.
func (o *Overview) choose(f *Facts) {
	if o.chosen || len(f.State.Nodes) == 0 {
		return
	}
	o.chosen, o.nodes.id = true, f.State.Nodes[0].Name
	for _, n := range f.State.Nodes {
		if n.Name != f.State.Primary {
			o.nodes.id = n.Name
			return
		}
	}
}

func nodeNames(s api.State) []string {
	out := make([]string, len(s.Nodes))
	for i, n := range s.Nodes {
		out[i] = n.Name
	}
	return out
}

// Update handles a key.
func (o *Overview) Update(pressed string, f *Facts) Wish {
	o.choose(f)
	switch {
	case o.nodes.update(pressed, nodeNames(f.State), 5):
	case is(pressed, keyDetail):
		o.detail = !o.detail
	case is(pressed, keyBack):
		o.detail = false
	case is(pressed, keyPromote):
		return o.onNode("promote", f)
	case is(pressed, keySwitchover):
		return o.onNode("switchover", f)
	case is(pressed, keyRejoin):
		return o.onNode("rejoin", f)
	case is(pressed, keyMode):
		return WantPlan{api.PlanRequest{Action: "set-mode", Mode: other(f.State.Mode)}}
	case is(pressed, keyMaintenance):
		return WantMaintenance{!f.State.Maintenance}
	case is(pressed, keyFollowOp):
		if f.State.Operation == nil {
			return Say{"no operation is running"}
		}
		return WantAttach{*f.State.Operation}
	}
	return nil
}

func (o *Overview) onNode(action string, f *Facts) Wish {
	n := o.Selected(f)
	if n == "" {
		return Say{"select a node first (up, down)"}
	}
	return WantPlan{api.PlanRequest{Action: action, Node: n}}
}

func other(mode string) string {
	if mode == "sync" {
		return "async"
	}
	return "sync"
}

// Rows shows the overview. What matters most comes first and stays longest.
func (o *Overview) Rows(f *Facts, width, height int) []Row {
	if !f.Known {
		return []Row{{}, row(present.S(present.Muted, " waiting for the daemon's first word"))}
	}
	g, s := f.Glyphs, f.State
	o.choose(f)
	rows := o.verdict(f, width, height)
	rows = append(rows, Row{Line: Rule("NODES", o.nodesNote(f, width), width, g)})
	rows = append(rows, tableRows(present.NodesTable(s, f.Later(), o.nodes.id, g), width, g)...)
	if o.detail {
		if i := slices.IndexFunc(s.Nodes, func(n api.Node) bool { return n.Name == o.nodes.id }); i >= 0 {
			rows = append(rows, Row{Line: Rule(o.nodes.id, "", width, g)})
			for _, l := range present.NodeDetail(s.Nodes[i], f.Later(), width-2, g) {
				rows = append(rows, Row{Line: l.Indent(1)})
			}
			return grey(rows, f.Live)
		}
	}
	if height < 15 {
		return grey(rows, f.Live)
	}
	rows = append(rows, o.proxy(f, width, height-len(rows))...)
	rows = append(rows, o.running(f, width, height-len(rows))...)
	rows = append(rows, o.events(f, width, height-len(rows))...)
	return grey(rows, f.Live)
}

func (o *Overview) nodesNote(f *Facts, width int) string {
	note := fmt.Sprintf("term %d", f.State.Term)
	if width >= 80 {
		note += "  lag: bytes to replay, time as PostgreSQL says"
	}
	return note
}

func (o *Overview) verdict(f *Facts, width, height int) []Row {
	g, s := f.Glyphs, f.State
	head := present.L(present.S(present.Plain, " "))
	sign, tone := g.Level(s.Verdict.Level)
	head = append(head, present.S(tone, sign+" "))
	if !f.Live {
		head = append(head, present.S(tone, "was ")) // its colour alone would say so
	}
	head = append(head, present.Health(s.Verdict.Level), present.S(present.Plain, "  "))
	words := present.Strong
	if tone == present.Alarm || tone == present.Warn {
		words = tone
	}
	var lines []present.Line
	for _, n := range present.Notices(s, g) {
		lines = append(lines, notice(n, width)...)
	}
	lines = append(lines, present.Fold(head, words, s.Verdict.Text, width, height < 12)...)
	for _, v := range present.Consequences(s) {
		sign, tone := g.Level(v.Level)
		words := present.Plain
		if tone == present.Alarm || tone == present.Warn {
			words = tone
		}
		head := present.L(present.S(present.Plain, " "), present.S(tone, sign+" "), present.S(present.Muted, "if "), present.S(present.Accent, v.Node),
			present.S(present.Muted, " dies now: "))
		lines = append(lines, present.Fold(head, words, present.IfDiesText(v), width, height < 18)...)
	}
	return Rows(lines)
}

func (o *Overview) proxy(f *Facts, width, height int) []Row {
	g, s := f.Glyphs, f.State
	rows := []Row{{Line: Rule("PROXY", "", width, g)}}
	rows = append(rows, Row{Line: present.GateLine(s, g).Indent(1)}, Row{Line: present.PoolLine(s).Indent(1)}, Row{Line: present.RuleLine(s).Indent(1)})
	if height >= 14 {
		for _, c := range f.Samples.Charts(f.Now, width-1, g) {
			rows = append(rows, Row{Line: c.Indent(1)})
		}
	}
	return rows
}

func (o *Overview) running(f *Facts, width, height int) []Row {
	op := f.State.Operation
	if op == nil || height < 4 {
		return nil
	}
	g, now, title := f.Glyphs, f.Now, "OPERATION"
	if !f.Live { // nobody knows how it stands now
		now, title = f.Received, "OPERATION, AS IT WAS"
	}
	rows := []Row{{Line: Rule(title, "o follows it", width, g)}, {Line: present.OperationHead(*op, now, g).Indent(1)}}
	if op.Progress != "" {
		rows = append(rows, row(present.S(present.Muted, "   "+present.Clean(op.Progress))))
	}
	bars := present.StepBars(op.Plan.Steps, now, width-2, g)
	at := 0
	for i, s := range op.Plan.Steps {
		if s.State == "running" {
			at = i
		}
	}
	room := max(1, height-len(rows)-4)
	from := max(0, min(at-room/2, len(bars)-room))
	for _, l := range bars[from:min(len(bars), from+room)] {
		rows = append(rows, Row{Line: l.Indent(1)})
	}
	return rows
}

func (o *Overview) events(f *Facts, width, height int) []Row {
	if height < 2 {
		return nil
	}
	rows := []Row{{Line: Rule("EVENTS", "2 shows all", width, f.Glyphs)}}
	es := f.Events
	es = es[max(0, len(es)-height+1):]
	for i := len(es) - 1; i >= 0; i-- {
		rows = append(rows, Row{Line: present.EventLine(es[i], f.Now, f.Glyphs).Indent(1)})
	}
	if len(es) == 0 {
		rows = append(rows, row(present.S(present.Muted, " none yet")))
	}
	return rows
}
