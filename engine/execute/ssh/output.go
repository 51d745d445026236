package ssh

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/pgtandem/pgtandem/engine/execute"
)

const (
	maxOutput = 16 << 20 // of each of stdout and stderr; a command that says more is refused
	maxLine   = 8 << 10  // a longer line is handed on in pieces
)

// output keeps what a command writes and hands on its lines, one at a time.
// Once sealed it takes nothing more, whatever still arrives.
type output struct {
	overflow chan struct{} // closed when either stream passes maxOutput

	mu      sync.Mutex
	emit    func(string)
	sealed  bool
	excess  string // the stream that passed the limit
	streams []*stream
}

// stream is one of stdout and stderr.
type stream struct {
	name    string
	owner   *output
	kept    bytes.Buffer
	pending []byte // of the line that has no end yet
}

func newOutput(emit func(string)) *output {
	return &output{overflow: make(chan struct{}), emit: emit}
}

func (o *output) writer(name string) io.Writer {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := &stream{name: name, owner: o}
	o.streams = append(o.streams, s)
	return s
}

// Write keeps p. After the limit it goes on taking and forgetting, so that the
// command is not blocked before its session is closed.
func (s *stream) Write(p []byte) (int, error) {
	o := s.owner
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed || o.excess != "" {
		return len(p), nil
	}
	if s.kept.Len()+len(p) > maxOutput {
		o.excess = s.name
		close(o.overflow)
		return len(p), nil
	}
	s.kept.Write(p)
	if o.emit != nil {
		s.split(p)
	}
	return len(p), nil
}

// split hands on lines. A carriage return ends one too: pg_basebackup and
// pg_rewind redraw theirs with it.
func (s *stream) split(p []byte) {
	for len(p) > 0 {
		i := bytes.IndexAny(p, "\r\n")
		if i < 0 {
			i = len(p)
		}
		take := min(i, maxLine-len(s.pending))
		s.pending = append(s.pending, p[:take]...)
		p = p[take:]
		switch {
		case len(p) > 0 && (p[0] == '\r' || p[0] == '\n'):
			s.line()
			p = p[1:]
		case len(s.pending) == maxLine:
			s.line()
		}
	}
}

func (s *stream) line() {
	if len(s.pending) > 0 {
		s.owner.emit(string(s.pending))
		s.pending = s.pending[:0]
	}
}

func (o *output) refusal() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return fmt.Errorf("%w: it wrote more than %d bytes to %s", execute.ErrRefused, maxOutput, o.excess)
}

// seal hands on last lines without an end and gives what was kept.
func (o *output) seal() execute.Result {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sealed = true
	var res execute.Result
	for _, s := range o.streams {
		if o.emit != nil {
			s.line()
		}
		if s.name == "stdout" {
			res.Stdout = slices.Clone(s.kept.Bytes())
		} else {
			res.Stderr = slices.Clone(s.kept.Bytes())
		}
	}
	return res
}
