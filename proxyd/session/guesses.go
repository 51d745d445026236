package session

import (
	"net/netip"
	"sync"
	"time"
)

// Cancel requests with a key that is nobody's: so many at once from one address,
// and then so many a second. A client that cancels what has just ended sends
// some of them; a key of protocol 3.0 has 32 bits, and at this rate it takes
// years to find one.
const (
	guessesAtOnce    = 100
	guessesPerSecond = 10
	guessersKept     = 4096
)

// guesses limits how fast keys can be tried.
type guesses struct {
	now func() time.Time

	mu  sync.Mutex
	who map[netip.Prefix]*guesser
}

// guesser is an address, or the network of an IPv6 host, which has all of its
// addresses. Connections through the Unix socket are one.
type guesser struct {
	left float64
	seen time.Time
}

func newGuesses(now func() time.Time) *guesses {
	return &guesses{now: now, who: make(map[netip.Prefix]*guesser)}
}

// mayTry says whether a request from there is looked at. One that has used up
// its guesses is not told so, and is refused with the right key as well:
// otherwise it could go on until it has that.
func (g *guesses) mayTry(from netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	w := g.who[network(from)]
	if w == nil {
		return true
	}
	g.refill(w)
	return w.left >= 1
}

// failed notes a wrong key.
func (g *guesses) failed(from netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := network(from)
	w := g.who[n]
	if w == nil {
		if len(g.who) >= guessersKept {
			g.forget()
		}
		w = &guesser{left: guessesAtOnce, seen: g.now()}
		g.who[n] = w
	}
	g.refill(w)
	w.left = max(0, w.left-1)
}

// forgive takes one failure back: it was no wrong key.
func (g *guesses) forgive(from netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w := g.who[network(from)]; w != nil {
		w.left = min(guessesAtOnce, w.left+1)
	}
}

func (g *guesses) refill(w *guesser) {
	now := g.now()
	w.left = min(guessesAtOnce, w.left+max(0, now.Sub(w.seen)).Seconds()*guessesPerSecond)
	w.seen = now
}

// forget drops those that have all their guesses again, and of the others as many
// as it takes to make room for a while.
func (g *guesses) forget() {
	for n, w := range g.who {
		if g.refill(w); w.left >= guessesAtOnce {
			delete(g.who, n)
		}
	}
	for n := range g.who {
		if len(g.who) <= guessersKept/2 {
			return
		}
		delete(g.who, n)
	}
}

// network is whom an address stands for.
func network(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	n, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no address: the Unix socket
	}
	return n
}
