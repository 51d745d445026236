package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine/assemble"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/proxyd/route/catalog"
	"github.com/pgtandem/pgtandem/proxyd/route/choose"
	"github.com/pgtandem/pgtandem/proxyd/route/classify"
	"github.com/pgtandem/pgtandem/proxyd/session"
)

const (
	// readsTick is how often it is seen whether the standbys are still fit to be
	// read from, beside each look at one and each change.
	readsTick = 250 * time.Millisecond
	// mostCatalogs is for how many databases the catalog is kept.
	mostCatalogs = 200
)

// reads is what the sessions must know to read from standbys, from when that was
// switched on until it is switched off.
type reads struct {
	monitor *choose.Monitor
	primary func() (cluster.Node, bool)
	dial    func(ctx context.Context, n cluster.Node, database string) (*pgx.Conn, error)
	log     *slog.Logger
	cache   int
	nodes   atomic.Pointer[map[cluster.NodeID]cluster.Node]

	ctx  context.Context // of the keepers
	end  context.CancelFunc
	wait sync.WaitGroup

	mu        sync.Mutex
	period    time.Duration
	databases map[string]*judge
	left      map[cluster.NodeID]bool // those that nothing reads from any more
}

var _ session.Reads = (*reads)(nil)

// judge is one database.
type judge struct {
	classifier *classify.Classifier
	keeper     *catalog.Keeper // nil where there are too many
}

// newReads begins to keep what c wants to be kept.
func (d *Daemon) newReads(c *config.Config) *reads {
	ctx, end := context.WithCancel(context.Background())
	r := &reads{
		monitor: d.monitor, primary: d.primary, log: d.log, cache: c.Reads.CacheBytes, ctx: ctx, end: end,
		databases: make(map[string]*judge), left: make(map[cluster.NodeID]bool),
		dial: func(ctx context.Context, n cluster.Node, database string) (*pgx.Conn, error) {
			c := d.config()
			return dialNode(ctx, c, n, c.Recovery.Credential, database, "pgtandem catalog")
		},
	}
	r.configure(c)
	for n := range *r.nodes.Load() { // what was seen before is too old
		r.monitor.Lost(n)
	}
	return r
}

// configure puts weights, limits and periods in force.
func (r *reads) configure(c *config.Config) {
	nodes := make(map[cluster.NodeID]cluster.Node)
	for _, n := range assemble.Nodes(c) {
		nodes[n.ID] = n
	}
	r.nodes.Store(&nodes)
	r.monitor.Configure(each(c.Nodes, func(n config.Node) choose.Node {
		return choose.Node{Name: cluster.NodeID(n.Name), Weight: n.Weight, Reads: n.AllowReads}
	}), choose.Limits{Bytes: uint64(max(0, c.Reads.LagLimitBytes)), Age: c.Reads.LagLimit.Std()})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.period = c.Reads.CatalogPeriod.Std()
	for _, j := range r.databases {
		if j.keeper != nil {
			j.keeper.SetPeriod(r.period)
		}
	}
}

// close ends what reads the catalogs, and returns when it has ended.
func (r *reads) close() {
	r.end()
	r.wait.Wait()
}

// Monitor implements session.Reads.
func (r *reads) Monitor() *choose.Monitor { return r.monitor }

// Node implements session.Reads.
func (r *reads) Node(id cluster.NodeID) (cluster.Node, bool) {
	n, ok := (*r.nodes.Load())[id]
	return n, ok
}

// Classifier implements session.Reads. The catalog is kept from the first client
// of a database on.
func (r *reads) Classifier(database string) *classify.Classifier {
	r.mu.Lock()
	defer r.mu.Unlock()
	if j := r.databases[database]; j != nil {
		return j.classifier
	}
	j := &judge{classifier: classify.New(r.cache)}
	r.databases[database] = j
	if len(r.databases) > mostCatalogs || r.ctx.Err() != nil {
		j.classifier.Use(catalog.Unready(fmt.Sprintf("runs in one of more than %d databases, whose catalogs are not kept", mostCatalogs)))
		return j.classifier
	}
	j.keeper = catalog.NewKeeper(catalog.Options{
		Connect: func(ctx context.Context) (catalog.Session, error) { return r.connect(ctx, database) },
		Use:     func(s *catalog.Snapshot) { j.classifier.Use(s) }, Period: r.period, Log: r.log.With("database", database),
	})
	r.wait.Go(func() { j.keeper.Run(r.ctx) })
	return j.classifier
}

// SchemaChanged implements session.Reads.
func (r *reads) SchemaChanged(database string) {
	r.mu.Lock()
	j := r.databases[database]
	r.mu.Unlock()
	if j != nil && j.keeper != nil {
		j.keeper.SchemaChanged()
	}
}

// connect opens a connection to the primary, to read a catalog.
func (r *reads) connect(ctx context.Context, database string) (catalog.Session, error) {
	n, ok := r.primary()
	if !ok {
		return nil, errors.New("there is no primary now")
	}
	conn, err := r.dial(ctx, n, database)
	if err != nil {
		return nil, err
	}
	return reader{conn}, nil
}

// reader is a connection as package catalog knows it.
type reader struct{ conn *pgx.Conn }

// Query implements catalog.Session.
func (r reader) Query(ctx context.Context, sql string, each func(row []string) error) error {
	rows, err := r.conn.Query(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return err
	}
	defer rows.Close()
	var row []string
	for rows.Next() {
		row = row[:0]
		for _, v := range rows.RawValues() {
			row = append(row, string(v))
		}
		if err := each(row); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Close implements catalog.Session.
func (r reader) Close() { hangUp(r.conn) }

// sound says whether a node is a standby of the recorded history, and so shows
// what the primary had shown, or will.
func sound(r cluster.Record, f cluster.NodeFacts) bool {
	m := r.Members[f.ID]
	return f.Role == cluster.RoleStandby && f.ID != r.Primary && !m.Fenced && !m.Astray && decide.InHistory(r, f)
}

// witness reports a look at a node, which is about to begin.
func (d *Daemon) witness(n cluster.NodeID) func(cluster.NodeFacts, error) {
	r := d.reads.Load()
	if r == nil {
		return func(cluster.NodeFacts, error) {}
	}
	tick, at := r.monitor.Begin(), d.now()
	return func(f cluster.NodeFacts, err error) {
		f.ID = n
		switch record := d.engine.Input().Record; {
		case err != nil:
			r.monitor.Lost(n)
		case n == record.Primary && f.Role == cluster.RolePrimary:
			r.monitor.Sampled(tick, at, n, f.Timeline, f.InsertLSN)
		case sound(record, f):
			r.monitor.Replayed(tick, n, f.Timeline, f.ReplayLSN)
		default:
			r.monitor.Lost(n)
		}
	}
}

// watchReads keeps what is recorded and seen of the nodes in force for reads,
// and ends what reads from one that is lost.
func (d *Daemon) watchReads(ctx context.Context) {
	changed, stop := d.engine.Watch()
	defer stop()
	tick := time.NewTicker(readsTick)
	defer tick.Stop()
	for {
		if r := d.reads.Load(); r != nil {
			for node, why := range r.look(d.engine.Input(), d.config().HealthCheck.Retries) {
				d.sessions.LeaveStandby(node, why)
				d.fleet.tell(opLeave, left{node, why})
			}
		}
		select {
		case <-ctx.Done():
			d.endReads()
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

// endReads keeps every read on the primary from now on: without looks at the
// nodes what is known of a standby grows old, and nobody would notice.
func (d *Daemon) endReads() {
	d.sessions.RouteReads(nil)
	if r := d.reads.Swap(nil); r != nil {
		r.close()
	}
}

// look tells the Monitor of the primary and of lost nodes. It gives the nodes
// that are to be read from no more, each once, and why. Without a record, which a
// proxyd that follows another reads while it looks at the nodes, none is judged:
// the other's clients are reading from them.
func (r *reads) look(in decide.Input, retries int) map[cluster.NodeID]string {
	if in.Record.Term == 0 {
		return nil
	}
	r.monitor.SetPrimary(in.Record.Primary)
	leave := make(map[cluster.NodeID]string)
	for _, f := range in.Snapshot.Nodes {
		why := ""
		switch {
		case f.ID == in.Record.Primary:
			why = "the node is the primary"
		case f.Up() && !sound(in.Record, f):
			why = "the node is no standby of the recorded history"
		case !f.Up() && f.Failures >= retries:
			why = "the standby does not answer"
		}
		if why != "" && !r.left[f.ID] {
			leave[f.ID] = why
			r.monitor.Lost(f.ID)
		}
		r.left[f.ID] = why != ""
	}
	return leave
}

// applyReads switches reads on standbys on or off, or tells them what has
// changed. A transaction that is open stays where it is.
func (d *Daemon) applyReads(c *config.Config) {
	now := d.reads.Load()
	switch on := c.Reads.Balance && c.Proxy.PoolMode == string(session.ModeTransaction); {
	case on && now == nil:
		r := d.newReads(c)
		d.reads.Store(r)
		d.sessions.RouteReads(r)
	case on:
		now.configure(c)
	case now != nil:
		d.sessions.RouteReads(nil)
		d.reads.Store(nil)
		now.close()
	}
}
