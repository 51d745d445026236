package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// regressDatabase is what pg_regress makes for its tests, and isolationDatabase
// pg_isolation_regress.
const (
	regressDatabase   = "regression"
	isolationDatabase = "isolation_regression"
)

// suiteLimit bounds one run of a suite: one that hangs is an outcome too.
const suiteLimit = 40 * time.Minute

// layOut builds what PostgreSQL's tests need out of Debian's packages. The
// drivers of the tests come with the client package, the library that they
// load into the server has to be compiled.
func (b *bench) layOut(ctx context.Context) error {
	return b.once("PostgreSQL's tests", func() error {
		d, err := newDebian(ctx, b.bin, b.cache)
		if err != nil {
			return err
		}
		if err := d.fetch(ctx); err != nil {
			return err
		}
		if err := d.unpack(ctx, filepath.Join(b.dir, "postgresql")); err != nil {
			return err
		}
		return b.library(ctx, d)
	})
}

// library compiles regress.so and puts the server's own libraries beside it,
// as the tests look for all of them in one place.
func (b *bench) library(ctx context.Context, d *debian) error {
	root := filepath.Join(b.dir, "postgresql")
	lib := filepath.Join(root, "lib")
	if err := os.MkdirAll(lib, 0o755); err != nil {
		return fmt.Errorf("make a directory for the library: %w", err)
	}
	// PostgreSQL's own code needs the first two flags to be what it means.
	err := must(ctx, root, "cc", "-O2", "-fno-strict-aliasing", "-fwrapv", "-fPIC", "-shared",
		"-I", filepath.Join(root, "usr", "include", "postgresql", d.major, "server"),
		"-o", filepath.Join(lib, "regress.so"), filepath.Join(root, "src", "test", "regress", "regress.c"))
	if err != nil {
		return fmt.Errorf("compile the library of the tests: %w", err)
	}
	for _, name := range []string{"refint.so", "autoinc.so"} {
		if err := os.Symlink(filepath.Join(filepath.Dir(b.bin), "lib", name), filepath.Join(lib, name)); err != nil {
			return fmt.Errorf("link %s: %w", name, err)
		}
	}
	return nil
}

// driver finds one of the programs that run PostgreSQL's tests.
func (b *bench) driver(parts ...string) (string, error) {
	program := filepath.Join(append([]string{filepath.Dir(b.bin), "lib", "pgxs", "src", "test"}, parts...)...)
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("%w; it comes with Debian's postgresql-client package", err)
	}
	return program, nil
}

func runRegress(ctx context.Context, b *bench, e endpoint, report string) (outcomes, error) {
	program, err := b.driver("regress", "pg_regress")
	if err != nil {
		return nil, err
	}
	return b.pgRegress(ctx, e, report, program, "regress", "parallel_schedule", regressDatabase)
}

func runIsolation(ctx context.Context, b *bench, e endpoint, report string) (outcomes, error) {
	program, err := b.driver("isolation", "pg_isolation_regress")
	if err != nil {
		return nil, err
	}
	return b.pgRegress(ctx, e, report, program, "isolation", "isolation_schedule", isolationDatabase)
}

// pgRegress runs pg_regress or its sister on a schedule of theirs.
func (b *bench) pgRegress(ctx context.Context, e endpoint, report, program, tests, schedule, database string) (outcomes, error) {
	if err := b.layOut(ctx); err != nil {
		return nil, err
	}
	if err := b.sweep(ctx, database); err != nil {
		return nil, fmt.Errorf("remove what the last run left: %w", err)
	}
	input := filepath.Join(b.dir, "postgresql", "src", "test", tests)
	output, err := b.give("out", tests, filepath.Base(report))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, suiteLimit, fmt.Errorf("the suite was ended after %v", suiteLimit))
	defer cancel()
	said, err := command(ctx, output, e.environment(database), b.account, program,
		"--inputdir="+input, "--outputdir="+output, "--bindir="+b.bin, "--dlpath="+filepath.Join(b.dir, "postgresql", "lib"),
		fmt.Sprintf("--host=%s", e.host), fmt.Sprintf("--port=%d", e.port), "--user="+role, "--dbname="+database,
		"--schedule="+filepath.Join(input, schedule))
	if kerr := keep(output, report, said); kerr != nil {
		return nil, kerr
	}
	found := readRegress(string(said))
	if len(found) == 0 {
		return nil, fmt.Errorf("%s ran no test: %w\n%s", program, errors.Join(err, ctx.Err()), said)
	}
	for name, o := range found {
		if o.verdict == fail {
			o.said = readDiff(output, name)
			found[name] = o
		}
	}
	return found, nil
}

// sweep removes a database and what its tests have made beside it, so that
// both runs of a suite begin alike.
func (b *bench) sweep(ctx context.Context, database string) error {
	if err := b.on(ctx, "postgres", "DROP DATABASE IF EXISTS "+database+" WITH (FORCE)"); err != nil {
		return err
	}
	left, err := b.list(ctx, `SELECT format('DROP TABLESPACE %I', spcname) FROM pg_tablespace WHERE spcname LIKE 'regress%'
		UNION ALL SELECT format('DROP ROLE %I', rolname) FROM pg_roles WHERE rolname LIKE 'regress%'`)
	if err != nil {
		return err
	}
	return b.on(ctx, "postgres", left...)
}

// keep copies what a run wrote into the report.
func keep(output, report string, said []byte) error {
	if err := os.MkdirAll(report, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", report, err)
	}
	if err := os.WriteFile(filepath.Join(report, "output"), said, 0o644); err != nil {
		return fmt.Errorf("keep the output: %w", err)
	}
	if output == "" {
		return nil
	}
	if err := os.CopyFS(filepath.Join(report, "files"), os.DirFS(output)); err != nil {
		return fmt.Errorf("keep the results: %w", err)
	}
	return nil
}

// Lines of pg_regress: "test name ... ok 12 ms" up to PostgreSQL 15, and those
// of the Test Anything Protocol since.
var (
	oldLine = regexp.MustCompile(`^(?:test | {5})(\S+)\s+\.\.\. (ok|FAILED|failed \(ignored\))`)
	tapLine = regexp.MustCompile(`^(ok|not ok) \d+\s+[-+] (\S+)`)
)

// readRegress reads what pg_regress says.
func readRegress(said string) outcomes {
	out := make(outcomes)
	for line := range strings.SplitSeq(said, "\n") {
		name, ok := "", false
		if m := oldLine.FindStringSubmatch(line); m != nil {
			name, ok = m[1], m[2] == "ok"
		} else if m := tapLine.FindStringSubmatch(line); m != nil {
			name, ok = m[2], m[1] == "ok"
		} else {
			continue
		}
		out[name] = outcome{verdict: fail}
		if ok {
			out[name] = outcome{verdict: pass}
		}
	}
	return out
}

// readDiff gives the part of regression.diffs that is about a test, without
// the names and times of files.
func readDiff(output, test string) string {
	all, err := os.ReadFile(filepath.Join(output, "regression.diffs"))
	if err != nil {
		return ""
	}
	var out []string
	mine := false
	for line := range strings.SplitSeq(string(all), "\n") {
		switch {
		case strings.HasPrefix(line, "diff "):
			mine = strings.HasSuffix(line, "/"+test+".out")
		case strings.HasPrefix(line, "--- ") || strings.HasPrefix(line, "+++ "):
		case mine:
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}
