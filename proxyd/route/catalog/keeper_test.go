package catalog

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// database is a catalog of one function, whose nature can be changed.
type database struct {
	mu      sync.Mutex
	why     string // of the function f
	broken  bool
	looks   int
	loads   int
	during  func() // runs while the catalog is read
	in, out int    // connections opened and closed
}

func (d *database) Connect(context.Context) (Session, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken {
		return nil, errors.New("nobody there")
	}
	d.in++
	return d, nil
}

func (d *database) Close() { d.mu.Lock(); d.out++; d.mu.Unlock() }

func (d *database) Query(_ context.Context, sql string, each func([]string) error) error {
	d.mu.Lock()
	why, during := d.why, d.during
	switch sql {
	case fingerprintQuery:
		d.looks++
	case functionsQuery:
		d.loads++
	}
	d.mu.Unlock()
	switch sql {
	case fingerprintQuery:
		return each([]string{"print of " + why})
	case functionsQuery:
		err := each([]string{"public", "f", why})
		if during != nil {
			during()
		}
		return err
	}
	return nil
}

func (d *database) set(f func()) { d.mu.Lock(); f(); d.mu.Unlock() }

// shown is what is in force.
type shown struct {
	mu  sync.Mutex
	now *Snapshot
}

func (s *shown) use(c *Snapshot) { s.mu.Lock(); s.now = c; s.mu.Unlock() }

func (s *shown) why() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if why := s.now.Unready(); why != "" {
		return why
	}
	return s.now.Function("", "f")
}

// kept runs a story with a Keeper on a fake clock.
func kept(t *testing.T, story func(t *testing.T, d *database, k *Keeper, s *shown)) {
	synctest.Test(t, func(t *testing.T) {
		d, s := &database{}, &shown{now: Unready("nothing yet")}
		k := NewKeeper(Options{Connect: d.Connect, Use: s.use})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); k.Run(ctx) }()
		synctest.Wait()
		story(t, d, k, s)
		cancel()
		<-done
		if d.in != d.out {
			t.Errorf("%d connections were opened and %d closed", d.in, d.out)
		}
	})
}

func pass(d time.Duration) { time.Sleep(d); synctest.Wait() }

func expect(t *testing.T, when string, s *shown, part string) {
	t.Helper()
	if got := s.why(); got != part && (part == "" || !strings.Contains(got, part)) {
		t.Errorf("%s: %q, want %q", when, got, part)
	}
}

func TestAChangeThatDidNotPassHereIsFoundWithinAPeriod(t *testing.T) {
	kept(t, func(t *testing.T, d *database, k *Keeper, s *shown) {
		expect(t, "at first", s, "")
		d.set(func() { d.why = "is volatile" })
		pass(DefaultPeriod)
		expect(t, "a period later", s, "calls f, which is volatile")
		for range 10 {
			pass(DefaultPeriod)
		}
		if d.loads != 2 || d.looks != 12 {
			t.Errorf("%d loads and %d looks, want 2 and 12: what has not changed is not read again", d.loads, d.looks)
		}
	})
}

func TestASchemaChangeThatPassedStopsRoutingUntilItIsRead(t *testing.T) {
	kept(t, func(t *testing.T, d *database, k *Keeper, s *shown) {
		pass(10 * time.Second)
		d.set(func() { d.why = "is volatile"; d.during = func() { time.Sleep(time.Second) } })
		k.SchemaChanged()
		expect(t, "at once", s, "came while the catalog is read again")
		pass(500 * time.Millisecond)
		expect(t, "while it is read", s, "came while the catalog is read again")
		pass(time.Second)
		expect(t, "when it was read", s, "calls f, which is volatile")
	})
}

// TestASchemaChangeDuringALook: what was read may be older than the change.
func TestASchemaChangeDuringALook(t *testing.T) {
	kept(t, func(t *testing.T, d *database, k *Keeper, s *shown) {
		pass(10 * time.Second)
		var once sync.Once
		d.set(func() { d.why = "is volatile" })
		d.set(func() {
			d.during = func() {
				once.Do(func() {
					k.SchemaChanged()
					d.set(func() { d.why = "tells of one server or session" })
				})
			}
		})
		k.SchemaChanged()
		pass(10 * time.Millisecond)
		expect(t, "after the first look", s, "came while the catalog is read again")
		pass(DefaultSettle)
		expect(t, "after the second", s, "tells of one server")
	})
}

func TestManySchemaChangesAreOneLookASecond(t *testing.T) {
	kept(t, func(t *testing.T, d *database, k *Keeper, s *shown) {
		pass(10 * time.Second)
		before := d.looks
		for range 1000 {
			k.SchemaChanged()
			pass(10 * time.Millisecond)
		}
		if n := d.looks - before; n > 11 {
			t.Errorf("%d looks in 10 seconds", n)
		}
		pass(2 * DefaultSettle)
		expect(t, "afterwards", s, "")
		if d.loads != 1 {
			t.Errorf("%d loads of what has not changed", d.loads)
		}
	})
}

func TestWhatCannotBeReadIsNotTrustedForLong(t *testing.T) {
	kept(t, func(t *testing.T, d *database, k *Keeper, s *shown) {
		d.set(func() { d.broken = true })
		pass(DefaultPeriod * (mostMissed - 1))
		expect(t, "for a while", s, "")
		pass(DefaultPeriod)
		expect(t, "then", s, "had not been readable for a while")
		d.set(func() { d.broken = false })
		pass(DefaultPeriod)
		expect(t, "when it is back", s, "")
	})
}
