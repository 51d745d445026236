// Package handover lets a running proxyd be followed by another one: it starts
// the next process, gives it the sockets, and keeps a stream of messages
// between the two for as long as the earlier one still serves clients.
//
// The next process is a child of the earlier one, and what it is given it
// inherits. So no address in a file system decides who may ask for listeners,
// and a socket in the kernel's hands goes from one to the other with all the
// connections that wait in its queue; SO_REUSEPORT would make a second queue,
// and reset what waits in the first one when that is closed.
//
// It owns descriptors and messages. What is said over the stream, and who may
// open a gate when, it must never know.
package handover
