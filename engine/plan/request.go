package plan

import (
	"fmt"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
)

// Request is what a person asks a plan for.
type Request struct {
	Action cluster.Action
	Node   cluster.NodeID
	Mode   cluster.Mode
	Force  bool // promote although acknowledged commits would be lost
	Reason string
	By     string
}

// Refusal says why there is no plan, and what could be done instead.
type Refusal struct {
	Usage  bool // the request itself is wrong
	Unsafe bool // it would lose something; Force may allow it
	Why    string
	Remedy string
}

func (r *Refusal) Error() string {
	if r.Remedy == "" {
		return r.Why
	}
	return r.Why + " (" + r.Remedy + ")"
}

// ForRequest builds the plan that a person asked for, or a *Refusal.
func ForRequest(q Request, in decide.Input) (Plan, error) {
	b := &builder{in: in, p: Plan{Action: q.Action, Node: q.Node, Mode: q.Mode, Reason: q.Reason, By: q.By}}
	if b.p.Reason == "" {
		b.p.Reason = "asked for by " + q.By
	}
	if in.Record.Term == 0 {
		return Plan{}, &Refusal{Why: "no primary is recorded yet", Remedy: "provision the cluster, or wait until a healthy primary is found"}
	}
	var err error
	switch q.Action {
	case cluster.Promote:
		err = b.requestPromote(q)
	case cluster.Switchover:
		err = b.requestSwitchover(q)
	case cluster.SetMode:
		err = b.requestMode(q)
	case cluster.Rejoin:
		err = b.requestRejoin(q)
	default:
		err = &Refusal{Usage: true, Why: fmt.Sprintf("no plan can be made for %q", q.Action), Remedy: "promote, switchover, set-mode, rejoin"}
	}
	if err != nil {
		return Plan{}, err
	}
	b.p.Facts = FactsOf(in, q.Node)
	return b.p, nil
}

// standby finds the node of a request and refuses what is not a standby that
// answers.
func (b *builder) standby(id cluster.NodeID) (cluster.NodeFacts, error) {
	if _, ok := b.in.Policy.Node(id); !ok {
		return cluster.NodeFacts{}, &Refusal{Usage: true, Why: fmt.Sprintf("there is no node %q", id), Remedy: "nodes: " + names(b.in.Policy)}
	}
	n := b.in.Snapshot.Node(id)
	if id == b.in.Record.Primary {
		return n, &Refusal{Why: fmt.Sprintf("%s is the primary already", id)}
	}
	if !n.Up() {
		return n, &Refusal{Why: fmt.Sprintf("%s does not answer (connection %s)", id, n.Reach), Remedy: "start it first"}
	}
	if n.Role != cluster.RoleStandby && !decide.Unrecorded(b.in.Record, n) {
		return n, &Refusal{Unsafe: true, Why: fmt.Sprintf("%s is not a standby", id), Remedy: "rejoin it first"}
	}
	return n, nil
}

func names(p cluster.Policy) string {
	ids := make([]cluster.NodeID, len(p.Nodes))
	for i, n := range p.Nodes {
		ids[i] = n.ID
	}
	return join(ids)
}

func (b *builder) requestPromote(q Request) error {
	n, err := b.standby(q.Node)
	if err != nil {
		return err
	}
	m := b.in.Record.Members[q.Node]
	primary := b.in.Snapshot.Node(b.in.Record.Primary)
	safe := decide.HoldsAll(b.in.Record, q.Node) && (decide.InHistory(b.in.Record, n) || decide.Unrecorded(b.in.Record, n))
	why, remedy := orUnknown(m.Reason), "wait until it is eligible"
	if better := b.holdsMore(q.Node); safe && better != "" {
		safe, why, remedy = false, fmt.Sprintf("%s holds more and may alone have the last ones", better), "promote "+string(better)
	}
	if silent := decide.Silent(b.in); safe && len(silent) > 0 {
		safe, why, remedy = false, decide.MayHoldMore(silent), "start "+join(silent)
	}
	loss := n.Position().Behind(primary.FlushLSN)
	if !safe && !q.Force {
		if loss > 0 {
			why += fmt.Sprintf("; at least %d bytes of WAL would be lost", loss)
		}
		return &Refusal{Unsafe: true,
			Why:    fmt.Sprintf("%s is not known to hold every acknowledged commit: %s", q.Node, why),
			Remedy: remedy + ", or promote with --force to accept the loss"}
	}
	b.promote(q.Node, !safe)
	if safe {
		b.p.Effects = append(b.p.Effects, "acknowledged commits lost: 0")
	} else {
		b.p.Effects = append(b.p.Effects, fmt.Sprintf("acknowledged commits lost: those in the last %d bytes of WAL at least", loss))
	}
	b.p.Effects = append(b.p.Effects,
		fmt.Sprintf("%s becomes the primary of term %d; clients are held meanwhile", q.Node, b.in.Record.Term+1),
		fmt.Sprintf("%s is stopped and returns as a standby", primary.ID))
	if primary.Up() {
		b.p.Warn = append(b.p.Warn, fmt.Sprintf("%s is alive: open transactions are cut off; a switchover would not cut them", primary.ID))
	}
	return nil
}

// holdsMore names the member of the sync set that holds more than a node, by
// what they promised, or by what was seen where the primary sends nothing any
// more and positions stand still.
func (b *builder) holdsMore(id cluster.NodeID) cluster.NodeID {
	if more, ok := decide.HoldsMore(b.in.Record, id); ok {
		return more
	}
	if b.in.Snapshot.Node(b.in.Record.Primary).Up() {
		return ""
	}
	have := b.in.Snapshot.Node(id)
	for _, m := range b.in.Record.SyncSet.Members {
		if n := b.in.Snapshot.Node(m); n.Up() && n.Role == cluster.RoleStandby && have.Role == cluster.RoleStandby &&
			n.Receiver == nil && have.Receiver == nil && n.Position() > have.Position() && decide.InHistory(b.in.Record, n) {
			return m
		}
	}
	return ""
}

func orUnknown(s string) string {
	if s == "" {
		return "nothing is recorded of it"
	}
	return s
}

func (b *builder) requestSwitchover(q Request) error {
	n, err := b.standby(q.Node)
	if err != nil {
		return err
	}
	p := b.in.Snapshot.Node(b.in.Record.Primary)
	m := b.in.Record.Members[q.Node]
	row, streams := p.SenderTo(q.Node)
	switch {
	case !p.Up():
		return &Refusal{Why: fmt.Sprintf("%s does not answer, so it cannot hand over", p.ID), Remedy: "promote instead"}
	case !m.Eligible:
		return &Refusal{Unsafe: true, Why: fmt.Sprintf("%s is not eligible: %s", q.Node, orUnknown(m.Reason)), Remedy: "wait until it is in sync"}
	case !decide.InHistory(b.in.Record, n):
		return &Refusal{Unsafe: true, Why: fmt.Sprintf("the history of %s is not the recorded one", q.Node), Remedy: "rejoin it first"}
	case !streams || row.State != "streaming":
		return &Refusal{Unsafe: true, Why: fmt.Sprintf("%s does not stream from %s", q.Node, p.ID), Remedy: "wait until it does"}
	case len(decide.Silent(b.in)) > 0:
		return &Refusal{Why: "too few standbys could promise: " + decide.MayHoldMore(decide.Silent(b.in)), Remedy: "start " + join(decide.Silent(b.in)) + ", or wait until commits no longer wait for it"}
	case !p.Host.Reachable:
		return &Refusal{Why: fmt.Sprintf("the host of %s does not answer over ssh, so it could not be stopped cleanly", p.ID), Remedy: "see " + p.Host.LastError}
	}
	if r := b.tooSlow(p, n); r != nil {
		return r
	}
	b.switchover(q.Node)
	b.p.Effects = append(b.p.Effects, "acknowledged commits lost: 0",
		fmt.Sprintf("new transactions wait; open ones have %s to end, else nothing is changed", b.in.Policy.DrainLimit),
		fmt.Sprintf("%s becomes the primary of term %d, %s its standby", q.Node, b.in.Record.Term+1, p.ID),
		fmt.Sprintf("until %s follows, no standby confirms commits", p.ID))
	return nil
}

// tooSlow refuses a switchover that would hold clients for longer than they
// may be held. The checkpoint that is the slow part of stopping a server is
// made before anybody is held.
func (b *builder) tooSlow(p, to cluster.NodeFacts) error {
	left := to.ReplayLSN.Behind(p.FlushLSN)
	takes, limit := decide.ReplayTime(p, to), b.in.Policy.HoldTimeout
	switch {
	case to.ReplayPaused:
		return &Refusal{Why: fmt.Sprintf("replay is paused on %s", to.ID), Remedy: "SELECT pg_wal_replay_resume() there"}
	case limit > 0 && takes > limit || left > 256<<20:
		return &Refusal{Why: fmt.Sprintf("%s has %d bytes left to replay, about %s, which would hold clients too long", to.ID, left, takes.Round(time.Second)), Remedy: "wait until it has caught up"}
	case b.in.Policy.DrainLimit > 0 && p.OldestXact > b.in.Policy.DrainLimit:
		return &Refusal{Why: fmt.Sprintf("a transaction on %s has been open for %s, and open ones have %s to end", p.ID, p.OldestXact.Round(time.Second), b.in.Policy.DrainLimit),
			Remedy: "end it (pg_stat_activity, xact_start), or raise failover.drain_limit"}
	}
	return nil
}

func (b *builder) requestMode(q Request) error {
	p := b.in.Snapshot.Node(b.in.Record.Primary)
	if !p.Up() {
		return &Refusal{Why: fmt.Sprintf("%s does not answer (connection %s)", p.ID, p.Reach)}
	}
	switch q.Mode {
	case cluster.ModeAsync:
		b.syncCheck(cluster.SyncSet{})
		b.want(q.Mode)
		b.ineligible(b.leaving(cluster.SyncSet{}), "async was asked for by "+q.By, nil)
		b.syncSet(p.ID, cluster.SyncSet{})
		b.recordSet(cluster.SyncSet{})
		b.p.Effects = append(b.p.Effects,
			fmt.Sprintf("%d commits that wait now are acknowledged without a standby", p.SyncWaiters),
			"from then on a commit waits for nobody; if the primary dies, nothing is promoted")
		if limit := b.in.Policy.AsyncLimit; limit > 0 {
			b.p.Effects = append(b.p.Effects, fmt.Sprintf("it ends by itself after %s: sync is wanted again", limit))
		}
	case cluster.ModeSync:
		if v := p.SynchronousCommit; v == "off" || v == "local" {
			return &Refusal{Why: fmt.Sprintf("synchronous_commit on %s is %s, so no commit would wait", p.ID, v), Remedy: "set it to on there"}
		}
		d := decide.RestoreTarget(b.in)
		if len(d.Members) < max(1, d.K) {
			return &Refusal{Why: fmt.Sprintf("only %d standbys stream closely enough and %d must confirm", len(d.Members), d.K),
				Remedy: "start the standby and let it catch up; the engine turns to sync by itself where sync is wanted"}
		}
		b.want(q.Mode)
		b.restore(d)
		b.p.Effects = append(b.p.Effects, describe(d))
	default:
		return &Refusal{Usage: true, Why: fmt.Sprintf("there is no mode %q", q.Mode), Remedy: "sync or async"}
	}
	b.p.Confirm = string(q.Mode)
	return nil
}

func (b *builder) requestRejoin(q Request) error {
	if _, ok := b.in.Policy.Node(q.Node); !ok {
		return &Refusal{Usage: true, Why: fmt.Sprintf("there is no node %q", q.Node), Remedy: "nodes: " + names(b.in.Policy)}
	}
	p, n := b.in.Snapshot.Node(b.in.Record.Primary), b.in.Snapshot.Node(q.Node)
	if why := decide.KeepsFrom(b.in, q.Node); why != "" {
		return &Refusal{Unsafe: true, Why: fmt.Sprintf("%s is not overwritten: %s", q.Node, why)}
	}
	if !n.Host.Reachable {
		return &Refusal{Why: fmt.Sprintf("the host of %s does not answer over ssh: %s", q.Node, n.Host.LastError)}
	}
	if _, ok := p.SenderTo(q.Node); ok {
		return &Refusal{Why: fmt.Sprintf("%s follows %s already", q.Node, p.ID)}
	}
	if err := b.rejoin(q.Node, decide.WALGone(b.in, q.Node)); err != nil {
		return &Refusal{Unsafe: true, Why: err.Error()}
	}
	b.p.Effects = append(b.p.Effects, fmt.Sprintf("what only %s holds is given up; it becomes a standby of %s", q.Node, p.ID))
	return nil
}
