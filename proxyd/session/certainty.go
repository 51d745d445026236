package session

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strconv"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/session/pipeline"
	"github.com/pgtandem/pgtandem/proxyd/session/statement"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// Before a COMMIT leaves, the transaction's id is asked. When the COMMIT's answer is
// lost the transaction has a name, and the primary that comes after can be asked.
// Where nothing was written there is no id, and nothing that could be lost.
//
// The COMMIT of a transaction that may have written waits for that answer, which
// is one round trip more: it was not sent yet should the server be lost meanwhile,
// and nothing was committed. Behind what looks like reading alone it goes out in
// the same packet, and the id is lost with a connection that is reset before the
// answer has arrived; a client whose functions write is known by its first such
// COMMIT, and waits from then on.

// askID is the question. The functions are everybody's (PostgreSQL docs, 9.27.8
// and 9.83; PostgreSQL 13 and newer).
const askID = "SELECT pg_catalog.pg_current_xact_id_if_assigned(), pg_catalog.pg_current_wal_insert_lsn()"

// askPortal is a name that no client's portal has.
const askPortal = "pgtandem_commit"

// question is what was asked about a COMMIT, and answered.
type question struct {
	asked, known bool
	held         bool   // the COMMIT waits for the answer
	xid          uint64 // 0: it has written nothing
	lsn          cluster.LSN
}

// learn reads the answer, a DataRow of two texts.
func (q *question) learn(row []byte) {
	var field [2][]byte
	if len(row) < 2 || binary.BigEndian.Uint16(row) != 2 {
		return
	}
	row = row[2:]
	for i := range field {
		if len(row) < 4 {
			return
		}
		n := int32(binary.BigEndian.Uint32(row))
		if row = row[4:]; n < 0 {
			continue
		}
		if int(n) > len(row) {
			return
		}
		field[i], row = row[:n], row[n:]
	}
	var err error
	if field[1] == nil {
		return
	}
	if field[0] != nil {
		if q.xid, err = strconv.ParseUint(string(field[0]), 10, 64); err != nil {
			return
		}
	}
	if q.lsn, err = cluster.ParseLSN(string(field[1])); err == nil {
		q.known = true
	}
}

// commits asks before what ends the transaction, where that can be asked about.
// errBehind: the message at hand has to wait. What was learnt of an earlier COMMIT
// says nothing of a PREPARE TRANSACTION, which ends the block like one.
func (c *client) commits(b *backend, info statement.Info, extended bool) error {
	b.wrote, b.notified = b.wrote || info.Writes, b.notified || info.Notifies
	switch {
	case info.Commits:
		return c.askBefore(b, extended)
	case info.Class == statement.Commit:
		b.commit = question{}
	}
	return nil
}

// askBefore asks for the id of the transaction that the message at hand commits.
// Where something sent before could still fail the transaction nothing is asked
// yet: a question that fails with it would stand in the way of the COMMIT.
func (c *client) askBefore(b *backend, extended bool) error {
	if b.commit.held { // this has been asked about
		b.commit.held, b.commit.asked = false, b.commit.known
		return nil
	}
	b.commit = question{}
	switch {
	case c.s.opts.Outcomes == nil, b.target.Standby, !b.pipe.InBlock(), b.pipe.CopyingIn(), b.pipe.Skipping(), b.pipe.Doubtful():
		return nil
	case b.pipe.Executing() || !extended && b.pipe.Depth() > 0:
		c.cut()
		c.out = wire.AppendEmpty(c.out, wire.Flush) // where no Sync was sent nothing is answered
		return errBehind
	case b.pipe.Status() != wire.TxOpen: // it has failed
		return nil
	}
	c.ask(b, extended)
	if b.wrote || c.wary {
		b.commit.held = true
		return errBehind
	}
	return nil
}

// ask sends the question.
func (c *client) ask(b *backend, extended bool) {
	b.commit.asked = true
	c.cut()
	if !extended {
		b.pipe.Send(pipeline.Sent{Kind: pipeline.Query, Hidden: true, Asks: true})
		c.out = wire.AppendString(c.out, wire.Query, askID)
		return
	}
	c.ensure(b, c.s.askID)
	b.pipe.Send(pipeline.Sent{Kind: pipeline.Bind, Hidden: true})
	b.pipe.Send(pipeline.Sent{Kind: pipeline.Execute, Hidden: true, Asks: true})
	var at int
	c.out, at = wire.Begin(c.out, wire.Bind)
	c.out = append(append(c.out, askPortal...), 0)
	c.out = append(append(c.out, c.s.askID.text.name...), 0)
	c.out = wire.End(append(c.out, 0, 0, 0, 0, 0, 0), at) // no parameters, results as text
	c.out, at = wire.Begin(c.out, wire.Execute)
	c.out = append(append(c.out, askPortal...), 0)
	c.out = wire.End(append(c.out, 0, 0, 0, 0), at)
	c.out = wire.AppendEmpty(c.out, wire.Flush) // the answer leaves the server before it commits
}

// newAskID is the question as a prepared statement, shared by all.
func newAskID(t *texts) *prepared {
	var vars variables
	body := append(bytes.Clone([]byte(askID)), 0, 0, 0) // and no parameter types
	return &prepared{text: t.intern(body, &vars, nil, "pgtandem_ask_id"), info: statement.Info{}}
}

// inquire turns a COMMIT in doubt into what became of it, and tells the client
// of one that was committed. It waits for the next primary as long as a client
// is held.
func (c *client) inquire(b *backend, q question, loss pipeline.Loss) (pipeline.Loss, error) {
	loss = b.certain(loss)
	if loss.Outcome != pipeline.InDoubt {
		return loss, nil
	}
	if !loss.OnlyCommit {
		c.s.log.Debug("what became of statements is not known", "client", c.id, "why", "they were not a COMMIT alone", "error", b.cause)
		return loss, nil
	}
	if why := b.nameless(q); why != "" {
		c.s.log.Warn("the outcome of a COMMIT is not known", "client", c.id, "why", why, "error", b.cause)
		return loss, nil
	}
	if q.xid == 0 && b.notified && q.known { // PostgreSQL gives one that notifies its id as it commits
		c.s.log.Warn("the outcome of a COMMIT is not known", "client", c.id, "why", "it only notified, and had no id yet")
		return loss, nil
	}
	if q.xid == 0 { // or it did not come to the question
		loss.Outcome = pipeline.RolledBack
		return loss, nil
	}
	outcome, err := c.outcome(Commit{Node: b.node, Term: b.target.Term, Connected: b.made, XID: q.xid, LSN: q.lsn})
	if c.gone.Load() {
		return loss, errClosed
	}
	switch {
	case outcome == OutcomeAborted:
		loss.Outcome = pipeline.RolledBack
	case outcome == OutcomeCommitted && !loss.Unprepared:
		return loss.Committed(), c.committed(loss)
	default:
		why := "no primary could tell"
		if outcome == OutcomeCommitted {
			why = "it was committed, but answers before its own are lost"
		}
		c.s.log.Warn("the outcome of a COMMIT is not known", "client", c.id, "why", why, "xid", q.xid, "error", err)
	}
	return loss, nil
}

// unwritten notes that the server took only n bytes of what was written. first
// says that nothing was unanswered before: none of what is unanswered has left
// if these have not. Of TLS it is not known what has.
func (b *backend) unwritten(n int, first bool) {
	b.unsent = n == 0 && !b.secure && (first || b.unsent)
	b.broken = true
}

// certain settles the doubt about what never left: no server can have done it.
func (b *backend) certain(loss pipeline.Loss) pipeline.Loss {
	if b.unsent && loss.Outcome == pipeline.InDoubt {
		loss.Outcome = pipeline.RolledBack
	}
	return loss
}

// nameless says why there is no id to ask about; nothing where there is one, or
// where the COMMIT did not come to be done.
func (b *backend) nameless(q question) string {
	switch {
	case q.known || q.asked && b.orderly():
		return ""
	case !q.asked:
		return "the transaction's id was not asked"
	case b.broken:
		return "a write met the end of the connection before the transaction's id had arrived"
	}
	return "the connection was lost before the transaction's id had arrived"
}

// orderly says that all that the server sent has arrived: its farewell did, or its
// end. A server that had not answered the question by then had not begun to
// commit. A connection that was reset or timed out may have lost the answer, and
// a write that failed takes the word of that reset away: an end read after it
// proves nothing.
func (b *backend) orderly() bool {
	var n *wire.Notice
	return errors.As(b.cause, &n) && n.Fatal() || !b.broken && b.cause == io.EOF
}

// committed gives the answer that the server could not give any more.
func (c *client) committed(loss pipeline.Loss) error {
	out, at := wire.Begin(nil, wire.CommandComplete)
	out = wire.End(append(out, "COMMIT\x00"...), at)
	if loss.Synced {
		out = wire.AppendReady(out, wire.TxIdle)
	}
	return c.write(out)
}

// outcome asks, for as long as the client is there and the proxy runs.
func (c *client) outcome(q Commit) (Outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.s.limits().HoldTimeout)
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	unhold := c.s.opts.Gate.Hold()
	defer unhold()
	c.cancelMu.Lock()
	c.endWait = end
	switch {
	case c.hungUp:
		end(errHungUp)
	case c.s.closing.Load():
		end(errStopping)
	}
	c.cancelMu.Unlock()
	c.wait.Store(waitHeld)
	defer func() {
		c.wait.Store(waitNone)
		c.cancelMu.Lock()
		defer c.cancelMu.Unlock()
		c.endWait = nil
	}()
	return c.s.opts.Outcomes.Outcome(ctx, q)
}
