package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
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
}

// sit starts the console at a terminal.
func sit(t *testing.T, width, height int, args ...string) *desk {
	t.Helper()
	t.Setenv("TERM", "xterm-256color")
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
	go func() { defer close(shown); _, _ = io.Copy(x.emu, keys) }()
	go func() { defer close(answered); _, _ = io.Copy(keys, x.emu) }()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c := console{in: tty, out: tty, err: tty}
		x.ended <- c.start(ctx, args)
	}()
	t.Cleanup(func() {
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
	for end := time.Now().Add(patience); !strings.Contains(x.text(), what); {
		if time.Now().After(end) {
			x.t.Fatalf("never showed %q, but\n%s", what, x.text())
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
	socket := made(t)
	t.Setenv("TERM", "dumb")
	keys, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	defer tty.Close()
	read := make(chan string)
	go func() {
		b := make([]byte, 1<<16)
		n, _ := io.ReadAtLeast(keys, b, len("main"))
		read <- string(b[:n])
	}()
	c := console{in: tty, out: tty, err: tty}
	if err := c.start(t.Context(), []string{"--socket", socket}); err != nil {
		t.Error(err)
	}
	if out := <-read; strings.Contains(out, "\x1b") || !strings.Contains(out, "main") {
		t.Errorf("it is sent %q", out)
	}
}
