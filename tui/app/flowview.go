package app

import (
	"errors"
	"strings"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/page"
	"github.com/pgtandem/pgtandem/tui/present"
)

// flowRows shows a flow in the place of the page.
func (m *Model) flowRows(f *flow, width, height int) []page.Row {
	g := m.facts.Glyphs
	title := f.title()
	switch f.stage {
	case planning:
		return []page.Row{{Line: page.Rule(title, "", width, g)}, {}, line(present.S(present.Muted, " asking the daemon for a plan; nothing is changed by it"))}
	case refused:
		return m.refusedRows(f, title, width)
	case confirming:
		return m.confirmRows(f, title, width, height)
	case starting:
		return []page.Row{{Line: page.Rule(title, "", width, g)}, {}, line(present.S(present.Accent, " "+g.Running+" sent to the daemon, waiting for its answer"))}
	}
	return m.operationRows(f, title, width, height)
}

// title is the flow's name with its action in capitals.
func (f *flow) title() string {
	action, rest, _ := strings.Cut(f.name(), " ")
	return strings.TrimSpace(strings.ToUpper(action) + " " + rest)
}

func line(spans ...present.Span) page.Row { return page.Row{Line: present.L(spans...)} }

func indented(lines []present.Line) []page.Row {
	out := make([]page.Row, len(lines))
	for i, l := range lines {
		out[i] = page.Row{Line: l.Indent(1)}
	}
	return out
}

func (m *Model) refusedRows(f *flow, title string, width int) []page.Row {
	g := m.facts.Glyphs
	rows := []page.Row{{Line: page.Rule(title, "esc closes", width, g)}, {}}
	rows = append(rows, indented(refusal(f.err, f.op.ID != "", width-2, g))...)
	return rows
}

// refusal explains why the daemon did not do it. What had begun may have been
// done, whatever the daemon answers afterwards.
func refusal(err error, begun bool, width int, g present.Glyphs) []present.Line {
	head, moved, remedy, unknown := explain(err)
	var out []present.Line
	word := "Not done. "
	if unknown || begun {
		word = "The outcome is UNKNOWN. "
	}
	out = append(out, present.WrapLines(present.Alarm, g.Alarm+" "+word+head, width, 2)...)
	for _, x := range moved {
		out = append(out, present.WrapLines(present.Plain, "  moved: "+x, width, 4)...)
	}
	if remedy != "" {
		out = append(out, nil)
		out = append(out, present.WrapLines(present.Plain, g.Arrow+" "+remedy, width, 2)...)
	}
	return out
}

// explain takes an error apart.
func explain(err error) (head string, moved []string, remedy string, unknown bool) {
	var e *api.Error
	if !errors.As(err, &e) {
		return err.Error(), nil, "", false
	}
	return e.Message, e.Moved, e.Remedy, e.Code == api.CodeUnknown
}

// confirmRows shows the plan, its effects, and the place for the name. The
// steps have what room is left and can be scrolled.
func (m *Model) confirmRows(f *flow, title string, width, height int) []page.Row {
	g := m.facts.Glyphs
	note := "nothing is done yet"
	rows := []page.Row{{Line: page.Rule(title, note, width, g)}}
	var steps []present.Line
	if f.drill != nil {
		for _, l := range []string{"fault: " + f.drill.Fault, "expected: " + f.drill.Expects,
			"Clients write all the while; afterwards the pair is put back as it was."} {
			rows = append(rows, indented(present.WrapLines(present.Plain, l, width-2, 2))...)
		}
		if !m.facts.State.Lab {
			rows = append(rows, indented(present.WrapLines(present.Warn, g.Warn+" "+m.facts.State.Cluster+" is no lab: real clients are held, and see the errors that the report will count", width-2, 2))...)
		}
	} else if f.hands != nil {
		rows = append(rows, indented(present.MaintenanceEffects(m.facts.State, *f.hands, width-2, g))...)
	} else {
		rows = append(rows, indented(present.PlanEffects(f.plan, width-2, g))...)
		steps = present.PlanSteps(f.plan, present.Titles, width-2, g)
	}
	rows = append(rows, m.changeRows(f, width, height)...)
	foot := m.typingRows(f, width)
	if len(steps) > 0 {
		about := present.Count(len(steps), "step")
		if e := present.Expected(f.plan.Steps); e > 0 {
			about += ", about " + present.MS(float64(e.Milliseconds()))
		}
		rows = append(rows, page.Row{Line: page.Rule("STEPS", about, width, g)})
		room := max(1, height-len(rows)-len(foot))
		for _, d := range []present.Detail{present.Commands, present.Proofs} {
			if more := present.PlanSteps(f.plan, d, width-2, g); len(more) <= room {
				steps = more
			}
		}
		f.top = max(0, min(f.top, len(steps)-room))
		rows = append(rows, indented(steps[f.top:min(len(steps), f.top+room)])...)
	}
	rows = fit(rows, height-len(foot))
	return append(rows, foot...)
}

// changeRows is the difference that a change of mode makes to the file.
func (m *Model) changeRows(f *flow, width, height int) []page.Row {
	if f.req.Action != "set-mode" || f.drill != nil || f.files.Node == "" {
		return nil
	}
	from, to := f.files.Sync, f.files.Async
	if f.req.Mode == "sync" {
		from, to = to, from
	}
	lines := present.Changes(from, to)
	if len(lines) == 0 {
		return nil
	}
	rows := []page.Row{{Line: page.Rule("CHANGE ON "+f.files.Node, f.files.Method, width, m.facts.Glyphs)}}
	return append(rows, indented(lines[:min(len(lines), max(2, height/4))])...)
}

func (m *Model) typingRows(f *flow, width int) []page.Row {
	g := m.facts.Glyphs
	ask := "Type " + f.word + " to go ahead: "
	typed := present.S(present.Strong, f.typed+"_")
	end := present.S(present.Muted, "")
	switch {
	case f.typed == f.word:
		end = present.S(present.Good, "  "+g.OK+" enter goes ahead")
	case f.typed != "" && !strings.HasPrefix(f.word, f.typed):
		typed.Tone = present.Alarm
		end = present.S(present.Alarm, "  "+g.Alarm+" this is not "+f.word)
	}
	if why := m.mayAct(); why != "" {
		end = present.S(present.Alarm, "  "+g.Alarm+" "+why)
	}
	return []page.Row{
		{Line: page.Rule("CONFIRM", "", width, g)},
		line(present.S(present.Plain, " "+ask), typed, end),
		{Line: present.L(present.S(present.Faint, " "+m.commandLine(f.command())))},
	}
}

func (m *Model) operationRows(f *flow, title string, width, height int) []page.Row {
	g := m.facts.Glyphs
	rows := []page.Row{{Line: page.Rule(title, "the daemon owns it; any console can follow", width, g)}}
	now := m.facts.Now
	if f.stage == running && !m.link.live {
		// Nobody knows how it stands now: the clock of its steps stands still.
		now = m.facts.Received
		rows = append(rows, line(present.S(present.Warn, " "+g.Unknown+" UNKNOWN while the daemon does not answer; when it last did:")))
	}
	rows = append(rows, page.Row{Line: present.OperationHead(f.op, now, g).Indent(1)})
	if f.op.Progress != "" && f.stage == running {
		rows = append(rows, line(present.S(present.Muted, "   "+present.Clean(f.op.Progress))))
	}
	rows = append(rows, page.Row{})
	steps := present.StepBars(f.op.Plan.Steps, now, width-2, g)
	var foot []page.Row
	if f.stage == ended {
		foot = append(foot, page.Row{}, page.Row{Line: page.Rule("RESULT", "", width, g)})
		foot = append(foot, indented(present.OperationResult(f.op, width-2, g))...)
		if f.op.Drill != nil {
			foot = append(foot, page.Row{Line: present.ReportHead(*f.op.Drill, g).Indent(1)})
			foot = append(foot, indented(present.ReportWhy(*f.op.Drill, width-2, g))...)
			foot = append(foot, indented(present.ReportFigures(*f.op.Drill, g))...)
		} else {
			foot = append(foot, page.Row{}, page.Row{Line: page.Rule("NOW", "", width, g)}, page.Row{Line: present.GateLine(m.facts.State, g).Indent(1)})
			for _, l := range present.Verdict(m.facts.State, g) {
				if l.Width() > width-2 {
					foot = append(foot, indented(present.WrapLines(l[0].Tone, l.Text(), width-2, 2))...)
					continue
				}
				foot = append(foot, page.Row{Line: l.Indent(1)})
			}
		}
	} else {
		foot = append(foot, page.Row{}, page.Row{Line: page.Rule("CLIENTS NOW", "", width, g)},
			page.Row{Line: present.GateLine(m.facts.State, g).Indent(1)}, page.Row{Line: present.PoolLine(m.facts.State).Indent(1)})
	}
	room := max(1, height-len(rows)-len(foot))
	f.top = max(0, min(f.top, len(steps)-room))
	rows = append(rows, indented(steps[f.top:min(len(steps), f.top+room)])...)
	return append(rows, foot...)
}
