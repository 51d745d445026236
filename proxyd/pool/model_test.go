package pool

import (
	"fmt"
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
	opened  map[*Server]time.Time
	since   map[*Server]time.Time // in its state
	waiters []*Waiter             // oldest first
	now     time.Time
}

func (n *naive) count(match func(*Server, State) bool) (c int) {
	for _, s := range n.servers {
		if n.state[s] != Gone && match(s, n.state[s]) {
			c++
		}
	}
	return c
}

// share is a limit that servers have in common.
type share struct {
	what  string
	limit int
	of    func(Group) bool
}

// shares lists the limits that hold for a group beside its own.
func (n *naive) shares(g Group) []share {
	return []share{
		{"database " + g.Database, n.limits.ofDatabase(g.Database), func(o Group) bool { return o.Database == g.Database }},
		{"user " + g.User, n.limits.ofUser(g.User), func(o Group) bool { return o.User == g.User }},
		{"all", n.limits.MaxServers, func(Group) bool { return true }},
	}
}

// used counts the servers of a share, and those that are idle.
func (n *naive) used(s share) (all, idle int) {
	all = n.count(func(x *Server, _ State) bool { return s.of(x.Key.Group) })
	return all, n.count(func(x *Server, st State) bool { return st == Idle && s.of(x.Key.Group) })
}

// roomFor says whether a waiter's own group leaves room for one more.
func (n *naive) roomFor(w *Waiter) bool {
	q := n.limits.quota(w.Key.Group)
	size := n.count(func(s *Server, _ State) bool { return s.Key.Group == w.Key.Group })
	allowed := q.Size
	if n.now.Sub(w.Since) >= q.ReserveDelay {
		allowed += q.Reserve
	}
	return q.Size <= 0 || size < allowed
}

// servable says whether a waiter could be served with what there is.
func (n *naive) servable(w *Waiter) bool {
	if n.count(func(s *Server, st State) bool { return st == Idle && s.Key == w.Key }) > 0 {
		return true
	}
	own := n.count(func(s *Server, st State) bool { return st == Idle && s.Key.Group == w.Key.Group })
	if !n.roomFor(w) && own == 0 {
		return false
	}
	for _, s := range n.shares(w.Key.Group) {
		if all, idle := n.used(s); s.limit > 0 && all >= s.limit && idle == 0 {
			return false
		}
	}
	return true
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
	if total := n.count(func(*Server, State) bool { return true }); l.all.servers != total {
		fail("%d servers, the model has %d", l.all.servers, total)
	}
	waiting := 0
	for _, f := range l.Figures(n.now) {
		waiting += f.Waiting
		sum := 0
		for _, c := range f.Servers {
			sum += c
		}
		if q := n.limits.quota(f.Group); q.Size > 0 && sum > q.Size+q.Reserve {
			fail("%d servers in %v, at most %d and %d in reserve are allowed", sum, f.Group, q.Size, q.Reserve)
		}
		for _, s := range n.shares(f.Group) {
			if all, _ := n.used(s); s.limit > 0 && all > s.limit {
				fail("%d servers of %s, at most %d are allowed", all, s.what, s.limit)
			}
		}
	}
	if waiting != len(n.waiters) {
		fail("%d wait, the model has %d", waiting, len(n.waiters))
	}
	for _, w := range n.waiters {
		if n.servable(w) && !n.laterReserve(w) {
			fail("a client waits that could be served")
		}
	}
}

// laterReserve says whether it is the reserve alone that a waiter may have by
// now: that is looked after by Expire.
func (n *naive) laterReserve(w *Waiter) bool {
	q := n.limits.quota(w.Key.Group)
	size := n.count(func(s *Server, _ State) bool { return s.Key.Group == w.Key.Group })
	return q.Size > 0 && size >= q.Size && q.Reserve > 0
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
		*history = append(*history, fmt.Sprintf("  grant %v %v", g.Server.Key.Group, g.Server.State()))
		at := slices.Index(n.waiters, g.Waiter)
		if at < 0 {
			t.Fatal("a grant to somebody who does not wait")
		}
		for _, w := range n.waiters[:at] {
			if w.Key.Group == g.Waiter.Key.Group {
				t.Fatal("a client was served before another of its group that waits longer")
			}
		}
		inPlaceOfAnother := slices.ContainsFunc(e.Close, func(s *Server) bool { return s.Key.Group == g.Waiter.Key.Group })
		if g.Server.State() == Connecting && !inPlaceOfAnother && !n.roomFor(g.Waiter) {
			t.Fatalf("a client that waited for %v has a server beyond the size", n.now.Sub(g.Waiter.Since))
		}
		n.waiters = slices.Delete(n.waiters, at, at+1)
		if g.Server.Key != g.Waiter.Key {
			t.Fatal("a client was given a server of another key")
		}
		n.adopt(g.Server)
	}
}

// adopt enters a server as the real ledger has it.
func (n *naive) adopt(s *Server) {
	if !slices.Contains(n.servers, s) {
		n.servers = append(n.servers, s)
	}
	n.state[s] = s.State()
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
func (n *naive) step(t *testing.T, l *Ledger, op int, key Key, r *rand.Rand) (e Effects) {
	t.Helper()
	switch op {
	case 0, 1, 2:
		w := &Waiter{Key: key, Since: n.now}
		n.waiters = append(n.waiters, w)
		e = l.Ask(w, n.now)
	case 3:
		if s := l.Take(key, r.Intn(3)-1, n.now); s != nil {
			n.state[s] = Active
		}
	case 4:
		if s := n.pick(r, Connecting); s != nil {
			s.Lane = r.Intn(2)
			l.Connected(s, nil, n.now)
			n.state[s], n.opened[s] = Active, n.now
		}
	case 5, 6:
		if s := n.pick(r, Active); s != nil {
			dirty := r.Intn(3) == 0
			if n.state[s], n.since[s] = Idle, n.now; dirty {
				n.state[s] = Cleaning
			}
			e = l.Release(s, dirty, n.now)
			n.checkYield(t, s, e)
		}
	case 7:
		if s := n.pick(r, Cleaning); s != nil {
			n.state[s], n.since[s] = Idle, n.now
			e = l.Cleaned(s, n.now)
		}
	case 8:
		if s := n.pick(r, []State{Connecting, Idle, Active, Cleaning}[r.Intn(4)]); s != nil {
			n.state[s] = Gone
			e = l.Remove(s, n.now)
		}
	case 9:
		if len(n.waiters) > 0 {
			at := r.Intn(len(n.waiters))
			if !l.Leave(n.waiters[at]) {
				t.Fatal("somebody who waits cannot leave")
			}
			n.waiters = slices.Delete(n.waiters, at, at+1)
		}
	case 10:
		n.fill(t, l, key)
	case 11:
		e = l.Expire(n.now)
		n.checkExpired(t, e)
	}
	return e
}

// checkYield: a server that is given back serves its own group only where no
// smaller group's waiter, kept out by a limit that both share, waits longer.
func (n *naive) checkYield(t *testing.T, s *Server, e Effects) {
	t.Helper()
	if len(e.Grants) != 1 || e.Grants[0].Server != s {
		return
	}
	size := func(g Group) int {
		return n.count(func(x *Server, _ State) bool { return x.Key.Group == g })
	}
	for _, w := range n.waiters {
		if w == e.Grants[0].Waiter {
			return
		}
		g := w.Key.Group
		if g == s.Key.Group || size(g) > 0 && size(g)+1 >= size(s.Key.Group) || !n.roomFor(w) {
			continue
		}
		kept := false
		for _, share := range n.shares(g) {
			if all, _ := n.used(share); share.limit > 0 && all >= share.limit {
				if kept = share.of(s.Key.Group); !kept {
					break
				}
			}
		}
		if kept {
			t.Fatalf("a waiter of %v was passed by for one of %v, which has more", g, s.Key.Group)
		}
	}
}

// fill keeps to every limit, and does not go in the way of somebody who waits.
func (n *naive) fill(t *testing.T, l *Ledger, key Key) {
	t.Helper()
	waits := slices.ContainsFunc(n.waiters, func(w *Waiter) bool { return w.Key.Group == key.Group })
	places := l.Fill(key, n.now)
	if waits && len(places) > 0 {
		t.Fatal("a minimum was filled before those that wait")
	}
	for _, s := range places {
		n.adopt(s)
	}
	short := n.limits.quota(key.Group).Min - n.count(func(s *Server, _ State) bool { return s.Key.Group == key.Group })
	if short < 0 && len(places) > 0 {
		t.Fatal("more was filled than the minimum")
	}
	if waits || short <= 0 || !n.roomFor(&Waiter{Key: key, Since: n.now}) {
		return
	}
	for _, s := range n.shares(key.Group) {
		if all, _ := n.used(s); s.limit > 0 && all >= s.limit {
			return
		}
	}
	t.Fatalf("%d servers are short of the minimum, and there is room", short)
}

// checkExpired: what is closed had its time or was too much, and what stays has
// some left or is part of the minimum.
func (n *naive) checkExpired(t *testing.T, e Effects) {
	t.Helper()
	size := func(g Group) int {
		return n.count(func(x *Server, _ State) bool { return x.Key.Group == g && !slices.Contains(e.Close, x) })
	}
	for _, s := range n.servers {
		if n.state[s] != Idle {
			continue
		}
		q := n.limits.quota(s.Key.Group)
		age, idle := n.now.Sub(n.opened[s]), n.now.Sub(n.since[s])
		mayBeOld := q.Lifetime > 0 && float64(age) >= (1-spread)*float64(q.Lifetime)
		mustBeOld := q.Lifetime > 0 && age >= q.Lifetime
		tired := q.Idle > 0 && idle >= q.Idle
		switch closed := slices.Contains(e.Close, s); {
		case closed && !mayBeOld && !tired && (q.Size <= 0 || size(s.Key.Group) < q.Size) && len(e.Grants) == 0:
			t.Fatalf("a server was closed after %v, %v of them idle", age, idle)
		case closed && !mayBeOld && tired && size(s.Key.Group) < q.Min && len(e.Grants) == 0:
			t.Fatal("a server of the minimum was closed because it was idle")
		case closed:
		case mustBeOld:
			t.Fatalf("a server of %v stays", age)
		case tired && size(s.Key.Group) > q.Min && len(e.Grants) == 0:
			t.Fatalf("a server that was idle for %v stays", idle)
		}
	}
}

// someLimits makes limits at random.
func someLimits(r *rand.Rand) Limits {
	quotas, databases, users := make(map[Group]Quota), make(map[string]int), make(map[string]int)
	for _, d := range []string{"a", "b"} {
		databases[d] = r.Intn(6)
		for _, u := range []string{"x", "y"} {
			users[u] = r.Intn(6)
			size := r.Intn(4)
			quotas[Group{Database: d, User: u}] = Quota{Size: size, Reserve: r.Intn(2), ReserveDelay: 5 * time.Second, Min: r.Intn(size + 1),
				Idle: time.Duration(r.Intn(30)) * time.Second, Lifetime: time.Duration(r.Intn(60)) * time.Second}
		}
	}
	return Limits{MaxServers: r.Intn(7), Quotas: func(g Group) Quota { return quotas[g] },
		OfDatabase: func(d string) int { return databases[d] }, OfUser: func(u string) int { return users[u] }}
}

func TestLedgerAgainstANaiveModel(t *testing.T) {
	for seed := range int64(150) {
		r := rand.New(rand.NewSource(seed))
		limits := someLimits(r)
		l, n := NewLedger(limits), &naive{limits: limits, state: make(map[*Server]State),
			opened: make(map[*Server]time.Time), since: make(map[*Server]time.Time)}
		n.now = time.Unix(0, 0)
		var history []string
		for range 300 {
			n.now = n.now.Add(time.Second)
			key := Key{Group: Group{Database: string(rune('a' + r.Intn(2))), User: string(rune('x' + r.Intn(2)))}, Params: string(rune('p' + r.Intn(2)))}
			op := r.Intn(12)
			history = append(history, fmt.Sprintf("op %d %v", op, key))
			e := n.step(t, l, op, key, r)
			n.apply(t, e, &history)
			n.check(t, l, history)
		}
	}
}
