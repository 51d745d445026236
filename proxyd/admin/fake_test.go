package admin

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// patience bounds every wait of a test.
const patience = 30 * time.Second

var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

// fake is a data plane and a daemon with a busy day behind them.
type fake struct {
	mu      sync.Mutex
	view    View
	did     []string
	audited []string
	pausing chan struct{} // closed when Pause has begun
	rights  Rights
	reload  error
}

func newFake() *fake {
	return &fake{view: busyView(), pausing: make(chan struct{}), rights: Rights{Admins: []string{"alice"}, Stats: []string{"bob"}}}
}

// busyView is a proxy whose gate is closed, with a client of each kind.
func busyView() View {
	at := func(host string, port int) Address { return Address{host, port} }
	usual := Terms{Mode: "transaction", PoolSize: 20, ServerLifetime: time.Hour}
	special := Terms{Mode: "session", PoolSize: 5, MinPoolSize: 1, ReserveSize: 2, ServerLifetime: time.Minute}
	return View{
		At: noon, Mode: "transaction",
		Limits:    Limits{MaxClients: 1000, PoolSize: 20, MaxServers: 80},
		Gate:      Gate{Reason: "pgsql1 is lost", Held: 1, OldestHeld: 1500 * time.Millisecond, Holds: 7, HoldTime: 2 * time.Second},
		Databases: []Database{{Name: "night", Paused: true, Disabled: true, Terms: usual, MaxServers: 10, MaxClients: 5000}, {Name: "shop", Terms: usual}},
		Users:     []User{{Name: "batch", Terms: special, MaxServers: 100, MaxClients: 50}, {Name: "web", Terms: usual}},
		Pools: []Pool{
			{Database: "night", User: "batch", Terms: special},
			{Database: "shop", User: "web", Terms: usual, Connecting: 1, Idle: 2, Active: 3, Cleaning: 1, Waiting: 1, OldestWait: 250 * time.Millisecond},
		},
		Clients: []Client{
			{ID: 3, Database: "shop", User: "web", State: ClientActive, Remote: at("10.0.0.9", 50001), Local: at("10.0.0.1", 9999),
				Connected: noon.Add(-time.Hour), Requested: noon.Add(-time.Second), Server: 8, Node: "pgsql1",
				TLS: "TLS 1.3/TLS_AES_128_GCM_SHA256", Application: "checkout", Prepared: 4, Pinned: "a temporary table",
				Route: "primary pgsql1: it calls nextval, which is volatile"},
			{ID: 4, Database: "shop", User: "web", State: ClientHeld, Remote: at("10.0.0.9", 50002), Local: at("10.0.0.1", 9999),
				Connected: noon.Add(-time.Minute), Requested: noon.Add(-1500 * time.Millisecond), Wait: 1500 * time.Millisecond, WaitsFor: "the gate: pgsql1 is lost"},
			{ID: 5, Database: "shop", User: "web", State: ClientWaiting, Remote: at("unix", 0), Local: at("unix", 0), PID: 4711,
				Connected: noon.Add(-time.Minute), Requested: noon.Add(-250 * time.Millisecond), Wait: 250 * time.Millisecond, WaitsFor: "a server of the pool"},
			{ID: 6, Database: "who", User: "knows", State: ClientLogin, Remote: at("10.6.6.6", 6666), Local: at("10.0.0.1", 9999), Connected: noon},
			{ID: 7, Database: "pgtandem", User: "alice", State: ClientIdle, Remote: at("127.0.0.1", 40000), Local: at("127.0.0.1", 9999), Connected: noon},
		},
		Servers: []Server{
			{ID: 8, Database: "shop", User: "web", Node: "pgsql1", State: ServerActive, Remote: at("10.0.0.11", 5432), Local: at("10.0.0.1", 33000),
				Connected: noon.Add(-time.Hour), Requested: noon.Add(-time.Second), CloseNeeded: true, Client: 3, PID: 12345, Application: "checkout", Prepared: 9, Pinned: "a temporary table"},
			{ID: 9, Database: "shop", User: "web", Node: "pgsql1", State: ServerBeingCanceled, Remote: at("10.0.0.11", 5432), Local: at("10.0.0.1", 33001),
				Connected: noon.Add(-time.Hour), PID: 12346},
			{ID: 10, Database: "shop", User: "web", Node: "pgsql1", State: ServerIdle, Remote: at("10.0.0.11", 5432), Local: at("10.0.0.1", 33002),
				Connected: noon.Add(-time.Hour), PID: 12347},
		},
		Totals: map[string]Totals{
			"shop": {Assignments: 100, Transactions: 200, Queries: 300, Received: 4096, Sent: 18446744073709551615, Logins: 5, TransactionTime: 2 * time.Second,
				QueryTime: 3 * time.Second, WaitTime: time.Millisecond, ClientParses: 6, ServerParses: 7, Binds: 8},
			"night": {},
		},
		Statements: map[string]uint64{"pgsql1": 290, "pgsql2": 10},
		Errors:     map[string]uint64{"57P03": 2, "53300": 1},
		Routes:     map[string]uint64{"standby": 1200, "text": 34, "own_writes": 5},
	}
}

func (f *fake) View() View {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view
}

func (f *fake) note(words string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did = append(f.did, words)
}

// Pause waits for a database named "busy" until it is called off.
func (f *fake) Pause(ctx context.Context, db string) error {
	f.note("pause " + db)
	if db != "busy" {
		return nil
	}
	close(f.pausing)
	<-ctx.Done()
	f.note("pause taken back")
	return context.Cause(ctx)
}

func (f *fake) Resume(db string) error {
	if db == "shop" {
		return wire.Errorf(wire.CodeNotInPrerequisiteState, "database \"shop\" is not paused")
	}
	f.note("resume " + db)
	return nil
}
func (f *fake) Disable(db string)   { f.note("disable " + db) }
func (f *fake) Enable(db string)    { f.note("enable " + db) }
func (f *fake) Reconnect(db string) { f.note("reconnect " + db) }
func (f *fake) Kill(db string)      { f.note("kill " + db) }
func (f *fake) WaitClose(_ context.Context, db string) error {
	f.note("wait_close " + db)
	return nil
}
func (f *fake) KillClient(id uint64) bool {
	f.note("kill_client")
	return id == 3
}

func (f *fake) State(context.Context) (api.State, error) {
	return api.State{Primary: "pgsql1", GateState: "closed", Term: 4, Nodes: []api.Node{
		{Name: "pgsql1", Host: "10.0.0.11", Port: 5432, Weight: 3, Role: "unknown", LagBytes: -1, Timeline: 3, Warnings: []string{"it does not answer", "look at it"}},
		{Name: "pgsql2", Host: "10.0.0.12", Port: 5432, Weight: 1, Role: "standby", Reachable: true, State: "streaming", SyncState: "sync", LagBytes: 128, Timeline: 3, LSN: "0/3000060", Eligible: true},
	}}, nil
}

func (f *fake) Settings() []Setting {
	return []Setting{
		{"path", "/etc/pgtandem/pgtandem.toml", "/etc/pgtandem/pgtandem.toml", false},
		{"proxy.port", "9999", "9999", false}, {"proxy.max_clients", "77", "1000", true}, {"proxy.login_timeout", "1m", "1m", true},
		{"proxy.admin_users", `["alice", "carol"]`, "[]", true}, {"recovery.password", "********", "", true},
	}
}

func (f *fake) Reload(by string) (api.ReloadResult, error) {
	f.note("reload by " + by[:5])
	return api.ReloadResult{Applied: []string{"proxy.max_clients"}, Restart: []string{"proxy.port"}}, f.reload
}

func (f *fake) Audit(by, what string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	outcome := "accepted"
	if err != nil {
		outcome = "refused"
	}
	f.audited = append(f.audited, by[:3]+" "+what+": "+outcome)
}

func (f *fake) done() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.did)
}

// listener takes clients to a console, believing what they say of themselves.
type listener struct {
	*fake
	console *Console
	addr    string
	stop    context.CancelFunc

	mu      sync.Mutex
	cancels map[uint32]func()
	ended   chan error // why each visit has ended
}

func listen(t *testing.T) *listener {
	t.Helper()
	f := newFake()
	l := &listener{fake: f, cancels: make(map[uint32]func()), ended: make(chan error, 100)}
	l.console = New(Options{Plane: f, Daemon: f, Rights: func() Rights {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.rights
	}, Version: "1.2.3"})
	l.console.history.take(noon.Add(-time.Minute), map[string]Totals{"shop": {Assignments: 40, Transactions: 80, Queries: 180, Received: 1096,
		TransactionTime: time.Second, QueryTime: 2 * time.Second}})
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.addr = tcp.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				l.serve(ctx, conn)
			})
		}
	})
	t.Cleanup(func() {
		stop()
		tcp.Close()
		wg.Wait()
	})
	return l
}

// serve is as much of a login as a driver needs.
func (l *listener) serve(ctx context.Context, conn net.Conn) {
	start, err := wire.ReadStartup(conn)
	if err != nil {
		return
	}
	if start.Code == wire.CancelCode {
		l.mu.Lock()
		defer l.mu.Unlock()
		if cancel := l.cancels[start.PID]; cancel != nil {
			cancel()
		}
		return
	}
	params := make(map[string]string)
	for _, p := range start.Params {
		params[p.Name] = p.Value
	}
	var b [4]byte
	rand.Read(b[:]) //nolint:errcheck // crypto/rand.Read never fails
	pid := binary.BigEndian.Uint32(b[:]) & 0x7fffffff
	if _, err := conn.Write(wire.AppendAuth(nil, wire.AuthOK, nil)); err != nil {
		return
	}
	l.ended <- l.console.Serve(ctx, Visit{
		Conn: conn, Address: conn.RemoteAddr().String(), User: params["user"], Database: params["database"], Params: params,
		KeyData: wire.AppendKey(nil, pid, wire.CancelKey{0, 0, 0, 1}),
		OnCancel: func(cancel func()) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.cancels[pid] = cancel
		},
	})
}

// connect logs in with pgx, which speaks the extended protocol.
func (l *listener) connect(t *testing.T, user, more string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), "host=127.0.0.1 port="+l.addr[len("127.0.0.1:"):]+" sslmode=disable dbname=pgtandem user="+user+" "+more)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) }) //nolint:errcheck // a test's connection
	return conn
}

var errBadFile = errors.New("pgtandem.toml:3: proxy.port: 0")
