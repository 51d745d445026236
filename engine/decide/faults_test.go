package decide_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
)

// A fault is told as the moments in which the engine sees it and what comes of
// it. The gate is closed where a decision asks for it, and opened where one
// that opens it was carried out, as the engine does it.
type fault struct {
	name     string
	detected string
	world    []change // beforehand
	moments  []moment
	ends     string
}

type moment struct {
	world  []change
	wait   time.Duration // the world stays so, and the engine watches
	rule   int
	action cluster.Action
	node   cluster.NodeID
	held   bool
}

// The words that the faults are told in, beside those of the other stories.
var (
	jitter = set(func(in *decide.Input) { down("pgsql1", cluster.ReachTimeout, 1)(in) })
	quietA = down("pgsql1", cluster.ReachTimeout, 3)
	sshUp  = set(func(in *decide.Input) {
		h := &node(in, "pgsql1").Host
		h.Reachable, h.Postmaster, h.LastTry = true, cluster.PostmasterRunning, in.Snapshot.Now
	})

	// failedOver: the promotion of pgsql2 was carried out.
	failedOver = set(func(in *decide.Input) {
		r := &in.Record
		r.Term, r.Primary, r.Timeline, r.Mode, r.SyncSet = 2, "pgsql2", 2, cluster.ModeAsync, cluster.SyncSet{}
		r.History = append(r.History, cluster.HistoryEntry{SystemIdentifier: system, Timeline: 2, SwitchLSN: 1000, Node: "pgsql2", Term: 2})
		r.Members["pgsql1"], r.Members["pgsql2"] = cluster.Member{Fenced: true, Reason: "a former primary"}, cluster.Member{Eligible: true}
		two := node(in, "pgsql2")
		two.Role, two.Timeline, two.Conninfo, two.Receiver, two.FlushLSN, two.SyncStandbyNames = cluster.RolePrimary, 2, "", nil, 1000, ""
		in.GateOpen = true
	})
	woken = set(func(in *decide.Input) {
		n := node(in, "pgsql1")
		n.Reach, n.Failures, n.ReachSince = cluster.ReachOK, 0, in.Snapshot.Now
		n.Host = cluster.HostFacts{Reachable: true, LastTry: in.Snapshot.Now, LastOK: in.Snapshot.Now, Postmaster: cluster.PostmasterRunning}
	})
	stoppedA = set(func(in *decide.Input) { stopped("pgsql1")(in); node(in, "pgsql1").Host.LastTry = in.Snapshot.Now })
	// rejoined: the former primary streams from pgsql2 and is fenced no more.
	rejoined = set(func(in *decide.Input) {
		woken(in)
		one, two := node(in, "pgsql1"), node(in, "pgsql2")
		one.Role, one.Timeline, one.ReceiveLSN, one.ReplayLSN, one.Conninfo, one.Senders = cluster.RoleStandby, 2, 1000, 1000, "host=pgsql2", nil
		one.Receiver = &cluster.Receiver{Status: "streaming", ReceivedTLI: 2}
		two.Senders = []cluster.Sender{{ApplicationName: "pgsql1", State: "streaming", FlushLSN: 1000}}
		in.Record.Members["pgsql1"] = cluster.Member{Reason: "it follows"}
	})
	// commitsWait: the standby seems to stream, and confirms nothing.
	commitsWait = set(func(in *decide.Input) {
		p := node(in, "pgsql1")
		p.FlushLSN, p.SyncWaiters = 2000, 2
	})
	// degraded: the standby was recorded ineligible and is not waited for.
	degraded     = set(func(in *decide.Input) { async(in); node(in, "pgsql1").SyncWaiters = 0 })
	streamsAgain = set(func(in *decide.Input) {
		p := node(in, "pgsql1")
		p.Senders = []cluster.Sender{{ApplicationName: "pgsql2", State: "streaming", FlushLSN: p.FlushLSN}}
		n := node(in, "pgsql2")
		n.Reach, n.Failures = cluster.ReachOK, 0
		n.Host = cluster.HostFacts{Reachable: true, LastTry: in.Snapshot.Now, LastOK: in.Snapshot.Now, Postmaster: cluster.PostmasterRunning}
		n.Receiver = &cluster.Receiver{Status: "streaming", ReceivedTLI: 1}
	})
	noReceiver = set(func(in *decide.Input) { unlink("pgsql2")(in); node(in, "pgsql2").Receiver = nil })
	heard      = set(func(in *decide.Input) {
		n := node(in, "pgsql2")
		r := *n.Receiver
		r.LastMsgReceipt = in.Snapshot.Now.Add(10 * time.Second)
		n.Receiver = &r
	})
	pathPromotes = set(func(in *decide.Input) { in.Policy.BrokenPath = cluster.PathPromote })
	gateClosed   = set(func(in *decide.Input) { in.GateOpen = false })
	reopened     = set(func(in *decide.Input) { in.GateOpen = true })
	restarted    = set(func(in *decide.Input) { woken(in); node(in, "pgsql1").StartedAt = epoch.Add(time.Minute) })
	withSender   = set(func(in *decide.Input) { streamsAgain(in) })
	damped       = set(func(in *decide.Input) { in.Policy.DampingWindow = 10 * time.Minute })
	secondServer = set(func(in *decide.Input) {
		p := node(in, "pgsql1")
		a, b := p.Senders[0], p.Senders[0]
		a.ClientAddr, b.ClientAddr = "10.0.0.2", "10.0.0.9"
		p.Senders = []cluster.Sender{a, b}
	})
)

var faults = []fault{
	{name: "primary: postmaster killed or stopped", detected: "its connections end, a new one is refused, and ssh says that no process owns the data directory: proof, no retries",
		moments: []moment{
			{world: []change{stopped("pgsql1")}, rule: 31, action: cluster.Promote, node: "pgsql2", held: true},
			{world: []change{failedOver, stoppedA}, rule: 70, action: cluster.Rejoin, node: "pgsql1"},
			{world: []change{rejoined}, rule: 80, action: cluster.Restore, node: "pgsql1"}},
		ends: "the standby is the primary of the next term, the old one its standby, in sync"},
	{name: "primary: host gone silently", detected: "so many timeouts as health_check.retries says, and ssh is silent too",
		moments: []moment{
			{world: []change{jitter}, rule: 35},
			{world: []change{quietA}, rule: 31, action: cluster.Promote, node: "pgsql2", held: true},
			{world: []change{failedOver, quietA}, rule: 72}},
		ends: "the standby is the primary and runs alone; the host is taken back when it answers"},
	{name: "primary: processes frozen, woken later", detected: "timeouts while ssh says that the process is there; no message reaches the standby",
		moments: []moment{
			{world: []change{quietA, sshUp}, rule: 31, action: cluster.Promote, node: "pgsql2", held: true},
			{world: []change{failedOver, woken}, rule: 20, action: cluster.Fence, node: "pgsql1"},
			{world: []change{stoppedA}, rule: 70, action: cluster.Rejoin, node: "pgsql1"}},
		ends: "what it would acknowledge when woken finds no standby to confirm; it is stopped and rejoins"},
	{name: "network: cut between us and the primary, replication lives (policy: hold)", detected: "timeouts, while the standby has heard from the primary since",
		moments: []moment{{world: []change{quietA, heard, later(11 * time.Second)}, rule: 30, held: true}, {world: []change{woken, later(time.Second), withSender}, rule: 60, action: cluster.Reopen, node: "pgsql1", held: false}},
		ends:    "service goes on when the path is back, or a person promotes"},
	{name: "network: cut between us and the primary, replication lives (policy: promote)", detected: "the same, for twice as many failed checks", world: []change{pathPromotes},
		moments: []moment{
			{world: []change{quietA, heard, later(11 * time.Second)}, rule: 30, held: true},
			{world: []change{down("pgsql1", cluster.ReachTimeout, 6), heard}, rule: 40, action: cluster.Promote, node: "pgsql2", held: true},
			{world: []change{failedOver, woken}, rule: 20, action: cluster.Fence, node: "pgsql1"}},
		ends: "the standby took no more from the old primary, so that it could acknowledge nothing; it is stopped when it is reached"},
	{name: "network: one-way cut, the primary's answers to us are lost", detected: "timeouts, while the standby still hears from the primary: as a cut of both ways",
		moments: []moment{{world: []change{quietA, heard, later(11 * time.Second)}, rule: 30, held: true}}, ends: "as a cut of both ways"},
	{name: "network: cut between primary and standby", detected: "commits wait and the standby confirms nothing for the usual patience, long before wal_sender_timeout",
		moments: []moment{
			{world: []change{commitsWait}, wait: 2 * time.Second, rule: 61},
			{world: []change{}, wait: 2 * time.Second, rule: 50, action: cluster.Degrade, node: "pgsql2"},
			{world: []change{degraded}, rule: 81},
			{world: []change{streamsAgain}, rule: 80, action: cluster.Restore, node: "pgsql2"}},
		ends: "commits go on in async; in sync again when the standby streams"},
	{name: "network: one-way cut, the standby's confirmations are lost", detected: "the same: commits wait, nothing is confirmed",
		moments: []moment{{world: []change{commitsWait}, wait: 4 * time.Second, rule: 50, action: cluster.Degrade, node: "pgsql2"}}, ends: "as a cut of both ways"},
	{name: "false alarm: load, 200 ms of jitter, one lost packet", detected: "single timeouts, which are not enough",
		moments: []moment{{world: []change{jitter}, rule: 35}, {world: []change{woken, withSender}, rule: 99}}, ends: "nothing was changed"},
	{name: "disk full on the primary", detected: "PostgreSQL panics where it cannot write WAL: refused, and ssh says that no process runs",
		moments: []moment{{world: []change{stopped("pgsql1")}, rule: 31, action: cluster.Promote, node: "pgsql2", held: true}}, ends: "as a primary that was killed; its return fails, is told, and is tried again"},
	{name: "disk full on the standby", detected: "its receiver ends: the primary has no replication connection from it for the usual patience",
		moments: []moment{{world: []change{noReceiver}, wait: 4 * time.Second, rule: 50, action: cluster.Degrade, node: "pgsql2"}, {world: []change{degraded, streamsAgain}, rule: 80, action: cluster.Restore, node: "pgsql2"}},
		ends:    "commits go on in async; in sync again when there is space"},
	{name: "standby: postmaster killed or stopped", detected: "refused, and ssh says that no process runs: proof",
		moments: []moment{{world: []change{stopped("pgsql2")}, rule: 50, action: cluster.Degrade, node: "pgsql2"}, {world: []change{degraded, streamsAgain}, rule: 80, action: cluster.Restore, node: "pgsql2"}}, ends: "in sync again when somebody starts it"},
	{name: "standby: host gone silently, or frozen", detected: "timeouts, and commits wait for it",
		moments: []moment{{world: []change{silentStandby}, rule: 61}, {world: []change{commitsWait, set(func(in *decide.Input) { node(in, "pgsql1").OldestWait = 2 * time.Second })}, rule: 50, action: cluster.Degrade, node: "pgsql2"}}, ends: "in sync again when it streams"},
	{name: "one of two standbys is lost, the other confirms", detected: "as above", world: []change{three},
		moments: []moment{{world: []change{stopped("pgsql2")}, rule: 50, action: cluster.Degrade, node: "pgsql2"}}, ends: "no async: commits wait for the other"},
	{name: "standby's replay is paused", detected: "pg_is_wal_replay_paused()",
		moments: []moment{{world: []change{set(func(in *decide.Input) { node(in, "pgsql2").ReplayPaused = true })}, rule: 64}, {world: []change{stopped("pgsql1")}, rule: 31, action: cluster.Promote, node: "pgsql2", held: true}},
		ends:    "a promotion ends the pause; a switchover is refused while it lasts"},
	{name: "standby's replay lags", detected: "what is received and not replayed would take more than a few seconds",
		moments: []moment{{world: []change{set(func(in *decide.Input) {
			node(in, "pgsql1").FlushLSN = 1 << 30
			node(in, "pgsql1").Senders[0].FlushLSN = 1 << 30
			node(in, "pgsql2").ReceiveLSN = 1 << 30
		})}, rule: 64}}, ends: "a switchover is refused while it would hold clients too long"},
	{name: "WAL that the standby needs is gone, or its slot was invalidated", detected: "it receives nothing, its replay stands still, and the primary's oldest WAL begins later", world: []change{degraded, noReceiver},
		moments: []moment{{world: []change{set(func(in *decide.Input) { node(in, "pgsql1").OldestWAL, node(in, "pgsql1").FlushLSN = 5000, 9000 })}, rule: 91}, {wait: 7 * time.Second, rule: 75, action: cluster.Rejoin, node: "pgsql2"}},
		ends:    "it is copied anew, with progress, and then in sync"},
	{name: "standby's data directory is gone", detected: "ssh says that there is none", world: []change{damped},
		moments: []moment{{world: []change{stopped("pgsql2"), set(func(in *decide.Input) {
			n := node(in, "pgsql2")
			n.Host.Postmaster, n.Failures = cluster.PostmasterAbsent, 3
		})}, rule: 50, action: cluster.Degrade, node: "pgsql2"}, {world: []change{degraded}, rule: 77, action: cluster.Rejoin, node: "pgsql2"}},
		ends: "it is copied anew, with progress, and then in sync"},
	{name: "a standby cannot connect, and no reason is seen", detected: "it receives nothing and replays nothing for twice the usual patience", world: []change{degraded, noReceiver},
		moments: []moment{{rule: 91}, {wait: 7 * time.Second, rule: 76}}, ends: "a person reads its log"},
	{name: "primary: crash and restart in place, seen", detected: "it says that it is starting up",
		moments: []moment{{world: []change{down("pgsql1", cluster.ReachStarting, 1)}, rule: 34, held: true}, {world: []change{restarted, withSender}, rule: 60, action: cluster.Reopen, node: "pgsql1"}, {world: []change{reopened}, rule: 99}},
		ends:    "clients go on once the standbys have confirmed all that the restart made visible"},
	{name: "primary: crash and restart in place, between two looks", detected: "it began later than the run that the gate was opened to",
		moments: []moment{{rule: 99}, {world: []change{restarted}, rule: 39, held: true}, {rule: 60, action: cluster.Reopen, node: "pgsql1"}, {world: []change{reopened}, rule: 99}}, ends: "the same"},
	{name: "both nodes restart, the primary is first", detected: "the primary says that it starts; the standby is gone",
		moments: []moment{
			{world: []change{down("pgsql1", cluster.ReachStarting, 1), down("pgsql2", cluster.ReachStarting, 1)}, rule: 34, held: true},
			{world: []change{restarted, stopped("pgsql2")}, rule: 50, action: cluster.Degrade, node: "pgsql2"},
			{world: []change{degraded}, rule: 60, action: cluster.Reopen, node: "pgsql1"}},
		ends: "the primary serves alone; in sync again when the standby streams"},
	{name: "both nodes restart, the standby is first", detected: "the primary is proved to be stopped, and the standby answers",
		moments: []moment{{world: []change{stopped("pgsql1"), down("pgsql2", cluster.ReachStarting, 1)}, rule: 33, held: true}, {world: []change{streamsAgain, noReceiver, stoppedA}, rule: 31, action: cluster.Promote, node: "pgsql2", held: true}},
		ends:    "the standby is promoted; with nobody there, clients are held until one of them is"},
	{name: "old primary started by hand", detected: "it takes writes and is fenced", world: []change{stopped("pgsql1"), failedOver},
		moments: []moment{{world: []change{woken}, rule: 20, action: cluster.Fence, node: "pgsql1"}, {world: []change{stoppedA}, rule: 70, action: cluster.Rejoin, node: "pgsql1"}}, ends: "it is stopped and rejoins"},
	{name: "somebody's pg_promote of the standby, the primary lives", detected: "a second node takes writes",
		moments: []moment{{world: []change{noReceiver, set(func(in *decide.Input) {
			n := node(in, "pgsql2")
			n.Role, n.Timeline, n.FlushLSN, n.Conninfo = cluster.RolePrimary, 2, 1500, ""
			n.SwitchHistory = []cluster.HistoryEntry{{Timeline: 2, SwitchLSN: 1000}}
		})}, rule: 20, action: cluster.Fence, node: "pgsql2"}, {world: []change{stopped("pgsql2"), degraded, fenced("pgsql2")}, rule: 70, action: cluster.Rejoin, node: "pgsql2"}},
		ends: "it is stopped; what only it has is told in bytes, and given up when it rejoins"},
	{name: "somebody's pg_promote of the standby, the primary is gone", detected: "a node takes writes that promised us nothing",
		moments: []moment{{world: []change{stopped("pgsql1"), set(func(in *decide.Input) { n := node(in, "pgsql2"); n.Role, n.Timeline = cluster.RolePrimary, 2 })}, rule: 21, held: true}}, ends: "a person chooses: stop it, or promote it here"},
	{name: "somebody's ALTER SYSTEM empties synchronous_standby_names", detected: "the running value",
		moments: []moment{{world: []change{set(func(in *decide.Input) { node(in, "pgsql1").SyncStandbyNames = "" })}, rule: 52, action: cluster.Degrade, node: "pgsql2"}, {world: []change{degraded}, rule: 80, action: cluster.Restore, node: "pgsql2"}},
		ends:    "the standby is not eligible while nothing waits for it; sync is wanted, so it is restored"},
	{name: "somebody's ALTER SYSTEM lets another server confirm", detected: "a name in the running value that is not recorded",
		moments: []moment{{world: []change{set(func(in *decide.Input) { node(in, "pgsql1").SyncStandbyNames = `ANY 1 (pgsql2, laptop)` })}, rule: 52, action: cluster.Degrade, node: "pgsql2"},
			{world: []change{set(func(in *decide.Input) {
				in.Record.SyncSet = cluster.SyncSet{Method: "ANY", K: 1, Members: []cluster.NodeID{"pgsql2", "laptop"}}
			})}, rule: 80, action: cluster.Restore, node: "pgsql2"}},
		ends: "its promise is asked for from then on, and the policy's set is put back"},
	{name: "somebody's ALTER SYSTEM empties a standby's primary_conninfo", detected: "no receiver, and nothing to follow", world: []change{degraded},
		moments: []moment{{world: []change{noReceiver, set(func(in *decide.Input) { node(in, "pgsql2").Conninfo = "" })}, rule: 71, action: cluster.Rejoin, node: "pgsql2"}}, ends: "it follows the primary again"},
	{name: "wrong system identifier at the primary's address", detected: "pg_control_system()",
		moments: []moment{{world: []change{set(func(in *decide.Input) { node(in, "pgsql1").SystemIdentifier = 5 })}, rule: 12, held: true}}, ends: "a person puts the right server back, or promotes"},
	{name: "wrong system identifier on a standby", detected: "pg_control_system()", world: []change{degraded, noReceiver},
		moments: []moment{{world: []change{set(func(in *decide.Input) { node(in, "pgsql2").SystemIdentifier = 5 })}, rule: 76}}, ends: "it never counts and is not overwritten; a person moves its data aside"},
	{name: "equal timeline number with another history, on a standby", detected: "its own timeline history branches elsewhere than the recorded one", world: []change{stopped("pgsql1"), failedOver, rejoined},
		moments: []moment{{world: []change{set(func(in *decide.Input) {
			n := node(in, "pgsql1")
			n.Receiver, node(in, "pgsql2").Senders = nil, nil
			n.SwitchHistory = []cluster.HistoryEntry{{Timeline: 2, SwitchLSN: 900}}
		})}, rule: 73, action: cluster.Rejoin, node: "pgsql1"}}, ends: "pg_rewind sees nothing to do, so it is copied anew"},
	{name: "equal timeline number with another history, on the primary", detected: "the same", world: []change{stopped("pgsql1"), failedOver},
		moments: []moment{{world: []change{set(func(in *decide.Input) {
			node(in, "pgsql2").SwitchHistory = []cluster.HistoryEntry{{Timeline: 2, SwitchLSN: 900}}
		})}, rule: 37, held: true}}, ends: "it does not serve; a person puts the right server back"},
	{name: "primary restored from a backup, or its disk lost what it had confirmed", detected: "a standby that receives nothing holds more of the same timeline, for the usual patience",
		moments: []moment{{world: []change{noReceiver, set(func(in *decide.Input) { node(in, "pgsql1").FlushLSN = 500 })}, rule: 61}, {wait: 3 * time.Second, rule: 41, held: true}}, ends: "nothing is overwritten; a person promotes the standby, or gives up what it holds"},
	{name: "two servers claim one application_name", detected: "two replication connections of that name, from two addresses",
		moments: []moment{{world: []change{secondServer}, rule: 53, action: cluster.Degrade, node: "pgsql2"}, {world: []change{degraded, secondServer}, rule: 63}, {world: []change{streamsAgain}, rule: 80, action: cluster.Restore, node: "pgsql2"}}, ends: "neither counts before the other is gone"},
	{name: "two replication connections of one name from one address", detected: "a standby that was cut off is back before the primary has noticed; after the usual patience it is a loss",
		moments: []moment{{world: []change{set(func(in *decide.Input) { p := node(in, "pgsql1"); p.Senders = append(p.Senders, p.Senders[0]) })}, rule: 61}, {wait: 4 * time.Second, rule: 50, action: cluster.Degrade, node: "pgsql2"}, {world: []change{degraded, streamsAgain}, rule: 80, action: cluster.Restore, node: "pgsql2"}}, ends: "it counts again when one of the two has gone"},
	{name: "slot of a standby dropped or invalidated", detected: "pg_replication_slots on the primary", world: []change{slots},
		moments: []moment{{world: []change{slotLost}, rule: 74, action: cluster.GiveSlot, node: "pgsql2"}, {world: []change{slots}, rule: 99}}, ends: "it is made anew; where the WAL is gone with it the standby is copied"},
	{name: "a standby keeps slots from when it was the primary", detected: "pg_replication_slots on the standby", world: []change{slots},
		moments: []moment{{world: []change{leftBehind}, rule: 74, action: cluster.GiveSlot, node: "pgsql2"}}, ends: "they are dropped: nobody reads them, and they hold WAL"},
	{name: "a standby without its slot, where two must confirm", detected: "pg_stat_replication and pg_replication_slots", world: []change{three, two, slots, ineligible("pgsql3", "it was lost"), set(func(in *decide.Input) {
		node(in, "pgsql1").SyncStandbyNames, in.Record.SyncSet.K = `FIRST 1 ("pgsql2")`, 1
	})},
		moments: []moment{{world: []change{slotless}, rule: 74, action: cluster.GiveSlot, node: "pgsql3"}, {world: []change{slotTried}, rule: 74}, {world: []change{slots, set(func(in *decide.Input) { in.Memory = decide.Memory{} })}, rule: 80, action: cluster.Restore, node: "pgsql3"}},
		ends:    "it does not count before it has it: PostgreSQL counts connections, and only one of them can hold a slot"},
	{name: "daemon killed at any step, started again", detected: "the journal has an operation without an end; the gate is closed when a daemon starts", world: []change{gateClosed},
		moments: []moment{{rule: 60, action: cluster.Reopen, node: "pgsql1"}, {world: []change{reopened}, rule: 99}}, ends: "the operation goes on from the journal, or is ended with its reason; the gate opens after a proof"},
	{name: "store unreachable", detected: "a step that must write fails", world: []change{stopped("pgsql1")},
		moments: []moment{{world: []change{set(func(in *decide.Input) { in.Memory = in.Memory.Failed(cluster.Promote, "pgsql2", in.Snapshot.Now) })}, rule: 31, held: true}, {wait: time.Second, rule: 31, action: cluster.Promote, node: "pgsql2", held: true}}, ends: "no role is changed before it was written that it will be; tried again after a growing pause"},
	{name: "clock set forward by an hour, in the middle of a suspicion", detected: "a step longer than any that is watched counts for half of a patience",
		moments: []moment{{world: []change{noReceiver}, rule: 61}, {world: []change{later(time.Hour)}, rule: 61}, {wait: 3 * time.Second, rule: 50, action: cluster.Degrade, node: "pgsql2"}}, ends: "what is measured is the time that was watched"},
	{name: "clock set back by an hour, in the middle of a suspicion", detected: "every timer is moved with it",
		moments: []moment{{world: []change{noReceiver}, wait: 2 * time.Second, rule: 61}, {world: []change{later(-time.Hour)}, rule: 61}, {wait: 2 * time.Second, rule: 50, action: cluster.Degrade, node: "pgsql2"}}, ends: "it goes on where it was"},
	{name: "a standby flaps", detected: "its losses within failover.damping", world: []change{damped},
		moments: []moment{{world: []change{stopped("pgsql2")}, rule: 50, action: cluster.Degrade, node: "pgsql2"}, {world: []change{degraded, streamsAgain}, rule: 80, action: cluster.Restore, node: "pgsql2"},
			{world: []change{inSync, stopped("pgsql2")}, rule: 50, action: cluster.Degrade, node: "pgsql2"}, {world: []change{degraded, streamsAgain}, rule: 81}, {wait: 4 * time.Second, rule: 80, action: cluster.Restore, node: "pgsql2"}},
		ends: "from the second loss on it must stream without interruption first, twice as long each time, a minute at the most"},
	{name: "primaries flap", detected: "the failovers within failover.damping", world: []change{damped},
		moments: []moment{{world: []change{quietA}, rule: 31, action: cluster.Promote, node: "pgsql2", held: true}, {world: []change{failedOver, rejoined, inSyncB}, rule: 99},
			{world: []change{down("pgsql2", cluster.ReachTimeout, 3)}, rule: 35}, {world: []change{down("pgsql2", cluster.ReachTimeout, 6)}, rule: 31, action: cluster.Promote, node: "pgsql1", held: true}},
		ends: "each asks for twice the silence of the one before, half a minute at the most; proof is proof"},
	{name: "primary lost while the standby is not in sync", detected: "the record", world: []change{async},
		moments: []moment{{world: []change{stopped("pgsql1")}, rule: 33, held: true}}, ends: "nothing is promoted; a person may force it, knowing how many bytes are lost at least"},
	{name: "primary lost, one of two standbys silent: it may alone have confirmed", detected: "too few promises are possible", world: []change{three},
		moments: []moment{{world: []change{stopped("pgsql1"), stopped("pgsql3")}, rule: 33, held: true}}, ends: "nothing is promoted until it answers, or a person forces it"},
	{name: "primary lost, policy manual", detected: "as above", world: []change{set(func(in *decide.Input) { in.Policy.Failover = cluster.Manual })},
		moments: []moment{{world: []change{stopped("pgsql1")}, rule: 32, held: true}}, ends: "a person promotes"},
	{name: "primary lost in maintenance", detected: "as above", world: []change{set(func(in *decide.Input) { in.Record.Maintenance = true })},
		moments: []moment{{world: []change{stopped("pgsql1")}, rule: 1}}, ends: "nothing is done, and what would be is told"},
	{name: "standby lost, policy strict", detected: "as above", world: []change{set(func(in *decide.Input) { in.Policy.Degrade = cluster.DegradeNever })},
		moments: []moment{{world: []change{stopped("pgsql2")}, rule: 51}}, ends: "commits wait until it streams; reads go on"},
	{name: "async by hand for longer than its limit", detected: "sync.async_limit", world: []change{degraded, set(func(in *decide.Input) {
		in.Record.WantMode, in.Policy.AsyncLimit, in.Record.WantSince = cluster.ModeAsync, time.Minute, epoch
	})},
		moments: []moment{{rule: 90}, {world: []change{later(time.Minute)}, rule: 82, action: cluster.SetMode}}, ends: "sync is wanted again, and the standby is taken back"},
}

// slots has every standby follow pgsql1 with its slot.
var (
	slots = set(func(in *decide.Input) {
		in.Policy.Slots = true
		for i := range in.Policy.Nodes {
			n := &in.Policy.Nodes[i]
			n.Host, n.Port = "10.0.0."+string(n.ID[len(n.ID)-1]), 5432
		}
		p := node(in, "pgsql1")
		p.Slots = nil
		for i, s := range p.Senders {
			id := cluster.NodeID(s.ApplicationName)
			p.Senders[i].Slot = cluster.SlotName(id)
			p.Slots = append(p.Slots, cluster.Slot{Name: cluster.SlotName(id), Active: true, WALStatus: "reserved"})
			n := node(in, id)
			n.SlotName, n.Conninfo, n.Slots = cluster.SlotName(id), "host=10.0.0.1 port=5432", nil
		}
	})
	slotLost   = set(func(in *decide.Input) { node(in, "pgsql1").Slots[0].WALStatus = "lost" })
	leftBehind = set(func(in *decide.Input) { node(in, "pgsql2").Slots = []cluster.Slot{{Name: cluster.SlotName("pgsql1")}} })
	slotless   = set(func(in *decide.Input) {
		p := node(in, "pgsql1")
		p.Senders[1].Slot, p.Slots = "", p.Slots[:1]
		node(in, "pgsql3").SlotName = ""
	})
	slotTried = set(func(in *decide.Input) {
		in.Memory = in.Memory.Failed(cluster.GiveSlot, "pgsql3", in.Snapshot.Now)
	})
)

// inSync is the pair as it was, after a loss.
var inSync = set(func(in *decide.Input) {
	fresh := healthy()
	in.Record = fresh.Record
	for i := range in.Snapshot.Nodes {
		in.Snapshot.Nodes[i] = fresh.Snapshot.Nodes[i]
	}
})

// inSyncB is the same with pgsql2 as the primary of the next term.
var inSyncB = set(func(in *decide.Input) {
	node(in, "pgsql2").SyncStandbyNames = `FIRST 1 ("pgsql1")`
	in.Record.Mode, in.Record.SyncSet = cluster.ModeSync, cluster.SyncSet{Method: "FIRST", K: 1, Members: []cluster.NodeID{"pgsql1"}}
	in.Record.Members["pgsql1"] = cluster.Member{Eligible: true}
})

// TestEveryFaultHasItsRule is the specification of what the engine does about
// each fault; its golden file is the same as a table for people.
func TestEveryFaultHasItsRule(t *testing.T) {
	out := []string{"| fault | how it is detected | rule | what is done | what clients see | how it ends |", "|---|---|---|---|---|---|"}
	for _, tt := range faults {
		t.Run(tt.name, func(t *testing.T) {
			in := healthy()
			for _, c := range tt.world {
				c(&in)
			}
			var rules, done, clients []string
			for i, m := range tt.moments {
				for _, c := range m.world {
					c(&in)
				}
				d := watched(&in, m.wait)
				if d.Rule != m.rule || d.Action != m.action || m.action != "" && d.Node != m.node || d.CloseGate != m.held {
					t.Errorf("moment %d: rule %d (%s), action %q on %q, gate closed %v: %s\nwant rule %d, action %q on %q, gate closed %v",
						i+1, d.Rule, d.Name, d.Action, d.Node, d.CloseGate, d.Reason, m.rule, m.action, m.node, m.held)
				}
				rules = append(rules, fmt.Sprintf("%d %s", d.Rule, d.Name))
				if d.Acts() {
					done = append(done, strings.TrimSpace(fmt.Sprintf("%s %s", d.Action, d.Node)))
				}
				clients = append(clients, sees(d, in.GateOpen))
				in.GateOpen = in.GateOpen && !d.CloseGate
			}
			if len(done) == 0 {
				done = []string{"nothing is changed"}
			}
			out = append(out, fmt.Sprintf("| %s | %s | %s | %s | %s | %s |", tt.name, tt.detected, strings.Join(rules, ", then "),
				strings.Join(done, ", then "), strings.Join(runs(clients), ", then "), tt.ends))
		})
	}
	golden(t, "testdata/faults.md", strings.Join(out, "\n")+"\n")
}

// sees is what a decision means for a client; what the one in the middle of a
// transaction is told is the data plane's contract.
func sees(d decide.Decision, open bool) string {
	switch {
	case d.Action == cluster.Reopen:
		return "they are held until it is proved"
	case d.CloseGate && d.Cut:
		return "they are held, links to the lost server are cut"
	case d.CloseGate || !open:
		return "they are held"
	case d.Rule == 50 || d.Rule == 53:
		return "a commit waits for a moment, without an error"
	case d.Rule == 51:
		return "commits wait, without an error; reads go on"
	case d.Rule == 1 && d.Level == cluster.Error:
		return "they find no server"
	}
	return "nothing"
}

func runs(words []string) []string {
	var out []string
	for i, w := range words {
		if i == 0 || w != words[i-1] {
			out = append(out, w)
		}
	}
	return out
}

// golden compares with a file, or writes it with -update.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("it differs from %s (go test -update rewrites it):\n%s", file, got)
	}
}
