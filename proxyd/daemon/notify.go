package daemon

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// notifier speaks to the service manager (sd_notify(3)). Without one, every
// method does nothing.
type notifier struct {
	log      *slog.Logger
	send     func(state string) error
	now      func() time.Time
	interval time.Duration // between watchdog pings; 0: no watchdog

	mu     sync.Mutex
	deaf   bool // the manager did not hear the last word
	ready  bool
	status string
	beat   time.Time
}

func newNotifier(log *slog.Logger, now func() time.Time) *notifier {
	n := &notifier{log: log, now: now, send: func(s string) error {
		_, err := daemon.SdNotify(false, s)
		return err
	}}
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the service manager's watchdog settings cannot be read", "error", err)
	}
	n.interval = limit / 4
	return n
}

// tell complains once about a manager that does not listen, not at each word.
func (n *notifier) tell(state string) {
	err := n.send(state)
	n.mu.Lock()
	news := err != nil && !n.deaf
	n.deaf = err != nil
	n.mu.Unlock()
	if news {
		n.log.Warn("the service manager cannot be told", "what", state, "error", err)
	}
}

// Beat is the engine's own sign of life. It is called in each of its turns, so
// that a loop that hangs is a daemon that is restarted.
func (n *notifier) Beat() {
	n.mu.Lock()
	now := n.now()
	due := n.interval > 0 && now.Sub(n.beat) >= n.interval
	if due {
		n.beat = now
	}
	n.mu.Unlock()
	if due {
		n.tell(daemon.SdNotifyWatchdog)
	}
}

// State tells how things stand, and the first time that the gate is open that
// the service is ready: a primary has been proved.
func (n *notifier) State(s api.State) {
	n.mu.Lock()
	first := !n.ready && s.GateState == "open"
	n.ready = n.ready || first
	status := statusLine(s)
	moved := status != n.status
	n.status = status
	n.mu.Unlock()
	switch {
	case first:
		n.tell(daemon.SdNotifyReady + "\nSTATUS=" + status)
	case moved:
		n.tell("STATUS=" + status)
	}
}

// statusLine is what `systemctl status` shows. It names the rule and not its
// reason, which counts seconds.
func statusLine(s api.State) string {
	if s.Primary == "" {
		return "no primary yet: " + s.Verdict.Text
	}
	return fmt.Sprintf("term %d, primary %s, %s, gate %s: %s", s.Term, s.Primary, s.Mode, s.GateState, s.Rule.Name)
}

// Reloading brackets a reload; call what it returns when it is over.
func (n *notifier) Reloading() (over func()) {
	n.mu.Lock()
	ready := n.ready
	n.mu.Unlock()
	if !ready {
		return func() {} // READY afterwards would be a lie
	}
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		n.log.Warn("the monotonic clock cannot be read", "error", err)
	}
	n.tell(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, t.Nano()/1000))
	return func() { n.tell(daemon.SdNotifyReady) }
}

// MainPID tells that another process is the service from now on.
func (n *notifier) MainPID(pid int) { n.tell(fmt.Sprintf("MAINPID=%d", pid)) }

// Stopping tells that the end has begun.
func (n *notifier) Stopping() { n.tell(daemon.SdNotifyStopping) }
