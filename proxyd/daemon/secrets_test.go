package daemon_test

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/labtest"
	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/client"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// secrets are what nobody may be told, and what each of them is.
type secrets map[string]string

// add takes a secret in each of the forms in which it could slip out.
func (s secrets) add(what string, b []byte) {
	s[string(b)] = what
	s[strings.Trim(strconv.Quote(string(b)), `"`)] = what + ", in quotes"
	s[hex.EncodeToString(b)] = what + ", in hexadecimal"
	s[fmt.Sprintf("%X", b)] = what + ", in capitals"
	s[base64.RawStdEncoding.EncodeToString(b)] = what + ", in base64"
	s[base64.RawURLEncoding.EncodeToString(b)] = what + ", in a URL"
	s[strings.Trim(fmt.Sprint(b), "[]")] = what + ", as Go prints it"
}

// in names the secrets that a text has.
func (s secrets) in(text string) (found []string) {
	for secret, what := range s {
		if strings.Contains(text, secret) {
			found = append(found, what)
		}
	}
	return found
}

const (
	tellersPassword = "over-the-counter-4711"
	guessedPassword = "under-the-counter-0815"
	inlinePassword  = "written-into-the-file-1234"
)

// TestNoSecretIsToldAnywhere: a pair's day with everything logged. Its clients
// log in rightly and wrongly and cancel, its configuration is reloaded with
// faults, its primary is lost and comes back. Whatever can be read of that day
// afterwards, and the command lines meanwhile, have no password in them, nor
// what one is proved by, nor a key of a cancel request.
func TestNoSecretIsToldAnywhere(t *testing.T) {
	l := labtest.Up(t, lab.Options{})
	c := client.New(l.Socket())
	defer c.Close()
	f := follow(c)
	f.until(t, "in sync", protected("pgsql1"))
	d := &day{Lab: l, t: t, c: c, told: make(map[string]string), never: make(secrets)}
	d.configure(strings.NewReplacer("[proxy]\n", "[proxy]\nadmin_users = [\"test1\"]\n", "[control]\n", "[log]\nlevel = \"debug\"\n\n[control]\n"))
	d.sql("pgsql1", "CREATE ROLE teller LOGIN PASSWORD '"+tellersPassword+"'")
	d.knowSecrets()
	lines := d.watchCommandLines()
	d.clientsComeAndGo()
	d.badConfigurations()
	d.rehearse()
	f.until(t, "the pair as it was", protected("pgsql1"))
	d.clientsComeAndGo()
	d.told["command lines"] = lines()
	d.gather()
	for where, text := range d.told {
		for _, what := range d.never.in(text) {
			t.Errorf("%s: %s is told", where, what)
		}
	}
	for where, word := range map[string]string{
		"log/proxyd.log": "level=DEBUG", "command lines": "pg_rewind", "SHOW CLIENTS": "test1", "SHOW CONFIG": "health_check.password", "/v1/events": "step.done",
		"/metrics": "pgtandem_logins_total", "pgtandem --batch --json operations": "pgsql2", "errors": "password authentication failed", "/v1/drills/reports": "primary-stop",
	} {
		if !strings.Contains(d.told[where], word) {
			t.Errorf("%s: %q is not in it: little was told:\n%.2000s", where, word, d.told[where])
		}
	}
}

// day is a pair's, and what was told of it.
type day struct {
	*labtest.Lab
	t     *testing.T
	c     *client.Client
	told  map[string]string // by where
	never secrets
}

func (d *day) sql(node, text string, into ...any) {
	d.t.Helper()
	conn := d.SQL(node, "postgres")
	var err error
	if len(into) > 0 {
		err = conn.QueryRow(d.t.Context(), text).Scan(into...)
	} else {
		_, err = conn.Exec(d.t.Context(), text)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// knowSecrets finds what the pair has that nobody may be told. The password of
// the lab's own user is its name, and is told everywhere.
func (d *day) knowSecrets() {
	for _, p := range []string{tellersPassword, guessedPassword, inlinePassword} {
		d.never.add("the password "+p, []byte(p))
	}
	for _, pattern := range []string{"secrets/*", "ssh/id_ed25519"} {
		files, err := filepath.Glob(filepath.Join(d.Dir, pattern))
		if err != nil || len(files) == 0 {
			d.t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				d.t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				if line = strings.TrimSpace(line); line != d.Status().Password && !strings.HasPrefix(line, "-----") {
					d.never.add("a line of "+file, []byte(line))
				}
			}
		}
	}
	var verifiers []string
	d.sql("pgsql1", "SELECT array_agg(rolpassword) FROM pg_authid WHERE rolpassword IS NOT NULL", &verifiers)
	for _, v := range verifiers {
		d.never.add("a verifier", []byte(v))
		parsed, err := wire.ParseVerifier(v)
		if err != nil {
			d.t.Fatal(err)
		}
		d.never.add("a stored key", parsed.StoredKey[:])
		d.never.add("a server's key", parsed.ServerKey[:])
	}
	var own string
	d.sql("pgsql1", "SELECT rolpassword FROM pg_authid WHERE rolname = 'teller'", &own)
	v, err := wire.ParseVerifier(own)
	if err != nil {
		d.t.Fatal(err)
	}
	salted, err := pbkdf2.Key(sha256.New, tellersPassword, v.Salt, v.Iterations, sha256.Size)
	if err != nil {
		d.t.Fatal(err)
	}
	mac := hmac.New(sha256.New, salted)
	mac.Write([]byte("Client Key"))
	d.never.add("a salted password", salted)
	d.never.add("the key that opens the servers", mac.Sum(nil))
}

// clientsComeAndGo in every way that says something of them.
func (d *day) clientsComeAndGo() {
	d.t.Helper()
	s := d.Status()
	login := func(user, password string) (*pgx.Conn, error) {
		conn, err := pgx.Connect(d.t.Context(), fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=disable max_protocol_version=3.2", s.Proxy.Host, s.Proxy.Port, user, password, s.Database))
		var e *pgconn.PgError
		if errors.As(err, &e) {
			d.told["errors"] += fmt.Sprintf("%+v\n", e)
		}
		return conn, err
	}
	for _, user := range []string{"teller", "nobody"} {
		if _, err := login(user, guessedPassword); err == nil {
			d.t.Errorf("%s got in with a wrong password", user)
		}
	}
	conn, err := login("teller", tellersPassword)
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close(context.Background()) //nolint:errcheck // a test's connection
	d.never.add("the key of a cancel request", conn.PgConn().SecretKey())
	for _, q := range []string{"SELECT 1/0", "SELEKT", "SELECT * FROM pg_authid"} {
		if _, err := conn.Exec(d.t.Context(), q); err == nil {
			d.t.Errorf("%s is no error", q)
		} else {
			d.told["errors"] += fmt.Sprintln(err)
		}
	}
	slept := make(chan error, 1)
	go func() { _, err := conn.Exec(d.t.Context(), "SELECT pg_sleep(300)"); slept <- err }()
	for over := false; !over; {
		if err := conn.PgConn().CancelRequest(d.t.Context()); err != nil {
			d.t.Fatal(err)
		}
		select {
		case err := <-slept:
			d.told["errors"] += fmt.Sprintln(err)
			over = true
		case <-time.After(10 * time.Millisecond): // it may have come before the statement
		}
	}
}

// configure changes the configuration, and has it reloaded.
func (d *day) configure(change *strings.Replacer) {
	d.t.Helper()
	text, err := os.ReadFile(d.Config())
	if err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(d.Config(), []byte(change.Replace(string(text))), 0o644); err != nil {
		d.t.Fatal(err)
	}
	if _, err := d.c.Reload(d.t.Context()); err != nil {
		d.told["errors"] += fmt.Sprintln(err)
	}
}

// badConfigurations have faults on and around a password.
func (d *day) badConfigurations() {
	d.t.Helper()
	const at, quoted = "[health_check]\n", `"` + inlinePassword + `"`
	for _, fault := range []string{
		`password = "` + inlinePassword, "password = " + inlinePassword, "pasword = " + quoted, "password = [" + quoted + "]", "password = " + quoted, "password = {a = " + quoted + "}",
	} {
		before := len(d.told["errors"])
		d.configure(strings.NewReplacer(at, at+fault+"\n"))
		if len(d.told["errors"]) == before {
			d.t.Errorf("%s was taken", fault)
		}
		d.configure(strings.NewReplacer(at+fault+"\n", at))
	}
}

// rehearse loses the primary, and has it back.
func (d *day) rehearse() {
	d.t.Helper()
	op, err := d.c.StartDrill(d.t.Context(), api.DrillRequest{Name: "primary-stop"})
	if err != nil {
		d.t.Fatal(err)
	}
	if op, err = d.c.Operation(d.t.Context(), op.ID, 4*time.Minute); err != nil || op.State != api.OpDone {
		d.t.Fatalf("it ended as %+v, %v", op, err)
	}
}

// watchCommandLines gathers those of all processes, until it is asked for them.
func (d *day) watchCommandLines() (all func() string) {
	seen := make(map[string]struct{})
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			files, err := filepath.Glob("/proc/[0-9]*/cmdline")
			if err != nil {
				d.t.Error(err)
			}
			for _, file := range files {
				if b, err := os.ReadFile(file); err == nil { // else it has just ended
					seen[strings.ReplaceAll(string(b), "\x00", " ")] = struct{}{}
				}
			}
		}
	})
	return func() string {
		close(stop)
		watching.Wait()
		var b strings.Builder
		for line := range seen {
			fmt.Fprintln(&b, line)
		}
		return b.String()
	}
}

// gather reads all that is there to be read.
func (d *day) gather() {
	d.files()
	d.controlSocket()
	d.consoles()
}

// files are the logs of all programs, and the daemon's journal.
func (d *day) files() {
	for _, under := range []string{"log", "state", "pgsql1/postgresql.log", "pgsql2/postgresql.log", "run"} {
		err := filepath.WalkDir(filepath.Join(d.Dir, under), func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			name, _ := filepath.Rel(d.Dir, path)
			d.told[name] = string(b)
			return err
		})
		if err != nil {
			d.t.Error(err)
		}
	}
}

// controlSocket asks for everything that can be asked for.
func (d *day) controlSocket() {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", d.Socket())
	}}
	defer tr.CloseIdleConnections()
	for _, path := range []string{api.PathState, api.PathPools, api.PathClients, api.PathConfig, api.PathOperations, api.PathDrills, api.PathDrillReports, api.PathSyncFiles, api.PathMetrics, api.PathEvents} {
		query := ""
		if path == api.PathEvents {
			query = "?since=0&limit=1000&format=json"
		}
		res, err := (&http.Client{Transport: tr}).Get("http://x" + path + query)
		if err != nil {
			d.t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK {
			d.t.Errorf("%s: %s, %v", path, res.Status, err)
		}
		d.told[path] = string(b)
	}
}

// consoles are the one over SQL, and the one of the shell.
func (d *day) consoles() {
	help, err := psql(d.t, d.Lab, "pgtandem", "SHOW HELP")
	if err != nil {
		d.t.Fatal(err)
	}
	shows := 0
	for line := range strings.Lines(help) {
		if command, _, _ := strings.Cut(line, "|"); strings.HasPrefix(command, "SHOW ") {
			shows++
			out, err := psql(d.t, d.Lab, "pgtandem", command)
			if err != nil {
				d.t.Errorf("%s: %v %s", command, err, out)
			}
			d.told[command] = out
		}
	}
	if shows < 10 {
		d.t.Errorf("SHOW HELP names %d other SHOW: %s", shows, help)
	}
	for _, command := range []string{"status", "nodes", "pools", "clients", "config", "sync-files", "operations", "explain", "events"} {
		for _, how := range [][]string{{"--batch", "--json", command}, {"--batch", command}} {
			cmd := exec.CommandContext(d.t.Context(), filepath.Join(labtest.Programs(d.t), "pgtandem"), append([]string{"--socket", d.Socket()}, how...)...)
			out, err := cmd.CombinedOutput()
			if err != nil {
				d.t.Errorf("%v: %v %s", how, err, out)
			}
			d.told["pgtandem "+strings.Join(how, " ")] = string(out)
		}
	}
}
