package daemon

import (
	"maps"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

// sight is all that a state is made from, at one moment.
type sight struct {
	Version string
	Started time.Time
	Seq     uint64
	Config  *config.Config
	View    engine.View
	Gate    api.Gate
	Pool    api.PoolSummary
	// Drift is what the last look at the primary's files found to be wrong
	// with them, in a sentence.
	Drift string
}

// Levels of a verdict.
const (
	levelOK    = "ok"
	levelWarn  = "warn"
	levelAlarm = "alarm"
)

// stateOf says what is seen in the words of the control socket.
func stateOf(s sight) api.State {
	v := s.View
	now := v.Snapshot.Now
	st := api.State{
		Schema: api.Version, Seq: s.Seq, At: now, Cluster: v.Policy.Cluster, Lab: s.Config.Cluster.Lab,
		Version: s.Version, Started: s.Started,
		Term: uint64(v.Record.Term), Primary: string(v.Record.Primary),
		Mode: string(v.Record.Mode), WantMode: string(wanted(v.Record)),
		Gate: s.Gate, GateState: s.Gate.State, Maintenance: v.Record.Maintenance,
		Verdict: verdictOf(v), Pool: s.Pool,
		Rule: ruleOf(v), Facts: factsOf(v), Promotion: promotionOf(v),
		Promises: promisesOf(v.Record), History: historyOf(v.Record), Policies: policiesOf(s), Async: asyncOf(v), Damping: dampingOf(v), Halted: v.Halted,
	}
	_, not := decide.Candidates(v.Input())
	st.IfDies = whatIf{v, s.Config.Proxy.HoldTimeout, not}.all()
	for _, n := range v.Policy.Nodes {
		node := nodeState(v, n)
		if n.ID == v.Record.Primary && s.Drift != "" {
			node.Warnings = append(node.Warnings, s.Drift)
		}
		standing(&node, v, n.ID, not)
		st.Nodes = append(st.Nodes, node)
	}
	if v.Operation != nil {
		op := operationOf(*v.Operation, v.Progress, now)
		st.Operation = &op
	}
	return st
}

// wanted: nobody has asked for anything else than sync until somebody has.
func wanted(r cluster.Record) cluster.Mode {
	if r.WantMode == cluster.ModeUnknown {
		return cluster.ModeSync
	}
	return r.WantMode
}

func levelOf(l cluster.Level) string {
	switch l {
	case cluster.Warn:
		return levelWarn
	case cluster.Error:
		return levelAlarm
	}
	return levelOK
}

// promisesOf lists the promises that are still open: those for a term that has
// not begun.
func promisesOf(r cluster.Record) []api.Promise {
	var ps []api.Promise
	for _, id := range slices.Sorted(maps.Keys(r.Members)) {
		if m := r.Members[id]; m.Promised > r.Term {
			ps = append(ps, api.Promise{Node: string(id), Term: uint64(m.Promised), LSN: lsnText(m.PromisedLSN)})
		}
	}
	return ps
}

func historyOf(r cluster.Record) []api.History {
	hs := make([]api.History, 0, len(r.History))
	for _, h := range r.History {
		hs = append(hs, api.History{Timeline: uint32(h.Timeline), SwitchLSN: lsnText(h.SwitchLSN), Node: string(h.Node), Term: uint64(h.Term), At: h.At})
	}
	return hs
}

func lsnText(l cluster.LSN) string {
	if l == 0 {
		return ""
	}
	return l.String()
}

// ageMS is how long ago t was, in milliseconds; -1 where it never was.
func ageMS(now, t time.Time) int64 {
	if t.IsZero() {
		return -1
	}
	return max(0, now.Sub(t).Milliseconds())
}
