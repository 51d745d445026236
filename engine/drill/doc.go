// Package drill rehearses a failure on purpose and measures what clients saw:
// it runs its own clients through the proxy, makes one fault, watches the
// engine deal with it, checks that every acknowledged row is there, and puts
// the cluster back as it was.
//
// It reaches the cluster through the World interface alone, and must never know
// how a proxy holds a client or how the engine decides.
package drill
