package session

import (
	"encoding/binary"

	"github.com/pgtandem/pgtandem/proxyd/session/pipeline"
	"github.com/pgtandem/pgtandem/proxyd/session/statement"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// SQL can name what the protocol has prepared, and the other way round: PREPARE
// s, EXECUTE s, DEALLOCATE s. In transaction mode the servers know it by another
// name, so that the text has to be written with that; in both modes another
// server has to be told of it first.

// inServersNames writes a text with the names that the server knows the
// client's statements by, and makes the server know them; simple says that the
// text is a simple query's. It says false where the text has none of them, and
// where the server is not going to run it.
func (c *client) inServersNames(b *backend, text []byte, simple bool) (out []byte, ok bool) {
	if b.pipe.Skipping() || b.pipe.Status() == wire.TxFailed {
		return nil, false
	}
	at, told := 0, false
	for _, n := range statement.Names(text, c.vars[varConforming] == "off") {
		p := c.stmts[n.Name]
		if p == nil {
			continue
		}
		c.cut()
		if told = c.ensureFor(b, p, simple) || told; c.mode == ModeTransaction {
			out = append(append(out, text[at:n.Start]...), p.text.name...)
			at = n.End
		}
		c.traits |= p.info.Traits // what it does is not seen in the text
		ok = true
	}
	if told {
		c.endGuard(b)
	}
	return append(out, text[at:]...), ok
}

// ensureFor makes the server know a statement, and says whether it had to be
// told. Before a simple query that is guarded: the server would ignore the query
// if it failed.
func (c *client) ensureFor(b *backend, p *prepared, simple bool) (told bool) {
	if !simple {
		c.ensure(b, p)
		return false
	}
	if b.stmts.has(p.text) {
		return false
	}
	c.evict(b, b.stmts.add(p.text))
	b.counts.ServerParses++
	if !c.sendNaming(b, pipeline.Sent{Kind: pipeline.Parse, Hidden: true, Guarded: true}, naming{what: parsing, text: p.text}) {
		b.stmts.remove(p.text.id)
	}
	c.out = appendParse(c.out, p.text.name, p.text.body)
	return true
}

// endGuard ends what is guarded.
func (c *client) endGuard(b *backend) {
	b.pipe.Send(pipeline.Sent{Kind: pipeline.Sync, Hidden: true})
	c.out = wire.AppendEmpty(c.out, wire.Sync)
}

// relayPrepare passes a PREPARE on, and remembers it as if it were a Parse. It
// says false where it cannot be remembered.
func (c *client) relayPrepare(b *backend, m *message, text []byte) bool {
	p, ok := statement.Preparing(text, c.vars[varConforming] == "off")
	if !ok || len(text) > maxNamedParse || len(c.stmts) >= maxStatements || b.pipe.Skipping() || b.pipe.Status() == wire.TxFailed {
		return false
	}
	own := ""
	if c.mode == ModeSession {
		own = p.Name.Name
	}
	c.cut()
	x := c.s.texts.alone(parseBody(p), own)
	if old := c.stmts[p.Name.Name]; old != nil { // the server has to refuse it
		x = old.text
		if c.ensureFor(b, old, true) {
			c.endGuard(b)
		}
		b.pipe.Send(pipeline.Sent{Kind: pipeline.Query})
	} else {
		if c.stmts == nil {
			c.stmts = make(map[string]*prepared)
		}
		c.stmts[p.Name.Name] = &prepared{text: x, info: c.scan(p.Text, true)}
		c.evict(b, b.stmts.add(x))
		c.sendNaming(b, pipeline.Sent{Kind: pipeline.Query}, naming{what: parsing, text: x, client: c, name: p.Name.Name})
	}
	name := string(text[p.Start:p.End])
	if c.mode == ModeTransaction {
		name = x.name
	}
	c.out = wire.AppendString(c.out, wire.Query, string(text[:p.Start])+name+string(text[p.End:]))
	c.consume(m, false)
	return true
}

// parseBody is what a Parse of the same would have behind its name.
func parseBody(p statement.Preparation) []byte {
	body := append(append([]byte(nil), p.Text...), 0)
	body = binary.BigEndian.AppendUint16(body, uint16(len(p.Types)))
	for _, oid := range p.Types {
		body = binary.BigEndian.AppendUint32(body, oid)
	}
	return body
}

// sendDeallocating records a message that takes a statement's name away; name
// is "" for all others.
func (c *client) sendDeallocating(b *backend, s pipeline.Sent, name string) {
	p := c.stmts[name]
	if name == "" || p == nil {
		b.pipe.Send(s)
		return
	}
	if c.sendNaming(b, s, naming{what: deallocate, text: p.text, client: c, name: name, was: p}) {
		b.stmts.remove(p.text.id)
		delete(c.stmts, name)
	}
}

// relayOwnParse passes a Parse on whose text is not the client's any more.
func (c *client) relayOwnParse(b *backend, m *message, name string, body []byte, info statement.Info) error {
	if name != "" {
		return c.relayNamedParse(b, m, name, body, info)
	}
	c.rememberUnnamed(b, m, body, info)
	b.pipe.Send(pipeline.Sent{Kind: pipeline.Parse})
	c.cut()
	c.out = appendParse(c.out, "", body)
	c.consume(m, false)
	return nil
}
