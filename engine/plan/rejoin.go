package plan

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
)

// rejoin lets a node follow as it is, where its history is a prefix of the
// recorded one, and otherwise overwrites it, which KeepsFrom must allow.
func (b *builder) rejoin(n cluster.NodeID, clone bool) error {
	p := b.in.Record.Primary
	from := map[string]string{"from": string(p)}
	have := b.in.Snapshot.Node(n)
	if !clone && have.Up() && have.Role == cluster.RoleStandby && !b.in.Record.Members[n].Fenced && decide.InHistory(b.in.Record, have) {
		b.add(Step{Kind: NodeFollow, Node: n, Title: fmt.Sprintf("%s follows %s", n, p), Args: from,
			Command: fmt.Sprintf("ALTER SYSTEM SET primary_conninfo = 'host=... application_name=%s'; SELECT pg_reload_conf()", n),
			Post:    "primary_conninfo names the primary", Deadline: 10 * time.Second})
	} else if why := decide.KeepsFrom(b.in, n); why != "" {
		return fmt.Errorf("plan the return of %s: its data is not overwritten: %s", n, why)
	} else {
		b.resync(n, p, have, clone)
	}
	b.add(Step{Kind: NodeStreaming, Node: n, Title: fmt.Sprintf("%s streams from %s", n, p), Args: from,
		Command: "SELECT state FROM pg_stat_replication", Post: "the primary streams to it", Deadline: 10 * time.Minute, Expect: 500 * time.Millisecond})
	b.add(Step{Kind: RecordMember, Node: n, Title: fmt.Sprintf("record that %s follows %s", n, p), Post: "the record is on disk", Deadline: 5 * time.Second})
	b.p.Confirm = string(n)
	return nil
}

// giveSlot has a standby that follows as it should use its replication slot.
func (b *builder) giveSlot(n cluster.NodeID) {
	p := b.in.Record.Primary
	slot, left := cluster.SlotName(n), decide.LeftBehind(b.in, n)
	args := map[string]string{"from": string(p), "drop": strings.Join(left, " ")}
	b.add(Step{Kind: NodeSlot, Node: n, Title: fmt.Sprintf("%s has slot %s on %s", n, slot, p) + drops(left), Args: args,
		Command: fmt.Sprintf("pg_create_physical_replication_slot('%s', true) on %s; ALTER SYSTEM SET primary_slot_name = '%s'; SELECT pg_reload_conf()", slot, p, slot),
		Post:    "primary_slot_name names it", Deadline: 10 * time.Second})
}

func drops(left []string) string {
	if len(left) == 0 {
		return ""
	}
	return ", and drops " + strings.Join(left, ", ")
}

// resync overwrites a node: by what differs where that can be told, else
// whole. A standby whose WAL is gone has nothing wrong with its history, and is
// copied all the same.
func (b *builder) resync(n, p cluster.NodeID, have cluster.NodeFacts, clone bool) {
	from := map[string]string{"from": string(p)}
	overwrite := map[string]string{"from": string(p)}
	// A standby's control file tells where its last restartpoint was, and not
	// how far it went: only what was seen of it says that it left the history.
	if clone || have.Role == cluster.RoleStandby && !decide.InHistory(b.in.Record, have) {
		overwrite["always"] = "true"
	}
	spec, _ := b.in.Policy.Node(n)
	b.add(Step{Kind: RecordFence, Node: n, Title: fmt.Sprintf("record that %s is fenced and not eligible", n),
		Post: "the record is on disk", Deadline: 5 * time.Second, Expect: 3 * time.Millisecond})
	if have.Host.Postmaster != cluster.PostmasterStopped {
		// PostgreSQL 15 never ends a fast shutdown that it is asked for while it
		// recovers from the crash of one of its processes: its checkpointer stays.
		// What is overwritten loses nothing by a recovery.
		b.stop(n, "fast", true, 20*time.Second)
		b.stop(n, "immediate", false, 30*time.Second)
	}
	title := fmt.Sprintf("clone %s from %s where rewinding was not possible", n, p)
	if clone {
		title = fmt.Sprintf("clone %s from %s", n, p)
	} else {
		b.add(Step{Kind: NodeRewind, Node: n, Title: fmt.Sprintf("rewind %s to where %s left its history", n, p), Args: overwrite,
			Command: fmt.Sprintf("pg_rewind --target-pgdata=%s --source-server='host=%s ...'", spec.DataDirectory, p),
			Post:    "its history is a prefix of the primary's", Deadline: 30 * time.Minute, Expect: time.Second, Optional: true})
	}
	b.add(Step{Kind: NodeClone, Node: n, Title: title, Args: overwrite,
		Command: fmt.Sprintf("pg_basebackup --pgdata=%s.new --checkpoint=fast --wal-method=stream --progress, then renamed", spec.DataDirectory),
		Post:    "its history is a prefix of the primary's", Deadline: 12 * time.Hour})
	b.add(Step{Kind: NodeConfigure, Node: n, Title: fmt.Sprintf("make %s a standby of %s", n, p), Args: from,
		Command: "standby.signal, primary_conninfo, synchronous_standby_names = ''",
		Post:    "it would start as a standby", Deadline: 40 * time.Second})
	b.add(Step{Kind: NodeStart, Node: n, Title: fmt.Sprintf("start %s", n), Command: "pg_ctl start",
		Post: "it answers and is in recovery", Deadline: 5 * time.Minute, Expect: 500 * time.Millisecond})
}
