// Package host is what can be done on a node's machine: look whether a server
// process lives, start and stop it, read and replace its files, rewind or copy
// its data directory, make it a standby. It turns each into commands for an
// execute.Host.
//
// It must never know why: whether a node may be stopped or overwritten is for
// its caller. It refuses only what it can see to be wrong where it happens, as
// a data directory in use.
package host
