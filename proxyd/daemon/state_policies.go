package daemon

import (
	"fmt"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

// policiesOf explains what was chosen in the configuration to someone who has
// not read its manual.
func policiesOf(c *config.Config) []api.Policy {
	ps := []api.Policy{
		{Name: "failover.policy", Value: c.Failover.Policy, Text: map[string]string{
			"automatic": "when the primary is lost, the standby that holds every acknowledged commit is promoted",
			"manual":    "when the primary is lost, clients are held and a person promotes",
		}[c.Failover.Policy]},
		{Name: "failover.when_not_in_sync", Value: c.Failover.NotInSync, Text: map[string]string{
			"hold":    "a standby that may lack acknowledged commits is never promoted without a person; clients are held to their limit",
			"promote": "where no standby holds every acknowledged commit, the best one is promoted and what it lacks is lost",
		}[c.Failover.NotInSync]},
		{Name: "failover.when_standby_lost", Value: c.Failover.StandbyLost, Text: map[string]string{
			"async": "when a standby is lost, the primary stops waiting for it and writes go on unprotected",
			"wait":  "when a standby is lost, commits wait until one is back",
		}[c.Failover.StandbyLost]},
		{Name: "failover.rejoin", Value: c.Failover.Rejoin, Text: map[string]string{
			"automatic": "a former primary that returns is rewound or cloned, and follows",
			"manual":    "a former primary that returns is left stopped until a person rejoins it",
		}[c.Failover.Rejoin]},
		{Name: "failover.drain_limit", Value: c.Failover.DrainLimit.String(), Text: fmt.Sprintf("a switchover gives open transactions %s to end, else it changes nothing", c.Failover.DrainLimit)},
		{Name: "sync", Value: fmt.Sprintf("%s %d", c.Sync.Method, c.Sync.Standbys), Text: fmt.Sprintf("a commit is acknowledged when %s", confirmations(c.Sync.Standbys))},
		{Name: "sync.swap_method", Value: c.Sync.SwapMethod, Text: map[string]string{
			"files":        "postgresql.conf.sync and postgresql.conf.async are swapped over ssh; a postgresql.conf that someone has edited is not overwritten",
			"alter_system": "synchronous_standby_names is changed by ALTER SYSTEM",
		}[c.Sync.SwapMethod]},
		{Name: "health_check", Value: fmt.Sprintf("%d x %s", c.HealthCheck.Retries, c.HealthCheck.Period), Text: detection(c.HealthCheck)},
		{Name: "proxy.hold_timeout", Value: c.Proxy.HoldTimeout.String(), Text: held(c.Proxy.HoldTimeout)},
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
