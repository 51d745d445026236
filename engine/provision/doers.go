package provision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/plan"
)

type checkFunc func(ctx context.Context, n Node, h Host) (bool, string, error)
type doFunc func(ctx context.Context, n Node, h Host, progress func(string)) error

// doer finds the node of a step and hands it to two functions.
type doer struct {
	w     *World
	check checkFunc
	do    doFunc
}

func (d doer) find(s plan.Step) (Node, Host, error) {
	n, ok := d.w.Spec.node(s.Node)
	h := d.w.Hosts[s.Node]
	if !ok || h == nil {
		return n, h, fmt.Errorf("%w: node %q is not configured", execute.ErrRefused, s.Node)
	}
	return n, h, nil
}

func (d doer) Check(ctx context.Context, s plan.Step) (bool, string, error) {
	n, h, err := d.find(s)
	if err != nil {
		return false, "", err
	}
	return d.check(ctx, n, h)
}

func (d doer) Do(ctx context.Context, s plan.Step, progress func(string)) error {
	n, h, err := d.find(s)
	if err != nil || d.do == nil {
		return err
	}
	return d.do(ctx, n, h, progress)
}

// Doers gives the Doer of each kind.
func Doers(w *World) map[plan.Kind]execute.Doer {
	return map[plan.Kind]execute.Doer{
		Version:   doer{w, w.versionIs, nil},
		Init:      doer{w, w.initialised, w.initdb},
		Archive:   doer{w, w.archiveThere, w.makeArchive},
		Settings:  doer{w, w.settingsThere, w.writeSettings},
		Access:    doer{w, w.accessThere, w.writeAccess},
		Run:       doer{w, w.runs, w.run},
		Roles:     doer{w, w.rolesThere, w.makeRoles},
		Passwords: doer{w, w.passwordsThere, w.writePasswords},
		Copy:      doer{w, w.copied, w.copy},
		Standby:   doer{w, w.isStandby, w.makeStandby},
		Streams:   doer{w, w.streams, nil},
		Sync:      doer{w, w.isSync, w.turnSync},
		Sample:    doer{w, w.sampleThere, w.makeSample},
		CheckSync: doer{w, w.checkSync, nil},
		CheckCopy: doer{w, w.checkedCopy, w.checkCopy},
	}
}

// output runs a program on the host and wants exit code 0.
func output(ctx context.Context, h Host, stdin string, argv ...string) (string, error) {
	c := execute.Command{Argv: argv}
	if stdin != "" {
		c.Stdin = strings.NewReader(stdin)
	}
	r, err := h.Run(ctx, c)
	if err != nil {
		return "", fmt.Errorf("%s: %w", argv[0], err)
	}
	if r.Exit != 0 {
		return "", fmt.Errorf("%s: exit code %d: %s", argv[0], r.Exit, strings.TrimSpace(string(r.Stderr)))
	}
	return string(r.Stdout), nil
}

func (w *World) versionIs(ctx context.Context, n Node, h Host) (bool, string, error) {
	out, err := output(ctx, h, "", program(n, "postgres"), "--version")
	if err != nil {
		return false, "", fmt.Errorf("%w: PostgreSQL is not found on %s: install its server package, or set bin_directory: %w", execute.ErrRefused, n.ID, err)
	}
	out = strings.TrimSpace(out)
	fields := strings.Fields(strings.TrimPrefix(out, "postgres (PostgreSQL) "))
	if len(fields) == 0 {
		return false, out, fmt.Errorf("%w: %q is no version", execute.ErrRefused, out)
	}
	digits := fields[0]
	if i := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); i > 0 {
		digits = digits[:i]
	}
	major, err := strconv.Atoi(digits)
	if err != nil || major < 13 {
		return false, out, fmt.Errorf("%w: %s on %s: 13 or newer is needed, because primary_conninfo must be reloadable", execute.ErrRefused, out, n.ID)
	}
	return true, out, nil
}

func exists(ctx context.Context, h Host, p string) (bool, error) {
	_, err := h.ReadFile(ctx, p)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (w *World) initialised(ctx context.Context, n Node, h Host) (bool, string, error) {
	ok, err := exists(ctx, h, path.Join(n.DataDirectory, "PG_VERSION"))
	return ok, n.DataDirectory, err
}

// initdb makes the account that owns the server its superuser, who comes in
// over the server's own socket alone, as Debian has it. A password is not
// involved; the roles that have one are made afterwards.
func (w *World) initdb(ctx context.Context, n Node, h Host, _ func(string)) error {
	_, err := output(ctx, h, "", "sh", "-c", initdbScript, "sh", n.DataDirectory, program(n, "initdb"), "-U", w.local(n), "-E", "UTF8", "--locale=C.UTF-8",
		"--data-checksums", "--auth-local=peer", "--auth-host=scram-sha-256")
	return err
}

// initdbScript makes the data directory appear when it is whole: initdb writes
// PG_VERSION first of all, and goes on for a while when whoever asked for it is
// interrupted. The name is new each time, because an initdb that fails removes
// what it was told to fill.
const initdbScript = `
set -eu
data=$1; shift
mkdir -p -- "$(dirname -- "$data")"
rm -rf -- "$data".initdb.*
new=$(mktemp -d -- "$data.initdb.XXXXXX")
"$@" -D "$new"
mv -T -- "$new" "$data"
sync -- "$(dirname -- "$data")"
`

// local is the superuser that the operating system vouches for.
func (w *World) local(n Node) string {
	if n.OSUser != "" {
		return n.OSUser
	}
	return "postgres"
}

func (w *World) archiveThere(ctx context.Context, n Node, h Host) (bool, string, error) {
	out, err := h.Run(ctx, execute.Command{Argv: []string{"stat", "-c", "%a", n.Archive}})
	if err != nil {
		return false, "", err
	}
	mode := strings.TrimSpace(string(out.Stdout))
	return mode == "700", fmt.Sprintf("%s has mode %q", n.Archive, mode), nil
}

func (w *World) makeArchive(ctx context.Context, n Node, h Host, _ func(string)) error {
	if _, err := output(ctx, h, "", "mkdir", "-p", n.Archive); err != nil {
		return err
	}
	_, err := output(ctx, h, "", "chmod", "0700", n.Archive)
	return err
}

// withBlock puts a block into a file, in place of an earlier one. Without one
// it goes to the end of postgresql.conf, where the last entry wins, and to the
// beginning of pg_hba.conf, where the first does.
func withBlock(text, block string, first bool) string {
	return between(text, blockBegin, block, blockEnd, first)
}

func between(text, begin, block, end string, first bool) string {
	block = begin + "\n" + block + end + "\n"
	if i := strings.Index(text, begin+"\n"); i >= 0 {
		if j := strings.Index(text[i:], end+"\n"); j >= 0 {
			return text[:i] + block + text[i+j+len(end)+1:]
		}
	}
	if first {
		return block + text
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text + block
}

// three are the texts of postgresql.conf.sync and .async made from a base.
func (w *World) three(n Node, base string) (sync, async string) {
	names := "synchronous_standby_names = " + confQuote(w.Spec.syncNames(n.ID)) + "\n"
	s := w.Spec.settings(n)
	sync, async = withBlock(base, s+names, false), withBlock(base, s+"#"+names, false)
	if len(n.Extra) > 0 {
		extra := conf(n.Extra)
		sync, async = between(sync, extraBegin, extra, extraEnd, false), between(async, extraBegin, extra, extraEnd, false)
	}
	return sync, async
}

type confFiles struct{ current, sync, async []byte }

func (w *World) conf(ctx context.Context, n Node, h Host) (confFiles, error) {
	var f confFiles
	for name, to := range map[string]*[]byte{"postgresql.conf": &f.current, "postgresql.conf.sync": &f.sync, "postgresql.conf.async": &f.async} {
		b, err := h.ReadFile(ctx, path.Join(n.ConfigDirectory, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
		*to = b
	}
	return f, nil
}

func (w *World) settingsThere(ctx context.Context, n Node, h Host) (bool, string, error) {
	f, err := w.conf(ctx, n, h)
	if err != nil {
		return false, "", err
	}
	sync, async := w.three(n, string(f.current))
	one := bytes.Equal(f.current, f.sync) || bytes.Equal(f.current, f.async)
	return one && string(f.sync) == sync && string(f.async) == async, "three files", nil
}

// writeSettings keeps whichever of the two is in force in force; a node that
// has neither begins in async, because nobody streams from it yet.
func (w *World) writeSettings(ctx context.Context, n Node, h Host, _ func(string)) error {
	f, err := w.conf(ctx, n, h)
	if err != nil {
		return err
	}
	sync, async := w.three(n, string(f.current))
	current := async
	if len(f.sync) > 0 && bytes.Equal(f.current, f.sync) && n.ID == w.Spec.Primary {
		current = sync
	}
	for _, x := range []struct {
		name string
		old  []byte
		text string
	}{{"postgresql.conf.sync", f.sync, sync}, {"postgresql.conf.async", f.async, async}, {"postgresql.conf", f.current, current}} {
		if x.old != nil && string(x.old) == x.text {
			continue
		}
		if err := h.ReplaceFile(ctx, path.Join(n.ConfigDirectory, x.name), x.old, []byte(x.text)); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) accessThere(ctx context.Context, n Node, h Host) (bool, string, error) {
	b, err := h.ReadFile(ctx, path.Join(n.ConfigDirectory, "pg_hba.conf"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, "", err
	}
	return string(b) == withBlock(string(b), w.Spec.access(), true), "pg_hba.conf", nil
}

func (w *World) writeAccess(ctx context.Context, n Node, h Host, _ func(string)) error {
	p := path.Join(n.ConfigDirectory, "pg_hba.conf")
	b, err := h.ReadFile(ctx, p)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return h.ReplaceFile(ctx, p, b, []byte(withBlock(string(b), w.Spec.access(), true)))
}

// psql runs SQL as the operating system's user over the server's own socket,
// where no password is needed. The text goes in on standard input.
func (w *World) psql(ctx context.Context, n Node, h Host, sql string) (string, error) {
	b, err := h.ReadFile(ctx, path.Join(n.DataDirectory, "postmaster.pid"))
	if err != nil {
		return "", fmt.Errorf("find the socket of %s: %w", n.ID, err)
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) < 5 {
		return "", fmt.Errorf("%w: find the socket of %s: it has not started yet", execute.ErrRetry, n.ID)
	}
	// A cluster that somebody else made has a superuser of the account's name;
	// one that we made has the recovery role.
	var errs []error
	for _, user := range []string{n.OSUser, w.Spec.Recovery} {
		if user == "" {
			continue
		}
		out, err := output(ctx, h, sql, program(n, "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
			"-h", strings.TrimSpace(lines[4]), "-p", fmt.Sprint(n.Port), "-U", w.local(n), "-d", "postgres", "-f", "-")
		if err == nil {
			return out, nil
		}
		errs = append(errs, err)
		if n.OSUser == w.Spec.Recovery {
			break
		}
	}
	return "", errors.Join(errs...)
}

const pendingSQL = `SELECT (SELECT count(*) FROM pg_settings WHERE pending_restart) + (SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL AND error <> 'setting could not be applied');`

func (w *World) runs(ctx context.Context, n Node, h Host) (bool, string, error) {
	state, _, err := h.Postmaster(ctx)
	if err != nil || state != cluster.PostmasterRunning {
		return false, "postmaster " + string(state), err
	}
	out, err := w.psql(ctx, n, h, pendingSQL)
	if err != nil {
		return false, err.Error(), nil //nolint:nilerr // a server that starts does not answer yet
	}
	want := strings.TrimSpace(out)
	if want != "0" {
		return false, want + " settings wait for a restart or are wrong", nil
	}
	mode, err := w.psql(ctx, n, h, "SHOW archive_mode;")
	return err == nil && strings.TrimSpace(mode) == "on", "archive_mode " + strings.TrimSpace(mode), err
}

func (w *World) run(ctx context.Context, n Node, h Host, progress func(string)) error {
	state, _, err := h.Postmaster(ctx)
	if err != nil {
		return err
	}
	if state != cluster.PostmasterRunning {
		return h.Start(ctx)
	}
	if err := h.Reload(ctx); err != nil {
		return err
	}
	progress(fmt.Sprintf("restarting %s", n.ID))
	return h.Restart(ctx)
}

func (w *World) connect(ctx context.Context, n Node, database string) (*pgx.Conn, error) {
	c, err := w.Connect(ctx, n.Node, database)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", n.ID, err)
	}
	return c, nil
}

// ask reads one value over a connection of its own.
func (w *World) ask(ctx context.Context, n Node, database, query string, to any, args ...any) error {
	c, err := w.connect(ctx, n, database)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }()
	return c.QueryRow(ctx, query, args...).Scan(to)
}

// role is a login role as it should be.
type role struct {
	name  string
	right string // of CREATE ROLE
	has   string // what tells that it has the right
}

func (w *World) roles() []role {
	out := []role{
		{w.Spec.Recovery, "SUPERUSER", "rolsuper"},
		{w.Spec.Replication, "REPLICATION", "rolreplication OR rolsuper"},
	}
	seen := map[string]bool{w.Spec.Recovery: true, w.Spec.Replication: true}
	for _, m := range w.Spec.Monitors {
		if !seen[m] {
			seen[m] = true
			out = append(out, role{m, "IN ROLE pg_monitor", "rolsuper OR pg_has_role(oid, 'pg_monitor', 'member')"})
		}
	}
	return out
}

// rolesThere proves access and password by logging in, and compares the other
// roles' stored verifiers with their passwords.
func (w *World) rolesThere(ctx context.Context, n Node, _ Host) (bool, string, error) {
	c, err := w.connect(ctx, n, "postgres")
	if err != nil {
		return false, err.Error(), nil //nolint:nilerr // it is what the step is for
	}
	defer func() { _ = c.Close(ctx) }()
	for _, r := range w.roles() {
		password, err := w.Secret(r.name)
		if err != nil {
			return false, "", err
		}
		var stored string
		var right bool
		err = c.QueryRow(ctx, "SELECT coalesce(rolpassword, ''), rolcanlogin AND ("+r.has+") FROM pg_authid WHERE rolname = $1", r.name).Scan(&stored, &right)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return false, fmt.Sprintf("role %s is missing", r.name), nil
		case err != nil:
			return false, "", fmt.Errorf("look at role %s: %w", r.name, err)
		case !right:
			return false, fmt.Sprintf("role %s lacks %s", r.name, r.right), nil
		case !matches(stored, password):
			return false, fmt.Sprintf("role %s has another password", r.name), nil
		}
	}
	return true, "they may log in, with these passwords", nil
}

// makeRoles sends verifiers, so that no password is ever in a server's log.
func (w *World) makeRoles(ctx context.Context, n Node, h Host, _ func(string)) error {
	var b strings.Builder
	// A commit must not wait here for a standby that cannot log in yet.
	b.WriteString("SET synchronous_commit = local;\n")
	for _, r := range w.roles() {
		password, err := w.Secret(r.name)
		if err != nil {
			return err
		}
		v, err := verifier(password)
		if err != nil {
			return err
		}
		name := pgx.Identifier{r.name}.Sanitize()
		grant := "ALTER ROLE " + name + " " + r.right
		if member, ok := strings.CutPrefix(r.right, "IN ROLE "); ok {
			grant = "GRANT " + member + " TO " + name
		}
		fmt.Fprintf(&b, "SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = %s) AS missing \\gset\n\\if :missing\nCREATE ROLE %s;\n\\endif\nALTER ROLE %s LOGIN PASSWORD '%s';\n%s;\n",
			literal(r.name), name, name, v, grant)
	}
	_, err := w.psql(ctx, n, h, b.String())
	return err
}

func literal(v string) string { return "'" + strings.ReplaceAll(v, "'", "''") + "'" }
