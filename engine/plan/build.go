package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
)

// builder numbers steps as they are added.
type builder struct {
	in decide.Input
	p  Plan
}

func (b *builder) add(s Step) {
	s.ID = fmt.Sprintf("%d-%s", len(b.p.Steps)+1, s.Kind)
	if s.Node != "" {
		s.ID += "-" + string(s.Node)
	}
	b.p.Steps = append(b.p.Steps, s)
}

// FromDecision builds the plan that a decision asks for.
func FromDecision(d decide.Decision, in decide.Input) (Plan, error) {
	b := &builder{in: in, p: Plan{Action: d.Action, Node: d.Node, Rule: d.Rule, Reason: d.Reason, By: "engine"}}
	switch d.Action {
	case cluster.Adopt:
		b.adopt(d.Node)
	case cluster.Promote:
		b.promote(d.Node, d.Unsafe || !decide.HoldsAll(in.Record, d.Node) || len(decide.Silent(in)) > 0)
	case cluster.Degrade:
		b.degrade(d)
	case cluster.Restore:
		b.restore(d.Target)
	case cluster.Rejoin:
		if err := b.rejoin(d.Node, d.Clone); err != nil {
			return Plan{}, err
		}
	case cluster.GiveSlot:
		b.giveSlot(d.Node)
	case cluster.SetMode:
		b.p.Mode = d.Mode
		b.want(d.Mode)
	case cluster.Fence:
		b.fence(d.Node)
	case cluster.Reopen:
		b.reopen()
	case cluster.Restart:
		b.restart()
	default:
		return Plan{}, fmt.Errorf("build a plan: no plan is known for action %q", d.Action)
	}
	b.p.Facts = FactsOf(in, d.Node)
	return b.p, nil
}

// FactsOf are the values that a plan about a node depends on.
func FactsOf(in decide.Input, node cluster.NodeID) []Fact {
	r := in.Record
	f := []Fact{
		{"term", fmt.Sprint(uint64(r.Term))},
		{"primary", string(r.Primary)},
		{"mode", string(r.Mode)},
		{"primary.reachable", fmt.Sprint(in.Snapshot.Node(r.Primary).Up())},
	}
	if node != "" {
		n, m := in.Snapshot.Node(node), r.Members[node]
		f = append(f,
			Fact{string(node) + ".role", string(n.Role)},
			Fact{string(node) + ".reachable", fmt.Sprint(n.Up())},
			Fact{string(node) + ".eligible", fmt.Sprint(m.Eligible)},
			Fact{string(node) + ".fenced", fmt.Sprint(m.Fenced)},
		)
	}
	return f
}

func (b *builder) adopt(p cluster.NodeID) {
	b.add(Step{Kind: RecordAdopt, Node: p, Title: fmt.Sprintf("record %s as the primary of term 1", p),
		Post: "the record names system identifier, timeline and primary", Deadline: 10 * time.Second})
}

// reopen lets traffic to the recorded primary again. Promises for the next term
// are void from then on: a promotion that was given up, and of which the journal
// may not know that it was, must not be gone on with after the old primary has
// acknowledged more.
func (b *builder) reopen() {
	p := b.in.Record.Primary
	for _, m := range b.in.Record.Members {
		if m.Promised > b.in.Record.Term {
			b.add(Step{Kind: RecordVoid, Title: fmt.Sprintf("record that the promises for term %d are void: %s goes on with term %d", b.in.Record.Term+1, p, b.in.Record.Term),
				Post: "the record is on disk", Deadline: 5 * time.Second, Expect: 3 * time.Millisecond})
			break
		}
	}
	b.add(Step{Kind: NodeWritable, Node: p, Title: fmt.Sprintf("prove that %s is the primary of term %d", p, b.in.Record.Term),
		Command: "SELECT pg_is_in_recovery(), system_identifier FROM pg_control_system()",
		Post:    "it is not in recovery, in the recorded system and on the recorded timeline", Deadline: 5 * time.Second})
	if set := decide.ParseSyncNames(b.in.Snapshot.Node(p).SyncStandbyNames); len(set.Members) > 0 && b.in.Record.Mode == cluster.ModeSync {
		b.barrier(set, fmt.Sprintf("wait until the standbys have confirmed what %s shows: a restart makes waiting commits visible", p))
	}
	b.gateOpen(p)
}

// restart undoes a switchover that stopped the primary and got no further.
func (b *builder) restart() {
	p := b.in.Record.Primary
	b.add(Step{Kind: NodeStart, Node: p, Title: fmt.Sprintf("start %s again", p), Command: "pg_ctl start",
		Post: "it answers", Deadline: 5 * time.Minute})
	b.reopen()
}

func (b *builder) gateClose(cut bool, why string) {
	s := Step{Kind: GateClose, Title: "close the gate: clients are held", Args: map[string]string{"cut": fmt.Sprint(cut), "reason": why},
		Post: "no statement can reach a server", Deadline: 2 * time.Second, Expect: time.Millisecond}
	if !cut {
		s.Title = "hold new transactions, let the open ones end"
		s.Post = "no transaction is open"
		s.Deadline = b.in.Policy.DrainLimit
	}
	b.add(s)
}

func (b *builder) gateOpen(p cluster.NodeID) {
	b.add(Step{Kind: GateOpen, Node: p, Title: fmt.Sprintf("open the gate to %s", p),
		Post: "held clients go on", Deadline: 2 * time.Second, Expect: time.Millisecond})
}

func (b *builder) stop(n cluster.NodeID, mode string, optional bool, deadline time.Duration) {
	spec, _ := b.in.Policy.Node(n)
	cmd := strings.Join(spec.StopCommand, " ")
	if cmd == "" {
		cmd = fmt.Sprintf("pg_ctl -D %s -m %s stop", spec.DataDirectory, mode)
	}
	b.add(Step{Kind: NodeStop, Node: n, Title: fmt.Sprintf("stop %s (%s)", n, mode), Command: "ssh " + spec.SSHHost + ": " + cmd,
		Args: map[string]string{"mode": mode}, Post: "no process owns its data directory",
		Deadline: deadline, Expect: 200 * time.Millisecond, Optional: optional})
}

// promote: gate, fence, promises, promotion, record, gate. The intent is
// durable before the first step, because the operation is.
func (b *builder) promote(c cluster.NodeID, force bool) {
	b.gateClose(true, b.p.Reason)
	b.stopOld()
	for _, v := range b.voters(c) {
		b.promise(v, v != c)
	}
	b.count(c, force)
	b.becomePrimary(c)
	b.strict(c)
	b.gateOpen(c)
	b.p.Confirm = string(c)
}

// stopOld stops the old primary where that is possible. What makes the
// promotion safe are the promises, so this is a courtesy, and clients wait
// while it lasts: none to a host that was asked just now and gave no answer.
func (b *builder) stopOld() {
	was := b.in.Snapshot.Node(b.in.Record.Primary)
	asked := decide.HostSeen(was)
	switch {
	case asked && !was.Host.Reachable:
	case was.Host.Reachable && was.Host.Postmaster == cluster.PostmasterRunning && was.Reach != cluster.ReachTimeout:
		b.stop(was.ID, "immediate", true, 8*time.Second) // it is going down or up, and not frozen: it will stop
	default:
		b.stop(was.ID, "immediate", true, time.Second) // frozen, perhaps: it is killed
	}
}

func (b *builder) count(c cluster.NodeID, force bool) {
	b.add(Step{Kind: PromisesCount, Node: c, Title: fmt.Sprintf("count the promises and prove that %s holds the most", c),
		Args: map[string]string{"force": fmt.Sprint(force)},
		Post: "at least n-k+1 members of the sync set promised, and none holds more", Deadline: 5 * time.Second, Expect: 2 * time.Millisecond})
}

// strict: where commits may never go on without a standby, the new primary
// waits for those that are to follow it before any client reaches it. None of
// them is eligible yet.
func (b *builder) strict(c cluster.NodeID) {
	if b.in.Policy.Degrade != cluster.DegradeNever || b.in.Record.WantMode == cluster.ModeAsync {
		return
	}
	set := cluster.SyncSet{Method: b.in.Policy.SyncMethod, K: b.in.Policy.SyncK}
	for _, n := range b.in.Policy.Nodes {
		if n.ID != c {
			set.Members = append(set.Members, n.ID)
		}
	}
	if len(set.Members) < max(1, set.K) {
		return
	}
	b.recordSet(set)
	b.syncSet(c, set)
}

// voters are those who must promise: the candidate and every reachable member
// of the sync set.
func (b *builder) voters(c cluster.NodeID) []cluster.NodeID {
	v := []cluster.NodeID{c}
	for _, m := range b.in.Record.SyncSet.Members {
		if m != c && m != b.in.Record.Primary && b.in.Snapshot.Node(m).Up() {
			v = append(v, m)
		}
	}
	return v
}

// promise: a pause of replay is ended, because before that nobody knows what
// the node holds.
func (b *builder) promise(v cluster.NodeID, optional bool) {
	args := map[string]string{"term": fmt.Sprint(uint64(b.in.Record.Term) + 1)}
	if !optional || b.in.Snapshot.Node(v).ReplayPaused {
		args["resume"] = "true"
	}
	b.add(Step{Kind: NodePromise, Node: v, Title: fmt.Sprintf("%s promises to receive nothing more from %s", v, b.in.Record.Primary),
		Command:  "ALTER SYSTEM SET primary_conninfo = ''; SELECT pg_reload_conf(); SELECT count(*) FROM pg_stat_wal_receiver",
		Args:     args,
		Post:     "pg_stat_wal_receiver is empty and all local WAL is replayed",
		Deadline: 10 * time.Second, Expect: 15 * time.Millisecond, Optional: optional})
}

func (b *builder) becomePrimary(c cluster.NodeID) {
	b.add(Step{Kind: NodePromote, Node: c, Title: fmt.Sprintf("promote %s", c),
		Command: "SELECT pg_promote(false); SELECT pg_is_in_recovery()",
		Pre:     "it promised, and synchronous_standby_names is empty on it",
		Post:    "pg_is_in_recovery() is false", Deadline: 70 * time.Second, Expect: 60 * time.Millisecond})
	b.add(Step{Kind: RecordPrimary, Node: c, Title: fmt.Sprintf("record %s as the primary of term %d, and %s as fenced", c, b.in.Record.Term+1, b.in.Record.Primary),
		Post: "the record is on disk", Deadline: 10 * time.Second, Expect: 5 * time.Millisecond})
}

func (b *builder) switchover(to cluster.NodeID) {
	old := b.in.Record.Primary
	b.add(Step{Kind: NodeCheckpoint, Node: old, Title: fmt.Sprintf("checkpoint %s, so that stopping it is quick", old), Command: "CHECKPOINT",
		Deadline: 5 * time.Minute, Expect: 100 * time.Millisecond})
	b.gateClose(false, fmt.Sprintf("switchover to %s", to))
	b.add(Step{Kind: RecordStopping, Node: old, Title: fmt.Sprintf("record that we stop %s, so that it is started again should this end here", old),
		Post: "the record is on disk", Deadline: 5 * time.Second, Expect: 3 * time.Millisecond})
	b.stop(old, "fast", false, 60*time.Second)
	b.add(Step{Kind: NodeReceivedAll, Node: to, Title: fmt.Sprintf("%s has received all that %s wrote", to, old),
		Args: map[string]string{"from": string(old)}, Command: "pg_controldata; SELECT pg_last_wal_receive_lsn()",
		Post: "its position is past the shutdown checkpoint", Deadline: 20 * time.Second, Expect: 20 * time.Millisecond})
	for _, v := range b.voters(to) {
		b.promise(v, v != to)
	}
	b.count(to, false)
	b.becomePrimary(to)
	b.strict(to)
	b.gateOpen(to)
	b.p.Confirm = string(to)
}

func (b *builder) fence(n cluster.NodeID) {
	have := b.in.Snapshot.Node(n)
	ours := slices.ContainsFunc(b.in.Record.History, func(h cluster.HistoryEntry) bool { return h.Node == n && h.Timeline == have.Timeline })
	b.add(Step{Kind: RecordFence, Node: n, Title: fmt.Sprintf("record that %s is fenced and not eligible", n),
		Args: map[string]string{"astray": fmt.Sprint(have.Role == cluster.RolePrimary && !ours)},
		Post: "the record is on disk", Deadline: 5 * time.Second, Expect: 3 * time.Millisecond})
	b.stop(n, "immediate", false, 30*time.Second)
}

func join(nodes []cluster.NodeID) string {
	s := make([]string, len(nodes))
	for i, n := range nodes {
		s[i] = string(n)
	}
	return strings.Join(s, ",")
}
