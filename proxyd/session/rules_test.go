package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// libpq runs psql: what it prints, or the server's complaint.
func libpq(t testing.TB, account, conninfo, password, query string) (out, complaint string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "psql", "-XAtw", "-c", query, conninfo+" connect_timeout=30")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PGPASSWORD=" + password, "HOME=/nonexistent", "LC_ALL=C"}
	cmd.Dir = "/"
	if account != "" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential(t, account)}
	}
	b, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		complaint = string(exit.Stderr)
		// Where it failed is different; what the server said is not.
		if i := strings.Index(complaint, "FATAL:"); i >= 0 {
			complaint = complaint[i:]
		}
	}
	return strings.TrimSpace(string(b)), strings.TrimSpace(complaint)
}

// pgError is what a server answers to a login.
func pgError(t testing.TB, dsn string) *pgconn.PgError {
	t.Helper()
	conn, err := pgx.Connect(within(t), dsn)
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		if err == nil {
			conn.Close(within(t)) //nolint:errcheck // a test's connection
		}
		t.Fatalf("%s: %v", dsn, err)
	}
	return e
}

func credential(t testing.TB, account string) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup(account)
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// socketDir is a directory for a Unix socket that any account can reach.
func socketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "pgt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The rules of TestLoginsAreWhatPostgreSQLMakesOfThem, for both.
const bothRules = `
local all h_scram scram-sha-256
local all "h o" trust
local all all peer map=m
hostssl all h_cert,nobody_cert 127.0.0.1/32 cert map=c
hostssl all h_both 127.0.0.1/32 scram-sha-256 clientcert=verify-full
hostssl all h_any 127.0.0.1/32 scram-sha-256 clientcert=verify-ca
hostnossl all h_plain 127.0.0.1/32 scram-sha-256
hostssl all h_secure 127.0.0.1/32 scram-sha-256
host all h_reject all reject
host all h_trust,h_nologin_trust,nobody_trust 127.0.0.1/32 trust
host all h_md5,h_md5_expired,h_scram_by_md5,nobody_md5 127.0.0.1/32 md5
host test1 h_onedb 127.0.0.1/32 scram-sha-256
host sameuser h_same samehost scram-sha-256
host all +h_group 127.0.0.1/32 scram-sha-256
host all h_far 10.9.8.7/32 scram-sha-256
host all h_scram,h_expired,h_nopass,h_nologin,h_md5_by_scram,nobody_scram 127.0.0.1/32 scram-sha-256
`

// TestLoginsAreWhatPostgreSQLMakesOfThem gives PostgreSQL and the proxy the same
// rules, and lets psql log in to either. What they say must be the same, word
// for word: only where the rules refuse, a hint says whose they are.
func TestLoginsAreWhatPostgreSQLMakesOfThem(t *testing.T) {
	pg.Exec(t, "postgres",
		"DROP ROLE IF EXISTS h_cert, h_both, h_any, h_plain, h_secure, h_reject, h_trust, h_nologin_trust, h_md5, h_md5_expired, h_scram_by_md5, h_onedb, h_same, h_member, h_group, h_far, h_scram, h_expired, h_nopass, h_nologin, h_md5_by_scram, h_peer, \"h o\"",
		"CREATE ROLE h_cert LOGIN", "CREATE ROLE h_both LOGIN PASSWORD 'pw'", "CREATE ROLE h_any LOGIN PASSWORD 'pw'", "CREATE ROLE h_plain LOGIN PASSWORD 'pw'",
		"CREATE ROLE h_secure LOGIN PASSWORD 'pw'", "CREATE ROLE h_reject LOGIN PASSWORD 'pw'", "CREATE ROLE h_trust LOGIN", "CREATE ROLE h_nologin_trust",
		"CREATE ROLE h_scram_by_md5 LOGIN PASSWORD 'pw'", "CREATE ROLE h_onedb LOGIN PASSWORD 'pw'", "CREATE ROLE h_same LOGIN PASSWORD 'pw'",
		"CREATE ROLE h_group", "CREATE ROLE h_member LOGIN PASSWORD 'pw' IN ROLE h_group", "CREATE ROLE h_far LOGIN PASSWORD 'pw'", "CREATE ROLE h_scram LOGIN PASSWORD 'pw'",
		"CREATE ROLE h_expired LOGIN PASSWORD 'pw' VALID UNTIL '2001-01-01'", "CREATE ROLE h_nopass LOGIN", "CREATE ROLE h_nologin PASSWORD 'pw'",
		"CREATE ROLE h_peer LOGIN", "CREATE ROLE \"h o\" LOGIN",
		"SET password_encryption = md5; CREATE ROLE h_md5 LOGIN PASSWORD 'pw'; CREATE ROLE h_md5_expired LOGIN PASSWORD 'pw' VALID UNTIL '2001-01-01'; CREATE ROLE h_md5_by_scram LOGIN PASSWORD 'pw'")
	ca, stranger := newAuthority(t), newAuthority(t)
	serveTLSWith(t, ca)
	if err := pg.WriteFile("data/pg_ident.conf", []byte("m postgres h_peer\nc h_cert h_cert\nc proxyd h_cert\nc h_cert nobody_cert\n")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(pg.WriteFile("data/pg_ident.conf", nil), pg.SetHBA("host all all 127.0.0.1/32 scram-sha-256")); err != nil {
			t.Error(err)
		}
	})
	if err := pg.SetHBA(bothRules); err != nil {
		t.Fatal(err)
	}

	dir, own, shown := socketDir(t), ca.sign(t, "proxyd"), ca.sign(t, "the proxy", loopback)
	p := startProxy(t, ModeSession, func(o *Options) {
		o.Limits.HoldTimeout = 1
		o.Security = Security{
			ClientTLS: ClientTLS{Mode: TLSAllow, Certificate: &shown.Certificate, CAs: ca.pool},
			ServerTLS: ServerTLS{Mode: TLSPrefer, Roots: ca.pool, Certificate: &own.Certificate},
			Rules:     rulesOf(t, bothRules),
			Maps:      mapsOf(t, "m postgres h_peer\nc h_cert h_cert\nc h_cert nobody_cert\n"),
		}
		o.Listeners = append(o.Listeners, listenLocal(t, dir, 4321))
	})
	certOf := func(a *authority, name string) string {
		cert, key := a.sign(t, name).files(t)
		return fmt.Sprintf(" sslcert=%s sslkey=%s", cert, key)
	}
	his, others, strangers := certOf(ca, "h_cert"), certOf(ca, "somebody"), certOf(stranger, "h_cert")
	both := certOf(ca, "h_both")
	const plain, secure, local = "sslmode=disable", "sslmode=require", ""
	for _, c := range []struct {
		story, user, password, how, database string
		ok                                   bool
		different                            string // why only the code and the first words are the same
	}{
		{"SCRAM", "h_scram", "pw", plain, "test1", true, ""},
		{"SCRAM over TLS", "h_scram", "pw", secure, "test1", true, ""},
		{"SCRAM bound to the channel", "h_scram", "pw", secure + " channel_binding=require", "test1", true, ""},
		{"SCRAM not bound", "h_scram", "pw", secure + " channel_binding=disable", "test1", true, ""},
		{"a wrong password", "h_scram", "wrong", plain, "test1", false, ""},
		{"a role that does not exist", "nobody_scram", "pw", plain, "test1", false, ""},
		{"a password that has expired", "h_expired", "pw", plain, "test1", false, ""},
		{"no password", "h_nopass", "pw", plain, "test1", false, ""},
		{"a role that may not log in", "h_nologin", "pw", plain, "test1", false, ""},
		{"an MD5 password where SCRAM is asked for", "h_md5_by_scram", "pw", plain, "test1", false, ""},
		{"MD5", "h_md5", "pw", plain, "test1", true, ""},
		{"MD5, a wrong password", "h_md5", "wrong", plain, "test1", false, ""},
		{"MD5, expired", "h_md5_expired", "pw", plain, "test1", false, ""},
		{"MD5, a role that does not exist", "nobody_md5", "pw", plain, "test1", false, ""},
		{"a SCRAM password where MD5 is allowed", "h_scram_by_md5", "pw", plain, "test1", true, ""},
		{"trust", "h_trust", "", plain, "test1", true, ""},
		{"trust, may not log in", "h_nologin_trust", "", plain, "test1", false, ""},
		{"trust, a role that does not exist", "nobody_trust", "", plain, "test1", false, ""},
		{"reject", "h_reject", "pw", plain, "test1", false, "hint"},
		{"reject over TLS", "h_reject", "pw", secure, "test1", false, "hint"},
		{"no rule for the address", "h_far", "pw", plain, "test1", false, "hint"},
		{"no rule for the user", "h_unheard", "pw", secure, "test1", false, "hint"},
		{"no rule for the database", "h_onedb", "pw", plain, "postgres", false, "hint"},
		{"the one database", "h_onedb", "pw", plain, "test1", true, ""},
		{"the database of one's own name", "h_same", "pw", plain, "test1", false, "hint"},
		{"a member of a group", "h_member", "pw", plain, "test1", true, ""},
		{"no encryption where it is asked for", "h_secure", "pw", plain, "test1", false, "hint"},
		{"encryption where it is asked for", "h_secure", "pw", secure, "test1", true, ""},
		{"encryption where none may be", "h_plain", "pw", secure, "test1", false, "hint"},
		{"a certificate", "h_cert", "", secure + his, "test1", true, ""},
		{"somebody else's certificate", "h_cert", "", secure + others, "test1", false, ""},
		{"no certificate", "h_cert", "", secure + " sslcert=/none", "test1", false, ""},
		{"a certificate for a role that does not exist", "nobody_cert", "", secure + his, "test1", false, ""},
		{"a certificate and a password", "h_both", "pw", secure + both, "test1", true, "server"},
		{"a password and another's certificate", "h_both", "pw", secure + others, "test1", false, ""},
		{"a password without the certificate", "h_both", "pw", secure + " sslcert=/none", "test1", false, ""},
		{"a wrong password with the certificate", "h_both", "wrong", secure + both, "test1", false, ""},
		{"any certificate and a password", "h_any", "pw", secure + others, "test1", true, ""},
		{"peer", "h_peer", "", local, "test1", true, "server"},
		{"peer, as somebody else", "h_trust", "", local, "test1", false, ""},
		{"SCRAM through the socket", "h_scram", "pw", local, "test1", true, ""},
		{"a wrong password through the socket", "h_scram", "wrong", local, "test1", false, ""},
		{"a database that does not exist", "h_trust", "", plain, "nowhere", false, ""},
	} {
		t.Run(c.story, func(t *testing.T) {
			account, direct, through := "", fmt.Sprintf("host=127.0.0.1 port=%d %s", pg.Port, c.how), fmt.Sprintf("host=127.0.0.1 port=%d %s", p.port, c.how)
			if c.how == local {
				account, direct, through = "postgres", fmt.Sprintf("host=%s port=%d", pg.Dir, pg.Port), fmt.Sprintf("host=%s port=4321", dir)
			}
			who := fmt.Sprintf(" user='%s' dbname=%s", c.user, c.database)
			var want, complaint string
			eventually(t, "the server has read its rules", func() bool {
				want, complaint = libpq(t, account, direct+who, c.password, "SELECT 'in'")
				return (want == "in") == c.ok
			})
			got, ours := libpq(t, account, through+who, c.password, "SELECT 'in'")
			if c.different == "hint" {
				ours = strings.Replace(ours, "\nHINT:  The rules are those of the proxy, not of the server.", "", 1)
			}
			if c.different == "server" { // its rules ask for what only the client itself has
				if !strings.Contains(p.log.String(), "a server refused a client's login\" user="+c.user) {
					t.Errorf("%s, %s", got, ours)
				}
				return
			}
			if got != want || ours != complaint {
				t.Errorf("the proxy:\n%s\n%s\nPostgreSQL:\n%s\n%s", got, ours, want, complaint)
			}
			if c.how == plain && !c.ok { // psql does not tell codes
				dsn := who + " sslmode=disable password=" + c.password
				ours, theirs := pgError(t, fmt.Sprintf("host=127.0.0.1 port=%d", p.port)+dsn), pgError(t, fmt.Sprintf("host=127.0.0.1 port=%d", pg.Port)+dsn)
				if ours.Code != theirs.Code || ours.Severity != theirs.Severity || ours.Message != theirs.Message || ours.Detail != theirs.Detail {
					t.Errorf("the proxy: %+v\nPostgreSQL: %+v", ours, theirs)
				}
			}
		})
	}
	for _, secret := range []string{"SCRAM-SHA-256$", "md5" + "0"} {
		if strings.Contains(p.log.String(), secret) {
			t.Errorf("a verifier is in the log")
		}
	}
	// A certificate that nobody trusts is refused before anything is said. How
	// libpq words it depends on who notices first.
	if _, complaint := libpq(t, "", fmt.Sprintf("host=127.0.0.1 port=%d user=h_cert dbname=test1 %s", p.port, secure+strangers), "", "SELECT 1"); !strings.Contains(complaint, "unknown ca") && !strings.Contains(complaint, "certificate") {
		t.Errorf("a stranger's certificate: %s", complaint)
	}
}
