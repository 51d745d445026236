package daemon

import (
	"fmt"
	"strings"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

// policiesOf explains what was chosen in the configuration to someone who has
// not read its manual, and what each choice leads to as things stand.
func policiesOf(s sight) []api.Policy {
	c := s.Config
	ps := []api.Policy{
		{Name: "maintenance", Value: map[bool]string{true: "on", false: "off"}[s.View.Record.Maintenance], Text: map[bool]string{
			true:  "the engine watches and does nothing, whatever fails",
			false: "the engine acts on what it sees",
		}[s.View.Record.Maintenance]},
		{Name: "failover.policy", Value: c.Failover.Policy, Text: map[string]string{
			"automatic": "when the primary is lost, the standby that holds every acknowledged commit is promoted",
			"manual":    "when the primary is lost, clients are held and a person promotes",
		}[c.Failover.Policy]},
		{Name: "failover.when_not_in_sync", Value: c.Failover.NotInSync, Text: map[string]string{
			"hold":    "a standby that may lack acknowledged commits is never promoted without a person; clients are held to their limit",
			"promote": "where no standby holds every acknowledged commit, the best one is promoted and what it lacks is lost",
		}[c.Failover.NotInSync]},
		{Name: "failover.when_standby_lost", Value: c.Failover.StandbyLost, Text: map[string]string{
			"async": "when a standby is lost and too few are left, the primary stops waiting and writes go on unprotected",
			"wait":  "when a standby is lost and too few are left, commits wait until one is back",
		}[c.Failover.StandbyLost]},
		{Name: "failover.broken_path", Value: c.Failover.BrokenPath, Text: map[string]string{
			"promote": "when for long only a standby still hears from the primary, the standbys promise to take no more from it, and one is promoted",
			"hold":    "when only a standby still hears from the primary, clients are held and a person decides",
		}[c.Failover.BrokenPath]},
		{Name: "failover.damping", Value: c.Failover.Damping.String(), Text: damping(c.Failover.Damping)},
		{Name: "failover.rejoin", Value: c.Failover.Rejoin, Text: map[string]string{
			"automatic": "a former primary that returns is rewound or cloned, and follows",
			"manual":    "a former primary that returns is left stopped until a person rejoins it",
		}[c.Failover.Rejoin]},
		{Name: "sync", Value: fmt.Sprintf("%s %d", c.Sync.Method, c.Sync.Standbys), Text: fmt.Sprintf("a commit is acknowledged when %s", confirmations(c.Sync.Standbys))},
		{Name: "sync.slots", Value: fmt.Sprint(c.Sync.Slots), Text: map[bool]string{
			true:  "each standby has a replication slot on the primary, which moves with it and holds WAL up to max_slot_wal_keep_size",
			false: "standbys follow without a replication slot of ours",
		}[c.Sync.Slots]},
		{Name: "sync.async_limit", Value: c.Sync.AsyncLimit.String(), Text: asyncLimit(c.Sync.AsyncLimit)},
		{Name: "sync.swap_method", Value: c.Sync.SwapMethod, Text: map[string]string{
			"files":        "postgresql.conf.sync and postgresql.conf.async are swapped over ssh; a postgresql.conf that someone has edited is not overwritten",
			"alter_system": "synchronous_standby_names is changed by ALTER SYSTEM",
		}[c.Sync.SwapMethod]},
		{Name: "health_check", Value: fmt.Sprintf("%d x %s", c.HealthCheck.Retries, c.HealthCheck.Period), Text: detection(c.HealthCheck)},
		{Name: "proxy.hold_timeout", Value: c.Proxy.HoldTimeout.String(), Text: held(c.Proxy.HoldTimeout)},
		{Name: "failover.drain_limit", Value: c.Failover.DrainLimit.String(), Text: fmt.Sprintf("a switchover gives open transactions %s to end, else it changes nothing", c.Failover.DrainLimit)},
		{Name: "proxy.pool_mode", Value: c.Proxy.PoolMode, Text: map[string]string{
			"transaction": "a client has a server for the time of a transaction",
			"session":     "a client has a server until it leaves",
		}[c.Proxy.PoolMode]},
	}
	for _, n := range c.Nodes {
		if !n.AllowFailover {
			ps = append(ps, api.Policy{Name: "node." + n.Name + ".allow_failover", Value: "false", Text: "the engine neither promotes, stops nor rejoins " + n.Name})
		}
	}
	now := presentEffects(s)
	for i := range ps {
		if e, ok := now[ps[i].Name]; ok {
			ps[i].Now, ps[i].Level = e.text, e.level
		}
	}
	return ps
}

func confirmations(k int) string {
	if k == 1 {
		return "one standby has flushed it"
	}
	return fmt.Sprintf("%d standbys have flushed it", k)
}

// detection says how long a node may be silent.
func detection(h config.HealthCheck) string {
	return fmt.Sprintf("a node that is silent counts as lost after %d checks, %s at the longest; one whose host says that it is stopped, at once",
		h.Retries, config.Duration(h.Detection()))
}

func held(d config.Duration) string {
	return fmt.Sprintf("while there is no primary, a client waits up to %s and then gets 57P03", d)
}

func damping(d config.Duration) string {
	if d == 0 {
		return "flapping is not damped: every failover needs the same evidence"
	}
	return fmt.Sprintf("each failover in the last %s doubles the failed checks that make a silent primary lost; a standby that was lost again and again must stream for a while before commits wait for it", d)
}

func asyncLimit(d config.Duration) string {
	if d == 0 {
		return "an async that a person asked for lasts until somebody ends it"
	}
	return fmt.Sprintf("an async that a person asked for ends by itself after %s", d)
}

// effect is what a policy leads to as things stand.
type effect struct{ level, text string }

// presentEffects are those by the name of the policy. Before a primary is
// recorded nothing can be said.
func presentEffects(s sight) map[string]effect {
	out := map[string]effect{}
	if s.View.Record.Term == 0 {
		return out
	}
	for name, of := range map[string]func(sight) effect{
		"maintenance": maintenanceNow, "failover.policy": failoverNow, "failover.when_not_in_sync": notInSyncNow,
		"failover.when_standby_lost": standbyLostNow, "failover.broken_path": brokenPathNow, "failover.damping": dampingNow, "failover.rejoin": rejoinNow,
		"sync": syncNow, "sync.async_limit": asyncNow, "proxy.hold_timeout": heldNow,
	} {
		if e := of(s); e.text != "" {
			out[name] = e
		}
	}
	return out
}

func maintenanceNow(s sight) effect {
	if !s.View.Record.Maintenance {
		return effect{}
	}
	v := verdictOf(s.View)
	return effect{v.Level, v.Text}
}

// inSync says whether some node could be promoted without a loss, and which.
func inSync(s sight) (cluster.NodeID, bool) {
	order, _ := decide.Candidates(s.View.Input())
	if len(order) == 0 {
		return "", false
	}
	return order[0], true
}

func failoverNow(s sight) effect {
	best, ok := inSync(s)
	switch {
	case !ok:
		return effect{levelWarn, "no node could be promoted without a loss now"}
	case s.View.Halted != "":
		return effect{levelAlarm, fmt.Sprintf("%s could be promoted, but the engine has halted", best)}
	case s.View.Record.Maintenance:
		return effect{levelWarn, fmt.Sprintf("%s could be promoted, but the engine is in maintenance", best)}
	case s.Config.Failover.Policy == "manual":
		return effect{levelWarn, fmt.Sprintf("a person would have to promote %s", best)}
	}
	return effect{levelOK, fmt.Sprintf("%s would be promoted", best)}
}

func notInSyncNow(s sight) effect {
	if _, ok := inSync(s); ok {
		return effect{levelOK, "in sync: it does not apply"}
	}
	d := s.View.Decision
	if s.View.Snapshot.Node(s.View.Record.Primary).Up() {
		d = s.View.IfDies[s.View.Record.Primary]
	}
	lost := "what would be lost is not known"
	if d.LossBytes > 0 {
		lost = fmt.Sprintf("at least %s would be lost", sizeText(d.LossBytes))
	} else if d.Rule == 33 {
		lost = "nothing that was seen would be lost, but nothing proves it"
	}
	if s.Config.Failover.NotInSync == "promote" {
		return effect{levelAlarm, "not in sync: the best standby is promoted all the same, and " + lost}
	}
	return effect{levelWarn, fmt.Sprintf("not in sync: hold; clients wait up to %s, nothing is promoted, %s", s.Config.Proxy.HoldTimeout, lost)}
}

func standbyLostNow(s sight) effect {
	v := s.View
	p := v.Snapshot.Node(v.Record.Primary)
	set := decide.ParseSyncNames(p.SyncStandbyNames)
	switch {
	case !p.Up():
		return effect{}
	case v.Record.WantMode == cluster.ModeAsync:
		return effect{levelWarn, "async by hand: no commit waits for a standby"}
	case len(set.Members) == 0:
		return effect{levelWarn, fmt.Sprintf("it has happened: %s goes on alone", v.Record.Primary)}
	case p.SyncWaiters > 0 && p.OldestWait >= longWait:
		return effect{levelWarn, fmt.Sprintf("%d commits wait, the oldest for %s", p.SyncWaiters, p.OldestWait.Round(longWait/10))}
	case streaming(p, set) < set.K && s.Config.Failover.StandbyLost == "wait":
		return effect{levelAlarm, fmt.Sprintf("it has happened: commits on %s wait for %s", p.ID, nodeList(set.Members))}
	case streaming(p, set) < set.K:
		return effect{levelWarn, fmt.Sprintf("it is about to apply: too few of %s stream", nodeList(set.Members))}
	case len(set.Members) > set.K:
		return effect{levelOK, fmt.Sprintf("%d of %s may go before it applies", len(set.Members)-set.K, nodeList(set.Members))}
	}
	return effect{levelOK, fmt.Sprintf("it would apply if %s went", strings.ReplaceAll(nodeList(set.Members), " and ", " or "))}
}

// streaming counts the members of a set that the primary streams to.
func streaming(p cluster.NodeFacts, set cluster.SyncSet) int {
	n := 0
	for _, m := range set.Members {
		if row, ok := p.SenderTo(m); ok && row.State == "streaming" {
			n++
		}
	}
	return n
}

func brokenPathNow(s sight) effect {
	if d := s.View.Decision; d.Rule == 30 || d.Rule == 40 {
		return effect{levelAlarm, "it is broken: " + s.View.Decision.Reason}
	}
	return effect{}
}

func dampingNow(s sight) effect {
	d := dampingOf(s.View)
	if d == nil {
		return effect{}
	}
	seen := fmt.Sprintf("%s and %s in the window", counted(d.Failovers, "failover", "failovers"), counted(d.Losses, "loss of a standby", "losses of a standby"))
	if d.Text == "" {
		return effect{levelOK, seen + ": nothing more than usual is asked for"}
	}
	return effect{levelWarn, seen + ": " + d.Text}
}

func counted(n int, one, more string) string {
	switch n {
	case 0:
		return "no " + one
	case 1:
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

func rejoinNow(s sight) effect {
	var away []cluster.NodeID
	for _, n := range s.View.Policy.Nodes {
		if s.View.Record.Members[n.ID].Fenced {
			away = append(away, n.ID)
		}
	}
	if len(away) == 0 {
		return effect{}
	}
	return effect{levelWarn, nodeList(away) + ": a former primary that has not rejoined"}
}

func syncNow(s sight) effect {
	p := s.View.Snapshot.Node(s.View.Record.Primary)
	set := decide.ParseSyncNames(p.SyncStandbyNames)
	if !p.Up() {
		return effect{}
	}
	if len(set.Members) == 0 {
		return effect{levelWarn, fmt.Sprintf("commits on %s wait for nobody", p.ID)}
	}
	if len(set.Members) == set.K {
		return effect{levelOK, fmt.Sprintf("commits on %s wait for %s", p.ID, nodeList(set.Members))}
	}
	return effect{levelOK, fmt.Sprintf("commits on %s wait for %d of %s", p.ID, set.K, nodeList(set.Members))}
}

func asyncNow(s sight) effect {
	a := asyncOf(s.View)
	switch {
	case a == nil:
		return effect{}
	case a.Until == nil:
		return effect{levelWarn, "async was asked for, and nothing ends it but a person"}
	}
	return effect{levelWarn, fmt.Sprintf("async was asked for; sync comes back in %s", config.Duration(a.Until.Sub(s.View.Snapshot.Now).Round(longWait)))}
}

func heldNow(s sight) effect {
	if s.Gate.Held == 0 {
		return effect{}
	}
	return effect{levelWarn, fmt.Sprintf("%d clients are held, the oldest for %.1fs", s.Gate.Held, float64(s.Gate.OldestHeldMS)/1000)}
}

// nodeList names nodes as a sentence does: a, b and c.
func nodeList(ids []cluster.NodeID) string {
	words := make([]string, 0, len(ids))
	for _, id := range ids {
		words = append(words, string(id))
	}
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
