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
)

// Loop is one thread that waits for its connections.
type Loop struct {
	epoll int
	bell  int // an eventfd, readable when there is something in the inbox

	// asleep is set while the loop waits with an empty inbox, and only then
	// has Post to ring.
	asleep atomic.Bool

	mu    sync.Mutex
	inbox []Task
	ended bool

	// Of the loop's own thread alone.
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
		n, err := syscall.EpollWait(l.epoll, events, l.patience())
		l.asleep.Store(false)
		if err != nil && err != syscall.EINTR {
			panic(os.NewSyscallError("epoll_wait", err)) // only a wrong argument gives another error
		}
		for _, ev := range events[:max(0, n)] {
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

// patience is how long to wait: until the bell rings, or not at all.
func (l *Loop) patience() (ms int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.inbox) > 0 || l.ended {
		return 0
	}
	l.asleep.Store(true)
	return -1
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
