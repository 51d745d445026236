package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/session/pipeline"
	"github.com/pgtandem/pgtandem/proxyd/session/statement"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// The failure contract: what a client sees when its server is lost.
//
//	idle                                   nothing
//	nothing sent yet                       nothing: it is held, and then runs
//	in a transaction, no commit in flight  40001; the transaction is failed
//	a COMMIT                               the truth, asked of the new primary
//	a statement that commits by itself     08007; the outcome is not known
//	holding what cannot be carried         57P01 after its transaction's answer
//	only reading, no row sent yet          nothing: it runs on another node (reads_link.go);
//	                                       57P02 where a second server was lost without a word
//	a session, ended by pg_terminate_backend()     what the server said
//
// Nothing else that was sent is ever sent again.

const (
	lostMessage  = "the server was lost; the transaction is rolled back"
	doubtMessage = "the server was lost before it confirmed; whether the statement was committed is not known"
	crashMessage = "two servers were lost while they ran the statement; it is not sent to another"
)

func errRolledBack() *wire.Notice {
	return wire.Errorf(wire.CodeSerializationFailure, lostMessage).
		WithHint("Nothing of the transaction was committed; it can be repeated from its beginning.")
}

func errInDoubt() *wire.Notice {
	return wire.Errorf(wire.CodeTransactionUnknown, doubtMessage).
		WithHint("Look for the statement's effect before repeating it.")
}

// errSuspect is not 40001, on which programs repeat what they did.
func errSuspect() *wire.Notice {
	return wire.Errorf(wire.CodeCrashShutdown, crashMessage).
		WithDetail("Neither server said why it ended, as one does not to the client whose statement has crashed it.").
		WithHint("Look in the servers' logs for what ended them before repeating it. Nothing was written.")
}

func errInFailed() *wire.Notice {
	return wire.Errorf(wire.CodeInFailedTransaction,
		"current transaction is aborted, commands ignored until end of transaction block")
}

// errTerminated: somebody ended this session, and no other.
var errTerminated = errors.New("the session was terminated on the server")

// serves says whether a server goes on after one of its processes was told to
// end. A server that shuts down refuses connections before it ends the first,
// so one that takes a login meant that session: pg_terminate_backend(). Unless
// it has been started anew since, as it can be before we come to ask.
func (s *Server) serves(b *backend, l login) bool {
	if !s.current(b.target) {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.limits().ConnectTimeout)
	defer cancel()
	d, err := s.dial(ctx, b.target, l)
	if err != nil {
		return !errors.Is(err, errUnreachable)
	}
	defer hangUp(d.conn)
	age := s.now().Sub(b.made)
	deadline, _ := ctx.Deadline()
	d.conn.SetDeadline(deadline) //nolint:errcheck // a closed connection ends the read
	up, err := d.uptime()
	if err != nil {
		return false
	}
	d.conn.Write(wire.AppendEmpty(nil, wire.Terminate)) //nolint:errcheck // a courtesy
	return up >= age
}

const askUptime = "SELECT pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.pg_postmaster_start_time())"

// uptime is how long ago a server was started, by its own clock.
func (d *dialed) uptime() (time.Duration, error) {
	if _, err := d.conn.Write(wire.AppendString(nil, wire.Query, askUptime)); err != nil {
		return 0, fmt.Errorf("ask a server since when it runs: %w", err)
	}
	var seconds float64
	for {
		typ, body, err := wire.ReadMessage(d.conn, nil, wire.MaxAuth)
		switch {
		case err != nil:
			return 0, fmt.Errorf("ask a server since when it runs: %w", err)
		case typ == wire.ErrorResponse:
			return 0, fmt.Errorf("ask a server since when it runs: %w", wire.ParseNotice(body))
		case typ == wire.DataRow && len(body) > 6: // one column, behind its length
			if seconds, err = strconv.ParseFloat(string(body[6:]), 64); err != nil {
				return 0, fmt.Errorf("ask a server since when it runs: %w", err)
			}
		case typ == wire.ReadyForQuery:
			return time.Duration(seconds * float64(time.Second)), nil
		}
	}
}

// lose is told that the linked server is dead, and tells the client what it is
// owed. The server's connection has ended: nobody else writes to the client.
func (c *client) lose(b *backend) error {
	switch {
	case b == nil:
		return nil
	case !c.away:
		return errAway
	}
	<-b.done
	c.link.Store(nil)
	b.mu.Lock()
	loss := b.pipe.Lost(b.partial)
	b.client = nil
	for _, n := range slices.Backward(b.naming) {
		if n.client == c {
			c.takeBack(n)
		}
	}
	reason, asked := b.reason, b.commit
	reading := b.target.Standby || b.unshown.left > 0
	b.mu.Unlock()
	c.restTo, c.prelude, c.change = false, "", nil
	switch n := c.refused.Load(); {
	case b.truncated:
		c.s.log.Info("a client was left in the middle of a message", "client", c.id, "node", b.node)
		return errClosed
	case b.farewell:
		return errClosed
	case n != nil:
		c.send(n) //nolint:errcheck // going anyway
		return n
	}
	if c.rerun(b) {
		return nil
	}
	if c.reads != nil {
		c.reads.ended(c)
	}
	if reading && loss.Outcome == pipeline.InDoubt {
		loss.Outcome = pipeline.RolledBack // there was nothing to commit
	}
	if c.mode == ModeSession && b.terminated != nil && c.s.serves(b, c.login) {
		c.write(b.terminated) //nolint:errcheck // going anyway
		return errTerminated
	}
	if loss, err := c.inquire(b, asked, loss); err != nil {
		return err
	} else if err := c.tell(loss, c.owed(loss)); err != nil {
		return err
	}
	if why := c.traits.Reason(); why != "" {
		n := wire.Fatalf(wire.CodeAdminShutdown, "terminating connection because its server was lost").
			WithDetail("The session holds %s, which cannot be carried to another server.", why)
		if reason != "" {
			n.Detail += " The server was left: " + reason + "."
		}
		c.send(n) //nolint:errcheck // going anyway
		return n
	}
	return nil
}

// owed is what a client is told of a loss.
func (c *client) owed(loss pipeline.Loss) *wire.Notice {
	switch {
	case loss.Outcome == pipeline.InDoubt:
		return errInDoubt()
	case c.reads != nil && c.reads.suspect:
		return errSuspect()
	}
	return errRolledBack()
}

// tell writes what a loss owes the client.
func (c *client) tell(loss pipeline.Loss, n *wire.Notice) error {
	if loss.Outcome == pipeline.Untouched {
		return nil
	}
	if loss.OnlyBegin && !c.pending() {
		loss.Groups, loss.Status = []byte{wire.TxIdle}, wire.TxIdle
	}
	var out []byte
	for _, status := range loss.Groups {
		out = wire.AppendReady(wire.AppendError(out, n), status)
	}
	if loss.Skip {
		c.skip = true
		if !loss.Told {
			out = wire.AppendError(out, n)
		}
	}
	c.failed = txNone
	if loss.Status == wire.TxFailed {
		if c.failed = txLost; len(out) > 0 {
			c.failed = txTold
		}
	}
	if len(out) == 0 {
		return nil
	}
	c.s.note(n)
	return c.write(out)
}

// pending says whether the client has sent more than was judged. What follows
// a BEGIN that is lost must not run outside of a transaction.
func (c *client) pending() bool { return c.r < c.w || c.rest > 0 || c.buffered() }

func (c *client) status() byte {
	if c.failed != txNone {
		return wire.TxFailed
	}
	return wire.TxIdle
}

// local answers what needs no server: an empty Sync, what is skipped, and what
// is said inside of a transaction that is gone.
func (c *client) local(m *message) (handled bool, err error) {
	if m.typ == wire.Sync {
		c.skip = false
		return true, c.write(wire.AppendReady(nil, c.status()))
	}
	if c.skip {
		return true, nil
	}
	switch m.typ {
	case wire.Flush, wire.CopyData, wire.CopyDone, wire.CopyFail:
		return true, nil // as the server does outside of a COPY
	}
	if c.failed == txNone {
		return false, nil
	}
	switch m.typ {
	case wire.Query:
		return c.failedQuery(m)
	case wire.FunctionCall:
		return true, c.refuse(m, c.failedError())
	}
	return true, c.failedExtended(m)
}

// failedError is what a statement gets inside of the transaction that is gone.
func (c *client) failedError() *wire.Notice {
	if c.failed == txLost {
		c.failed = txTold
		return errRolledBack()
	}
	return errInFailed()
}

// failedQuery answers a simple query. Only the end of the block is done; a
// COMMIT must not look like one unless the client was told before.
func (c *client) failedQuery(m *message) (handled bool, err error) {
	text, _, whole := wire.CString(m.body())
	info := c.scan(text, whole && m.whole())
	switch {
	case info.Class == statement.Rollback, info.Class == statement.Commit && c.failed == txTold:
		c.failed = txNone
		return true, c.write(wire.AppendReady(wire.AppendString(nil, wire.CommandComplete, "ROLLBACK"), wire.TxIdle))
	case info.Class == statement.Commit:
		c.failed = txNone
		return true, c.send(errRolledBack(), wire.AppendReady(nil, wire.TxIdle)...)
	case info.First == statement.Rollback: // "ROLLBACK; ...": the rest is for a server
		c.failed = txNone
		return false, nil
	}
	return true, c.refuse(m, c.failedError())
}

// refuse answers a message with an error that leaves the session alive.
func (c *client) refuse(m *message, n *wire.Notice) error {
	switch m.typ {
	case wire.Query, wire.FunctionCall:
		return c.send(n, wire.AppendReady(nil, c.status())...)
	}
	c.skip = true
	return c.send(n)
}

// failedExtended answers the extended protocol: a ROLLBACK or COMMIT may be
// prepared and executed, nothing else.
func (c *client) failedExtended(m *message) error {
	body := m.body()
	var answer []byte
	switch m.typ {
	case wire.Parse:
		answer = c.failedParse(m)
	case wire.Bind:
		portal, rest, _ := wire.CString(body)
		name, _, _ := wire.CString(rest)
		if info := c.info(name); len(portal) == 0 && ends(info.Class) {
			c.portal = info.Class
			answer = wire.AppendEmpty(nil, wire.BindComplete)
		}
	case wire.Describe:
		answer = c.failedDescribe(body)
	case wire.Execute:
		return c.failedExecute(m)
	case wire.Close:
		if len(body) > 1 && body[0] == 'S' {
			if p := c.stmts[string(bytes.TrimRight(body[1:], "\x00"))]; p != nil {
				delete(c.stmts, string(bytes.TrimRight(body[1:], "\x00")))
				c.s.texts.release(p.text)
			}
		}
		answer = wire.AppendEmpty(nil, wire.CloseComplete)
	}
	if answer == nil {
		return c.refuse(m, c.failedError())
	}
	return c.write(answer)
}

func ends(class statement.Class) bool {
	return class == statement.Commit || class == statement.Rollback
}

// info is what is known of a statement, the unnamed one included.
func (c *client) info(name []byte) statement.Info {
	if len(name) == 0 {
		return c.unnamedIs
	}
	if p := c.stmts[string(name)]; p != nil {
		return p.info
	}
	return statement.Info{}
}

func (c *client) failedParse(m *message) []byte {
	name, body, ok := wire.CString(m.body())
	query, _, _ := wire.CString(body)
	info := c.scan(query, true)
	if !ok || !m.whole() || !ends(info.Class) {
		return nil
	}
	if len(name) == 0 {
		c.unnamedIs, c.hasUnnamed = info, true
		c.unnamedSeq++
		c.unnamed = append(c.unnamed[:0], body...)
		return wire.AppendEmpty(nil, wire.ParseComplete)
	}
	if c.stmts[string(name)] != nil || len(c.stmts) >= maxStatements {
		return nil
	}
	own := ""
	if c.mode == ModeSession {
		own = string(name)
	}
	if c.stmts == nil {
		c.stmts = make(map[string]*prepared)
	}
	c.stmts[string(name)] = &prepared{text: c.s.texts.intern(body, &c.vars, c.settings, own), info: info}
	return wire.AppendEmpty(nil, wire.ParseComplete)
}

// failedDescribe: neither has parameters or rows.
func (c *client) failedDescribe(body []byte) []byte {
	if len(body) < 2 {
		return nil
	}
	class, out := c.portal, []byte(nil)
	if body[0] == 'S' {
		class = c.info(bytes.TrimRight(body[1:], "\x00")).Class
		out = append(out, wire.ParameterDescription, 0, 0, 0, 6, 0, 0)
	}
	if !ends(class) {
		return nil
	}
	return wire.AppendEmpty(out, wire.NoData)
}

func (c *client) failedExecute(m *message) error {
	switch {
	case !ends(c.portal):
		return c.refuse(m, c.failedError())
	case c.portal == statement.Commit && c.failed == txLost:
		c.failed = txNone
		return c.refuse(m, errRolledBack())
	}
	c.failed, c.portal = txNone, statement.Other
	return c.write(wire.AppendString(nil, wire.CommandComplete, "ROLLBACK"))
}
