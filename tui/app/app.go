// Package app is the interactive console: one Bubble Tea model that holds what
// the daemon told, shows a page of it, and leads a person through an action.
//
// It is read-only until it is armed. Exactly one place asks the daemon to
// change something (flow.fire), and it does so only for a plan, or the effects
// of maintenance, that was shown, armed, over a live connection, after the name
// was typed in full. The daemon
// owns what runs: a console that ends changes nothing. The package never
// decides what is safe; the daemon does.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/page"
	"github.com/pgtandem/pgtandem/tui/present"
)

// Daemon is the control socket as the console needs it.
type Daemon interface {
	Events(ctx context.Context, since uint64, limit int) ([]api.Event, error)
	Watch(ctx context.Context, since uint64, fn func(api.Message) error) error
	Plan(ctx context.Context, r api.PlanRequest) (api.Plan, error)
	Operation(ctx context.Context, id string, wait time.Duration) (api.Operation, error)
	Operations(ctx context.Context) ([]api.Operation, error)
	Drills(ctx context.Context) ([]api.DrillInfo, error)
	DrillReports(ctx context.Context) ([]api.DrillReport, error)
	SyncFiles(ctx context.Context) (api.SyncFiles, error)
	Run(ctx context.Context, planID, confirm string) (api.Operation, error)
	StartDrill(ctx context.Context, r api.DrillRequest) (api.Operation, error)
	Maintenance(ctx context.Context, r api.MaintenanceRequest) (api.State, error)
}

// Options of the console.
type Options struct {
	Daemon Daemon
	Socket string // as --batch lines name it; "" where it is the default
	Theme  page.Theme
	Now    func() time.Time
}

// Terminal finds out what a terminal can show.
func Terminal(out *os.File, g present.Glyphs) page.Theme {
	r := lipgloss.NewRenderer(out)
	return page.NewTheme(r.ColorProfile(), r.HasDarkBackground(), g)
}

// Run shows the console until the person leaves it.
func Run(ctx context.Context, opt Options, in io.Reader, out *os.File) error {
	ctx, cancel := context.WithCancel(ctx)
	m := New(ctx, opt)
	end := m.Follow(ctx)
	defer func() { cancel(); end() }()
	p := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(synchronised{out}), tea.WithAltScreen(), tea.WithoutSignalHandler())
	_, err := p.Run()
	switch {
	case err == nil, errors.Is(err, tea.ErrInterrupted):
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("the console broke down: %w", err)
}

// Follow begins to follow the daemon, until the context ends; the function it
// gives waits for that.
func (m *Model) Follow(ctx context.Context) (wait func()) {
	done := make(chan struct{})
	go func() { defer close(done); m.feed.run(ctx) }()
	return func() { <-done }
}

// synchronised brackets each frame, so that a terminal that knows mode 2026
// shows it at once. It stays a file, without which Bubble Tea could not learn
// the terminal's size.
type synchronised struct{ *os.File }

func (s synchronised) Write(b []byte) (int, error) {
	n := len(b)
	framed := make([]byte, 0, n+16)
	framed = append(framed, "\x1b[?2026h"...)
	framed = append(framed, b...)
	framed = append(framed, "\x1b[?2026l"...)
	if _, err := s.File.Write(framed); err != nil {
		return 0, err
	}
	return n, nil
}
