// Package decide is the engine's judgement: an ordered table of numbered rules
// over named facts. The first rule that holds gives the decision, and its
// number and reason go to the journal, the event log and the console.
//
// It is pure. The clock is Snapshot.Now, timers live in Memory, and the same
// input always gives the same output; that is what lets a simulator run it a
// hundred thousand times and the console ask "what if this node died now". It
// must never act, wait, log or read anything but its arguments.
package decide
