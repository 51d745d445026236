package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// program writes a stand-in for bin/pgtandem. Its status claims the directory
// that it is given, and it does nothing else.
func program(t *testing.T, claims string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pgtandem")
	script := "#!/bin/sh\n[ \"$2\" = status ] && echo '{\"dir\": \"" + claims + "\", \"nodes\": [{\"name\": \"pgsql1\"}]}'\nexit 0\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestOnlyWhatWasMadeIsRemoved: whatever a lab says of its place, what lies
// there and beside it is nobody's to delete.
func TestOnlyWhatWasMadeIsRemoved(t *testing.T) {
	for _, given := range []bool{false, true} {
		around := t.TempDir()
		t.Setenv("TMPDIR", filepath.Join(around, "tmp"))
		precious := filepath.Join(around, "precious", "file")
		for _, dir := range []string{filepath.Join(around, "tmp"), filepath.Dir(precious), filepath.Join(around, "precious", "lab")} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		o := options{program: program(t, filepath.Join(around, "precious", "lab"))}
		if given {
			o.dir = filepath.Join(around, "precious", "lab")
		}
		l, err := startLab(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.stop(); err != nil {
			t.Fatal(err)
		}
		for _, kept := range []string{precious, filepath.Join(around, "precious", "lab"), filepath.Join(around, "tmp")} {
			if _, err := os.Stat(kept); err != nil {
				t.Errorf("with -dir given %v: %v", given, err)
			}
		}
		left, err := os.ReadDir(filepath.Join(around, "tmp"))
		if err != nil || len(left) != 0 {
			t.Errorf("with -dir given %v: left behind %v, %v", given, left, err)
		}
	}
}

const report = `pgbench (15.18 (Debian 15.18-0+deb12u1))
transaction type: <builtin: select only>
scaling factor: 10
query mode: simple
number of clients: 16
number of threads: 2
maximum number of tries: 1
duration: 10 s
number of transactions actually processed: 200000
number of failed transactions: 0 (0.000%)
latency average = 0.800 ms
initial connection time = 12.345 ms
tps = 20000.500000 (without initial connection time)
`

func TestParseRun(t *testing.T) {
	s, err := parseRun(report, 320) // 3.2 s of processor time
	if err != nil {
		t.Fatal(err)
	}
	if want := (sample{tps: 20000.5, latencyMS: 0.8, cpuUS: 16}); s != want {
		t.Errorf("got %+v, want %+v", s, want)
	}
}

func TestParseRunOfOlderPgbench(t *testing.T) {
	older := strings.Replace(report, "without initial connection time", "excluding connections establishing", 1)
	older = strings.Replace(older, "number of failed transactions: 0 (0.000%)\n", "", 1)
	if s, err := parseRun(older, 0); err != nil || s.tps != 20000.5 {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestParseRunRefuses(t *testing.T) {
	for name, out := range map[string]string{
		"failed transactions": strings.Replace(report, "failed transactions: 0", "failed transactions: 7", 1),
		"no rate":             strings.Replace(report, "tps =", "tqs =", 1),
		"nothing":             "",
	} {
		if s, err := parseRun(out, 0); err == nil {
			t.Errorf("%s: got %+v and no error", name, s)
		}
	}
}

func TestParseStat(t *testing.T) {
	parent, ticks, err := parseStat("4711 (a (name) with) parens) S 42 4711 4711 0 -1 4194560 1 0 0 0 300 20 0 0 20 0 9 0 100 0 0")
	if err != nil || parent != 42 || ticks != 320 {
		t.Errorf("got parent %d, ticks %d, %v; want 42, 320", parent, ticks, err)
	}
	for _, bad := range []string{"", "4711 (x) S", "4711 (x) S a 1 1 0 -1 0 1 0 0 0 3 2 0 0"} {
		if _, _, err := parseStat(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestCPUIsThatOfTheWholeFamily(t *testing.T) {
	parents := map[int]int{1: 0, 10: 1, 11: 10, 12: 11, 20: 1}
	ticks := map[int]uint64{1: 1000, 10: 1, 11: 20, 12: 300, 20: 4000}
	if got := sumBelow(10, parents, ticks); got != 321 {
		t.Errorf("got %d, want 321: itself, its child and its grandchild", got)
	}
	if n, err := cpuTicks(os.Getpid()); err != nil {
		t.Errorf("of this process: %d, %v", n, err)
	}
	if _, err := cpuTicks(1 << 30); err == nil {
		t.Error("no error for a process that is not there")
	}
}

func TestTableComparesMediansWithTheFirst(t *testing.T) {
	got := table([]*target{{name: "direct"}, {name: "proxyd", pid: 1}}, [][]sample{
		{{tps: 900}, {tps: 1000, latencyMS: 1}, {tps: 5000, latencyMS: 9}},
		{{tps: 400, cpuUS: 10}, {tps: 600, cpuUS: 20}},
	})
	want := "" +
		"          queries/s  of direct  latency ms  proxy CPU us/query\n" +
		"  direct       1000      100 %       1.000                   -\n" +
		"  proxyd        500       50 %       0.000                15.0\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
