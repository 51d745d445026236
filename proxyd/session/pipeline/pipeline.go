// Package pipeline follows one server connection's protocol state by message
// types alone: what was sent and is not answered yet, what an answer belongs
// to, whether the server is between transactions, and what is known about the
// outcome when the server is lost in the middle.
//
// It must never see a socket, a clock or a message's body.
package pipeline

import (
	"github.com/pgtandem/pgtandem/proxyd/session/statement"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// Kind is what was sent.
type Kind uint8

// Kinds.
const (
	Query Kind = iota
	Function
	Sync
	Parse
	Bind
	Describe
	Execute
	Close
	CopyEnd      // CopyDone or CopyFail
	CloseAsParse // a Close in place of a Parse that the server has already: its answer is turned into ParseComplete
)

// Sent is one message sent to the server.
type Sent struct {
	Kind    Kind
	Class   statement.Class // of Query and Execute
	Hidden  bool            // sent on our own behalf: the client never sees an answer
	Named   bool            // it changes which statements have a name: see TakeNamed
	Asks    bool            // hidden, and the row that it gives is to be read
	Guarded bool            // hidden, with a Sync of its own behind it: the client does not see it fail
}

// ready says whether the server answers it with a ReadyForQuery of its own.
func (s Sent) ready() bool { return s.Kind == Query || s.Kind == Function || s.Kind == Sync }

// extended says whether an error in it makes the server skip to the next Sync.
func (s Sent) extended() bool { return !s.ready() && s.Kind != CopyEnd }

// Verdict is what to do with an answer.
type Verdict uint8

// Verdicts.
const (
	Pass Verdict = iota
	Drop
	AsParseComplete
	HiddenFailed // an ErrorResponse to a hidden query; a guarded message's is dropped
	Answer       // a DataRow of a message that asks
)

// Pipeline is the state of one server connection. The zero value is a server
// that has just logged in.
type Pipeline struct {
	ring []Sent // a power of two long
	head int
	n    int

	// status is that of the last ReadyForQuery, or what it must be by the
	// commands completed since.
	status byte
	// implicit: outside a transaction block, something was executed that
	// commits with the next Sync.
	implicit bool
	// begun: messages of the extended protocol were sent with no Sync behind
	// them yet. The server has a transaction and perhaps a portal for them.
	begun  bool
	copyIn bool
	skip   bool // the server ignores everything up to the next Sync
	told   bool // an ErrorResponse was passed on since the last ReadyForQuery

	// spare counts ReadyForQuery that may come or not: a Sync that was sent
	// while a COPY failed was either eaten by the COPY or answered.
	spare int

	// named counts messages that change names, those completed and those
	// dropped, so that the owner of the names can follow: see TakeNamed.
	named, unnamed int
}

// Status is the transaction state: 'I', 'T' or 'E'.
func (p *Pipeline) Status() byte {
	if p.status == 0 {
		return wire.TxIdle
	}
	return p.status
}

// Idle says that nothing is unanswered and no transaction is open: the server
// can serve another client.
func (p *Pipeline) Idle() bool {
	return p.n == 0 && p.Status() == wire.TxIdle && !p.implicit && !p.begun && !p.skip && p.spare == 0
}

// Fresh says that nothing was executed since the last ReadyForQuery, that no
// transaction is open, and that nothing unanswered executes anything: what is
// executed next is a transaction of its own unless more follows before Sync.
func (p *Pipeline) Fresh() bool {
	if p.Status() != wire.TxIdle || p.implicit || p.skip || p.spare > 0 {
		return false
	}
	for i := range p.n {
		if e := p.at(i); !e.Hidden && (e.Kind == Query || e.Kind == Execute || e.Kind == Function || e.Kind == Sync) {
			return false
		}
	}
	return true
}

// Quiet says that nothing is unanswered, in a transaction or not.
func (p *Pipeline) Quiet() bool { return p.n == 0 && !p.implicit && !p.skip }

// Settled says that nothing is unanswered that could still fail the open
// transaction: what it has executed until now is known.
func (p *Pipeline) Settled() bool {
	if p.Status() != wire.TxOpen || p.skip || p.spare > 0 || p.copyIn {
		return false
	}
	for i := range p.n {
		switch p.at(i).Kind {
		case Parse, Bind, Describe, Close, CloseAsParse:
		default:
			return false
		}
	}
	return true
}

// InBlock says that a transaction block is open, or will be once what is
// unanswered has been done.
func (p *Pipeline) InBlock() bool {
	if p.Status() != wire.TxIdle {
		return true
	}
	for i := range p.n {
		if p.at(i).Class == statement.Begin {
			return true
		}
	}
	return false
}

// Executing says that something is unanswered that may still write, or fail or
// end the open transaction.
func (p *Pipeline) Executing() bool {
	for i := range p.n {
		switch p.at(i).Kind {
		case Parse, Bind, Describe, Close, CloseAsParse:
		default:
			return true
		}
	}
	return false
}

// Still says that no answer is to be expected before more is sent.
func (p *Pipeline) Still() bool { return p.n == 0 && !p.implicit || p.copyIn }

// Ours says that nothing of the client's is unanswered.
func (p *Pipeline) Ours() bool {
	for i := range p.n {
		if !p.at(i).Hidden {
			return false
		}
	}
	return !p.implicit && !p.skip
}

// Doubtful says that it is not known whether one more ReadyForQuery comes.
func (p *Pipeline) Doubtful() bool { return p.spare > 0 }

// Last says that nothing was sent behind what is being answered but what ends it.
func (p *Pipeline) Last() bool {
	for i := 1; i < p.n; i++ {
		if p.at(i).Kind != Sync {
			return false
		}
	}
	return true
}

// CopyingIn says that the server takes CopyData.
func (p *Pipeline) CopyingIn() bool { return p.copyIn }

// Skipping says that the server ignores everything up to the next Sync.
func (p *Pipeline) Skipping() bool { return p.skip }

// Depth is how many messages are unanswered.
func (p *Pipeline) Depth() int { return p.n }

// Committing says that the outcome of a commit is awaited.
func (p *Pipeline) Committing() bool {
	for i := range p.n {
		if e := p.at(i); e.Class == statement.Commit {
			return true
		}
	}
	return false
}

// TakeNamed gives, since the last call, how many messages that were sent as
// Named were completed and how many failed or will never be executed, in the
// order they were sent: within one call the completed ones come first.
func (p *Pipeline) TakeNamed() (done, dropped int) {
	done, dropped = p.named, p.unnamed
	p.named, p.unnamed = 0, 0
	return done, dropped
}

func (p *Pipeline) at(i int) Sent { return p.ring[(p.head+i)&(len(p.ring)-1)] }

func (p *Pipeline) push(s Sent) {
	if p.n == len(p.ring) {
		grown := make([]Sent, max(8, 2*len(p.ring)))
		for i := range p.n {
			grown[i] = p.at(i)
		}
		p.ring, p.head = grown, 0
	}
	p.ring[(p.head+p.n)&(len(p.ring)-1)] = s
	p.n++
}

func (p *Pipeline) pop() Sent {
	s := p.ring[p.head]
	p.head = (p.head + 1) & (len(p.ring) - 1)
	p.n--
	return s
}

// drop pops a message that the server will never execute.
func (p *Pipeline) drop() Sent {
	s := p.pop()
	if s.Named {
		p.unnamed++
	}
	return s
}

// Send records a message that is about to be sent. It says whether the server
// will do anything with it: false while it skips to a Sync.
func (p *Pipeline) Send(s Sent) bool {
	if p.skip {
		if s.Kind != Sync {
			return false
		}
		p.skip = false
	}
	if s.Kind == CopyEnd && p.n == 0 {
		return true // the COPY is over: the server ignores it
	}
	if s.Kind != CopyEnd {
		p.begun = !s.ready()
	}
	p.push(s)
	return true
}

// Receive judges one message of the server. status is the byte of a
// ReadyForQuery.
func (p *Pipeline) Receive(typ, status byte) Verdict {
	p.dropLateEnds()
	hidden := p.n > 0 && p.at(0).Hidden
	switch typ {
	case wire.ReadyForQuery:
		return p.ready(status)
	case wire.ErrorResponse:
		return p.failed(hidden)
	case wire.ParameterStatus, wire.NoticeResponse, wire.NotificationResponse:
		if hidden {
			return Drop
		}
		return Pass
	case wire.ParseComplete:
		p.answered(Parse)
	case wire.BindComplete:
		p.answered(Bind)
	case wire.CloseComplete:
		if p.n > 0 && p.at(0).Kind == CloseAsParse {
			p.answered(CloseAsParse)
			return AsParseComplete
		}
		p.answered(Close)
	case wire.RowDescription, wire.NoData:
		p.answered(Describe)
	case wire.CommandComplete, wire.EmptyQueryResponse, wire.PortalSuspended:
		p.completed()
	case wire.CopyInResponse:
		p.copyIn = true
	case wire.DataRow:
		if hidden && p.at(0).Asks {
			return Answer
		}
	}
	if hidden {
		return Drop
	}
	return Pass
}

// dropLateEnds drops what came too late for its COPY: the server ignores it.
func (p *Pipeline) dropLateEnds() {
	for !p.copyIn && p.n > 0 && p.at(0).Kind == CopyEnd {
		p.pop()
	}
}

// answered pops the head when it is of the kind that was answered. A Query's
// RowDescription, say, pops nothing.
func (p *Pipeline) answered(k Kind) {
	if p.n == 0 || p.at(0).Kind != k {
		return
	}
	if s := p.pop(); s.Named {
		p.named++
	}
}

// completed ends one command, and the COPY it may have been.
func (p *Pipeline) completed() {
	if p.n == 0 {
		return
	}
	head := p.at(0)
	if head.Kind == Execute {
		p.pop()
		if head.Named {
			p.named++
		}
		p.execute(head.Class)
	}
	if p.copyIn {
		p.endCopy(head.Kind == Query)
	}
}

// endCopy removes what a COPY that went well has eaten: every Sync sent
// before its CopyDone, and that.
func (p *Pipeline) endCopy(keepHead bool) {
	p.copyIn = false
	var head Sent
	if keepHead {
		head = p.pop()
	}
	for p.n > 0 {
		if p.drop().Kind == CopyEnd {
			break
		}
	}
	if keepHead {
		p.unpop(head)
	}
}

func (p *Pipeline) unpop(s Sent) {
	p.push(s) // makes room
	p.head = (p.head - 1) & (len(p.ring) - 1)
	p.ring[p.head] = s
}

// execute follows the transaction state over an Execute that completed.
func (p *Pipeline) execute(class statement.Class) {
	switch p.Status() {
	case wire.TxIdle:
		if class == statement.Begin {
			p.status, p.implicit = wire.TxOpen, false
		} else {
			p.implicit = true
		}
	default:
		if class == statement.Commit || class == statement.Rollback {
			p.status = wire.TxIdle
		}
	}
}

// failed follows an ErrorResponse.
func (p *Pipeline) failed(hidden bool) Verdict {
	verdict := Pass
	if hidden && p.at(0).Kind == Query && !p.at(0).Asks {
		return HiddenFailed
	}
	if p.n > 0 && p.at(0).Guarded {
		verdict = Drop
	} else {
		p.told = true
	}
	if p.n == 0 {
		p.skip = p.implicit // the group's last message may have been an Execute
		return verdict
	}
	head := p.at(0)
	switch {
	case head.extended() && p.copyIn:
		p.failCopy()
	case head.extended():
		p.skipToSync()
	}
	p.copyIn = false
	return verdict
}

// failCopy: the server fails in the middle of a COPY of the extended protocol
// and then skips to a Sync. One that was sent before the COPY's end was most
// likely eaten, but not if the server failed before it read on.
func (p *Pipeline) failCopy() {
	p.drop()
	end := 0
	for end < p.n && p.at(end).Kind != CopyEnd {
		end++
	}
	for range min(end+1, p.n) {
		if p.drop().Kind == Sync {
			p.spare++
		}
	}
	p.skipToSync()
}

func (p *Pipeline) skipToSync() {
	for p.n > 0 {
		if p.at(0).Kind == Sync {
			return
		}
		p.drop()
	}
	p.skip = true
}

// ready follows a ReadyForQuery.
func (p *Pipeline) ready(status byte) Verdict {
	failed := p.told
	p.copyIn, p.implicit, p.told = false, false, false
	p.status = status
	for p.n > 0 {
		if !p.at(0).ready() {
			p.drop()
			continue
		}
		s := p.pop()
		switch {
		case s.Named && failed:
			p.unnamed++
		case s.Named:
			p.named++
		}
		p.dropLateEnds()
		if s.Hidden {
			return Drop
		}
		return Pass
	}
	if p.spare > 0 {
		p.spare--
		p.skip = false
	}
	return Pass
}
