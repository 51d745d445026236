// Package wire is the PostgreSQL frontend/backend protocol as bytes: message
// framing, the startup packets, error responses, and SCRAM-SHA-256 from both
// sides without ever knowing a password.
//
// It must never know of pools, sessions or nodes: nothing here outlives one
// message or one login, and nothing here opens a socket.
//
// Numbers and limits are those of the PostgreSQL documentation, chapter 55,
// and of src/backend/tcop/postgres.c and src/include/libpq/pqcomm.h.
package wire
