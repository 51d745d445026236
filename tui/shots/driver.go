package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/x/ansi"
	"github.com/muesli/termenv"

	"github.com/pgtandem/pgtandem/proxyd/client"
	"github.com/pgtandem/pgtandem/tui/app"
	"github.com/pgtandem/pgtandem/tui/page"
	"github.com/pgtandem/pgtandem/tui/present"
)

// person plays the console: presses keys, waits for what should be seen.
type person struct {
	program       *tea.Program
	screen        *recorder
	ended         chan error
	width, height int
}

// recorder is the console with its latest picture kept.
type recorder struct {
	*app.Model
	mu   sync.Mutex
	view string
}

func (r *recorder) Update(m tea.Msg) (tea.Model, tea.Cmd) {
	_, cmd := r.Model.Update(m)
	return r, cmd
}

func (r *recorder) View() string {
	v := r.Model.View()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view = v
	return v
}

func (r *recorder) latest() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.view
}

// open starts the console on a socket.
func open(ctx context.Context, socket string, width, height int) *person {
	opt := app.Options{Daemon: client.New(socket), Now: time.Now, Theme: page.NewTheme(termenv.TrueColor, true, present.Unicode())}
	m := app.New(ctx, opt)
	p := &person{screen: &recorder{Model: m}, ended: make(chan error, 1), width: width, height: height}
	p.program = tea.NewProgram(p.screen, tea.WithContext(ctx), tea.WithInput(nil), tea.WithOutput(io.Discard), tea.WithoutSignalHandler())
	wait := m.Follow(ctx)
	go func() {
		_, err := p.program.Run()
		wait()
		p.ended <- err
	}()
	p.program.Send(tea.WindowSizeMsg{Width: width, Height: height})
	return p
}

// close waits for the console; its context must have ended.
func (p *person) close() error {
	err := <-p.ended
	if errors.Is(err, tea.ErrProgramKilled) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

var named = map[string]tea.KeyType{"enter": tea.KeyEnter, "esc": tea.KeyEsc, "up": tea.KeyUp, "down": tea.KeyDown, "left": tea.KeyLeft, "right": tea.KeyRight}

func (p *person) press(keys ...string) {
	for _, k := range keys {
		if t, ok := named[k]; ok {
			p.program.Send(tea.KeyMsg{Type: t})
			continue
		}
		p.program.Send(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune(k)})
	}
}

// see waits until the screen matches, and gives it.
func (p *person) see(ctx context.Context, limit time.Duration, pattern string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	re := regexp.MustCompile(pattern)
	for {
		v := p.screen.latest()
		if text := ansi.Strip(v); re.MatchString(text) && p.fits(text) {
			return v, nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("the console did not show %q within %s; it shows:\n%s", pattern, limit, ansi.Strip(p.screen.latest()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// fits says that the picture has the size that was asked for.
func (p *person) fits(text string) bool {
	lines := strings.Split(text, "\n")
	return len(lines) == p.height && ansi.StringWidth(lines[0]) == p.width
}

// pass lets time go by, so that charts have something to show.
func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

var asks = regexp.MustCompile(`Type (\S+) to go ahead`)

// typedWord is what a dialog wants typed.
func typedWord(view string) string {
	if m := asks.FindStringSubmatch(ansi.Strip(view)); m != nil {
		return m[1]
	}
	return ""
}
