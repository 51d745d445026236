package drill

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Target is where the clients connect: the proxy, never a node.
type Target struct {
	Host     string
	Port     int
	Database string
	User     string
	Password string
}

func (t Target) config() (*pgx.ConnConfig, error) {
	c, err := pgx.ParseConfig("sslmode=prefer")
	if err != nil {
		return nil, fmt.Errorf("make a connection configuration: %w", err)
	}
	c.Host, c.Port, c.Database, c.User, c.Password = t.Host, uint16(t.Port), t.Database, t.User, t.Password
	c.ConnectTimeout = 90 * time.Second // a held login is slow, not refused
	c.Fallbacks = nil
	// Named prepared statements would test the proxy's care for them, which is
	// another question than the one a drill asks.
	c.DefaultQueryExecMode = pgx.QueryExecModeExec
	c.RuntimeParams["application_name"] = "pgtandem drill"
	return c, nil
}

// load is the clients of one drill.
type load struct {
	target  Target
	table   string
	started time.Time
	pace    time.Duration // between two statements of one client

	mu       sync.Mutex
	attempts []attempt
	lastAck  []time.Duration
	acked    chan struct{} // has a value after each acknowledgement, coalesced

	clients []Client
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// run starts the clients; stop ends them.
func (l *load) run(ctx context.Context, lasting, connecting int) error {
	cfg, err := l.target.config()
	if err != nil {
		return err
	}
	ctx, l.cancel = context.WithCancel(ctx)
	l.acked = make(chan struct{}, 1)
	for i := range lasting + connecting {
		c := Client{Name: fmt.Sprintf("lasting-%d", i+1), Kind: "lasting"}
		if i >= lasting {
			c = Client{Name: fmt.Sprintf("connecting-%d", i-lasting+1), Kind: "connecting"}
		}
		l.clients = append(l.clients, c)
		l.lastAck = append(l.lastAck, 0)
	}
	for i := range l.clients {
		l.wg.Add(1)
		go func() {
			defer l.wg.Done()
			l.client(ctx, cfg.Copy(), i)
		}()
	}
	return nil
}

// stop ends the clients after their present statement.
func (l *load) stop() {
	l.cancel()
	l.wg.Wait()
}

func (l *load) client(ctx context.Context, cfg *pgx.ConnConfig, me int) {
	var conn *pgx.Conn
	closeConn := func() {
		if conn != nil {
			c, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			_ = conn.Close(c) // it is done with, however it ends
			cancel()
			conn = nil
		}
	}
	defer closeConn()
	pace := time.NewTicker(l.pace)
	defer pace.Stop()
	for n := 1; ctx.Err() == nil; n++ {
		a := attempt{client: me, n: n, begun: time.Since(l.started)}
		if conn == nil {
			c, err := pgx.ConnectConfig(ctx, cfg)
			a.dial = time.Since(l.started) - a.begun
			if err != nil {
				a.code, a.text = "connect", err.Error()
			}
			conn = c
		}
		if conn != nil {
			l.insert(ctx, conn, &a)
		}
		l.note(ctx, a)
		if conn != nil && (l.clients[me].Kind == "connecting" || conn.IsClosed()) {
			closeConn()
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
		}
	}
}

// insert writes a client's next row. It is not cut short by the end of the
// drill: its answer is part of what is measured.
func (l *load) insert(ctx context.Context, conn *pgx.Conn, a *attempt) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 90*time.Second)
	defer cancel()
	if _, err := conn.Exec(ctx, "INSERT INTO "+l.table+" (client, n) VALUES ($1, $2)", a.client, a.n); err != nil {
		a.code, a.text = code(err), err.Error()
	}
}

func code(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return "connection"
}

func (l *load) note(ctx context.Context, a attempt) {
	if ctx.Err() != nil && a.code == "connect" {
		return // cut short by the end of the drill
	}
	l.mu.Lock()
	a.ended = time.Since(l.started)
	l.attempts = append(l.attempts, a)
	if a.acked() {
		l.lastAck[a.client] = a.ended
	}
	l.mu.Unlock()
	if a.acked() {
		select {
		case l.acked <- struct{}{}:
		default:
		}
	}
}

// all waits until every client has had an acknowledgement after t.
func (l *load) all(ctx context.Context, t time.Duration) error {
	for {
		l.mu.Lock()
		late := ""
		for i, at := range l.lastAck {
			if at <= t {
				late = l.clients[i].Name
			}
		}
		l.mu.Unlock()
		if late == "" {
			return nil
		}
		select {
		case <-l.acked:
		case <-ctx.Done():
			return fmt.Errorf("client %s had no acknowledgement: %w", late, ctx.Err())
		}
	}
}
