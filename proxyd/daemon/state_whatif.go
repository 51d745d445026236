package daemon

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

// whatIf says what a node's death would lead to.
type whatIf struct {
	v    engine.View
	hold config.Duration
	not  map[cluster.NodeID]string // why nodes could not be promoted
}

// all are the answers, node by node; none before a primary is recorded.
func (w whatIf) all() []api.Verdict {
	var out []api.Verdict
	for _, n := range w.v.Policy.Nodes {
		d, ok := w.v.IfDies[n.ID]
		if !ok || w.v.Record.Term == 0 {
			continue
		}
		r := w.of(n.ID, d)
		r.Node, r.LossBytes = string(n.ID), d.LossBytes
		if r.Gone {
			r.LossBytes = 0
		}
		r.Text = fmt.Sprintf("if %s dies now: %s", n.ID, r.Text)
		out = append(out, r)
	}
	return out
}

func (w whatIf) of(id cluster.NodeID, d decide.Decision) api.Verdict {
	f := w.v.Snapshot.Node(id)
	p := w.v.Snapshot.Node(w.v.Record.Primary)
	switch {
	case !f.Up() && f.Reach != cluster.ReachUnknown:
		return api.Verdict{Level: levelWarn, Gone: true, Text: "it " + silence(f) + " already"}
	case id != p.ID && !p.Up() && !d.Acts():
		return w.secondDeath(id, p)
	case w.v.Halted != "":
		return w.nothingDone(id, "the engine has halted", "a person has looked")
	case w.v.Record.Maintenance:
		return w.nothingDone(id, "maintenance", "maintenance is off")
	case d.Action == cluster.Promote && d.LossBytes == 0:
		return api.Verdict{Level: levelOK, Text: decide.Sentence(id, d), Clients: w.failover()}
	case d.Action == cluster.Promote:
		return api.Verdict{Level: levelAlarm, Text: fmt.Sprintf("%s is promoted and at least %s of WAL are lost", d.Node, sizeText(d.LossBytes)),
			Clients: w.failover() + "; of commits that are lost nobody is told"}
	case d.Action == cluster.Degrade && len(d.Target.Members) > 0:
		return api.Verdict{Level: levelOK, Text: decide.Sentence(id, d), Clients: "notice nothing"}
	case d.Action == cluster.Degrade:
		return api.Verdict{Level: levelWarn, Text: decide.Sentence(id, d), Clients: "see no error; commits wait for a moment"}
	case id != p.ID && p.Up() && !d.Acts() && !w.waitedFor(id):
		return api.Verdict{Level: levelOf(d.Level), Text: "nothing changes: no commit waits for it", Clients: "notice nothing"}
	}
	return w.undone(id, d)
}

// secondDeath is that of a standby while the primary is gone already.
func (w whatIf) secondDeath(id cluster.NodeID, p cluster.NodeFacts) api.Verdict {
	var left []cluster.NodeID
	for _, n := range w.v.Snapshot.Nodes {
		if n.ID != id && n.ID != p.ID && n.Up() {
			left = append(left, n.ID)
		}
	}
	if len(left) > 0 {
		return api.Verdict{Level: levelAlarm, Text: fmt.Sprintf("only %s is left, and is not promoted without a person", nodeList(left)), Clients: w.heldUntil("somebody promotes")}
	}
	return api.Verdict{Level: levelAlarm, Text: fmt.Sprintf("no node is left that could be promoted, until %s or %s is back", p.ID, id), Clients: w.heldUntil("one of them is back")}
}

// undone are the decisions that change no role.
func (w whatIf) undone(id cluster.NodeID, d decide.Decision) api.Verdict {
	r := api.Verdict{Level: levelOf(d.Level), Text: decide.Sentence(id, d), Clients: "notice nothing"}
	switch {
	case d.Rule == 32:
		r.Text = "nothing acknowledged is lost, and a person must promote: the policy is manual"
		r.Clients = w.heldUntil("somebody promotes")
	case d.Rule == 33:
		r.Text = "nothing is promoted: " + w.whyNobody(id)
		if d.LossBytes > 0 {
			r.Text += fmt.Sprintf("; at least %s of WAL would be lost", sizeText(d.LossBytes))
		}
		r.Clients = w.heldUntil(fmt.Sprintf("%s is back or somebody forces a promotion", id))
	case d.Rule == 51:
		r.Text = "commits wait until a standby is back: the policy is strict"
		r.Clients = "reads go on; every commit waits without a limit, and without an error"
	case d.CloseGate:
		r.Clients = w.heldUntil("it is settled")
	}
	return r
}

// whyNobody says of each node that is left what keeps it from being promoted.
func (w whatIf) whyNobody(dead cluster.NodeID) string {
	var why []string
	for _, n := range w.v.Policy.Nodes {
		if n.ID == dead {
			continue
		}
		reason := w.not[n.ID]
		if reason == "" {
			reason = "it may lack acknowledged commits"
		}
		if !strings.HasPrefix(reason, string(n.ID)) {
			reason = fmt.Sprintf("%s (%s)", n.ID, reason)
		}
		why = append(why, reason)
	}
	return strings.Join(why, ", ")
}

// inForce is the sync set that the primary says it has.
func (w whatIf) inForce() cluster.SyncSet {
	return decide.ParseSyncNames(w.v.Snapshot.Node(w.v.Record.Primary).SyncStandbyNames)
}

func (w whatIf) waitedFor(id cluster.NodeID) bool { return slices.Contains(w.inForce().Members, id) }

// nothingDone is a death in a time in which the engine acts on nothing.
func (w whatIf) nothingDone(id cluster.NodeID, because, until string) api.Verdict {
	if id == w.v.Record.Primary {
		return api.Verdict{Level: levelAlarm, Text: fmt.Sprintf("NOTHING is done (%s): no standby is promoted until %s", because, until), Clients: w.heldUntil(fmt.Sprintf("%s is back or %s", id, until))}
	}
	if !w.waitedFor(id) {
		return api.Verdict{Level: levelOK, Text: "nothing changes: no commit waits for it", Clients: "notice nothing"}
	}
	set := w.inForce()
	rest := cluster.SyncSet{K: set.K, Members: slices.DeleteFunc(slices.Clone(set.Members), func(m cluster.NodeID) bool { return m == id })}
	if streaming(w.v.Snapshot.Node(w.v.Record.Primary), rest) >= set.K {
		return api.Verdict{Level: levelOK, Text: "the other standbys go on confirming", Clients: "notice nothing"}
	}
	return api.Verdict{Level: levelAlarm, Text: fmt.Sprintf("NOTHING is done (%s): the primary goes on waiting for it until %s", because, until),
		Clients: "reads go on; every commit waits until then, without an error"}
}

// failover is what clients see of one: the contract in README.md.
func (w whatIf) failover() string {
	return fmt.Sprintf("held up to %s; open transactions get 40001, what is in flight 08007", w.hold)
}

func (w whatIf) heldUntil(event string) string {
	return fmt.Sprintf("wait up to %s, then get 57P03, until %s", w.hold, event)
}

// sizeText is a size with its unit as PostgreSQL counts (1 kB = 1024 bytes).
func sizeText(n uint64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f kB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GB", float64(n)/(1<<30))
}
