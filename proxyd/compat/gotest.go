package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// driver is the test suite of a driver that is written in Go. The module's
// own archive holds its tests.
type driver struct {
	name     string
	module   string
	version  string // "" for the one that this repository itself depends on
	database string
	only     string // -run, "" for all
	serial   bool   // its parallel tests take turns
	setUp    func(context.Context, *bench, string) error
	env      func(*bench, endpoint) []string
}

const (
	pgxDatabase = "pgx_test"
	pqDatabase  = "pqgo"
	pqRole      = "pqgo"
)

var (
	pgxSuite = driver{name: "pgx", module: "github.com/jackc/pgx/v5", database: pgxDatabase, setUp: setUpPgx, env: pgxEnvironment}

	// The tests that pgx itself has for poolers that give a server back after
	// each transaction.
	pgxPoolSuite = driver{name: "pgx-pool", module: "github.com/jackc/pgx/v5", database: pgxDatabase, setUp: setUpPgx,
		only: "^(TestPgbouncer.*|TestConnContextCanceledCancelsRunningQueryOnServer)$",
		env: func(b *bench, e endpoint) []string {
			return append(pgxEnvironment(b, e), "PGX_TEST_PGBOUNCER_CONN_STRING="+e.dsn(pgxDatabase))
		}}

	// Its examples want a server on port 5432, and its tests have 100 ms to log
	// in, which is little for all of them at one time.
	pqSuite = driver{name: "pq", only: "^Test", serial: true, module: "github.com/lib/pq", version: "v1.12.3", database: pqDatabase,
		setUp: setUpPq, env: pqEnvironment}
)

func pgxEnvironment(_ *bench, e endpoint) []string {
	own := e.dsn(pgxDatabase)
	return []string{"PGX_TEST_DATABASE=" + own, "PGX_TEST_TCP_CONN_STRING=" + own,
		"PGX_TEST_SCRAM_PASSWORD_CONN_STRING=" + e.dsnOf("pgx_scram", "secret", pgxDatabase)}
}

// setUpPgx runs the script that pgx has for it.
func setUpPgx(ctx context.Context, b *bench, dir string) error {
	if err := b.on(ctx, "postgres", "CREATE DATABASE "+pgxDatabase); err != nil {
		return err
	}
	out, err := command(ctx, dir, b.primary.environment(pgxDatabase), nil, filepath.Join(b.bin, "psql"),
		"-X", "-v", "ON_ERROR_STOP=1", "-f", filepath.Join("testsetup", "postgresql_setup.sql"))
	if err != nil {
		return fmt.Errorf("run the suite's own script: %w\n%s", err, out)
	}
	return nil
}

// setUpPq makes the roles that pq's own tests expect, which are those of its
// containers but for what a password must do here.
func setUpPq(ctx context.Context, b *bench, _ string) error {
	secret := b.primary.password
	if err := os.WriteFile(b.passwords(), []byte("*:*:*:"+pqRole+":"+secret+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the file of passwords: %w", err)
	}
	return b.on(ctx, "postgres", "CREATE ROLE "+pqRole+" SUPERUSER LOGIN PASSWORD '"+secret+"'", "CREATE DATABASE "+pqDatabase+" OWNER "+pqRole,
		"CREATE ROLE pqgoscram LOGIN PASSWORD 'wordpass'", "CREATE ROLE pqgopassword LOGIN PASSWORD 'wordpass'",
		"SET password_encryption = 'md5'", "CREATE ROLE pqgomd5 LOGIN PASSWORD 'wordpass'", "CREATE ROLE pqgossl LOGIN", "CREATE ROLE pqgosslcert LOGIN")
}

// pqEnvironment gives no password: its tests of passwords would take it for
// theirs.
func pqEnvironment(b *bench, _ endpoint) []string {
	return []string{"PGUSER=" + pqRole, "PGPASSFILE=" + b.passwords(), "PGHOST=localhost"}
}

func (b *bench) passwords() string { return filepath.Join(b.dir, "passwords") }

// layOut copies the module to where its tests may write: always the same
// place, so that go need not compile it for each run.
func (d driver) layOut(ctx context.Context, b *bench) (dir string, err error) {
	source, err := d.fetch(ctx)
	if err != nil {
		return "", err
	}
	dir = filepath.Join(b.cache, "modules", filepath.Base(source))
	return dir, b.once(d.name, func() error {
		if _, err := os.Stat(dir); err != nil {
			if err := copyWritable(dir, source); err != nil {
				return fmt.Errorf("copy the module: %w", err)
			}
		}
		return d.setUp(ctx, b, dir)
	})
}

// fetch has go put the module into its cache.
func (d driver) fetch(ctx context.Context) (dir string, err error) {
	version := d.version
	if version == "" {
		out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", d.module).Output()
		if err != nil {
			return "", fmt.Errorf("find the version of %s: %w", d.module, err)
		}
		version = strings.TrimSpace(string(out))
	}
	var got struct{ Dir, Error string }
	out, err := exec.CommandContext(ctx, "go", "mod", "download", "-json", d.module+"@"+version).Output()
	if jerr := json.Unmarshal(out, &got); jerr != nil || got.Dir == "" {
		return "", fmt.Errorf("fetch %s@%s: %s%w", d.module, version, got.Error, errors.Join(err, jerr))
	}
	return got.Dir, nil
}

// copyWritable copies a module out of go's cache, which is read-only. It is
// there as a whole or not at all.
func copyWritable(to, from string) error {
	part := to + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	if err := os.CopyFS(part, os.DirFS(from)); err != nil {
		return err
	}
	err := filepath.WalkDir(part, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		return os.Chmod(path, info.Mode().Perm()|0o200)
	})
	if err != nil {
		return err
	}
	return os.Rename(part, to)
}

func (d driver) run(ctx context.Context, b *bench, e endpoint, report string) (outcomes, error) {
	for attempt := 1; ; attempt++ {
		said, err := d.test(ctx, b, e, d.only, "./...")
		if err != nil {
			return nil, err
		}
		if err := keep("", report, said); err != nil {
			return nil, err
		}
		found, err := readTests(said)
		if err != nil || found.count(cut) == 0 || attempt == attempts {
			return found, err
		}
		progress("%s: a test has ended the others' process; once more", d.name)
	}
}

// attempts at a whole suite, where a test takes others with it: what did not
// run cannot be compared.
const attempts = 3

// again repeats tests of the names that readTests gives.
func (d driver) again(ctx context.Context, b *bench, e endpoint, tests []string) (outcomes, error) {
	byPackage := make(map[string][]string)
	for _, t := range tests {
		pkg, name, _ := strings.Cut(t, " ")
		top, _, _ := strings.Cut(name, "/")
		if name != "" && !slices.Contains(byPackage[pkg], regexp.QuoteMeta(top)) {
			byPackage[pkg] = append(byPackage[pkg], regexp.QuoteMeta(top))
		}
	}
	all := make(outcomes)
	for pkg, names := range byPackage {
		said, err := d.test(ctx, b, e, "^("+strings.Join(names, "|")+")$", pkg)
		if err != nil {
			return nil, err
		}
		found, err := readTests(said)
		if err != nil {
			return nil, err
		}
		for t, o := range found {
			all[t] = o
		}
	}
	return all, nil
}

// test runs go test in the copy. Its packages share a database, so they take
// turns.
func (d driver) test(ctx context.Context, b *bench, e endpoint, run, packages string) ([]byte, error) {
	dir, err := d.layOut(ctx, b)
	if err != nil {
		return nil, err
	}
	args := []string{"test", "-json", "-vet=off", "-count=1", "-p=1", "-timeout=15m"}
	if run != "" {
		args = append(args, "-run="+run)
	}
	if d.serial {
		args = append(args, "-parallel=1")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, suiteLimit, fmt.Errorf("the suite was ended after %v", suiteLimit))
	defer cancel()
	said, err := command(ctx, dir, e.environment(d.database, d.env(b, e)...), nil, "go", append(args, packages)...)
	if err != nil && !bytes.Contains(said, []byte(`"Action"`)) {
		return nil, fmt.Errorf("go test of %s: %w\n%s", d.name, err, said)
	}
	return said, nil
}

// event is a line of go test -json.
type event struct {
	Action, Package, Test, Output string
}

// numbered is what makes a name another one each time: a test that names its
// parts by temporary files.
var numbered = regexp.MustCompile(`[0-9]{6,}`)

// readTests reads what go test -json says. A test is named by its package and
// itself. A package counts where it fails and no test of it does.
func readTests(said []byte) (outcomes, error) {
	out := make(outcomes)
	words := make(map[string]*strings.Builder)
	for line := range bytes.Lines(said) {
		if !bytes.HasPrefix(line, []byte("{")) {
			continue // what go itself says to standard error
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("read the output of go test: %w", err)
		}
		name := strings.TrimSpace(e.Package + " " + numbered.ReplaceAllString(e.Test, "N"))
		switch e.Action {
		case "run":
			out[name] = outcome{verdict: cut}
		case "output":
			if words[name] == nil {
				words[name] = new(strings.Builder)
			}
			words[name].WriteString(e.Output)
		case "pass", "fail", "skip":
			if e.Test != "" || e.Action == "fail" {
				out[name] = outcome{verdict: verdict(e.Action)}
			}
		}
	}
	for name, o := range out {
		pkg, test, _ := strings.Cut(name, " ")
		if test != "" && (o.verdict == fail || o.verdict == cut) {
			delete(out, pkg)
		}
		if w := words[name]; w != nil && o.verdict == fail {
			o.said = w.String()
			out[name] = o
		}
	}
	return out, nil
}
