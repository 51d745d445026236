// Package choose says which node a read goes to: the standbys that have
// replayed what the client wrote and are not too far behind, and the primary,
// by weight.
//
// A client reads its own writes at no cost per query. The Monitor numbers
// every question that is put to a node, before it is sent; the number is a
// Tick. After a commit the client notes the tick of that moment. A sample of
// the primary's insert position that carries a greater tick was asked for
// later, and so lies behind the commit; a standby that has replayed that
// sample has replayed the commit.
//
// What a standby had replayed says nothing once it has crashed: it may come
// back at an earlier position, before it is looked at again. So a connection
// counts only if it was opened before the look began, for one that is still
// open proves that the server has not crashed since.
//
// It must never know of sockets, of SQL or of clocks: facts, the time and
// chance come in as arguments.
package choose
