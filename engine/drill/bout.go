package drill

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Bout is the clients of a drill for a fault that somebody else makes: they
// write through the proxy from Begin to End, and what they saw is judged as in
// any drill.
type Bout struct {
	d      drill
	cancel context.CancelFunc
}

// Measured is what a bout's clients saw.
type Measured struct {
	Report
	WorstClientMS float64 // the longest pause of any one client
	Beyond        int     // failed statements that were not in flight at the fault
	Lies          int     // rows that are there although the client was told no
}

// Begin makes a table for the bout and starts clients that keep their
// connection. It returns when each has had an acknowledgement. End must follow
// unless there is an error.
func Begin(ctx context.Context, t Target, name string, clients int) (*Bout, error) {
	b := &Bout{d: drill{opt: Options{Progress: func(string) {}}, report: Report{Name: name, Started: time.Now()}}}
	b.d.load = &load{target: t, started: b.d.report.Started, pace: 4 * time.Millisecond,
		table: pgx.Identifier{"pgtandem_bout_" + strings.Map(safe, strings.ToLower(name))}.Sanitize()}
	if err := b.d.through(ctx, "CREATE TABLE "+b.d.load.table+" (client integer, n integer, PRIMARY KEY (client, n))"); err != nil {
		return nil, err
	}
	// The clients go on until End, also when ctx is over: what they wait for
	// then is part of what is measured.
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b.cancel = cancel
	if err := b.d.load.run(running, clients, 0); err != nil {
		cancel()
		return nil, err
	}
	if err := b.d.load.all(ctx, 0); err != nil {
		cancel()
		b.d.load.stop()
		return nil, fmt.Errorf("before the fault: %w", err)
	}
	return b, nil
}

// Fault makes the fault, and notes when it began and when it was made.
func (b *Bout) Fault(do func() error) error {
	b.d.judgment.faultAt = b.d.since()
	err := do()
	b.d.judgment.goneAt = b.d.since()
	if err != nil {
		return fmt.Errorf("make the fault: %w", err)
	}
	return nil
}

// Settled waits until every client has had an acknowledgement that long after
// now.
func (b *Bout) Settled(ctx context.Context, after time.Duration) error {
	return b.d.load.all(ctx, b.d.since()+after)
}

// End ends the clients, reads their rows back over a connection to the
// primary, past the proxy, and drops them. mayFail says that a statement in
// flight at the fault may have failed.
func (b *Bout) End(ctx context.Context, mayFail bool, primary func(context.Context) (*pgx.Conn, error)) (Measured, error) {
	b.d.load.stop()
	b.cancel()
	j := &b.d.judgment
	j.end, j.attempts, j.clients, j.mayFail = b.d.since(), b.d.load.attempts, b.d.load.clients, mayFail
	c, err := primary(ctx)
	if err != nil {
		return Measured{}, fmt.Errorf("read the rows back: %w", err)
	}
	defer func() { _ = c.Close(ctx) }() // it has served
	if j.present, err = rowsIn(ctx, c, b.d.load.table); err != nil {
		return Measured{}, fmt.Errorf("read the rows back: %w", err)
	}
	t := judge(&b.d.report, *j)
	m := Measured{Report: b.d.report, Beyond: t.beyond, Lies: t.lies}
	for _, c := range m.Clients {
		m.WorstClientMS = max(m.WorstClientMS, c.LongestPauseMS)
	}
	if _, err := c.Exec(ctx, "DROP TABLE "+b.d.load.table); err != nil {
		return m, fmt.Errorf("drop the bout's table: %w", err)
	}
	return m, nil
}
