package page

import (
	"github.com/charmbracelet/bubbles/key"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/present"
)

// Operations is what was done and is being done, by the engine or a person.
type Operations struct {
	base
	rows   list
	detail bool
	scroll scroll
	high   int
}

// NewOperations makes the fifth screen.
func NewOperations() *Operations { return &Operations{} }

// Title names the screen.
func (*Operations) Title() string { return "Operations" }

var keyOpenOperation = bind("its steps; follow it where it runs", "enter", "enter")

// Keys of the screen.
func (*Operations) Keys() []key.Binding {
	return append(moving(), keyOpenOperation, keyFollowOp, keyBack)
}

// Needs the operations.
func (*Operations) Needs() Fetch { return FetchOperations }

// Batch is the screen's command.
func (o *Operations) Batch(*Facts) string {
	if o.detail && o.rows.id != "" {
		return "operation " + o.rows.id
	}
	return "operations"
}

// all are the operations with the running one first.
func (o *Operations) all(f *Facts) []api.Operation {
	run := f.State.Operation
	if run == nil {
		return f.Operations
	}
	out := []api.Operation{*run}
	for _, op := range f.Operations {
		if op.ID != run.ID {
			out = append(out, op)
		}
	}
	return out
}

func operationIDs(ops []api.Operation) []string {
	out := make([]string, len(ops))
	for i, op := range ops {
		out[i] = op.ID
	}
	return out
}

// Update handles a key.
func (o *Operations) Update(pressed string, f *Facts) Wish {
	all := o.all(f)
	if o.detail {
		switch {
		case is(pressed, keyBack), is(pressed, keyOpenOperation):
			o.detail = false
		default:
			o.scroll.update(pressed, max(1, o.high-1))
		}
		return nil
	}
	switch {
	case o.rows.update(pressed, operationIDs(all), max(1, o.high-1)):
	case is(pressed, keyFollowOp):
		if f.State.Operation == nil {
			return Say{"no operation is running"}
		}
		return WantAttach{*f.State.Operation}
	case is(pressed, keyOpenOperation):
		i := o.rows.at(operationIDs(all))
		switch {
		case i < 0:
			return Say{"select an operation first (up, down)"}
		case all[i].State == api.OpRunning:
			return WantAttach{all[i]}
		}
		o.detail, o.scroll.top = true, 0
	}
	return nil
}

// Rows shows the list, or one operation.
func (o *Operations) Rows(f *Facts, width, height int) []Row {
	g := f.Glyphs
	all := o.all(f)
	at := o.rows.at(operationIDs(all))
	if o.detail && at >= 0 {
		return o.one(f, all[at], width, height)
	}
	rows := []Row{{Line: Rule("OPERATIONS", read(f, FetchOperations, present.Count(len(all), "operation")), width, g)}}
	rows = append(rows, problem(f, FetchOperations)...)
	table := tableRows(present.OperationsTable(all, f.Now, o.rows.id, g), width, g)
	rows = append(rows, table[0])
	o.high = height - len(rows)
	from, to := o.rows.window(at, len(all), o.high)
	rows = append(rows, table[1+from:1+to]...)
	if len(all) == 0 {
		rows = append(rows, row(present.S(present.Muted, " none yet")))
	}
	return grey(rows, f.Live)
}

func (o *Operations) one(f *Facts, op api.Operation, width, height int) []Row {
	g := f.Glyphs
	rows := []Row{{Line: Rule("OPERATION", "esc closes", width, g)}}
	body := []present.Line{present.OperationHead(op, f.Now, g),
		present.L(present.S(present.Muted, "started "+present.DateTime(op.Started)+"  by "+present.Or(present.Clean(op.Plan.By), "?")))}
	body = append(body, present.PlanEffects(op.Plan, width-2, g)...)
	body = append(body, nil)
	body = append(body, present.StepBars(op.Plan.Steps, f.Now, width-2, g)...)
	body = append(body, nil)
	body = append(body, present.OperationResult(op, width-2, g)...)
	if op.Drill != nil {
		body = append(body, nil)
		body = append(body, present.Report(*op.Drill, width-2, g)...)
	}
	o.high = height - 1
	return append(rows, o.scroll.cut(Rows(indent(body)), o.high)...)
}
