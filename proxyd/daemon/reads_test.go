package daemon_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/labtest"
	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/client"
)

// balanced is a pair whose reads all go to the standby, where they may.
type balanced struct {
	*labtest.Lab
	t       *testing.T
	control *client.Client
	stream  *follower
	text    string // of the configuration, without what is said of reads
	ports   map[string]string
}

const onStandby = "[reads]\nbalance = true\nlag_limit = \"0s\"\n"

func balance(t *testing.T) *balanced {
	t.Helper()
	p := &balanced{Lab: labtest.Up(t, lab.Options{PoolMode: "transaction", NoDamping: true}), t: t}
	p.control = client.New(p.Socket())
	t.Cleanup(p.control.Close)
	p.stream = follow(p.control)
	p.stream.until(t, "in sync", protected("pgsql1"))
	text, err := os.ReadFile(p.Config())
	if err != nil {
		t.Fatal(err)
	}
	p.text = strings.Replace(string(text), "[[node]]", "[[node]]\nweight = 0", 1)
	p.ports = make(map[string]string)
	for _, n := range p.Status().Nodes {
		p.ports[n.Name] = fmt.Sprint(n.Port)
	}
	p.rewrite(onStandby)
	return p
}

// rewrite says something else of reads.
func (p *balanced) rewrite(reads string, more ...string) {
	p.t.Helper()
	text := strings.NewReplacer(more...).Replace(p.text)
	i := strings.Index(text, "[[node]]")
	if err := os.WriteFile(p.Config(), []byte(text[:i]+reads+"\n"+text[i:]), 0o644); err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.control.Reload(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

// connect is a client through the proxy, in one protocol or the other.
func (p *balanced) connect(mode pgx.QueryExecMode) *pgx.Conn {
	p.t.Helper()
	s := p.Status()
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=disable application_name=shop", s.Proxy.Host, s.Proxy.Port, s.User, s.Password, s.Database))
	if err != nil {
		p.t.Fatal(err)
	}
	cfg.DefaultQueryExecMode = mode
	c, err := pgx.ConnectConfig(p.t.Context(), cfg)
	if err != nil {
		p.t.Fatalf("connect through the proxy: %v", err)
	}
	p.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// where is a read that tells of its server.
const where = "SELECT current_setting('port')"

func (p *balanced) at(c interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}, sql string, args ...any) string {
	p.t.Helper()
	var port string
	if err := c.QueryRow(p.t.Context(), sql, args...).Scan(&port); err != nil {
		p.t.Errorf("%s: %v", sql, err)
	}
	for name, at := range p.ports {
		if at == port {
			return name
		}
	}
	return "port " + port
}

func (p *balanced) exec(c *pgx.Conn, sql string) {
	p.t.Helper()
	if _, err := c.Exec(p.t.Context(), sql); err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
}

// until waits until reads of a client land on a node.
func (p *balanced) until(c *pgx.Conn, node string) {
	p.t.Helper()
	limit := time.Now().Add(30 * time.Second)
	for p.at(c, where) != node {
		if time.Now().After(limit) {
			p.t.Fatalf("no read lands on %s: %+v", node, p.routes())
		}
		pause(p.t, 20*time.Millisecond)
	}
}

// begun begins a transaction that only reads, until it is on a node. One read
// there promises nothing of the next: the primary may show more meanwhile.
func (p *balanced) begun(c *pgx.Conn, access pgx.TxAccessMode, node string) pgx.Tx {
	p.t.Helper()
	for limit := time.Now().Add(30 * time.Second); ; pause(p.t, 20*time.Millisecond) {
		tx, err := c.BeginTx(p.t.Context(), pgx.TxOptions{AccessMode: access})
		if err != nil {
			p.t.Fatal(err)
		}
		if p.at(tx, "SELECT inet_server_port()::text") == node {
			return tx
		}
		if time.Now().After(limit) {
			p.t.Fatalf("no transaction that only reads is on %s: %+v", node, p.routes())
		}
		_ = tx.Rollback(p.t.Context())
	}
}

func pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// routes are the clients' latest decisions.
func (p *balanced) routes() []string {
	p.t.Helper()
	clients, err := p.control.Clients(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	out := make([]string, 0, len(clients))
	for _, c := range clients {
		out = append(out, c.Route)
	}
	return out
}

// TestReadsOnARealPair is what an application sees whose reads go to the standby.
func TestReadsOnARealPair(t *testing.T) {
	p := balance(t)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
		t.Run(strings.ReplaceAll(mode.String(), " ", "_"), func(t *testing.T) { p.landing(t, mode) })
	}
	t.Run("what only a primary can do", p.primaryOnly)
	t.Run("own writes while replay stands still", p.ownWrites)
	t.Run("lag", p.lag)
	t.Run("weights and opt-out", p.weights)
	t.Run("off and on again", p.offAndOn)
	t.Run("the standby dies", p.standbyDies)
}

// landing says where what goes, and that the reason is told.
func (p *balanced) landing(t *testing.T, mode pgx.QueryExecMode) {
	p.t = t
	c := p.connect(mode)
	p.exec(c, "CREATE TABLE IF NOT EXISTS goods (id int PRIMARY KEY, name text)")
	p.exec(c, "INSERT INTO goods VALUES (1, 'tea') ON CONFLICT DO NOTHING")
	p.until(c, "pgsql2")
	if why := p.routes(); len(why) == 0 || !strings.Contains(strings.Join(why, "\n"), "standby pgsql2: by weight") {
		t.Errorf("the reason is not told: %q", why)
	}
	var name string
	for range 5 { // the same statement again, as a prepared one is used
		if err := c.QueryRow(t.Context(), "SELECT name FROM goods WHERE id = $1", 1).Scan(&name); err != nil || name != "tea" {
			t.Fatalf("read a row: %q, %v", name, err)
		}
	}
	for _, x := range []struct{ sql, node, why string }{
		{"SELECT current_setting('port') FROM goods WHERE id = 1", "pgsql2", "by weight"},
		{"SELECT current_setting('port') FROM goods WHERE id = 1 FOR UPDATE", "pgsql1", "FOR UPDATE"},
		{"UPDATE goods SET name = name WHERE id = 1 RETURNING current_setting('port')", "pgsql1", "UPDATE"},
		{"WITH gone AS (DELETE FROM goods WHERE id = 9 RETURNING id) SELECT current_setting('port') FROM (SELECT count(*) FROM gone) AS x", "pgsql1", ""},
		{"SELECT inet_server_port()::text", "pgsql1", "inet_server_port"},
		{"SELECT current_setting('port') WHERE random() < 2", "pgsql1", "random, which is volatile"},
		{"SELECT unheard_of(1)", "", ""},
	} {
		if x.node == "" {
			if _, err := c.Exec(t.Context(), x.sql); err == nil {
				t.Errorf("%s: no error", x.sql)
			}
			continue
		}
		p.until(c, "pgsql2") // its own writes have been replayed
		if got := p.at(c, x.sql); got != x.node {
			t.Errorf("%s: on %s", x.sql, got)
		}
		if why := strings.Join(p.routes(), "\n"); !strings.Contains(why, x.node+": ") || !strings.Contains(why, x.why) {
			t.Errorf("%s: the reason is %q, which does not tell of %q", x.sql, why, x.why)
		}
	}
	p.transactions(t, c)
	_ = c.Close(t.Context())
}

// transactions go whole to where their BEGIN went, and settings with them.
func (p *balanced) transactions(t *testing.T, c *pgx.Conn) {
	p.until(c, "pgsql2")
	tx := p.begun(c, pgx.ReadOnly, "pgsql2")
	if _, err := tx.Exec(t.Context(), "INSERT INTO goods VALUES (7)"); err == nil || !strings.Contains(err.Error(), "25006") {
		t.Errorf("a write in it: %v", err)
	}
	_ = tx.Rollback(t.Context())
	tx, err := c.BeginTx(t.Context(), pgx.TxOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.at(tx, where); got != "pgsql1" {
		t.Errorf("a plain BEGIN went to %s", got)
	}
	_ = tx.Commit(t.Context())
	p.exec(c, "SET search_path = 'pg_catalog', 'public'")
	p.until(c, "pgsql2")
	p.exec(c, "SET default_transaction_read_only = on")
	tx = p.begun(c, "", "pgsql2")
	var path string
	if err := tx.QueryRow(t.Context(), "SELECT current_setting('search_path')").Scan(&path); err != nil || !strings.Contains(path, "pg_catalog") {
		t.Errorf("the session's setting did not follow it: %q, %v", path, err)
	}
	_ = tx.Commit(t.Context())
	p.exec(c, "RESET default_transaction_read_only")
	p.exec(c, "SET default_transaction_isolation = 'serializable'")
	if got := p.at(c, where); got != "pgsql1" {
		t.Errorf("SERIALIZABLE by default, and yet on %s", got)
	}
	p.exec(c, "RESET ALL")
}

// primaryOnly: what a client holds, and a function that lies about itself.
func (p *balanced) primaryOnly(t *testing.T) {
	p.t = t
	c := p.connect(pgx.QueryExecModeExec)
	p.exec(c, "CREATE TABLE IF NOT EXISTS seen (n int)")
	p.exec(c, `CREATE OR REPLACE FUNCTION lies() RETURNS text LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM nextval('truth'); RETURN current_setting('port'); END $$`)
	p.exec(c, "CREATE SEQUENCE IF NOT EXISTS truth")
	p.until(c, "pgsql2")
	if got := p.at(c, "SELECT lies()"); got != "pgsql1" {
		t.Errorf("a function that writes and says that it does not ran on %s", got)
	}
	if why := strings.Join(p.routes(), "\n"); !strings.Contains(why, "the standby refused it") {
		t.Errorf("the reason is %q", why)
	}
	p.exec(c, "CREATE TEMPORARY TABLE goods_of_mine (n int)")
	if got := p.at(c, where); got != "pgsql1" {
		t.Errorf("with a temporary table it reads on %s", got)
	}
	_ = c.Close(t.Context())
}

// ownWrites: many clients write and read at once, and for a while replay is
// paused. Nobody misses its own row.
func (p *balanced) ownWrites(t *testing.T) {
	p.t = t
	first := p.connect(pgx.QueryExecModeExec)
	p.exec(first, "CREATE TABLE own (client int, n int)")
	p.until(first, "pgsql2")
	standby := p.SQL("pgsql2", "postgres")
	var all sync.WaitGroup
	for client := range 8 {
		mode := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement}[client%3]
		c := p.connect(mode)
		all.Go(func() {
			for n := range 60 {
				if _, err := c.Exec(t.Context(), "INSERT INTO own VALUES ($1, $2)", client, n); err != nil {
					t.Errorf("client %d writes: %v", client, err)
					return
				}
				for range 4 {
					var count int
					if err := c.QueryRow(t.Context(), "SELECT count(*) FROM own WHERE client = $1", client).Scan(&count); err != nil || count != n+1 {
						t.Errorf("client %d reads %d rows of %d that it wrote: %v", client, count, n+1, err)
						return
					}
				}
			}
		})
	}
	for range 3 {
		for _, sql := range []string{"SELECT pg_wal_replay_pause()", "SELECT pg_wal_replay_resume()"} {
			if _, err := standby.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
			pause(t, 300*time.Millisecond)
		}
	}
	all.Wait()
	_ = first.Close(t.Context())
}

// lag: a standby that shows what is older than the limit is not read from.
func (p *balanced) lag(t *testing.T) {
	p.t = t
	c, standby := p.connect(pgx.QueryExecModeExec), p.SQL("pgsql2", "postgres")
	writer := p.connect(pgx.QueryExecModeExec)
	p.exec(writer, "CREATE TABLE IF NOT EXISTS own (client int, n int)")
	for _, limit := range []string{"lag_limit = \"0s\"\nlag_limit_bytes = 1", "lag_limit = \"3s\""} {
		p.rewrite("[reads]\nbalance = true\n" + limit)
		p.until(c, "pgsql2")
		if _, err := standby.Exec(t.Context(), "SELECT pg_wal_replay_pause()"); err != nil {
			t.Fatal(err)
		}
		p.exec(writer, "INSERT INTO own VALUES (99, 0)")
		p.until(c, "pgsql1")
		if why := strings.Join(p.routes(), "\n"); !strings.Contains(why, "no standby is within the limits of lag") {
			t.Errorf("the reason is %q", why)
		}
		if _, err := standby.Exec(t.Context(), "SELECT pg_wal_replay_resume()"); err != nil {
			t.Fatal(err)
		}
		p.until(c, "pgsql2")
	}
	p.rewrite(onStandby)
	for _, c := range []*pgx.Conn{c, writer} {
		_ = c.Close(t.Context())
	}
}

// weights: of two nodes with one weight each has its part; a node may opt out.
func (p *balanced) weights(t *testing.T) {
	p.t = t
	c := p.connect(pgx.QueryExecModeExec)
	p.rewrite(onStandby, "[[node]]\nweight = 0", "[[node]]\nweight = 1")
	p.until(c, "pgsql2")
	counts := map[string]int{}
	for range 200 {
		counts[p.at(c, where)]++
	}
	if counts["pgsql1"] < 60 || counts["pgsql2"] < 60 {
		t.Errorf("equal weights gave %v", counts)
	}
	p.rewrite(onStandby, "[[node]]\nname = \"pgsql2\"", "[[node]]\nallow_reads = false\nname = \"pgsql2\"", "[[node]]\nweight = 0", "[[node]]\nweight = 1")
	if got := p.at(c, where); got != "pgsql1" {
		t.Errorf("the standby has opted out, and yet %s is read from", got)
	}
	p.rewrite(onStandby)
	_ = c.Close(t.Context())
}

// offAndOn: a reload switches reads on standbys, under clients that are there.
func (p *balanced) offAndOn(t *testing.T) {
	p.t = t
	c := p.connect(pgx.QueryExecModeCacheStatement)
	p.until(c, "pgsql2")
	p.rewrite("")
	if got := p.at(c, where); got != "pgsql1" {
		t.Errorf("switched off, and yet on %s", got)
	}
	if why := strings.Join(p.routes(), ""); why != "" {
		t.Errorf("switched off, and yet %q", why)
	}
	p.rewrite(onStandby)
	p.until(c, "pgsql2")
	_ = c.Close(t.Context())
}

// standbyDies: readers on it do not notice, but for those in a transaction.
func (p *balanced) standbyDies(t *testing.T) {
	p.t = t
	idle := p.connect(pgx.QueryExecModeExec)
	p.until(idle, "pgsql2")
	tx := p.begun(idle, pgx.ReadOnly, "pgsql2")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	reads := make([]int, 6)
	for i := range reads {
		c := p.connect([]pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement}[i%3])
		all.Go(func() {
			for ; ctx.Err() == nil; reads[i]++ {
				var name string
				if err := c.QueryRow(t.Context(), "SELECT name FROM goods, pg_sleep(0.002) WHERE id = $1", 1).Scan(&name); err != nil || name != "tea" {
					t.Errorf("reader %d, read %d: %q, %v", i, reads[i], name, err)
					return
				}
			}
		})
	}
	pause(t, 500*time.Millisecond)
	p.StopNode("pgsql2", "immediate")
	p.stream.until(t, "the standby is missed", func(s api.State, _ []api.Event) bool { return s.Mode == "async" && s.GateState == "open" })
	if _, err := tx.Exec(t.Context(), "SELECT 1"); err == nil || !strings.Contains(err.Error(), "40001") {
		t.Errorf("the transaction that was open there: %v", err)
	}
	_ = tx.Rollback(t.Context())
	if got := p.at(idle, where); got != "pgsql1" {
		t.Errorf("with its standby gone it reads on %s", got)
	}
	p.StartNode("pgsql2")
	p.stream.until(t, "in sync again", protected("pgsql1"))
	p.until(idle, "pgsql2")
	stop()
	all.Wait()
	for i, n := range reads {
		if n < 20 {
			t.Errorf("reader %d has read %d times", i, n)
		}
	}
}
