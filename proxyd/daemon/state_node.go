package daemon

import (
	"fmt"
	"strconv"
	"time"

	"github.com/pgtandem/pgtandem/engine"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

// longWait is how long a commit may wait for its standby before a person is
// told.
const longWait = time.Second

// nodeState is one node as it stands in the state.
func nodeState(v engine.View, spec cluster.Node) api.Node {
	f := v.Snapshot.Node(spec.ID)
	now := v.Snapshot.Now
	n := api.Node{
		Name: string(spec.ID), Host: spec.Host, Port: spec.Port, DataDirectory: spec.DataDirectory,
		Weight: spec.Weight, FailoverAllowed: spec.FailoverAllowed,
		Role: string(f.Role), Reachable: f.Up(), Reach: string(f.Reach), SeenMS: ageMS(now, f.LastOK),
		HostReachable: f.Host.Reachable, Postmaster: string(f.Host.Postmaster), HostSeenMS: ageMS(now, f.Host.LastOK),
		Timeline: uint32(f.Timeline), LSN: lsnText(f.Position()), LagBytes: -1, FlushLagBytes: -1,
		ReplayPaused:  f.ReplayPaused,
		ServerVersion: versionText(f.ServerVersion), SyncStandbyNames: f.SyncStandbyNames, SyncNamesSource: f.SyncNamesSource,
		SyncWaiters: f.SyncWaiters, OldestWaitMS: f.OldestWait.Milliseconds(),
	}
	if n.Role == "" {
		n.Role = string(cluster.RoleUnknown)
	}
	if !f.Up() {
		n.Error = f.LastError
	}
	if !f.Host.Reachable {
		n.HostError = f.Host.LastError
	}
	if f.SystemIdentifier != 0 {
		n.SystemIdentifier = strconv.FormatUint(f.SystemIdentifier, 10)
	}
	replication(&n, v, f)
	n.Warnings = warnings(v, spec, f)
	return n
}

// replication fills in how far a node is behind the primary. It is known only
// while the primary answers: what it said before it was lost is no lag.
func replication(n *api.Node, v engine.View, f cluster.NodeFacts) {
	p := v.Snapshot.Node(v.Record.Primary)
	if !p.Up() || p.Role != cluster.RolePrimary {
		return
	}
	if f.ID == p.ID {
		n.LagBytes, n.FlushLagBytes = 0, 0
		return
	}
	if f.Receiver != nil && f.Receiver.ReceivedTLI > f.Timeline {
		n.Timeline = uint32(f.Receiver.ReceivedTLI)
	}
	row, ok := p.SenderTo(f.ID)
	if !ok {
		// The two servers were looked at in different moments, so this is
		// about right only; a row of the sender's is of one moment.
		n.LagBytes, n.FlushLagBytes = lagBytes(f.ReplayLSN, p.FlushLSN), lagBytes(f.Position(), p.FlushLSN)
		return
	}
	n.State, n.SyncState, n.SyncPriority = row.State, row.SyncState, row.SyncPriority
	n.SentLSN, n.WriteLSN, n.FlushLSN, n.ReplayLSN = lsnText(row.SentLSN), lsnText(row.WriteLSN), lsnText(row.FlushLSN), lsnText(row.ReplayLSN)
	n.LagBytes, n.FlushLagBytes = lagBytes(row.ReplayLSN, p.FlushLSN), lagBytes(row.FlushLSN, p.FlushLSN)
	n.WriteLagMS, n.FlushLagMS, n.ReplayLagMS = lagMS(row.WriteLag), lagMS(row.FlushLag), lagMS(row.ReplayLag)
}

// lagBytes is -1 where either position is not known.
func lagBytes(behind, ahead cluster.LSN) int64 {
	if behind == 0 || ahead == 0 {
		return -1
	}
	return int64(behind.Behind(ahead))
}

// lagMS is nil where PostgreSQL says NULL, which the observer keeps as a
// negative duration.
func lagMS(d time.Duration) *float64 {
	if d < 0 {
		return nil
	}
	v := float64(d.Microseconds()) / 1000
	return &v
}

// versionText writes server_version_num as people do: 150018 is 15.18.
func versionText(num int) string {
	if num == 0 {
		return ""
	}
	return fmt.Sprintf("%d.%d", num/10000, num%10000)
}

// warnings are what a person should look at, most pressing first.
func warnings(v engine.View, spec cluster.Node, f cluster.NodeFacts) []string {
	var w []string
	warn := func(when bool, format string, args ...any) {
		if when {
			w = append(w, fmt.Sprintf(format, args...))
		}
	}
	p := v.Snapshot.Node(v.Record.Primary)
	isPrimary := f.ID == v.Record.Primary
	if n := claims(p, f.ID); n > 1 {
		warn(true, "%d servers replicate under the name %s: they cannot be told apart and neither counts; give each its own application_name", n, f.ID)
	}
	warn(f.Up() && f.ReplayPaused, "replay is paused: SELECT pg_wal_replay_resume()")
	warn(f.Up() && !f.Host.Reachable && !f.Host.LastTry.IsZero(), "its host does not answer over ssh, so it could be neither stopped nor rejoined: %s", f.Host.LastError)
	for _, e := range f.ConfigErrors {
		warn(true, "its configuration has an error: %s", e)
	}
	if isPrimary {
		w = append(w, primaryWarnings(v, f)...)
	} else if v.Record.Term > 0 {
		w = append(w, standbyWarnings(v, f, p)...)
	}
	warn(!spec.FailoverAllowed, "allow_failover is false: the engine neither promotes, stops nor rejoins it")
	return w
}

func claims(primary cluster.NodeFacts, id cluster.NodeID) int {
	n := 0
	for _, s := range primary.Senders {
		if s.ApplicationName == string(id) {
			n++
		}
	}
	return n
}

func primaryWarnings(v engine.View, f cluster.NodeFacts) []string {
	var w []string
	if !f.Up() {
		return nil
	}
	want := v.Record.SyncSet
	if !decide.SameSet(decide.ParseSyncNames(f.SyncStandbyNames), want) {
		w = append(w, fmt.Sprintf("synchronous_standby_names is %q (%s) and recorded is %q", f.SyncStandbyNames, f.SyncNamesSource, decide.FormatSyncNames(want)))
	}
	switch f.SynchronousCommit {
	case "off", "local":
		w = append(w, fmt.Sprintf("synchronous_commit is %s by default: commits wait for no standby, whatever synchronous_standby_names says", f.SynchronousCommit))
	case "remote_write":
		w = append(w, "synchronous_commit is remote_write by default: a commit can be lost when primary and standby crash together")
	}
	if f.SyncWaiters > 0 && f.OldestWait > longWait {
		w = append(w, fmt.Sprintf("%d commits wait for a standby, the oldest for %s", f.SyncWaiters, f.OldestWait.Round(100*time.Millisecond)))
	}
	if f.Role == cluster.RoleStandby {
		w = append(w, "it is recorded as the primary and is in recovery")
	}
	return w
}

func standbyWarnings(v engine.View, f, p cluster.NodeFacts) []string {
	var w []string
	if !f.Up() {
		return nil
	}
	switch {
	case f.Role == cluster.RolePrimary:
		w = append(w, fmt.Sprintf("it takes writes although %s is the primary", v.Record.Primary))
	case f.Conninfo == "" && f.Receiver == nil:
		w = append(w, "it has no primary_conninfo and follows nobody")
	case f.Receiver == nil && p.Up():
		w = append(w, "no WAL receiver runs: its own log says why")
	}
	if f.SystemIdentifier != 0 && v.Record.SystemIdentifier != 0 && f.SystemIdentifier != v.Record.SystemIdentifier {
		w = append(w, fmt.Sprintf("it belongs to another database system (identifier %d, recorded is %d)", f.SystemIdentifier, v.Record.SystemIdentifier))
	}
	if p.ServerVersion != 0 && f.ServerVersion != 0 && f.ServerVersion/10000 != p.ServerVersion/10000 {
		w = append(w, fmt.Sprintf("it runs PostgreSQL %s and the primary %s", versionText(f.ServerVersion), versionText(p.ServerVersion)))
	}
	return w
}
