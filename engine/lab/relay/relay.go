// Package relay is a network of TCP connections that can be made bad: each
// goes from one named side to another, and the relay can hold what flows in
// one direction, as if every packet were lost until the path is whole again,
// and delay it at random, in order.
//
// It owns its listeners and connections. It must never know what is spoken
// over them.
package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"
)

// Link is one address behind which another stands.
type Link struct {
	To     string // the side that is reached
	Listen string // host:port
	Dial   string // host:port
	Source string // the address to dial from; any when empty
}

// path is one direction between two sides.
type path struct{ from, to string }

// Relay forwards. It is safe for concurrent use.
type Relay struct {
	whose  func(net.Conn) string // the side that a connection comes from
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	gates  map[path]chan struct{} // closed when the path is whole
	jitter time.Duration
	links  []*listener
}

// New makes a relay without links. whose tells which side an accepted
// connection comes from; it is called once for each.
func New(whose func(net.Conn) string) *Relay {
	r := &Relay{whose: whose, gates: map[path]chan struct{}{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// Add begins to listen for a link.
func (r *Relay) Add(ctx context.Context, l Link) error {
	ln := &listener{relay: r, link: l}
	if err := ln.open(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	r.links = append(r.links, ln)
	r.mu.Unlock()
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		ln.serve(r.ctx)
	}()
	return nil
}

// Close ends every connection and listener, and waits until they have ended.
func (r *Relay) Close() {
	r.cancel()
	r.wg.Wait()
}

// Cut holds everything from one side to another until it is mended.
func (r *Relay) Cut(from, to string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gates[path{from, to}] == nil {
		r.gates[path{from, to}] = make(chan struct{})
	}
}

// Mend lets through what was held, and all that follows.
func (r *Relay) Mend(from, to string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g := r.gates[path{from, to}]; g != nil {
		close(g)
		delete(r.gates, path{from, to})
	}
}

// Jitter delays each chunk by a random time of at most max, in order; 0 ends
// it.
func (r *Relay) Jitter(most time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.jitter = most
}

// delay is the next chunk's.
func (r *Relay) delay() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.jitter <= 0 {
		return 0
	}
	return rand.N(r.jitter)
}

// whole waits until a path is.
func (r *Relay) whole(ctx context.Context, p path) error {
	for {
		r.mu.Lock()
		g := r.gates[p]
		r.mu.Unlock()
		if g == nil {
			return nil
		}
		select {
		case <-g:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wait is a sleep that ends with ctx.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// listener accepts for one link.
type listener struct {
	relay *Relay
	link  Link
	ln    net.Listener
	dead  chan struct{} // has a value when the far end refused
}

func (l *listener) open(ctx context.Context) (err error) {
	var c net.ListenConfig
	if l.ln, err = c.Listen(ctx, "tcp", l.link.Listen); err != nil {
		return fmt.Errorf("listen for %s: %w", l.link.To, err)
	}
	l.dead = make(chan struct{}, 1)
	return nil
}

// serve accepts until ctx ends. While nobody listens at the far end nobody
// does here, because a refused connection tells more than one that is broken.
func (l *listener) serve(ctx context.Context) {
	for ctx.Err() == nil {
		if l.ln != nil {
			l.accept(ctx)
			l.ln = nil
		}
		if l.answers(ctx) {
			_ = l.open(ctx) // the port may be taken for a moment: the next round tries again
		}
		_ = wait(ctx, 20*time.Millisecond) // the loop's condition sees its error
	}
}

// accept takes connections until ctx ends or the far end refuses.
func (l *listener) accept(ctx context.Context) {
	ln, dead := l.ln, l.dead
	over := make(chan struct{})
	defer close(over)
	l.relay.wg.Add(1)
	go func() {
		defer l.relay.wg.Done()
		select {
		case <-ctx.Done():
		case <-dead:
		case <-over:
		}
		_ = ln.Close() // which ends Accept
	}()
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		l.relay.wg.Add(1)
		go func() {
			defer l.relay.wg.Done()
			if errors.Is(l.relay.join(ctx, l.link, c), syscall.ECONNREFUSED) {
				select {
				case dead <- struct{}{}:
				default:
				}
			}
		}()
	}
}

// answers says whether somebody listens at the far end. Silence counts as an
// answer: a host that is cut off refuses nothing.
func (l *listener) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := l.link.dial(ctx)
	if err == nil {
		_ = c.Close() // it was a question only
	}
	return !errors.Is(err, syscall.ECONNREFUSED)
}

func (l Link) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{}
	if l.Source != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(l.Source)}
	}
	return d.DialContext(ctx, "tcp", l.Dial)
}
