// Package catalog reads from a database which of its names are harmless on a
// standby, and keeps that fresh.
//
// A function is harmless when PostgreSQL's catalog calls each of its overloads
// stable or immutable (pg_proc.provolatile), an aggregate when its parts are,
// an operator when its function is, a type when no cast to or from it, no
// input function and no domain constraint calls another kind. A relation is
// harmless when a standby has it and nothing that reading it runs, in a view
// or a row security policy, is otherwise. What the catalog does not know is
// never harmless.
//
// pg_depend does not say what a view calls where that came with PostgreSQL:
// dependencies on pinned objects are not recorded. So the stored trees
// themselves are searched for the functions they call.
//
// It must never know of drivers and sockets: rows come through the interface
// Session.
package catalog
