package session

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/route"
	"github.com/pgtandem/pgtandem/proxyd/route/choose"
	"github.com/pgtandem/pgtandem/proxyd/route/classify"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// In transaction mode a client has no server between two transactions, and what
// it begins next is sent where package route says. What is decided together is a
// flight: all that is in the buffer and surely runs on one server, up to a Query
// or a Sync. See reads_link.go for what becomes of it there.

// Reads is what routing needs to know. All of it may be asked at any time and
// from any goroutine, and must not block.
type Reads interface {
	// Monitor knows what the nodes have replayed. It is the same each time that
	// reads are routed.
	Monitor() *choose.Monitor
	// Classifier judges the texts of a database.
	Classifier(database string) *classify.Classifier
	// SchemaChanged is told when what may have changed a database's catalog has
	// been committed.
	SchemaChanged(database string)
	// Node finds a node that the Monitor has been told of.
	Node(id cluster.NodeID) (cluster.Node, bool)
}

// router is Reads with what the loops have of it.
type router struct {
	Reads
	monitor *choose.Monitor
	began   time.Time
	// readers of each loop, by database, which only the loop itself looks at.
	readers []map[string]*classify.Reader
}

// RouteReads lets reads go to standbys, or no more with nil. A transaction that
// is open stays where it is.
func (s *Server) RouteReads(r Reads) {
	if r == nil {
		s.router.Store(nil)
		return
	}
	rt := &router{Reads: r, monitor: r.Monitor(), began: s.now(), readers: make([]map[string]*classify.Reader, s.opts.Loops)}
	for i := range rt.readers {
		rt.readers[i] = make(map[string]*classify.Reader)
	}
	s.router.Store(rt)
}

// Routes counts what was decided, by the label of the reason.
func (s *Server) Routes() map[string]uint64 { return s.routes.Counts() }

// reading is what a client needs to have its reads routed. Like the rest of the
// client it belongs to whoever drives it, and to the lock of the server while it
// has one.
type reading struct {
	of         *router
	classifier *classify.Classifier
	reader     *classify.Reader // of its loop; nil until it is used there
	route      route.Client
	unnamed    judged // of the unnamed statement numbered unnamedSeq
	unnamedSeq uint64
	startup    string // what in its startup packet pins it

	decided  bool // what begins at the message at hand goes by decision
	decision route.Decision
	left     int            // messages of the flight that are still to be passed on
	units    int            // of the flight
	open     bool           // messages of the extended protocol have gone out with no Sync behind them
	sent     []byte         // the flight, where it can be sent once more
	read     bool           // it writes nothing: should its server be lost it can be sent once more
	lostOn   cluster.NodeID // that has happened on this node, without a word of it
	lostAt   time.Time
	suspect  bool             // and on another: it may be what brought them down
	failed   []cluster.NodeID // where it has failed
	rewound  bool             // it lies in the buffer again

	again atomic.Pointer[reason] // the flight is to be sent once more

	mu   sync.Mutex
	last route.Decision
}

// reason is why a flight did not succeed on a standby.
type reason struct {
	what route.Refusal
	why  string
	done int // units of the flight that have been answered already
}

// judged is a verdict that is kept, as a prepared statement's.
type judged struct {
	verdict classify.Verdict
	stamp   classify.Stamp
}

// routing gives what routes the client, nil for nothing. It has no server.
func (c *client) routing() *reading {
	rt := c.s.router.Load()
	switch r := c.reads; {
	case r != nil && (r.decided || c.waits.Load() || r.again.Load() != nil): // it is in the middle of something
	case rt == nil || c.mode != ModeTransaction:
		if c.reads != nil {
			c.reads = nil
			c.routed.Store(nil)
		}
	case c.reads == nil || c.reads.of != rt:
		c.reads = &reading{of: rt, classifier: rt.Classifier(c.group.Database), startup: c.pinnedByStartup()}
		if c.started.Before(rt.began) { // what it wrote until now was not followed
			c.reads.route.Wrote(false)
			c.reads.route.Ended(rt.monitor.Now())
		}
	}
	return c.reads
}

// routeWords is the latest decision, in words; from any goroutine.
func (c *client) routeWords() string {
	r := c.routed.Load()
	if r == nil {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last.String()
}

// decide finds out where what begins at the message at hand goes. errAway: a
// text has to be parsed first.
func (c *client) decide() error {
	r := c.routing()
	switch {
	case r == nil || r.decided:
		return nil
	case r.again.Load() != nil:
		return errBehind
	}
	f := c.survey()
	if !f.known {
		return errAway
	}
	r.rewound, r.open, r.lostOn, r.suspect, r.failed = false, false, "", false, r.failed[:0]
	now := c.situation()
	r.read = f.messages > 0 && (f.verdict.Standby() || f.verdict.Kind == classify.Begin && now.ReadOnly)
	d := r.route.Decide(f.verdict, now)
	if !d.Standby && d.Cause == route.ByNodes {
		if _, ok := c.s.opts.Router.Try(c.request()); !ok {
			d = r.route.Again("no primary is available", []cluster.NodeID{d.Node}, now)
		}
	}
	r.decided, r.left, r.units = true, f.messages, f.units
	if r.read {
		r.sent = append(r.sent[:0], (*c.in)[c.r:c.r+f.size]...)
	}
	c.decidedFor(d)
	return nil
}

func (c *client) decidedFor(d route.Decision) {
	r := c.reads
	r.decision = d
	c.s.routes.Add(d)
	r.mu.Lock()
	r.last = d
	r.mu.Unlock()
	if c.routed.Load() != r {
		c.routed.Store(r)
	}
}

// elsewhere decides anew for what could not be had from a standby.
func (c *client) elsewhere(why reason) {
	r := c.reads
	r.failed = append(r.failed, r.decision.Node)
	if why.what == route.OnPrimary {
		r.read = false
		c.decidedFor(r.route.Primary(why.why, c.situation()))
		return
	}
	c.decidedFor(r.route.Again(why.why, r.failed, c.situation()))
}

func (c *client) situation() route.Situation {
	now := route.Situation{View: c.reads.of.monitor.View(), Now: c.s.now(), Random: rand.Uint64()}
	now.Pinned, now.ReadOnly = c.reads.startup, false
	for _, x := range c.settings {
		switch x.name {
		case "default_transaction_isolation":
			if strings.Contains(strings.ToLower(x.text), "serializable") {
				now.Pinned = "its default_transaction_isolation, which a standby refuses"
			}
		case "default_transaction_read_only":
			if now.ReadOnly = saysYes(x.text); !now.ReadOnly {
				now.Pinned = "its default_transaction_read_only"
			}
		}
	}
	return now
}

// saysYes says whether a SET gives a truth, in one of PostgreSQL's words for it.
func saysYes(set string) bool {
	i := strings.LastIndexAny(set, " \t\r\n=")
	on, ok := parseBool(strings.Trim(set[i+1:], "'"))
	return ok && on
}

// pinnedByStartup says what in the startup packet keeps its client from the
// standbys. Such a parameter may hide in "options" as well.
func (c *client) pinnedByStartup() string {
	for _, p := range c.login.params {
		for _, name := range []string{"default_transaction_isolation", "default_transaction_read_only"} {
			if strings.EqualFold(p.Name, name) || p.Name == "options" && strings.Contains(strings.ToLower(p.Value), name) {
				return "its startup parameter " + name
			}
		}
	}
	return ""
}

// whither is where the message at hand goes.
func (c *client) whither() (t pool.Target, ok bool) {
	r := c.reads
	if r == nil || !r.decided {
		return c.s.opts.Router.Try(c.request())
	}
	for r.decision.Standby {
		if n, ok := r.of.Node(r.decision.Node); ok {
			if t = (pool.Target{Node: n, Standby: true}); c.s.current(t) {
				return t, true
			}
		}
		c.elsewhere(reason{what: route.Elsewhere, why: "the node is no standby any more"})
	}
	return c.s.opts.Router.Try(c.request())
}

// fits says whether what was decided holds on a server, or else decides anew:
// see choose.Choice.
func (c *client) fits(b *backend) bool {
	if !b.target.Standby || c.reads == nil || !c.reads.decided || c.reads.decision.Holds(b.opened) {
		return true
	}
	c.elsewhere(reason{what: route.Elsewhere, why: "its connection is younger than the last look at the standby"})
	return false
}

// flight is what is decided together.
type flight struct {
	verdict  classify.Verdict
	messages int // that are all in the buffer; 0: it is not known where it ends
	size     int // of those, in bytes
	units    int // of messages up to a Query or a Sync
	known    bool
}

// survey judges what begins at the message at hand. Further reads that lie in
// the buffer already go with it.
func (c *client) survey() flight {
	buf := (*c.in)[c.r:c.w]
	all := flight{verdict: classify.Verdict{Kind: classify.Read}, known: true}
	for {
		next := c.unit(buf[all.size:])
		switch {
		case !next.known:
			return next
		case all.messages == 0:
			all = next
		case next.messages > 0 && next.verdict.Kind == classify.Read:
			all.messages, all.size, all.units = all.messages+next.messages, all.size+next.size, all.units+1
			all.verdict.Schema = all.verdict.Schema || next.verdict.Schema
			continue
		default:
			return all
		}
		if all.messages == 0 || all.verdict.Kind != classify.Read {
			return all
		}
	}
}

// unit judges messages up to a Query or a Sync.
func (c *client) unit(buf []byte) flight {
	u := flight{verdict: classify.Verdict{Kind: classify.Read}, known: true}
	named, parsed := "", false
	for {
		m, ok := whole(buf[u.size:])
		if !ok {
			schema := u.verdict.Schema || c.schemaIn(buf[u.size:])
			return flight{verdict: classify.Verdict{Reason: "came in parts: more may follow before its Sync", Schema: schema}, known: true}
		}
		v, known := classify.Verdict{Kind: classify.Read}, true
		switch m.typ {
		case wire.Query:
			text, _, _ := wire.CString(m.body())
			v, known = c.verdict(text, c.away)
		case wire.Parse:
			name, body, _ := wire.CString(m.body())
			text, _, _ := wire.CString(body)
			named, parsed = string(name), true
			v, known = c.verdict(text, c.away)
		case wire.Bind:
			_, rest, _ := wire.CString(m.body())
			if name, _, _ := wire.CString(rest); !parsed || string(name) != named {
				v, known = c.verdictOf(name, c.away)
			}
		case wire.Describe, wire.Execute, wire.Close, wire.Flush, wire.Sync:
		default:
			return flight{verdict: classify.Verdict{Reason: "is no query but a message of another kind"}, known: true}
		}
		if !known {
			return flight{}
		}
		u.verdict = join(u.verdict, v)
		u.messages, u.size = u.messages+1, u.size+len(m.raw)
		if m.typ == wire.Query || m.typ == wire.Sync {
			u.units = 1
			return u
		}
	}
}

// schemaIn says whether a message of which buf holds the beginning may change
// the schema.
func (c *client) schemaIn(buf []byte) bool {
	if len(buf) <= wire.HeaderLen {
		return false
	}
	text := buf[wire.HeaderLen:]
	switch buf[0] {
	case wire.Parse:
		_, text, _ = wire.CString(text)
	case wire.Query:
	default:
		return false
	}
	text, _, _ = wire.CString(text)
	return classify.ChangesSchema(text)
}

// join is classify.Verdict.And for what may hold the end of a transaction and
// the beginning of the next.
func join(v, w classify.Verdict) classify.Verdict {
	both := v.And(w)
	if v.Kind == classify.BeginRead && (w.Kind == classify.Begin || w.Kind == classify.BeginWrite) {
		both.Kind, both.Reason = w.Kind, w.Reason
	}
	return both
}

// whole gives the first message of buf where all of it is there.
func whole(buf []byte) (m message, ok bool) {
	if len(buf) < wire.HeaderLen {
		return m, false
	}
	m.typ, m.total = wire.Header(buf)
	if wire.CheckFrontend(m.typ, m.total) != nil || m.total > int64(len(buf)) {
		return m, false
	}
	m.raw = buf[:m.total]
	return m, true
}

// verdict judges a text. Not known: it has to be parsed, which may take
// milliseconds and is not done in the loop.
func (c *client) verdict(text []byte, parse bool) (v classify.Verdict, known bool) {
	r := c.reads
	if parse {
		return r.classifier.Reader().Classify(text, c.rules()), true
	}
	if c.away {
		return r.classifier.Reader().Lookup(text, c.rules())
	}
	if r.reader == nil {
		mine := r.of.readers[c.loop.Number()]
		if mine[c.group.Database] == nil {
			mine[c.group.Database] = r.classifier.Reader()
		}
		r.reader = mine[c.group.Database]
	}
	return r.reader.Lookup(text, c.rules())
}

// verdictOf judges a prepared statement by its name. Its verdict is kept.
func (c *client) verdictOf(name []byte, parse bool) (v classify.Verdict, known bool) {
	kept, body := &c.reads.unnamed, c.unnamed
	switch {
	case len(name) > 0:
		p := c.stmts[string(name)]
		if p == nil {
			return classify.Verdict{Kind: classify.Local, Reason: "names a statement that there is not"}, true
		}
		if p.judged == nil {
			p.judged = &judged{}
		}
		kept, body = p.judged, p.text.body
	case !c.hasUnnamed:
		return classify.Verdict{Reason: "has a statement that is too long to be remembered"}, true
	case c.reads.unnamedSeq != c.unnamedSeq:
		c.reads.unnamed, c.reads.unnamedSeq = judged{}, c.unnamedSeq
	}
	stamp := c.reads.classifier.Stamp()
	if kept.stamp == stamp {
		return kept.verdict, true
	}
	text, _, _ := wire.CString(body)
	if v, known = c.verdict(text, parse); known {
		*kept = judged{v, stamp}
	}
	return v, known
}

// guests are encodings of clients alone, in which a byte that looks like ASCII
// may be half of a letter (PostgreSQL docs, 23.3.1).
var guests = []string{"BIG5", "GB18030", "GBK", "JOHAB", "SHIFT_JIS_2004", "SJIS", "UHC"}

func (c *client) rules() classify.Rules {
	r := classify.Rules{Backslashes: c.vars[varConforming] == "off"}
	if enc := c.vars[varEncoding]; enc != "UTF8" {
		r.Encoding = slices.ContainsFunc(guests, func(g string) bool { return strings.EqualFold(g, enc) })
	}
	return r
}
