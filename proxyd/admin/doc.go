// Package admin is the database "pgtandem", and its alias "pgbouncer": a
// console that is reached through the listener for clients, and answers
// PgBouncer's commands with PgBouncer's columns, under their names and in their
// order. What we show beyond them stands behind them.
//
// It owns the commands, who may give which, and the protocol of such a
// session. It knows the data plane by the Plane interface and the daemon by the
// Daemon interface alone: it must never know a pool, a socket of somebody
// else's, or the engine.
package admin
