package schedule

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/lab/fault"
)

// kind is a kind of gesture.
type kind struct {
	name  string
	nodes int // at least
	needs []fault.Verb
	// alone: no other gesture is near, because together they would lose what
	// nobody can keep.
	alone bool
	steps func(hand) []Step
}

// hand draws the details of a gesture.
type hand struct{ *rand.Rand }

// ms is a time between two.
func (h hand) ms(from, to int64) time.Duration {
	return time.Duration(from+h.Int64N(to-from+1)) * time.Millisecond
}

// while is how long something is out of reach: a moment that nobody should act
// on, or long enough for the engine to act before it ends.
func (h hand) while() time.Duration {
	if h.IntN(2) == 0 {
		return h.ms(200, 2500)
	}
	return h.ms(3500, 10000)
}

func (h hand) oneOf(v ...fault.Verb) fault.Verb { return v[h.IntN(len(v))] }

func (h hand) node() string { return []string{Primary, Standby, Other}[h.IntN(3)] }

func on(v fault.Verb, node string) fault.Fault { return fault.Fault{Verb: v, Node: node} }

// for a while: a fault and its end.
func lasting(f fault.Fault, d time.Duration) []Step {
	return []Step{{Fault: f}, {After: d, Undo: true, Fault: f}}
}

func once(f fault.Fault) []Step { return []Step{{Fault: f}} }

func cut(node, peer string, d fault.Direction) fault.Fault {
	return fault.Fault{Verb: fault.Cut, Node: node, Peer: peer, Direction: d}
}

func v(verbs ...fault.Verb) []fault.Verb { return verbs }

var kills = v(fault.KillPostmaster, fault.KillAll, fault.StopImmediate, fault.StopFast)

// kinds are all gestures. Their order and number decide what a seed means.
var kinds = []kind{
	{name: "primary-killed", nodes: 2, needs: kills, steps: func(h hand) []Step { return once(on(h.oneOf(kills...), Primary)) }},
	{name: "standby-killed", nodes: 2, needs: kills, steps: func(h hand) []Step { return once(on(h.oneOf(kills...), Standby)) }},
	{name: "primary-frozen-and-woken", nodes: 2, needs: v(fault.Freeze, fault.FreezeHost), steps: func(h hand) []Step {
		return lasting(on(h.oneOf(fault.Freeze, fault.FreezeHost), Primary), h.while())
	}},
	{name: "daemon-killed", nodes: 2, needs: v(fault.KillDaemon), steps: func(h hand) []Step {
		return lasting(on(fault.KillDaemon, ""), h.ms(50, 2000))
	}},
	{name: "daemon-killed-in-failover", nodes: 2, needs: append(v(fault.KillDaemon), kills...), steps: daemonInFailover},
	{name: "old-primary-started-by-hand", nodes: 2, needs: kills, steps: func(h hand) []Step {
		return lasting(on(h.oneOf(kills...), Primary), h.ms(100, 3000))
	}},
	{name: "both-restarted", nodes: 2, needs: kills, steps: bothRestarted},
	{name: "cut-from-daemon", nodes: 2, needs: v(fault.Cut), steps: func(h hand) []Step {
		return lasting(cut(fault.Daemon, Primary, fault.BothWays), h.while())
	}},
	{name: "cut-one-way", nodes: 2, needs: v(fault.Cut), steps: cutOneWay},
	{name: "promoted-by-hand", nodes: 2, needs: v(fault.PromoteByHand), steps: func(h hand) []Step {
		return once(on(fault.PromoteByHand, []string{Standby, Other}[h.IntN(2)]))
	}},
	{name: "altered-by-hand", nodes: 2, needs: v(fault.AlterSystem), steps: func(h hand) []Step {
		return once(fault.Fault{Verb: fault.AlterSystem, Node: Primary, Value: []string{"nobody", "ANY 2 (nobody, noone)"}[h.IntN(2)]})
	}},
	// With no name in force a commit is acknowledged by the primary alone from
	// that moment on, and no daemon can know before it looks. If the primary
	// died in between, those commits would be gone with it.
	{name: "emptied-by-hand", nodes: 2, needs: v(fault.AlterSystem), alone: true, steps: func(hand) []Step {
		return once(fault.Fault{Verb: fault.AlterSystem, Node: Primary, Value: ""})
	}},
	{name: "switchover", nodes: 2, steps: func(h hand) []Step { return once(on(Switchover, []string{Standby, Other}[h.IntN(2)])) }},
	{name: "killed-in-switchover", nodes: 2, needs: append(v(fault.KillDaemon), kills...), steps: inSwitchover},
	{name: "crash-restart", nodes: 2, needs: v(fault.KillOne), steps: func(h hand) []Step {
		return once(fault.Fault{Verb: fault.KillOne, Node: Primary, Process: []fault.Process{fault.Backend, fault.Checkpointer, fault.Walsender}[h.IntN(3)]})
	}},
	{name: "standby-process-killed", nodes: 2, needs: v(fault.KillOne), steps: func(h hand) []Step {
		return once(fault.Fault{Verb: fault.KillOne, Node: Standby, Process: []fault.Process{fault.Walreceiver, fault.Startup}[h.IntN(2)]})
	}},
	{name: "process-frozen", nodes: 2, needs: v(fault.FreezeOne), steps: processFrozen},
	{name: "standby-frozen-and-woken", nodes: 2, needs: v(fault.Freeze), steps: func(h hand) []Step {
		return lasting(on(fault.Freeze, Standby), h.while())
	}},
	{name: "replay-paused", nodes: 2, needs: v(fault.PauseReplay), steps: func(h hand) []Step {
		return lasting(on(fault.PauseReplay, Standby), h.ms(500, 5000))
	}},
	{name: "replication-cut", nodes: 2, needs: v(fault.Cut), steps: func(h hand) []Step {
		return lasting(cut(Primary, Standby, fault.BothWays), h.ms(300, 5000))
	}},
	{name: "primary-isolated", nodes: 2, needs: v(fault.Cut), steps: isolated},
	{name: "packets-lost", nodes: 2, needs: v(fault.Loss), steps: func(h hand) []Step {
		return lasting(fault.Fault{Verb: fault.Loss, Node: h.node(), Percent: 1 + h.IntN(10)}, h.ms(1000, 5000))
	}},
	{name: "packets-late", nodes: 2, needs: v(fault.Jitter), steps: func(h hand) []Step {
		return lasting(fault.Fault{Verb: fault.Jitter, Node: h.node(), Max: h.ms(20, 200)}, h.ms(1000, 5000))
	}},
	{name: "disk-full", nodes: 2, needs: v(fault.FillDisk), steps: func(h hand) []Step {
		return lasting(on(fault.FillDisk, h.node()), h.ms(500, 4000))
	}},
	// A frozen standby would find in its socket's buffer, when it is woken, what
	// it has missed; one that was down has missed it.
	{name: "primary-lost-while-alone", nodes: 2, needs: kills, steps: func(h hand) []Step {
		return lostWhileAlone(h, on(h.oneOf(kills...), Standby))
	}},
	{name: "primary-lost-while-cut-off", nodes: 2, needs: append(v(fault.Cut), kills...), steps: func(h hand) []Step {
		return lostWhileAlone(h, cut(Primary, Standby, fault.BothWays))
	}},
	{name: "two-killed", nodes: 3, needs: kills, steps: func(h hand) []Step {
		return []Step{{Fault: on(h.oneOf(kills...), Primary)}, {After: h.ms(0, 1500), Fault: on(h.oneOf(kills...), []string{Standby, Other}[h.IntN(2)])}}
	}},
	{name: "standbys-cut-from-each-other", nodes: 3, needs: v(fault.Cut), steps: func(h hand) []Step {
		return lasting(cut(Standby, Other, fault.BothWays), h.ms(500, 5000))
	}},
}

// lostWhileAlone takes the standby away until commits go on without it, kills
// the primary, and gives the standby back: it is there, behind, and must not
// be promoted.
func lostWhileAlone(h hand, away fault.Fault) []Step {
	kill := h.ms(4000, 7000)
	back := kill + h.ms(0, 300)
	primary := on(h.oneOf(fault.KillPostmaster, fault.KillAll, fault.StopImmediate), Primary) // not fast: that waits for the standby
	return []Step{
		{Fault: away},
		{After: kill, Fault: primary},
		{After: back, Undo: true, Fault: away},
		{After: back + h.ms(2500, 5000), Undo: true, Fault: primary},
	}
}

// daemonInFailover kills the daemon while it deals with a dead primary.
func daemonInFailover(h hand) []Step {
	daemon := on(fault.KillDaemon, "")
	kill := h.ms(10, 900)
	return []Step{
		{Fault: on(h.oneOf(kills...), Primary)},
		{After: kill, Fault: daemon},
		{After: kill + h.ms(50, 1500), Undo: true, Fault: daemon},
	}
}

// inSwitchover kills somebody while a person hands over.
func inSwitchover(h hand) []Step {
	steps := once(on(Switchover, Standby))
	kill := h.ms(5, 700)
	if h.IntN(2) == 0 {
		daemon := on(fault.KillDaemon, "")
		return append(steps, Step{After: kill, Fault: daemon}, Step{After: kill + h.ms(50, 1500), Undo: true, Fault: daemon})
	}
	return append(steps, Step{After: kill, Fault: on(h.oneOf(kills...), []string{Primary, Standby}[h.IntN(2)])})
}

// bothRestarted kills primary and standby, and starts them in either order.
func bothRestarted(h hand) []Step {
	primary, standby := on(h.oneOf(kills...), Primary), on(h.oneOf(kills...), Standby)
	steps := []Step{{Fault: primary}, {After: h.ms(0, 300), Fault: standby}}
	if h.IntN(2) == 0 {
		steps[0].Fault, steps[1].Fault = standby, primary
	}
	first, then := primary, standby
	if h.IntN(2) == 0 {
		first, then = standby, primary
	}
	start := h.ms(400, 1500)
	return append(steps, Step{After: start, Undo: true, Fault: first}, Step{After: start + h.ms(0, 1500), Undo: true, Fault: then})
}

func cutOneWay(h hand) []Step {
	pair := [][2]string{{fault.Daemon, Primary}, {Primary, fault.Daemon}, {Primary, Standby}, {Standby, Primary}, {fault.Daemon, Standby}}[h.IntN(5)]
	return lasting(cut(pair[0], pair[1], fault.OneWay), h.while())
}

// isolated cuts a primary from everybody.
func isolated(h hand) []Step {
	d := h.while()
	var steps []Step
	for _, peer := range []string{fault.Daemon, Standby, Other} {
		steps = append(steps, Step{Fault: cut(Primary, peer, fault.BothWays)})
	}
	for _, s := range slices.Clone(steps) {
		steps = append(steps, Step{After: d, Undo: true, Fault: s.Fault})
	}
	return steps
}

// processFrozen stops one process in its tracks, as a lost disk or a debugger
// does.
func processFrozen(h hand) []Step {
	f := []fault.Fault{
		{Verb: fault.FreezeOne, Node: Primary, Process: fault.Walsender},
		{Verb: fault.FreezeOne, Node: Primary, Process: fault.Checkpointer},
		{Verb: fault.FreezeOne, Node: Primary, Process: fault.Backend},
		{Verb: fault.FreezeOne, Node: Standby, Process: fault.Walreceiver},
		{Verb: fault.FreezeOne, Node: Standby, Process: fault.Startup},
	}[h.IntN(5)]
	return lasting(f, h.ms(300, 5000))
}
