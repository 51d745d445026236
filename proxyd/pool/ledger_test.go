package pool

import (
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"testing"
	"time"
)

// naive is the ledger as one would write it without caring for speed: a list
// of servers and a list of waiters, searched from the beginning each time.
type naive struct {
	limits  Limits
	servers []*Server // in the real ledger's hands; naive keeps its own states
	state   map[*Server]State
	waiters []*Waiter
}

func (n *naive) count(match func(*Server, State) bool) (c int) {
	for _, s := range n.servers {
		if n.state[s] != Gone && match(s, n.state[s]) {
			c++
		}
	}
	return c
}

// servable says whether a waiter could be served with what there is.
func (n *naive) servable(w *Waiter) bool {
	idleOfKey := n.count(func(s *Server, st State) bool { return st == Idle && s.Key == w.Key })
	idleOfGroup := n.count(func(s *Server, st State) bool { return st == Idle && s.Key.Group == w.Key.Group })
	idle := n.count(func(_ *Server, st State) bool { return st == Idle })
	group := n.count(func(s *Server, _ State) bool { return s.Key.Group == w.Key.Group })
	total := n.count(func(*Server, State) bool { return true })
	if idleOfKey > 0 {
		return true
	}
	roomInGroup := n.limits.PoolSize <= 0 || group < n.limits.PoolSize || idleOfGroup > 0
	room := n.limits.MaxServers <= 0 || total < n.limits.MaxServers || idle > 0
	return roomInGroup && room
}

// check compares the two after an operation and its effects.
func (n *naive) check(t *testing.T, l *Ledger, history []string) {
	t.Helper()
	fail := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("%s\nafter:\n%v", fmt.Sprintf(format, args...), history[max(0, len(history)-30):])
	}
	for _, s := range n.servers {
		if s.State() != n.state[s] {
			fail("a server is %v, the model says %v", s.State(), n.state[s])
		}
	}
	total := n.count(func(*Server, State) bool { return true })
	if l.total != total {
		fail("%d servers, the model has %d", l.total, total)
	}
	if n.limits.MaxServers > 0 && total > n.limits.MaxServers {
		fail("%d servers, at most %d are allowed", total, n.limits.MaxServers)
	}
	waiting := 0
	for _, f := range l.Figures(time.Time{}) {
		waiting += f.Waiting
		sum := 0
		for _, c := range f.Servers {
			sum += c
		}
		if n.limits.PoolSize > 0 && sum > n.limits.PoolSize {
			fail("%d servers in %v, at most %d are allowed", sum, f.Group, n.limits.PoolSize)
		}
	}
	if waiting != len(n.waiters) {
		fail("%d wait, the model has %d", waiting, len(n.waiters))
	}
	for _, w := range n.waiters {
		if n.servable(w) {
			fail("a client waits that could be served")
		}
	}
}

// apply follows the real ledger's choices, checking that each is allowed.
func (n *naive) apply(t *testing.T, e Effects, history *[]string) {
	t.Helper()
	for _, s := range e.Close {
		*history = append(*history, "  close")
		if n.state[s] != Idle && n.state[s] != Active { // an Active one was idle a moment ago
			t.Fatalf("a server is closed that is %v", n.state[s])
		}
		n.state[s] = Gone
	}
	for _, g := range e.Grants {
		*history = append(*history, fmt.Sprintf("  grant %v", g.Server.State()))
		at := slices.Index(n.waiters, g.Waiter)
		if at < 0 {
			t.Fatal("a grant to somebody who does not wait")
		}
		for _, w := range n.waiters[:at] {
			if w.Key == g.Waiter.Key {
				t.Fatal("a client was served before another that waits longer for the same")
			}
		}
		n.waiters = slices.Delete(n.waiters, at, at+1)
		if g.Server.Key != g.Waiter.Key {
			t.Fatal("a client was given a server of another key")
		}
		if !slices.Contains(n.servers, g.Server) {
			n.servers = append(n.servers, g.Server)
		}
		n.state[g.Server] = g.Server.State()
	}
}

// pick chooses a server in the state, nil where there is none.
func (n *naive) pick(r *rand.Rand, st State) *Server {
	var all []*Server
	for _, s := range n.servers {
		if n.state[s] == st {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[r.Intn(len(all))]
}

// step does one operation on both.
func (n *naive) step(t *testing.T, l *Ledger, op int, key Key, r *rand.Rand, now time.Time) (e Effects) {
	t.Helper()
	switch op {
	case 0, 1, 2:
		w := &Waiter{Key: key, Since: now}
		n.waiters = append(n.waiters, w)
		e = l.Ask(w, now)
	case 3:
		if s := l.Take(key, r.Intn(3)-1, now); s != nil {
			n.state[s] = Active
		}
	case 4:
		if s := n.pick(r, Connecting); s != nil {
			s.Lane = r.Intn(2)
			l.Connected(s, nil, now)
			n.state[s] = Active
		}
	case 5, 6:
		if s := n.pick(r, Active); s != nil {
			dirty := r.Intn(3) == 0
			n.state[s] = Idle
			if dirty {
				n.state[s] = Cleaning
			}
			e = l.Release(s, dirty, now)
		}
	case 7:
		if s := n.pick(r, Cleaning); s != nil {
			n.state[s] = Idle
			e = l.Cleaned(s, now)
		}
	case 8:
		if s := n.pick(r, []State{Connecting, Idle, Active, Cleaning}[r.Intn(4)]); s != nil {
			n.state[s] = Gone
			e = l.Remove(s, now)
		}
	case 9:
		switch {
		case len(n.waiters) > 0 && r.Intn(2) == 0:
			at := r.Intn(len(n.waiters))
			if !l.Leave(n.waiters[at]) {
				t.Fatal("somebody who waits cannot leave")
			}
			n.waiters = slices.Delete(n.waiters, at, at+1)
		default:
			e = l.Expire(20*time.Second, 0, now)
		}
	}
	return e
}

func TestLedgerAgainstANaiveModel(t *testing.T) {
	for seed := range int64(60) {
		r := rand.New(rand.NewSource(seed))
		limits := Limits{PoolSize: r.Intn(4), MaxServers: r.Intn(6)}
		l, n := NewLedger(limits), &naive{limits: limits, state: make(map[*Server]State)}
		now := time.Unix(0, 0)
		var history []string
		for range 300 {
			now = now.Add(time.Second)
			key := Key{Group: Group{Database: string(rune('a' + r.Intn(2))), User: "u"}, Params: string(rune('p' + r.Intn(2)))}
			op := r.Intn(10)
			history = append(history, fmt.Sprintf("op %d %v", op, key))
			e := n.step(t, l, op, key, r, now)
			n.apply(t, e, &history)
			n.check(t, l, history)
		}
	}
}

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
	l := NewLedger(Limits{PoolSize: 1})
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
	l := NewLedger(Limits{})
	start := time.Unix(0, 0)
	s := l.Ask(&Waiter{}, start).Grants[0].Server
	l.Connected(s, nil, start)
	l.Release(s, false, start.Add(time.Minute))
	for _, c := range []struct {
		what           string
		idle, lifetime time.Duration
		at             time.Duration
		gone           bool
	}{
		{"never", 0, 0, time.Hour, false},
		{"not idle long enough", 2 * time.Minute, 0, 2 * time.Minute, false},
		{"too old", 0, 2 * time.Minute, 2 * time.Minute, true},
	} {
		if e := l.Expire(c.idle, c.lifetime, start.Add(c.at)); (len(e.Close) == 1) != c.gone {
			t.Errorf("%s: closed %d", c.what, len(e.Close))
		}
	}
}

func TestLimitsCanChange(t *testing.T) {
	l := NewLedger(Limits{PoolSize: 2})
	now := time.Unix(0, 0)
	w := &Waiter{}
	a, b := l.Ask(&Waiter{}, now).Grants[0].Server, l.Ask(&Waiter{}, now).Grants[0].Server
	for _, s := range []*Server{a, b} {
		l.Connected(s, nil, now)
	}
	l.Ask(w, now)
	e := l.SetLimits(Limits{PoolSize: 3}, now)
	if len(e.Grants) != 1 || e.Grants[0].Waiter != w {
		t.Errorf("a higher limit lets the waiter in: %+v", e)
	}
	l.SetLimits(Limits{PoolSize: 2}, now)
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
	p := New(Limits{PoolSize: 1}, func(any) {}, func() time.Time { return now })
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
