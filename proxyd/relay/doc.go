// Package relay moves bytes for connections that are mostly quiet: a few event
// loops, each with a thread of its own, tell a handler that its connection can
// be read, and keep what a slow peer does not take yet. A connection that is
// idle costs no goroutine and no buffer.
//
// A connection is wrapped while it is still read and written the ordinary way,
// by whoever logs it in, and is then given to a loop by Start. From then on
// nothing blocks: Read says ErrAgain, and Write keeps what cannot be written.
// Because of that a TLS connection over a wrapped one goes over to the loop
// with it.
//
// On Linux the loops are epoll itself. Go's own poller wakes a goroutine for
// each arrival, by way of the scheduler and often of another thread, and that
// is more work than what a pooler does with most messages. Elsewhere, or with
// the build tag portable, goroutines stand in for it behind the same interface.
//
// It must never know what the bytes mean, who is linked to whom, or why.
package relay
