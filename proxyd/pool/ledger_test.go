package pool

import (
	"maps"
	"slices"
	"testing"
	"time"
)

func TestTheLatestUsedServerComesFirst(t *testing.T) {
	l := NewLedger(Limits{})
	now := time.Unix(0, 0)
	var servers []*Server
	for range 2 {
		e := l.Ask(&Waiter{}, now)
		servers = append(servers, e.Grants[0].Server)
		l.Connected(e.Grants[0].Server, nil, now)
	}
	l.Release(servers[0], false, now)
	l.Release(servers[1], false, now)
	if got := l.Take(Key{}, AnyLane, now); got != servers[1] {
		t.Error("the server idle longer was taken, so that none can be let go")
	}
}

func TestAServerOfOnesOwnLaneComesFirst(t *testing.T) {
	l := NewLedger(Limits{})
	now := time.Unix(0, 0)
	for lane := range 3 {
		s := l.Ask(&Waiter{}, now).Grants[0].Server
		s.Lane = lane
		l.Connected(s, nil, now)
	}
	for _, s := range slices.Collect(maps.Keys(l.group(Group{}).servers)) {
		l.Release(s, false, now)
	}
	for _, c := range []struct{ lane, want int }{{0, 0}, {2, 2}, {0, 1}} { // the last has no other left
		s := l.Take(Key{}, c.lane, now)
		if s == nil || s.Lane != c.want {
			t.Fatalf("lane %d: got %+v, want one of lane %d", c.lane, s, c.want)
		}
	}
}

func TestAWaiterOfOtherParametersTakesTheIdlePlace(t *testing.T) {
	l := NewLedger(Limits{Quota: Quota{Size: 1}})
	now := time.Unix(0, 0)
	first := l.Ask(&Waiter{Key: Key{Params: "a"}}, now).Grants[0].Server
	l.Connected(first, nil, now)
	if e := l.Ask(&Waiter{Key: Key{Params: "b"}}, now); len(e.Grants) != 0 {
		t.Fatal("there is room for one")
	}
	e := l.Release(first, false, now)
	if len(e.Close) != 1 || e.Close[0] != first || len(e.Grants) != 1 || e.Grants[0].Server.State() != Connecting {
		t.Errorf("effects: %+v", e)
	}
}

func TestExpire(t *testing.T) {
	start := time.Unix(0, 0)
	for _, c := range []struct {
		what  string
		quota Quota
		at    time.Duration
		gone  bool
	}{
		{"never", Quota{}, time.Hour, false},
		{"not idle long enough", Quota{Idle: 2 * time.Minute}, 2 * time.Minute, false},
		{"idle long enough", Quota{Idle: 2 * time.Minute}, 3 * time.Minute, true},
		{"the minimum is kept", Quota{Idle: 2 * time.Minute, Min: 1}, time.Hour, false},
		{"too old", Quota{Lifetime: 2 * time.Minute}, 2 * time.Minute, true},
		{"too old, and the minimum is opened anew", Quota{Lifetime: 2 * time.Minute, Min: 1}, 2 * time.Minute, true},
	} {
		l := NewLedger(Limits{Quota: c.quota})
		s := l.Ask(&Waiter{}, start).Grants[0].Server
		l.Connected(s, nil, start)
		l.Release(s, false, start.Add(time.Minute))
		if e := l.Expire(start.Add(c.at)); (len(e.Close) == 1) != c.gone {
			t.Errorf("%s: closed %d", c.what, len(e.Close))
		}
	}
}

// open makes n servers of a key, all of them in use.
func open(t *testing.T, l *Ledger, k Key, n int, now time.Time) (out []*Server) {
	t.Helper()
	for range n {
		e := l.Ask(&Waiter{Key: k, Since: now}, now)
		if len(e.Grants) != 1 {
			t.Fatalf("%d servers of %v, not %d", len(out), k, n)
		}
		l.Connected(e.Grants[0].Server, nil, now)
		out = append(out, e.Grants[0].Server)
	}
	return out
}

// TestServersOpenedTogetherDoNotEndTogether: neither idle ones nor those that
// are always busy, and each has most of its lifetime.
func TestServersOpenedTogetherDoNotEndTogether(t *testing.T) {
	for _, busy := range []bool{false, true} {
		const n, lifetime = 100, 100 * time.Minute
		start := time.Unix(0, 0)
		l := NewLedger(Limits{Quota: Quota{Lifetime: lifetime}})
		servers := open(t, l, Key{}, n, start)
		ended := make(map[time.Duration]int)
		for at := time.Minute; at <= lifetime; at += time.Minute {
			for _, s := range servers {
				if busy && s.State() == Active || !busy && at == time.Minute {
					ended[at] += len(l.Release(s, false, start.Add(at)).Close)
				}
			}
			if !busy {
				ended[at] += len(l.Expire(start.Add(at)).Close)
			}
			for busy && l.Take(Key{}, AnyLane, start.Add(at)) != nil {
			}
		}
		sum := 0
		for at, count := range ended {
			if sum += count; at < lifetime*8/10 && count > 0 {
				t.Errorf("busy %v: %d ended after %v of %v", busy, count, at, lifetime)
			}
			if count > 2*n/20+1 {
				t.Errorf("busy %v: %d of %d ended in one of the last 20 minutes", busy, count, n)
			}
		}
		if sum != n {
			t.Errorf("busy %v: %d of %d have ended after their lifetime", busy, sum, n)
		}
	}
}

func TestTheReserveIsForWhoHasWaited(t *testing.T) {
	start := time.Unix(0, 0)
	l := NewLedger(Limits{Quota: Quota{Size: 1, Reserve: 1, ReserveDelay: 5 * time.Second}})
	first := open(t, l, Key{}, 1, start)[0]
	early, late := &Waiter{Since: start}, &Waiter{Since: start.Add(time.Second)}
	l.Ask(early, early.Since)
	l.Ask(late, late.Since)
	if at := l.Due(start); !at.Equal(start.Add(5 * time.Second)) {
		t.Errorf("due at %v", at)
	}
	if e := l.Expire(start.Add(4 * time.Second)); len(e.Grants) != 0 {
		t.Fatal("too early")
	}
	e := l.Expire(start.Add(10 * time.Second))
	if len(e.Grants) != 1 || e.Grants[0].Waiter != early {
		t.Fatalf("the one that waits longest has the reserve, and nobody else: %+v", e)
	}
	if at := l.Due(start.Add(10 * time.Second)); !at.IsZero() {
		t.Errorf("due at %v, and there is nothing left", at)
	}
	second := e.Grants[0].Server
	l.Connected(second, nil, start)
	if e := l.Release(second, false, start.Add(11*time.Second)); len(e.Grants) != 1 || e.Grants[0].Waiter != late {
		t.Fatalf("whoever waits has the reserve's server next: %+v", e)
	}
	l.Release(second, false, start.Add(12*time.Second))
	l.Release(first, false, start.Add(13*time.Second))
	if e := l.Expire(start.Add(14 * time.Second)); len(e.Close) != 1 || e.Close[0] != second {
		t.Errorf("the reserve is closed when nobody waits: %+v", e)
	}
}

// TestNobodyStarves: a group whose clients are always there leaves a share of
// what all have in common to one that comes later, and no more than that.
func TestNobodyStarves(t *testing.T) {
	for places := 1; places <= 5; places++ {
		inTurns(t, places)
	}
}

func inTurns(t *testing.T, places int) {
	t.Helper()
	now := time.Unix(0, 0)
	l := NewLedger(Limits{MaxServers: places})
	busy, late := Key{Group: Group{Database: "a", User: "x"}}, Key{Group: Group{Database: "b", User: "y"}}
	used := open(t, l, busy, places, now)
	served, closed := make(map[Group]int), 0
	ask := func(k Key) { l.Ask(&Waiter{Key: k, Since: now}, now) }
	for range 10 {
		ask(busy)
	}
	for range 10 {
		ask(late)
	}
	for range 200 {
		now = now.Add(time.Millisecond)
		s := used[0]
		used = used[1:]
		e := l.Release(s, false, now)
		closed += len(e.Close)
		for _, g := range e.Grants {
			if g.Server.State() == Connecting {
				l.Connected(g.Server, nil, now)
			}
			used = append(used, g.Server)
			served[g.Server.Key.Group]++
			ask(g.Server.Key)
		}
	}
	if a, b := served[busy.Group], served[late.Group]; min(a, b) < 200*(places/2)/places-10 || min(a, b) == 0 {
		t.Errorf("%d servers: of 200 turns one group had %d and the other %d", places, a, b)
	}
	if places > 1 && closed != places/2 {
		t.Errorf("%d servers changed hands, %d of %d are a fair share", closed, places/2, places)
	}
}

// TestAnIdleServerMakesRoomForAnother: of whom they share the limit with, and
// nobody else's.
func TestAnIdleServerMakesRoomForAnother(t *testing.T) {
	one := func(string) int { return 1 }
	for _, c := range []struct {
		what   string
		limits Limits
		idle   Group
		makes  bool
	}{
		{"all", Limits{MaxServers: 1}, Group{Database: "b", User: "y"}, true},
		{"the database", Limits{OfDatabase: one}, Group{Database: "a", User: "y"}, true},
		{"another database", Limits{OfDatabase: one, MaxServers: 2}, Group{Database: "b", User: "x"}, false},
		{"the user", Limits{OfUser: one}, Group{Database: "b", User: "x"}, true},
		{"another user", Limits{OfUser: one, MaxServers: 2}, Group{Database: "a", User: "y"}, false},
	} {
		now := time.Unix(0, 0)
		l := NewLedger(c.limits)
		s := open(t, l, Key{Group: c.idle}, 1, now)[0]
		l.Release(s, false, now)
		e := l.Ask(&Waiter{Key: Key{Group: Group{Database: "a", User: "x"}}}, now)
		if len(e.Grants) != 1 || (s.State() == Gone) != c.makes {
			t.Errorf("%s: %+v, and the idle one is %v", c.what, e, s.State())
		}
	}
}

func TestLimitsCanChange(t *testing.T) {
	l := NewLedger(Limits{Quota: Quota{Size: 2}})
	now := time.Unix(0, 0)
	w := &Waiter{}
	a, b := l.Ask(&Waiter{}, now).Grants[0].Server, l.Ask(&Waiter{}, now).Grants[0].Server
	for _, s := range []*Server{a, b} {
		l.Connected(s, nil, now)
	}
	l.Ask(w, now)
	e := l.SetLimits(Limits{Quota: Quota{Size: 3}}, now)
	if len(e.Grants) != 1 || e.Grants[0].Waiter != w {
		t.Errorf("a higher limit lets the waiter in: %+v", e)
	}
	l.SetLimits(Limits{Quota: Quota{Size: 2}}, now)
	if e := l.Release(a, false, now); len(e.Close) != 1 || a.State() != Gone {
		t.Errorf("one server too many goes when it becomes idle: %+v", e)
	}
	if e := l.Release(b, false, now); len(e.Close) != 0 || b.State() != Idle {
		t.Errorf("the others stay: %+v", e)
	}
}

// TestAGrantThatIsLostBeforeItIsTaken: a waiter gives up at the moment in which
// it was granted an idle server, and that server dies.
func TestAGrantThatIsLostBeforeItIsTaken(t *testing.T) {
	now := time.Unix(0, 0)
	p := New(Limits{Quota: Quota{Size: 1}}, func(any) {}, func() time.Time { return now })
	s, err := p.Get(t.Context(), Key{})
	if err != nil {
		t.Fatal(err)
	}
	p.Connected(s, "a connection")
	w := NewWaiter(nil)
	w.Since = now
	p.apply(p.ledger.Ask(w, now))
	p.Release(s, false)
	p.Remove(s)
	p.Leave(w)
	if f := p.Figures(); len(f) != 1 || f[0].Servers != [states]int{} {
		t.Errorf("%+v", f)
	}
}

// BenchmarkTakeAndRelease is what every transaction costs here.
func BenchmarkTakeAndRelease(b *testing.B) {
	now := time.Unix(0, 0)
	l := NewLedger(Limits{MaxServers: 80, Quota: Quota{Size: 20, Lifetime: time.Hour}})
	for range 10 {
		s := l.Ask(&Waiter{}, now).Grants[0].Server
		l.Connected(s, nil, now)
		defer l.Release(s, false, now)
	}
	s := l.Ask(&Waiter{}, now).Grants[0].Server
	l.Connected(s, nil, now)
	l.Release(s, false, now)
	b.ReportAllocs()
	for b.Loop() {
		s := l.Take(Key{}, AnyLane, now)
		l.Release(s, false, now)
	}
}
