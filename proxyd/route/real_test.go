package route_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/labtest"
	"github.com/pgtandem/pgtandem/proxyd/route"
	"github.com/pgtandem/pgtandem/proxyd/route/choose"
)

const look = 10 * time.Millisecond

// poll looks at a real pair as the daemon's pollers do, until ctx ends.
func poll(ctx context.Context, m *choose.Monitor, primary, standby *pgx.Conn) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		var at string
		asked, when := m.Begin(), time.Now()
		if err := primary.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&at); err != nil {
			return err
		}
		insert, err := cluster.ParseLSN(at)
		if err != nil {
			return err
		}
		m.Sampled(asked, when, "pgsql1", 1, insert)
		asked = m.Begin()
		if err := standby.QueryRow(ctx, "SELECT pg_last_wal_replay_lsn()::text").Scan(&at); err != nil {
			return err
		}
		replay, err := cluster.ParseLSN(at)
		if err != nil {
			return err
		}
		m.Replayed(asked, "pgsql2", 1, replay)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// user is a client with a connection to each node, as the pool would give it.
type user struct {
	route.Client
	m      *choose.Monitor
	conns  map[cluster.NodeID]*pgx.Conn
	opened choose.Tick
	row    int
	wrote  int
	seen   map[string]int // reads by where they went and why
}

func newUser(m *choose.Monitor, pair *labtest.Lab, row int) *user {
	return &user{m: m, row: row, seen: map[string]int{}, conns: map[cluster.NodeID]*pgx.Conn{
		"pgsql1": pair.SQL("pgsql1", "postgres"), "pgsql2": pair.SQL("pgsql2", "postgres"),
	}, opened: m.Now()}
}

func (u *user) situation() route.Situation {
	return route.Situation{View: u.m.View(), Now: time.Now(), Random: rand.Uint64()}
}

func (u *user) write(ctx context.Context) error {
	d := u.Decide(write, u.situation())
	if _, err := u.conns[d.Node].Exec(ctx, "UPDATE counters SET n = n + 1 WHERE id = $1", u.row); err != nil {
		return err
	}
	u.wrote++
	u.Ended(u.m.Now())
	return nil
}

func (u *user) read(ctx context.Context) error {
	d := u.Decide(read, u.situation())
	if !d.Holds(u.opened) {
		d = u.Again("its connection is younger than the last look at it", []cluster.NodeID{d.Node}, u.situation())
	}
	var n int
	if err := u.conns[d.Node].QueryRow(ctx, "SELECT n FROM counters WHERE id = $1", u.row).Scan(&n); err != nil {
		return err
	}
	u.Ended(u.m.Now())
	u.seen[d.String()]++
	if n != u.wrote {
		return fmt.Errorf("%s: client %d reads %d and has written %d", d, u.row, n, u.wrote)
	}
	return nil
}

// TestARealPair lets clients write and read at once, and then with a standby
// whose replay stands still.
func TestARealPair(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	pair := labtest.Up(t, lab.Options{WithoutDaemon: true})
	primary, standby := pair.SQL("pgsql1", "postgres"), pair.SQL("pgsql2", "postgres")
	if _, err := primary.Exec(ctx, "CREATE TABLE counters AS SELECT id, 0 AS n FROM generate_series(0, 9) AS id"); err != nil {
		t.Fatal(err)
	}
	m := choose.NewMonitor()
	m.Configure([]choose.Node{{Name: "pgsql1", Reads: true}, {Name: "pgsql2", Weight: 1, Reads: true}}, choose.Limits{})
	m.SetPrimary("pgsql1")
	users := make([]*user, 4)
	for i := range users {
		users[i] = newUser(m, pair, i)
	}
	watching, stop := context.WithCancel(ctx)
	var poller sync.WaitGroup
	poller.Go(func() {
		if err := poll(watching, m, primary, standby); watching.Err() == nil {
			t.Errorf("look at the pair: %v", err)
		}
	})
	defer poller.Wait()
	defer stop()

	var all sync.WaitGroup
	for _, u := range users {
		all.Go(func() {
			for range 150 {
				if err := u.write(ctx); err != nil {
					t.Error(err)
					return
				}
				for range 20 {
					if err := u.read(ctx); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	all.Wait()
	reads, kept := 0, 0
	for _, u := range users {
		reads += u.seen["standby pgsql2: by weight"]
		kept += u.seen["primary pgsql1: no standby has replayed yet what the client wrote"]
	}
	t.Logf("%d reads on the standby, %d kept on the primary by their client's writes", reads, kept)
	if reads == 0 || kept == 0 {
		t.Error("the clients have not read in both places: this proves nothing")
	}

	writer, reader := users[0], users[1]
	until(ctx, t, "both are level", reader, "standby pgsql2: by weight")
	hand := pair.SQL("pgsql2", "postgres")
	if _, err := hand.Exec(ctx, "SELECT pg_wal_replay_pause()"); err != nil {
		t.Fatal(err)
	}
	if err := writer.write(ctx); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if err := writer.read(ctx); err != nil {
			t.Fatal(err)
		}
		if got := writer.Last().String(); got != "primary pgsql1: no standby has replayed yet what the client wrote" {
			t.Fatalf("who wrote is at %s", got)
		}
		if err := reader.read(ctx); err != nil {
			t.Fatal(err)
		}
		if got := reader.Last().String(); got != "standby pgsql2: by weight" {
			t.Fatalf("who has not written is at %s", got)
		}
	}
	if _, err := hand.Exec(ctx, "SELECT pg_wal_replay_resume()"); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, "the standby has replayed", writer, "standby pgsql2: by weight")
}

// until reads until that goes where it should.
func until(ctx context.Context, t *testing.T, what string, u *user, where string) {
	t.Helper()
	for {
		if err := u.read(ctx); err != nil {
			t.Fatalf("wait until %s: %v (last: %s)", what, err, u.Last())
		}
		if u.Last().String() == where {
			return
		}
	}
}
