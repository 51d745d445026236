// Package classify says of a statement's text whether it may run on a standby,
// by PostgreSQL's own grammar and by what the database's catalog says of the
// names in it.
//
// The judgement has two halves. What the text alone shows (a write, a lock, a
// transaction, the functions, relations, operators and types that it names) is
// found by the grammar once, and kept under a key in which literals have no
// place, so that "WHERE id = 1" and "WHERE id = 2" are one. What the catalog
// adds to it is asked anew for each generation of the catalog, without parsing.
//
// Whatever is not known to be harmless is a Write: an unknown function, a node
// of the grammar that is not in the list of those allowed, a text too long.
//
// It must never know of sessions, sockets or nodes, and asks the catalog only
// through the interface Catalog.
package classify
