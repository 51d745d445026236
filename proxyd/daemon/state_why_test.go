package daemon

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

// trouble is a world with the configuration that it happens under.
type trouble struct {
	*engine.View
	*config.Config
}

func (w trouble) node(id cluster.NodeID) *cluster.NodeFacts {
	for i := range w.Snapshot.Nodes {
		if w.Snapshot.Nodes[i].ID == id {
			return &w.Snapshot.Nodes[i]
		}
	}
	panic("no node " + string(id))
}

// stop is a node whose postmaster is gone, proven over ssh.
func (w trouble) stop(id cluster.NodeID) {
	f := w.node(id)
	f.Reach, f.ReachSince, f.LastTry, f.Failures, f.LastError = cluster.ReachRefused, noon.Add(-time.Second), noon, 1, "connection refused"
	f.Host.LastTry, f.Host.Postmaster = noon, cluster.PostmasterStopped
	f.Senders, f.Receiver = nil, nil
	for _, o := range []cluster.NodeID{"pgsql1", "pgsql2"} {
		w.node(o).Senders = nil
	}
}

func (w trouble) async() {
	w.Record.Mode, w.Record.WantMode, w.Record.SyncSet = cluster.ModeAsync, cluster.ModeAsync, cluster.SyncSet{}
	w.Record.WantSince = noon.Add(-20 * time.Minute)
	w.Record.Members["pgsql2"] = cluster.Member{Reason: "async was asked for", Since: noon.Add(-20 * time.Minute), LSN: 0x4800000}
	w.node("pgsql1").SyncStandbyNames, w.node("pgsql1").Senders[0].SyncState = "", "async"
	w.node("pgsql1").FlushLSN = 0x5000148 + 1258291
}

func (w trouble) third() {
	s := *w.node("pgsql2")
	s.ID = "pgsql3"
	w.Snapshot.Nodes = append(w.Snapshot.Nodes, s)
	w.Policy.Nodes = append(w.Policy.Nodes, cluster.Node{ID: "pgsql3", Host: "10.0.0.3", Port: 5432, Weight: 1, FailoverAllowed: true})
	w.Record.SyncSet.Members = append(w.Record.SyncSet.Members, "pgsql3")
	w.Record.Members["pgsql3"] = cluster.Member{Eligible: true}
	p := w.node("pgsql1")
	row := p.Senders[0]
	row.ApplicationName = "pgsql3"
	p.Senders = append(p.Senders, row)
	p.SyncStandbyNames = `FIRST 1 ("pgsql2", "pgsql3")`
}

// TestWhatAPersonOnCallIsTold holds every sentence of the state in the troubles
// that there are, since each is read by somebody in a hurry.
func TestWhatAPersonOnCallIsTold(t *testing.T) {
	var b strings.Builder
	for _, tc := range []struct {
		story  string
		change func(trouble)
	}{
		{"all is well", func(trouble) {}},
		{"three nodes, one must confirm", func(w trouble) { w.third() }},
		{"the standby is gone, commits go on", func(w trouble) {
			w.async()
			w.Record.WantMode = cluster.ModeSync
			w.Record.Members["pgsql2"] = cluster.Member{Reason: "pgsql2 was lost (connection refused)"}
			w.stop("pgsql2")
		}},
		{"the policy is strict", func(w trouble) { w.Policy.Degrade, w.Failover.StandbyLost = cluster.DegradeNever, "wait" }},
		{"the policy is strict, and the standby is gone", func(w trouble) {
			w.Policy.Degrade, w.Failover.StandbyLost = cluster.DegradeNever, "wait"
			w.stop("pgsql2")
		}},
		{"async by hand, without an end", func(w trouble) { w.async() }},
		{"async by hand, limited to 30 minutes", func(w trouble) {
			w.async()
			w.Policy.AsyncLimit, w.Sync.AsyncLimit = 30*time.Minute, config.Duration(30*time.Minute)
		}},
		{"async by hand, and losses are allowed", func(w trouble) { w.async(); w.Policy.UnsafePromote, w.Failover.NotInSync = true, "promote" }},
		{"the policy is manual", func(w trouble) { w.Policy.Failover, w.Failover.Policy = cluster.Manual, "manual" }},
		{"the primary is gone and nobody may be promoted", func(w trouble) { w.async(); w.stop("pgsql1") }},
		{"both are gone", func(w trouble) { w.stop("pgsql1"); w.stop("pgsql2") }},
		{"maintenance", func(w trouble) { w.Record.Maintenance = true }},
		{"maintenance, and the primary is gone", func(w trouble) { w.Record.Maintenance = true; w.stop("pgsql1") }},
		{"halted", func(w trouble) { w.Halted = "the term would fall from 5 to 4" }},
		{"a former primary is away", func(w trouble) {
			w.async()
			w.Record.WantMode = cluster.ModeSync
			w.Record.Members["pgsql2"] = cluster.Member{Fenced: true, Reason: "a former primary"}
			w.stop("pgsql2")
			w.node("pgsql2").Host.Reachable = false
		}},
		{"a former primary is on its way back, and nobody could take over", func(w trouble) {
			w.async()
			w.Record.Mode, w.Record.WantMode = cluster.ModeAsync, cluster.ModeSync
			w.Record.Members["pgsql2"] = cluster.Member{Fenced: true, Reason: "a former primary"}
			w.stop("pgsql2")
		}},
		{"the pair flaps", func(w trouble) {
			w.Memory.Failovers = []time.Time{noon.Add(-4 * time.Minute), noon.Add(-time.Minute)}
			w.Memory.Losses = map[cluster.NodeID][]time.Time{"pgsql2": {noon.Add(-3 * time.Minute), noon.Add(-2 * time.Minute)}}
		}},
		{"our path to the primary is cut", func(w trouble) {
			f := w.node("pgsql1")
			f.Reach, f.ReachSince, f.LastTry, f.Failures, f.LastError = cluster.ReachTimeout, noon.Add(-9*time.Second), noon, 4, "no answer in 2s"
			f.Host.Reachable, f.Host.LastError = false, "no route to host"
			w.node("pgsql2").Receiver.LastMsgReceipt = noon
		}},
		{"a promise has been given for the term to come", func(w trouble) {
			m := w.Record.Members["pgsql2"]
			m.Promised, m.PromisedLSN = 5, 0x5000148
			w.Record.Members["pgsql2"] = m
			w.stop("pgsql1")
		}},
	} {
		v := healthy()
		c := config.Default()
		tc.change(trouble{&v, c})
		decided(&v)
		st := stateOf(sight{Config: c, View: v, Gate: api.Gate{State: "open"}})
		fmt.Fprintf(&b, "# %s\n", tc.story)
		tell(&b, st)
		b.WriteByte('\n')
	}
	golden(t, "why.txt", b.String())
}

func tell(b *strings.Builder, st api.State) {
	fmt.Fprintf(b, "%-5s rule %d %s", st.Verdict.Level, st.Rule.Number, st.Rule.Name)
	if st.Verdict.Text != st.Rule.Reason { // a rule's own words have their tests beside the rules
		b.WriteString(": " + st.Verdict.Text)
	}
	b.WriteByte('\n')
	for _, d := range st.IfDies {
		fmt.Fprintf(b, "%-5s %s\n", d.Level, d.Text)
		if d.Clients != "" {
			fmt.Fprintf(b, "      clients: %s\n", d.Clients)
		}
	}
	p := st.Promotion
	fmt.Fprintf(b, "promotion of term %d: needs %d, given %d, able %d, silent %v, candidates %v\n", p.Term, p.Needed, p.Given, p.Able, p.Silent, p.Candidates)
	for _, n := range st.Nodes {
		if n.NotPromotable != "" {
			fmt.Fprintf(b, "%s is not promotable: %s\n", n.Name, n.NotPromotable)
		}
	}
	for _, p := range st.Policies {
		if p.Now != "" {
			p.Now = strings.ReplaceAll(p.Now, st.Rule.Reason, "(the rule's reason)")
			fmt.Fprintf(b, "%-5s %s = %s: %s\n", p.Level, p.Name, p.Value, p.Now)
		}
	}
}
