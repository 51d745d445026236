package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"

	"github.com/pgtandem/pgtandem/tui/batch"
	"github.com/pgtandem/pgtandem/tui/fixture"
)

// desk is where a person sits: a pseudo-terminal with an emulator behind it that
// answers what a terminal is asked and remembers what it shows.
type desk struct {
	t     *testing.T
	keys  *os.File
	emu   *vt.SafeEmulator
	ended chan error
	mu    sync.Mutex
	sent  bytes.Buffer
}

// Write takes what the terminal is sent.
func (x *desk) Write(b []byte) (int, error) {
	x.mu.Lock()
	x.sent.Write(b)
	x.mu.Unlock()
	return x.emu.Write(b)
}

// sit starts the console at a terminal.
func sit(t *testing.T, width, height int, args ...string) *desk {
	t.Helper()
	t.Setenv("TERM", "xterm-256color")
	return sitAt(t, width, height, args...)
}

// sitAt starts it at the terminal that TERM names.
func sitAt(t *testing.T, width, height int, args ...string) *desk {
	t.Helper()
	t.Setenv("LC_ALL", "C.UTF-8")
	keys, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(keys, &pty.Winsize{Rows: uint16(height), Cols: uint16(width)}); err != nil {
		t.Fatal(err)
	}
	x := &desk{t: t, keys: keys, emu: vt.NewSafeEmulator(width, height), ended: make(chan error, 1)}
	shown, answered := make(chan struct{}), make(chan struct{})
	go func() { defer close(shown); _, _ = io.Copy(x, keys) }()
	go func() { defer close(answered); _, _ = io.Copy(keys, x.emu) }()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c := console{in: tty, out: tty, err: tty}
		x.ended <- c.start(ctx, args)
	}()
	t.Cleanup(func() {
		_, _ = keys.WriteString("\x04") // the end of the input, should it still be read
		cancel()
		<-done
		_ = tty.Close() // the emulator then reads to the end
		<-shown
		_ = x.emu.InputPipe().(io.Closer).Close() // its own Close races with Read
		<-answered
		_ = keys.Close()
	})
	return x
}

const patience = 30 * time.Second // of a person, on a busy machine

func (x *desk) text() string { return ansi.Strip(x.emu.Render()) }

// until waits for the screen to show something, doing meanwhile what a person
// would repeat.
func (x *desk) until(what string, meanwhile func()) {
	x.t.Helper()
	x.waits("see "+what, meanwhile, func(text string) bool { return strings.Contains(text, what) })
}

func (x *desk) waits(to string, meanwhile func(), enough func(text string) bool) {
	x.t.Helper()
	for end := time.Now().Add(patience); !enough(x.text()); {
		if time.Now().After(end) {
			x.t.Fatalf("waited in vain to %s:\n%s", to, x.text())
		}
		if meanwhile != nil {
			meanwhile()
		}
		time.Sleep(30 * time.Millisecond)
	}
}

func (x *desk) sees(what ...string) {
	x.t.Helper()
	for _, w := range what {
		x.until(w, nil)
	}
}

func (x *desk) press(keys string) {
	x.t.Helper()
	if _, err := x.keys.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

// confirm types a name into a dialog that is deaf at first.
func (x *desk) confirm(name string) {
	x.t.Helper()
	x.until("this is not "+name, func() { x.press("x") })
	x.press("\x15") // ctrl+u
	x.sees("Type " + name + " to go ahead: _")
	x.press(name)
	x.sees("enter goes ahead")
	x.press("\r")
}

func (x *desk) leaves() {
	x.t.Helper()
	select {
	case err := <-x.ended:
		if err != nil {
			x.t.Errorf("left with exit code %d: %v", batch.ExitCode(err), err)
		}
	case <-time.After(patience):
		x.t.Fatalf("does not leave:\n%s", x.text())
	}
}

func TestAPersonPromotesAtATerminal(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	daemon, err := fixture.Serve(socket, fixture.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(daemon.Close)
	x := sit(t, 100, 30, "--socket", socket)
	x.sees("✓ PROTECTED", "READ-ONLY", "▌pgsql2")
	x.press("p")
	x.sees("read-only: W arms the console")
	x.press("W")
	x.sees("ARMED")
	x.press("p")
	x.sees("PROMOTE pgsql2", "acknowledged commits lost: 0")
	x.confirm("pgsql2")
	x.sees("RESULT", "DONE in 264 ms")
	if calls := strings.Join(daemon.Calls(), ","); strings.Count(calls, "/run") != 1 || strings.Contains(calls, ",") {
		t.Errorf("the daemon was asked for %s", calls)
	}
	x.until("NODES", func() { x.press("\x1b") })
	x.press("q")
	x.leaves()
}

func TestAConsoleOutlivesItsDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	serve := func() *fixture.Daemon {
		d, err := fixture.Serve(socket, fixture.Options{Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	first := serve()
	x := sit(t, 80, 24, "--socket", socket)
	x.sees("✓ PROTECTED", "LIVE")
	first.Close()
	x.sees("NO ANSWER from the daemon", "✓ was PROTECTED")
	second := serve()
	defer second.Close()
	x.sees("✓ PROTECTED", "LIVE")
	x.press("\x03") // ctrl+c
	x.leaves()
}

// TERM=dumb is a terminal that a screen reader, or an editor, reads as lines.
func TestADumbTerminalGetsLines(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	daemon, err := fixture.Serve(socket, fixture.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(daemon.Close)
	t.Setenv("TERM", "dumb")
	x := sitAt(t, 120, 90, "--socket", socket)
	x.sees("if pgsql1 dies now: pgsql2 is promoted", "pgtandem> ")
	x.press("events --limit 1\n")
	x.sees("proxy.hold_timeout is 30s now")
	x.press("promote pgsql2\n")
	x.sees("Type pgsql2 to promote pgsql2: ")
	x.press("\n")
	x.sees("nothing was changed (exit code 3)")
	x.press("promote pgsql2\n")
	x.waits("be asked again", nil, func(text string) bool { return strings.Count(text, "Type pgsql2 to promote pgsql2: ") == 2 })
	if calls := daemon.Calls(); len(calls) > 0 {
		t.Errorf("the daemon was asked for %v", calls)
	}
	x.press("pgsql2\n")
	x.sees("DONE promote pgsql2")
	x.press("frobnicate 'now\n")
	x.sees("the quote ' is not closed")
	x.press("frobnicate\n")
	x.sees(`unknown command "frobnicate"`, "(exit code 2)")
	x.press("quit\n")
	x.leaves()
	x.mu.Lock()
	defer x.mu.Unlock()
	if sent := x.sent.String(); strings.Contains(sent, "\x1b") || strings.IndexFunc(sent, func(r rune) bool { return r > '~' }) >= 0 {
		t.Errorf("it is sent what is no line: %q", sent)
	}
}

// The lines can come from a file, too, and end with it.
func TestAConsoleOfLinesEndsWithItsInput(t *testing.T) {
	code, out, msg := call(t, "nodes\n\npromote pgsql2\nevents --limit 1", "--lines", "--socket", made(t))
	if code != 0 || !strings.Contains(out, "proxy.hold_timeout is 30s now") || !strings.Contains(msg, "pass --confirm pgsql2") {
		t.Errorf("exit %d\n%s\n%s", code, out, msg)
	}
}

// Terminals that draw an ambiguous glyph two cells wide get ASCII.
func TestATerminalIsAskedHowWideItDraws(t *testing.T) {
	for _, c := range []struct {
		locale, answer string
		asked, unicode bool
	}{
		{"ja_JP.UTF-8", "\x1b[1;2R", true, true},
		{"ja_JP.UTF-8", "\x1b[1;3R", true, false},
		{"zh_CN.UTF-8", "typed ahead\x1b[24;3R", true, false},
		{"ko_KR.UTF-8", "", true, true}, // it does not say
		{"ko_KR.UTF-8", "\x1b[what", true, true},
		{"ja_JP.eucJP", "", false, false},
		{"en_US.UTF-8", "", false, true},
	} {
		keys, tty, err := pty.Open()
		if err != nil {
			t.Fatal(err)
		}
		heard := make(chan string, 1)
		go func() {
			var all []byte
			for b := make([]byte, 256); ; {
				n, err := keys.Read(b)
				if all = append(all, b[:n]...); err != nil {
					heard <- string(all)
					return
				}
				if strings.Contains(string(b[:n]), "[6n") {
					_, _ = keys.WriteString(c.answer)
				}
			}
		}()
		g := ornaments(tty, tty, func(string) string { return c.locale })
		_ = tty.Close()
		said := <-heard
		_ = keys.Close()
		if asked := strings.Contains(said, "\x1b[6n"); asked != c.asked || (g.H != "-") != c.unicode {
			t.Errorf("%s, answered %q: asked %v, Unicode %v", c.locale, c.answer, asked, g.H != "-")
		}
	}
}

func FuzzAnAnswerOfTheTerminal(f *testing.F) {
	for _, s := range []string{"\x1b[1;3R", "\x1b[;R", "\x1b[1;99999999999999999999R", "\x1b[1;2", "R\x1b[", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if column, _ := parseCursor(b); column < 0 || column > 99999 {
			t.Errorf("%q is column %d", b, column)
		}
	})
}
