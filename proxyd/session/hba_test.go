package session

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/proxyd/hba"
)

// written is a file with this text.
func written(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func rulesOf(t testing.TB, text string) *hba.Rules {
	t.Helper()
	r, err := hba.Load(written(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mapsOf(t testing.TB, text string) *hba.Maps {
	t.Helper()
	m, err := hba.LoadMaps(written(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// sameLines are read by PostgreSQL and by us, each by itself: both take it as
// the same rule, or neither takes it.
var sameLines = []string{
	"local all all peer", "local all all ident", "local all all trust", "local all all md5", "local all all reject",
	"local all all peer map=m", "local  all\tall   scram-sha-256  # comment", "local all all scram-sha-256#comment",
	"local a,b c,d trust", "local a, b c,  d trust", "local a ,b c trust", `local "a b" "c""d" trust`, `local "all" "all" trust`,
	`local a"b"c all trust`, `local "" all trust`, `local all,"all" all trust`, "local all,sameuser,samerole,samegroup,replication all trust",
	"local all +group trust", `local all "+group" trust`, "local all all,+x,y trust",
	"host all all 127.0.0.1/32 trust", "host all all 10.0.0.0/8 scram-sha-256", "host all all 0.0.0.0/0 md5", "host all all ::/0 md5",
	"host all all 10.1.2.3/8 trust", "host all all ::1/128 reject", "host all all fe80::/10 trust", "host all all ::ffff:10.0.0.1/128 trust",
	"host all all 10.0.0.0 255.0.0.0 trust", "host all all 10.0.0.0 255.0.255.0 trust", "host all all 2001:db8:: ffff:ffff:: trust",
	"host all all all trust", "host all all samehost trust", "host all all samenet trust",
	"hostssl all all all cert", "hostssl all all all cert map=m", "hostssl all all all cert clientcert=verify-full",
	"hostssl all all all scram-sha-256 clientcert=verify-ca", "hostssl all all all trust clientcert=verify-full",
	"hostssl all all all cert clientname=CN",
	"hostnossl all all all trust", "hostssl all all 10.0.0.0/8 md5",
	"host all all 10.0.0.0/08 trust", "host all all 10.0.0.0/0x8 trust",
	// Not taken.
	"tcp all all all trust", "local", "local all", "local all all", "host all all", "host all all all", "host all all 10.0.0.1", "LOCAL all all trust",
	"local all all TRUST", "local all all trustful", "local,host all all all trust", "local all all trust,peer", "host all all 1.2.3.4/8,1.2.3.5/8 trust",
	"host all all 10.0.0.1/33 trust", "host all all 10.0.0.1/ trust", "host all all 10.0.0.1/-1 trust", "host all all 10.0.0.1/8x trust", "host all all ::1/129 trust",
	"host all all 10.0.0.1 trust", "host all all 10.0.0.1 ffff:: trust", "host all all 10.0.0.1 255.0.0.0,255.0.0.0 trust", "host all all ::1 255.0.0.0 trust",
	"host all all 10.0.0.300/8 trust", "host all all :::/8 trust", "host all all example.com/8 trust",
	"host all all all peer", "host all all all cert", "hostnossl all all all cert", "local all all cert",
	"local all all peer nonsense", "local all all peer krb_realm=x", "local all all trust map=m", "local all all scram-sha-256 map=m",
	"host all all all scram-sha-256 clientcert=verify-full", "hostssl all all all trust clientcert=1", "hostssl all all all cert clientcert=verify-ca",
	"hostssl all all all cert clientname=X", "host all all all trust clientname=CN", "local all @nowhere trust",
}

// refusedHere are lines that PostgreSQL takes and that are refused here on purpose.
var refusedHere = []string{
	"local all all password", "host all all all gss", "host all all all ident", "host all all all pam", "host all all all ldap ldapserver=x ldapprefix=y",
	"host all all db.example.com trust", "host all all .example.com trust", "hostssl all all all cert clientname=DN", `local all all "trust`,
	"hostgssenc all all all trust", "local all + trust", "host all all 127.1/32 trust",
}

// TestPostgreSQLReadsRulesTheSame puts each line into the server's own
// pg_hba.conf and asks what it makes of it.
func TestPostgreSQLReadsRulesTheSame(t *testing.T) {
	serveTLS(t) // without, hostssl is a line that cannot match
	t.Cleanup(func() {
		if err := pg.SetHBA("host all all 127.0.0.1/32 scram-sha-256"); err != nil {
			t.Error(err)
		}
	})
	lines := append(append([]string(nil), sameLines...), refusedHere...)
	if err := pg.WriteFile("data/pg_hba.conf", []byte(strings.Join(lines, "\n")+"\n")); err != nil {
		t.Fatal(err) // the view reads the file; the server goes on with what it has
	}
	conn, err := pgx.Connect(within(t), pg.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(within(t)) //nolint:errcheck // a test's connection
	rows, err := conn.Query(within(t), `SELECT line_number, coalesce(error, ''),
		concat_ws(' ', type, array_to_string(database, ','), array_to_string(user_name, ','), address, netmask, auth_method, array_to_string(options, ' '))
		FROM pg_hba_file_rules ORDER BY line_number`)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for rows.Next() {
		var n int
		var fault, theirs string
		if err := rows.Scan(&n, &fault, &theirs); err != nil {
			t.Fatal(err)
		}
		seen[n] = true
		if fault == "" && theirs == "" { // version 15 forgets to say why it refused some options
			fault = "refused"
		}
		text := lines[n-1]
		ours, err := hba.Load(written(t, text))
		switch {
		case n > len(sameLines):
			if fault != "" || err == nil {
				t.Errorf("%s: PostgreSQL says %q, we %v; it belongs among the same", text, fault, err)
			}
		case (fault == "") != (err == nil):
			t.Errorf("%s: PostgreSQL says %q, we say %v", text, fault, err)
		case err == nil && strings.TrimSpace(ours.String()) != strings.ReplaceAll(theirs, " clientname=CN", ""):
			t.Errorf("%s:\n%swe read; PostgreSQL\n%s", text, ours, theirs)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for n := range lines {
		if !seen[n+1] {
			t.Errorf("PostgreSQL passed over line %d: %s", n+1, lines[n])
		}
	}
}

// TestPostgreSQLReadsMapsTheSame does so with pg_ident.conf.
func TestPostgreSQLReadsMapsTheSame(t *testing.T) {
	lines := []string{
		"m anna anna_db", `m "Anna Doe" anna`, `m /^(.*)@x$ \1`, "m /^x y", `m /^x \1`, "m /( y", "m", "m a", "m a,b c", "m,n a b", `m "a""b" c`,
	}
	t.Cleanup(func() {
		if err := pg.WriteFile("data/pg_ident.conf", nil); err != nil {
			t.Error(err)
		}
	})
	if err := pg.WriteFile("data/pg_ident.conf", []byte(strings.Join(lines, "\n")+"\n")); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(within(t), pg.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(within(t)) //nolint:errcheck // a test's connection
	rows, err := conn.Query(within(t), "SELECT line_number, coalesce(error, ''), coalesce(map_name, ''), coalesce(sys_name, ''), coalesce(pg_username, '') FROM pg_ident_file_mappings")
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var n int
		var fault, name, system, role string
		if err := rows.Scan(&n, &fault, &name, &system, &role); err != nil {
			t.Fatal(err)
		}
		ours, err := hba.LoadMaps(written(t, lines[n-1]))
		// That a regular expression has no parentheses is found there at the login.
		late := strings.Contains(fmt.Sprint(err), "has no subexpressions")
		if (fault == "") != (err == nil) && !late {
			t.Errorf("%s: PostgreSQL says %q, we say %v", lines[n-1], fault, err)
		}
		if want := fmt.Sprintf("%s %q %q", name, system, role); err == nil && !strings.HasPrefix(ours.String(), want) {
			t.Errorf("%s: we read %s, PostgreSQL %s", lines[n-1], ours, want)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}
