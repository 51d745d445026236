package session

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// Where no server can be had, what was sent up to Sync fails as one, and is
// answered with one ReadyForQuery when Sync comes, and not before.
func TestAnExtendedQueryThatGetsNoServer(t *testing.T) {
	p := startProxy(t, ModeTransaction, func(o *Options) { o.Limits.PoolSize, o.Limits.WaitTimeout = 1, 20*time.Millisecond })
	one, two := p.raw(t), p.raw(t)
	one.run("SELECT 1")
	one.ask("BEGIN")
	two.send(prep("s", "SELECT 1"), flushing)
	expect(t, "told at once", two.answers(1), "ERROR:53300")
	two.send(bind("s"), describe('P', ""), perform("", 0), flushing)
	two.send(endSync)
	expect(t, "ready once", two.story(1), "Z:I")
	two.send(chain(once("SELECT 1"), endSync, query("SELECT 2"))...)
	expect(t, "a pipeline", two.story(2), "ERROR:53300 Z:I ERROR:53300 Z:I")
	one.ask("COMMIT")
	two.send(prep("s", "SELECT 3"), bind("s"), perform("", 0), endSync)
	expect(t, "and on", two.story(1), "1 2 D:3 C:SELECT 1 Z:I")
}

func TestWhatSQLPreparesIsItsClientsAlone(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode, func(o *Options) { o.Limits.PoolSize = 1 })
			one := p.raw(t)
			one.run("PREPARE s AS SELECT 'one'")
			expect(t, "it has it", one.ask("EXECUTE s"), "T D:one C:SELECT 1 Z:I")
			one.close()
			two := p.raw(t)
			expect(t, "the next has not", two.ask("EXECUTE s"), "ERROR:26000 Z:I")
			expect(t, "nor what the protocol would find", two.ask("SELECT count(*) FROM pg_prepared_statements WHERE name = 's'"), "T D:0 C:SELECT 1 Z:I")
		})
	}
}

func TestAReadOnlySessionIsItsClientsAlone(t *testing.T) {
	for _, set := range []string{"SET default_transaction_read_only = on", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
		"SELECT set_config('default_transaction_read_only', 'on', false)", "\x00SET default_transaction_read_only = on",
		"SELECT 1; SET default_transaction_read_only = on"} {
		for _, mode := range bothModes {
			t.Run(string(mode)+"/"+set, func(t *testing.T) {
				p := startProxy(t, mode, func(o *Options) { o.Limits.PoolSize = 2 })
				one, two := p.raw(t), p.raw(t)
				one.run(set)
				expect(t, "it is read-only", one.ask("CREATE TABLE refused (a int)"), "ERROR:25006 Z:I")
				expect(t, "another is not", two.ask("SHOW transaction_read_only"), "T D:off C:SHOW Z:I")
				one.close()
				for range 3 {
					next := p.raw(t)
					expect(t, "nor who comes next", next.ask("SHOW transaction_read_only"), "T D:off C:SHOW Z:I")
					next.close()
				}
			})
		}
	}
}

// A session's lock must not stay behind on a server, however the client goes.
func TestNoAdvisoryLockIsLeftBehind(t *testing.T) {
	for _, mode := range bothModes {
		for _, lock := range []string{"SELECT pg_advisory_lock(4711)", "SELECT pg_try_advisory_lock_shared(4711, 1)", "\x00SELECT pg_advisory_lock(4711)"} {
			t.Run(string(mode)+"/"+lock, func(t *testing.T) {
				p := startProxy(t, mode)
				for _, goodbye := range []bool{true, false} {
					conn := p.bare(t)
					c := &raw{t, pgproto3.NewFrontend(conn, conn)}
					c.run(lock)
					c.run("SELECT 1")
					expect(t, "its next transaction has it", c.ask("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"), "T D:1 C:SELECT 1 Z:I")
					if goodbye {
						c.close()
					} else {
						conn.Close()
					}
					other := p.raw(t)
					eventually(t, "the lock is free", func() bool {
						return other.ask("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == "T D:0 C:SELECT 1 Z:I"
					})
				}
			})
		}
	}
}

// Neither right nor wrong cancel requests in numbers hit anybody else, or stop
// the proxy from serving.
func TestAStormOfCancelRequests(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode, func(o *Options) {
				if mode == ModeTransaction {
					o.Limits.PoolSize = 1 // the one of all
				}
			})
			var hours atomic.Int64 // it forgives every wrong key at once: the right ones must be looked at, too
			p.guessBy(func() time.Time { return time.Unix(1000, 0).Add(time.Duration(hours.Add(1)) * time.Hour) })
			target, bystander := p.connect(t, ""), p.connect(t, "")
			stop := make(chan struct{})
			var storm sync.WaitGroup
			for i := range 8 {
				storm.Go(func() {
					for n := uint32(0); ; n++ {
						select {
						case <-stop:
							return
						default:
						}
						if i%2 == 0 {
							target.PgConn().CancelRequest(within(t)) //nolint:errcheck // what is not delivered hits nobody
						} else if conn := p.dial(); conn != nil {
							conn.Write(wire.AppendCancel(nil, bystander.PgConn().PID(), binary.BigEndian.AppendUint32(nil, n))) //nolint:errcheck // see above
							conn.Close()
						}
					}
				})
			}
			var canceled int
			for range 200 {
				if _, err := bystander.Exec(within(t), "SELECT 1"); err != nil {
					t.Errorf("a cancel request hit another client: %v", err)
					break
				}
				_, err := target.Exec(within(t), "SELECT pg_sleep(0.01)")
				if code(err) == "57014" {
					canceled++
				} else if err != nil {
					t.Errorf("the canceled client: %v", err)
					break
				}
			}
			if canceled == 0 {
				t.Error("no request hit anything: this is no storm")
			}
			close(stop)
			storm.Wait()
			expect(t, "and on", p.raw(t).ask("SELECT 1"), "T D:1 C:SELECT 1 Z:I")
		})
	}
}

// A client that sends and reads at one time, as much as it likes, is never in
// a deadlock with us.
func TestMuchInBothDirectionsAtOnce(t *testing.T) {
	const count = 3000
	wide := strings.Repeat("w", 4000)
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			conn := p.bare(t)
			c := &raw{t, pgproto3.NewFrontend(conn, conn)}
			sent := make(chan error, 1)
			go func() {
				var out []byte
				var err error
				for range count {
					for _, m := range chain(prep("", "SELECT $1::text"), bind("", wide), perform("", 0)) {
						if out, err = m.Encode(out); err != nil {
							break
						}
					}
				}
				if out, err = endSync.Encode(out); err == nil {
					_, err = conn.Write(out)
				}
				sent <- err
			}()
			got := strings.Fields(c.story(1))
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			if len(got) != 5*count+1 || got[len(got)-1] != "Z:I" {
				t.Errorf("%d words, the last %q", len(got), got[len(got)-1])
			}
		})
	}
}

// Clients that log in while the gate closes and opens are held, not refused.
func TestNobodyIsRefusedWhoLogsInWhileTheGateMoves(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			var clients sync.WaitGroup
			stop := make(chan struct{})
			for range 4 {
				clients.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						conn, err := pgx.Connect(within(t), p.dsn(""))
						if err != nil {
							t.Errorf("a login: %v", err)
							return
						}
						if _, err := conn.Exec(within(t), "SELECT 1"); err != nil {
							t.Errorf("a statement: %v", err)
						}
						conn.Close(context.Background()) //nolint:errcheck // a test's connection
					}
				})
			}
			for term := range 10 {
				if _, err := p.gate.Close(within(t), "rehearsal", true); err != nil {
					t.Fatal(err)
				}
				eventually(t, "somebody is held", func() bool { return p.Stats().Held > 0 || t.Failed() })
				p.open(t, cluster.Term(term+2))
			}
			close(stop)
			clients.Wait()
		})
	}
}

// What a client has sent is answered before it is told that the proxy stops.
func TestShutdownAnswersWhatWasSent(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	c := p.raw(t)
	c.send(chain(query("SELECT pg_sleep(0.3)"), once("SELECT 1"), endSync, query("SELECT 2"))...)
	sleeping(t)
	done := make(chan error, 1)
	go func() { done <- p.Shutdown(within(t)) }()
	expect(t, "answers, then farewell", c.story(4), "T D: C:SELECT 1 Z:I 1 2 D:1 C:SELECT 1 Z:I T D:2 C:SELECT 1 Z:I FATAL:57P01 EOF")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// heap is what is in use after all garbage is gone.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// Clients that do not read what they asked for keep their servers waiting, and
// not us remembering.
func TestAClientThatDoesNotReadCostsNoMemory(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			const clients, most = 10, 10 << 20
			before := heap()
			for range clients {
				conn := p.bare(t)
				if _, err := conn.Write(wire.AppendString(nil, wire.Query, "SELECT repeat('x', 1000) FROM generate_series(1, 200000)")); err != nil {
					t.Fatal(err)
				}
			}
			admin := rawTo(t, pg.URL("test1"))
			eventually(t, "their servers wait for them", func() bool {
				return admin.ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'") == fmt.Sprintf("T D:%d C:SELECT 1 Z:I", clients)
			})
			if after := heap(); after > before+most {
				t.Errorf("%d bytes for %d clients that do not read", after-before, clients)
			}
			expect(t, "others are served", p.raw(t).ask("SELECT 1"), "T D:1 C:SELECT 1 Z:I")
		})
	}
}

// One long statement costs neither time nor memory beyond itself, and none
// when it is over.
func TestALongStatement(t *testing.T) {
	var text strings.Builder
	text.WriteString("SELECT count(*) FROM generate_series(1, 3) g WHERE g::text IN (''")
	for text.Len() < 10<<20 {
		text.WriteString(",'")
		text.WriteString(strings.Repeat("begin; commit $$ ", 20))
		text.WriteString("'")
	}
	text.WriteString(") AND false")
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			before := heap()
			var clients []*raw
			for _, send := range [][]pgproto3.FrontendMessage{chain(query(text.String())), chain(once(text.String()), endSync)} {
				c := p.raw(t)
				began := time.Now()
				c.send(send...)
				if got := c.story(1); !strings.HasSuffix(got, "D:0 C:SELECT 1 Z:I") {
					t.Errorf("%s", got)
				}
				if took := time.Since(began); took > 20*time.Second {
					t.Errorf("a statement of 10 MB took %v", took)
				}
				clients = append(clients, c)
			}
			if after := heap(); after > before+5<<20 {
				t.Errorf("%d bytes are kept of it for %d clients", after-before, len(clients))
			}
		})
	}
}

// A length is a promise that need not be kept: no memory is reserved for it.
func TestALengthThatPromisesMuchReservesNothing(t *testing.T) {
	p := startProxy(t, ModeSession)
	before := heap()
	for range 50 {
		conn := p.bare(t)
		if _, err := conn.Write(binary.BigEndian.AppendUint32([]byte{wire.Query}, 1<<30-1)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("SELECT 1")); err != nil {
			t.Fatal(err)
		}
		p.Stats() // looks at it while it is half read
		conn.Close()
	}
	if after := heap(); after > before+10<<20 {
		t.Errorf("%d bytes", after-before)
	}
}
