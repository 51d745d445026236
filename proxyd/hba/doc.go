// Package hba reads who may connect from where and how he proves himself: a
// rules file in pg_hba.conf's own syntax, that of PostgreSQL 16 with includes
// and regular expressions, and the name maps of pg_ident.conf beside it.
//
// Reading is strict. A line that PostgreSQL would take and that could not be
// kept here is refused with its place and a remedy, never passed over: a rule
// that is not there lets somebody in whom it was written to keep out.
//
// It must never know of sockets, sessions or passwords: matching is a function
// of what is said about a connection.
//
// The rules are those of src/backend/libpq/hba.c.
package hba
