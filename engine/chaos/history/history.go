// Package history is what clients did and were told: one Op for each request,
// with the moments at which it was sent and answered, on one monotonic clock.
//
// It owns the values, their recording and their form in a file (JSON lines),
// and how an error is read: as a refusal or as an outcome nobody knows. It must
// never know what makes a history right, nor who made it.
package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// Outcome is what the client may believe of a request.
type Outcome string

// The three outcomes. Only OK and Failed are promises.
const (
	OK      Outcome = "ok"      // acknowledged: it must be there for ever
	Failed  Outcome = "failed"  // refused: it must never be there
	Unknown Outcome = "unknown" // either, from now on or later
)

// Kind is what was asked for.
type Kind string

// The requests of the workloads.
const (
	SetAdd       Kind = "set.add"       // Value is the id
	BankTransfer Kind = "bank.transfer" // Value is the transfer's id, Key and Old are the accounts, Amount moves from Key to Old
	BankRead     Kind = "bank.read"     // Balances is the answer
	RegRead      Kind = "reg.read"      // Key; Value is the answer
	RegWrite     Kind = "reg.write"     // Key, Value
	RegCAS       Kind = "reg.cas"       // Key, Old, Value; Swapped is the answer
	DirectWrite  Kind = "direct.write"  // past the proxy; Value is the id
	SeenWrite    Kind = "seen.write"    // Key is the writer, Value its next number
	SeenRead     Kind = "seen.read"     // Key is the reader; Seen is the answer
	SeenTwice    Kind = "seen.twice"    // in one transaction READ ONLY; Seen and Again are the answers
)

// Writes says whether requests of this kind change anything.
func (k Kind) Writes() bool {
	return k != BankRead && k != RegRead && k != SeenRead && k != SeenTwice
}

// Op is one request and its answer.
type Op struct {
	Client   string        `json:"client"`
	Kind     Kind          `json:"kind"`
	Key      int64         `json:"key,omitempty"`
	Value    int64         `json:"value"`
	Old      int64         `json:"old,omitempty"`
	Amount   int64         `json:"amount,omitempty"`
	Swapped  bool          `json:"swapped,omitempty"`
	Balances []int64       `json:"balances,omitempty"`
	Seen     []int64       `json:"seen,omitempty"`  // the latest number of each writer, by its Key
	Again    []int64       `json:"again,omitempty"` // the same, a moment later
	Conn     int           `json:"conn,omitempty"`  // which of the client's connections
	Invoked  time.Duration `json:"invoked_ns"`      // since the history's start
	Returned time.Duration `json:"returned_ns"`     // the same clock
	Outcome  Outcome       `json:"outcome"`
	Code     string        `json:"code,omitempty"` // SQLSTATE, "connect" or "connection"
	Error    string        `json:"error,omitempty"`

	// Port and Timeline say which server answered and on which timeline it
	// wrote its log at that moment; 0 where there was no answer.
	Port     int    `json:"port,omitempty"`
	Timeline uint32 `json:"timeline,omitempty"`
}

// Log collects the Ops of many clients. It is safe for concurrent use.
type Log struct {
	start time.Time
	mu    sync.Mutex
	ops   []Op
	last  map[string]time.Duration // of each client's latest acknowledgement
	acked chan struct{}
}

// New begins a history now.
func New() *Log {
	return &Log{start: time.Now(), last: map[string]time.Duration{}, acked: make(chan struct{}, 1)}
}

// Now is the history's clock.
func (l *Log) Now() time.Duration { return time.Since(l.start) }

// Add notes a request that has been answered, or given up.
func (l *Log) Add(op Op) {
	l.mu.Lock()
	l.ops = append(l.ops, op)
	if op.Outcome == OK {
		l.last[op.Client] = op.Returned
	}
	l.mu.Unlock()
	if op.Outcome == OK {
		select {
		case l.acked <- struct{}{}:
		default:
		}
	}
}

// Acked has a value after acknowledgements, coalesced; for one reader.
func (l *Log) Acked() <-chan struct{} { return l.acked }

// LastAck is when a client was last acknowledged; 0 for never.
func (l *Log) LastAck(client string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last[client]
}

// Ops gives what was noted, in the order in which it was sent.
func (l *Log) Ops() []Op {
	l.mu.Lock()
	ops := slices.Clone(l.ops)
	l.mu.Unlock()
	slices.SortStableFunc(ops, func(a, b Op) int { return int(a.Invoked - b.Invoked) })
	return ops
}

// Write writes a history as JSON lines.
func Write(w io.Writer, ops []Op) error {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	for _, op := range ops {
		if err := e.Encode(op); err != nil {
			return fmt.Errorf("write the history: %w", err)
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write the history: %w", err)
	}
	return nil
}

// Read reads what Write wrote.
func Read(r io.Reader) ([]Op, error) {
	var ops []Op
	d := json.NewDecoder(r)
	for {
		var op Op
		err := d.Decode(&op)
		if errors.Is(err, io.EOF) {
			return ops, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the history: request %d: %w", len(ops)+1, err)
		}
		ops = append(ops, op)
	}
}

// LongestPause is the longest time that a client of the proxy waited between
// two acknowledgements.
func LongestPause(ops []Op) (longest time.Duration) {
	last := map[string]time.Duration{}
	for _, op := range ops {
		if op.Kind == DirectWrite || op.Outcome != OK {
			continue
		}
		if before, ok := last[op.Client]; ok {
			longest = max(longest, op.Returned-before)
		}
		last[op.Client] = op.Returned
	}
	return longest
}
