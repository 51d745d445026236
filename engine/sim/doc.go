// Package sim runs the engine against a model of PostgreSQL, of the hosts, the
// network, the disks and the clock, all of them drawn from one seed, and holds
// what must always hold at every step.
//
// The engine is the one that runs in production: its loop, its rules, its
// plans, its runner, its Doers and its observer's bookkeeping. What is modelled
// is what they touch. Time is virtual and only one thing runs at a time, so a
// seed replays exactly; the hash of everything that happened proves it.
//
// A run has two halves. In the first, faults come as the seed says: processes
// die or freeze, hosts go silent, paths are cut one way or both, disks fill up,
// people interfere, the daemon crashes between any two steps, and every action
// may be lost, late, or done with its answer lost. In the second all is healed,
// and the cluster must come back by itself, or stop with a reason where the
// policy leaves it to a person.
//
// It must never be more lenient than PostgreSQL: where the model is not sure,
// it does the worse thing.
package sim
