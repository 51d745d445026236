package pipeline

import (
	"github.com/pgtandem/pgtandem/proxyd/session/statement"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// Outcome is what is known of the client's work when its server is lost.
type Outcome uint8

// Outcomes.
const (
	// Untouched: nothing was in flight and no transaction was open.
	Untouched Outcome = iota
	// RolledBack: what was in flight, or the open transaction, cannot have
	// been committed. It is safe to repeat.
	RolledBack
	// InDoubt: a commit, or a statement that commits by itself, was in
	// flight.
	InDoubt
)

// Loss is what a client is owed when its server is lost.
type Loss struct {
	Outcome Outcome
	// Groups are the ReadyForQuery owed, each with the transaction state to
	// report. Each is preceded by an error.
	Groups []byte
	// Skip: an error is owed (unless Told) and everything up to the client's
	// next Sync is to be ignored.
	Skip bool
	// Told: the client has been given an error already in its unfinished
	// group.
	Told bool
	// Status is the transaction state to go on with: 'E' when the client
	// believes itself in a transaction block that is gone.
	Status byte
	// OnlyBegin: all that was in flight was a BEGIN. A client that has sent
	// nothing behind it need not end a block that it never got.
	OnlyBegin bool
	// OnlyCommit: all that was in flight was a COMMIT. Once its outcome is
	// known, Synced says whether a ReadyForQuery is owed behind its answer.
	OnlyCommit, Synced bool
	// Unprepared: the answers to what has prepared it are owed as well.
	Unprepared bool
}

// Lost works out what is owed. partial says that the last message was not sent
// whole, so that the server cannot have acted on it.
func (p *Pipeline) Lost(partial bool) Loss {
	w := walk{status: p.Status(), implicit: p.implicit}
	w.open = w.status != wire.TxIdle
	if p.n == 0 && !w.open && !p.implicit && !p.skip {
		return Loss{Status: wire.TxIdle}
	}
	sent := p.flight()
	for i, s := range sent {
		w.step(s, partial && i == len(sent)-1)
	}
	loss := Loss{Groups: w.groups, Outcome: RolledBack, Status: wire.TxIdle}
	if w.doubt {
		loss.Outcome = InDoubt
	}
	if w.status != wire.TxIdle {
		loss.Status = wire.TxFailed
	}
	loss.Skip = w.tail || p.skip || p.implicit && len(loss.Groups) == 0
	loss.Told = p.told && len(loss.Groups) == 0
	if len(loss.Groups) == 0 && !loss.Skip && loss.Status == wire.TxIdle { // only what is hidden
		loss.Outcome = Untouched
	}
	loss.OnlyBegin = p.Status() == wire.TxIdle && !p.implicit && len(loss.Groups) == 1 && !loss.Skip && onlyBegin(sent)
	if loss.Outcome == InDoubt && !partial {
		loss.OnlyCommit, loss.Unprepared = onlyCommit(sent)
		loss.Synced = len(loss.Groups) == 1
	}
	return loss
}

// Committed is what is still owed once the client was told that its COMMIT went
// well.
func (l Loss) Committed() Loss {
	return Loss{Outcome: Untouched, Status: wire.TxIdle}
}

// onlyCommit says that a COMMIT is all that the messages execute, and that nothing
// but its Sync follows.
func onlyCommit(sent []Sent) (only, unprepared bool) {
	commits := 0
	for _, s := range sent {
		switch {
		case s.Hidden:
		case commits == 0 && (s.Kind == Parse || s.Kind == Bind || s.Kind == Describe || s.Kind == Close || s.Kind == CloseAsParse):
			unprepared = true
		case commits == 0 && (s.Kind == Query || s.Kind == Execute) && s.Class == statement.Commit:
			commits++
		case commits == 1 && s.Kind == Sync && sent[len(sent)-1] == s:
		default:
			return false, false
		}
	}
	return commits == 1, unprepared
}

// onlyBegin says that a BEGIN is all that the messages execute.
func onlyBegin(sent []Sent) bool {
	begins := 0
	for _, s := range sent {
		switch {
		case s.Hidden:
		case s.Kind != Query && s.Kind != Execute && s.Kind != Function:
		case s.Class != statement.Begin:
			return false
		default:
			begins++
		}
	}
	return begins == 1
}

// flight is what the server may have executed or answered: without what its
// running COPY eats, and without a COPY that was never ended.
func (p *Pipeline) flight() []Sent {
	all := make([]Sent, 0, p.n)
	for i := range p.n {
		all = append(all, p.at(i))
	}
	if !p.copyIn || len(all) == 0 {
		return all
	}
	for i, s := range all {
		if s.Kind == CopyEnd {
			return append(all[:1:1], all[i+1:]...)
		}
	}
	if all[0].Kind == Query { // it cannot have been committed, nor opened anything
		return []Sent{{Kind: Query, Class: statement.Rollback}}
	}
	return []Sent{{Kind: Bind}}
}

// walk simulates the messages in flight.
type walk struct {
	status   byte
	implicit bool
	open     bool
	doubt    bool
	tail     bool // the last group has no Sync yet
	groups   []byte
}

func (w *walk) step(s Sent, partial bool) {
	if !partial {
		switch s.Kind {
		case Query:
			w.query(s.Class, s.Hidden)
		case Function:
			w.query(statement.Other, false)
		case Execute:
			w.execute(s.Class)
		case Sync:
			w.doubt = w.doubt || w.implicit
			w.implicit = false
		}
	}
	switch {
	case s.Kind == CopyEnd || s.Hidden && s.Kind == Query:
	case s.ready():
		w.groups = append(w.groups, w.reported())
		w.tail = false
	case !s.Hidden:
		w.tail = true
	}
}

func (w *walk) reported() byte {
	if w.status == wire.TxIdle {
		return wire.TxIdle
	}
	return wire.TxFailed
}

// query follows a simple query. Outside a transaction block it commits by
// itself unless it opens a block.
func (w *walk) query(class statement.Class, hidden bool) {
	if hidden {
		return
	}
	if w.status == wire.TxIdle {
		switch class {
		case statement.Begin:
			w.status = wire.TxOpen
		case statement.Rollback, statement.Commit:
			w.doubt = w.doubt || w.implicit
		default:
			w.doubt = true
		}
		w.implicit = false
		return
	}
	w.block(class)
}

func (w *walk) execute(class statement.Class) {
	if w.status == wire.TxIdle {
		if class == statement.Begin {
			w.status, w.implicit = wire.TxOpen, false
		} else {
			w.implicit = true
		}
		return
	}
	w.block(class)
}

// block follows a statement inside a transaction block.
func (w *walk) block(class statement.Class) {
	switch class {
	case statement.Commit:
		w.doubt = w.doubt || w.status == wire.TxOpen
		w.status = wire.TxIdle
	case statement.Rollback:
		w.status = wire.TxIdle
	case statement.Unknown:
		w.doubt = w.doubt || w.status == wire.TxOpen
	}
}
