// Package workload is the clients of a chaos run: they write and read through
// the proxy as programs do, and note what they were told. Beside them one
// client for each node goes past the proxy, to see who else would take a write.
//
// It owns the tables and how they are read back. It must never know which
// faults are made, nor judge what it saw.
package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/chaos/history"
)

// Target is where a client connects.
type Target struct {
	Host     string
	Port     int
	Database string
	User     string
	Password string
}

// Config is a connection configuration that owes nothing to the environment.
func (t Target) Config() (*pgx.ConnConfig, error) {
	c, err := pgx.ParseConfig("sslmode=prefer")
	if err != nil {
		return nil, fmt.Errorf("make a connection configuration: %w", err)
	}
	c.Host, c.Port, c.Database, c.User, c.Password = t.Host, uint16(t.Port), t.Database, t.User, t.Password
	c.Fallbacks = nil
	c.ConnectTimeout = patience // a held login is slow, not refused
	c.DefaultQueryExecMode = pgx.QueryExecModeExec
	c.RuntimeParams["application_name"] = "pgtandem chaos"
	return c, nil
}

const (
	patience   = 30 * time.Second        // of a client with an answer to wait for
	impatience = 1500 * time.Millisecond // of one that gives up, and cancels
	pace       = 20 * time.Millisecond   // between two requests of one client
	slowPace   = 200 * time.Millisecond  // of what goes past the proxy
)

// where says which server answers, and the timeline it writes its log on; 0
// from a server that only follows.
const where = `coalesce(inet_server_port(), 0), CASE WHEN pg_is_in_recovery() THEN 0 ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END`

// Load is the clients of one run.
type Load struct {
	log    *history.Log
	stop   context.CancelFunc
	wg     sync.WaitGroup
	names  []string
	target Target
	seed   uint64
}

// Start starts the clients: those of the three workloads through the proxy,
// and one for each node past it. With reads there are those as well that say what
// they see of each other's writes. They go on until Stop.
func Start(ctx context.Context, log *history.Log, proxy Target, nodes []Target, seed uint64, reads bool) (*Load, error) {
	ctx, cancel := context.WithCancel(ctx)
	l := &Load{log: log, stop: cancel, target: proxy, seed: seed}
	crew := []member{
		{"set-1", adder, pgx.QueryExecModeExec, patience, false},
		{"set-2", adder, pgx.QueryExecModeSimpleProtocol, patience, true},
		{"set-3", adder, pgx.QueryExecModeExec, impatience, false},
		{"bank-1", teller, pgx.QueryExecModeCacheDescribe, patience, false},
		{"bank-2", teller, pgx.QueryExecModeSimpleProtocol, patience, false},
		{"register-1", clerk, pgx.QueryExecModeCacheStatement, patience, false},
		{"register-2", clerk, pgx.QueryExecModeCacheStatement, patience, false},
		{"register-3", clerk, pgx.QueryExecModeSimpleProtocol, patience, false},
	}
	if reads {
		crew = append(crew, readers...)
	}
	for _, m := range crew {
		c, err := l.client(m.name, proxy, m.mode)
		if err != nil {
			return nil, errors.Join(err, l.Stop(ctx))
		}
		c.patience, c.anew = m.patience, m.anew
		l.names = append(l.names, m.name)
		l.run(ctx, c, m.do(c), pace)
	}
	for i, t := range nodes {
		c, err := l.client(fmt.Sprintf("direct-%d", i+1), t, pgx.QueryExecModeExec)
		if err != nil {
			return nil, errors.Join(err, l.Stop(ctx))
		}
		c.patience = impatience
		c.cfg.ConnectTimeout = impatience
		l.run(ctx, c, intruder(c), slowPace)
	}
	return l, nil
}

// member is a client of the proxy.
type member struct {
	name     string
	do       func(*client) func(context.Context)
	mode     pgx.QueryExecMode
	patience time.Duration
	anew     bool // a connection for each request
}

// Names are the clients that go through the proxy.
func (l *Load) Names() []string { return l.names }

// Stop ends the clients after their present request, and waits for them.
func (l *Load) Stop(ctx context.Context) error {
	l.stop()
	done := make(chan struct{})
	go func() { l.wg.Wait(); close(done) }() // ends when the clients have: each request has a deadline
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the clients to end: %w", ctx.Err())
	}
}

// Served waits until each client of the proxy was acknowledged after t.
func (l *Load) Served(ctx context.Context, t time.Duration) error {
	for {
		late := ""
		for _, name := range l.names {
			if l.log.LastAck(name) <= t {
				late = name
			}
		}
		if late == "" {
			return nil
		}
		select {
		case <-l.log.Acked():
		case <-ctx.Done():
			return fmt.Errorf("client %s was not served: %w", late, ctx.Err())
		}
	}
}

func (l *Load) run(ctx context.Context, c *client, request func(context.Context), pace time.Duration) {
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		defer c.close()
		t := time.NewTicker(pace)
		defer t.Stop()
		for ctx.Err() == nil {
			request(ctx)
			if c.anew {
				c.close()
			}
			select {
			case <-t.C:
			case <-ctx.Done():
			}
		}
	}()
}

// client is one of them, with the connection it has or will have.
type client struct {
	name     string
	base     int64 // of its values: no two clients write the same
	next     int64
	cfg      *pgx.ConnConfig
	conn     *pgx.Conn
	conns    int // that it has had
	patience time.Duration
	anew     bool
	log      *history.Log
	rand     *rand.Rand
}

func (l *Load) client(name string, t Target, mode pgx.QueryExecMode) (*client, error) {
	cfg, err := t.Config()
	if err != nil {
		return nil, err
	}
	cfg.DefaultQueryExecMode = mode
	l.seed++
	return &client{name: name, base: int64(l.seed%1000+1) * 1_000_000, cfg: cfg, log: l.log, rand: rand.New(rand.NewPCG(l.seed, 1))}, nil
}

func (c *client) value() int64 {
	c.next++
	return c.base + c.next
}

func (c *client) close() {
	if c.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.conn.Close(ctx) // it is done with, however it ends
	c.conn = nil
}

// ask makes one request and notes it. The end of the run does not cut it
// short: its answer is part of the history.
func (c *client) ask(ctx context.Context, op history.Op, do func(context.Context, *pgx.Conn, *history.Op) error) {
	op.Client, op.Invoked = c.name, c.log.Now()
	if c.conn != nil && c.conn.IsClosed() {
		c.close()
	}
	if c.conn == nil {
		conn, err := pgx.ConnectConfig(ctx, c.cfg)
		if err != nil {
			if ctx.Err() == nil {
				op.Outcome, op.Code, op.Error, op.Returned = history.Failed, history.CodeConnect, err.Error(), c.log.Now()
				c.log.Add(op)
			}
			return
		}
		c.conn = conn
		c.conns++
		op.Invoked = c.log.Now()
	}
	op.Conn = c.conns
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.patience)
	defer cancel()
	err := do(bounded, c.conn, &op)
	op.Returned = c.log.Now()
	if op.Outcome == "" {
		op.Outcome = history.OutcomeOf(err)
	}
	if err != nil {
		op.Code, op.Error = history.CodeOf(err), err.Error()
	}
	c.log.Add(op)
}
