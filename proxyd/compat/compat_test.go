package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadingPgRegress(t *testing.T) {
	for name, said := range map[string]string{
		"up to 15": `(using postmaster on 127.0.0.1, port 5432)
============== running regression test queries        ==============
test test_setup                   ... ok         1470 ms
parallel group (2 tests):  boolean char
     boolean                      ... FAILED (test process exited with exit code 2)     3022 ms
     char                         ... ok          204 ms
test sanity                       ... failed (ignored)     12 ms
========================
 1 of 4 tests failed.
`,
		"since 16": `# using postmaster on 127.0.0.1, port 5432
ok 1         - test_setup                               1470 ms
# parallel group (2 tests):  boolean char
not ok 2     + boolean                                  3022 ms
ok 3         + char                                      204 ms
not ok 4     - sanity                                     12 ms
1..4
`,
	} {
		got := readRegress(said)
		want := outcomes{"test_setup": {verdict: pass}, "boolean": {verdict: fail}, "char": {verdict: pass}, "sanity": {verdict: fail}}
		if !maps.Equal(got, want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestOnlyATestsOwnDifferencesAreItsWords(t *testing.T) {
	dir := t.TempDir()
	text := `diff -U3 /a/expected/copy.out /b/results/copy.out
--- /a/expected/copy.out	2026-01-01
+++ /b/results/copy.out	2026-01-02
@@ -1 +1 @@
-yes
+no
diff -U3 /a/expected/copy2.out /b/results/copy2.out
--- /a/expected/copy2.out	2026-01-01
+++ /b/results/copy2.out	2026-01-02
@@ -7 +7 @@
+more
`
	if err := os.WriteFile(filepath.Join(dir, "regression.diffs"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := readDiff(dir, "copy"); got != "@@ -1 +1 @@\n-yes\n+no" {
		t.Errorf("%q", got)
	}
	if got := readDiff(dir, "boolean"); got != "" {
		t.Errorf("%q", got)
	}
}

func TestReadingGoTest(t *testing.T) {
	got, err := readTests([]byte(`go: downloading example.com/x v1.0.0
{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestA/sub"}
{"Action":"output","Package":"p","Test":"TestA/sub","Output":"no such row\n"}
{"Action":"fail","Package":"p","Test":"TestA/sub"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"run","Package":"p","Test":"TestC"}
{"Action":"output","Package":"p","Output":"panic: gone\n"}
{"Action":"fail","Package":"p"}
{"Action":"run","Package":"q","Test":"TestD/file=/tmp/TestD123456789/001"}
{"Action":"pass","Package":"q","Test":"TestD/file=/tmp/TestD123456789/001"}
{"Action":"pass","Package":"q"}
{"Action":"output","Package":"r","Output":"does not compile\n"}
{"Action":"fail","Package":"r"}
`))
	want := outcomes{"p TestA/sub": {fail, "no such row\n"}, "p TestA": {verdict: fail}, "p TestB": {verdict: skip},
		"p TestC": {verdict: cut}, "q TestD/file=/tmp/TestDN/001": {verdict: pass}, "r": {fail, "does not compile\n"}}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestWhatCountsAsADifference(t *testing.T) {
	direct := outcomes{"same": {verdict: pass}, "worse": {verdict: pass}, "alike": {fail, "x"}, "other": {fail, "x"}, "gone": {verdict: pass}, "skips": {verdict: pass}}
	proxied := outcomes{"same": {verdict: pass}, "worse": {fail, "why"}, "alike": {fail, "x"}, "other": {fail, "y"}, "skips": {verdict: skip}}
	c := compare("s", direct, proxied, true)
	var got []string
	for _, d := range c.differ {
		got = append(got, d.test+":"+string(d.direct)+":"+string(d.proxied))
	}
	if s := strings.Join(got, " "); s != "gone:pass:not run other:fail:fail skips:pass:skip worse:pass:fail" || strings.Join(c.alike, " ") != "alike" {
		t.Errorf("%s; alike %v", s, c.alike)
	}
	if c := compare("s", direct, proxied, false); strings.Join(c.alike, " ") != "alike other" {
		t.Errorf("where what is said changes each time: alike %v", c.alike)
	}

	// Repeated alone, one ends as it should; what did not run tells nothing.
	c.settle(outcomes{"worse": {verdict: pass}, "gone": {verdict: pass}}, outcomes{"worse": {verdict: pass}})
	if strings.Join(c.unsteady, " ") != "worse" || len(c.differ) != 3 {
		t.Errorf("unsteady %v, differ %v", c.unsteady, c.differ)
	}
}

func TestSourcePackagesComeFromWhereTheOthersDo(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"debian.sources", "Types: deb\nURIs: http://x\n\nTypes: deb deb-src\nURIs: http://y", "Types: deb deb-src\nURIs: http://x\n\nTypes: deb deb-src\nURIs: http://y"},
		{"sources.list", "# old\ndeb [signed-by=/k] http://x bookworm main", "# old\ndeb [signed-by=/k] http://x bookworm main\ndeb-src [signed-by=/k] http://x bookworm main"},
	} {
		if got := withSource(c.name, c.text); got != c.want {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

func TestOnlyTheTestsAreUnpacked(t *testing.T) {
	var archive bytes.Buffer
	zipped := gzip.NewWriter(&archive)
	files := tar.NewWriter(zipped)
	for _, name := range []string{"postgresql-15.1/src/backend/main.c", "postgresql-15.1/src/test/regress/sql/copy.sql", "postgresql-15.1/src/test/regress/../../../../out"} {
		if err := files.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 1, Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := files.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(files.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "to")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := untar(bufio.NewReader(&archive), dir, "src/test/regress/"); err == nil {
		t.Error("a file was written outside of the directory")
	}
	if _, err := os.Stat(filepath.Join(dir, "src", "test", "regress", "sql", "copy.sql")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "src", "backend")); err == nil {
		t.Error("more than the tests was unpacked")
	}
}
