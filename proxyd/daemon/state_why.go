package daemon

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/engine"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

// ruleOf is the rule in force with what it is for, and the way to it.
func ruleOf(v engine.View) api.Rule {
	r := api.Rule{Number: v.Decision.Rule, Name: v.Decision.Name, Reason: v.Decision.Reason, Since: moment(v.Since)}
	table := map[int]decide.Rule{}
	for _, row := range decide.Rules() {
		table[row.Number] = row
	}
	r.Text = table[r.Number].Text
	for _, n := range v.Trace.Considered {
		if n != r.Number {
			r.Considered = append(r.Considered, api.Considered{Number: n, Name: table[n].Name, Text: table[n].Text, Held: slices.Contains(v.Trace.Deferred, n)})
		}
	}
	return r
}

// moment is nil where t never was.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func factsOf(v engine.View) []api.Fact {
	return each(decide.Explain(v.Input()), func(f decide.Fact) api.Fact { return api.Fact{Name: f.Name, Value: f.Value} })
}

// promotionOf is what a promotion would need now, and has.
func promotionOf(v engine.View) api.Promotion {
	in := v.Input()
	q := decide.QuorumOf(in)
	order, _ := decide.Candidates(in)
	p := api.Promotion{Term: uint64(v.Record.Term) + 1, Needed: q.Needed, Given: q.Given, Able: q.Able}
	for _, id := range q.Silent {
		p.Silent = append(p.Silent, string(id))
	}
	for _, id := range order {
		p.Candidates = append(p.Candidates, string(id))
	}
	return p
}

// standing fills in what is recorded of a node and what follows from it.
func standing(n *api.Node, v engine.View, id cluster.NodeID, not map[cluster.NodeID]string) {
	m := v.Record.Members[id]
	n.Eligible, n.EligibleReason, n.Fenced = m.Eligible, m.Reason, m.Fenced
	n.EligibleSince, n.EligibleLSN = moment(m.Since), lsnText(m.LSN)
	n.InSyncSet = slices.Contains(v.Record.SyncSet.Members, id)
	n.PromisedTerm, n.PromisedLSN = uint64(m.Promised), lsnText(m.PromisedLSN)
	n.PromiseCounts = decide.PromiseCounts(v.Record, id)
	n.NotPromotable = not[id]
}

// asyncOf is an async that was asked for; nil where none was.
func asyncOf(v engine.View) *api.Async {
	if v.Record.WantMode != cluster.ModeAsync {
		return nil
	}
	a := &api.Async{Since: moment(decide.AsyncSince(v.Record, v.Memory, v.Snapshot.Now)), LeftMS: -1}
	if v.Policy.AsyncLimit > 0 && a.Since != nil {
		until := a.Since.Add(v.Policy.AsyncLimit)
		a.Until, a.LeftMS = &until, max(0, until.Sub(v.Snapshot.Now).Milliseconds())
	}
	return a
}

// dampingOf is what flapping has led to; nil where it is not damped.
func dampingOf(v engine.View) *api.Damping {
	if v.Policy.DampingWindow <= 0 {
		return nil
	}
	d := decide.DampingOf(v.Policy, v.Memory)
	return &api.Damping{WindowMS: v.Policy.DampingWindow.Milliseconds(), Failovers: d.Failovers, Losses: d.Losses, Retries: d.Retries, Usual: d.Usual, Text: d.Sentence()}
}

// verdictOf is the sentence that a person acts on.
func verdictOf(v engine.View) api.Verdict {
	switch {
	case v.Halted != "":
		return api.Verdict{Level: levelAlarm, Text: "the engine has stopped acting until a person has looked: " + v.Halted}
	case v.Record.Maintenance:
		return maintained(v)
	case v.Decision.Name == "maintenance": // it was decided a moment ago
		return api.Verdict{Level: levelWarn, Text: "maintenance is off: the engine looks, and acts again"}
	case v.Decision.Rule == 0:
		return api.Verdict{Level: levelWarn, Text: "the nodes are being looked at for the first time"}
	}
	r := api.Verdict{Node: string(v.Decision.Node), Level: levelOf(v.Decision.Level), Text: v.Decision.Reason, LossBytes: v.Decision.LossBytes}
	// An action that goes as it should, as the return of a former primary, is
	// no protection as long as nobody could take over without a loss.
	if order, _ := decide.Candidates(v.Input()); r.Level == levelOK && len(order) == 0 {
		r.Level = levelWarn
	}
	return r
}

// maintained says what is not done because of maintenance. It is loud where
// clients suffer from it.
func maintained(v engine.View) api.Verdict {
	in := v.Input()
	in.Record.Maintenance = false
	d, _, _ := decide.Decide(in)
	p := v.Snapshot.Node(v.Record.Primary)
	if v.Record.Term > 0 && d.Rule != 35 && (!p.Up() || p.Role != cluster.RolePrimary) {
		return api.Verdict{Node: string(p.ID), Level: levelAlarm, Text: fmt.Sprintf(
			"%s %s and NOTHING WILL BE DONE: the engine is in maintenance; turn maintenance off, or promote by hand (without it: %s)", p.ID, silence(p), otherwise(d))}
	}
	if d.Level == cluster.Info && !d.Acts() {
		return api.Verdict{Level: levelWarn, Text: "the engine watches and does nothing: what fails now stays failed until maintenance is off"}
	}
	return api.Verdict{Node: string(d.Node), Level: levelWarn, Text: "the engine watches and does nothing, because of maintenance (without it: " + otherwise(d) + ")"}
}

// otherwise says what a decision that is not carried out would do.
func otherwise(d decide.Decision) string {
	if d.Acts() {
		return strings.TrimSpace(fmt.Sprintf("rule %d %s, %s %s", d.Rule, d.Name, d.Action, d.Node))
	}
	return fmt.Sprintf("rule %d %s", d.Rule, d.Name)
}

// silence is how a node does not answer.
func silence(n cluster.NodeFacts) string {
	switch {
	case n.Up():
		return "is in recovery"
	case n.Reach == cluster.ReachUnknown:
		return "has not answered yet"
	case n.Host.Reachable && n.Host.Postmaster == cluster.PostmasterStopped:
		return "is stopped"
	}
	return fmt.Sprintf("does not answer (connection %s)", n.Reach)
}
