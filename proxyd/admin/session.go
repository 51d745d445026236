package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// maxNamed bounds the statements and the portals of a session.
const maxNamed = 100

// session is one visit, in its own goroutine.
type session struct {
	c       *Console
	visit   *Visit
	out     []byte // goes out with the next flush
	tx      byte   // as ReadyForQuery says it: a driver may ask for a block
	skip    bool   // ignore everything up to Sync
	stmts   map[string]*statement
	portals map[string]*portal
	limit   time.Duration // statement_timeout, 0 for none
	limit0  time.Duration // what it was at the login
}

// portal is a statement that was bound, with what is left of its answer.
type portal struct {
	stmt    *statement
	formats []int16
	answer  *answer
	sent    int // rows
}

func newSession(c *Console, v *Visit) *session {
	s := &session{c: c, visit: v, tx: wire.TxIdle, stmts: make(map[string]*statement), portals: make(map[string]*portal)}
	s.limit = startTimeout(v.Params)
	s.limit0 = s.limit
	return s
}

func (s *session) flush() error {
	if len(s.out) == 0 {
		return nil
	}
	s.visit.Conn.SetWriteDeadline(time.Now().Add(writeTimeout)) //nolint:errcheck // a closed connection is noticed by the write
	_, err := s.visit.Conn.Write(s.out)
	s.out = s.out[:0]
	return err
}

// message is one message of the client.
type message struct {
	typ  byte
	body []byte
	err  error
}

// run reads in a goroutine of its own, so that a client which hangs up ends
// the command that it waits for.
func (s *session) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	in := make(chan message)
	over := make(chan struct{})
	go func() {
		defer close(over)
		s.read(ctx, in, cancel)
	}()
	defer func() {
		cancel(errGone)
		s.visit.Conn.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // a closed connection ends the read by itself
		<-over
	}()
	for {
		select {
		case m := <-in:
			if m.err != nil {
				return s.farewell(m.err)
			}
			if m.typ == wire.Terminate {
				return nil
			}
			if err := s.take(ctx, m); err != nil {
				return s.farewell(err)
			}
		case <-ctx.Done():
			return s.farewell(context.Cause(ctx))
		}
	}
}

// read hands messages over one at a time. Nothing is read behind Terminate:
// what was asked for before is done first.
func (s *session) read(ctx context.Context, in chan<- message, hangUp context.CancelCauseFunc) {
	for {
		typ, body, err := wire.ReadMessage(s.visit.Conn, nil, maxMessage)
		if err != nil && !errors.Is(err, wire.ErrProtocol) {
			hangUp(errGone)
			return
		}
		select {
		case in <- message{typ, body, err}:
		case <-ctx.Done():
			return
		}
		if err != nil || typ == wire.Terminate {
			return
		}
	}
}

// farewell tells the client why the session ends, where it is still there.
func (s *session) farewell(err error) error {
	var n *wire.Notice
	switch {
	case errors.Is(err, errGone):
		return err
	case errors.Is(err, wire.ErrProtocol):
		n = wire.Fatalf(wire.CodeProtocolViolation, "%v", err).WithHint("A message to the console has at most %d bytes.", maxMessage)
	case errors.Is(err, context.Canceled), errors.Is(err, errStopping):
		n = wire.Fatalf(wire.CodeAdminShutdown, "terminating connection due to administrator command").WithDetail("The proxy is stopping.")
	default:
		return err
	}
	s.out = wire.AppendError(s.out, n)
	if werr := s.flush(); werr != nil {
		return werr
	}
	return n
}

// take deals with one message.
func (s *session) take(ctx context.Context, m message) error {
	if s.skip && m.typ != wire.Sync {
		return nil
	}
	var err error
	switch m.typ {
	case wire.Query:
		if err := s.query(ctx, m.body); err != nil {
			return err
		}
		s.out = wire.AppendReady(s.out, s.tx)
		return s.flush()
	case wire.Sync:
		s.skip = false
		if s.tx == wire.TxIdle {
			clear(s.portals)
		}
		s.out = wire.AppendReady(s.out, s.tx)
		return s.flush()
	case wire.Flush:
		return s.flush()
	case wire.CopyData, wire.CopyDone, wire.CopyFail: // as a server does outside of a COPY
		return nil
	case wire.FunctionCall:
		s.fail(wire.Errorf(wire.CodeFeatureNotSupported, "the console has no functions to call").WithHint("SHOW HELP lists what there is."))
		s.out = wire.AppendReady(s.out, s.tx)
		return s.flush()
	case wire.Parse:
		err = s.parse(m.body)
	case wire.Bind:
		err = s.bind(m.body)
	case wire.Describe:
		err = s.describe(m.body)
	case wire.Execute:
		err = s.execute(ctx, m.body)
	case wire.Close:
		err = s.close(m.body)
	default:
		return fmt.Errorf("%w: invalid frontend message type %d", wire.ErrProtocol, m.typ)
	}
	if errors.Is(err, wire.ErrProtocol) || errors.Is(err, errGone) || errors.Is(err, errStopping) {
		return err
	}
	if err != nil {
		s.fail(err)
		s.skip = true
		return s.flush()
	}
	return nil
}

// fail tells of an error that leaves the session alive.
func (s *session) fail(err error) {
	var n *wire.Notice
	if !errors.As(err, &n) {
		s.c.opt.Log.Error("a command of the console failed", "client", s.visit.Address, "error", err)
		n = wire.Errorf(wire.CodeInternalError, "%v", err)
	}
	if s.tx == wire.TxOpen {
		s.tx = wire.TxFailed
	}
	s.out = wire.AppendError(s.out, n)
}

// query is the simple protocol: every statement of the text in turn, up to one
// that fails.
func (s *session) query(ctx context.Context, body []byte) error {
	text, rest, ok := wire.CString(body)
	if !ok || len(rest) > 0 {
		return fmt.Errorf("%w: invalid Query message", wire.ErrProtocol)
	}
	delete(s.stmts, "")
	delete(s.portals, "")
	list, err := s.c.prepare(string(text))
	if err != nil {
		s.fail(err)
		return nil
	}
	if len(list) == 0 {
		s.out = wire.AppendEmpty(s.out, wire.EmptyQueryResponse)
		return nil
	}
	for _, stmt := range list {
		a, err := s.perform(ctx, stmt)
		if errors.Is(err, errGone) || errors.Is(err, errStopping) {
			return err
		}
		if err != nil {
			s.fail(err)
			return nil
		}
		if stmt.columns != nil {
			s.out = appendRowDescription(s.out, stmt.columns, nil)
			for _, r := range a.rows {
				s.out = appendDataRow(s.out, stmt.columns, nil, r)
			}
		}
		s.out = wire.AppendString(s.out, wire.CommandComplete, a.tag)
	}
	return nil
}

// cut reads n zero-terminated strings from the head of a message's body.
func cut(body []byte, what string, n int) (parts []string, rest []byte, err error) {
	for range n {
		part, after, ok := wire.CString(body)
		if !ok {
			return nil, nil, fmt.Errorf("%w: invalid %s message", wire.ErrProtocol, what)
		}
		parts, body = append(parts, string(part)), after
	}
	return parts, body, nil
}

func (s *session) parse(body []byte) error {
	parts, _, err := cut(body, "Parse", 2)
	if err != nil {
		return err
	}
	name := parts[0]
	if name != "" && s.stmts[name] != nil {
		return wire.Errorf(wire.CodeDuplicateStatement, "prepared statement \"%s\" already exists", name)
	}
	if len(s.stmts) >= maxNamed {
		return wire.Errorf(wire.CodeProgramLimitExceeded, "too many prepared statements").WithHint("Close those that are not needed: a console session has at most %d.", maxNamed)
	}
	list, err := s.c.prepare(parts[1])
	switch {
	case err != nil:
		return err
	case len(list) > 1:
		return wire.Errorf(wire.CodeSyntaxError, "cannot insert multiple commands into a prepared statement")
	case len(list) == 0:
		s.stmts[name] = &statement{}
	default:
		s.stmts[name] = list[0]
	}
	s.out = wire.AppendEmpty(s.out, wire.ParseComplete)
	return nil
}

func (s *session) statement(name string) (*statement, error) {
	if stmt := s.stmts[name]; stmt != nil {
		return stmt, nil
	}
	return nil, wire.Errorf(wire.CodeInvalidStatementName, "prepared statement \"%s\" does not exist", name)
}

func (s *session) bind(body []byte) error {
	parts, rest, err := cut(body, "Bind", 2)
	if err != nil {
		return err
	}
	stmt, err := s.statement(parts[1])
	if err != nil {
		return err
	}
	formats, values, err := bindFormats(rest)
	if err != nil {
		return err
	}
	if values > 0 {
		return wire.Errorf(wire.CodeProtocolViolation, "bind message supplies %d parameters, but prepared statement \"%s\" requires 0", values, parts[1]).
			WithHint("Commands of the console take no parameters: write the value into the command.")
	}
	if len(s.portals) >= maxNamed {
		return wire.Errorf(wire.CodeProgramLimitExceeded, "too many portals").WithHint("Close those that are not needed: a console session has at most %d.", maxNamed)
	}
	s.portals[parts[0]] = &portal{stmt: stmt, formats: formats}
	s.out = wire.AppendEmpty(s.out, wire.BindComplete)
	return nil
}

func (s *session) describe(body []byte) error {
	if len(body) < 2 {
		return fmt.Errorf("%w: invalid Describe message", wire.ErrProtocol)
	}
	name := string(bytes.TrimSuffix(body[1:], []byte{0}))
	var stmt *statement
	var formats []int16
	if body[0] == 'S' {
		found, err := s.statement(name)
		if err != nil {
			return err
		}
		stmt = found
		s.out = append(s.out, wire.ParameterDescription, 0, 0, 0, 6, 0, 0)
	} else {
		p := s.portals[name]
		if p == nil {
			return noPortal(name)
		}
		stmt, formats = p.stmt, p.formats
	}
	if stmt.columns == nil {
		s.out = wire.AppendEmpty(s.out, wire.NoData)
		return nil
	}
	s.out = appendRowDescription(s.out, stmt.columns, formats)
	return nil
}

func noPortal(name string) error {
	return wire.Errorf(wire.CodeInvalidCursorName, "portal \"%s\" does not exist", name)
}

// execute runs a portal, or goes on with the rows that are left of it.
func (s *session) execute(ctx context.Context, body []byte) error {
	parts, rest, err := cut(body, "Execute", 1)
	if err != nil || len(rest) != 4 {
		return fmt.Errorf("%w: invalid Execute message", wire.ErrProtocol)
	}
	p := s.portals[parts[0]]
	if p == nil {
		return noPortal(parts[0])
	}
	if p.stmt.run == nil {
		s.out = wire.AppendEmpty(s.out, wire.EmptyQueryResponse)
		return nil
	}
	if p.answer == nil {
		if p.answer, err = s.perform(ctx, p.stmt); err != nil {
			return err
		}
	}
	most := int(rest[0])<<24 | int(rest[1])<<16 | int(rest[2])<<8 | int(rest[3])
	for n := 0; p.sent < len(p.answer.rows); n++ {
		if most > 0 && n == most {
			s.out = wire.AppendEmpty(s.out, wire.PortalSuspended)
			return nil
		}
		s.out = appendDataRow(s.out, p.stmt.columns, p.formats, p.answer.rows[p.sent])
		p.sent++
	}
	s.out = wire.AppendString(s.out, wire.CommandComplete, p.answer.tag)
	return nil
}

func (s *session) close(body []byte) error {
	if len(body) < 2 {
		return fmt.Errorf("%w: invalid Close message", wire.ErrProtocol)
	}
	name := string(bytes.TrimSuffix(body[1:], []byte{0}))
	if body[0] == 'S' {
		delete(s.stmts, name)
	} else {
		delete(s.portals, name)
	}
	s.out = wire.AppendEmpty(s.out, wire.CloseComplete)
	return nil
}

// bindFormats reads the rest of a Bind: the formats of the parameters, their
// values, which are only counted, and the formats of the results.
func bindFormats(b []byte) (results []int16, values int, err error) {
	bad := fmt.Errorf("%w: invalid Bind message", wire.ErrProtocol)
	word := func() (int, bool) {
		if len(b) < 2 {
			return 0, false
		}
		n := int(b[0])<<8 | int(b[1])
		b = b[2:]
		return n, true
	}
	n, ok := word()
	if !ok || len(b) < 2*n {
		return nil, 0, bad
	}
	b = b[2*n:]
	if values, ok = word(); !ok {
		return nil, 0, bad
	}
	for range values {
		if len(b) < 4 {
			return nil, 0, bad
		}
		size := int64(int32(uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])))
		b = b[4:]
		if size = max(size, 0); int64(len(b)) < size {
			return nil, 0, bad
		}
		b = b[size:]
	}
	if n, ok = word(); !ok {
		return nil, 0, bad
	}
	for range n {
		f, ok := word()
		if !ok || f > asBinary {
			return nil, 0, bad
		}
		results = append(results, int16(f))
	}
	return results, values, nil
}
