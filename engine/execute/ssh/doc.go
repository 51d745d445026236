// Package ssh runs commands on a node's machine over one ssh connection that
// is kept open: it is dialled when first needed, watched by keepalives, and
// dialled again after a loss.
//
// The host key is always checked against known_hosts, and every word of a
// command is quoted for the remote shell. It must never know what a command
// is for, nor build one from a string.
package ssh
