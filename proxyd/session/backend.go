package session

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/relay"
	"github.com/pgtandem/pgtandem/proxyd/route"
	"github.com/pgtandem/pgtandem/proxyd/route/choose"
	"github.com/pgtandem/pgtandem/proxyd/session/pipeline"
	"github.com/pgtandem/pgtandem/proxyd/session/statement"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// backend is one server connection. Its loop reads it for as long as it lives,
// idle or not, so that a lost server is noticed at once.
type backend struct {
	s      *Server
	id     uint64
	made   time.Time
	server *pool.Server
	node   cluster.NodeID
	target pool.Target
	epoch  uint64
	conn   net.Conn    // sock, or TLS over it
	sock   *relay.Conn // of loop
	loop   *relay.Loop
	secure bool
	pid    uint32
	key    wire.CancelKey
	done   chan struct{} // closed when nothing more comes of it

	mu       sync.Mutex
	client   *client // whom it is linked to
	pipe     pipeline.Pipeline
	reports  reports
	commit   question // about the last COMMIT
	wrote    bool     // the transaction may have written something
	notified bool     // and has told listeners something
	vars     variables
	settings settings // what clients have SET on it
	stmts    serverStatements
	naming   []naming // what changes names and is not answered yet, oldest first
	unnamed  unnamedID
	partial  bool // a client's message has been sent in part
	dirty    bool // needs cleaning before another client has it
	stained  bool // and no cleaning is enough
	severed  bool // closed by us: no failure of the node
	dead     bool
	reason   string // why it was severed or drained
	draining bool
	doubted  bool // another connection to its server was lost: no other client gets it
	cancels  int  // CancelRequests being delivered to it
	parked   bool // its client is done, but a cancel is still under way
	cleanBad bool // cleaning failed
	stalled  bool // not read until its client has taken what it was sent
	outdates bool // its client has changed what new sessions begin with
	retiring bool // closed as soon as its client gives it back
	parting  bool // dead for us; it was asked to go, and has not yet
	parted   *time.Timer
	counts   meter
	innocent bool    // what runs here did not crash the server: it said why it ends, or had not ended when it was left
	unshown  unshown // from the client, on a standby
	opened   choose.Tick

	lateSince  int64        // when what runs was found to take too long, unix nanoseconds
	lateNotice *wire.Notice // what the client is told when the server has ended it
	instead    *wire.Notice // of a message that was not passed on
	withheld   *wire.Notice // why the statement is not there that what follows will ask for

	// Of the loop alone. truncated and farewell are read by others after done.
	cause     error   // why it was lost
	greeted   bool    // what came with the login has been seen
	full      bool    // the buffer was filled at the last reading
	bulk      *[]byte // a larger one instead of own, while there is much to be read
	own       []byte
	buf       []byte
	r, w      int
	rest      int64 // bytes of a message that is being passed on without looking
	restDrop  bool
	truncated bool // the client was given the head of a message, not all of it
	farewell  bool // the client was given a FATAL: it expects the end

	// Of its client's loop. broken: a write failed. unsent: and nothing of what
	// is unanswered had left before.
	broken, unsent bool

	terminated []byte // the FATAL by which the server ended itself, or this session alone
}

// unnamedID tells whose unnamed statement a server holds.
type unnamedID struct {
	client uint64
	seq    uint64
}

// sever closes the link on purpose.
func (b *backend) sever(reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.dead {
		b.reason = reason
	}
	b.severLocked()
}

// vacate closes the link where nobody uses it.
func (b *backend) vacate(reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client == nil && !b.dead {
		b.reason = reason
		b.severLocked()
	}
}

// doubt closes the link, or lets the client that has it be its last.
func (b *backend) doubt(reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.doubted = true
	if b.client == nil && !b.dead {
		b.reason = reason
		b.severLocked()
	}
}

// drain severs the link when it is outside a transaction and else makes it end
// with that. It says whether it is still open.
func (b *backend) drain(reason string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dead {
		return false
	}
	b.draining, b.reason = true, reason
	if b.client == nil || b.pipe.Idle() && !b.partial {
		b.severLocked()
		return false
	}
	return true
}

// severLocked ends the link at once. Its place is free even while its last
// answer still waits for a slow client.
func (b *backend) severLocked() {
	if !b.dead {
		b.dead, b.severed = true, true
		_, err := b.sock.Peek()
		b.innocent = b.innocent || err == nil
	}
	hangUp(b.conn)
	b.s.pool.Remove(b.server)
}

// partTime is how long a server that is asked to go may take.
const partTime = 5 * time.Second

// need is how many bytes of a server's message must be at hand to judge it.
// A message that fits into the buffer is passed on whole or not at all, so
// that a client is rarely left in the middle of one.
func (b *backend) need(total int64) int {
	return int(min(total, int64(len(b.buf))))
}

// deliver judges what is in the buffer and passes it on to the client.
func (b *backend) deliver() error {
	if b.r == b.w {
		return nil
	}
	b.mu.Lock()
	if b.parting { // nobody is to hear more of it
		b.r = b.w
		b.mu.Unlock()
		return nil
	}
	c := b.client
	out, end, err := b.judge(c)
	b.counts.Sent += uint64(len(out))
	settled := b.pipe.Idle() && !b.partial
	if c != nil && !settled && c.waits.Load() && b.pipe.Still() {
		c.wake()
	}
	outdates, instead := b.outdates, b.instead
	b.outdates, b.instead = false, nil
	if c != nil && c.reads != nil {
		if instead != nil { // which is an answer as well
			b.unshown.on = false
		}
		out = b.part(out)
		c.reads.answered(c, b, settled)
	}
	b.mu.Unlock()
	if outdates {
		b.s.outdate()
	}
	if c != nil && len(out) > 0 {
		if werr := c.write(out); werr != nil {
			c.abort() // its own loop sees the end and cleans up
		}
	}
	b.r = end
	if err != nil {
		return err
	}
	if instead != nil && c != nil {
		if c.send(instead) != nil {
			c.abort() // as above
		}
		return b.deliver() // its ReadyForQuery follows
	}
	if settled {
		return b.settle()
	}
	return nil
}

// judge walks over whole messages, and the head of one too long for the
// buffer. What is to be passed on is moved together in place, so that it is
// written at once.
func (b *backend) judge(c *client) (out []byte, end int, err error) {
	start := b.r
	o, r := start, start
	for r < b.w {
		if b.rest > 0 {
			n := int(min(b.rest, int64(b.w-r)))
			if !b.restDrop {
				o += b.slide(o, r, n)
			}
			r, b.rest = r+n, b.rest-int64(n)
			continue
		}
		if b.w-r < wire.HeaderLen {
			break
		}
		typ, total := wire.Header(b.buf[r:])
		if err := wire.CheckBackend(typ, total); err != nil {
			return b.buf[start:o], r, err
		}
		n := b.need(total)
		if b.w-r < n {
			break
		}
		pass, err := b.message(c, b.buf[r:r+n], typ)
		if err != nil {
			return b.buf[start:o], r, err
		}
		if pass && b.unshown.judged() {
			if pass = b.shows(typ, b.buf[r:r+n], int64(n) < total); !pass {
				o = start + b.unshown.mark
			}
		}
		if pass {
			o += b.slide(o, r, n)
		}
		if typ == wire.ReadyForQuery && pass && b.unshown.left > 0 {
			b.unshown.next(o - start)
		}
		r += n
		b.rest, b.restDrop = total-int64(n), !pass
		if b.instead != nil {
			break
		}
	}
	return b.buf[start:o], r, nil
}

// slide moves n bytes from r down to o.
func (b *backend) slide(o, r, n int) int {
	if o != r {
		copy(b.buf[o:], b.buf[r:r+n])
	}
	return n
}

// message judges one message; m is as much of it as the buffer holds. It says
// whether the client gets it.
func (b *backend) message(c *client, m []byte, typ byte) (pass bool, err error) {
	body := m[wire.HeaderLen:]
	var status byte
	switch typ {
	case wire.DataRow, wire.CopyData: // by far the most frequent
		verdict := b.pipe.Receive(typ, 0)
		if verdict == pipeline.Answer {
			b.commit.learn(body)
			if c != nil && b.commit.xid != 0 && !b.wrote {
				c.wary = true
			}
		}
		return verdict == pipeline.Pass, nil
	case wire.ReadyForQuery:
		if len(body) != 1 {
			return false, fmt.Errorf("%w: malformed ReadyForQuery", wire.ErrProtocol)
		}
		status = body[0]
	case wire.ParameterStatus:
		b.parameter(c, body)
	case wire.ErrorResponse, wire.NoticeResponse:
		drop, err := b.notice(c, typ, m)
		if err != nil {
			return false, err
		}
		if drop && b.instead == nil {
			return false, nil
		}
	case wire.CommandComplete:
		b.completed(c, body)
	}
	verdict := b.pipe.Receive(typ, status)
	switch typ {
	case wire.ReadyForQuery:
		if verdict == pipeline.Pass {
			if c != nil && c.change != nil {
				b.settled(c)
			}
			b.counts.answered(status, b.pipe.Quiet(), b.s.now().UnixNano())
		}
		if status == wire.TxIdle && b.pipe.Depth() == 0 {
			b.wrote, b.notified = false, false
		}
		b.lateSince, b.lateNotice = 0, nil
		if verdict == pipeline.Pass {
			b.withheld = nil
		}
		b.settleNames()
	case wire.ErrorResponse:
		if c != nil {
			c.change = nil
		}
		switch {
		case verdict == pipeline.Drop:
			b.withheld = wire.ParseNotice(body)
		case b.withheld != nil:
			b.instead, b.withheld = b.withheld, nil
		}
		b.settleNames()
	case wire.ParseComplete, wire.CloseComplete, wire.CommandComplete:
		b.settleNames()
	}
	switch verdict {
	case pipeline.AsParseComplete:
		m[0] = wire.ParseComplete
	case pipeline.HiddenFailed:
		return false, b.hiddenFailed(c, body)
	}
	return verdict != pipeline.Drop && b.instead == nil, nil
}

// parameter follows a ParameterStatus. The client that is linked hears of it
// even when our own statement caused it, unless it has that value already.
func (b *backend) parameter(c *client, body []byte) {
	name, rest, ok1 := wire.CString(body)
	value, _, ok2 := wire.CString(rest)
	if !ok1 || !ok2 {
		return
	}
	n, v := string(name), string(value)
	b.reports.set(n, v)
	if b.vars.set(n, v) && c != nil {
		c.vars.set(n, v)
		c.named()
	}
}

// notice looks at the head of an error or a notice. A server that says it goes
// away is lost to us, and its word is not passed on: what the client is told
// depends on what it was doing.
func (b *backend) notice(c *client, typ byte, m []byte) (drop bool, err error) {
	n := wire.ParseNotice(m[wire.HeaderLen:])
	if n.Severity == wire.SevPanic {
		return true, n
	}
	switch n.Code {
	case wire.CodeAdminShutdown, wire.CodeCrashShutdown, wire.CodeCannotConnectNow:
		b.unshown.recall()
		if n.Fatal() {
			b.innocent = true
			if n.Code == wire.CodeAdminShutdown {
				b.terminated = bytes.Clone(m)
			}
			return true, n
		}
		// "terminating connection because of crash of another server process"
		b.innocent = b.innocent || n.Severity == wire.SevWarning
		return typ == wire.NoticeResponse && n.Severity == wire.SevWarning, nil
	case wire.CodeFeatureNotSupported:
		// "cached plan must not change result type": the statement stays
		// unusable under its name.
		if typ == wire.ErrorResponse {
			b.stale()
		}
	}
	if typ != wire.ErrorResponse {
		return false, nil
	}
	if n.Fatal() {
		b.farewell = true
		return false, nil
	}
	instead, fatal := b.timedOut(c, n)
	if fatal != nil {
		return false, fatal
	}
	b.instead = instead
	return instead != nil, nil
}

// stale makes every statement be prepared anew, under a new name.
func (b *backend) stale() {
	if b.client != nil && b.client.mode == ModeTransaction {
		b.s.texts.retire()
	}
}

// completed looks at a command's tag.
func (b *backend) completed(c *client, body []byte) {
	switch string(body[:max(0, len(body)-1)]) {
	case "SET", "RESET":
		if c != nil && c.change != nil {
			c.change.done = true
		}
	case "ALTER ROLE", "ALTER DATABASE":
		b.outdates = true
	case "DISCARD ALL", "DEALLOCATE ALL":
		b.forgetNames(c)
		if c != nil {
			if body[1] == 'I' { // DISCARD ALL leaves nothing behind at all
				c.settings = nil
				if b.pipe.Last() { // but for what was sent behind it
					c.traits = 0
				}
				b.unnamed, b.settings = unnamedID{}, nil
			}
		}
	}
}

// forgetNames follows a DEALLOCATE ALL: every name is gone but those of
// statements that were sent behind it. What stood before it has been settled.
func (b *backend) forgetNames(c *client) {
	behind := make(map[uint64]bool)
	for _, n := range b.naming {
		if n.what == parsing || n.what == aliasing {
			behind[n.text.id] = n.what == parsing
		}
	}
	for id := range b.stmts.used {
		if !behind[id] {
			b.stmts.remove(id)
		}
	}
	if c != nil {
		c.forgetStatements(behind)
	}
}

// settleNames takes back what failed or was skipped, so that no name is
// believed to exist, or to be free, that is not.
func (b *backend) settleNames() {
	done, dropped := b.pipe.TakeNamed()
	if done+dropped == 0 {
		return
	}
	done = min(done, len(b.naming))
	for _, n := range b.naming[:done] {
		b.confirm(n)
	}
	lost := b.naming[done:min(done+dropped, len(b.naming))]
	for _, n := range slices.Backward(lost) {
		b.takeBack(n)
	}
	b.naming = b.naming[done+len(lost):]
	if len(b.naming) == 0 {
		b.naming = nil
	}
}

// hiddenFailed: a statement of ours failed. Such a server cannot be trusted to
// be in the state that its client believes in.
func (b *backend) hiddenFailed(c *client, body []byte) error {
	n := wire.ParseNotice(body)
	if b.unshown.on && b.target.Standby { // the standby may not have yet what a setting names
		b.severed, b.unshown.refused = true, &reason{what: route.Elsewhere, why: "the session's settings could not be carried to the standby"}
		return n
	}
	b.cleanBad = true
	if c == nil {
		b.severed = true
		return fmt.Errorf("clean the session: %w", n)
	}
	b.severed = true
	c.refused.Store(wire.Fatalf(n.Code, "the session's settings could not be carried to another server: %s", n.Message))
	return n
}

// settle ends the link after an answer that left nothing open.
func (b *backend) settle() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.pipe.Idle() || b.partial || b.dead || b.parked {
		return nil
	}
	c := b.client
	if c != nil && (c.reads != nil || c.waits.Load()) {
		defer c.parted()
	}
	switch {
	case b.draining:
		b.severLocked()
		return errSevered
	case c == nil:
		return b.cleaned()
	case b.retiring && b.leavable():
		b.partLocked()
		return nil
	case b.s.closing.Load() && (c.reads == nil || c.reads.again.Load() == nil):
		c.wake()
		return nil
	case c.mode == ModeTransaction && c.traits == 0:
		b.unlink(false)
	}
	return nil
}

var errSevered = errors.New("severed")

// cleaned: the statement that cleans the server has been answered.
func (b *backend) cleaned() error {
	if !b.dirty {
		return nil
	}
	b.dirty = false
	b.stmts.clear()
	b.unnamed, b.settings = unnamedID{}, nil
	b.s.pool.Cleaned(b.server)
	return nil
}

// unlink gives the server back. The lock is held, the client knows.
func (b *backend) unlink(dirty bool) {
	c := b.client
	c.rested.Store(b.counts.answeredAt)
	c.link.Store(nil)
	b.client = nil
	c.unstall()
	b.unstallLocked()
	b.dirty = b.dirty || dirty
	if b.cancels > 0 { // a cancel under way must not hit the next client
		b.parked = true
		return
	}
	b.giveBack()
}

// giveBack makes the server somebody else's, cleaning it first where needed.
func (b *backend) giveBack() {
	b.parked = false
	switch {
	case b.dead:
		return
	case b.draining, b.doubted:
		b.severLocked()
		return
	case b.retiring:
		b.partLocked()
		return
	case b.stained:
		b.conn.Write(wire.AppendEmpty(nil, wire.Terminate)) //nolint:errcheck // a courtesy: it ends either way
		b.severLocked()
		return
	case !b.dirty:
		b.s.pool.Release(b.server, false)
		return
	}
	b.pipe.Send(pipeline.Sent{Kind: pipeline.Query, Hidden: true, Class: statement.Other})
	b.s.pool.Release(b.server, true)
	if _, err := b.conn.Write(wire.AppendString(nil, wire.Query, "DISCARD ALL")); err != nil {
		hangUp(b.conn) // its loop does the rest
	}
}

// newBackend makes a backend of a connection that is logged in.
func newBackend(s *Server, d *dialed, t pool.Target, server *pool.Server) *backend {
	b := &backend{
		s: s, id: s.lastID.Add(1), made: s.now(), server: server, node: t.Node.ID, target: t, epoch: t.Epoch, conn: d.conn, pid: d.pid, key: d.key,
		reports: d.reports, vars: d.vars, done: make(chan struct{}), buf: make([]byte, bufferSize),
	}
	b.sock, b.secure = socket(d.conn)
	b.w = copy(b.buf, d.rest)
	return b
}
