package session

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// restless is how long a connection that has not proved itself keeps its place
// while others wait for one.
const restless = 2 * time.Second

// doorman lets a limited number of connections log in at a time, in all and from
// one address; more wait in line. While somebody waits, a place is lost by who
// was silent for long: a flood of connections that say nothing slows logins
// down and does not keep them out, and a burst of honest ones is served in
// turn. The line itself is as long as the proxy takes connections; when it is
// full the address that has the most in it gives way to others.
type doorman struct {
	now func() time.Time

	mu       sync.Mutex
	all, per int // 0: no limit
	inside   map[*visitor]struct{}
	from     map[netip.Addr]int // of them
	line     []*visitor
	waits    map[netip.Prefix]int // of the line; an IPv6 host has its whole network
}

// visitor is one connection before its login is done.
type visitor struct {
	address netip.Addr // zero: through the Unix socket, of which no limit for one address holds
	conn    net.Conn
	since   time.Time
	let     chan struct{} // closed when it has a place
	out     chan struct{} // closed when it must go
}

func newDoorman(now func() time.Time) *doorman {
	return &doorman{now: now, inside: make(map[*visitor]struct{}), from: make(map[netip.Addr]int), waits: make(map[netip.Prefix]int)}
}

// setLimits is for connections that come from now on, and those in line.
func (d *doorman) setLimits(all, per int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all, d.per = all, per
	d.admit()
}

// enter waits for a place until the deadline. leave must follow, whether or not
// there was one.
func (d *doorman) enter(conn net.Conn, address netip.Addr, deadline time.Time) (v *visitor, ok bool) {
	v = &visitor{address: address.Unmap(), conn: conn, let: make(chan struct{}), out: make(chan struct{})}
	d.mu.Lock()
	d.line = append(d.line, v)
	d.waits[network(v.address)]++
	d.admit()
	_, ok = d.inside[v]
	d.mu.Unlock()
	if ok {
		return v, true
	}
	end := time.NewTimer(deadline.Sub(d.now()))
	defer end.Stop()
	look := time.NewTicker(restless / 8)
	defer look.Stop()
	for {
		select {
		case <-v.let:
			return v, true
		case <-v.out:
			return v, false
		case <-end.C:
			return v, false
		case <-look.C:
			d.mu.Lock()
			d.makeRoom(v)
			d.mu.Unlock()
		}
	}
}

// leave gives the place up, or leaves the line. It may be called again.
func (d *doorman) leave(v *visitor) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.remove(v)
	if i := slices.Index(d.line, v); i >= 0 {
		d.strike(i)
	}
	d.admit()
}

// strike takes one out of the line.
func (d *doorman) strike(i int) {
	discount(d.waits, network(d.line[i].address))
	d.line = slices.Delete(d.line, i, i+1)
}

func discount[K comparable](of map[K]int, k K) {
	if of[k]--; of[k] <= 0 {
		delete(of, k)
	}
}

// giveWay sends somebody out of the line, of the address that has the most
// there, for a newcomer whose address has fewer. Where it says no, the newcomer
// is one of the crowd.
func (d *doorman) giveWay(newcomer netip.Addr) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	var crowded netip.Prefix
	for from, n := range d.waits {
		if n > d.waits[crowded] {
			crowded = from
		}
	}
	if d.waits[crowded] <= d.waits[network(newcomer.Unmap())]+1 {
		return false
	}
	for i, v := range slices.Backward(d.line) {
		if network(v.address) == crowded {
			d.strike(i)
			close(v.out)
			hangUp(v.conn)
			return true
		}
	}
	return false
}

func (d *doorman) remove(v *visitor) {
	if _, in := d.inside[v]; !in {
		return
	}
	delete(d.inside, v)
	discount(d.from, v.address)
}

// admit gives free places to the first in line whose addresses have one.
func (d *doorman) admit() {
	kept := d.line[:0]
	for _, v := range d.line {
		if !d.hasPlace(v) {
			kept = append(kept, v)
			continue
		}
		v.since = d.now()
		d.inside[v] = struct{}{}
		d.from[v.address]++
		discount(d.waits, network(v.address))
		close(v.let)
	}
	clear(d.line[len(kept):])
	d.line = kept
}

func (d *doorman) hasPlace(v *visitor) bool {
	return (d.all <= 0 || len(d.inside) < d.all) && !d.crowded(v)
}

// crowded says whether the visitor's address has all its places.
func (d *doorman) crowded(v *visitor) bool {
	return d.per > 0 && v.address.IsValid() && d.from[v.address] >= d.per
}

// makeRoom puts one out who was silent for long: of the waiting one's own
// address where that is what keeps it waiting, else of the address that has the
// most places.
func (d *doorman) makeRoom(waiting *visitor) {
	if _, in := d.inside[waiting]; in || d.hasPlace(waiting) {
		return
	}
	own := d.crowded(waiting)
	var out *visitor
	for v := range d.inside {
		if d.now().Sub(v.since) < restless || own && v.address != waiting.address {
			continue
		}
		if out == nil || d.from[v.address] > d.from[out.address] ||
			d.from[v.address] == d.from[out.address] && v.since.Before(out.since) {
			out = v
		}
	}
	if out == nil {
		return
	}
	d.remove(out)
	hangUp(out.conn)
	d.admit()
}
