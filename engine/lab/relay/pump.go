package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// join dials the far end of an accepted connection and forwards both ways
// until both have ended. It closes the connection, and gives the error of the
// dialling.
func (r *Relay) join(ctx context.Context, l Link, near net.Conn) error {
	defer func() { _ = near.Close() }() // nobody listens any more
	side := r.whose(near)
	there, back := path{side, l.To}, path{l.To, side}
	// A handshake needs both directions.
	for _, p := range []path{there, back} {
		if err := r.whole(ctx, p); err != nil {
			return err
		}
	}
	if err := wait(ctx, r.delay()); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
	far, err := l.dial(bounded)
	cancel()
	if err != nil {
		reset(near)
		return err
	}
	defer func() { _ = far.Close() }() // as above
	ended := context.AfterFunc(ctx, func() { reset(near); reset(far) })
	defer ended()
	var wg sync.WaitGroup
	for _, d := range []struct {
		path
		from, to net.Conn
	}{{there, near, far}, {back, far, near}} {
		queue := make(chan chunk, 64)
		wg.Add(2)
		go func() { defer wg.Done(); r.read(ctx, d.from, queue) }()
		go func() { defer wg.Done(); r.write(ctx, d.path, d.to, queue) }()
	}
	wg.Wait()
	return nil
}

// chunk is what was read at once, and when it arrives.
type chunk struct {
	due  time.Time
	data []byte
	end  error // nothing follows: io.EOF where that was said in order
}

// read takes what a side sends, with the time it needs. A delay overtakes
// nothing: a chunk never arrives before the one it follows.
func (r *Relay) read(ctx context.Context, from net.Conn, queue chan<- chunk) {
	var last time.Time
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		due := time.Now().Add(r.delay())
		if due.Before(last) {
			due = last
		}
		last = due
		select {
		case queue <- chunk{due, append([]byte(nil), buf[:n]...), err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// write gives a side what arrives, once the path is whole. What could not be
// written is taken all the same, so that the reader ends.
func (r *Relay) write(ctx context.Context, p path, to net.Conn, queue <-chan chunk) {
	broken := false
	for {
		var c chunk
		select {
		case c = <-queue:
		case <-ctx.Done():
			return
		}
		if wait(ctx, time.Until(c.due)) != nil || r.whole(ctx, p) != nil {
			return
		}
		if len(c.data) > 0 && !broken {
			_, err := to.Write(c.data)
			broken = err != nil
		}
		switch {
		case c.end == nil:
			continue
		case errors.Is(c.end, io.EOF):
			if t, ok := to.(*net.TCPConn); ok {
				_ = t.CloseWrite() // it may be gone already
			}
		default:
			reset(to)
		}
		return
	}
}

// reset closes a connection so that its other end sees an error and no end.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // it may be gone already
	}
	_ = c.Close()
}
