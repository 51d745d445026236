package batch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/client"
	"github.com/pgtandem/pgtandem/tui/batch"
	"github.com/pgtandem/pgtandem/tui/fixture"
	"github.com/pgtandem/pgtandem/tui/present"
)

// session is a person or a script at the command line.
type session struct {
	daemon   *fixture.Daemon
	env      batch.Env
	out, err bytes.Buffer
}

func newSession(t *testing.T) *session {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	d, err := fixture.Serve(socket, fixture.Options{Now: func() time.Time { return fixture.Epoch }})
	if err != nil {
		t.Fatal(err)
	}
	c := client.New(socket)
	t.Cleanup(func() { c.Close(); d.Close() })
	s := &session{daemon: d}
	s.env = batch.Env{Look: c, Act: c, In: strings.NewReader(""), Out: &s.out, Err: &s.err, Now: func() time.Time { return fixture.Epoch },
		Glyphs: present.ASCII(), CheckConfig: func(string) error { return nil }}
	return s
}

// run runs a line and gives its exit code and what it printed.
func (s *session) run(t *testing.T, line string) (code int, out, msg string) {
	t.Helper()
	words, err := batch.Words(line)
	if err != nil {
		t.Fatal(err)
	}
	s.out.Reset()
	s.err.Reset()
	err = batch.Run(t.Context(), s.env, words)
	msg = s.err.String()
	if err != nil {
		msg += batch.Message(err)
	}
	return batch.ExitCode(err), s.out.String(), msg
}

func TestCommandsAndTheirExitCodes(t *testing.T) {
	for _, c := range []struct {
		line     string
		code     int
		out, msg string // parts
	}{
		{"status", 0, "if pgsql1 dies now: pgsql2 is promoted", ""},
		{"status", 0, "promotion to term 5: needs 1 promise, has 0, could have 1; best pgsql2", ""},
		{"explain", 0, "31 primary lost: the primary is gone and an eligible standby holds every acknowledged commit", ""},
		{"explain", 0, "clients: held up to 30s", ""},
		{"explain", 0, "failover.when_not_in_sync = hold", ""},
		{"explain --json", 0, `"considered": [`, ""},
		{"explain pgsql1", 2, "", "unknown command"},
		{"nodes", 0, "pgsql2", ""},
		{"pools", 0, "transaction", ""},
		{"clients", 0, "198.51.100.7:40122", ""},
		{"config", 0, `name = "main"`, ""},
		{"sync-files", 0, "+synchronous_standby_names = ''", ""},
		{"operations", 0, "promote", ""},
		{"operation 20260314T082653.589-4", 0, "close the gate", ""},
		{"operation nope", 2, "", `operation "nope" is not known`},
		{"events --limit 2", 0, "config.reloaded", ""},
		{"events --level loud", 2, "", "info, warn or error"},
		{"plan promote pgsql2", 0, "SELECT pg_promote(true, 60)", ""},
		{"plan promote", 2, "", "needs a node's name"},
		{"plan set-mode half", 2, "", `no mode "half"`},
		{"plan", 2, "", "a plan of what?"},
		{"promote pgsql2", 3, "", "pass --confirm pgsql2 to promote pgsql2"},
		{"promote pgsql2 --confirm pgsql1", 3, "", "does not match"},
		{"promote pgsql1 --confirm pgsql1", 3, "", "is the primary already"},
		{"promote pgsql9 --confirm pgsql9", 2, "", `no node "pgsql9"`},
		{"promote pgsql2 --confirm pgsql2", 0, "promote pgsql2", "promote pgsql2  done in 72 ms"},
		{"set-mode async --confirm async", 0, "DONE set-mode async", "3 commits that wait now"},
		{"set-mode async --dry-run", 0, "from then on a commit waits for nobody", ""},
		{"rejoin pgsql2 --confirm pgsql2", 3, "", "follows pgsql1 already"},
		{"provision --dry-run", 4, "", "hold data already"},
		{"drill --list", 0, "standby-stop", ""},
		{"drill --reports", 0, "PASS", ""},
		{"drill", 2, "", "drill --list"},
		{"drill nothing", 2, "", "there are primary-stop, standby-stop"},
		{"drill primary-stop --dry-run", 0, "pg_ctl -m immediate stop on the primary", ""},
		{"drill primary-stop", 0, "longest pause 318 ms", "4 clients write through the proxy"},
		{"reload", 0, "applied  proxy.hold_timeout", ""},
		{"reload --dry-run", 0, "is valid", ""},
		{"maintenance on", 0, "keeps its hands off", ""},
		{"maintenance perhaps", 2, "", "on or off"},
		{"", 2, "", "which command?"},
		{"frobnicate", 2, "", `unknown command "frobnicate"`},
		{"status --colour", 2, "", "unknown flag"},
		{"exit-codes", 0, "130  interrupted", ""},
	} {
		t.Run(c.line, func(t *testing.T) {
			code, out, msg := newSession(t).run(t, c.line)
			if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(msg, c.msg) {
				t.Errorf("exit %d, want %d\nstdout:\n%s\nstderr:\n%s\nwant %q and %q", code, c.code, out, msg, c.out, c.msg)
			}
		})
	}
}

func TestWhatIsRefusedChangesNothing(t *testing.T) {
	for _, line := range []string{
		"promote pgsql2", "promote pgsql2 --confirm wrong", "promote pgsql2 --dry-run --confirm pgsql2", "set-mode async", "provision --dry-run",
		"drill primary-stop --dry-run", "reload --dry-run", "maintenance on --dry-run", "plan promote pgsql2", "plan set-mode async",
	} {
		s := newSession(t)
		s.run(t, line)
		if calls := s.daemon.Calls(); len(calls) != 0 {
			t.Errorf("%q asked for %v", line, calls)
		}
	}
}

func TestRefusalsOfTheDaemonHaveTheirExitCodes(t *testing.T) {
	for code, exit := range map[string]int{
		api.CodeUsage: 2, api.CodeNotFound: 2, api.CodePrecondition: 3, api.CodeStale: 3, api.CodeConfirm: 3, api.CodeBusy: 3,
		api.CodeUnsafe: 4, api.CodeTimeout: 5, api.CodeUnknown: 6, api.CodePermission: 8, api.CodeInternal: 1, "from the future": 1,
	} {
		s := newSession(t)
		s.daemon.Refuse("POST "+api.PathPlans, &api.Error{Code: code, Message: "no", Moved: []string{"term was 4 and is 5"}})
		got, out, msg := s.run(t, "promote pgsql2 --confirm pgsql2")
		if got != exit || out != "" || !strings.Contains(msg, "term was 4 and is 5") {
			t.Errorf("%s: exit %d, want %d; stdout %q, stderr %q", code, got, exit, out, msg)
		}
	}
}

func TestNoDaemonIsExit7(t *testing.T) {
	s := newSession(t)
	s.daemon.Stop()
	for _, line := range []string{"status", "promote pgsql2 --confirm pgsql2", "events --follow", "drill primary-stop"} {
		if code, out, _ := s.run(t, line); code != batch.ExitUnreachable || out != "" {
			t.Errorf("%s: exit %d, stdout %q", line, code, out)
		}
	}
}

func TestStatusAsJSONIsTheState(t *testing.T) {
	_, out, _ := newSession(t).run(t, "status --json")
	var got api.State
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if got.Term != 4 || got.Primary != "pgsql1" || got.Mode != "sync" || got.GateState != "open" || len(got.Nodes) != 2 || !got.Nodes[1].Eligible {
		t.Errorf("got %+v", got)
	}
	for _, key := range []string{`"gate": "open"`, `"lag_bytes"`, `"sync_state": "sync"`, `"timeline": 4`} {
		if !strings.Contains(out, key) {
			t.Errorf("no %s in\n%s", key, out)
		}
	}
}

func TestEveryJSONOutputIsOneDocument(t *testing.T) {
	for _, line := range []string{"nodes", "events", "plan promote pgsql2", "promote pgsql2 --confirm pgsql2", "drill --list", "drill --reports",
		"drill primary-stop", "reload", "maintenance off", "config", "pools", "clients", "operations", "sync-files", "reload --dry-run"} {
		s := newSession(t)
		code, out, msg := s.run(t, line+" --json")
		if code != 0 || !json.Valid([]byte(out)) {
			t.Errorf("%s: exit %d, %s\n%s", line, code, msg, out)
		}
	}
}

func TestADrillAsJSONIsItsReport(t *testing.T) {
	_, out, _ := newSession(t).run(t, "drill primary-stop --json")
	var got map[string]any
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"verdict", "longest_pause_ms", "errors", "connect_errors", "acknowledged", "lost", "unknown", "steps"} {
		if _, ok := got[key]; !ok {
			t.Errorf("no %q in %v", key, got)
		}
	}
}

func TestOnATerminalTheNameIsAskedFor(t *testing.T) {
	for typed, want := range map[string]int{"pgsql2\n": 0, "\n": 3, "y\n": 3, "pgsql1\n": 3, "": 3} {
		s := newSession(t)
		s.env.Terminal, s.env.In = true, strings.NewReader(typed)
		code, _, msg := s.run(t, "promote pgsql2")
		if code != want || !strings.Contains(msg, "Type pgsql2 to promote pgsql2: ") {
			t.Errorf("typed %q: exit %d, want %d: %s", typed, code, want, msg)
		}
		if ran := len(s.daemon.Calls()) > 0; ran != (want == 0) {
			t.Errorf("typed %q: asked for %v", typed, s.daemon.Calls())
		}
	}
}

func TestAFileStopsAtTheFirstFailureAndNamesTheLine(t *testing.T) {
	s := newSession(t)
	file := "# maintenance of pgsql1\n\nnodes\nmaintenance on --reason 'new disk # 2'\npromote pgsql9 --confirm pgsql9\nreload\n"
	err := batch.File(t.Context(), s.env, "night.pgt", strings.NewReader(file))
	if batch.ExitCode(err) != 2 || !strings.HasPrefix(batch.Message(err), "night.pgt:5: promote pgsql9") {
		t.Errorf("%d: %v", batch.ExitCode(err), err)
	}
	if got := strings.Join(s.daemon.Calls(), ","); got != "POST /v1/maintenance" {
		t.Errorf("asked for %s", got)
	}
}

func TestAFileWithABadLineDoesNotRunIt(t *testing.T) {
	for file, want := range map[string]string{
		"reload 'now":        `-:1: the quote ' is not closed`,
		"nodes\nreload \\":   `-:2: a backslash ends the line`,
		"pgtandem status":    `-:1: write the command alone`,
		"nodes\n\nstatus -x": `-:3: status -x: unknown shorthand flag`,
	} {
		s := newSession(t)
		err := batch.File(t.Context(), s.env, "-", strings.NewReader(file))
		if batch.ExitCode(err) != 2 || !strings.HasPrefix(batch.Message(err), want) {
			t.Errorf("%q: %d %v, want %s", file, batch.ExitCode(err), err, want)
		}
		if calls := s.daemon.Calls(); len(calls) > 0 {
			t.Errorf("%q asked for %v", file, calls)
		}
	}
}

func TestFollowPrintsEachEventOnceAndEndsOnlyWhenTold(t *testing.T) {
	s := newSession(t)
	ctx, cancel := context.WithCancel(t.Context())
	lines := make(chan string, 100)
	s.env.Out = writer(func(b []byte) { lines <- string(b) })
	done := make(chan error, 1)
	go func() { done <- batch.Run(ctx, s.env, []string{"events", "--follow", "--json", "--limit", "1"}) }()
	want := func(text string) {
		t.Helper()
		var e api.Event
		select {
		case l := <-lines:
			if err := json.Unmarshal([]byte(l), &e); err != nil || e.Text != text {
				t.Fatalf("got %q, want the event %q", l, text)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("no event %q", text)
		}
	}
	want("proxy.hold_timeout is 30s now")
	for _, text := range []string{"one", "two", "three"} {
		s.daemon.Emit(api.Event{Level: "info", Kind: "test", Text: text})
	}
	want("one")
	want("two")
	want("three")
	cancel()
	if err := <-done; batch.ExitCode(err) != batch.ExitInterrupted {
		t.Errorf("ended with %v", err)
	}
}

func TestAClosedPipeEndsTheCommand(t *testing.T) {
	s := newSession(t)
	s.env.Out = failing{}
	if code, _, msg := s.run(t, "status"); code != batch.ExitInternal || !strings.Contains(msg, "write the output") {
		t.Errorf("exit %d: %s", code, msg)
	}
}

func TestAnOperationThatOutlastsTheTimeoutGoesOn(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	d, err := fixture.Serve(socket, fixture.Options{Now: time.Now, Pace: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	s := &session{daemon: d}
	c := client.New(socket)
	defer c.Close()
	s.env = batch.Env{Look: c, Act: c, Out: &s.out, Err: &s.err, Now: time.Now, Glyphs: present.ASCII()}
	code, _, msg := s.run(t, "promote pgsql2 --confirm pgsql2 --timeout 50ms")
	if code != batch.ExitTimeout || !strings.Contains(msg, "goes on in the daemon") {
		t.Errorf("exit %d: %s", code, msg)
	}
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestWordsReadAsAShellWould(t *testing.T) {
	for line, want := range map[string]string{
		"status --json":                  "status|--json",
		"  promote\tpgsql2  # tonight":   "promote|pgsql2",
		"x 'a b' \"c \\\" d\" e\\ f":     `x|a b|c " d|e f`,
		"a# b":                           "a#|b",
		"''":                             "",
		"# nothing":                      "",
		"x --reason='it''s' \"$HOME\"":   "x|--reason=its|$HOME",
		"x 'it'\\''s' \"a\\n\" 'back\\'": `x|it's|a\n|back\`,
	} {
		got, err := batch.Words(line)
		if err != nil || strings.Join(got, "|") != want {
			t.Errorf("%q: %q, %v; want %q", line, got, err, want)
		}
	}
}

func FuzzQuotedWordsComeBack(f *testing.F) {
	for _, s := range []string{"", "a", "a b", "it's", `back\slash`, "#x", "日本 ", "a\"b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.ContainsAny(s, "\n") || strings.ToValidUTF8(s, "") != s {
			return
		}
		got, err := batch.Words("x " + batch.Quote(s))
		if err != nil || len(got) != 2 || got[1] != s {
			t.Errorf("%q became %q, %v", s, got, err)
		}
	})
}
