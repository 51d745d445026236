package api

import "time"

// HeaderVersion carries Version on every response, so that a console and a
// daemon of different releases notice each other.
const HeaderVersion = "Pgtandem-Api-Version"

// The event stream is text/event-stream: each item has `id:` (the sequence
// number to resume after), `event:` (state or event) and `data:` (a Message).
// A comment line is sent at least every StreamHeartbeat, so that silence of
// several of these means a daemon that hangs or is gone.
const (
	StreamState     = "state"
	StreamEvent     = "event"
	StreamHeartbeat = 5 * time.Second
)

// Limits of one request.
const (
	MaxWait       = 10 * time.Minute // of ?wait=; a longer one is cut to it
	MaxEvents     = 10000            // of ?limit=
	DefaultEvents = 200              // without ?limit=
)
