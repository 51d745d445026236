package session

import (
	"strings"
	"testing"

	"github.com/pgtandem/pgtandem/proxyd/session/internal/pgtest"
)

// A session is one server process, and the client knows it by its own pid.
func TestASessionHasItsServersPid(t *testing.T) {
	p := startProxy(t, ModeSession)
	one, two := p.connect(t, ""), p.connect(t, "")
	for range 2 {
		var pid uint32
		if err := one.QueryRow(within(t), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
			t.Fatal(err)
		}
		if got := one.PgConn().PID(); got != pid {
			t.Errorf("the client was told pid %d, its server is %d", got, pid)
		}
	}
	// And a cancel request by that pid finds it.
	ran := make(chan error, 1)
	go func() {
		_, err := two.Exec(within(t), "SELECT pg_sleep(60)")
		ran <- err
	}()
	sleeping(t)
	if err := one.PgConn().CancelRequest(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := two.PgConn().CancelRequest(within(t)); err != nil {
		t.Fatal(err)
	}
	expect(t, "canceled", code(<-ran), "57014")
}

// What clients prepare is kept as long as one of them has it.
func TestTheTextsOfClientsThatAreGoneAreForgotten(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			for range 3 {
				c := p.raw(t)
				c.send(prep("mine", "SELECT 1"), prep("ours", "SELECT 2"), endSync)
				expect(t, "prepare", c.story(1), "1 1 Z:I")
				c.close()
			}
			eventually(t, "no text is left", func() bool {
				p.texts.mu.Lock()
				defer p.texts.mu.Unlock()
				return len(p.texts.byKey) == 0
			})
		})
	}
}

// In session mode a client's server is its own, and who ends that means the
// client: it hears so at once, whatever it does, and is not given another.
func TestATerminatedSessionEnds(t *testing.T) {
	p := startProxy(t, ModeSession)
	for _, c := range []struct{ name, before, during, told string }{
		{"idle", "SELECT 1", "", "FATAL:57P01 EOF"},
		{"in a transaction", "BEGIN", "", "FATAL:57P01 EOF"},
		{"in a statement", "SELECT 1", "SELECT pg_sleep(60)", "T FATAL:57P01 EOF"},
		{"holding a temporary table", "CREATE TEMP TABLE held (a int)", "", "FATAL:57P01 EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			one := p.raw(t)
			pid := strings.Fields(one.ask("SELECT pg_backend_pid()"))[1][2:]
			one.ask(c.before)
			if c.during != "" {
				one.send(query(c.during))
				sleeping(t)
			}
			pg.Exec(t, pgtest.Database, "SELECT pg_terminate_backend("+pid+")")
			if got := one.story(1); strings.TrimPrefix(got, "T ") != strings.TrimPrefix(c.told, "T ") {
				t.Errorf("%q, want %q", got, c.told)
			}
		})
	}
}

// Clients that are gone are connected to nothing: their database can be
// dropped, renamed and used as a template.
func TestADatabaseThatNobodyUsesCanBeChanged(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			pg.Exec(t, "postgres", "DROP DATABASE IF EXISTS visited", "DROP DATABASE IF EXISTS another", "DROP DATABASE IF EXISTS copied", "CREATE DATABASE visited", "ALTER ROLE test1 CREATEDB", "ALTER DATABASE visited OWNER TO test1")
			visit := func(database string) {
				t.Helper()
				c := rawTo(t, p.dsn("")+" dbname="+database)
				c.run("SELECT 1")
				c.close()
			}
			owner := p.raw(t)
			visit("visited")
			owner.run("CREATE DATABASE copied TEMPLATE visited")
			visit("visited")
			owner.run("ALTER DATABASE visited RENAME TO another")
			visit("another")
			owner.run("\x00DROP DATABASE another")
			visit("copied")
			owner.run("DROP DATABASE IF EXISTS copied")
		})
	}
}

// A session begins with what ALTER ROLE and ALTER DATABASE have set by then.
func TestASessionBeginsWithWhatIsSetByThen(t *testing.T) {
	p := startProxy(t, ModeSession)
	owner := p.raw(t)
	defer pg.Exec(t, pgtest.Database, "ALTER ROLE test1 RESET ALL", "ALTER DATABASE test1 RESET ALL")
	for _, c := range []struct{ change, want string }{
		{"ALTER ROLE test1 SET work_mem = '1MB'", "T D:1MB C:SHOW Z:I"},
		{"ALTER ROLE test1 SET work_mem = '2MB'", "T D:2MB C:SHOW Z:I"},
		{"ALTER ROLE test1 RESET work_mem", "T D:4MB C:SHOW Z:I"},
		{"\x00ALTER DATABASE test1 SET work_mem = '3MB'", "T D:3MB C:SHOW Z:I"},
	} {
		other := p.raw(t)
		owner.run(c.change)
		other.close()
		next := p.raw(t)
		expect(t, c.change, next.ask("SHOW work_mem"), c.want)
		next.close()
	}
}
