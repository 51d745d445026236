package cluster

import (
	"slices"
	"time"
)

// Record is the one durable document: what must survive the daemon for the
// invariants to hold. It is written by compare-and-swap on Revision and is
// what a promotion reads.
type Record struct {
	Revision uint64 // grows by one with each write; 0 means nothing was ever written

	Cluster          string
	SystemIdentifier uint64
	Term             Term
	Primary          NodeID
	Timeline         Timeline

	// Mode is what the primary's setting is recorded to be; WantMode is what
	// a person asked for. WantMode async keeps the engine from turning back.
	Mode     Mode
	WantMode Mode
	// WantSince is when WantMode was recorded, for a limit on async by hand.
	WantSince time.Time

	SyncSet SyncSet
	// SyncSince is when SyncSet was recorded: what was seen of the primary
	// before does not speak against it.
	SyncSince time.Time
	Members   map[NodeID]Member
	History   []HistoryEntry // append-only, oldest first

	// Stopping is a healthy primary that we are stopping for a switchover;
	// should the switchover not get further, it is started again.
	Stopping NodeID

	Maintenance bool // the engine watches and does nothing
}

// SyncSet is whose confirmation a commit waits for: K of Members.
type SyncSet struct {
	Method  string // "FIRST" or "ANY"; FIRST counts as ANY for safety
	K       int
	Members []NodeID
}

// Member is what is durably known of a node.
type Member struct {
	// Eligible: it holds every acknowledged commit. Cleared before the node
	// is dropped from the sync set; set only after the setting is in force
	// and it has confirmed the primary's flush position read after that.
	Eligible bool
	Since    time.Time
	Reason   string
	LSN      LSN // position known at Since

	// Fenced: a former primary whose history may have diverged. It never
	// serves through us and never counts until it has rejoined.
	Fenced bool

	// Astray: it was seen to take writes without being the recorded primary.
	// Its history may have our numbers and not our contents, so that it is
	// copied, and never rewound, before it follows.
	Astray bool

	// Promised is the highest term for which the node durably stopped
	// receiving from the old primary, and PromisedLSN what it held then.
	Promised    Term
	PromisedLSN LSN
}

// HistoryEntry is one line of the recorded history: this node began this
// timeline of this system at this position.
type HistoryEntry struct {
	SystemIdentifier uint64
	Timeline         Timeline
	SwitchLSN        LSN // where the timeline branched from its parent; 0 for the first
	Node             NodeID
	Term             Term
	At               time.Time
}

// Clone copies the record so that the copy shares nothing.
func (r Record) Clone() Record {
	c := r
	c.SyncSet.Members = slices.Clone(r.SyncSet.Members)
	c.History = slices.Clone(r.History)
	c.Members = make(map[NodeID]Member, len(r.Members))
	for k, v := range r.Members {
		c.Members[k] = v
	}
	return c
}
