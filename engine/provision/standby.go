package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/clock"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/steps"
)

// passwords is the text of a node's password file (PostgreSQL docs, 34.16):
// for each peer the replication role, and the recovery role for pg_rewind.
func (w *World) passwords(n Node) (string, error) {
	var b strings.Builder
	esc := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
	for _, peer := range w.Spec.Nodes {
		if peer.ID == n.ID {
			continue
		}
		for _, r := range [][2]string{{"*", w.Spec.Replication}, {"postgres", w.Spec.Recovery}} {
			password, err := w.Secret(r[1])
			if err != nil {
				return "", err
			}
			if strings.ContainsAny(password, "\r\n") {
				return "", fmt.Errorf("%w: the password of role %s has a line break, which a password file cannot hold", execute.ErrRefused, r[1])
			}
			fmt.Fprintf(&b, "%s:%d:%s:%s:%s\n", esc.Replace(peer.Host), peer.Port, r[0], esc.Replace(r[1]), esc.Replace(password))
		}
	}
	return b.String(), nil
}

func (w *World) passwordsThere(ctx context.Context, n Node, h Host) (bool, string, error) {
	want, err := w.passwords(n)
	if err != nil {
		return false, "", err
	}
	b, err := h.ReadFile(ctx, n.PassFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, "", err
	}
	if string(b) != want {
		return false, n.PassFile + " is not as it should be", nil
	}
	out, err := h.Run(ctx, execute.Command{Argv: []string{"stat", "-L", "-c", "%a", n.PassFile}})
	if err != nil {
		return false, "", err
	}
	mode := strings.TrimSpace(string(out.Stdout))
	return mode == "600", fmt.Sprintf("%s has mode %s", n.PassFile, mode), nil
}

func (w *World) writePasswords(ctx context.Context, n Node, h Host, _ func(string)) error {
	text, err := w.passwords(n)
	if err != nil {
		return err
	}
	return h.WriteFile(ctx, n.PassFile, []byte(text), 0o600)
}

func (w *World) primary() Node { n, _ := w.Spec.node(w.Spec.Primary); return n }

// system reads a data directory's system identifier without a running server.
func (w *World) system(ctx context.Context, n Node, h Host) (string, error) {
	out, err := output(ctx, h, "", "env", "LC_ALL=C", program(n, "pg_controldata"), "-D", n.DataDirectory)
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(out, "\n") {
		if v, ok := strings.CutPrefix(line, "Database system identifier:"); ok {
			return strings.TrimSpace(v), nil
		}
	}
	return "", fmt.Errorf("read the system identifier of %s: pg_controldata does not tell it", n.ID)
}

func (w *World) copied(ctx context.Context, n Node, h Host) (bool, string, error) {
	ok, err := exists(ctx, h, path.Join(n.DataDirectory, "PG_VERSION"))
	if err != nil || !ok {
		return false, "no data directory yet", err
	}
	have, err := w.system(ctx, n, h)
	if err != nil {
		return false, "", err
	}
	want, err := w.system(ctx, w.primary(), w.Hosts[w.Spec.Primary])
	if err != nil {
		return false, "", err
	}
	if have != want {
		return false, have, fmt.Errorf("%w: %s on %s holds another database system (%s, the primary's is %s): move it away first if it is not needed",
			execute.ErrRefused, n.DataDirectory, n.ID, have, want)
	}
	return true, "system " + have, nil
}

func (w *World) copy(ctx context.Context, n Node, h Host, progress func(string)) error {
	return h.Clone(ctx, w.primary().Node, progress)
}

func (w *World) isStandby(ctx context.Context, n Node, h Host) (bool, string, error) {
	signal, err := exists(ctx, h, path.Join(n.DataDirectory, "standby.signal"))
	if err != nil || !signal {
		return false, "no standby.signal", err
	}
	b, err := h.ReadFile(ctx, path.Join(n.DataDirectory, "postgresql.auto.conf"))
	if err != nil {
		return false, "", err
	}
	p := w.primary()
	for _, line := range strings.Split(string(b), "\n") {
		if strings.HasPrefix(line, "primary_conninfo") && strings.Contains(line, p.Host) &&
			strings.Contains(line, fmt.Sprint(p.Port)) && strings.Contains(line, string(n.ID)) {
			return true, "standby.signal and primary_conninfo", nil
		}
	}
	return false, "primary_conninfo does not name the primary", nil
}

func (w *World) makeStandby(ctx context.Context, n Node, h Host, _ func(string)) error {
	state, _, err := h.Postmaster(ctx)
	if err != nil {
		return err
	}
	if state == cluster.PostmasterRunning {
		return fmt.Errorf("%w: %s runs and is no standby of %s: stop it, and rejoin it once the pair is up", execute.ErrRefused, n.ID, w.Spec.Primary)
	}
	slot := w.Spec.slot(n.ID)
	if slot != "" {
		err := w.unless(ctx, w.primary(), "postgres", "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)", slot,
			"SELECT pg_create_physical_replication_slot("+literal(slot)+", true)")
		if err != nil {
			return fmt.Errorf("make a replication slot for %s: %w", n.ID, err)
		}
	}
	if err := h.ConfigureStandby(ctx, w.primary().Node, slot); err != nil {
		return err
	}
	if w.Spec.SwapMethod == cluster.SwapFiles {
		return steps.AsyncByFiles(ctx, h, n.Node)
	}
	return nil
}

func (w *World) streams(ctx context.Context, n Node, _ Host) (bool, string, error) {
	var state string
	err := w.ask(ctx, w.primary(), "postgres", "SELECT coalesce(max(state), 'absent') FROM pg_stat_replication WHERE application_name = $1", &state, string(n.ID))
	return state == "streaming", state, err
}

func (w *World) isSync(ctx context.Context, n Node, h Host) (bool, string, error) {
	var names string
	if err := w.ask(ctx, n, "postgres", "SELECT current_setting('synchronous_standby_names')", &names); err != nil {
		return false, "", err
	}
	return names == w.Spec.syncNames(n.ID), fmt.Sprintf("%q", names), nil
}

func (w *World) turnSync(ctx context.Context, n Node, h Host, _ func(string)) error {
	c, err := w.connect(ctx, n, "postgres")
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }()
	if w.Spec.SwapMethod == cluster.SwapFiles {
		b, err := h.ReadFile(ctx, path.Join(n.ConfigDirectory, "postgresql.conf.sync"))
		if err != nil {
			return err
		}
		if err := h.WriteFile(ctx, path.Join(n.ConfigDirectory, "postgresql.conf"), b, 0o600); err != nil {
			return err
		}
	} else if _, err := c.Exec(ctx, "ALTER SYSTEM SET synchronous_standby_names = "+literal(w.Spec.syncNames(n.ID))); err != nil {
		return err
	}
	_, err = c.Exec(ctx, "SELECT pg_reload_conf()")
	return err
}

func (w *World) sampleThere(ctx context.Context, n Node, _ Host) (bool, string, error) {
	var there bool
	err := w.ask(ctx, n, "postgres", "SELECT EXISTS (SELECT FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE datname = $1 AND rolname = $2)",
		&there, w.Spec.Sample.Database, w.Spec.Sample.User)
	if err != nil || !there {
		return false, "no database " + w.Spec.Sample.Database, err
	}
	err = w.ask(ctx, n, w.Spec.Sample.Database, "SELECT to_regclass($1) IS NOT NULL", &there, "public."+w.Spec.Sample.Table)
	return there, "table " + w.Spec.Sample.Table, err
}

func (w *World) makeSample(ctx context.Context, n Node, _ Host, _ func(string)) error {
	s := w.Spec.Sample
	password, err := w.Secret(s.User)
	if err != nil {
		return err
	}
	v, err := verifier(password)
	if err != nil {
		return err
	}
	role, db, table := pgx.Identifier{s.User}.Sanitize(), pgx.Identifier{s.Database}.Sanitize(), pgx.Identifier{"public", s.Table}.Sanitize()
	if err := w.unless(ctx, n, "postgres", "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", s.User, "CREATE ROLE "+role+" LOGIN PASSWORD '"+v+"'"); err != nil {
		return err
	}
	if err := w.unless(ctx, n, "postgres", "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", s.Database,
		"CREATE DATABASE "+db+" OWNER "+role+" ENCODING 'UTF8' TEMPLATE template0"); err != nil {
		return err
	}
	return w.unless(ctx, n, s.Database, "SELECT to_regclass($1) IS NOT NULL", "public."+s.Table,
		"CREATE TABLE "+table+" (id integer not null primary key, value text); ALTER TABLE "+table+" OWNER TO "+role)
}

// unless runs a statement when a question is answered with no.
func (w *World) unless(ctx context.Context, n Node, database, question, arg, statement string) error {
	c, err := w.connect(ctx, n, database)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }()
	var there bool
	if err := c.QueryRow(ctx, question, arg).Scan(&there); err != nil || there {
		return err
	}
	if _, err := c.PgConn().Exec(ctx, statement).ReadAll(); err != nil {
		return fmt.Errorf("make the sample: %w", err)
	}
	return nil
}

func (w *World) checkSync(ctx context.Context, n Node, _ Host) (bool, string, error) {
	var count int
	err := w.ask(ctx, n, "postgres", "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')", &count)
	return count >= w.Spec.SyncK, fmt.Sprintf("%d in sync", count), err
}

// checkedCopy: where there is the recipe's example database, it is what must
// be seen; otherwise one is made for the check, every time, and none stays.
func (w *World) checkedCopy(ctx context.Context, n Node, _ Host) (bool, string, error) {
	if w.Spec.Sample != nil {
		return w.sees(ctx, n, w.Spec.Sample.Database, "public."+w.Spec.Sample.Table)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.copyChecked[n.ID], "it appeared, and pg_is_in_recovery() is true", nil
}

// sees says whether a table can be read on a standby that is in recovery.
func (w *World) sees(ctx context.Context, n Node, database, table string) (bool, string, error) {
	c, err := w.Connect(ctx, n.Node, database)
	if err != nil {
		return false, err.Error(), nil //nolint:nilerr // it has not arrived yet
	}
	defer func() { _ = c.Close(ctx) }()
	var there, recovery bool
	err = c.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL, pg_is_in_recovery()", table).Scan(&there, &recovery)
	return there && recovery, fmt.Sprintf("table %s in database %s: %v, in recovery: %v", table, database, there, recovery), err
}

// checkCopy makes a database with a table on the primary, waits until it can
// be read on the standby, and drops it.
func (w *World) checkCopy(ctx context.Context, n Node, _ Host, _ func(string)) error {
	if w.Spec.Sample != nil {
		return nil // it is on its way
	}
	name := fmt.Sprintf("pgtandem_check_%d", time.Now().UnixNano())
	db := pgx.Identifier{name}.Sanitize()
	c, err := w.connect(ctx, w.primary(), "postgres")
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }()
	if _, err := c.Exec(ctx, "CREATE DATABASE "+db); err != nil {
		return fmt.Errorf("make a database on %s: %w", w.Spec.Primary, err)
	}
	seen := w.seesCopy(ctx, n, name)
	_, err = c.Exec(ctx, "DROP DATABASE IF EXISTS "+db+" WITH (FORCE)")
	return errors.Join(seen, err)
}

func (w *World) seesCopy(ctx context.Context, n Node, name string) error {
	if err := w.unless(ctx, w.primary(), name, "SELECT to_regclass($1) IS NOT NULL", "public.seen", "CREATE TABLE public.seen (id integer)"); err != nil {
		return err
	}
	err := clock.Every(ctx, clock.System{}, 50*time.Millisecond, func() (bool, string, error) {
		return w.sees(ctx, n, name, "public.seen")
	})
	if err != nil {
		return fmt.Errorf("what %s has does not appear on %s: %w", w.Spec.Primary, n.ID, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.copyChecked == nil {
		w.copyChecked = map[cluster.NodeID]bool{}
	}
	w.copyChecked[n.ID] = true
	return nil
}
