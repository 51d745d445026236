// Package cluster holds the values every other part of the engine speaks in:
// nodes, roles, WAL positions, timelines, terms, the Snapshot of what has been
// observed, the Record of what is durably known and the Policy of what is
// wanted.
//
// It must never know where a value came from or what will be done about it: no
// clock, no I/O, no randomness, no logger. A value here can be compared,
// copied, encoded and printed, and nothing else.
package cluster
