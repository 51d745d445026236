// Package session is one client's life: login, transaction, hold, failover,
// cancel. Each client has a goroutine that reads it, each server connection
// one that reads that, and between the two stands a link that belongs to one
// transaction or one session.
//
// Who may write to a client: the server's goroutine while they are linked, the
// client's own goroutine otherwise. A lost server hands its client back before
// anything is said about the loss.
//
// It must never decide which node is the primary (the Router says where a
// statement goes) nor keep a password: what opens the servers is the ClientKey
// that the client's own proof revealed.
package session
