package pool

import (
	"context"
	"sync"
	"time"
)

// Pool is a Ledger for concurrent callers. Whoever is given a server in state
// Connecting opens it and says Connected, or Remove when that fails.
type Pool struct {
	close func(value any) // closes a server connection; must not block or call back
	now   func() time.Time

	mu     sync.Mutex
	ledger *Ledger
}

// New makes an empty pool. closer closes what was given to Connected.
func New(limits Limits, closer func(value any), now func() time.Time) *Pool {
	return &Pool{close: closer, now: now, ledger: NewLedger(limits)}
}

// Take gives an idle server of the key at once, Active, or nil. Where it has the
// choice it is one of the lane.
func (p *Pool) Take(k Key, lane int) *Server {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ledger.Take(k, lane, p.now())
}

// NewWaiter makes a waiter that can be used again and again. wake is called when
// Ready has been filled; it must not block or call back.
func NewWaiter(wake func()) *Waiter {
	return &Waiter{Ready: make(chan *Server, 1), wake: wake}
}

// Get gives a server for the key, waiting in line until one is free, there is
// room, or ctx is done. The server is Active, or Connecting when the caller
// has to open it.
func (p *Pool) Get(ctx context.Context, k Key) (*Server, error) {
	w := NewWaiter(nil)
	p.Ask(w, k)
	return p.Wait(ctx, w)
}

// Ask is Get without the waiting: the server comes by the waiter's Ready.
func (p *Pool) Ask(w *Waiter, k Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.Key, w.Since = k, p.now()
	p.apply(p.ledger.Ask(w, w.Since))
}

// Wait waits for what was asked for, until ctx is done.
func (p *Pool) Wait(ctx context.Context, w *Waiter) (*Server, error) {
	select {
	case s := <-w.Ready:
		return s, nil
	default:
	}
	select {
	case s := <-w.Ready:
		return s, nil
	case <-ctx.Done():
		p.Leave(w)
		return nil, ctx.Err()
	}
}

// Leave gives up waiting, and gives back what was granted at the same moment.
func (p *Pool) Leave(w *Waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ledger.Leave(w) {
		return
	}
	s := <-w.Ready
	switch s.State() {
	case Connecting:
		p.apply(p.ledger.Remove(s, p.now()))
	case Active:
		p.apply(p.ledger.Release(s, false, p.now()))
	case Gone: // it was lost between the grant and now
	}
}

// apply does what the ledger asks for. The lock is held.
func (p *Pool) apply(e Effects) {
	for _, s := range e.Close {
		p.close(s.Value)
	}
	for _, g := range e.Grants {
		g.Waiter.Ready <- g.Server
		if g.Waiter.wake != nil {
			g.Waiter.wake()
		}
	}
}

// Connected hands in the connection that was opened for a Connecting server.
func (p *Pool) Connected(s *Server, value any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ledger.Connected(s, value, p.now())
}

// Release gives a server back; a dirty one counts as Cleaning until Cleaned.
func (p *Pool) Release(s *Server, dirty bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.State() == Active {
		p.apply(p.ledger.Release(s, dirty, p.now()))
	}
}

// Cleaned makes a server that was being cleaned idle.
func (p *Pool) Cleaned(s *Server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.State() == Cleaning {
		p.apply(p.ledger.Cleaned(s, p.now()))
	}
}

// Remove takes a server out of the books; its owner closes it.
func (p *Pool) Remove(s *Server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.apply(p.ledger.Remove(s, p.now()))
}

// SetLimits changes the limits.
func (p *Pool) SetLimits(l Limits) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.apply(p.ledger.SetLimits(l, p.now()))
}

// Expire closes servers idle too long, or too old, and looks after those who
// may have a server of the reserve. It says when it should be called again for
// their sake, zero for never.
func (p *Pool) Expire() (due time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.apply(p.ledger.Expire(now))
	return p.ledger.Due(now)
}

// Fill gives the places that are to be filled for the key's minimum; the caller
// opens them, as one who was granted them.
func (p *Pool) Fill(k Key) []*Server {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ledger.Fill(k, p.now())
}

// Figures gives every group's numbers, in no order.
func (p *Pool) Figures() []Figures {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ledger.Figures(p.now())
}
