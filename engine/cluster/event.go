package cluster

import "time"

// Level grades an event.
type Level string

// Levels.
const (
	Info  Level = "info"
	Warn  Level = "warn"
	Error Level = "error"
)

// Event is one line of the durable log.
type Event struct {
	Seq    uint64 // given by the store, from 1, without gaps
	At     time.Time
	Level  Level
	Kind   string // dotted, e.g. "node.lost", "step.done", "gate.closed", "audit"
	Node   NodeID
	Term   Term
	Op     string
	Rule   int
	Text   string // one sentence for a person
	By     string
	Fields map[string]string // never a secret
}
