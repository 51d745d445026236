package app

import (
	"context"
	"fmt"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/page"
)

// Times of the console.
const (
	armedFor     = 10 * time.Minute
	slowTick     = time.Second
	fastTick     = 100 * time.Millisecond
	refetch      = 5 * time.Second // of what a page needs
	answerIn     = 40 * time.Second
	messageFor   = 8 * time.Second
	eventsKept   = 100_000
	repeatWithin = 500 * time.Millisecond // a key held down comes again within
)

// Model is the console.
type Model struct {
	ctx   context.Context
	opt   Options
	feed  *feed
	facts page.Facts
	link  link
	after func(time.Duration, func(time.Time) tea.Msg) tea.Cmd

	pages   []page.Page
	at      int
	flow    *flow
	flows   int // counts them
	help    bool
	batch   bool // the --batch line is shown
	helpTop int

	width, height int
	armedUntil    time.Time
	message       string
	messageUntil  time.Time
	lastKey       string
	lastKeyAt     time.Time
	fetching      map[page.Fetch]bool
	ticks         int // the present chain of ticks; others end
	fast          bool
}

// New makes the console; nothing is asked for before Init.
func New(ctx context.Context, opt Options) *Model {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	m := &Model{
		ctx: ctx, opt: opt, feed: newFeed(opt.Daemon, opt.Now), after: tea.Tick,
		pages:    []page.Page{page.NewOverview(), page.NewEvents(), page.NewDrills(), page.NewConfiguration(), page.NewOperations(), page.NewWhy()},
		fetching: map[page.Fetch]bool{},
		width:    80, height: 24,
	}
	m.facts = page.Facts{Now: opt.Now(), Glyphs: opt.Theme.Glyphs, Errors: map[page.Fetch]error{}, Fetched: map[page.Fetch]time.Time{}}
	m.link = link{since: opt.Now()}
	return m
}

// Init begins to wait for news and for the clock.
func (m *Model) Init() tea.Cmd { return tea.Batch(m.feed.wait(m.ctx), m.tick()) }

type tickMsg struct{ chain int }

// tick is the next stroke of the clock: fast while something moves.
func (m *Model) tick() tea.Cmd {
	every, chain := slowTick, m.ticks
	if m.fast = m.moving(); m.fast {
		every = fastTick
	}
	return m.after(every, func(time.Time) tea.Msg { return tickMsg{chain} })
}

// hurry starts a fast chain of ticks where a slow one runs.
func (m *Model) hurry() tea.Cmd {
	if m.fast || !m.moving() {
		return nil
	}
	m.ticks++
	return m.tick()
}

func (m *Model) moving() bool {
	return m.page().Playing() || (m.flow != nil && m.flow.moving()) || (m.facts.Known && !m.link.live) || m.facts.State.Operation != nil
}

func (m *Model) page() page.Page { return m.pages[m.at] }

// Update takes one message. Whatever it is, the clock is read once.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	m.clock()
	var cmd tea.Cmd
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyMsg:
		cmd = m.key(msg)
	case tickMsg:
		if msg.chain != m.ticks {
			return m, nil
		}
		m.page().Tick(&m.facts)
		cmd = tea.Batch(m.tick(), m.fetch(false), m.watchFlow())
	case feedMsg:
		m.news(msg)
		cmd = tea.Batch(m.feed.wait(m.ctx), m.watchFlow())
	case fetchedMsg:
		m.fetched(msg)
	case flowMsg:
		if m.flow != nil && m.flow.id == msg.flow {
			msg.apply(m.flow)
			m.conclude()
			cmd = m.watchFlow()
		}
	}
	return m, tea.Batch(cmd, m.hurry())
}

func (m *Model) clock() {
	now := m.opt.Now()
	m.facts.Now = now
	if !m.armedUntil.IsZero() && now.After(m.armedUntil) {
		m.armedUntil = time.Time{}
		m.say("read-only again: the ten minutes are over")
	}
	m.facts.Armed = !m.armedUntil.IsZero()
	if now.After(m.messageUntil) {
		m.message = ""
	}
}

func (m *Model) say(format string, args ...any) {
	m.message = fmt.Sprintf(format, args...)
	m.messageUntil = m.facts.Now.Add(messageFor)
}

// news takes over what the feed brought.
func (m *Model) news(n feedMsg) {
	if n.link != nil {
		m.link = *n.link
	}
	m.facts.Live = m.link.live
	m.facts.Events = append(m.facts.Events, n.events...)
	if extra := len(m.facts.Events) - eventsKept; extra > 0 {
		m.facts.Events = append([]api.Event(nil), m.facts.Events[extra:]...)
	}
	if n.state == nil {
		return
	}
	m.facts.State, m.facts.Known, m.facts.Received = *n.state, true, n.received
	m.facts.Samples.Add(*n.state, n.received)
	if m.flow != nil {
		m.flow.heard(n.state.Operation, m.facts.Now)
	}
	for _, e := range n.events {
		if e.Kind == "operation.done" || e.Kind == "operation.failed" || e.Kind == "operation.stopped" {
			clear(m.facts.Fetched) // what pages show may have changed
		}
	}
}

// fetchedMsg is what a page needed.
type fetchedMsg struct {
	what  page.Fetch
	err   error
	apply func(*page.Facts)
}

// fetch reads what the page needs, when it is new or old enough.
func (m *Model) fetch(now bool) tea.Cmd {
	what := m.page().Needs()
	if what == "" || m.fetching[what] || (!m.link.live && m.facts.Known) {
		return nil
	}
	if last := m.facts.Fetched[what]; !now && !last.IsZero() && m.facts.Now.Sub(last) < refetch {
		return nil
	}
	m.fetching[what] = true
	d, parent := m.opt.Daemon, m.ctx
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(parent, answerIn)
		defer cancel()
		return read(ctx, d, what)
	}
}

func read(ctx context.Context, d Daemon, what page.Fetch) fetchedMsg {
	r := fetchedMsg{what: what}
	switch what {
	case page.FetchDrills:
		ds, err := d.Drills(ctx)
		if err != nil {
			r.err = err
			return r
		}
		rs, err := d.DrillReports(ctx)
		r.err, r.apply = err, func(f *page.Facts) { f.Drills, f.Reports = ds, rs }
	case page.FetchFiles:
		s, err := d.SyncFiles(ctx)
		r.err, r.apply = err, func(f *page.Facts) { f.Files = s }
	case page.FetchOperations:
		ops, err := d.Operations(ctx)
		r.err, r.apply = err, func(f *page.Facts) { f.Operations = ops }
	}
	return r
}

func (m *Model) fetched(r fetchedMsg) {
	m.fetching[r.what] = false
	m.facts.Fetched[r.what] = m.facts.Now
	m.facts.Errors[r.what] = r.err
	if r.err == nil && r.apply != nil {
		r.apply(&m.facts)
	}
}
