package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// maxMessage bounds one message, in bytes. A longer one is not sent.
const maxMessage = 128 << 10

// ErrGone: the process at the other end is not there any more.
var ErrGone = errors.New("the other process has ended")

// Handler answers what the other end asks, and takes what it tells, for which
// it must not wait. The context ends with the stream.
type Handler func(ctx context.Context, op string, body json.RawMessage) (answer any, err error)

// Peer is one end of a stream between two processes. The stream keeps messages
// whole, so it can be given on between any two of them.
type Peer struct {
	conn *net.UnixConn
	pid  int // of the process at the other end

	mu     sync.Mutex
	calls  map[uint64]chan packet
	lastID uint64
	ended  chan struct{} // the reader is not running

	done chan struct{} // the stream is at its end
}

// packet is one message.
type packet struct {
	ID     uint64          `json:"id,omitempty"` // 0: no answer is wanted
	Answer bool            `json:"answer,omitempty"`
	Op     string          `json:"op,omitempty"`
	Body   json.RawMessage `json:"body,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// newPeer takes a descriptor over.
func newPeer(f *os.File, pid int) (*Peer, error) {
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("take the stream between the processes over: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("take the stream between the processes over: it is a %T", c)
	}
	// The ids of an earlier owner's calls, whose answers may be on their way,
	// are not to be met again.
	return &Peer{conn: conn, pid: pid, calls: make(map[uint64]chan packet), lastID: uint64(time.Now().UnixNano()), done: make(chan struct{})}, nil
}

// PID is the process at the other end.
func (p *Peer) PID() int { return p.pid }

// Done is closed when the other process has ended, or closed its end.
func (p *Peer) Done() <-chan struct{} { return p.done }

// Serve reads the stream in a goroutine of its own, until its end, Pause or
// Close.
func (p *Peer) Serve(h Handler) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.conn.SetReadDeadline(time.Time{}) // a closed one is noticed at once
	ended := make(chan struct{})
	p.ended = ended
	go func() {
		defer close(ended)
		p.read(h)
	}()
}

// read does the reading. What is asked is answered in a goroutine of its own: a
// gate may take a while to close.
func (p *Peer) read(h Handler) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	buf := make([]byte, maxMessage)
	for {
		n, err := p.conn.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return // Pause
		}
		var m packet
		if err != nil || json.Unmarshal(buf[:n], &m) != nil {
			close(p.done)
			return
		}
		if m.Answer {
			p.mu.Lock()
			if c := p.calls[m.ID]; c != nil {
				delete(p.calls, m.ID)
				c <- m
			}
			p.mu.Unlock()
			continue
		}
		if m.ID == 0 {
			p.answer(ctx, h, m) // what is told is heard in its order
			continue
		}
		go p.answer(ctx, h, m)
	}
}

func (p *Peer) answer(ctx context.Context, h Handler, m packet) {
	a := packet{ID: m.ID, Answer: true}
	v, err := h(ctx, m.Op, m.Body)
	if err == nil && v != nil {
		a.Body, err = json.Marshal(v)
	}
	if err != nil {
		a.Error = err.Error()
	}
	if m.ID != 0 {
		_ = p.send(a) // the other end sees ours end
	}
}

func (p *Peer) send(m packet) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return fmt.Errorf("a message of %d bytes is too long", len(b))
	}
	_, err = p.conn.Write(b)
	return err
}

// Call asks the other end, and waits for its answer until ctx is done. out may
// be nil.
func (p *Peer) Call(ctx context.Context, op string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	c := make(chan packet, 1)
	p.mu.Lock()
	p.lastID++
	id := p.lastID
	p.calls[id] = c
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.calls, id)
		p.mu.Unlock()
	}()
	if err := p.send(packet{ID: id, Op: op, Body: body}); err != nil {
		if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
			err = ErrGone
		}
		return fmt.Errorf("%s, to process %d: %w", op, p.pid, err)
	}
	select {
	case a := <-c:
		switch {
		case a.Error != "":
			return fmt.Errorf("%s, by process %d: %s", op, p.pid, a.Error)
		case out != nil && a.Body != nil:
			return json.Unmarshal(a.Body, out)
		}
		return nil
	case <-p.done:
		return fmt.Errorf("%s, to process %d: %w", op, p.pid, ErrGone)
	case <-ctx.Done():
		return fmt.Errorf("%s, to process %d: %w", op, p.pid, ctx.Err())
	}
}

// Tell says something that wants no answer. It is lost where the other end is.
func (p *Peer) Tell(op string, in any) {
	if body, err := json.Marshal(in); err == nil {
		_ = p.send(packet{Op: op, Body: body}) // whoever cares watches Done
	}
}

// Pause stops the reading between two messages, so that the stream can be
// given to another process. Serve goes on.
func (p *Peer) Pause() {
	p.mu.Lock()
	ended := p.ended
	p.mu.Unlock()
	_ = p.conn.SetReadDeadline(time.Unix(1, 0)) // a closed one has ended already
	if ended != nil {
		<-ended
	}
}

// file is another descriptor of the stream.
func (p *Peer) file() (*os.File, error) { return duplicate(p.conn, "handover") }

// Close ends this end of the stream.
func (p *Peer) Close() { _ = p.conn.Close() } // nothing is left to be said
