package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"

	"github.com/pgtandem/pgtandem/tui/batch"
	"github.com/pgtandem/pgtandem/tui/fixture"
)

func TestCutBatch(t *testing.T) {
	for _, c := range []struct {
		args, before, after []string
		found               bool
	}{
		{[]string{"--batch", "status"}, nil, []string{"status"}, true},
		{[]string{"--socket", "/s", "--batch", "status", "--json"}, []string{"--socket", "/s"}, []string{"status", "--json"}, true},
		{[]string{"--batch"}, nil, nil, true},
		{[]string{"lab", "up", "--batch"}, nil, nil, false},
		{[]string{"version"}, nil, nil, false},
		{nil, nil, nil, false},
	} {
		before, after, found := cutBatch(c.args)
		if found != c.found || !slices.Equal(before, c.before) || !slices.Equal(after, c.after) {
			t.Errorf("%q: %q, %q, %v", c.args, before, after, found)
		}
	}
}

func TestGlobalFlagsStandAnywhereAroundBatch(t *testing.T) {
	var g globals
	args := []string{"events", "--socket=/a b", "--since", "4", "--json", "-f", "-", "--", "--socket", "x"}
	if err := g.take(&args); err != nil {
		t.Fatal(err)
	}
	if g.socket != "/a b" || !g.json || g.file != "-" || strings.Join(args, " ") != "events --since 4 -- --socket x" {
		t.Errorf("%+v, rest %q", g, args)
	}
	args = []string{"status", "--socket"}
	if err := g.take(&args); batch.ExitCode(err) != batch.ExitUsage {
		t.Errorf("a flag without its value: %v", err)
	}
}

func TestWhichSocket(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PGTANDEM_CONFIG", filepath.Join(dir, "missing.toml"))
	g := globals{socket: "/given"}
	if s, err := g.resolve(); s != "/given" || err != nil {
		t.Errorf("with --socket: %q, %v", s, err)
	}
	// A configuration that was asked for must be there and be right.
	g = globals{}
	if _, err := g.resolve(); batch.ExitCode(err) != batch.ExitUsage || !strings.Contains(err.Error(), "missing.toml") {
		t.Errorf("with a missing configuration: %v", err)
	}
	bad := filepath.Join(dir, "bad.toml")
	if err := os.WriteFile(bad, []byte("[proxy]\nprot = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g = globals{config: bad}
	if _, err := g.resolve(); batch.ExitCode(err) != batch.ExitUsage || !strings.Contains(err.Error(), "bad.toml:2") {
		t.Errorf("with a faulty configuration: %v", err)
	}
}

func TestGlyphsFollowTheLocale(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"LANG": "ja_JP.UTF-8"}, "✓"},
		{map[string]string{"LANG": "en_US.utf8"}, "✓"},
		{map[string]string{"LANG": "ja_JP.UTF-8", "LC_ALL": "C"}, "+"},
		{map[string]string{"LANG": "C", "LC_CTYPE": "C.UTF-8"}, "✓"},
		{map[string]string{"LANG": "ja_JP.eucJP"}, "+"},
		{nil, "+"},
	} {
		if got := glyphs(func(k string) string { return c.env[k] }).OK; got != c.want {
			t.Errorf("%v: %q, want %q", c.env, got, c.want)
		}
	}
}

// made starts the made-up daemon and gives its socket.
func made(t *testing.T) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	d, err := fixture.Serve(socket, fixture.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return socket
}

// files are the program's files, with what it wrote.
func files(t *testing.T) (c console, read func() (out, err string)) {
	t.Helper()
	dir := t.TempDir()
	create := func(name string) *os.File {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	c = console{in: create("in"), out: create("out"), err: create("err")}
	return c, func() (string, string) {
		out, err1 := os.ReadFile(c.out.Name())
		msg, err2 := os.ReadFile(c.err.Name())
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		return string(out), string(msg)
	}
}

func TestTheProgram(t *testing.T) {
	socket := made(t)
	script := filepath.Join(t.TempDir(), "night.pgt")
	if err := os.WriteFile(script, []byte("nodes\npromote pgsql9 --confirm pgsql9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args     []string
		code     int
		out, msg string
	}{
		{[]string{"--socket", socket}, 0, "if pgsql1 dies now", "pgtandem --batch COMMAND"},
		{[]string{"--socket", socket, "--batch", "status"}, 0, "if pgsql1 dies now", ""},
		{[]string{"--batch", "status", "--socket", socket, "--json"}, 0, `"primary": "pgsql1"`, ""},
		{[]string{"--batch", "plan promote pgsql2", "--socket", socket}, 0, "PROMOTE pgsql2", ""},
		{[]string{"--batch", "-f", script, "--socket", socket}, 2, "NODE", ""},
		{[]string{"--batch", "-f", script + "x"}, 2, "", ""},
		{[]string{"--batch", "-f", script, "status"}, 2, "", ""},
		{[]string{"status", "--batch"}, 2, "", ""},
		{[]string{"status"}, 2, "", ""},
		{[]string{"--frobnicate"}, 2, "", ""},
		{[]string{"--json"}, 2, "", ""},
		{[]string{"version"}, 0, "pgtandem devel", ""},
		{[]string{"--version"}, 0, "devel", ""},
		{[]string{"help", "exit-codes"}, 0, "outcome unknown", ""},
		{[]string{"--socket", socket + "x", "--batch", "status"}, 7, "", ""},
		{[]string{"--socket", socket + "x"}, 7, "", ""},
		{[]string{"lab", "up", "--nodes", "7"}, 2, "", ""},
		{[]string{"lab", "up", "--nodes"}, 2, "", ""},
		{[]string{"lab", "up", "--swap-method", "rsync"}, 2, "", ""},
		{[]string{"lab", "up", "--pool-mode", "statement"}, 2, "", ""},
		{[]string{"lab", "up", "--size", "2"}, 2, "", ""},
		{[]string{"lab", "up", "now"}, 2, "", ""},
		{[]string{"lab", "raze"}, 2, "", ""},
		{[]string{"lab", "destroy", "--dir", ""}, 2, "", ""},
		{[]string{"lab", "status", "--dir="}, 2, "", ""},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			program, read := files(t)
			err := program.start(t.Context(), c.args)
			out, msg := read()
			if batch.ExitCode(err) != c.code || !strings.Contains(out, c.out) || !strings.Contains(msg, c.msg) {
				t.Errorf("exit %d (%v), want %d\nstdout:\n%s\nstderr:\n%s", batch.ExitCode(err), err, c.code, out, msg)
			}
		})
	}
}

// terminal is a real one, of which a person sees the screen.
type terminal struct {
	t             *testing.T
	master        *os.File
	width, height int
	mu            sync.Mutex
	raw           []byte
}

// Questions to a terminal: its background, and where its cursor is.
var (
	askBackground = []byte("\x1b]11;?\x1b\\")
	askCursor     = []byte("\x1b[6n")
)

func newTerminal(t *testing.T, width, height int) (term *terminal, tty *os.File) {
	t.Helper()
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(master, &pty.Winsize{Cols: uint16(width), Rows: uint16(height)}); err != nil {
		t.Fatal(err)
	}
	term = &terminal{t: t, master: master, width: width, height: height}
	read := make(chan struct{})
	go func() { defer close(read); term.read() }()
	t.Cleanup(func() { _ = tty.Close(); _ = master.Close(); <-read })
	return term, tty
}

// read takes what is shown, and answers as a terminal that tells where its
// cursor is and nothing else.
func (x *terminal) read() {
	b := make([]byte, 32<<10)
	for {
		n, err := x.master.Read(b)
		if err != nil {
			return
		}
		if bytes.Contains(b[:n], askCursor) {
			_, _ = x.master.WriteString("\x1b[1;1R")
		}
		x.mu.Lock()
		x.raw = append(x.raw, b[:n]...)
		x.mu.Unlock()
	}
}

// written is all that the terminal was sent.
func (x *terminal) written() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return string(x.raw)
}

// screen is what a person sees after all that.
func (x *terminal) screen() string {
	e := vt.NewEmulator(x.width, x.height)
	raw := bytes.ReplaceAll([]byte(x.written()), askCursor, nil)
	_, _ = e.Write(bytes.ReplaceAll(raw, askBackground, nil))
	return e.String()
}

func (x *terminal) sees(what string) {
	x.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		if strings.Contains(x.screen(), what) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	x.t.Fatalf("never saw %q; the screen shows:\n%s", what, x.screen())
}

func (x *terminal) types(s string) {
	x.t.Helper()
	if _, err := x.master.WriteString(s); err != nil {
		x.t.Fatal(err)
	}
}

func TestTheConsoleOnATerminal(t *testing.T) {
	t.Setenv("TERM", "xterm-256color")
	t.Setenv("LC_ALL", "C.UTF-8")
	t.Setenv("NO_COLOR", "1")
	socket := made(t)
	term, tty := newTerminal(t, 80, 24)
	program := console{in: tty, out: tty, err: tty}
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { ended <- program.start(ctx, []string{"--socket", socket}) }()
	term.sees("if pgsql1 dies now")
	term.types("p")
	term.sees("read-only: W arms")
	term.types("5")
	term.sees("OPERATIONS")
	term.types("q")
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	for _, code := range []string{"\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h", "\x1b[?2026h"} {
		// What was written last may still be on its way.
		for end := time.Now().Add(30 * time.Second); !strings.Contains(term.written(), code); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the terminal never got %q", code)
			}
		}
	}
}
