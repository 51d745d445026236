package session

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// secretForms is something that nobody may be told, in each of the forms in which it
// could slip out.
func secretForms(what string, b []byte) map[string]string {
	return map[string]string{
		what + ", as it is": string(b), what + " in quotes": strings.Trim(strconv.Quote(string(b)), `"`),
		what + " in hexadecimal": hex.EncodeToString(b), what + " in capitals": fmt.Sprintf("%X", b),
		what + " in base64": base64.RawStdEncoding.EncodeToString(b), what + " in a URL": base64.RawURLEncoding.EncodeToString(b),
		what + " as Go prints it": strings.Trim(fmt.Sprint(b), "[]"),
	}
}

// TestNoSecretIsTold: logins by every method that has a secret, right and wrong,
// and errors on the way, with everything logged. Neither the log nor what the
// proxy shows of itself nor what the clients were told has any of them.
func TestNoSecretIsTold(t *testing.T) {
	const right, wrong = "correct-horse-battery", "staple-of-another-kind"
	pg.Exec(t, "postgres", "DROP ROLE IF EXISTS s_scram, s_md5, s_gone",
		"CREATE ROLE s_scram LOGIN PASSWORD '"+right+"'",
		"SET password_encryption = md5; CREATE ROLE s_md5 LOGIN PASSWORD '"+right+"'")
	rules := rulesOf(t, "host all s_md5 all md5\nhost all all all scram-sha-256\n")
	told := &strings.Builder{}
	secrets := map[string]string{"the password": right, "the wrong password": wrong}
	add := func(more map[string]string) {
		for k, v := range more {
			secrets[k] = v
		}
	}
	for _, user := range []string{"s_scram", "s_md5", "test1"} {
		v, err := sqlVerifiers{pg}.Lookup(within(t), user)
		if err != nil {
			t.Fatal(err)
		}
		secrets["what the server keeps of "+user] = strings.TrimPrefix(v.Secret, "md5")
	}
	role, err := sqlVerifiers{pg}.Lookup(within(t), "s_scram")
	if err != nil {
		t.Fatal(err)
	}
	cred := credentialOf(t, role.Secret, right)
	add(secretForms("the key that opens the servers", cred.Key[:]))
	add(secretForms("the stored key", cred.SCRAM.StoredKey[:]))
	add(secretForms("the server's key", cred.SCRAM.ServerKey[:]))
	for _, mode := range bothModes {
		p := startProxy(t, mode, func(o *Options) { o.Security.Rules = rules })
		for _, who := range []struct{ user, password string }{
			{"s_scram", right}, {"s_scram", wrong}, {"s_md5", right}, {"s_md5", wrong}, {"s_gone", right}, {"test1", wrong},
		} {
			conn, err := pgx.Connect(within(t), p.as(who.user, who.password, "postgres", "max_protocol_version=3.2"))
			if err != nil {
				fmt.Fprintln(told, withoutDSN(err))
				continue
			}
			add(secretForms(fmt.Sprintf("a cancel key of %s in %s mode", who.user, mode), conn.PgConn().SecretKey()))
			_, err = conn.Exec(within(t), "SELECT 1/0")
			fmt.Fprintln(told, err)
			fmt.Fprintf(told, "%+v\n%+v\n", p.Look(), p.Stats())
			raw := p.dialRaw(t)
			wrongKey := append(wire.CancelKey(nil), conn.PgConn().SecretKey()...)
			wrongKey[0]++
			if _, err := raw.Write(wire.AppendCancel(nil, conn.PgConn().PID(), wrongKey)); err != nil {
				t.Fatal(err)
			}
			conn.Close(context.Background()) //nolint:errcheck // a test's connection
		}
		p.Cut("a test") // with whatever is said of servers that are lost
		told.WriteString(p.log.String())
	}
	if !strings.Contains(told.String(), "a login failed") || !strings.Contains(told.String(), "s_scram") {
		t.Fatalf("little was told:\n%s", told)
	}
	for what, secret := range secrets {
		if len(secret) < 8 {
			t.Errorf("%s is too short to be looked for", what)
		} else if strings.Contains(told.String(), secret) {
			t.Errorf("%s is told", what)
		}
	}
}

// withoutDSN is the server's own part of what pgx says.
func withoutDSN(err error) string {
	text := err.Error()
	return text[max(0, strings.LastIndex(text, "failed")):]
}
