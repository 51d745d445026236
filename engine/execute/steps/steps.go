// Package steps holds the Doers of the engine's own plans: one for each kind of
// step, each of which can look whether its postcondition holds, and make it
// hold.
//
// A Doer never decides whether its step is wise; the plan did. It refuses only
// what it alone can see to be wrong, such as a configuration file that someone
// has edited.
package steps

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/engine/clock"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/sql"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// Records is the durable record as the Doers see it.
type Records interface {
	Record() cluster.Record
	// Update changes the record by compare-and-swap and returns when it is on
	// disk. change may run more than once.
	Update(ctx context.Context, change func(*cluster.Record) error) (cluster.Record, error)
}

// Host is what the Doers ask of a node's machine.
type Host interface {
	Postmaster(ctx context.Context) (cluster.Postmaster, int, error)
	Start(ctx context.Context) error
	Stop(ctx context.Context, mode string) error
	ReadFile(ctx context.Context, path string) ([]byte, error)
	// ReplaceFile writes atomically, and only if the file still holds old.
	ReplaceFile(ctx context.Context, path string, old, data []byte) error
	ControlData(ctx context.Context) (ControlData, error)
	History(ctx context.Context, tli cluster.Timeline) (string, error)
	Rewind(ctx context.Context, from cluster.Node, progress func(string)) error
	Clone(ctx context.Context, from cluster.Node, progress func(string)) error
	// ConfigureStandby makes a stopped node a standby; slot is its replication
	// slot on from, "" for none.
	ConfigureStandby(ctx context.Context, from cluster.Node, slot string) error
	// Conninfo is the primary_conninfo with which the node follows from.
	Conninfo(ctx context.Context, from cluster.Node) (string, error)
}

// Server is what the Doers ask of a running server, over SQL.
type Server interface {
	Warm(ctx context.Context) error
	Identity(ctx context.Context) (sql.Identity, error)
	Show(ctx context.Context, name string) (sql.Setting, error)
	Receiving(ctx context.Context) (sql.Receiving, error)
	Confirmed(ctx context.Context) (sql.Confirmed, error)
	StreamsTo(ctx context.Context, id cluster.NodeID) (streaming bool, state string, err error)
	SwitchLSN(ctx context.Context, tli cluster.Timeline) (cluster.LSN, error)

	AlterSystem(ctx context.Context, name, value string) error
	EnsureSlot(ctx context.Context, name string) error
	DropSlots(ctx context.Context, names []string) error
	Reload(ctx context.Context) error
	ResumeReplay(ctx context.Context) error
	Checkpoint(ctx context.Context) error
	Promote(ctx context.Context) error
}

// ControlData is what pg_controldata says of a stopped server.
type ControlData struct {
	SystemIdentifier uint64
	State            string // "shut down", "in production", ...
	Timeline         cluster.Timeline
	CheckpointLSN    cluster.LSN
	BackupLabel      bool // backup_label is there: a fresh copy or a rewound one, not a crashed server
}

// Gate is execute.Gate with what can be seen of it.
type Gate interface {
	execute.Gate
	// Open state: whether statements can pass, and for which node and term.
	Passing() (open bool, node cluster.NodeID, term cluster.Term)
	// Since is when it was opened or closed last.
	Since() time.Time
}

// World is all that the Doers work on.
type World struct {
	Records Records
	Servers map[cluster.NodeID]Server
	Hosts   map[cluster.NodeID]Host
	Gate    Gate
	Policy  func() cluster.Policy
	Clock   clock.Clock
}

func (w *World) server(id cluster.NodeID) (Server, error) {
	s, ok := w.Servers[id]
	if !ok {
		return nil, fmt.Errorf("%w: node %q is not configured", execute.ErrRefused, id)
	}
	return s, nil
}

func (w *World) host(id cluster.NodeID) (Host, error) {
	h, ok := w.Hosts[id]
	if !ok {
		return nil, fmt.Errorf("%w: no host is configured for node %q", execute.ErrRefused, id)
	}
	return h, nil
}

func (w *World) node(id cluster.NodeID) (cluster.Node, error) {
	n, ok := w.Policy().Node(id)
	if !ok {
		return n, fmt.Errorf("%w: node %q is not configured", execute.ErrRefused, id)
	}
	return n, nil
}

// doer is a Doer made of two functions.
type doer struct {
	check func(ctx context.Context, s plan.Step) (bool, string, error)
	do    func(ctx context.Context, s plan.Step, progress func(string)) error
}

func (d doer) Check(ctx context.Context, s plan.Step) (bool, string, error) { return d.check(ctx, s) }
func (d doer) Do(ctx context.Context, s plan.Step, p func(string)) error    { return d.do(ctx, s, p) }

// Doers gives the Doer of every kind the engine plans.
func Doers(w *World) map[plan.Kind]execute.Doer {
	g := &gate{w: w}
	return map[plan.Kind]execute.Doer{
		plan.GateClose:        doer{g.closed, g.close},
		plan.GateOpen:         doer{g.opened, g.open},
		plan.RecordAdopt:      doer{w.adopted, w.adopt},
		plan.RecordFence:      doer{w.fenced, w.fence},
		plan.RecordIneligible: doer{w.areIneligible, w.makeIneligible},
		plan.RecordEligible:   doer{w.areEligible, w.makeEligible},
		plan.RecordSyncSet:    doer{w.setRecorded, w.recordSet},
		plan.RecordWant:       doer{w.wantRecorded, w.recordWant},
		plan.RecordStopping:   doer{w.stoppingRecorded, w.recordStopping},
		plan.RecordPrimary:    doer{w.primaryRecorded, w.recordPrimary},
		plan.RecordVoid:       doer{w.promisesVoid, w.voidPromises},
		plan.RecordMember:     doer{w.memberRecorded, w.recordMember},
		plan.SyncCheck:        newOnce(w.syncCheck),
		plan.SyncSet:          doer{w.syncInForce, w.syncSet},
		plan.SyncBarrier:      newOnce(w.barrier),
		plan.NodeStop:         doer{w.stopped, w.stop},
		plan.NodeStart:        doer{w.started, w.start},
		plan.NodeCheckpoint:   newOnce(w.checkpoint),
		plan.NodePromise:      doer{w.promised, w.promise},
		plan.PromisesCount:    newOnce(w.countPromises),
		plan.NodeReceivedAll:  doer{w.receivedAll, nothing},
		plan.NodePromote:      doer{w.promotedAlready, w.promote},
		plan.NodeWritable:     doer{w.writable, nothing},
		plan.NodeRewind:       doer{w.overwritten, w.rewind},
		plan.NodeClone:        doer{w.overwritten, w.clone},
		plan.NodeConfigure:    newOnce(w.configure),
		plan.NodeFollow:       newOnce(w.follow),
		plan.NodeSlot:         newOnce(w.slot),
		plan.NodeStreaming:    doer{w.streaming, w.connecting},
	}
}

// nothing is for steps that only wait for a postcondition.
func nothing(context.Context, plan.Step, func(string)) error { return nil }

// once is for steps whose effect cannot be looked at afterwards, or whose Do
// verifies it already: it holds when Do has ended well, in this run.
type once struct {
	run  func(ctx context.Context, s plan.Step) (string, error)
	last *result
}

type result struct {
	step   string
	detail string
}

func newOnce(f func(context.Context, plan.Step) (string, error)) execute.Doer {
	return &once{run: f}
}

func (o *once) Check(_ context.Context, s plan.Step) (bool, string, error) {
	if o.last != nil && o.last.step == s.ID {
		d := o.last.detail
		o.last = nil
		return true, d, nil
	}
	return false, "", nil
}

func (o *once) Do(ctx context.Context, s plan.Step, _ func(string)) error {
	detail, err := o.run(ctx, s)
	if err != nil {
		return err
	}
	o.last = &result{s.ID, detail}
	return nil
}

func nodes(s plan.Step) []cluster.NodeID {
	var ids []cluster.NodeID
	for _, n := range strings.Split(s.Args["nodes"], ",") {
		if n != "" {
			ids = append(ids, cluster.NodeID(n))
		}
	}
	return ids
}

func from(s plan.Step) cluster.NodeID { return cluster.NodeID(s.Args["from"]) }
