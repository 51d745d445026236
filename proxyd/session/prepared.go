package session

import (
	"fmt"
	"strings"
	"sync"

	"github.com/pgtandem/pgtandem/proxyd/session/statement"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

const (
	maxStatements  = 10000    // named statements of one client
	maxNamedParse  = 1 << 20  // bytes of a named statement's Parse
	maxUnnamed     = 16 << 10 // bytes of an unnamed one that is remembered
	maxServerStmts = 500      // statements that one server holds for us
)

// text is a Parse that clients share: the same statement and parameter types
// under the same rules of reading them.
type text struct {
	id   uint64
	name string // on the servers
	body []byte // of the Parse, behind the statement's name
	refs int
	key  string
}

// texts are all Parses that clients have named, each once.
type texts struct {
	mu    sync.Mutex
	byKey map[string]*text
	last  uint64
}

func newTexts() *texts { return &texts{byKey: make(map[string]*text)} }

// intern finds or makes the text of a Parse's body as a client with those
// variables and settings means it: a time without a zone, say, or a table
// without a schema, is what they make of it when it is parsed. In session mode the server's name is the client's own,
// and nothing is shared.
func (t *texts) intern(body []byte, vars *variables, set settings, own string) *text {
	t.mu.Lock()
	defer t.mu.Unlock()
	if own != "" {
		t.last++
		return &text{id: t.last, name: own, body: append([]byte(nil), body...), refs: 1}
	}
	key := rules(vars, set) + "\x00" + string(body)
	if x := t.byKey[key]; x != nil {
		x.refs++
		return x
	}
	t.last++
	x := &text{id: t.last, name: fmt.Sprintf("pgtandem_%d", t.last), body: append([]byte(nil), body...), refs: 1, key: key}
	t.byKey[key] = x
	return x
}

// alone makes a text that is its client's alone. own is its name on the servers,
// "" for one of ours.
func (t *texts) alone(body []byte, own string) *text {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	if own == "" {
		own = fmt.Sprintf("pgtandem_%d", t.last)
	}
	return &text{id: t.last, name: own, body: body, refs: 1}
}

// rules are what a session reads texts by: all that clients may set, but the
// name they go by.
func rules(vars *variables, set settings) string {
	var b strings.Builder
	for i, v := range vars {
		if i != varApplication {
			b.WriteString(v)
			b.WriteByte(0)
		}
	}
	for _, x := range set {
		b.WriteString(x.text)
		b.WriteByte(0)
	}
	return b.String()
}

// release gives up one use of a text.
func (t *texts) release(x *text) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if x.refs--; x.refs == 0 && t.byKey[x.key] == x {
		delete(t.byKey, x.key)
	}
}

// retire makes the next Parse of every known text a new statement on the
// servers: a plan has been found stale, and stays so under its name.
func (t *texts) retire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.byKey)
}

// prepared is a client's named statement.
type prepared struct {
	text   *text
	info   statement.Info
	judged *judged // where it is to run; nil until that was asked
}

// naming is a message that changes which statements have a name, which was
// sent and is not answered. The change counts from when it is sent, since what
// follows in the same packet means it so, and is taken back where the message
// fails, or is skipped behind another that did.
type naming struct {
	what changing
	text *text
	// For the client's own: client and name are nil and "" for ours.
	client *client
	name   string
	was    *prepared // what a Close or a DEALLOCATE took the name from
}

type changing uint8

const (
	parsing    changing = iota // the server gets a statement, and the client where it is its own
	aliasing                   // the client gets a statement that the server has
	closing                    // the client loses a statement
	evicting                   // the server loses one, for which it has no room
	deallocate                 // both lose it
)

// confirm: the message was executed.
func (b *backend) confirm(n naming) {
	if n.was != nil {
		b.s.texts.release(n.text)
	}
}

// takeBack: it was not, nor will be.
func (b *backend) takeBack(n naming) {
	switch n.what {
	case parsing:
		b.stmts.remove(n.text.id)
	case evicting, deallocate:
		b.stmts.add(n.text)
	case closing:
		if b.client != nil && b.client.mode == ModeSession {
			b.stmts.add(n.text)
		}
	}
	if n.client != nil && n.client == b.client {
		n.client.takeBack(n)
	} else if n.was != nil {
		b.s.texts.release(n.text)
	}
}

// takeBack gives a name back to whom it had before the message.
func (c *client) takeBack(n naming) {
	now := c.stmts[n.name]
	switch n.what {
	case parsing, aliasing:
		if now != nil && now.text == n.text {
			delete(c.stmts, n.name)
			c.s.texts.release(n.text)
		}
	case closing, deallocate:
		if now != nil {
			c.s.texts.release(now.text)
		}
		c.stmts[n.name] = n.was
	}
}

// appendParse appends the Parse of a statement under the given name.
func appendParse(dst []byte, name string, body []byte) []byte {
	dst, at := wire.Begin(dst, wire.Parse)
	dst = append(append(dst, name...), 0)
	return wire.End(append(dst, body...), at)
}

// appendNamed appends a Close or a Describe of a statement.
func appendNamed(dst []byte, typ byte, name string) []byte {
	dst, at := wire.Begin(dst, typ)
	dst = append(dst, 'S')
	return wire.End(append(append(dst, name...), 0), at)
}

// serverStatements are the statements that a server connection holds.
type serverStatements struct {
	used  map[uint64]uint64 // text id -> tick of its last use
	texts map[uint64]*text
	tick  uint64
}

func (h *serverStatements) has(x *text) bool {
	if _, ok := h.used[x.id]; !ok {
		return false
	}
	h.tick++
	h.used[x.id] = h.tick
	return true
}

// add enters a statement and gives one that is to be closed for it, or nil.
func (h *serverStatements) add(x *text) (evict *text) {
	if h.used == nil {
		h.used, h.texts = make(map[uint64]uint64), make(map[uint64]*text)
	}
	h.tick++
	if len(h.used) >= maxServerStmts {
		oldest, at := uint64(0), h.tick
		for id, tick := range h.used {
			if tick < at {
				oldest, at = id, tick
			}
		}
		evict = h.texts[oldest]
		h.remove(oldest)
	}
	h.used[x.id], h.texts[x.id] = h.tick, x
	return evict
}

func (h *serverStatements) remove(id uint64) {
	delete(h.used, id)
	delete(h.texts, id)
}

func (h *serverStatements) clear() {
	clear(h.used)
	clear(h.texts)
}
