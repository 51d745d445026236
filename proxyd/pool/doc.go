// Package pool counts and hands out: the Ledger knows every server connection
// by its state and every client that waits for one, the Pool is the same for
// concurrent callers, and the Gate decides whether clients may reach a node at
// all.
//
// It must never know of sockets, of the protocol, or of what a server
// connection is: to it that is a value somebody else opens and closes.
package pool
