// Package client is the one typed client of the control socket: HTTP and JSON
// over a Unix socket, a method for each route, the event stream as a callback,
// and errors typed by what the caller may do about them.
//
// It must never know what a screen is, read a configuration, or decide to
// repeat a request that may have changed something.
package client
