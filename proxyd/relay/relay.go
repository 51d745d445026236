package relay

import (
	"net"
	"runtime"
	"sync/atomic"
)

// Handler is told what happens to a connection. Its loop calls it, one call at
// a time, and waits for its return: it must not block.
type Handler interface {
	// Readable: there is something to be read, or the end of it. It is called
	// again for what was left unread. The first call comes by itself, for what
	// may lie in a layer above the socket.
	Readable()
	// Drained: all that Write had to keep has been written.
	Drained()
	// Closed is the last call, and comes exactly once, whoever closed the
	// connection. Calls of Write may still be made, and fail.
	Closed()
}

// Task is something that a loop is to do.
type Task interface{ Run() }

// errAgain is temporary in the sense of net.Error, which crypto/tls takes for
// a reason to keep the connection and what it has read of a record so far.
type errAgain struct{}

func (errAgain) Error() string   { return "nothing to read at present" }
func (errAgain) Timeout() bool   { return true }
func (errAgain) Temporary() bool { return true }

// ErrAgain is what Read gives when there is nothing to be read for now.
var ErrAgain net.Error = errAgain{}

// Group is a fixed number of loops.
type Group struct {
	loops []*Loop
	last  atomic.Uint32
}

// New starts n loops, at least one. A busy loop keeps one of Go's processors
// for itself, so there are made to be that many more.
func New(n int) (*Group, error) {
	g := &Group{}
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), runtime.NumCPU()+max(1, n)))
	for range max(1, n) {
		l, err := newLoop()
		if err != nil {
			g.Close()
			return nil, err
		}
		l.number = len(g.loops)
		g.loops = append(g.loops, l)
	}
	return g, nil
}

// Number tells the loops of a group apart, from 0.
func (l *Loop) Number() int { return l.number }

// Next gives the loops in turn.
func (g *Group) Next() *Loop {
	return g.loops[int(g.last.Add(1))%len(g.loops)]
}

// Close ends the loops. Their connections must have been closed before.
func (g *Group) Close() {
	for _, l := range g.loops {
		l.close()
	}
}
