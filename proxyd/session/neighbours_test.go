package session

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Clients that share servers share statements as well, where these mean the
// same: under the same rules of reading a text.
func TestAStatementMeansWhatItsOwnClientMeans(t *testing.T) {
	pg.Exec(t, "test1", "DROP SCHEMA IF EXISTS one, two CASCADE", "CREATE SCHEMA one", "CREATE SCHEMA two", "GRANT ALL ON SCHEMA one, two TO test1",
		"CREATE TABLE one.shared AS SELECT 1 AS a", "CREATE TABLE two.shared AS SELECT 'text'::text AS a", "GRANT ALL ON one.shared, two.shared TO test1")
	for _, c := range []struct{ name, text, first, second, one, two string }{
		{"search_path", "SELECT a FROM shared", "SET search_path = one", "SET search_path = two", "D:1", "D:text"},
		{"TimeZone", "SELECT timestamptz '2020-01-01 00:00' = timestamptz '2020-01-01 00:00Z'", "SET TimeZone = 'UTC'", "SET TimeZone = 'Asia/Tokyo'", "D:t", "D:f"},
		{"DateStyle", "SELECT extract(day from date '02/01/2020')", "SET DateStyle = 'ISO, MDY'", "SET DateStyle = 'ISO, DMY'", "D:1", "D:2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startProxy(t, ModeTransaction, func(o *Options) { o.Limits.PoolSize = 1 })
			one, two := p.raw(t), p.raw(t)
			one.run(c.first)
			two.run(c.second)
			for _, r := range []*raw{one, two} {
				r.send(prep("s", c.text), endSync)
				expect(t, "prepare", r.story(1), "1 Z:I")
			}
			for range 2 {
				one.send(bind("s"), perform("", 0), endSync)
				expect(t, "one", one.story(1), "2 "+c.one+" C:SELECT 1 Z:I")
				two.send(bind("s"), perform("", 0), endSync)
				expect(t, "the other", two.story(1), "2 "+c.two+" C:SELECT 1 Z:I")
			}
		})
	}
}

// What one user may see and do is no other's, though they ask in the same words,
// have the same names for them, and follow each other at once.
func TestWhatOneUserMaySeeIsNoOthers(t *testing.T) {
	pg.Exec(t, "test1", "DROP TABLE IF EXISTS diary", "DROP ROLE IF EXISTS d_ann, d_bob, d_team",
		"CREATE ROLE d_ann LOGIN PASSWORD 'x'", "CREATE ROLE d_bob LOGIN PASSWORD 'x'", "CREATE ROLE d_team ROLE d_ann, d_bob",
		"CREATE TABLE diary AS SELECT 'd_ann' AS who UNION ALL SELECT 'd_bob'", "ALTER TABLE diary ENABLE ROW LEVEL SECURITY",
		"CREATE POLICY own ON diary USING (who = current_user)", "GRANT SELECT ON diary TO d_ann, d_bob")
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode, func(o *Options) { o.Limits.MaxServers = 2 })
			as := func(user string) *raw { return rawTo(t, p.as(user, "x", "test1", "")) }
			ann, bob := as("d_ann"), as("d_bob")
			for _, c := range []*raw{ann, bob} {
				c.send(prep("s", "SELECT who FROM diary"), endSync)
				expect(t, "prepare", c.story(1), "1 Z:I")
			}
			for range 2 {
				for user, c := range map[string]*raw{"d_ann": ann, "d_bob": bob} {
					c.send(bind("s"), perform("", 0), endSync)
					expect(t, "prepared, "+user, c.story(1), "2 D:"+user+" C:SELECT 1 Z:I")
					expect(t, "asked, "+user, c.ask("SELECT who FROM diary"), "T D:"+user+" C:SELECT 1 Z:I")
				}
			}
			ann.run("SET ROLE d_team")
			expect(t, "in another role", ann.ask("SELECT who FROM diary"), "ERROR:42501 Z:I")
			expect(t, "which is hers alone", bob.ask("SELECT current_user"), "T D:d_bob C:SELECT 1 Z:I")
			ann.close()
			again := as("d_ann")
			expect(t, "and her session's alone", again.ask("SELECT concat(current_user, ',', who) FROM diary"), "T D:d_ann,d_ann C:SELECT 1 Z:I")
		})
	}
}

// A server is nobody else's while its client has something under way, however
// little of it has been said.
func TestAServerIsNotGivenAwayInTheMiddle(t *testing.T) {
	for _, c := range []struct {
		name  string
		begin []pgproto3.FrontendMessage
		told  string
		end   []pgproto3.FrontendMessage
		after string
	}{
		{"of a COPY", chain(query("COPY table1 FROM STDIN")), "G", chain(&pgproto3.CopyFail{Message: "enough"}), "ERROR:57014 Z:I"},
		{"of a COPY in the extended protocol", chain(once("COPY table1 FROM STDIN"), flushing), "1 2 G", chain(&pgproto3.CopyFail{Message: "enough"}, endSync), "ERROR:57014 Z:I"},
		{"of a Parse that is not followed by Sync", chain(prep("", "SELECT 7"), flushing), "1", chain(bind(""), perform("", 0), endSync), "2 D:7 C:SELECT 1 Z:I"},
		{"of an Execute that is not committed", chain(once("SELECT 7"), flushing), "1 2 D:7 C:SELECT 1", chain(endSync), "Z:I"},
		{"of an error that awaits Sync", chain(once("SELEKT"), flushing), "ERROR:42601", chain(endSync), "Z:I"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startProxy(t, ModeTransaction, func(o *Options) { o.Limits.PoolSize = 1 })
			one, two := p.raw(t), p.raw(t)
			one.send(c.begin...)
			expect(t, "begin", one.answers(len(strings.Fields(strings.ReplaceAll(c.told, "SELECT ", "")))), c.told)
			two.send(query("SELECT 2"))
			eventually(t, "the other waits", func() bool { return p.Stats().Waiting == 1 })
			one.send(c.end...)
			expect(t, "end", one.story(1), c.after)
			expect(t, "the other", two.story(1), "T D:2 C:SELECT 1 Z:I")
		})
	}
}

// Whatever a client leaves unanswered when it goes is not answered to another.
func TestAnAnswerOfAClientThatIsGoneReachesNobody(t *testing.T) {
	for _, mode := range bothModes {
		for _, c := range []struct {
			name string
			last []pgproto3.FrontendMessage
		}{
			{"a statement", chain(query("SELECT 'gone', pg_sleep(0.05)"))},
			{"an error", chain(once("SELECT 1/0"))},
			{"a failed Parse of a name", chain(prep("s", "SELEKT"), endSync)},
			{"a pipeline", chain(once("SELECT 'gone'"), endSync, once("SELECT 'gone'"), endSync, once("SELECT 1/0"), endSync)},
			{"a COPY in", chain(query("COPY table1 FROM STDIN"), copied("900\tgone\n"))},
			{"a COPY out", chain(query("COPY (SELECT * FROM generate_series(1, 1000000)) TO STDOUT"))},
			{"half a message", nil},
		} {
			t.Run(string(mode)+"/"+c.name, func(t *testing.T) {
				p := startProxy(t, mode, func(o *Options) { o.Limits.PoolSize = 1 })
				conn := p.bare(t)
				out := []byte{'Q', 0, 0, 0, 40, 'S', 'E'}
				if c.last != nil {
					out = out[:0]
				}
				for _, m := range c.last {
					var err error
					if out, err = m.Encode(out); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := conn.Write(out); err != nil {
					t.Fatal(err)
				}
				if err := conn.Close(); err != nil {
					t.Fatal(err)
				}
				next := p.raw(t)
				for range 3 {
					expect(t, "the next client", next.ask("SELECT count(*) FROM table1 WHERE id = 900"), "T D:0 C:SELECT 1 Z:I")
				}
				next.send(prep("s", "SELECT 5"), bind("s"), perform("", 0), endSync)
				expect(t, "its own statement", next.story(1), "1 2 D:5 C:SELECT 1 Z:I")
			})
		}
	}
}
