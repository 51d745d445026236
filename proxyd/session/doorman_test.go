package session

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// hand is a clock that a test turns.
type hand struct {
	mu sync.Mutex
	at time.Time
}

func (h *hand) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at
}

func (h *hand) turn(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = h.at.Add(d)
}

// comes lets somebody come to the door and not wait.
func comes(t *testing.T, d *doorman, from string) (v *visitor, in bool) {
	t.Helper()
	var a netip.Addr
	if from != "" {
		a = netip.MustParseAddr(from)
	}
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	v, in = d.enter(ours, a, d.now().Add(-time.Second)) // a deadline that is over: nobody waits
	return v, in
}

func TestTheDoorman(t *testing.T) {
	const a, b, c, local = "10.0.0.1", "10.0.0.2", "10.0.0.3", ""
	clock := &hand{at: time.Unix(1000, 0)}
	d := newDoorman(clock.now)
	d.setLimits(4, 2)
	let := func(from string, want bool) *visitor {
		t.Helper()
		v, in := comes(t, d, from)
		if in != want {
			t.Fatalf("somebody from %q: %v", from, in)
		}
		if !in {
			d.leave(v)
		}
		return v
	}
	first := let(a, true)
	clock.turn(time.Millisecond)
	second := let(a, true)
	let(a, false) // its address has all its places
	third := let(b, true)
	fourth := let(b, true)
	let(c, false) // all are taken
	d.leave(third)
	d.leave(third)
	fifth := let(c, true)
	let(local, false)
	d.leave(fifth)
	sixth := let(local, true) // no limit of one address through the socket
	d.leave(fourth)
	let(local, true)
	d.leave(sixth)
	if len(d.from) != 2 || len(d.inside) != 3 || len(d.line) != 0 {
		t.Errorf("from %v, %d inside, %d in line", d.from, len(d.inside), len(d.line))
	}
	_, _ = first, second
}

// TestWhoIsSilentMakesRoom: while somebody waits, the silent one of the most
// crowded address goes, and nobody before his time.
func TestWhoIsSilentMakesRoom(t *testing.T) {
	clock := &hand{at: time.Unix(1000, 0)}
	d := newDoorman(clock.now)
	d.setLimits(3, 0)
	var crowd []*visitor
	for _, from := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.2"} {
		v, in := comes(t, d, from)
		if !in {
			t.Fatal("no place")
		}
		crowd = append(crowd, v)
		clock.turn(time.Millisecond)
	}
	waiting := &visitor{address: netip.MustParseAddr("10.0.0.3"), let: make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.line = append(d.line, waiting)
	d.makeRoom(waiting)
	if len(d.inside) != 3 {
		t.Fatal("somebody was put out before his time")
	}
	clock.turn(restless)
	d.makeRoom(waiting)
	_, oldest := d.inside[crowd[0]]
	_, crowded := d.inside[crowd[1]]
	_, in := d.inside[waiting]
	if !oldest || crowded || !in {
		t.Errorf("oldest %v, first of the crowded %v, waiting %v", oldest, crowded, in)
	}
	if _, err := crowd[1].conn.Write([]byte{0}); err == nil {
		t.Error("the connection of the one put out is open")
	}
	d.makeRoom(waiting) // it is in: nobody goes for it
	if len(d.inside) != 3 {
		t.Errorf("%d inside", len(d.inside))
	}
}

func TestOneAddressMakesRoomForItself(t *testing.T) {
	clock := &hand{at: time.Unix(1000, 0)}
	d := newDoorman(clock.now)
	d.setLimits(10, 1)
	other, _ := comes(t, d, "10.0.0.2")
	own, _ := comes(t, d, "10.0.0.1")
	clock.turn(restless)
	waiting := &visitor{address: netip.MustParseAddr("10.0.0.1"), let: make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.line = append(d.line, waiting)
	d.makeRoom(waiting)
	_, still := d.inside[other]
	_, gone := d.inside[own]
	if _, in := d.inside[waiting]; !in || !still || gone {
		t.Errorf("waiting %v, the other address %v, its own %v", in, still, gone)
	}
}

// TestAFloodOfSilenceKeepsNobodyOut: many times more connections than there are
// places say nothing; somebody who knows his password gets in.
func TestAFloodOfSilenceKeepsNobodyOut(t *testing.T) {
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Limits.MaxLogins, o.Limits.MaxLoginsPerAddress = 5, 3 })
	for range 12 {
		p.dialRaw(t)
	}
	began := time.Now()
	p.connect(t, "")
	t.Logf("let in after %v", time.Since(began))
	p.connect(t, "") // who is in counts no more
}
