package session

import (
	"github.com/pgtandem/pgtandem/proxyd/session/pipeline"
	"github.com/pgtandem/pgtandem/proxyd/session/statement"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// SQL can name what the protocol has prepared: EXECUTE s, DEALLOCATE s. In
// transaction mode the servers know it by another name, so that the text has to
// be written with that.

// inServersNames writes a text with the names that the server knows the
// client's statements by, and makes the server know them. It says false where
// the text has none of them, and where the server is not going to run it.
func (c *client) inServersNames(b *backend, text []byte) (out []byte, ok bool) {
	if b.pipe.Skipping() || b.pipe.Status() == wire.TxFailed {
		return nil, false
	}
	at := 0
	for _, n := range statement.Names(text, c.vars[varConforming] == "off") {
		p := c.stmts[n.Name]
		if p == nil {
			continue
		}
		c.cut()
		c.ensure(b, p)
		out = append(append(out, text[at:n.Start]...), p.text.name...)
		at, ok = n.End, true
	}
	return append(out, text[at:]...), ok
}

// sendDeallocating records a message that takes a statement's name away; name
// is "" for all others.
func (c *client) sendDeallocating(b *backend, s pipeline.Sent, name string) {
	p := c.stmts[name]
	if name == "" || p == nil || c.mode != ModeTransaction {
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
