// Package route decides, for each transaction of a client, which node it goes
// to, and can say why.
//
// It joins what its subpackages know: classify what a text may do, catalog
// what the database's names mean, choose which nodes can serve a read. A
// Client is the little that must be remembered of each client; it belongs to
// whoever runs that client, as an event loop, and nothing here locks.
//
// It must never know of sockets, of the protocol or of pools. It is asked only
// while a client has no server: inside a transaction every statement goes
// where the transaction began.
//
// # How a session calls it
//
// One classify.Classifier and one catalog.Keeper belong to each database, one
// choose.Monitor to the cluster, one classify.Reader and one source of chance
// to each event loop:
//
//	verdict, known := loop.reader.Lookup(text, client.rules)
//	if !known {
//		verdict = loop.reader.Classify(text, client.rules) // or elsewhere: it may take milliseconds
//	}
//	// A prepared statement keeps its verdict with the classifier's Stamp, and
//	// looks it up again only when that has changed.
//
//	// The messages of an extended-protocol batch run on one server: all of them
//	// up to the Sync count. A batch whose Sync is not there yet goes to the
//	// primary, since what is to come is not known.
//	for _, next := range batch {
//		verdict = verdict.And(next)
//	}
//	situation := route.Situation{
//		View: monitor.View(), Now: loop.now, Random: loop.random.Uint64(), Pinned: client.pinned,
//	}
//	d := client.route.Decide(verdict, situation)
//	server := pools.Acquire(d.Node)
//	if !d.Holds(server.opened) { // opened: monitor.Now() after its login
//		d = client.route.Again("its connection is younger than the last look at it", []cluster.NodeID{d.Node}, situation)
//	}
//	...
//	// ReadyForQuery with status 'I' has come from the server:
//	if client.route.Ended(monitor.Now()) {
//		keeper.SchemaChanged()
//	}
//
// Where the standby breaks before it has sent a row, or answers with an error
// that RefusedByStandby knows, and the statement is no part of a transaction
// that has answered already, it runs once more: Again leaves out where it has
// failed, Primary is for what no standby can do. Whoever loses a connection to
// a standby also tells choose.Monitor.Lost.
//
// What runs inside an open transaction needs no verdict: Within takes what
// classify.ChangesSchema says of it.
//
// # What is not promised
//
// A client sees its own commits, and not those of others before a standby has
// replayed them: two of its reads may go to standbys of which the second is
// further behind.
//
// A temporary table that a function made without the session's knowing, and
// that has the name of a table that is there for all, is not seen by a read; the
// session pins what it does see.
//
// What runs inside BEGIN READ ONLY runs where that went. An advisory lock that
// it takes is a standby's own, and what it leaves in the session that cannot be
// carried over leaves the client on a server that takes no writes.
//
// A function that is declared stable and writes is refused by the standby, and
// runs again on the primary.
package route
