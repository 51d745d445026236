//go:build linux && !portable

package relay

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Loop is one thread that waits for its connections.
type Loop struct {
	number int
	epoll  int
	bell   int // an eventfd, readable when there is something in the inbox

	// asleep is set while the loop waits with an empty inbox, and only then
	// has Post to ring.
	asleep atomic.Bool

	mu    sync.Mutex
	inbox []Task
	ended bool

	// Of the loop's own thread alone.
	busy  bool
	conns []*Conn // by the number that epoll gives back
	free  []int32
	done  chan struct{}
}

// eventsAtOnce is how many ready connections one call may give. The inbox is
// looked at between two calls.
const eventsAtOnce = 256

// bellSlot is the number under which epoll knows the bell.
const bellSlot = -1

// FD_CLOEXEC and O_NONBLOCK by the names of eventfd(2).
const (
	efdCloexec  = syscall.O_CLOEXEC
	efdNonblock = syscall.O_NONBLOCK
)

func newLoop() (*Loop, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an event loop: %w", os.NewSyscallError("epoll_create1", err))
	}
	bell, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, efdCloexec|efdNonblock, 0)
	if errno != 0 {
		syscall.Close(epoll) //nolint:errcheck // nothing was done with it
		return nil, fmt.Errorf("make an event loop: %w", os.NewSyscallError("eventfd2", errno))
	}
	l := &Loop{epoll: epoll, bell: int(bell), done: make(chan struct{})}
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: bellSlot}
	if err := syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, l.bell, &ev); err != nil {
		l.release()
		return nil, fmt.Errorf("make an event loop: %w", os.NewSyscallError("epoll_ctl", err))
	}
	go l.run()
	return l, nil
}

func (l *Loop) release() {
	syscall.Close(l.bell)  //nolint:errcheck // ours alone
	syscall.Close(l.epoll) //nolint:errcheck // ours alone
}

// Post lets the loop run t soon, after what was posted before. It may be
// called from anywhere, the loop included, and does not block.
func (l *Loop) Post(t Task) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.inbox = append(l.inbox, t)
	if l.asleep.Load() && l.asleep.CompareAndSwap(true, false) {
		l.ring()
	}
}

func (l *Loop) ring() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	syscall.Write(l.bell, one[:]) //nolint:errcheck // full means rung
}

func (l *Loop) close() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.ring()
	<-l.done
	l.release()
}

// run waits and works until close. It has a thread to itself, so that what it
// costs can be seen, and so that no goroutine is ever put behind it.
func (l *Loop) run() {
	runtime.LockOSThread()
	defer close(l.done)
	events := make([]syscall.EpollEvent, eventsAtOnce)
	var tasks []Task
	for {
		n := l.wait(events)
		l.asleep.Store(false)
		for _, ev := range events[:n] {
			if ev.Fd == bellSlot {
				l.hush()
			} else if c := l.conns[ev.Fd]; c != nil {
				c.event(ev.Events)
			}
		}
		var ended bool
		if tasks, ended = l.take(tasks[:0]); ended && len(tasks) == 0 {
			return
		}
		for i, t := range tasks {
			t.Run()
			tasks[i] = nil
		}
	}
}

// hold is how long a busy loop waits without letting go of its place in Go's
// scheduler. To let go of it and take it again costs little by itself, but it
// keeps the runtime's monitor awake, which then looks around every 20
// microseconds: a quarter of what the loop itself needs. It is shorter than
// the 10 ms after which the monitor would ask for the place by a signal, which
// ends the wait, too.
const hold = 5 * time.Millisecond

// wait waits for events or the bell. An idle loop waits as any goroutine does.
func (l *Loop) wait(events []syscall.EpollEvent) int {
	empty := l.lieDown()
	if l.busy || !empty {
		ms := hold.Milliseconds()
		if !empty {
			ms = 0
		}
		n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(ms), 0, 0)
		switch {
		case errno == syscall.EINTR:
			return 0
		case errno != 0:
			panic(os.NewSyscallError("epoll_pwait", errno)) // only a wrong argument gives another error
		case n > 0 || !empty:
			return int(n)
		}
		l.busy = false
	}
	began := time.Now()
	n, err := syscall.EpollWait(l.epoll, events, -1)
	if err != nil && err != syscall.EINTR {
		panic(os.NewSyscallError("epoll_wait", err)) // as above
	}
	l.busy = time.Since(began) < hold
	return max(0, n)
}

// lieDown says whether the inbox is empty; whoever fills it from then on has to
// ring.
func (l *Loop) lieDown() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.inbox) > 0 || l.ended {
		return false
	}
	l.asleep.Store(true)
	return true
}

// take empties the inbox into a slice that is used again.
func (l *Loop) take(into []Task) (tasks []Task, ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	tasks, l.inbox = l.inbox, into
	return tasks, l.ended
}

func (l *Loop) hush() {
	var b [8]byte
	syscall.Read(l.bell, b[:]) //nolint:errcheck // empty means hushed
}

// slot gives a connection its number.
func (l *Loop) slot(c *Conn) int32 {
	if n := len(l.free); n > 0 {
		i := l.free[n-1]
		l.free = l.free[:n-1]
		l.conns[i] = c
		return i
	}
	l.conns = append(l.conns, c)
	return int32(len(l.conns) - 1)
}

// unslot takes it back. What this round of events still has for the number is
// for nobody; it is given away in a later round only.
func (l *Loop) unslot(i int32) {
	l.conns[i] = nil
	l.free = append(l.free, i)
}
