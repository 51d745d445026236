package sim

import (
	"context"
	"iter"
	"math/rand/v2"
	"time"
)

// epoch is when every run begins.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// event is something that happens at a moment.
type event struct {
	at  time.Duration
	seq uint64 // order among those of one moment
	do  func()
}

// events is a heap, the earliest first. It is written out because a run lives
// of it: container/heap would allocate for every event.
type events []event

func (e events) before(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}

func (e *events) push(x event) {
	*e = append(*e, x)
	q := *e
	for i := len(q) - 1; i > 0; {
		up := (i - 1) / 2
		if !q.before(i, up) {
			return
		}
		q[i], q[up] = q[up], q[i]
		i = up
	}
}

func (e *events) pop() event {
	q := *e
	first, last := q[0], len(q)-1
	q[0], q[last] = q[last], event{}
	q = q[:last]
	*e = q
	for i := 0; ; {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(q); c++ {
			if q.before(c, least) {
				least = c
			}
		}
		if least == i {
			return first
		}
		q[i], q[least] = q[least], q[i]
		i = least
	}
}

// schedule is virtual time: what is to happen, and the tasks that wait.
type schedule struct {
	rng   *rand.Rand
	now   time.Duration
	seq   uint64
	queue events
	tasks []*task
	cur   *task // the task that runs; nil while the engine's loop or the world does
	hash  uint64
	steps int
}

// task is a piece of the daemon that waits for the world: an operation. It is
// a coroutine, so that only one thing ever runs.
type task struct {
	next   func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
	ctx    context.Context // what it waits under, while it waits
	parked bool
	ready  bool // it is scheduled to go on
	turn   int  // which wait it is in; a wake for another does nothing
	over   bool
}

// killed is how a task, or the engine's loop, ends when its daemon is killed:
// nothing of it may happen any more.
type killed struct{}

func (s *schedule) at(d time.Duration, do func()) {
	s.seq++
	s.queue.push(event{s.now + max(d, 0), s.seq, do})
}

// run lets things happen until the moment until.
func (s *schedule) run(until time.Duration, after func() bool) {
	for len(s.queue) > 0 && s.queue[0].at <= until {
		e := s.queue.pop()
		s.now = e.at
		s.steps++
		e.do()
		s.wakeEnded()
		if !after() {
			return
		}
	}
	s.now = max(s.now, until)
}

// wakeEnded lets the tasks go on whose context has ended.
func (s *schedule) wakeEnded() {
	for i := 0; i < len(s.tasks); i++ {
		t := s.tasks[i]
		if t.parked && !t.ready && t.ctx.Err() != nil {
			s.resume(t)
			i = -1 // it may have changed the list
		}
	}
}

// spawn starts a task at once, in the schedule's own time.
func (s *schedule) spawn(f func()) {
	t := &task{}
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		defer func() {
			if r := recover(); r != nil {
				if _, ok := r.(killed); !ok {
					panic(r)
				}
			}
		}()
		f()
	})
	s.tasks = append(s.tasks, t)
	s.at(0, func() { s.resume(t) })
}

func (s *schedule) resume(t *task) {
	if t.over {
		return
	}
	t.parked, t.ready = false, false
	before := s.cur
	s.cur = t
	_, more := t.next()
	s.cur = before
	if !more {
		s.forget(t)
	}
}

func (s *schedule) forget(t *task) {
	t.over = true
	for i, x := range s.tasks {
		if x == t {
			s.tasks = append(s.tasks[:i:i], s.tasks[i+1:]...)
			return
		}
	}
}

// killTasks ends all tasks: whatever they were about to do is not done.
func (s *schedule) killTasks() {
	for _, t := range append([]*task(nil), s.tasks...) {
		if t == s.cur {
			continue // it ends itself, by its panic
		}
		t.over = true
		t.stop()
		s.forget(t)
	}
}

// wait parks the running task until wake is called, or until ctx ends, whose
// error it then returns. A wake that comes after that does nothing.
func (s *schedule) wait(ctx context.Context, arrange func(wake func())) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t := s.cur
	t.turn++
	turn := t.turn
	woken := false
	t.ctx, t.parked = ctx, true
	arrange(func() {
		if t.turn != turn || woken || t.over {
			return
		}
		woken, t.ready = true, true
		s.at(0, func() {
			if t.turn == turn && t.parked {
				s.resume(t)
			}
		})
	})
	if !t.yield(struct{}{}) {
		panic(killed{})
	}
	t.turn++
	if woken {
		return nil
	}
	return ctx.Err()
}

// note puts what happened into the hash.
func (s *schedule) note(kind string, values ...uint64) {
	const prime = 1099511628211
	h := (s.hash ^ uint64(s.now)) * prime
	for i := range len(kind) {
		h = (h ^ uint64(kind[i])) * prime
	}
	for _, v := range values {
		h = (h ^ v) * prime
	}
	s.hash = h
}

// chance is true with a probability of p.
func (s *schedule) chance(p float64) bool { return s.rng.Float64() < p }

// between draws a duration, evenly.
func (s *schedule) between(a, b time.Duration) time.Duration {
	return a + time.Duration(s.rng.Int64N(int64(b-a)+1))
}

// wall is the daemon's clock. skew is how far its time of day is off.
type wall struct {
	*schedule
	skew time.Duration
}

// Now is the daemon's time of day.
func (w wall) Now() time.Time { return epoch.Add(w.now + w.skew) }

// bounded is a context that a virtual moment ends.
type bounded struct {
	context.Context
	late *bool
}

func (b bounded) Err() error {
	if err := b.Context.Err(); err != nil {
		if *b.late {
			return context.DeadlineExceeded
		}
		return err
	}
	return nil
}

// Timeout ends the context after d of virtual time.
func (w wall) Timeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	inner, cancel := context.WithCancel(ctx)
	b := bounded{inner, new(bool)}
	w.at(d, func() {
		if inner.Err() == nil {
			*b.late = true
			cancel()
		}
	})
	return b, cancel
}

// coarse is the shortest wait: a poll every few milliseconds tells the model
// nothing that one every few dozen does not.
const coarse = 15 * time.Millisecond

// Sleep waits in virtual time.
func (w wall) Sleep(ctx context.Context, d time.Duration) error {
	if w.cur == nil {
		return ctx.Err() // the loop itself does not wait
	}
	return w.wait(ctx, func(wake func()) { w.at(max(d, coarse), wake) })
}
