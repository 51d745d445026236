package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgtandem/pgtandem/engine/lab/fault"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

// TestReadsMessageByMessage is what drivers do that send more than one thing at a
// time, and what becomes of it when nodes fail.
func TestReadsMessageByMessage(t *testing.T) {
	p := balance(t)
	c := p.connect(pgx.QueryExecModeExec)
	p.exec(c, "CREATE TABLE goods (id int PRIMARY KEY, name text)")
	p.exec(c, "INSERT INTO goods SELECT i, 'tea' FROM generate_series(1, 100) AS i")
	p.exec(c, "CREATE SEQUENCE truth")
	p.exec(c, `CREATE FUNCTION lies() RETURNS text LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM nextval('truth'); RETURN current_setting('port'); END $$`)
	p.until(c, "pgsql2")
	t.Run("pipelines", p.pipelines)
	t.Run("terminated", p.terminated)
	t.Run("canceled", p.canceled)
	t.Run("what crashes its servers", p.crashes)
	t.Run("pgbench while the standby is killed", p.pgbench)
	t.Run("a frozen standby", p.frozen)
	t.Run("failovers", p.failovers)
}

// spoken is a conversation message by message.
type spoken struct {
	p    *balanced
	conn *pgx.Conn
	f    *pgproto3.Frontend
}

func (p *balanced) speak() *spoken {
	p.t.Helper()
	c := p.connect(pgx.QueryExecModeExec)
	p.until(c, "pgsql2")
	return &spoken{p, c, c.PgConn().Frontend()}
}

// say sends in one packet: a text is a Query, a text that begins with a colon an
// unnamed Parse, Bind, Describe and Execute, and "sync" a Sync.
func (s *spoken) say(messages ...string) {
	s.p.t.Helper()
	for _, m := range messages {
		switch text, extended := strings.CutPrefix(m, ":"); {
		case m == "sync":
			s.f.Send(&pgproto3.Sync{})
		case extended:
			s.f.Send(&pgproto3.Parse{Query: text})
			s.f.Send(&pgproto3.Bind{})
			s.f.Send(&pgproto3.Describe{ObjectType: 'P'})
			s.f.Send(&pgproto3.Execute{})
		default:
			s.f.Send(&pgproto3.Query{String: text})
		}
	}
	if err := s.f.Flush(); err != nil {
		s.p.t.Fatal(err)
	}
}

// hear gives what came up to so many ReadyForQuery: the type of each message, the
// ports in rows as the nodes' names, the SQLSTATE of errors.
func (s *spoken) hear(ready int) string {
	s.p.t.Helper()
	var out []string
	for ready > 0 {
		m, err := s.f.Receive()
		if err != nil {
			s.p.t.Fatalf("after %q: %v", out, err)
		}
		switch m := m.(type) {
		case *pgproto3.ReadyForQuery:
			ready--
			out = append(out, "ready "+string(m.TxStatus))
		case *pgproto3.DataRow:
			out = append(out, s.p.name(string(m.Values[0])))
		case *pgproto3.ErrorResponse:
			out = append(out, m.Code)
		case *pgproto3.CommandComplete:
			out = append(out, string(m.CommandTag))
		case *pgproto3.RowDescription:
			out = append(out, "rows")
		case *pgproto3.ParseComplete:
			out = append(out, "parsed")
		case *pgproto3.BindComplete:
			out = append(out, "bound")
		case *pgproto3.ParameterStatus, *pgproto3.NoticeResponse:
		default:
			out = append(out, strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3."))
		}
	}
	return strings.Join(out, ", ")
}

func (p *balanced) name(port string) string {
	for name, at := range p.ports {
		if at == port {
			return name
		}
	}
	return port
}

// pipelines: each is answered in its order, as a server alone would.
func (p *balanced) pipelines(t *testing.T) {
	p.t = t
	s := p.speak()
	const one = ", SELECT 1"
	for _, x := range []struct {
		name  string
		say   []string
		ready int
		want  string
	}{
		{"reads go together", []string{where, ":" + where, "sync", where}, 3,
			"rows, pgsql2" + one + ", ready I, parsed, bound, rows, pgsql2" + one + ", ready I, rows, pgsql2" + one + ", ready I"},
		{"a write behind a read", []string{where, "UPDATE goods SET name = 'tea' WHERE id = 1", "SELECT name FROM goods WHERE id = 1"}, 3,
			"rows, pgsql2" + one + ", ready I, UPDATE 1, ready I, rows, tea" + one + ", ready I"},
		{"one batch of a read and a write", []string{":" + where, ":UPDATE goods SET name = 'tea' WHERE id = 1", "sync"}, 1,
			"parsed, bound, rows, pgsql1" + one + ", parsed, bound, NoData, UPDATE 1, ready I"},
		{"transactions one behind the other", []string{"BEGIN READ ONLY", where, "COMMIT", "BEGIN", "UPDATE goods SET name = 'tea' WHERE id = 1", "COMMIT"}, 6,
			"BEGIN, ready T, rows, pgsql2" + one + ", ready T, COMMIT, ready I, BEGIN, ready T, UPDATE 1, ready T, COMMIT, ready I"},
		{"one batch of two transactions", []string{":BEGIN READ ONLY", ":COMMIT", ":BEGIN", ":UPDATE goods SET name = 'tea' WHERE id = 1", ":COMMIT", "sync"}, 1,
			"parsed, bound, NoData, BEGIN, parsed, bound, NoData, COMMIT, parsed, bound, NoData, BEGIN, parsed, bound, NoData, UPDATE 1, parsed, bound, NoData, COMMIT, ready I"},
		{"refused by the standby", []string{"SELECT lies()"}, 1, "rows, pgsql1" + one + ", ready I"},
		{"refused, and others behind it", []string{":SELECT lies()", "sync", where, ":" + where, "sync"}, 3,
			"parsed, bound, rows, pgsql1" + one + ", ready I, rows, pgsql1" + one + ", ready I, parsed, bound, rows, pgsql1" + one + ", ready I"},
		{"refused behind another", []string{where, "SELECT lies()"}, 2, "rows, pgsql2" + one + ", ready I, rows, pgsql1" + one + ", ready I"},
		{"an error of its own", []string{":SELECT 1/0", "sync", ":" + where, "sync"}, 2,
			"parsed, 22012, ready I, parsed, bound, rows, pgsql2" + one + ", ready I"},
		{"nothing but a Parse", []string{""}, 1, "EmptyQueryResponse, ready I"},
	} {
		anywhere := func(answers string) string { return strings.ReplaceAll(answers, "pgsql1", "pgsql2") }
		for limit := time.Now().Add(20 * time.Second); ; {
			s.settle(t) // which promises nothing of the next read
			s.say(x.say...)
			got := s.hear(x.ready)
			if got == x.want {
				break
			}
			if anywhere(got) != anywhere(x.want) || time.Now().After(limit) {
				t.Errorf("%s: %q\ngives %s\n want %s", x.name, x.say, got, x.want)
				break
			}
		}
	}
	s.settle(t)
	s.say("SELECT current_setting('port') FROM pg_sleep(0.2)") // and while that runs, in a packet of its own
	pause(t, 50*time.Millisecond)
	s.say("UPDATE goods SET name = 'tea' WHERE id = 1 RETURNING current_setting('port')", "BEGIN READ ONLY", "ROLLBACK")
	if got, want := s.hear(4), "rows, pgsql2, SELECT 1, ready I, rows, pgsql1, UPDATE 1, ready I, BEGIN, ready T, ROLLBACK, ready I"; got != want {
		t.Errorf("a write while a read runs gives %s\nwant %s", got, want)
	}
}

// settle waits until reads land on the standby again.
func (s *spoken) settle(t *testing.T) {
	t.Helper()
	limit := time.Now().Add(30 * time.Second)
	for {
		s.say(where)
		if strings.Contains(s.hear(1), "pgsql2") {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("no read lands on the standby: %q", s.p.routes())
		}
		pause(t, 20*time.Millisecond)
	}
}

// terminated: what a person ends does not run again.
func (p *balanced) terminated(t *testing.T) {
	p.t = t
	s, standby := p.speak(), p.SQL("pgsql2", "postgres")
	s.say("SELECT pg_sleep(600), 'a long one'")
	p.onStandby(t, standby, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%a long one%' AND pid <> pg_backend_pid()")
	if got := s.hear(1); got != "40001, ready I" {
		t.Errorf("the client was told %s", got)
	}
	s.settle(t)
}

// onStandby runs a statement until it finds something.
func (p *balanced) onStandby(t *testing.T, standby *pgx.Conn, sql string) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); ; pause(t, 20*time.Millisecond) {
		tag, err := standby.Exec(t.Context(), sql)
		if err != nil {
			t.Fatal(err)
		}
		if tag.RowsAffected() > 0 {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%s finds nothing", sql)
		}
	}
}

// canceled: a cancel finds the statement on the standby.
func (p *balanced) canceled(t *testing.T) {
	p.t = t
	c := p.connect(pgx.QueryExecModeExec)
	p.until(c, "pgsql2")
	over := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.Background(), "SELECT pg_sleep(600), 'not so long'")
		over <- err
	}()
	p.onStandby(t, p.SQL("pgsql2", "postgres"), "SELECT FROM pg_stat_activity WHERE query LIKE '%not so long%' AND pid <> pg_backend_pid() AND state = 'active'")
	if err := c.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-over; err == nil || !strings.Contains(err.Error(), "57014") {
		t.Errorf("a canceled read ends with %v", err)
	}
}

// crashes: what has brought down two servers, of which neither told why, is not
// sent to a third, and its client not tempted to try; what ran beside it goes on.
func (p *balanced) crashes(t *testing.T) {
	p.t = t
	bystander := p.speak()
	bystander.say("SELECT 'bystander', pg_sleep(600)")
	culprit := p.speak()
	culprit.say("SELECT 'culprit', pg_sleep(600)")
	for _, node := range []string{"pgsql2", "pgsql1"} {
		c := p.SQL(node, "postgres")
		p.backend(t, c, "bystander")
		if err := syscall.Kill(p.backend(t, c, "culprit"), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if got := culprit.hear(1); got != "57P02, ready I" {
		t.Errorf("the client that crashed two servers was told %s", got)
	}
	whole := p.stream.until(t, "whole again", func(s api.State, e []api.Event) bool { return protected(s.Primary)(s, e) })
	if err := bystander.conn.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := bystander.hear(1); !strings.HasSuffix(got, "57014, ready I") {
		t.Errorf("who was beside it was told %s", got)
	}
	if whole.Primary != "pgsql1" {
		p.handOver(t, "pgsql1")
	}
	culprit.settle(t)
}

// handOver makes a node the primary. A transaction that has just ended is seen
// as open until the primary is looked at again.
func (p *balanced) handOver(t *testing.T, to string) {
	t.Helper()
	op, err := p.control.Plan(t.Context(), api.PlanRequest{Action: "switchover", Node: to})
	for limit := time.Now().Add(20 * time.Second); err != nil; pause(t, 50*time.Millisecond) {
		var refused *api.Error
		if !errors.As(err, &refused) || refused.Code != api.CodePrecondition || time.Now().After(limit) {
			t.Fatal(err)
		}
		op, err = p.control.Plan(t.Context(), api.PlanRequest{Action: "switchover", Node: to})
	}
	if _, err := p.control.Run(t.Context(), op.ID, to); err != nil {
		t.Fatal(err)
	}
	p.stream.until(t, "the switchover", protected(to))
}

// backend waits until a statement runs on a server, and gives its process.
func (p *balanced) backend(t *testing.T, c *pgx.Conn, says string) (pid int) {
	t.Helper()
	const running = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%' || $1 || '%' AND state = 'active' AND pid <> pg_backend_pid()"
	for limit := time.Now().Add(20 * time.Second); ; pause(t, 20*time.Millisecond) {
		err := c.QueryRow(t.Context(), running, says).Scan(&pid)
		switch {
		case err == nil:
			return pid
		case !errors.Is(err, pgx.ErrNoRows) || time.Now().After(limit):
			t.Fatalf("%s does not run on port %d: %v; %q", says, c.Config().Port, err, p.routes())
		}
	}
}

var failed = regexp.MustCompile(`number of failed transactions: (\d+)`)

// pgbench reads, in each protocol, while its standby is killed and comes back.
func (p *balanced) pgbench(t *testing.T) {
	p.t = t
	st := p.Status()
	bench := func(args ...string) (string, error) {
		args = append(args, "-h", st.Proxy.Host, "-p", fmt.Sprint(st.Proxy.Port), "-U", st.User, st.Database)
		cmd := exec.CommandContext(t.Context(), st.Nodes[0].BinDirectory+"/pgbench", args...)
		cmd.Env = append(os.Environ(), "PGPASSWORD="+st.Password, "PGSSLMODE=disable", "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := bench("-i", "-q", "-s", "1"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p.until(p.connect(pgx.QueryExecModeExec), "pgsql2")
	var all sync.WaitGroup
	defer all.Wait() // a server that does not start must not hide what the clients saw
	for _, protocol := range []string{"simple", "extended", "prepared"} {
		all.Go(func() {
			out, err := bench("-n", "-S", "-M", protocol, "-c", "4", "-T", "8")
			if m := failed.FindStringSubmatch(out); err != nil || m == nil || m[1] != "0" || strings.Contains(out, "aborted") {
				t.Errorf("pgbench -M %s: %v\n%s", protocol, err, out)
			}
		})
	}
	pause(t, 2*time.Second)
	p.StopNode("pgsql2", "immediate")
	pause(t, time.Second)
	p.StartNode("pgsql2")
	all.Wait()
	p.stream.until(t, "in sync again", protected("pgsql1"))
}

// frozen: a standby that does not answer any more is left when it counts as lost,
// and its readers do not notice but by the time that took. The primary is not
// waited for: to it the standby may seem well for a minute.
func (p *balanced) frozen(t *testing.T) {
	p.t = t
	p.rewrite(onStandby)
	faults := fault.New(p.Lab.Lab, "")
	defer faults.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	var reads [4]atomic.Int64
	for reader := range reads {
		c := p.connect([]pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec}[reader%2])
		p.until(c, "pgsql2")
		all.Go(func() {
			for ; ctx.Err() == nil; reads[reader].Add(1) {
				var name string
				if err := c.QueryRow(t.Context(), "SELECT name FROM goods WHERE id = $1", 1).Scan(&name); err != nil || name != "tea" {
					t.Errorf("reader %d: %q, %v", reader, name, err)
					return
				}
			}
		})
	}
	if err := faults.Freeze(t.Context(), "pgsql2"); err != nil {
		t.Fatal(err)
	}
	var before [4]int64
	for i := range reads {
		before[i] = reads[i].Load()
	}
	limit := time.Now().Add(20 * time.Second)
	for i := range reads {
		for reads[i].Load() < before[i]+20 && !t.Failed() {
			if time.Now().After(limit) {
				t.Fatalf("reader %d still waits for the frozen standby: %q", i, p.routes())
			}
			pause(t, 50*time.Millisecond)
		}
	}
	stop()
	all.Wait() // while it is still frozen
	if err := faults.Wake(t.Context(), "pgsql2"); err != nil {
		t.Fatal(err)
	}
	p.stream.until(t, "in sync again", protected("pgsql1"))
}

// failovers: clients write and read while the nodes change places. Whoever was
// told that its row is there finds it, and no lone read fails.
func (p *balanced) failovers(t *testing.T) {
	p.t = t
	p.rewrite(onStandby, "weight = 0", "weight = 1")
	c := p.connect(pgx.QueryExecModeExec)
	p.exec(c, "CREATE TABLE told (client int, n int)")
	p.until(c, "pgsql2") // until the catalog has been read again nothing is known to be a read
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	for client := range 6 {
		c := p.connect([]pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement}[client%3])
		all.Go(func() {
			told := map[int]bool{}
			for n := 0; ctx.Err() == nil; n++ {
				if _, err := c.Exec(t.Context(), "INSERT INTO told VALUES ($1, $2)", client, n); err == nil {
					told[n] = true
				} else if c.IsClosed() {
					t.Errorf("client %d is cut off: %v", client, err)
					return
				}
				for range 3 {
					rows, err := c.Query(t.Context(), "SELECT n FROM told WHERE client = $1", client)
					found := map[int]bool{}
					var one int
					if err == nil {
						_, err = pgx.ForEachRow(rows, []any{&one}, func() error { found[one] = true; return nil })
					}
					if err != nil {
						t.Errorf("client %d reads: %v", client, err)
						return
					}
					for n := range told {
						if !found[n] {
							t.Errorf("client %d was told of row %d and does not find it", client, n)
							return
						}
					}
				}
			}
		})
	}
	pause(t, time.Second)
	p.handOver(t, "pgsql2")
	pause(t, time.Second)
	p.StopNode("pgsql2", "immediate")
	p.stream.until(t, "the failover", protected("pgsql1"))
	pause(t, time.Second)
	stop()
	all.Wait()
}
