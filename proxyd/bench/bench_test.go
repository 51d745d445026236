package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
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
	s, err := parseRun(report, tpsLine, 320) // 3.2 s of processor time
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
	if s, err := parseRun(older, tpsLine, 0); err != nil || s.tps != 20000.5 {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestParseRunRefuses(t *testing.T) {
	for name, out := range map[string]string{
		"failed transactions": strings.Replace(report, "failed transactions: 0", "failed transactions: 7", 1),
		"no rate":             strings.Replace(report, "tps =", "tqs =", 1),
		"nothing":             "",
	} {
		if s, err := parseRun(out, tpsLine, 0); err == nil {
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

func TestParseRunOfLogins(t *testing.T) {
	out := strings.Replace(report, "initial connection time = 12.345 ms\ntps = 20000.500000 (without initial connection time)",
		"average connection time = 0.5 ms\ntps = 1500.250000 (including reconnection times)", 1)
	if s, err := parseRun(out, reconnectLine, 0); err != nil || s.tps != 1500.25 {
		t.Errorf("got %+v, %v", s, err)
	}
	if s, err := parseRun(report, reconnectLine, 0); err == nil {
		t.Errorf("a report without logins: got %+v and no error", s)
	}
}

func TestParseLogLeavesTheFirstOut(t *testing.T) {
	got, err := parseLog(strings.NewReader("0 1 9000 0 1175850568 995598\n0 2 50 0 1175850568 995650\n0 3 70 0 1175850568 995720\n"))
	if err != nil || !slices.Equal(got, []float64{50, 70}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"0 1\n", "0 1 9 0 1 1\n0 2 x 0 1 1\n"} {
		if got, err := parseLog(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: got %v and no error", bad, got)
		}
	}
}

func TestPercentile(t *testing.T) {
	sorted := make([]float64, 1000)
	for i := range sorted {
		sorted[i] = float64(i)
	}
	for part, want := range map[float64]float64{0.5: 500, 0.99: 990, 0.999: 999, 1: 999} {
		if got := percentile(sorted, part); got != want {
			t.Errorf("%v: got %v, want %v", part, got, want)
		}
	}
}

func TestCPUIsThatOfTheWholeFamily(t *testing.T) {
	parents := map[int]int{1: 0, 10: 1, 11: 10, 12: 11, 20: 1}
	ticks := map[int]uint64{1: 1000, 10: 1, 11: 20, 12: 300, 20: 4000}
	got := family{}
	got.add(10, parents, ticks)
	if want := (family{10: 1, 11: 20, 12: 300}); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v: itself, its child and its grandchild", got, want)
	}
	if n, err := cpuTicks(os.Getpid()); err != nil {
		t.Errorf("of this process: %d, %v", n, err)
	}
	if _, err := cpuTicks(1 << 30); err == nil {
		t.Error("no error for a process that is not there")
	}
}

func TestMemoryOfThisProcess(t *testing.T) {
	if err := forgetPeak(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	now, err := memoryKB(os.Getpid(), resident)
	if err != nil || now < 1000 {
		t.Errorf("resident: %v kB, %v", now, err)
	}
	most, err := memoryKB(os.Getpid(), peak)
	if err != nil || most < 1000 {
		t.Errorf("peak: %v kB, %v", most, err)
	}
	if _, err := memoryKB(os.Getpid(), "VmNothing"); err == nil {
		t.Error("no error for a figure that is not there")
	}
	if kb, err := parseStatus("Name:\tx\nVmRSS:\t    1234 kB\n", resident); err != nil || kb != 1234 {
		t.Errorf("got %v, %v", kb, err)
	}
}

func TestTableComparesMediansWithTheFirst(t *testing.T) {
	got := selectTable([]result[sample]{
		{&target{name: "direct"}, []sample{{tps: 900}, {tps: 1000, latencyMS: 1}, {tps: 5000, latencyMS: 9}}},
		{&target{name: "proxyd", pid: 1}, []sample{{tps: 400, cpuUS: 10}, {tps: 600, cpuUS: 20}}},
	})
	want := "" +
		"          queries/s  of direct  latency ms  proxy CPU us/query\n" +
		"  direct       1000      100 %       1.000                   -\n" +
		"  proxyd        500       50 %       0.000                15.0\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestTransfersAreComparedWithHAProxy(t *testing.T) {
	got := carriedTable([]result[carried]{
		{&target{name: "direct"}, []carried{{mbs: 1000}}},
		{&target{name: "proxyd", pid: 1}, []carried{{mbs: 700, cpuMS: 400, peakMB: 30, grewMB: 1}}},
		{&target{name: "haproxy", pid: 2}, []carried{{mbs: 500, cpuMS: 500, peakMB: 20}}},
	})
	want := "" +
		"           MB/s  of direct  of haproxy  proxy CPU ms/GB  peak MB  grew MB\n" +
		"   direct  1000      100 %       200 %                -        -        -\n" +
		"   proxyd   700       70 %       140 %              400     30.0      1.0\n" +
		"  haproxy   500       50 %       100 %              500     20.0      0.0\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestRoundsBeginWithAnotherTargetEach: and each is made ready before it.
func TestRoundsBeginWithAnotherTargetEach(t *testing.T) {
	var order []string
	var targets []*target
	for _, name := range []string{"a", "b", "c"} {
		targets = append(targets, &target{name: name, ready: func(context.Context) error {
			order = append(order, "ready "+name)
			return nil
		}})
	}
	all, err := rounds(context.Background(), &bench{options: options{rounds: 2}}, "test", targets, func(_ context.Context, t *target) (sample, error) {
		order = append(order, t.name)
		return sample{tps: float64(len(order))}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"ready a", "a", "ready b", "b", "ready c", "c", "ready b", "b", "ready c", "c", "ready a", "a"}; !slices.Equal(order, want) {
		t.Errorf("got %v, want %v", order, want)
	}
	for i, r := range all {
		if r.target != targets[i] || len(r.samples) != 2 {
			t.Errorf("target %d: %+v", i, r)
		}
	}
}

func TestSettingsFindTheirTable(t *testing.T) {
	const before = "[proxy]\nport = 1\npool_mode = \"transaction\"\n\n[state]\ndirectory = \"/x\"\n"
	got := withSettings(before, []setting{{"proxy", "loops", "2"}, {"proxy", "port", "7"}, {"reads", "balance", "true"}, {"state", "events_kept", "9"}})
	const want = "[proxy]\nloops = 2\nport = 7\npool_mode = \"transaction\"\n\n[state]\nevents_kept = 9\ndirectory = \"/x\"\n\n[reads]\nbalance = true\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if again := withSettings(got, []setting{{"reads", "balance", "true"}}); again != want {
		t.Errorf("said once more it is\n%s", again)
	}
}

// TestStreamCountsData: rows and copied data count by their size, up to the
// message that is waited for, and an error of the server is an error.
func TestStreamCountsData(t *testing.T) {
	answer := func(messages ...pgproto3.BackendMessage) *stream {
		var all []byte
		for _, m := range messages {
			var err error
			if all, err = m.Encode(all); err != nil {
				t.Fatal(err)
			}
		}
		return &stream{from: bufio.NewReader(bytes.NewReader(all))}
	}
	row := &pgproto3.CopyData{Data: make([]byte, 1000)}
	s := answer(&pgproto3.CopyOutResponse{}, row, row, row, &pgproto3.CopyDone{}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
	if n, err := s.until(readyForQuery); err != nil || n != 3000 {
		t.Errorf("got %d bytes, %v; want 3000", n, err)
	}
	refused := answer(row, &pgproto3.ErrorResponse{Severity: "ERROR", Code: "53100", Message: "disk full"}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
	var pgErr *pgconn.PgError
	if _, err := refused.until(readyForQuery); !errors.As(err, &pgErr) || pgErr.Code != "53100" {
		t.Errorf("a refusal: got %v", err)
	}
	if _, err := answer(row).until(readyForQuery); !errors.Is(err, io.EOF) {
		t.Errorf("an answer that is cut off: got %v", err)
	}
}

// TestScramVerifier: the example of RFC 7677, section 3, whose password is
// "pencil": its server signs with the key that is in here.
func TestScramVerifier(t *testing.T) {
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	got, err := scramVerifier("pencil", salt)
	const want = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
	if err != nil || got != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}
