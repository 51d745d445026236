package app

import (
	"slices"
	"strconv"
	"time"

	"github.com/charmbracelet/bubbles/key"
	tea "github.com/charmbracelet/bubbletea"

	"github.com/pgtandem/pgtandem/tui/page"
)

func bind(help, show string, keys ...string) key.Binding {
	return key.NewBinding(key.WithKeys(keys...), key.WithHelp(show, help))
}

// The keys that every screen has.
var (
	keyScreen = bind("a screen", "1-6", "1", "2", "3", "4", "5", "6")
	keyWhy    = bind("why: rule, nodes, what would happen, policies", "w", "w")
	keyNext   = bind("the next screen", "tab", "tab")
	keyPrev   = bind("the screen before", "shift+tab", "shift+tab")
	keyArm    = bind("arm for 10 minutes, or disarm", "W", "W")
	keyBatch  = bind("this as a --batch line", "y", "y")
	keyReload = bind("read again", "ctrl+r", "ctrl+r")
	keyHelp   = bind("help", "?", "?")
	keyQuit   = bind("quit", "q", "q", "ctrl+c")
)

func everywhere() []key.Binding {
	return []key.Binding{keyScreen, keyNext, keyPrev, keyWhy, keyArm, keyBatch, keyReload, keyHelp, keyQuit}
}

// inDialog are the keys of a flow, for the help; flowKey and confirmKey act on
// them.
func inDialog() []key.Binding {
	return []key.Binding{
		bind("confirm, once the name is typed in full", "enter", "enter"),
		bind("leave; nothing is changed, or the daemon goes on", "esc", "esc"),
		bind("scroll the steps", "↑ ↓", "up", "down"),
		bind("empty what was typed", "ctrl+u", "ctrl+u"),
	}
}

// key takes a key of the terminal. What was typed fast arrives as one message
// of several characters; what was pasted is never taken for keys.
func (m *Model) key(msg tea.KeyMsg) tea.Cmd {
	if msg.Paste {
		m.say("pasting is off: type it")
		return nil
	}
	if msg.Type != tea.KeyRunes || len(msg.Runes) < 2 || msg.Alt {
		return m.press(msg.String())
	}
	var cmds []tea.Cmd
	for _, r := range msg.Runes {
		cmds = append(cmds, m.press(string(r)))
	}
	return tea.Batch(cmds...)
}

func (m *Model) press(pressed string) tea.Cmd {
	again := pressed == m.lastKey && m.facts.Now.Sub(m.lastKeyAt) < repeatWithin
	m.lastKey, m.lastKeyAt = pressed, m.facts.Now
	if !again {
		m.message = ""
	}
	switch {
	case pressed == "ctrl+c":
		return tea.Quit
	case m.help:
		m.helpKey(pressed)
		return nil
	case m.flow != nil:
		return m.flowKey(pressed)
	case m.batch:
		m.batch = false
		return nil
	case m.page().Capturing():
		return m.wish(m.page().Update(pressed, &m.facts))
	}
	return m.screenKey(pressed, again)
}

func (m *Model) screenKey(pressed string, again bool) tea.Cmd {
	is := func(b key.Binding) bool { return slices.Contains(b.Keys(), pressed) }
	switch {
	case is(keyQuit):
		return tea.Quit
	case is(keyHelp):
		m.help, m.helpTop = true, 0
	case is(keyBatch):
		m.batch = true
	case is(keyArm):
		if !again { // held down it would flicker between the two
			m.arm()
		}
	case is(keyScreen):
		n, _ := strconv.Atoi(pressed)
		return m.show(n - 1)
	case is(keyNext):
		return m.show((m.at + 1) % len(m.pages))
	case is(keyPrev):
		return m.show((m.at + len(m.pages) - 1) % len(m.pages))
	case is(keyWhy):
		return m.show(slices.IndexFunc(m.pages, func(p page.Page) bool { _, ok := p.(*page.Why); return ok }))
	case is(keyReload):
		return m.fetch(true)
	default:
		return m.wish(m.page().Update(pressed, &m.facts))
	}
	return nil
}

func (m *Model) show(at int) tea.Cmd {
	m.at = at
	return m.fetch(false)
}

func (m *Model) arm() {
	if !m.armedUntil.IsZero() {
		m.armedUntil, m.facts.Armed = time.Time{}, false
		m.say("read-only again")
		return
	}
	if !m.facts.Known || !m.link.live {
		m.say("the daemon does not answer: actions are off")
		return
	}
	m.armedUntil, m.facts.Armed = m.facts.Now.Add(armedFor), true
	m.say("armed for 10 minutes: actions still show their plan and ask for a name")
}

func (m *Model) helpKey(pressed string) {
	switch pressed {
	case "down", "j":
		m.helpTop++
	case "up", "k":
		m.helpTop = max(0, m.helpTop-1)
	default:
		m.help = false
	}
}
