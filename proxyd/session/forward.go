package session

import (
	"bytes"
	"errors"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/session/pipeline"
	"github.com/pgtandem/pgtandem/proxyd/session/statement"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

const (
	keepOut      = 2 << 10          // bytes of an output buffer that an idle client may keep
	farewellTime = 10 * time.Second // for a client to take its last message
)

// message is one message of a client as far as it is in the buffer.
type message struct {
	typ   byte
	total int64
	raw   []byte // head and body, or the beginning of it
}

func (m *message) whole() bool  { return int64(len(m.raw)) == m.total }
func (m *message) body() []byte { return m.raw[wire.HeaderLen:] }

// process judges everything that is in the buffer and sends it on, in one
// write where it can.
func (c *client) process() error {
	err := c.batch()
	if ferr := c.flush(); err == nil {
		err = ferr
	}
	return err
}

func (c *client) batch() error {
	for c.r < c.w {
		if c.rest > 0 {
			if err := c.passRest(); err != nil {
				return err
			}
			continue
		}
		m, ok, err := c.next()
		if err != nil {
			n := wire.Fatalf(wire.CodeProtocolViolation, "%v", err)
			errors.As(err, &n)
			return c.fatal(n)
		}
		if !ok {
			return nil
		}
		if done, err := c.take(&m); !done || err != nil {
			return err
		}
	}
	return nil
}

// passRest goes on with a message whose head has been dealt with.
func (c *client) passRest() error {
	if c.restTo && c.lock() == nil {
		if err := c.lose(c.link.Load()); err != nil {
			return err
		}
	}
	if !c.restTo {
		c.cut()
	}
	n := int(min(c.rest, int64(c.w-c.r)))
	c.r += n
	c.rest -= int64(n)
	switch {
	case !c.restTo:
		c.runFrom = c.r
	case c.rest == 0:
		c.locked.partial = false
	}
	return nil
}

// next finds the next message once as much of it is at hand as is needed.
func (c *client) next() (m message, ok bool, err error) {
	avail := (*c.in)[c.r:c.w]
	if len(avail) < wire.HeaderLen {
		return m, false, nil
	}
	m.typ, m.total = wire.Header(avail)
	if err := wire.CheckFrontend(m.typ, m.total); err != nil {
		return m, false, err
	}
	need := min(m.total, bufferSize)
	if m.total > bufferSize && m.total-1 > c.s.limits().MaxMessage {
		return m, false, wire.Fatalf(wire.CodeProgramLimitExceeded, "a message of %d bytes is longer than this proxy passes on", m.total-1).
			WithHint("proxy.max_message_bytes is its limit.")
	}
	switch m.typ {
	case wire.CopyData, wire.FunctionCall:
		need = wire.HeaderLen
	case wire.Parse: // a named one is remembered whole
		if len(avail) > wire.HeaderLen && avail[wire.HeaderLen] != 0 && m.total <= maxNamedParse {
			need = m.total
		}
	}
	if int64(len(avail)) < need {
		return m, false, nil
	}
	m.raw = avail[:min(m.total, int64(len(avail)))]
	return m, true, nil
}

// take deals with one message. It says false when the rest of the buffer has
// to wait.
func (c *client) take(m *message) (done bool, err error) {
	if m.typ == wire.Terminate {
		return false, errTerminate
	}
	for {
		if b := c.lock(); b != nil {
			if c.reads == nil {
				return true, c.relay(b, m)
			}
			left, open := c.reads.left, c.reads.open
			pass, err := c.along(b, m)
			if err == nil && !pass {
				continue
			}
			if err == nil {
				err = c.relay(b, m)
			}
			if errors.Is(err, errBehind) {
				c.reads.left, c.reads.open = left, open
			}
			return err == nil, err
		}
		if dead := c.link.Load(); dead != nil {
			if err := c.lose(dead); err != nil {
				return false, err
			}
			if c.reads != nil && c.reads.rewound {
				return true, nil // another message is at hand
			}
			continue
		}
		handled, err := c.local(m)
		if !handled && err == nil {
			handled, err = c.acquire(m)
		}
		if err != nil {
			return false, err
		}
		if handled {
			c.consume(m, false)
			return true, nil
		}
	}
}

// lock gives the linked server with its lock held until flush, or nil when the
// client has none or lost it. What has been gathered for a lost one was never
// sent.
func (c *client) lock() *backend {
	if c.locked != nil {
		return c.locked
	}
	b := c.link.Load()
	if b == nil {
		return nil
	}
	b.mu.Lock()
	if b.client != c || b.dead {
		b.mu.Unlock()
		return nil
	}
	c.locked = b
	c.out, c.runFrom = c.out[:0], c.r
	c.first = b.pipe.Depth() == 0
	if c.prelude != "" {
		b.pipe.Send(pipeline.Sent{Kind: pipeline.Query, Hidden: true})
		c.out = wire.AppendString(c.out, wire.Query, c.prelude)
		c.prelude, b.settings = "", c.settings
	}
	return b
}

// cut ends the run of bytes that go out as they are, at the present message.
func (c *client) cut() {
	if c.locked != nil && c.runFrom < c.r {
		c.out = append(c.out, (*c.in)[c.runFrom:c.r]...)
	}
	c.runFrom = c.r
}

// consume moves behind a message; what is not in the buffer yet follows the
// same way.
func (c *client) consume(m *message, pass bool) {
	if !pass {
		c.cut()
	}
	c.r += len(m.raw)
	if !pass {
		c.runFrom = c.r
	}
	c.rest = m.total - int64(len(m.raw))
	c.restTo = pass
	if c.rest > 0 && pass {
		c.locked.partial = true
	}
}

// replace puts the bytes that were appended to c.out in the place of the head
// of a message, n bytes long; the rest of it goes out as it is.
func (c *client) replaced(m *message, n int) {
	c.runFrom = c.r + n
	c.r += len(m.raw)
	c.rest = m.total - int64(len(m.raw))
	c.restTo = true
	if c.rest > 0 {
		c.locked.partial = true
	}
}

// flush sends what was gathered and lets go of the server's lock.
func (c *client) flush() error {
	b := c.locked
	if b == nil {
		return nil
	}
	c.locked = nil
	var run []byte
	if c.in != nil && c.runFrom < c.r {
		run = (*c.in)[c.runFrom:c.r]
	}
	c.runFrom = c.r
	b.counts.asked(len(c.out)+len(run), c.since.Load())
	if n := int32(len(c.stmts)); n != c.stmtsN.Load() {
		c.stmtsN.Store(n)
	}
	b.mu.Unlock()
	if c.vacates {
		c.vacates = false
		c.s.vacate()
	}
	data := run
	if len(c.out) > 0 {
		c.out = append(c.out, run...)
		data = c.out
	}
	if len(data) > 0 {
		if n, err := b.conn.Write(data); err != nil {
			b.unwritten(n, c.first)
			b.loop.Post(&lastWords{b, err}) // and then we are told what is lost
		}
	}
	if cap(c.out) > keepOut {
		c.out = nil
	}
	return nil
}

// fatal ends the session with an error. A linked server's answers may be on
// their way to the client at the same time, so the link is cut first.
func (c *client) fatal(n *wire.Notice) error {
	if !c.away {
		return errAway
	}
	c.flush() //nolint:errcheck // going anyway
	if b := c.link.Load(); b != nil {
		b.sever("its client broke the protocol")
		<-b.done
		if b.truncated {
			return n
		}
	}
	c.send(n) //nolint:errcheck // going anyway
	return n
}

// relay records a message with its server and passes it on.
func (c *client) relay(b *backend, m *message) error {
	switch m.typ {
	case wire.Query:
		return c.relayQuery(b, m)
	case wire.Parse:
		return c.relayParse(b, m)
	case wire.Bind:
		return c.relayBind(b, m)
	case wire.Describe, wire.Close:
		return c.relayNamed(b, m)
	case wire.Execute:
		class, deallocates := c.portal, c.portalInfo.Deallocate
		if len(m.body()) > 0 && m.body()[0] != 0 {
			class, deallocates = statement.Unknown, "" // a named portal's statement is not remembered
			b.wrote = true
		} else {
			if err := c.commits(b, c.portalInfo, true); err != nil {
				return err
			}
			c.traitsOf(b, c.portalInfo, c.portalText)
		}
		c.sendDeallocating(b, pipeline.Sent{Kind: pipeline.Execute, Class: class}, deallocates)
	case wire.Sync:
		b.pipe.Send(pipeline.Sent{Kind: pipeline.Sync})
	case wire.FunctionCall:
		b.wrote = true
		b.pipe.Send(pipeline.Sent{Kind: pipeline.Function})
	case wire.CopyDone, wire.CopyFail:
		b.pipe.Send(pipeline.Sent{Kind: pipeline.CopyEnd})
	}
	c.consume(m, true)
	return nil
}

func (c *client) scan(text []byte, whole bool) statement.Info {
	return statement.Scan(text, whole, c.vars[varConforming] == "off")
}

// relayQuery passes a simple query on.
func (c *client) relayQuery(b *backend, m *message) error {
	text, _, whole := wire.CString(m.body())
	info := c.scan(text, whole && m.whole())
	c.unnamed, c.hasUnnamed = c.unnamed[:0], false // a simple query destroys it
	if info.Traits&statement.Prepare != 0 && whole && m.whole() && c.relayPrepare(b, m, text) {
		return nil
	}
	if err := c.commits(b, info, false); err != nil {
		return err
	}
	c.traitsOf(b, info, text)
	if info.Names && whole && m.whole() {
		if named, ok := c.inServersNames(b, text, true); ok {
			c.out = wire.AppendString(c.out, wire.Query, string(named))
			c.sendDeallocating(b, pipeline.Sent{Kind: pipeline.Query, Class: info.Class}, info.Deallocate)
			c.consume(m, false)
			return nil
		}
	}
	b.pipe.Send(pipeline.Sent{Kind: pipeline.Query, Class: info.Class})
	c.consume(m, true)
	return nil
}

// ensure makes the server know a statement.
func (c *client) ensure(b *backend, p *prepared) {
	if b.stmts.has(p.text) {
		return
	}
	c.evict(b, b.stmts.add(p.text))
	b.counts.ServerParses++
	if !c.sendNaming(b, pipeline.Sent{Kind: pipeline.Parse, Hidden: true}, naming{what: parsing, text: p.text}) {
		b.stmts.remove(p.text.id)
	}
	c.out = appendParse(c.out, p.text.name, p.text.body)
}

// evict closes a statement that the server holds too many beside.
func (c *client) evict(b *backend, x *text) {
	if x != nil {
		c.sendNaming(b, pipeline.Sent{Kind: pipeline.Close, Hidden: true}, naming{what: evicting, text: x})
		c.out = appendNamed(c.out, wire.Close, x.name)
	}
}

// sendNaming records a message that changes names. It says false when the
// server will skip it.
func (c *client) sendNaming(b *backend, s pipeline.Sent, n naming) bool {
	s.Named = true
	if !b.pipe.Send(s) {
		return false
	}
	b.naming = append(b.naming, n)
	return true
}

// relayParse passes a Parse on, and remembers it.
func (c *client) relayParse(b *backend, m *message) error {
	name, body, ok := wire.CString(m.body())
	if !ok {
		return c.fatal(wire.Fatalf(wire.CodeProtocolViolation, "invalid Parse message"))
	}
	query, _, _ := wire.CString(body)
	info := c.scan(query, true)
	if info.Names && c.mode == ModeTransaction && m.whole() {
		if named, ok := c.inServersNames(b, query, false); ok {
			return c.relayOwnParse(b, m, string(name), append(append(named, 0), body[len(query)+1:]...), info)
		}
	}
	if len(name) == 0 {
		c.rememberUnnamed(b, m, body, info)
		b.pipe.Send(pipeline.Sent{Kind: pipeline.Parse})
		c.consume(m, true)
		return nil
	}
	if !m.whole() || len(c.stmts) >= maxStatements {
		return c.tooMuch(b, m)
	}
	return c.relayNamedParse(b, m, string(name), body, info)
}

// tooMuch is a named statement that cannot be remembered. In session mode it
// binds the client to its server instead.
func (c *client) tooMuch(b *backend, m *message) error {
	if c.mode == ModeTransaction {
		return c.fatal(wire.Fatalf(wire.CodeProgramLimitExceeded,
			"too many or too long prepared statements for transaction pooling").
			WithDetail("A client may name %d statements of at most %d bytes.", maxStatements, maxNamedParse).
			WithHint("Close statements that are not needed any more, or use pool_mode = \"session\"."))
	}
	c.traits |= statement.Prepare
	b.pipe.Send(pipeline.Sent{Kind: pipeline.Parse})
	c.consume(m, true)
	return nil
}

func (c *client) rememberUnnamed(b *backend, m *message, body []byte, info statement.Info) {
	c.unnamedIs = info
	c.unnamedSeq++
	c.unnamed = c.unnamed[:0]
	if c.hasUnnamed = m.whole() && len(body) <= maxUnnamed; c.hasUnnamed {
		c.unnamed = append(c.unnamed, body...)
	}
	b.unnamed = unnamedID{c.id, c.unnamedSeq}
}

// relayNamedParse gives a named statement its name on the servers. A server
// that has it already is asked to close a statement that does not exist: that
// answers in order and costs nothing, and the answer is turned into a
// ParseComplete.
func (c *client) relayNamedParse(b *backend, m *message, name string, body []byte, info statement.Info) error {
	own := ""
	if c.mode == ModeSession {
		own = name
	}
	if old := c.stmts[name]; old != nil {
		// The server has to refuse it, in its turn.
		c.cut()
		c.ensure(b, old)
		b.pipe.Send(pipeline.Sent{Kind: pipeline.Parse})
		c.out = appendParse(c.out, old.text.name, body)
		c.consume(m, false)
		return nil
	}
	if b.pipe.Skipping() { // the server ignores it, and so do we
		c.consume(m, true)
		return nil
	}
	p := &prepared{text: c.s.texts.intern(body, &c.vars, c.settings, own), info: info}
	if c.stmts == nil {
		c.stmts = make(map[string]*prepared)
	}
	c.stmts[name] = p
	b.counts.ClientParses++
	c.cut()
	if b.stmts.has(p.text) {
		c.sendNaming(b, pipeline.Sent{Kind: pipeline.CloseAsParse}, naming{what: aliasing, text: p.text, client: c, name: name})
		c.out = appendNamed(c.out, wire.Close, "pgtandem_none")
	} else {
		c.evict(b, b.stmts.add(p.text))
		b.counts.ServerParses++
		c.sendNaming(b, pipeline.Sent{Kind: pipeline.Parse}, naming{what: parsing, text: p.text, client: c, name: name})
		c.out = appendParse(c.out, p.text.name, body)
	}
	c.consume(m, false)
	return nil
}

// relayBind passes a Bind on, naming the statement as the server knows it.
func (c *client) relayBind(b *backend, m *message) error {
	portal, rest, ok1 := wire.CString(m.body())
	name, _, ok2 := wire.CString(rest)
	if !ok1 || !ok2 {
		return c.fatal(wire.Fatalf(wire.CodeProtocolViolation, "invalid Bind message"))
	}
	info := c.unnamedIs
	var p *prepared
	if len(name) == 0 {
		c.ensureUnnamed(b)
	} else if p = c.stmts[string(name)]; p != nil {
		info = p.info
		c.cut()
		c.ensure(b, p)
	}
	c.bound(portal, info, p)
	b.counts.Binds++
	b.pipe.Send(pipeline.Sent{Kind: pipeline.Bind})
	if p == nil || p.text.name == string(name) {
		c.consume(m, true)
		return nil
	}
	head := wire.HeaderLen + len(portal) + 1 + len(name) + 1
	total := m.total + int64(len(p.text.name)-len(name))
	c.out = append(c.out, wire.Bind, byte((total-1)>>24), byte((total-1)>>16), byte((total-1)>>8), byte(total-1))
	c.out = append(append(c.out, portal...), 0)
	c.out = append(append(c.out, p.text.name...), 0)
	c.replaced(m, head)
	return nil
}

// bound remembers what the unnamed portal will execute. What a named one leaves
// behind counts at once.
func (c *client) bound(portal []byte, info statement.Info, p *prepared) {
	if len(portal) != 0 {
		c.traits |= info.Traits
		return
	}
	c.portal, c.portalInfo, c.portalText = info.Class, info, nil
	if info.Set == "" {
		return
	}
	body := c.unnamed
	if p != nil {
		body = p.text.body
	}
	text, _, _ := wire.CString(body)
	if c.portalText = bytes.Clone(text); len(text) == 0 { // not remembered
		c.portalInfo.Set = ""
	}
}

// ensureUnnamed makes the server's unnamed statement the client's.
func (c *client) ensureUnnamed(b *backend) {
	want := unnamedID{c.id, c.unnamedSeq}
	if b.unnamed == want || !c.hasUnnamed {
		return
	}
	c.cut()
	b.pipe.Send(pipeline.Sent{Kind: pipeline.Parse, Hidden: true})
	c.out = appendParse(c.out, "", c.unnamed)
	b.unnamed = want
}

// relayNamed passes a Describe or a Close on.
func (c *client) relayNamed(b *backend, m *message) error {
	body := m.body()
	if len(body) < 2 || !bytes.HasSuffix(body, []byte{0}) {
		return c.fatal(wire.Fatalf(wire.CodeProtocolViolation, "invalid %s message", map[byte]string{wire.Describe: "Describe", wire.Close: "Close"}[m.typ]))
	}
	what, name := body[0], string(body[1:len(body)-1])
	kind := pipeline.Describe
	if m.typ == wire.Close {
		kind = pipeline.Close
	}
	var p *prepared
	if what == 'S' && name != "" {
		p = c.stmts[name]
	}
	switch {
	case p == nil:
		if what == 'S' && name == "" && m.typ == wire.Describe {
			c.ensureUnnamed(b)
		}
		b.pipe.Send(pipeline.Sent{Kind: kind})
		c.consume(m, true)
	case m.typ == wire.Describe:
		c.cut()
		c.ensure(b, p)
		b.pipe.Send(pipeline.Sent{Kind: kind})
		c.out = appendNamed(c.out, wire.Describe, p.text.name)
		c.consume(m, false)
	default:
		c.closeStatement(b, m, name, p)
	}
	return nil
}

// closeStatement forgets a client's statement. In transaction mode the server
// keeps it for others; closing one that does not exist is no error.
func (c *client) closeStatement(b *backend, m *message, name string, p *prepared) {
	if !c.sendNaming(b, pipeline.Sent{Kind: pipeline.Close}, naming{what: closing, text: p.text, client: c, name: name, was: p}) {
		c.consume(m, true)
		return
	}
	delete(c.stmts, name)
	if c.mode == ModeSession {
		b.stmts.remove(p.text.id)
		c.consume(m, true)
		return
	}
	c.cut()
	c.out = appendNamed(c.out, wire.Close, "pgtandem_none")
	c.consume(m, false)
}
