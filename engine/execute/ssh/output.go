package ssh

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/pgtandem/pgtandem/engine/execute"
)

const (
	maxOutput = 16 << 20 // of each of stdout and stderr; a command that says more is refused
	maxLine   = 8 << 10  // a longer line is handed on in pieces
)

// capture keeps what a command writes, up to maxOutput.
type capture struct {
	name  string
	buf   *bytes.Buffer
	lines *stream
}

func (c *capture) Write(p []byte) (int, error) {
	if c.buf.Len()+len(p) > maxOutput {
		return 0, fmt.Errorf("%w: the command wrote more than %d bytes to %s", execute.ErrRefused, maxOutput, c.name)
	}
	c.buf.Write(p)
	c.lines.write(p)
	return len(p), nil
}

// lineSplitter hands on lines of both outputs, one at a time. A carriage
// return ends a line too: pg_basebackup and pg_rewind redraw theirs with it.
type lineSplitter struct {
	emit    func(string)
	mu      sync.Mutex
	streams []*stream
}

type stream struct {
	owner   *lineSplitter
	pending []byte
}

func (l *lineSplitter) stream() *stream {
	s := &stream{owner: l}
	l.streams = append(l.streams, s)
	return s
}

func (s *stream) write(p []byte) {
	l := s.owner
	if l.emit == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(p) > 0 {
		i := bytes.IndexAny(p, "\r\n")
		end := i >= 0
		if !end {
			i = len(p)
		}
		take := min(i, maxLine-len(s.pending))
		s.pending = append(s.pending, p[:take]...)
		p = p[take:]
		if take < i || len(s.pending) == maxLine {
			s.out()
			continue
		}
		if end {
			s.out()
			p = p[1:]
		}
	}
}

func (s *stream) out() {
	if len(s.pending) > 0 {
		s.owner.emit(string(s.pending))
		s.pending = s.pending[:0]
	}
}

// flush hands on last lines without an end.
func (l *lineSplitter) flush() {
	if l.emit == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.streams {
		s.out()
	}
}
