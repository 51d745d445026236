package config

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pmezard/go-difflib/difflib"
)

var update = flag.Bool("update", false, "write what is got as what is wanted; then read the difference")

// TestProblems holds, for each testdata/problems/NAME.toml, the complaints of
// NAME.want: file, line, key, what was found, what is allowed.
func TestProblems(t *testing.T) {
	pairs(t, "problems", func(t *testing.T, name string, data []byte) string {
		c, err := Parse(name, data)
		var ps Problems
		if !errors.As(err, &ps) {
			t.Fatalf("Parse gave %v, %v; want Problems", c, err)
		}
		for _, p := range ps {
			if p.File != name || p.Message == "" {
				t.Errorf("a problem without its place or its reason: %+v", p)
			}
		}
		for _, secret := range []string{"sesame", "12345678"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the secret %q is shown", secret)
			}
		}
		return err.Error() + "\n"
	})
}

// TestValid holds, for each testdata/valid/NAME.toml, the configuration in
// force as it is shown to people.
func TestValid(t *testing.T) {
	pairs(t, "valid", func(t *testing.T, name string, data []byte) string {
		c, err := Parse(name, data)
		if err != nil {
			t.Fatal(err)
		}
		return c.Redacted()
	})
}

// pairs runs f on every input of a folder and compares with what stands beside.
func pairs(t *testing.T, folder string, f func(t *testing.T, name string, data []byte) string) {
	t.Helper()
	inputs, err := filepath.Glob(filepath.Join("testdata", folder, "*.[tc]o[mn][lf]"))
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no input in testdata/%s: %v", folder, err)
	}
	for _, in := range inputs {
		name := filepath.Base(in)
		t.Run(strings.TrimSuffix(name, filepath.Ext(name)), func(t *testing.T) {
			data, err := os.ReadFile(in)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(in, filepath.Ext(in))+".want", f(t, name, data))
		})
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	diff, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: difflib.SplitLines(string(want)), B: difflib.SplitLines(got), FromFile: path, ToFile: "got", Context: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Errorf("differs; -update rewrites it:\n%s", diff)
}

func TestLoadSaysWhichFileIsMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pgtandem.toml")
	_, err := Load(path)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("Load gave %v; want fs.ErrNotExist with the path", err)
	}
}

func TestLoadRemembersItsPath(t *testing.T) {
	path := write(t, t.TempDir(), "pgtandem.toml", Example(), 0o600)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.Path != path {
		t.Errorf("Path is %q, want %q", c.Path, path)
	}
}

func TestFindConfig(t *testing.T) {
	t.Setenv(EnvPath, "")
	if got := FindConfig(); got != DefaultPath {
		t.Errorf("without %s: %q, want %q", EnvPath, got, DefaultPath)
	}
	t.Setenv(EnvPath, "/srv/pair.toml")
	if got := FindConfig(); got != "/srv/pair.toml" {
		t.Errorf("with %s: %q", EnvPath, got)
	}
}

// TestPositions covers what the scanner must step over to count lines right.
func TestPositions(t *testing.T) {
	text := strings.Join([]string{
		"# comment with [brackets] and \"quotes",     // 1
		"top = 'a # no comment'",                     // 2
		"[ proxy . client_tls ] # comment",           // 3
		"mode = \"a\\\"]b\"",                         // 4
		"cert_file = \"\"\"two",                      // 5
		"key_file = not_a_key",                       // 6
		"\"\"\"",                                     // 7
		"\"key_file\" = '''x = 1'''",                 // 8
		"[proxy]",                                    // 9
		"listen_addresses = [ 'a', # comment ]",      // 10
		"  'b' ]",                                    // 11
		"client_tls.other = { a = 1, b = [ 2, 3 ] }", // 12
		"[[node]]",                                   // 13
		"name = 1",                                   // 14
		"[[node]]",                                   // 15
		"name = 2",                                   // 16
	}, "\r\n")
	for path, want := range map[string]int{
		"top":                        2,
		"proxy.client_tls":           3,
		"proxy.client_tls.mode":      4,
		"proxy.client_tls.cert_file": 5,
		"proxy.client_tls.key_file":  8,
		"proxy.listen_addresses":     10,
		"proxy.client_tls.other":     12,
		"proxy.client_tls.other.b":   12,
		"proxy.port":                 9,
		"node[0].name":               14,
		"node[1]":                    15,
		"node[1].name":               16,
		"node[1].host":               15,
		"node":                       13,
		"absent.key":                 0,
	} {
		if got := locate(text).line(path); got != want {
			t.Errorf("%s is on line %d, want %d", path, got, want)
		}
	}
}

// FuzzParse holds that no text makes Parse panic, or complain without a place.
func FuzzParse(f *testing.F) {
	f.Add(Example())
	f.Add("[[node]]\nname = \"\"\"x")
	f.Add("[a\n=[{\"'")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("fuzz.toml", []byte(text))
		if err == nil {
			if _, err := Parse("again.toml", []byte(c.Redacted())); err != nil {
				t.Errorf("what is shown does not parse: %v", err)
			}
			return
		}
		var ps Problems
		if !errors.As(err, &ps) || len(ps) == 0 {
			t.Errorf("an error that is not Problems: %v", err)
		}
	})
}
