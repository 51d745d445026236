package session

import (
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// Counters count up from the start of the proxy.
type Counters struct {
	Assignments  uint64 // of a server to a client
	Transactions uint64
	Queries      uint64 // answers that ended with ReadyForQuery
	Received     uint64 // bytes from clients that went to servers
	Sent         uint64 // bytes from servers that went to clients

	TransactionTime time.Duration // in a transaction
	QueryTime       time.Duration // with something to answer
	WaitTime        time.Duration // of clients, until they were given a server

	ClientParses uint64 // named statements that clients prepared
	ServerParses uint64 // of those, that were prepared on a server
	Binds        uint64
}

// Add sums up.
func (c *Counters) Add(o Counters) {
	c.Assignments += o.Assignments
	c.Transactions += o.Transactions
	c.Queries += o.Queries
	c.Received += o.Received
	c.Sent += o.Sent
	c.TransactionTime += o.TransactionTime
	c.QueryTime += o.QueryTime
	c.WaitTime += o.WaitTime
	c.ClientParses += o.ClientParses
	c.ServerParses += o.ServerParses
	c.Binds += o.Binds
}

// CounterKey is what Counters are kept apart by.
type CounterKey struct {
	Database string
	Node     cluster.NodeID
}

// meter counts one server connection's work, in plain numbers under the lock
// that the connection needs anyway. It is read when somebody looks, and costs
// a statement one look at the clock, at its end.
type meter struct {
	Counters
	asking        int64 // when a client last sent something, unix nanoseconds
	queryAt, txAt int64 // when the open ones began, 0: none is open
	answeredAt    int64 // when the last one was answered
}

// asked counts what a client has sent at a moment.
func (m *meter) asked(bytes int, at int64) {
	if bytes == 0 {
		return
	}
	m.Received += uint64(bytes)
	m.asking = at
	if m.queryAt == 0 {
		m.queryAt = at
	}
	if m.txAt == 0 {
		m.txAt = at
	}
}

// answered counts a ReadyForQuery; quiet says that nothing else is asked for.
func (m *meter) answered(status byte, quiet bool, at int64) {
	m.Queries++
	m.answeredAt = at
	if m.queryAt != 0 {
		m.QueryTime += time.Duration(at - m.queryAt)
	}
	if m.queryAt = at; quiet {
		m.queryAt = 0
	}
	if status != wire.TxIdle {
		return
	}
	m.Transactions++
	if m.txAt != 0 {
		m.TransactionTime += time.Duration(at - m.txAt)
	}
	m.txAt = m.queryAt
}
