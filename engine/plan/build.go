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
		b.promote(d.Node, !in.Record.Members[d.Node].Eligible || len(decide.Silent(in)) > 0)
	case cluster.Degrade:
		b.degrade(d.Target)
	case cluster.Restore:
		b.restore(d.Target)
	case cluster.Rejoin:
		b.rejoin(d.Node)
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

func (b *builder) reopen() {
	p := b.in.Record.Primary
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
	old := b.in.Record.Primary
	was := b.in.Snapshot.Node(old)
	b.gateClose(true, b.p.Reason)
	// Its host may be gone with it; what makes the promotion safe is the
	// promise below, so this is a courtesy with a short limit.
	limit := 1500 * time.Millisecond
	if was.Host.Reachable && was.Host.Postmaster == cluster.PostmasterRunning && was.Reach != cluster.ReachTimeout {
		limit = 8 * time.Second // it is going down or up, and not frozen: it will stop
	}
	b.stop(old, "immediate", true, limit)
	for _, v := range b.voters(c) {
		b.promise(v, v != c)
	}
	b.add(Step{Kind: PromisesCount, Node: c, Title: fmt.Sprintf("count the promises and prove that %s holds the most", c),
		Args: map[string]string{"force": fmt.Sprint(force)},
		Post: "at least n-k+1 members of the sync set promised, and none holds more", Deadline: 5 * time.Second, Expect: 2 * time.Millisecond})
	b.becomePrimary(c)
	b.gateOpen(c)
	b.p.Confirm = string(c)
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

func (b *builder) promise(v cluster.NodeID, optional bool) {
	b.add(Step{Kind: NodePromise, Node: v, Title: fmt.Sprintf("%s promises to receive nothing more from %s", v, b.in.Record.Primary),
		Command:  "ALTER SYSTEM SET primary_conninfo = ''; SELECT pg_reload_conf(); SELECT count(*) FROM pg_stat_wal_receiver",
		Args:     map[string]string{"term": fmt.Sprint(uint64(b.in.Record.Term) + 1)},
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
	b.add(Step{Kind: PromisesCount, Node: to, Title: fmt.Sprintf("count the promises and prove that %s holds the most", to),
		Args: map[string]string{"force": "false"}, Post: "at least n-k+1 members of the sync set promised, and none holds more",
		Deadline: 5 * time.Second, Expect: 2 * time.Millisecond})
	b.becomePrimary(to)
	b.gateOpen(to)
	b.p.Confirm = string(to)
}

func (b *builder) ineligible(nodes []cluster.NodeID, why string) {
	b.add(Step{Kind: RecordIneligible, Title: fmt.Sprintf("record that %s is not eligible", join(nodes)),
		Args: map[string]string{"nodes": join(nodes), "reason": why},
		Post: "the record is on disk: it will not be promoted", Deadline: 5 * time.Second, Expect: 3 * time.Millisecond})
}

func (b *builder) syncSet(set cluster.SyncSet) {
	p := b.in.Record.Primary
	args := setArgs(set)
	names := decide.FormatSyncNames(set)
	cmd := fmt.Sprintf("ALTER SYSTEM SET synchronous_standby_names = '%s'; SELECT pg_reload_conf()", names)
	if b.in.Policy.SwapMethod == cluster.SwapFiles {
		cmd = fmt.Sprintf("postgresql.conf.%s -> postgresql.conf (write beside, fsync, rename); reload", modeOf(set))
	}
	b.add(Step{Kind: SyncSet, Node: p, Title: fmt.Sprintf("turn %s to %s", p, describe(set)), Command: cmd, Args: args,
		Post: fmt.Sprintf("the running server says synchronous_standby_names = %q", names), Deadline: 10 * time.Second, Expect: 20 * time.Millisecond})
}

func (b *builder) syncCheck(set cluster.SyncSet) {
	p := b.in.Record.Primary
	b.add(Step{Kind: SyncCheck, Node: p, Title: fmt.Sprintf("see that the configuration of %s may be swapped", p), Args: setArgs(set),
		Post: "nobody has edited what would be written over", Deadline: 5 * time.Second, Expect: 10 * time.Millisecond})
}

func (b *builder) barrier(set cluster.SyncSet, title string) {
	b.add(Step{Kind: SyncBarrier, Node: b.in.Record.Primary, Title: title, Args: map[string]string{"nodes": join(set.Members), "k": fmt.Sprint(set.K)},
		Command: "SELECT pg_current_wal_flush_lsn(); SELECT flush_lsn FROM pg_stat_replication",
		Post:    "their flush_lsn has reached the primary's, read after the setting", Deadline: 15 * time.Second, Expect: 20 * time.Millisecond})
}

// degrade: the record first. Emptying synchronous_standby_names wakes every
// waiting commit, so the change of the setting is itself an acknowledgement.
func (b *builder) degrade(target cluster.SyncSet) {
	out := b.leaving(target)
	b.syncCheck(target)
	b.ineligible(out, b.p.Reason)
	b.syncSet(target)
	if len(target.Members) > 0 {
		b.barrier(target, fmt.Sprintf("%s confirm everything acknowledged before", join(target.Members)))
	}
	b.recordSet(target)
}

// leaving are the nodes that no longer are waited for.
func (b *builder) leaving(target cluster.SyncSet) []cluster.NodeID {
	var out []cluster.NodeID
	for _, n := range b.in.Policy.Nodes {
		if n.ID != b.in.Record.Primary && !slices.Contains(target.Members, n.ID) {
			out = append(out, n.ID)
		}
	}
	return out
}

func (b *builder) recordSet(set cluster.SyncSet) {
	args := setArgs(set)
	b.add(Step{Kind: RecordSyncSet, Title: fmt.Sprintf("record that the mode is %s", args["mode"]), Args: args,
		Post: "the record is on disk", Deadline: 5 * time.Second, Expect: 3 * time.Millisecond})
}

// restore: the wider set is recorded first (more promises are needed from then
// on), then the setting, then the wait, and eligibility last.
func (b *builder) restore(target cluster.SyncSet) {
	union := target
	for _, m := range b.in.Record.SyncSet.Members {
		if !slices.Contains(union.Members, m) {
			union.Members = append(slices.Clone(union.Members), m)
		}
	}
	if r := b.in.Record.SyncSet; len(r.Members) > 0 {
		union.K = min(union.K, r.K)
	}
	b.syncCheck(target)
	if out := slices.DeleteFunc(b.leaving(target), func(n cluster.NodeID) bool { return !b.in.Record.Members[n].Eligible }); len(out) > 0 {
		b.ineligible(out, b.p.Reason)
	}
	s := setArgs(union)
	s["mode"] = string(b.in.Record.Mode)
	b.add(Step{Kind: RecordSyncSet, Title: fmt.Sprintf("record that commits will wait for %s", join(union.Members)), Args: s,
		Post: "the record is on disk", Deadline: 5 * time.Second, Expect: 3 * time.Millisecond})
	b.syncSet(target)
	all := target
	all.K = len(target.Members)
	b.barrier(all, fmt.Sprintf("%s confirms everything the primary has flushed", join(target.Members)))
	b.add(Step{Kind: RecordEligible, Title: fmt.Sprintf("record that %s is eligible", join(target.Members)), Args: setArgs(target),
		Post: "the record is on disk", Deadline: 5 * time.Second, Expect: 3 * time.Millisecond})
}

func (b *builder) fence(n cluster.NodeID) {
	b.add(Step{Kind: RecordFence, Node: n, Title: fmt.Sprintf("record that %s is fenced and not eligible", n),
		Post: "the record is on disk", Deadline: 5 * time.Second, Expect: 3 * time.Millisecond})
	b.stop(n, "immediate", false, 30*time.Second)
}

func (b *builder) rejoin(n cluster.NodeID) {
	p := b.in.Record.Primary
	from := map[string]string{"from": string(p)}
	have := b.in.Snapshot.Node(n)
	if have.Up() && have.Role == cluster.RoleStandby && !b.in.Record.Members[n].Fenced && decide.InHistory(b.in.Record, have) {
		b.add(Step{Kind: NodeFollow, Node: n, Title: fmt.Sprintf("%s follows %s", n, p), Args: from,
			Command: fmt.Sprintf("ALTER SYSTEM SET primary_conninfo = 'host=... application_name=%s'; SELECT pg_reload_conf()", n),
			Post:    "primary_conninfo names the primary", Deadline: 10 * time.Second})
	} else {
		b.resync(n, p, have)
	}
	b.add(Step{Kind: NodeStreaming, Node: n, Title: fmt.Sprintf("%s streams from %s", n, p), Args: from,
		Command: "SELECT state FROM pg_stat_replication", Post: "the primary streams to it", Deadline: 10 * time.Minute, Expect: 500 * time.Millisecond})
	b.add(Step{Kind: RecordMember, Node: n, Title: fmt.Sprintf("record that %s follows %s", n, p), Post: "the record is on disk", Deadline: 5 * time.Second})
	b.p.Confirm = string(n)
}

func (b *builder) resync(n, p cluster.NodeID, have cluster.NodeFacts) {
	from := map[string]string{"from": string(p)}
	spec, _ := b.in.Policy.Node(n)
	b.add(Step{Kind: RecordFence, Node: n, Title: fmt.Sprintf("record that %s is fenced and not eligible", n),
		Post: "the record is on disk", Deadline: 5 * time.Second, Expect: 3 * time.Millisecond})
	if have.Host.Postmaster != cluster.PostmasterStopped {
		b.stop(n, "fast", false, 60*time.Second)
	}
	b.add(Step{Kind: NodeRewind, Node: n, Title: fmt.Sprintf("rewind %s to where %s left its history", n, p), Args: from,
		Command: fmt.Sprintf("pg_rewind --target-pgdata=%s --source-server='host=%s ...'", spec.DataDirectory, p),
		Post:    "its history is a prefix of the primary's", Deadline: 30 * time.Minute, Expect: time.Second, Optional: true})
	b.add(Step{Kind: NodeClone, Node: n, Title: fmt.Sprintf("clone %s from %s where rewinding was not possible", n, p), Args: from,
		Command: fmt.Sprintf("pg_basebackup --pgdata=%s.new --checkpoint=fast --wal-method=stream --progress, then renamed", spec.DataDirectory),
		Post:    "its history is a prefix of the primary's", Deadline: 12 * time.Hour})
	b.add(Step{Kind: NodeConfigure, Node: n, Title: fmt.Sprintf("make %s a standby of %s", n, p), Args: from,
		Command: "standby.signal, primary_conninfo, synchronous_standby_names = ''",
		Post:    "it would start as a standby", Deadline: 10 * time.Second})
	b.add(Step{Kind: NodeStart, Node: n, Title: fmt.Sprintf("start %s", n), Command: "pg_ctl start",
		Post: "it answers and is in recovery", Deadline: 5 * time.Minute, Expect: 500 * time.Millisecond})
}

func join(nodes []cluster.NodeID) string {
	s := make([]string, len(nodes))
	for i, n := range nodes {
		s[i] = string(n)
	}
	return strings.Join(s, ",")
}

func modeOf(set cluster.SyncSet) cluster.Mode {
	if len(set.Members) == 0 {
		return cluster.ModeAsync
	}
	return cluster.ModeSync
}

func setArgs(set cluster.SyncSet) map[string]string {
	return map[string]string{"names": decide.FormatSyncNames(set), "mode": string(modeOf(set)), "nodes": join(set.Members)}
}

func describe(set cluster.SyncSet) string {
	if len(set.Members) == 0 {
		return "async: commits wait for nobody"
	}
	return "sync: commits wait for " + decide.FormatSyncNames(set)
}
