// Package fault breaks a running lab, and mends it: servers killed, stopped or
// frozen, an operator's hand behind the engine's back, the daemon killed, disks
// filled, the network cut.
//
// It owns what it broke, so that Heal undoes all of it. It must never know how
// the engine decides: the only thing it asks the daemon is which nodes are left
// to it.
package fault

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/control"
)

// Errors, by what the caller may do.
var (
	// ErrNotOffered: this lab cannot do that; WhyNot says why.
	ErrNotOffered = errors.New("this lab does not offer it")
	// ErrNothing: there is nothing to do it to, such as a walreceiver on a
	// primary. The caller may choose another node.
	ErrNothing = errors.New("there is nothing to break")
)

// Verb is one way to break a lab.
type Verb string

// The verbs. In parentheses what undoes each.
const (
	KillPostmaster Verb = "kill-postmaster" // SIGKILL of the postmaster alone (start)
	KillAll        Verb = "kill-all"        // SIGKILL of the postmaster and all its children (start)
	StopFast       Verb = "stop-fast"       // pg_ctl stop -m fast (start)
	StopImmediate  Verb = "stop-immediate"  // pg_ctl stop -m immediate (start)
	KillOne        Verb = "kill-one"        // SIGKILL of one child: the postmaster restarts in place (nothing)
	Freeze         Verb = "freeze"          // SIGSTOP of the postmaster and all its children (wake)
	FreezeHost     Verb = "freeze-host"     // the same with sshd: the host is silent (wake)
	FreezeOne      Verb = "freeze-one"      // SIGSTOP of one child (wake)
	PauseReplay    Verb = "pause-replay"    // pg_wal_replay_pause() (resume)
	KillDaemon     Verb = "kill-daemon"     // SIGKILL of proxyd (start)
	PromoteByHand  Verb = "promote-by-hand" // pg_ctl promote (nothing)
	AlterSystem    Verb = "alter-system"    // ALTER SYSTEM SET synchronous_standby_names (the old value, unless somebody has set another)
	FillDisk       Verb = "fill-disk"       // no room where the node's data are (room again)
	Cut            Verb = "cut"             // no packet from one side to another (mend)
	Loss           Verb = "loss"            // some packets are dropped (none)
	Jitter         Verb = "jitter"          // packets are delayed at random (not delayed)
	ClockJump      Verb = "clock-jump"      // never offered
)

var verbs = []Verb{KillPostmaster, KillAll, StopFast, StopImmediate, KillOne, Freeze, FreezeHost, FreezeOne, PauseReplay,
	KillDaemon, PromoteByHand, AlterSystem, FillDisk, Cut, Loss, Jitter, ClockJump}

// Process is a child of a postmaster.
type Process string

// The processes that can be frozen or killed alone.
const (
	Walreceiver  Process = "walreceiver"
	Walsender    Process = "walsender"
	Startup      Process = "startup"
	Checkpointer Process = "checkpointer"
	Backend      Process = "backend"   // one that serves a client
	Committer    Process = "committer" // one that is in a client's COMMIT, or has just answered it
)

// Daemon is the side of a cut that is no node: proxyd's host.
const Daemon = lab.DaemonSide

// Direction says which packets a cut drops.
type Direction string

// The directions.
const (
	OneWay   Direction = "one-way"   // those from Node to Peer
	BothWays Direction = "both-ways" // those from Peer to Node too
)

// Fault is one use of a verb. What a verb does not need is left empty.
type Fault struct {
	Verb      Verb
	Node      string        // where; of a cut its one side, which may be Daemon
	Peer      string        // of a cut: its other side
	Direction Direction     // of a cut
	Process   Process       // of FreezeOne and KillOne
	Value     string        // of AlterSystem: the setting
	Percent   int           // of Loss
	Max       time.Duration // of Jitter
}

func (f Fault) String() string {
	words := []string{string(f.Verb)}
	for _, w := range []string{f.Node, f.Peer, string(f.Direction), string(f.Process)} {
		if w != "" {
			words = append(words, w)
		}
	}
	switch f.Verb {
	case AlterSystem:
		words = append(words, fmt.Sprintf("%q", f.Value))
	case Loss:
		words = append(words, fmt.Sprintf("%d %%", f.Percent))
	case Jitter:
		words = append(words, f.Max.String())
	}
	return strings.Join(words, " ")
}

// Faults breaks one lab. It is safe for concurrent use.
type Faults struct {
	lab     *lab.Lab
	proxyd  string
	control *control.Client

	mu     sync.Mutex
	broken broken
}

// broken is what Heal has to undo.
type broken struct {
	down    map[string]bool // servers that we stopped or killed
	frozen  map[string]bool // nodes some process of which is frozen
	paused  map[string]bool
	altered map[string]altered
	full    map[string]bool
	daemon  bool
	network bool
}

type altered struct{ before, ours string }

func intact() broken {
	return broken{down: map[string]bool{}, frozen: map[string]bool{}, paused: map[string]bool{}, altered: map[string]altered{}, full: map[string]bool{}}
}

// New breaks nothing yet. proxyd is the daemon's program, which StartDaemon
// needs; beside our own when empty.
func New(l *lab.Lab, proxyd string) *Faults {
	return &Faults{lab: l, proxyd: proxyd, control: control.New(l.Socket()), broken: intact()}
}

// Close ends what New began. It mends nothing.
func (f *Faults) Close() { f.control.Close() }

// Nodes are the lab's nodes by name.
func (f *Faults) Nodes() (out []string) {
	for _, n := range f.lab.Status().Nodes {
		out = append(out, n.Name)
	}
	return out
}

// Offered are the verbs that this lab can do.
func (f *Faults) Offered() (out []Verb) {
	for _, v := range verbs {
		if f.WhyNot(v) == "" {
			out = append(out, v)
		}
	}
	return out
}

// WhyNot says why a verb is not offered; nothing when it is.
func (f *Faults) WhyNot(v Verb) string {
	switch v {
	case ClockJump:
		return "the clock is the machine's: Go's programs ask the kernel for it without a library that could be put in between, and setting it would break everything else here"
	case FillDisk:
		if !f.lab.HasDisks() {
			return "the nodes' data are on the file system of the lab's directory: ask for small disks when the lab is made, as root"
		}
	case Cut:
		if f.lab.Network() == lab.PlainNetwork {
			return "everything is on one address of the loopback: ask for a network when the lab is made"
		}
	case Loss:
		if n := f.lab.Network(); n != lab.NamespaceNetwork && n != lab.NamespaceRelayedNetwork {
			return "only the kernel drops packets, and only between namespaces: ask for them when the lab is made, as root"
		}
	case Jitter:
		if n := f.lab.Network(); n != lab.RelayedNetwork && n != lab.NamespaceRelayedNetwork {
			return "nothing between the nodes could delay: ask for a relay when the lab is made"
		}
	}
	return ""
}

// offered is an error for what is not.
func (f *Faults) offered(v Verb) error {
	if why := f.WhyNot(v); why != "" {
		return fmt.Errorf("%w: %s: %s", ErrNotOffered, v, why)
	}
	return nil
}

// Do uses a verb.
func (f *Faults) Do(ctx context.Context, x Fault) error {
	switch x.Verb {
	case KillPostmaster:
		return f.KillPostmaster(ctx, x.Node)
	case KillAll:
		return f.KillAll(ctx, x.Node)
	case StopFast:
		return f.StopFast(ctx, x.Node)
	case StopImmediate:
		return f.StopImmediate(ctx, x.Node)
	case KillOne:
		return f.KillOne(ctx, x.Node, x.Process)
	case Freeze:
		return f.Freeze(ctx, x.Node)
	case FreezeHost:
		return f.FreezeHost(ctx, x.Node)
	case FreezeOne:
		return f.FreezeOne(ctx, x.Node, x.Process)
	case PauseReplay:
		return f.PauseReplay(ctx, x.Node)
	case KillDaemon:
		return f.KillDaemon(ctx)
	case PromoteByHand:
		return f.PromoteByHand(ctx, x.Node)
	case AlterSystem:
		return f.AlterSystemByHand(ctx, x.Node, x.Value)
	case FillDisk:
		return f.FillDisk(ctx, x.Node)
	case Cut:
		return f.Cut(ctx, x.Node, x.Peer, x.Direction)
	case Loss:
		return f.Loss(ctx, x.Percent)
	case Jitter:
		return f.Jitter(ctx, x.Max)
	}
	return f.offered(x.Verb)
}

// Undo undoes one use of a verb, and nothing where that is not possible.
func (f *Faults) Undo(ctx context.Context, x Fault) error {
	switch x.Verb {
	case KillPostmaster, KillAll, StopFast, StopImmediate:
		return f.Start(ctx, x.Node)
	case Freeze, FreezeHost, FreezeOne:
		return f.Wake(ctx, x.Node)
	case PauseReplay:
		return f.ResumeReplay(ctx, x.Node)
	case KillDaemon:
		return f.StartDaemon(ctx)
	case AlterSystem:
		return f.AlterSystemBack(ctx, x.Node)
	case FillDisk:
		return f.FreeDisk(ctx, x.Node)
	case Cut:
		return f.Mend(ctx, x.Node, x.Peer)
	case Loss:
		return f.Loss(ctx, 0)
	case Jitter:
		return f.Jitter(ctx, 0)
	case KillOne, PromoteByHand:
		return nil
	}
	return f.offered(x.Verb)
}

// note keeps what was broken, before it is.
func (f *Faults) note(change func(*broken)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.broken)
}
