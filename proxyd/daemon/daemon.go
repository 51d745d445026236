package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine"
	"github.com/pgtandem/pgtandem/engine/assemble"
	"github.com/pgtandem/pgtandem/engine/clock"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute/sql"
	"github.com/pgtandem/pgtandem/engine/execute/steps"
	"github.com/pgtandem/pgtandem/engine/observe"
	"github.com/pgtandem/pgtandem/engine/store"
	"github.com/pgtandem/pgtandem/engine/store/bolt"
	"github.com/pgtandem/pgtandem/proxyd/admin"
	"github.com/pgtandem/pgtandem/proxyd/admin/metrics"
	"github.com/pgtandem/pgtandem/proxyd/control"
	"github.com/pgtandem/pgtandem/proxyd/handover"
	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/route/choose"
	"github.com/pgtandem/pgtandem/proxyd/session"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

const (
	engineTick = 100 * time.Millisecond // timers in the rules need a turn
	stateTick  = time.Second            // positions move without anybody's notice

	// At the end: how long open transactions have, how long a drill has to
	// put the cluster back, and how long requests in progress have. Together
	// they are below the unit's TimeoutStopSec.
	drainLimit   = 15 * time.Second
	drillLimit   = 5 * time.Second
	controlLimit = 3 * time.Second
)

// Options are what a daemon is made of.
type Options struct {
	Config   *config.Config
	Version  string
	Log      io.Writer        // where the daemon's own log goes
	LogLevel string           // in place of the configuration's, reloads included; empty for none
	Reload   <-chan os.Signal // each value is a wish for a reload; nil for none
	Upgrade  <-chan os.Signal // each value is a wish that the program, as it is now, follows; nil for none

	Program   []string              // how this program was started; the next one is in the same way
	Inherited *handover.Inheritance // nil: this process follows no other
}

// Daemon is proxyd.
type Daemon struct {
	opt     Options
	log     *slog.Logger
	level   *slog.LevelVar
	live    atomic.Pointer[config.Config]
	started time.Time
	drift   atomic.Pointer[string]
	bell    *bell
	notify  *notifier

	reloading sync.Mutex // one reload at a time
	secured   secured    // guarded by reloading

	store     store.Store
	servers   map[cluster.NodeID]steps.Server
	machines  *assemble.MachineSet
	hosts     map[cluster.NodeID]steps.Host
	provision *provisioner
	closers   []func() // what was opened, closed in the reverse order
	gate      *pool.Gate
	observer  *observe.Observer
	engine    *engine.Engine
	verifiers *verifiers
	sessions  *session.Server
	reads     atomic.Pointer[reads] // nil while all reads go to the primary
	monitor   *choose.Monitor       // theirs, of which the servers' ages are told by
	console   *admin.Console
	metrics   http.Handler
	scrapes   net.Listener // for Prometheus; nil for none
	drills    *drills
	socket    net.Listener
	control   *control.Server

	listeners   []*listening
	fleet       *fleet
	parent      *member      // whom this process follows, nil for none
	predecessor *predecessor // what it left
	next        atomic.Pointer[successor]
}

// Run is the daemon's life: it returns when ctx has ended and everything has
// been stopped in order, or when a part has failed.
func Run(ctx context.Context, opt Options) error {
	d := &Daemon{opt: opt, started: time.Now(), bell: newBell(), monitor: choose.NewMonitor()}
	d.log, d.level = logger(opt.Config.Log, opt.Log)
	d.setLevel(opt.Config.Log.Level)
	defer d.close()
	given, err := givenTo(opt.Inherited)
	if err != nil {
		return err
	}
	d.prepare()
	if err := d.take(ctx); err != nil {
		return err
	}
	if err := d.build(ctx, given); err != nil {
		return err
	}
	return d.run(ctx)
}

func (d *Daemon) setLevel(configured string) {
	if d.opt.LogLevel != "" {
		configured = d.opt.LogLevel
	}
	d.level.Set(levelFor(configured))
}

func (d *Daemon) config() *config.Config { return d.live.Load() }

func (d *Daemon) now() time.Time { return time.Now() }

// later has f called at the end, before what was opened earlier is closed.
func (d *Daemon) later(f func()) { d.closers = append(d.closers, f) }

func (d *Daemon) close() {
	for i := len(d.closers) - 1; i >= 0; i-- {
		d.closers[i]()
	}
}

// prepare makes what needs nothing of the system: the gate, closed, with those
// of earlier processes that are to keep to it.
func (d *Daemon) prepare() {
	d.live.Store(d.opt.Config)
	d.drift.Store(new(string))
	d.notify = newNotifier(d.log, d.now)
	d.gate = pool.NewGate(d.now)
	d.machines = assemble.Machines(d.opt.Config)
	d.observer = newObserver(d)
	d.fleet = &fleet{Gate: d.gate, log: d.log, record: d.recorded, suspect: d.observer.Suspect, gone: d.memberGone}
}

// build opens everything and starts nothing. The control socket comes first,
// because a second daemon is best told by who the first is.
func (d *Daemon) build(ctx context.Context, given *given) error {
	c := d.opt.Config
	var err error
	if d.socket, err = control.Listen(c.Control.Socket, socketGroup(c.Control)); err != nil {
		return err
	}
	d.later(func() { _ = d.socket.Close() }) // closed already where the server served it
	if err := os.MkdirAll(c.State.Directory, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	if d.store, err = bolt.Open(c.State.Directory, bolt.Options{EventsKept: c.State.EventsKept}); err != nil {
		return err
	}
	d.later(func() { d.said("close the store", d.store.Close()) })
	if d.predecessor == nil {
		if err := awaitDrained(ctx, c.State.Directory); err != nil {
			return err
		}
	}
	d.buildNodes(c)
	if err := d.buildEngine(c); err != nil {
		return err
	}
	if err := d.buildDataPlane(c, given); err != nil {
		return err
	}
	d.buildDrills()
	d.metrics = metrics.Handler(figures{d})
	if d.scrapes, err = listenMetrics(c.Metrics); err != nil {
		return err
	}
	if d.scrapes != nil {
		d.later(func() { _ = d.scrapes.Close() }) // closed already where it was served
	}
	d.control = control.New(control.Options{Metrics: d.metrics, Backend: backend{d}, Version: d.opt.Version, OperatorGroup: c.Control.OperatorGroup, Log: d.log})
	return nil
}

// socketGroup is the one group that a socket can have. Where both are set,
// operators need to be among the viewers to open it.
func socketGroup(c config.Control) string {
	if c.ViewerGroup != "" {
		return c.ViewerGroup
	}
	return c.OperatorGroup
}

// dialEngine connects as the recovery role, by what the configuration says
// now: a changed password needs no restart.
func (d *Daemon) dialEngine(ctx context.Context, n cluster.Node) (*pgx.Conn, error) {
	c := d.config()
	return dialNode(ctx, c, n, c.Recovery.Credential, c.HealthCheck.Database, sql.Application)
}

// buildNodes makes the ways to the servers and their hosts; nothing is dialled.
func (d *Daemon) buildNodes(c *config.Config) {
	d.later(func() { d.said("end the ssh connections", d.machines.Close()) })
	d.hosts = d.machines.ForSteps()
	d.provision = newProvisioner(c, d.machines)
	d.servers = map[cluster.NodeID]steps.Server{}
	for _, n := range assemble.Nodes(c) {
		s := sql.New(n.ID, func(ctx context.Context) (*pgx.Conn, error) { return d.dialEngine(ctx, n) })
		d.servers[n.ID] = s
		d.later(s.Close)
	}
}

// newObserver makes what looks at the nodes.
func newObserver(d *Daemon) *observe.Observer {
	c := d.opt.Config
	return observe.New(observe.Options{
		Nodes: assemble.Nodes(c), Check: assemble.Check(c), Hosts: d.machines.Probes(), Now: d.now, Witness: d.witness,
		Config: func(n cluster.Node, role observe.Role) (*pgx.ConnConfig, error) {
			c := d.config()
			if role == observe.Health {
				return assemble.ConnConfig(c, n, c.HealthCheck.Credential, c.HealthCheck.Database)
			}
			return assemble.ConnConfig(c, n, c.ReplicationCheck.Credential, c.HealthCheck.Database)
		},
	})
}

func (d *Daemon) buildEngine(c *config.Config) (err error) {
	d.engine, err = engine.New(engine.Options{
		Policy: assemble.Policy(c), Store: d.store, Observer: d.observer, Gate: d.fleet, Servers: d.servers, Hosts: d.hosts,
		Doers: d.provision.doers(), Clock: clock.System{}, Log: d.log, Tick: engineTick, Beat: d.notify.Beat,
	})
	return err
}

// backendLost holds clients back when a server breaks a connection, until the
// engine has looked at it. A server that restarts after a crash shows at once
// the commits that waited for a standby, and it may be back before the next
// look. One that says farewell to a single session is not crashing.
func (d *Daemon) backendLost(n cluster.NodeID, err error) {
	var notice *wire.Notice
	if errors.As(err, &notice) && notice.Code == wire.CodeAdminShutdown {
		return
	}
	if r := d.reads.Load(); r != nil {
		r.monitor.Lost(n)
	}
	d.doubted(n, fmt.Sprintf("a connection to %s broke: it is looked at", n))
}

func (d *Daemon) buildDataPlane(c *config.Config, given *given) error {
	d.verifiers = newVerifiers(d.primary, func(ctx context.Context, n cluster.Node) (*pgx.Conn, error) {
		c := d.config()
		return dialNode(ctx, c, n, c.Recovery.Credential, c.HealthCheck.Database, "pgtandem verifiers")
	})
	d.later(d.verifiers.Close)
	d.buildConsole()
	o := session.Options{
		Limits: limitsOf(c), Loops: c.Proxy.Loops, Verifiers: d.verifiers, Gate: d.gate, Console: door{d.console}, Log: d.log,
		BackendFailed: func(n cluster.NodeID, _ error) { d.suspected(n) },
		BackendLost:   d.backendLost, Elsewhere: d.fleet.cancel,
		Newest: d.newest(),
		Outcomes: &outcomes{gate: d.gate, record: d.recorded,
			dial: func(ctx context.Context, n cluster.Node) (*pgx.Conn, error) {
				c := d.config()
				return dialNode(ctx, c, n, c.Recovery.Credential, c.HealthCheck.Database, "pgtandem outcomes")
			}},
	}
	mock, err := mockSecret(c.State.Directory)
	if err != nil {
		return err
	}
	if d.secured, err = readSecurity(c.Proxy, mock); err != nil {
		return err
	}
	o.Security = d.secured.Security
	if d.listeners, err = listen(c.Proxy, given); err != nil {
		return err
	}
	o.Listeners = asListeners(d.listeners)
	d.later(func() { closeAll(d.listeners) })
	if d.sessions, err = session.New(o); err != nil {
		return err
	}
	d.applyReads(c)
	return nil
}

// primary is the node that verifiers are read from: where the gate leads, else
// the recorded one, so that logins can be prepared while clients are held.
func (d *Daemon) primary() (cluster.Node, bool) {
	in := d.engine.Input()
	n, ok := in.Policy.Node(in.Record.Primary)
	return n, ok && in.Snapshot.Node(n.ID).Up()
}

func (d *Daemon) buildDrills() {
	ctx, cancel := context.WithCancel(context.Background())
	d.later(cancel)
	d.drills = &drills{
		world:  &drillWorld{config: d.config, engine: d.engine, gate: d.fleet, hosts: d.hosts},
		config: d.config, put: d.store.PutOperation, event: d.event, changed: d.bell.ring, now: d.now, log: d.log, ctx: ctx, cancel: cancel,
	}
}

// event writes an event of the daemon's own to the durable log and to ours.
func (d *Daemon) event(e cluster.Event) {
	e.At = d.now()
	e.Term = d.engine.Input().Record.Term
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := d.store.AppendEvents(ctx, e); err != nil {
		d.log.Error("write the event log", "error", err)
	}
	d.log.Log(ctx, levelFor(string(e.Level)), e.Text, "kind", e.Kind, "node", e.Node, "op", e.Op, "by", e.By)
	d.bell.ring()
}

// said logs an error that nothing can be done about.
func (d *Daemon) said(what string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		d.log.Error(what, "error", err)
	}
}

// part is something that runs until its context ends.
type part struct {
	name string
	run  func(ctx context.Context) error
	end  context.CancelFunc
	over chan struct{}
}

// start runs a part in a goroutine of its own. Its end before its time is
// sent to failed.
func start(name string, run func(context.Context) error, failed chan<- error) *part {
	ctx, cancel := context.WithCancel(context.Background())
	p := &part{name: name, run: run, end: cancel, over: make(chan struct{})}
	go func() {
		defer close(p.over)
		err := run(ctx)
		if ctx.Err() != nil && (err == nil || errors.Is(err, ctx.Err())) {
			return
		}
		if err == nil {
			err = errors.New("it ended by itself")
		}
		select {
		case failed <- fmt.Errorf("%s: %w", name, err):
		default:
		}
	}()
	return p
}

// stop ends a part and waits for it.
func (p *part) stop() {
	p.end()
	<-p.over
}

func quietly(f func(context.Context)) func(context.Context) error {
	return func(ctx context.Context) error { f(ctx); return nil }
}

// run starts the parts in order and stops them in the reverse one: clients are
// let go while the engine still guards the servers they are on, or another one
// does.
func (d *Daemon) run(ctx context.Context) error {
	failed := make(chan error, 8)
	var parts parts
	defer parts.stop()
	parts.add(start("the observer", quietly(d.observer.Run), failed).stop)
	d.adopt(ctx)
	d.event(cluster.Event{Level: cluster.Info, Kind: "daemon.started", Text: "proxyd " + d.opt.Version + " started; " + d.store.Fencing().Text})
	parts.add(start("the engine", d.engine.Run, failed).stop)
	d.serveControl(&parts, failed)
	for name, f := range map[string]func(context.Context){"the bell": d.watch, "the look for drift": d.watchDrift, "reloads": d.reloads,
		"reads on standbys": d.watchReads, "the console's averages": d.console.Run} {
		parts.add(start(name, quietly(f), failed).stop)
	}
	if d.scrapes != nil {
		parts.add(start("the listener for metrics", d.serveMetrics, failed).stop)
	}
	clients := start("the data plane", d.sessions.Serve, failed)
	defer clients.stop()
	d.tookOver(ctx)
	next, err := d.untilTheEnd(ctx, failed)
	if next != nil {
		parts.stop()
		return d.handOver(ctx, next, clients)
	}
	d.notify.Stopping()
	d.goodbye(clients)
	return err
}

// parts are ended in the reverse order, once.
type parts struct{ ends []func() }

func (p *parts) add(end func()) { p.ends = append(p.ends, end) }

func (p *parts) stop() {
	for i := len(p.ends) - 1; i >= 0; i-- {
		p.ends[i]()
	}
	p.ends = nil
}

// serveControl starts the control socket.
func (d *Daemon) serveControl(p *parts, failed chan<- error) {
	served := start("the control socket", func(context.Context) error { return d.control.Serve(d.socket) }, failed)
	p.add(func() {
		bounded, cancel := context.WithTimeout(context.Background(), controlLimit)
		defer cancel()
		served.end()
		d.said("end the control socket", d.control.Shutdown(bounded))
		<-served.over
	})
}

// goodbye lets open transactions end, then the drill in progress.
func (d *Daemon) goodbye(clients *part) {
	drain, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	over := make(chan struct{})
	go func() {
		defer close(over)
		bounded, cancel := context.WithTimeout(context.Background(), drillLimit)
		defer cancel()
		d.drills.stop(bounded)
	}()
	clients.end = func() {} // it ends by Shutdown, which lets transactions finish
	if err := d.sessions.Shutdown(drain); err != nil {
		d.log.Warn("transactions were cut off at the end", "error", err)
	}
	<-over
	d.event(cluster.Event{Level: cluster.Info, Kind: "daemon.stopped", Text: "proxyd stopped"})
}

// watch rings the bell at every change and tells the service manager.
func (d *Daemon) watch(ctx context.Context) {
	changed, stop := d.engine.Watch()
	defer stop()
	t := time.NewTicker(stateTick)
	defer t.Stop()
	for {
		st, err := backend{d}.State(ctx)
		if err == nil {
			d.notify.State(st)
		}
		gate := d.gate.Changed()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-gate:
		case <-t.C:
		}
		d.bell.ring()
	}
}

// reloads answers SIGHUP.
func (d *Daemon) reloads(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.opt.Reload:
			if _, err := d.reload("SIGHUP"); err != nil {
				d.log.Error("the configuration was not reloaded, nothing was changed", "error", err)
			}
		}
	}
}
