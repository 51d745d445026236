// Command compat shows whether anybody notices the proxy: it runs the tests
// of those who wrote PostgreSQL and its drivers twice against one server,
// direct and through proxyd, and says which of them end differently.
//
//	go run ./proxyd/compat [-suites regress,isolation,pgx,pq,pgx-pool] [-server-tls]
//
// PostgreSQL's tests come from Debian's source package of the server that is
// installed, the drivers' as Go modules. All of it is fetched when it is
// needed and kept under -cache; nothing of it is part of this repository, and
// of the machine's own apt configuration nothing is changed.
//
// It owns the labs it makes and the processes it starts. It reaches the daemon
// only as a client does, and must never know of its inside: what it finds has
// to be true of any proxy.
package main
