package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/chaos/workload"
	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/control"
	"github.com/pgtandem/pgtandem/engine/lab/fault"
)

// workshop makes clusters, one at a time, and remakes one that is not whole.
type workshop struct {
	o       options
	scratch string // made by us, and therefore removed by us
	made    int
	plain   bool // this machine makes no network namespaces
	now     *cluster
}

func newWorkshop(o options) (*workshop, error) {
	dir, err := os.MkdirTemp("", "pgtchaos")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the labs: %w", err)
	}
	// As root the servers run as postgres, who must get at it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open the labs' directory to their servers: %w", err)
	}
	// The console's "only running lab" stays the user's own.
	if err := os.Setenv("PGTANDEM_LABS", filepath.Join(dir, "labs")); err != nil {
		return nil, fmt.Errorf("keep the labs' list apart: %w", err)
	}
	return &workshop{o: o, scratch: dir}, nil
}

// cluster is a lab with what reaches it.
type cluster struct {
	*lab.Lab
	build  build
	daemon *control.Client
	faults *fault.Faults
}

// build is how a cluster is built. Damped, the engine grows careful as the
// runs on one cluster make it fail over again and again.
type build struct {
	pool, swap string
	damped     bool
}

// builds change with the seed, so that the seed alone repeats a run; each holds
// for a while, because a cluster takes as long to make as a run.
var builds = []build{{"transaction", "alter_system", false}, {"session", "files", false}, {"transaction", "files", true}, {"session", "alter_system", false}}

const runsOfABuild = 16

// readsOf says whether a run's reads go to standbys: every other one's where a
// client changes servers at all.
func readsOf(b build, seed uint64) bool { return b.pool == "transaction" && seed%2 == 1 }

// lagLimit is how old what the readers are shown may be.
const lagLimit = 5 * time.Second

func buildOf(seed uint64) build { return builds[seed/runsOfABuild%uint64(len(builds))] }

// cluster gives the one that there is, or a new one where there is none or it
// was built in another way than the seed wants.
func (w *workshop) cluster(ctx context.Context, seed uint64) (*cluster, error) {
	want := buildOf(seed)
	if w.now != nil && w.now.build == want {
		return w.now, nil
	}
	if w.now != nil {
		w.retire(w.now)
	}
	c, err := w.build(ctx, want)
	if err != nil {
		return nil, err
	}
	w.now = c
	return c, nil
}

// build makes a cluster whose network can be made as bad as this machine
// allows: between namespaces as root, through a relay otherwise.
func (w *workshop) build(ctx context.Context, want build) (*cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if os.Geteuid() == 0 && !w.plain {
		c, err := w.up(ctx, want, lab.NamespaceRelayedNetwork)
		if err == nil || ctx.Err() != nil {
			return c, err
		}
		fmt.Fprintln(os.Stderr, "chaos: no network of namespaces, so no packets are lost and no disk is full:", err)
		w.plain = true
	}
	return w.up(ctx, want, lab.RelayedNetwork)
}

func (w *workshop) up(ctx context.Context, want build, network lab.Network) (*cluster, error) {
	w.made++
	opt := lab.Options{
		Dir: filepath.Join(w.scratch, fmt.Sprintf("%d", w.made)), Nodes: w.o.nodes, Proxyd: w.o.proxyd, AnyPorts: true,
		PoolMode: want.pool, SwapMethod: want.swap, NoDamping: !want.damped,
		Network: network, SmallDisks: network == lab.NamespaceRelayedNetwork,
	}
	broken := func(err error) error {
		err = fmt.Errorf("make a lab: %w", err)
		if l, e := lab.Open(opt.Dir); e == nil {
			bounded, cancel := within(time.Minute)
			defer cancel()
			err = errors.Join(err, l.Destroy(bounded))
		}
		return err
	}
	l, err := lab.Up(ctx, opt)
	if err != nil {
		return nil, broken(err)
	}
	c := &cluster{Lab: l, build: want, daemon: control.New(l.Socket()), faults: fault.New(l, w.o.proxyd)}
	if _, err := c.daemon.Whole(ctx); err != nil {
		return nil, broken(err)
	}
	return c, nil
}

// retire ends a cluster: the next run gets a new one.
func (w *workshop) retire(c *cluster) {
	if err := c.end(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos: end a lab:", err)
	}
	w.now = nil
}

func (w *workshop) close() (err error) {
	if w.now != nil {
		err = w.now.end()
		w.now = nil
	}
	return errors.Join(err, os.RemoveAll(w.scratch))
}

// end heals a lab before it is taken down, so that nothing of it stays frozen.
func (c *cluster) end() error {
	ctx, cancel := within(2 * time.Minute)
	defer cancel()
	bounded, done := context.WithTimeout(ctx, 20*time.Second)
	_ = c.faults.Heal(bounded) // as far as it goes: the lab is given up
	done()
	c.faults.Close()
	c.daemon.Close()
	return c.Destroy(ctx)
}

// proxy is where clients connect, and nodes where one can go past it.
func (c *cluster) proxy() (proxy workload.Target, nodes []workload.Target) {
	s := c.Status()
	target := func(host string, port int) workload.Target {
		return workload.Target{Host: host, Port: port, Database: s.Database, User: s.User, Password: s.Password}
	}
	for _, n := range s.Nodes {
		nodes = append(nodes, target(n.Host, n.Port))
	}
	return target(s.Proxy.Host, s.Proxy.Port), nodes
}

// prepare makes the workloads' tables through the proxy, and waits until every
// node has them.
func (c *cluster) prepare(ctx context.Context, reads bool) error {
	proxy, _ := c.proxy()
	cfg, err := proxy.Config()
	if err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("connect through the proxy: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }() // it has served
	if err := workload.Prepare(ctx, conn); err != nil || !reads {
		return err
	}
	return c.landed(ctx, conn)
}

// landed waits until a read lands on a standby: the catalog has been read anew by
// then, and the tables been replayed.
func (c *cluster) landed(ctx context.Context, conn *pgx.Conn) error {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		s, err := c.daemon.State(ctx)
		if err != nil {
			return err
		}
		port, err := workload.Landing(ctx, conn)
		if err != nil {
			return err
		}
		for _, n := range c.Status().Nodes {
			if n.Port == port && slices.Contains(s.Standbys(), n.Name) {
				return nil
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until a read lands on a standby: %w", ctx.Err())
		}
	}
}

// balance lets reads go to standbys, or not.
func (c *cluster) balance(ctx context.Context, on bool) error {
	text, err := os.ReadFile(c.Config())
	if err != nil {
		return fmt.Errorf("configure reads: %w", err)
	}
	reads := fmt.Sprintf("[reads]\nbalance = true\nlag_limit = %q\n\n", lagLimit)
	plain := strings.Replace(string(text), reads, "", 1)
	if on {
		plain = strings.Replace(plain, "[[node]]", reads+"[[node]]", 1)
	}
	if plain == string(text) {
		return nil
	}
	if err := os.WriteFile(c.Config(), []byte(plain), 0o644); err != nil {
		return fmt.Errorf("configure reads: %w", err)
	}
	return c.daemon.Reload(ctx)
}

// content reads the tables of a node; upTo waits before until it has replayed
// that much, where it is a standby.
func (c *cluster) content(ctx context.Context, node, upTo string) (content workload.Content, end string, err error) {
	conn, err := c.Connect(ctx, node, lab.Database)
	if err != nil {
		return content, "", fmt.Errorf("connect to %s: %w", node, err)
	}
	defer func() { _ = conn.Close(ctx) }() // it has served
	if upTo != "" {
		if err := replayed(ctx, conn, upTo); err != nil {
			return content, "", fmt.Errorf("wait for %s: %w", node, err)
		}
	}
	if content, err = workload.Read(ctx, conn); err != nil {
		return content, "", fmt.Errorf("on %s: %w", node, err)
	}
	if upTo != "" {
		return content, upTo, nil
	}
	err = conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&end)
	return content, end, err
}

func replayed(ctx context.Context, conn *pgx.Conn, upTo string) error {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		var now string
		var there bool
		err := conn.QueryRow(ctx, "SELECT coalesce(pg_last_wal_replay_lsn(), '0/0')::text, coalesce(pg_last_wal_replay_lsn() >= $1::pg_lsn, false)", upTo).Scan(&now, &there)
		if err != nil {
			return fmt.Errorf("ask how far it has replayed: %w", err)
		}
		if there {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("it has replayed %s and not %s: %w", now, upTo, ctx.Err())
		}
	}
}
