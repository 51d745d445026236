// Package control serves the control socket: HTTP and JSON on a Unix socket,
// one sorted table of routes over a Backend. It owns who may do what (by peer
// credentials, for each request), the strictness of what is read, the form of
// what is answered, the event stream, and that every change is audited.
//
// It must never know the engine, the store or the proxy: whatever it shows or
// changes goes through the Backend, in the types of proxyd/api.
package control
