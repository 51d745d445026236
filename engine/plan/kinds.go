package plan

// Kinds of steps. The Doer of each lives in engine/execute/steps.
const (
	GateClose Kind = "gate.close" // args: cut
	GateOpen  Kind = "gate.open"

	RecordAdopt      Kind = "record.adopt"
	RecordFence      Kind = "record.fence"      // args: astray; it neither serves nor counts
	RecordIneligible Kind = "record.ineligible" // args: nodes, reason, and ReasonOf each that has its own
	RecordEligible   Kind = "record.eligible"   // args: nodes, names
	RecordSyncSet    Kind = "record.sync-set"   // args: names, mode
	RecordWant       Kind = "record.want"       // args: mode
	RecordStopping   Kind = "record.stopping"   // we are about to stop a healthy primary
	RecordPrimary    Kind = "record.primary"    // term, timeline and switch LSN of the new primary
	RecordVoid       Kind = "record.void"       // promises for a term that has not begun are void: the old one goes on
	RecordMember     Kind = "record.member"     // a former primary follows: fenced no more

	SyncCheck   Kind = "sync.check"   // args: names, mode; whether the swap would be refused
	SyncSet     Kind = "sync.set"     // args: names, mode
	SyncBarrier Kind = "sync.barrier" // args: nodes; they confirm the flush position read now

	NodeStop        Kind = "node.stop" // args: mode
	NodeStart       Kind = "node.start"
	NodeCheckpoint  Kind = "node.checkpoint"
	NodePromise     Kind = "node.promise"      // args: term, resume; stop receiving, durably
	PromisesCount   Kind = "promises.count"    // args: force
	NodeReceivedAll Kind = "node.received-all" // args: from
	NodePromote     Kind = "node.promote"
	NodeWritable    Kind = "node.writable"
	NodeRewind      Kind = "node.rewind"            // args: from, always
	NodeClone       Kind = "node.clone"             // args: from, always
	NodeConfigure   Kind = "node.configure-standby" // args: from
	NodeFollow      Kind = "node.follow"            // args: from
	NodeSlot        Kind = "node.slot"              // args: from, drop; its replication slot, and those left behind
	NodeStreaming   Kind = "node.streaming"         // args: from
)
