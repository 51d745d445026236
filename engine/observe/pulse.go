package observe

import (
	"net"
	"sync"
	"time"
)

// pulse is when a node was heard last, and what it has been asked since. Any
// byte of its is a sign of life, whichever connection it comes on: delay and
// loss hit one connection, and a login has many round trips, while a node that
// is gone is silent on all.
type pulse struct {
	now     func() time.Time
	stirred chan struct{} // has a value when something was asked or heard

	mu    sync.Mutex
	heard time.Time
	open  map[*line]time.Time // what is waited for, since it was asked or, in the middle of an answer, last heard
}

func newPulse(now func() time.Time) *pulse {
	return &pulse{now: now, stirred: make(chan struct{}, 1), open: map[*line]time.Time{}}
}

// line is one connection to a node, from before it is dialled.
type line struct{ pulse *pulse }

// ask says that an answer is waited for from now on; settle, that it is not
// any more.
func (l *line) ask() {
	p := l.pulse
	p.mu.Lock()
	p.open[l] = p.now()
	p.mu.Unlock()
	poke(p.stirred)
}

func (l *line) settle() {
	p := l.pulse
	p.mu.Lock()
	delete(p.open, l)
	p.mu.Unlock()
}

func (l *line) hear() {
	p := l.pulse
	p.mu.Lock()
	p.heard = p.now()
	if _, ok := p.open[l]; ok {
		p.open[l] = p.heard
	}
	p.mu.Unlock()
	poke(p.stirred)
}

// silence is since when the node has owed us an answer without a sign of life;
// zero while it owes none. What was asked before the last sign of life is the
// connection's matter and not the node's.
func (p *pulse) silence() (since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, asked := range p.open {
		if !asked.Before(p.heard) && (since.IsZero() || asked.Before(since)) {
			since = asked
		}
	}
	return since
}

// attentive is a socket that tells when it is spoken to.
type attentive struct {
	net.Conn
	line *line
}

func (c attentive) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.line.hear()
	}
	return n, err
}

// vigil turns a silence into failures: one when it has lasted for a timeout,
// and one more with each step.
type vigil struct {
	since   time.Time // of the silence that is counted; zero while there is none
	counted int
}

// spoken says whether the silence of which failures were counted has ended.
func (v *vigil) spoken(since time.Time) bool {
	if since.Equal(v.since) {
		return false
	}
	ended := v.counted > 0
	*v = vigil{since: since}
	return ended
}

// due is when the silence is the next failure, and when the attempt began that
// fails then.
func (v *vigil) due(timeout, step time.Duration) (at, began time.Time) {
	began = v.since.Add(time.Duration(v.counted) * step)
	return began.Add(timeout), began
}
