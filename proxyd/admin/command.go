package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// statement is a command that was understood.
type statement struct {
	text     string   // in one line, for the audit
	columns  []column // nil: it gives no rows
	needs    rank
	audit    bool
	inFailed bool // may be said in a failed transaction
	run      func(ctx context.Context, s *session) (*answer, error)
}

// answer is what a statement gave.
type answer struct {
	tag     string
	rows    []row
	notices []*wire.Notice
}

// argument is what stands behind a command's word.
type argument uint8

const (
	nothing  argument = iota
	perhaps           // a database, or nothing for all of them
	database          // a database
	clientID
)

var argumentText = [...]string{nothing: "", perhaps: " [database]", database: " database", clientID: " id"}

// command is one that changes something. All of them are for administrators.
type command struct {
	word string
	arg  argument
	help string
	run  func(ctx context.Context, s *session, arg string) error
}

func commands() []command {
	return []command{
		{"DISABLE", database, "refuse logins to a database", func(_ context.Context, s *session, db string) error {
			s.c.opt.Plane.Disable(db)
			return nil
		}},
		{"ENABLE", database, "let them in again", func(_ context.Context, s *session, db string) error {
			s.c.opt.Plane.Enable(db)
			return nil
		}},
		{"KILL", perhaps, "end its clients and servers at once, and pause it", func(_ context.Context, s *session, db string) error {
			s.c.opt.Plane.Kill(db)
			return nil
		}},
		{"KILL_CLIENT", clientID, "end one client: its id is in SHOW CLIENTS", killClient},
		{"PAUSE", perhaps, "hold its clients and wait until its servers are closed; cancel it, and the pause is taken back",
			func(ctx context.Context, s *session, db string) error { return s.c.opt.Plane.Pause(ctx, db) }},
		{"RECONNECT", perhaps, "close its servers as they are given back", func(_ context.Context, s *session, db string) error {
			s.c.opt.Plane.Reconnect(db)
			return nil
		}},
		{"RELOAD", nothing, "read the configuration again", nil}, // its answer has notices: see reload
		{"RESUME", perhaps, "end PAUSE or KILL", func(_ context.Context, s *session, db string) error { return s.c.opt.Plane.Resume(db) }},
		{"WAIT_CLOSE", perhaps, "wait until no server is left that RECONNECT is to close",
			func(ctx context.Context, s *session, db string) error { return s.c.opt.Plane.WaitClose(ctx, db) }},
	}
}

func killClient(_ context.Context, s *session, arg string) error {
	id, err := strconv.ParseUint(arg, 10, 64)
	if err != nil {
		return wire.Errorf(wire.CodeInvalidParameterValue, "invalid client id: \"%s\"", arg).WithHint("It is the column id of SHOW CLIENTS, a number.")
	}
	if !s.c.opt.Plane.KillClient(id) {
		return wire.Errorf(wire.CodeUndefinedObject, "client %d does not exist", id).WithHint("It may have gone already. SHOW CLIENTS lists those there are.")
	}
	return nil
}

// refusals are commands of PgBouncer's that are not done here, and why.
var refusals = map[string]*wire.Notice{
	"SHUTDOWN": wire.Errorf(wire.CodeFeatureNotSupported, "SHUTDOWN is not done by the console").
		WithDetail("The daemon watches over the cluster, too: stopped in this way, nobody would take over from a lost primary.").
		WithHint("Stop its service: systemctl stop proxyd. Open transactions have a while to end."),
	"SUSPEND": wire.Errorf(wire.CodeFeatureNotSupported, "SUSPEND is not done: it prepares a restart of PgBouncer's own kind").
		WithHint("PAUSE holds the clients; RESUME lets them go on."),
	"FDS": wire.Errorf(wire.CodeFeatureNotSupported, "SHOW FDS is not done: it would give away open connections with their secrets").
		WithHint("SHOW SOCKETS lists the connections."),
}

// known lists what there is.
func (c *Console) known() string {
	var shows, words []string
	for _, s := range c.shows {
		shows = append(shows, s.word)
	}
	for _, cmd := range c.commands {
		words = append(words, cmd.word+argumentText[cmd.arg])
	}
	return "There are " + strings.Join(words, ", ") + ", and SHOW with " + strings.Join(shows, ", ") + ". SHOW HELP explains them."
}

// prepare understands a text.
func (c *Console) prepare(text string) ([]*statement, error) {
	list, err := split(text)
	if err != nil {
		return nil, err
	}
	out := make([]*statement, 0, len(list))
	for _, w := range list {
		stmt, err := c.resolve(w)
		if err != nil {
			return nil, err
		}
		stmt.text = w.rest(0)
		out = append(out, stmt)
	}
	return out, nil
}

func (c *Console) resolve(w words) (*statement, error) {
	first := strings.ToUpper(w.text[0])
	if w.quoted[0] {
		first = ""
	}
	switch first {
	case "SHOW":
		return c.resolveShow(w)
	case "RELOAD":
		if len(w.text) > 1 {
			return nil, unexpected(w, 1, first)
		}
		return &statement{needs: administrator, audit: true, run: reload}, nil
	}
	if n := refusals[first]; n != nil {
		return nil, n
	}
	if stmt := ofEverySession(w, first); stmt != nil {
		return stmt, nil
	}
	i := slices.IndexFunc(c.commands, func(cmd command) bool { return cmd.word == first })
	if i < 0 {
		return nil, wire.Errorf(wire.CodeSyntaxError, "unknown command: %s", w.rest(0)).WithHint("%s", c.known())
	}
	return c.resolveCommand(w, c.commands[i])
}

func unexpected(w words, at int, command string) error {
	return wire.Errorf(wire.CodeSyntaxError, "%s does not take \"%s\"", command, w.rest(at)).WithHint("A name with blanks or punctuation stands in double quotes.")
}

func (c *Console) resolveCommand(w words, cmd command) (*statement, error) {
	arg := ""
	if len(w.text) > 1 {
		arg = w.text[1]
	}
	switch {
	case cmd.arg == nothing && len(w.text) > 1:
		return nil, unexpected(w, 1, cmd.word)
	case len(w.text) > 2:
		return nil, unexpected(w, 2, cmd.word+" "+arg)
	case cmd.arg == database && arg == "":
		return nil, wire.Errorf(wire.CodeSyntaxError, "%s needs a database", cmd.word).WithHint("SHOW DATABASES lists those that are known.")
	case cmd.arg == clientID && arg == "":
		return nil, wire.Errorf(wire.CodeSyntaxError, "%s needs the id of a client", cmd.word).WithHint("It is the column id of SHOW CLIENTS.")
	case cmd.arg != clientID && Owns(arg):
		return nil, wire.Errorf(wire.CodeFeatureNotSupported, "%s is not for the console itself", cmd.word).WithHint("Name a database of the servers.")
	}
	return &statement{needs: administrator, audit: true, run: func(ctx context.Context, s *session) (*answer, error) {
		a := &answer{tag: cmd.word}
		if (cmd.arg == perhaps && arg != "") || cmd.arg == database {
			a.notices = s.unknownDatabase(arg)
		}
		return a, cmd.run(ctx, s, arg)
	}}, nil
}

// unknownDatabase warns of a name that nobody has logged in to yet: it may be
// mistyped, and it may be of a database that is yet to be used.
func (s *session) unknownDatabase(name string) []*wire.Notice {
	v := s.c.opt.Plane.View()
	if slices.ContainsFunc(v.Databases, func(d Database) bool { return d.Name == name }) {
		return nil
	}
	return []*wire.Notice{{Severity: wire.SevNotice, Code: "00000", Message: fmt.Sprintf("no client has used a database \"%s\" yet", name),
		Hint: "Names are told apart by case. SHOW DATABASES lists those that are known."}}
}

func (c *Console) resolveShow(w words) (*statement, error) {
	name := strings.ToUpper(w.rest(1))
	if name == "HELP" || name == "" {
		return &statement{needs: looker, columns: texts("command", "for", "meaning"), run: help}, nil
	}
	if n := refusals[name]; n != nil {
		return nil, n
	}
	for _, sh := range c.shows {
		if name == sh.word || name == sh.alias {
			return &statement{needs: looker, columns: sh.columns, run: func(ctx context.Context, s *session) (*answer, error) {
				rows, err := sh.rows(ctx, c)
				return &answer{tag: "SHOW", rows: rows}, err
			}}, nil
		}
	}
	if stmt := showParameter(w.rest(1)); stmt != nil {
		return stmt, nil
	}
	return nil, wire.Errorf(wire.CodeUndefinedObject, "there is no SHOW %s", w.rest(1)).WithHint("%s", c.known())
}

// help lists every command.
func help(_ context.Context, s *session) (*answer, error) {
	a := &answer{tag: "SHOW"}
	for _, sh := range s.c.shows {
		word := "SHOW " + sh.word
		if sh.alias != "" {
			word += " | " + sh.alias
		}
		a.rows = append(a.rows, row{word, "admin_users, stats_users", sh.help})
	}
	for _, cmd := range s.c.commands {
		a.rows = append(a.rows, row{cmd.word + argumentText[cmd.arg], "admin_users", cmd.help})
	}
	a.rows = append(a.rows, row{"SET statement_timeout = '10s'", "admin_users, stats_users", "how long PAUSE and WAIT_CLOSE may wait in this session"})
	return a, nil
}

// reload reads the configuration again, and says what came of it.
func reload(_ context.Context, s *session) (*answer, error) {
	r, err := s.c.opt.Daemon.Reload(s.who())
	if err != nil {
		return nil, wire.Errorf(wire.CodeConfigFile, "the configuration was not reloaded, nothing was changed").
			WithDetail("%v", err).WithHint("Mend the file and reload again; proxyd --check-config tells everything that is wrong with it.")
	}
	a := &answer{tag: "RELOAD"}
	for _, t := range []struct {
		what string
		keys []string
	}{{"applied: ", r.Applied}, {"needs a restart of proxyd: ", r.Restart}} {
		if len(t.keys) > 0 {
			a.notices = append(a.notices, &wire.Notice{Severity: wire.SevNotice, Code: "00000", Message: t.what + strings.Join(t.keys, ", ")})
		}
	}
	return a, nil
}

// who is the visitor as the audit names them.
func (s *session) who() string { return s.visit.User + " (console, " + s.visit.Address + ")" }

// perform checks the right to a statement, runs it under the session's limits,
// and appends its notices.
func (s *session) perform(ctx context.Context, stmt *statement) (*answer, error) {
	if stmt.run == nil {
		return &answer{}, nil
	}
	if err := s.allowed(stmt); err != nil {
		if stmt.audit {
			s.c.opt.Daemon.Audit(s.who(), stmt.text, err)
		}
		return nil, err
	}
	if s.tx == wire.TxFailed && !stmt.inFailed {
		return nil, wire.Errorf(wire.CodeInFailedTransaction, "current transaction is aborted, commands ignored until end of transaction block")
	}
	bounded, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if s.limit > 0 {
		var stop context.CancelFunc
		bounded, stop = context.WithTimeoutCause(bounded, s.limit, errTimeout)
		defer stop()
	}
	if s.visit.OnCancel != nil {
		s.visit.OnCancel(func() { cancel(errCanceled) })
		defer s.visit.OnCancel(nil)
	}
	a, err := stmt.run(bounded, s)
	err = ended(ctx, bounded, err)
	if stmt.audit {
		s.c.opt.Daemon.Audit(s.who(), stmt.text, err)
	}
	if err != nil {
		return nil, err
	}
	for _, n := range a.notices {
		s.out = wire.AppendNotice(s.out, n)
	}
	return a, nil
}

var (
	errCanceled = errors.New("canceled")
	errTimeout  = errors.New("statement_timeout")
)

// ended says why a command that waited was ended.
func ended(ctx, bounded context.Context, err error) error {
	if err == nil || bounded.Err() == nil {
		return err
	}
	var n *wire.Notice
	if errors.As(err, &n) {
		return err
	}
	switch cause := context.Cause(bounded); {
	case errors.Is(cause, errCanceled):
		return wire.Errorf(wire.CodeQueryCanceled, "canceling statement due to user request").WithDetail("%v", err)
	case errors.Is(cause, errTimeout):
		return wire.Errorf(wire.CodeQueryCanceled, "canceling statement due to statement timeout").WithDetail("%v", err).
			WithHint("SET statement_timeout = 0 lets it wait without a limit.")
	case errors.Is(context.Cause(ctx), errGone):
		return errGone
	}
	return errStopping
}

// allowed says whether the visitor may give the command, by the configuration
// in force now.
func (s *session) allowed(stmt *statement) error {
	has := s.c.rank(s.visit)
	switch {
	case has >= stmt.needs:
		return nil
	case has == nobody:
		return wire.Errorf(wire.CodeInsufficientPrivilege, "role \"%s\" may not use the console any more", s.visit.User).
			WithHint("Name the role in proxy.admin_users or proxy.stats_users of the configuration, and reload that.")
	}
	return wire.Errorf(wire.CodeInsufficientPrivilege, "permission denied for %s", stmt.text).
		WithDetail("The role \"%s\" is in proxy.stats_users: it may look.", s.visit.User).WithHint("A role in proxy.admin_users may change things.")
}
