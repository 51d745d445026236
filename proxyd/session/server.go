package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/relay"
	"github.com/pgtandem/pgtandem/proxyd/route"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

const (
	maxCancels = 64  // CancelRequests being delivered at one time
	strangers  = 200 // connections beyond max_clients that may still be told why
)

// Server accepts clients and serves them. Make it with New.
type Server struct {
	opts      Options
	log       *slog.Logger
	now       func() time.Time
	verifiers *verifierCache
	texts     *texts
	askID     *prepared    // the question before a COMMIT
	loops     *relay.Group // while Serve runs
	pool      *pool.Pool
	valve     *valve
	cancels   chan struct{} // a place for each CancelRequest
	doorman   *doorman
	guesses   *guesses

	lim atomic.Pointer[Limits]
	sec atomic.Pointer[security]

	router atomic.Pointer[router] // nil where nothing is read from standbys
	routes route.Tally

	mu       sync.Mutex
	clients  map[uint32]*client // by the pid we gave them
	backends map[*backend]struct{}
	conns    map[*relay.Conn]struct{} // accepted, whatever became of them
	welcomes map[welcomeKey]reports
	changed  chan struct{} // closed when a link has ended
	errors   map[string]uint64
	logins   map[string]uint64        // by database
	crowd    map[pool.Group]int       // clients that are logged in, of a database or of a user
	unfilled map[pool.Group]time.Time // whose minimum is left alone, and until when
	past     map[CounterKey]*Counters // of servers that are gone
	stopping bool

	deafLook time.Time // of sweep alone: when clients that do not read are looked for

	slots    atomic.Int64 // clients that have proved themselves
	closing  atomic.Bool  // of stopping, for the hot path
	looking  atomic.Bool  // late will be called
	lastID   atomic.Uint64
	warned   atomic.Int64 // when failed last spoke loudly, unix seconds
	wg       sync.WaitGroup
	stopOnce sync.Once
	stopped  chan struct{}

	visits    context.Context // of those at the console: done when the proxy stops
	endVisits context.CancelFunc
}

// welcomeKey is what decides which parameters a server reports at login.
type welcomeKey struct {
	pool.Group
	params string
}

// New makes a server. It attaches itself to the gate.
func New(o Options) (*Server, error) {
	o = o.orDefault()
	if o.Gate == nil || o.Verifiers == nil {
		return nil, errors.New("a session server needs a gate and verifiers")
	}
	s := &Server{
		opts: o, log: o.Log, now: time.Now, texts: newTexts(),
		cancels:  make(chan struct{}, maxCancels),
		clients:  make(map[uint32]*client),
		backends: make(map[*backend]struct{}),
		conns:    make(map[*relay.Conn]struct{}),
		welcomes: make(map[welcomeKey]reports),
		changed:  make(chan struct{}),
		errors:   make(map[string]uint64),
		logins:   make(map[string]uint64),
		crowd:    make(map[pool.Group]int),
		unfilled: make(map[pool.Group]time.Time),
		past:     make(map[CounterKey]*Counters),
		valve:    newValve(),
		stopped:  make(chan struct{}),
	}
	s.askID = newAskID(s.texts)
	s.visits, s.endVisits = context.WithCancel(context.Background())
	s.verifiers = newVerifierCache(o.Verifiers, o.Log, s.now)
	s.pool = pool.New(poolLimits(&o.Limits), func(v any) { go v.(*backend).sever("not needed any more") }, s.now)
	s.doorman = newDoorman(s.now)
	s.guesses = newGuesses(s.now)
	s.Apply(o.Limits)
	if err := s.Secure(o.Security); err != nil {
		return nil, err
	}
	o.Gate.Attach(s)
	return s, nil
}

func (s *Server) limits() *Limits { return s.lim.Load() }

// Apply changes the limits. The mode holds for clients that log in later.
func (s *Server) Apply(l Limits) {
	l = l.orDefault()
	s.lim.Store(&l)
	s.pool.SetLimits(poolLimits(&l))
	s.doorman.setLimits(l.MaxLogins, l.MaxLoginsPerAddress)
}

// Secure changes who gets in and how connections are encrypted, for those that
// are made from now on. With an error nothing is changed.
func (s *Server) Secure(o Security) error {
	ready, err := o.ready()
	if err == nil {
		s.sec.Store(ready)
	}
	return err
}

// Serve accepts clients until ctx is done or Shutdown is called; then every
// connection is closed and every goroutine has ended.
func (s *Server) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	loops, err := relay.New(s.opts.Loops)
	if err != nil {
		return err
	}
	defer loops.Close()
	s.loops = loops
	failed := make(chan error, len(s.opts.Listeners))
	for _, l := range s.opts.Listeners {
		s.wg.Go(func() {
			if err := s.accept(l); err != nil {
				failed <- err
			}
		})
	}
	sweep := time.NewTimer(briefest)
	defer sweep.Stop()
	for running := true; running; {
		select {
		case <-sweep.C:
			sweep.Reset(s.sweep())
		case <-ctx.Done():
			running = false
		case <-s.stopped:
			running = false
		case err = <-failed:
			running = false
		}
	}
	s.stopAccepting()
	s.closeAll()
	s.wg.Wait()
	return err
}

func (s *Server) accept(l net.Listener) error {
	for {
		plain, err := l.Accept()
		if err != nil {
			if s.closing.Load() || errors.Is(err, net.ErrClosed) {
				return nil
			}
			var temporary interface{ Temporary() bool }
			if errors.As(err, &temporary) && temporary.Temporary() { // out of descriptors, say
				s.log.Warn("a connection could not be accepted", "error", err)
				time.Sleep(5 * time.Millisecond)
				continue
			}
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		conn := relay.Wrap(plain)
		if !s.admit(conn) {
			conn.Close()
			continue
		}
		s.wg.Add(1)
		go func() {
			if !s.serve(conn) {
				s.dismiss(conn)
			}
		}()
	}
}

// admit enters an accepted connection. Some more than max_clients are let in
// so that they can be told, and so that a CancelRequest gets through. Where all
// of that is taken, by connections of which most have proved nothing, those of
// another address still find room.
func (s *Server) admit(conn *relay.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || len(s.conns) >= s.limits().MaxClients+strangers && !s.doorman.giveWay(addressOf(conn.NetConn())) {
		return false
	}
	s.conns[conn] = struct{}{}
	return true
}

func (s *Server) dismiss(conn *relay.Conn) {
	conn.Close()
	s.mu.Lock()
	delete(s.conns, conn)
	if len(s.conns) == 0 {
		s.linkChanged()
	}
	s.mu.Unlock()
	s.wg.Done()
}

// gone is the very end of a client that was in a loop.
func (s *Server) gone(c *client) { s.dismiss(c.sock) }

func (s *Server) stopAccepting() {
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
	s.closing.Store(true)
	s.endVisits()
	for _, l := range s.opts.Listeners {
		l.Close()
	}
}

// closeAll closes every connection there is.
func (s *Server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
	for _, c := range s.clients {
		c.abort()
	}
	for b := range s.backends {
		go b.sever("the proxy stops")
	}
}

// Retire takes no new clients, and serves those there are until they have gone
// by themselves or ctx is done. Visitors of the console are sent away.
func (s *Server) Retire(ctx context.Context) error {
	s.endVisits()
	for _, l := range s.opts.Listeners {
		l.Close()
	}
	for {
		s.mu.Lock()
		left, changed := len(s.conns), s.changed
		s.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Shutdown lets transactions end until ctx is done, telling clients that are
// outside of one at once, and then makes Serve return.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopAccepting()
	for {
		s.mu.Lock()
		left, changed := len(s.clients), s.changed
		for _, c := range s.clients {
			c.wake()
		}
		s.mu.Unlock()
		if left == 0 {
			break
		}
		select {
		case <-changed:
			continue
		case <-ctx.Done():
		}
		break
	}
	s.stopOnce.Do(func() { close(s.stopped) })
	return ctx.Err()
}

// note counts an error that the proxy itself sends.
func (s *Server) note(n *wire.Notice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errors[n.Code]++
}

// register enters a server connection that was just opened. It says false when
// the gate has moved meanwhile.
func (s *Server) register(b *backend) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || !s.current(b.target) || !s.valve.open(b.server.Key.Database) {
		return false
	}
	s.backends[b] = struct{}{}
	s.wg.Add(1)
	return true
}

// unregister ends a server connection's life in the books.
func (s *Server) unregister(b *backend) {
	s.pool.Remove(b.server)
	b.mu.Lock() // its client may be counting its wait still
	counted := b.counts.Counters
	b.mu.Unlock()
	s.mu.Lock()
	delete(s.backends, b)
	s.pastOf(b).Add(counted)
	s.linkChanged()
	s.mu.Unlock()
	s.wg.Done()
}

// linkChanged wakes those who wait for links to end. The lock is held.
func (s *Server) linkChanged() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// giveUp ends a place in the books of which no server has come.
func (s *Server) giveUp(srv *pool.Server) {
	s.pool.Remove(srv)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.linkChanged()
}

// linksChanged is closed when a link has ended after this call.
func (s *Server) linksChanged() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// pastOf is where a server's counters go when it is gone. The lock is held.
func (s *Server) pastOf(b *backend) *Counters {
	k := CounterKey{b.server.Key.Database, b.node}
	if s.past[k] == nil {
		s.past[k] = &Counters{}
	}
	return s.past[k]
}

func (s *Server) snapshotBackends() ([]*backend, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*backend, 0, len(s.backends))
	for b := range s.backends {
		list = append(list, b)
	}
	return list, s.changed
}

// Cut implements pool.Links.
func (s *Server) Cut(reason string) {
	list, _ := s.snapshotBackends()
	for _, b := range list {
		if s.behindGate(b) {
			b.sever(reason)
		}
	}
}

// Drain implements pool.Links.
func (s *Server) Drain(reason string) (open int, changed <-chan struct{}) {
	list, changed := s.snapshotBackends()
	for _, b := range list {
		if s.behindGate(b) && b.drain(reason) {
			open++
		}
	}
	return open, changed
}

// doubt gives up the pooled connections to a node of which one has just died: a
// server that goes down kills its backends one after another, and a statement
// given to one that is still there would be lost as well. A client that asks
// now has to wait until the node takes a new connection.
func (s *Server) doubt(node cluster.NodeID) {
	list, _ := s.snapshotBackends()
	for _, b := range list {
		if b.node == node {
			b.doubt("another connection to the server was lost")
		}
	}
}

// vacate closes the servers that no client has: somebody is about to change a
// database, which is refused while others are connected to it, and without us
// nobody would be. The server waits five seconds for those that are going.
func (s *Server) vacate() {
	list, _ := s.snapshotBackends()
	for _, b := range list {
		b.vacate("somebody changes a database")
	}
}

// outdate lets no client have a server that was opened before now: somebody
// has changed what a session begins with, by ALTER ROLE or ALTER DATABASE.
func (s *Server) outdate() {
	list, _ := s.snapshotBackends()
	for _, b := range list {
		b.doubt("what sessions begin with has changed")
	}
}

// failed tells the engine that a node's connection broke. A lost node breaks
// many at once: one line a second says so loudly.
func (s *Server) failed(node cluster.NodeID, err error) {
	level, now := slog.LevelDebug, s.now().Unix()
	if s.warned.Swap(now) != now {
		level = slog.LevelWarn
	}
	s.log.Log(context.Background(), level, "a server connection failed", "node", node, "error", err)
	s.opts.BackendFailed(node, err)
}

func (s *Server) welcome(k welcomeKey) reports {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.welcomes[k]
}

const maxWelcomes = 1000

func (s *Server) setWelcome(k welcomeKey, r reports) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.welcomes) >= maxWelcomes {
		clear(s.welcomes)
	}
	s.welcomes[k] = r
}
