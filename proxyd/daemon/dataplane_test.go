package daemon

import (
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/session"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// TestClientsGetTheServersProtocol: as by connecting to any of them.
func TestClientsGetTheServersProtocol(t *testing.T) {
	for _, c := range []struct {
		story    string
		versions []int
		want     uint32
	}{
		{"nothing is known", []int{0, 0}, 0},
		{"PostgreSQL 15", []int{150018, 150018}, wire.Version30},
		{"the primary is known alone", []int{150018, 0}, wire.Version30},
		{"PostgreSQL 18", []int{180000, 180001}, wire.Version32},
		{"in the middle of an upgrade", []int{180000, 170004}, wire.Version30},
	} {
		var s cluster.Snapshot
		for _, v := range c.versions {
			s.Nodes = append(s.Nodes, cluster.NodeFacts{ServerVersion: v})
		}
		if got := newestProtocol(s); got != c.want {
			t.Errorf("%s: %x, want %x", c.story, got, c.want)
		}
	}
}

// TestThePoolsOfTheConfiguration: every key of [proxy] and [[pool]] reaches the
// data plane, and a reload changes it there.
func TestThePoolsOfTheConfiguration(t *testing.T) {
	c, err := config.Parse("pools.toml", []byte(`
[proxy]
max_servers = 70
max_servers_per_database = 30
max_servers_per_user = 40
max_clients_per_database = 300
max_clients_per_user = 400
min_pool_size = 1
idle_session_timeout = "1h"

[[pool]]
database = "reports"
pool_mode = "session"
pool_size = 5
max_servers = 8
max_clients = 9
min_pool_size = 2
reserve_pool_size = 3
reserve_pool_delay = "4s"
server_idle_timeout = "5s"
server_lifetime = "6s"
wait_timeout = "7s"
statement_timeout = "8s"
transaction_timeout = "9s"
idle_in_transaction_session_timeout = "10s"
idle_session_timeout = "11s"

[[pool]]
user = "batch"
statement_timeout = "2h"

[[node]]
name = "pgsql1"
host = "10.0.0.1"
data_directory = "/data"

[[node]]
name = "pgsql2"
host = "10.0.0.2"
data_directory = "/data"
`))
	if err != nil {
		t.Fatal(err)
	}
	l := limitsOf(c)
	usual := session.Terms{Mode: session.ModeTransaction, PoolSize: 20, MinPoolSize: 1, ReserveDelay: 5 * time.Second,
		IdleTimeout: 10 * time.Minute, Lifetime: time.Hour, WaitTimeout: 2 * time.Minute, IdleSessionTimeout: time.Hour}
	reports := session.Terms{Mode: session.ModeSession, PoolSize: 5, MinPoolSize: 2, ReserveSize: 3, ReserveDelay: 4 * time.Second,
		IdleTimeout: 5 * time.Second, Lifetime: 6 * time.Second, WaitTimeout: 7 * time.Second, StatementTimeout: 8 * time.Second,
		TransactionTimeout: 9 * time.Second, IdleInTransactionTimeout: 10 * time.Second, IdleSessionTimeout: 11 * time.Second}
	batch := usual
	batch.StatementTimeout = 2 * time.Hour
	for _, x := range []struct {
		group pool.Group
		want  session.Terms
	}{
		{pool.Group{Database: "app", User: "web"}, usual},
		{pool.Group{Database: "reports", User: "web"}, reports},
		{pool.Group{Database: "app", User: "batch"}, batch},
	} {
		if got := l.For(x.group); got != x.want {
			t.Errorf("%v:\n%+v, want\n%+v", x.group, got, x.want)
		}
	}
	together := func(servers, clients int) [2]int { return [2]int{servers, clients} }
	for _, x := range []struct {
		what      string
		got, want [2]int
	}{
		{"a database", together(l.OfDatabase("app")), [2]int{30, 300}},
		{"a database by name", together(l.OfDatabase("reports")), [2]int{8, 9}},
		{"a user", together(l.OfUser("web")), [2]int{40, 400}},
		{"a user of whom something else is said", together(l.OfUser("batch")), [2]int{40, 400}},
	} {
		if x.got != x.want {
			t.Errorf("%s: %v, want %v", x.what, x.got, x.want)
		}
	}
	if l.MaxServers != 70 {
		t.Errorf("%d in all", l.MaxServers)
	}
}
