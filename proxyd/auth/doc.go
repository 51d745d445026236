// Package auth is how a client proves itself to the proxy, and how the proxy
// then proves the same client to a server: over messages, without sockets.
//
// It must never know of pools or nodes, nor keep anything beyond one login. It
// never sees a password: SCRAM reveals the ClientKey that opens a server with
// the same verifier, and an MD5 verifier opens one by itself.
//
// Messages, their order and what is refused in which words are those of
// src/backend/libpq/auth.c, auth-scram.c and src/backend/utils/init/miscinit.c.
package auth
