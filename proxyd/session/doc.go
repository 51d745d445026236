// Package session is one client's life: login, transaction, hold, failover,
// cancel. A login is a goroutine. Behind it clients and servers are driven by
// the event loops of package relay, and a goroutine has a client again only for
// as long as something has to be waited for: see drive.go. Between a client and
// a server stands a link that belongs to one transaction or one session.
//
// Who may write to a client: the server's loop while they are linked, whoever
// drives the client otherwise. A lost server hands its client back before
// anything is said about the loss.
//
// It must never decide which node is the primary (the Router says where a
// statement goes) nor keep a password: what opens the servers is the ClientKey
// that the client's own proof revealed.
package session
