package session

import (
	"bytes"
	"errors"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/route"
	"github.com/pgtandem/pgtandem/proxyd/route/classify"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// A flight that only reads and has shown its client nothing yet can be sent once
// more, to another node: where its server is lost, or where a standby refuses what
// a primary would do. Until something is shown its answers are withheld.

// unshown are the answers to a unit of a flight, up to its Query or Sync, that
// has shown nothing yet.
type unshown struct {
	on      bool
	unsent  bool    // it has been shown something, which came with what is read now and has not been written
	answers []byte  // that came with earlier readings of the server
	mark    int     // where in what was read now those begin that are withheld
	refused *reason // it is to run elsewhere: whatever else comes of it is dropped
	done    int     // units of the flight that have been answered
	left    int     // and those that have not
}

// next: a unit has been answered. mark is where its answers end.
func (h *unshown) next(mark int) {
	h.done++
	h.unsent = false
	if h.left--; h.left > 0 {
		h.on, h.mark = true, mark
	}
}

// judged says whether answers are to be judged by shows.
func (h *unshown) judged() bool { return h.on || h.unsent }

// recall takes back what was to be shown and has not been written: a server that
// ends at once sends with its last words the rows that it had at hand.
func (h *unshown) recall() {
	h.on, h.unsent = h.judged(), false
}

// along says what becomes of a message while a server is linked: it is passed
// on, or it begins something that is to be decided anew, once all that was sent
// has been answered. The server's lock is held, and let go where it is not
// passed on.
func (c *client) along(b *backend, m *message) (pass bool, err error) {
	r := c.reads
	starts := m.typ != wire.Query && m.typ != wire.Sync && m.typ != wire.FunctionCall
	switch begins := !r.open; {
	case r.again.Load() != nil:
		return false, errBehind
	case r.left > 0:
		if r.decided && r.read {
			b.unshown = unshown{on: true, left: r.units}
		}
		r.left--
		r.decided = false
		r.open = starts
		return true, nil
	case r.decided: // where its flight ends was not known
	case begins && b.pipe.Idle() && !b.partial && c.traits == 0:
		return false, c.giveBack()
	case begins && (b.target.Standby || b.unshown.left > 0) && !b.pipe.Quiet():
		return false, errBehind
	}
	if !b.target.Standby && !r.decided {
		c.noteWrite(m)
	}
	r.decided = false
	r.open = starts
	return true, nil
}

// giveBack parts the client from a server on which nothing of its is open.
func (c *client) giveBack() error {
	b := c.locked
	if err := c.flush(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client == c && !b.dead && !b.parked && b.pipe.Idle() && !b.partial {
		b.unlink(false)
	}
	return nil
}

// noteWrite takes what goes to the primary behind what was decided for it for a
// write, unless it is known not to be.
func (c *client) noteWrite(m *message) {
	v := classify.Verdict{Kind: classify.Write}
	switch m.typ {
	case wire.Query:
		text, _, whole := wire.CString(m.body())
		if v = c.harmless(text, whole && m.whole()); v.Kind != classify.Write {
			return
		}
		v.Schema = classify.ChangesSchema(text)
	case wire.Parse:
		_, body, _ := wire.CString(m.body())
		text, _, whole := wire.CString(body)
		if v = c.harmless(text, whole); v.Kind != classify.Write {
			return
		}
		v.Schema = classify.ChangesSchema(text)
	case wire.Bind:
		_, rest, _ := wire.CString(m.body())
		name, _, _ := wire.CString(rest)
		if w, known := c.verdictOf(name, false); known {
			if v = w; v.Kind == classify.Read {
				return
			}
		} else if p := c.stmts[string(name)]; p != nil {
			text, _, _ := wire.CString(p.text.body)
			v.Schema = classify.ChangesSchema(text)
		}
	case wire.FunctionCall:
	default:
		return
	}
	c.reads.route.Wrote(v.Schema)
}

// harmless gives the verdict of a text that runs in a transaction on the
// primary, where only a read needs no notice, and a COMMIT alone.
func (c *client) harmless(text []byte, whole bool) classify.Verdict {
	if c.reads.route.Writing() || !whole {
		return classify.Verdict{Kind: classify.Write}
	}
	v, known := c.verdict(text, false)
	if known && (v.Kind == classify.Read || v.Kind == classify.BeginRead || v.Kind == classify.Local && !mentions(text, "write")) {
		return v
	}
	return classify.Verdict{Kind: classify.Write}
}

// mentions looks for a word in lower case in a text, as in SET TRANSACTION READ
// WRITE.
func mentions(text []byte, word string) bool {
	return bytes.Contains(bytes.ToLower(text), []byte(word))
}

// answered follows the answers to a client. settled says that nothing of it is
// open on the server any more. The server's lock is held, and the client has
// not seen the last answer yet.
func (r *reading) answered(c *client, b *backend, settled bool) {
	if settled && b.unshown.refused != nil {
		r.again.Store(b.unshown.refused)
		c.traits = 0 // it had none when it was given this server
	}
	if !settled {
		return
	}
	b.unshown = unshown{}
	if r.again.Load() == nil {
		r.ended(c)
	}
}

// ended: all that was begun has ended, committed or not.
func (r *reading) ended(c *client) {
	if r.route.Ended(r.of.monitor.Now()) {
		r.of.SchemaChanged(c.group.Database)
	}
	if cap(r.sent) > keepOut {
		r.sent = nil
	}
}

// shows judges an answer to a flight that has shown nothing yet, of which m is as
// much as the buffer holds. False: it is dropped, and with it all before it.
func (b *backend) shows(typ byte, m []byte, partial bool) bool {
	h := &b.unshown
	if h.refused != nil {
		return false
	}
	switch typ {
	case wire.ErrorResponse:
		n := wire.ParseNotice(m[wire.HeaderLen:])
		if what, why := route.RefusedByStandby(n.Code); b.target.Standby && what != route.Answer {
			h.recall()
			h.refused = &reason{what, why, h.done}
			if n.Fatal() { // its client does not hear it
				b.farewell, b.severed = false, true
			}
			return false
		}
	case wire.ParseComplete, wire.BindComplete, wire.CloseComplete, wire.RowDescription, wire.NoData, wire.ParameterDescription,
		wire.NoticeResponse, wire.ParameterStatus:
		if !partial {
			return true
		}
	}
	if h.on {
		h.on, h.unsent = false, true
	}
	return true
}

// part keeps what may be shown later, and gives what may be shown now.
func (b *backend) part(out []byte) []byte {
	h := &b.unshown
	mark := h.mark
	h.mark, h.unsent = 0, false
	if !h.on {
		mark = len(out)
	}
	now, later := out[:mark], out[mark:]
	if len(h.answers) > 0 && (mark > 0 || !h.on) { // of a unit that has been shown since
		now = append(h.answers, now...)
		h.answers = nil
	}
	switch {
	case h.refused != nil:
		h.answers = nil
	case len(later) > 0:
		h.answers = append(h.answers, later...)
	}
	return now
}

// rewind puts a flight that is to be sent once more before what is to be judged
// next, and decides where it goes now. It says false where there is none.
func (c *client) rewind() bool {
	r := c.reads
	why := r.again.Swap(nil)
	if why == nil {
		return false
	}
	sent := behindUnits(r.sent, why.done)
	c.unread(sent)
	r.rewound, r.decided, r.open = true, true, false
	r.sent = append(r.sent[:0], sent...) // which may be a part of itself
	sent = r.sent
	r.left, r.units = 0, r.units-why.done
	for m, ok := whole(sent); ok; m, ok = whole(sent) {
		r.left, sent = r.left+1, sent[len(m.raw):]
	}
	c.elsewhere(*why)
	return true
}

// unread puts bytes before what is to be judged next.
func (c *client) unread(sent []byte) {
	if c.in == nil {
		c.in, c.r, c.w = takeBuffer(false), 0, 0
	}
	rest := (*c.in)[c.r:c.w]
	if need := len(sent) + len(rest); len(sent) <= c.r {
		c.r -= copy((*c.in)[c.r-len(sent):], sent)
	} else {
		grown := make([]byte, need+bufferSize)
		copy(grown[copy(grown, sent):], rest)
		putBuffer(c.in)
		c.in, c.r, c.w = &grown, 0, need
	}
	c.runFrom = c.r
}

// behindUnits is what is left of a flight behind so many units.
func behindUnits(sent []byte, done int) []byte {
	for done > 0 {
		m, ok := whole(sent)
		if !ok {
			break
		}
		if sent = sent[len(m.raw):]; m.typ == wire.Query || m.typ == wire.Sync {
			done--
		}
	}
	return sent
}

// rerun says whether what was under way on a server that is lost runs once more
// instead of being told about. What may have brought two servers down does not,
// nor what somebody has ended on purpose. A server that crashes says so to all
// its clients but the one whose statement has crashed it.
func (c *client) rerun(b *backend) bool {
	r := c.reads
	if r == nil {
		return false
	}
	b.mu.Lock()
	h, innocent := b.unshown, b.innocent
	b.unshown = unshown{}
	b.mu.Unlock()
	why := reason{route.Elsewhere, "the server was lost", h.done}
	switch {
	case r.again.Load() != nil:
	case h.refused != nil:
		r.again.Store(h.refused)
	case h.on && b.terminated != nil && c.s.serves(b, c.login):
		return false
	case h.on && !innocent && !r.sameDeath(b.node, b.made, c.s.now()):
		r.suspect = true
		return false
	case h.on:
		if !innocent && r.lostOn == "" {
			r.lostOn, r.lostAt = b.node, c.s.now()
		}
		r.again.Store(&why)
	case r.decided && r.decision.Standby && r.decision.Node == b.node: // it had not left yet
		c.elsewhere(why)
		return false
	default:
		return false
	}
	return c.rewind()
}

// dying is how long a server may take to go down, connection by connection.
const dying = time.Second

// sameDeath says that the loss of a connection is the flight's first, or one more
// of the same: however late we see it, a connection that is older than the first
// loss was to the server that died then.
func (r *reading) sameDeath(node cluster.NodeID, made, now time.Time) bool {
	return r.lostOn == "" || r.lostOn == node && (made.Before(r.lostAt) || now.Sub(r.lostAt) < dying)
}

// LeaveStandby severs what reads from a node that is no standby any more, or
// does not answer. What has shown no row runs elsewhere.
func (s *Server) LeaveStandby(node cluster.NodeID, reason string) {
	list, _ := s.snapshotBackends()
	for _, b := range list {
		if b.target.Standby && b.node == node {
			b.sever(reason)
		}
	}
}

// current says whether a server may be used for what its target is: the gate's
// opening stands, or the node is read from and the gate does not lead there. A
// standby that was promoted is reached through the gate alone.
func (s *Server) current(t pool.Target) bool {
	if !t.Standby {
		return s.opts.Gate.Current(t.Epoch)
	}
	g, _ := s.opts.Gate.Target()
	return g.Node.ID != t.Node.ID
}

// behindGate says whether a server is the gate's to sever. What reads from a
// standby goes on when the primary is lost.
func (s *Server) behindGate(b *backend) bool { return !b.target.Standby || !s.current(b.target) }

// loginTo is what opens a server of a target. Should a standby be promoted while
// a connection to it is open, nothing writes by that.
func (c *client) loginTo(t pool.Target) login {
	l := c.login
	if t.Standby {
		l.params = append(l.params[:len(l.params):len(l.params)], wire.Param{Name: "default_transaction_read_only", Value: "on"})
	}
	return l
}

// openedStandby puts a server that was just opened where it is found as soon as
// the standby has been looked at again. Its client goes elsewhere.
func (w *waiting) openedStandby(b *backend) error {
	if err := b.start(w.c.loop); err != nil {
		return err
	}
	w.c.fits(b)
	b.s.pool.Release(b.server, false)
	return errMoved
}

// unopened: a standby takes no connection of the client's.
func (c *client) unopened(t pool.Target, err error) {
	if errors.Is(err, errUnreachable) {
		c.reads.of.monitor.Lost(t.Node.ID)
	}
	c.s.log.Debug("a standby was not connected to", "node", t.Node.ID, "error", err)
	c.elsewhere(reason{what: route.Elsewhere, why: "the standby took no connection"})
}

// figures gives the numbers of each database and user, of all nodes together.
func (s *Server) figures() []pool.Figures {
	var sums []pool.Figures
	at := make(map[pool.Group]int)
	for _, f := range s.pool.Figures() {
		f.Standby = ""
		i, ok := at[f.Group]
		if !ok {
			at[f.Group] = len(sums)
			sums = append(sums, f)
			continue
		}
		sum := &sums[i]
		for state, n := range f.Servers {
			sum.Servers[state] += n
		}
		sum.Waiting += f.Waiting
		sum.OldestWait = max(sum.OldestWait, f.OldestWait)
	}
	return sums
}
