package control_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/client"
	"github.com/pgtandem/pgtandem/proxyd/control"
)

func code(err error) string {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

func TestTheTypedClientReachesEveryMethod(t *testing.T) {
	f := newFake()
	f.ops["o1"] = api.Operation{ID: "o1", State: api.OpDone, Ended: &noon}
	c, _ := serve(t, f, "", nil)
	ctx := t.Context()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	st, err := c.State(ctx)
	must("state", err)
	if st.Primary != "pgsql1" || st.Nodes[0].Port != 5432 {
		t.Errorf("state: %+v", st)
	}
	es, err := c.Events(ctx, 0, 1)
	must("events", err)
	if len(es) != 1 || es[0].Seq != 2 {
		t.Errorf("the newest one event: %+v", es)
	}
	es, err = c.Events(ctx, 1, 0)
	must("events since", err)
	if len(es) != 1 || es[0].Seq != 2 {
		t.Errorf("events after 1: %+v", es)
	}
	p, err := c.Plan(ctx, api.PlanRequest{Action: "switchover", Node: "pgsql2"})
	must("plan", err)
	if me, err := user.Current(); err != nil || p.By != me.Username {
		t.Errorf("the plan is by %q, want the login %v (%v)", p.By, me, err)
	}
	_, err = c.PlanByID(ctx, "p 1/x")
	must("plan by id", err)
	_, err = c.Run(ctx, "p1", "pgsql2")
	must("run", err)
	_, err = c.Operation(ctx, "o1", 0)
	must("operation", err)
	_, err = c.Operations(ctx)
	must("operations", err)
	_, err = c.Drills(ctx)
	must("drills", err)
	_, err = c.StartDrill(ctx, api.DrillRequest{Name: "primary-stop"})
	must("start drill", err)
	_, err = c.DrillReports(ctx)
	must("drill reports", err)
	_, err = c.SyncFiles(ctx)
	must("sync files", err)
	_, err = c.Config(ctx)
	must("config", err)
	_, err = c.Reload(ctx)
	must("reload", err)
	_, err = c.Pools(ctx)
	must("pools", err)
	_, err = c.Clients(ctx)
	must("clients", err)
	st, err = c.Maintenance(ctx, api.MaintenanceRequest{On: true})
	must("maintenance", err)
	if !st.Maintenance {
		t.Error("maintenance is not on")
	}
	want := []string{"plan switchover pgsql2", "plan-by-id p 1/x", "run p1 pgsql2", "operations", "drills", "drill primary-stop",
		"drill-reports", "sync-files", "config", "reload", "pools", "clients", "maintenance true"}
	if !slices.Equal(f.calls, want) {
		t.Errorf("the backend was asked\n%q, want\n%q", f.calls, want)
	}
	if v, differs := c.Mismatch(); v != api.Version || differs {
		t.Errorf("version %d, differs %v", v, differs)
	}
}

func TestErrorsKeepTheirCodeThroughWrapping(t *testing.T) {
	f := newFake()
	c, _ := serve(t, f, "", nil)
	for _, want := range []string{
		api.CodeUsage, api.CodePrecondition, api.CodeStale, api.CodeConfirm, api.CodeUnsafe, api.CodeTimeout,
		api.CodeUnknown, api.CodePermission, api.CodeNotFound, api.CodeBusy, api.CodeInternal,
	} {
		f.fail = fmt.Errorf("run: %w", fmt.Errorf("engine: %w", &api.Error{Code: want, Message: "m", Moved: []string{"x"}}))
		_, err := c.Run(t.Context(), "p1", "")
		var e *api.Error
		if !errors.As(err, &e) || e.Code != want || e.Message != "m" || len(e.Moved) != 1 {
			t.Errorf("%s came back as %#v", want, err)
		}
	}
	f.fail = errors.New("disk full")
	if _, err := c.State(t.Context()); code(err) != api.CodeInternal {
		t.Errorf("an untyped error came back as %v", err)
	}
	f.fail = fmt.Errorf("ask pgsql1: %w", context.DeadlineExceeded)
	if _, err := c.SyncFiles(t.Context()); code(err) != api.CodeTimeout {
		t.Errorf("a deadline came back as %v", err)
	}
}

func TestWhoMayChange(t *testing.T) {
	me := strconv.Itoa(os.Geteuid())
	for _, tc := range []struct {
		name   string
		group  string
		as     control.Caller
		change bool
		look   bool
		remedy string
	}{
		{"root", "", control.Caller{UID: "0", User: "root"}, true, true, ""},
		{"the daemon's own user", "", control.Caller{UID: me, User: "pgtandem"}, true, true, ""},
		{"an operator", "dba", control.Caller{UID: "4711", User: "ann", Groups: []string{"users", "dba"}}, true, true, ""},
		{"somebody else", "dba", control.Caller{UID: "4712", User: "bob", Groups: []string{"users"}}, false, true, `group "dba"`},
		{"nobody is operator of no group", "", control.Caller{UID: "4712", User: "bob", Groups: []string{""}}, false, true, "control.operator_group"},
		{"without credentials", "dba", control.Caller{}, false, false, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake()
			c, _ := serve(t, f, tc.group, &tc.as)
			_, err := c.State(t.Context())
			if (err == nil) != tc.look {
				t.Errorf("look: %v", err)
			}
			_, err = c.Plan(t.Context(), api.PlanRequest{Action: "promote"})
			if (err == nil) != tc.look {
				t.Errorf("plan: %v", err)
			}
			f.calls = nil
			_, errRun := c.Run(t.Context(), "p1", "pgsql2")
			_, errDrill := c.StartDrill(t.Context(), api.DrillRequest{Name: "primary-stop"})
			_, errReload := c.Reload(t.Context())
			_, errMaint := c.Maintenance(t.Context(), api.MaintenanceRequest{On: true})
			for _, err := range []error{errRun, errDrill, errReload, errMaint} {
				if tc.change && err != nil {
					t.Errorf("change: %v", err)
				}
				if !tc.change && code(err) != api.CodePermission {
					t.Errorf("change: %v, want a permission error", err)
				}
				if err != nil && !strings.Contains(err.Error(), tc.remedy) {
					t.Errorf("%q does not say %q", err, tc.remedy)
				}
			}
			if !tc.change && len(f.calls) > 0 {
				t.Errorf("the backend was asked %q", f.calls)
			}
		})
	}
}

func TestTheOperatorGroupCanBeChangedWhileServing(t *testing.T) {
	c, s := serve(t, newFake(), "dba", &control.Caller{UID: "4711", User: "ann", Groups: []string{"ops"}})
	if _, err := c.Reload(t.Context()); code(err) != api.CodePermission {
		t.Fatalf("before: %v", err)
	}
	s.SetOperatorGroup("ops")
	if _, err := c.Reload(t.Context()); err != nil {
		t.Fatalf("after: %v", err)
	}
}

func TestEveryChangeIsAudited(t *testing.T) {
	f := newFake()
	as := control.Caller{UID: "0", User: "root"}
	c, _ := serve(t, f, "", &as)
	_, _ = c.Run(t.Context(), "p1", "pgsql2")
	f.fail = &api.Error{Code: api.CodeBusy, Message: "another operation runs"}
	_, _ = c.StartDrill(t.Context(), api.DrillRequest{Name: "primary-stop"})
	f.fail = nil
	as = control.Caller{UID: "4712", User: "bob"}
	_, _ = c.Reload(t.Context())
	_, _ = c.State(t.Context())
	_, _ = c.Plan(t.Context(), api.PlanRequest{})
	var got []string
	for _, a := range f.audited() {
		got = append(got, fmt.Sprintf("%s: %s %v: %s", a.By.User, a.Action, a.Fields, a.Outcome))
	}
	want := []string{
		"root: run a plan map[plan:p1]: accepted",
		"root: start a drill map[clients:0 drill:primary-stop]: busy",
		"bob: POST /v1/reload map[]: permission",
	}
	if !slices.Equal(got, want) {
		t.Errorf("audited\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestAChangeOutlivesItsCaller: the console dies while the daemon works.
func TestAChangeOutlivesItsCaller(t *testing.T) {
	b := &slowRun{fake: newFake(), began: make(chan struct{}), goOn: make(chan struct{}), ended: make(chan error, 1)}
	c, _ := serve(t, b, "", nil)
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() { _, err := c.Run(ctx, "p1", ""); asked <- err }()
	<-b.began
	cancel()
	if err := <-asked; code(err) != api.CodeUnknown {
		t.Errorf("the caller was told %v, want unknown", err)
	}
	close(b.goOn)
	if err := <-b.ended; err != nil {
		t.Errorf("the change was cut off: %v", err)
	}
}

type slowRun struct {
	*fake
	began, goOn chan struct{}
	ended       chan error
}

func (b *slowRun) Run(ctx context.Context, _ control.Caller, _, _ string) (api.Operation, error) {
	close(b.began)
	<-b.goOn
	b.ended <- ctx.Err()
	return api.Operation{}, ctx.Err()
}

func TestAPanicIsAnAnswer(t *testing.T) {
	c, _ := serve(t, panics{newFake()}, "", nil)
	if _, err := c.Pools(t.Context()); code(err) != api.CodeInternal || strings.Contains(err.Error(), "secret") {
		t.Fatalf("got %v", err)
	}
	if _, err := c.State(t.Context()); err != nil {
		t.Fatalf("and afterwards: %v", err)
	}
}

type panics struct{ *fake }

func (panics) Pools(context.Context) ([]api.Pool, error) { panic("secret") }

func TestLongPollEndsWithTheOperation(t *testing.T) {
	f := newFake()
	f.ops["o1"] = api.Operation{ID: "o1", State: api.OpRunning}
	c, _ := serve(t, f, "", nil)
	if op, err := c.Operation(t.Context(), "o1", time.Millisecond); err != nil || op.State != api.OpRunning {
		t.Fatalf("a short wait: %+v %v", op, err)
	}
	type result struct {
		op  api.Operation
		err error
	}
	got := make(chan result, 1)
	go func() {
		op, err := c.Operation(t.Context(), "o1", time.Hour)
		got <- result{op, err}
	}()
	f.addEvent("step 1 done")
	f.happen(func(f *fake) { f.ops["o1"] = api.Operation{ID: "o1", State: api.OpFailed, Ended: &noon} })
	if r := <-got; r.err != nil || r.op.State != api.OpFailed {
		t.Fatalf("%+v", r)
	}
}

func TestShutdownEndsStreamsAndLongPolls(t *testing.T) {
	f := newFake()
	f.ops["o1"] = api.Operation{ID: "o1", State: api.OpRunning}
	c, s := serve(t, f, "", nil)
	streaming, watched := make(chan struct{}), make(chan error, 1)
	go func() {
		watched <- c.Watch(t.Context(), 0, func(api.Message) error { close(streaming); return nil })
	}()
	<-streaming
	polled := make(chan error, 1)
	go func() { _, err := c.Operation(t.Context(), "o1", time.Hour); polled <- err }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Fatalf("shutdown: %v", err)
	}
	if err := <-watched; !errors.Is(err, client.ErrUnreachable) {
		t.Errorf("the stream ended with %v", err)
	}
	if err := <-polled; !errors.Is(err, client.ErrUnreachable) {
		t.Errorf("the poll ended with %v", err)
	}
}

// reader collects what a stream brings.
func follow(t *testing.T, c *client.Client, since uint64, until func([]string) bool) []string {
	t.Helper()
	var got []string
	enough := errors.New("enough")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := c.Watch(ctx, since, func(m api.Message) error {
		if m.State != nil {
			got = append(got, fmt.Sprintf("state@%d", m.State.Seq))
		} else {
			got = append(got, fmt.Sprintf("event %d", m.Event.Seq))
		}
		if until(got) {
			return enough
		}
		return nil
	})
	if err != enough {
		t.Fatalf("the stream ended with %v after %v", err, got)
	}
	return got
}

func TestAStreamBeginsWithTheStateAndResumes(t *testing.T) {
	f := newFake()
	for i := range 3 {
		f.addEvent(fmt.Sprint(i))
	}
	c, _ := serve(t, f, "", nil)
	for _, tc := range []struct {
		since uint64
		want  []string
	}{
		{2, []string{"state@5", "event 3", "event 4", "event 5"}},
		{0, []string{"state@5"}},
	} {
		got := follow(t, c, tc.since, func(got []string) bool { return len(got) == len(tc.want) })
		if !slices.Equal(got, tc.want) {
			t.Errorf("since %d: %v, want %v", tc.since, got, tc.want)
		}
	}
	// A position in the log of another life is no position.
	var once atomic.Bool
	got := follow(t, c, 900, func(got []string) bool {
		if once.CompareAndSwap(false, true) {
			f.addEvent("new")
		}
		return len(got) == 2
	})
	if want := []string{"state@5", "event 6"}; !slices.Equal(got, want) {
		t.Errorf("since 900: %v, want %v", got, want)
	}
}

// TestASlowReaderMissesStatesButNoEvent: more events than any buffer holds
// come while the reader reads nothing.
func TestASlowReaderMissesStatesButNoEvent(t *testing.T) {
	f := newFake()
	c, _ := serve(t, f, "", nil)
	const many = 3000
	events, states := 0, 0
	enough := errors.New("enough")
	err := c.Watch(t.Context(), 0, func(m api.Message) error {
		if m.State != nil {
			states++
			if states == 1 {
				for i := range many {
					f.addEvent(strings.Repeat(fmt.Sprint(i), 100))
				}
			}
			return nil
		}
		events++
		if want := uint64(2 + events); m.Event.Seq != want {
			return fmt.Errorf("event %d came in the place of %d", m.Event.Seq, want)
		}
		if events == many {
			return enough
		}
		return nil
	})
	if err != enough {
		t.Fatal(err)
	}
	if states >= many {
		t.Errorf("%d states for %d changes: they did not coalesce", states, many)
	}
}

// TestHeartbeatsAndIDsOnTheWire reads the stream as curl shows it.
func TestHeartbeatsAndIDsOnTheWire(t *testing.T) {
	f := newFake()
	c, _ := serve(t, f, "", nil)
	conn, err := net.Dial("unix", c.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, "GET /v1/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	want := []string{"Content-Type: text/event-stream", "id: 1", "event: state", "id: 2", "event: event", ": heartbeat", ": heartbeat"}
	r := bufio.NewScanner(conn)
	r.Buffer(nil, 1<<20)
	for r.Scan() && len(want) > 0 {
		if strings.TrimSpace(r.Text()) == want[0] {
			want = want[1:]
		}
	}
	if len(want) > 0 {
		t.Fatalf("never saw %q: %v", want, r.Err())
	}
}

func TestListen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	path := filepath.Join(dir, "s")
	l, err := control.Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]os.FileMode{dir: 0o750, path: 0o660} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v (%v)", p, info.Mode(), want, err)
		}
	}
	_, err = control.Listen(path, "")
	if !errors.Is(err, control.ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("a live one: %v, want ErrInUse with the process id", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	// What a killed daemon leaves: the socket's file, and a lock nobody holds.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	l, err = control.Listen(path, "")
	if err != nil {
		t.Fatalf("after a dead daemon: %v", err)
	}
	_ = l.Close()

	// A stranger without our lock.
	stranger, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := control.Listen(path, ""); !errors.Is(err, control.ErrInUse) {
		t.Errorf("a stranger's socket: %v", err)
	}
	_ = stranger.Close()

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := control.Listen(path, ""); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("a file in its place: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file in its place: %q %v", b, err)
	}
	if _, err := control.Listen(filepath.Join(dir, "t"), "no-such-group"); err == nil || !strings.Contains(err.Error(), "groupadd") {
		t.Errorf("an unknown group: %v", err)
	}
}

func TestListenLeavesSharedDirectoriesAlone(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o1777); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	g, err := user.LookupGroupId(strconv.Itoa(os.Getegid()))
	if err != nil {
		t.Fatal(err)
	}
	l, err := control.Listen(filepath.Join(dir, "s"), g.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	after, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if before.Mode() != after.Mode() {
		t.Errorf("mode of a shared directory: %v, was %v", after.Mode(), before.Mode())
	}
}
