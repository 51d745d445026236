package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// daemon serves h on a socket of its own and gives a client of it.
func daemon(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.HeaderVersion, fmt.Sprint(api.Version))
		h(w, r)
	})}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(l) }()
	c := New(path)
	t.Cleanup(func() { c.Close(); _ = srv.Close(); <-served })
	return c
}

func TestNoDaemonIsUnreachableAndSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	for name, want := range map[string]string{
		"missing": "there is no socket",
		"dead":    "nobody listens on",
	} {
		socket := filepath.Join(dir, name)
		_, err := New(socket).State(t.Context())
		if !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %v, want ErrUnreachable", name, err)
			continue
		}
		for _, part := range []string{want, socket, "systemctl"} {
			if part == "systemctl" && name == "dead" {
				part = "journalctl"
			}
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", name, err, part)
			}
		}
	}
}

// A path that is something else than a socket is no daemon that has died.
func TestAPathThatIsNoSocket(t *testing.T) {
	listen := func(path string) {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
	empty, run := t.TempDir(), t.TempDir()
	listen(filepath.Join(run, "notify.sock"))
	listen(filepath.Join(run, "proxyd.sock"))
	listen(filepath.Join(run, "a.sock"))
	file := filepath.Join(empty, "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		empty: "a directory without a socket in it",
		run:   "a directory: name the socket in it, --socket " + filepath.Join(run, "proxyd.sock"),
		file:  "a file and no socket",
	} {
		_, err := New(path).State(t.Context())
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), path+" is "+want) || strings.Contains(err.Error(), "has died") {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestASocketThatMayNotBeOpenedIsAPermissionError(t *testing.T) {
	dial := &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.EACCES)}
	for _, what := range []string{"", "the reload"} {
		err := New("/run/pgtandem/s").failed(t.Context(), fmt.Errorf("Get: %w", dial), what)
		var e *api.Error
		if !errors.As(err, &e) || e.Code != api.CodePermission || !strings.Contains(e.Message, "/run/pgtandem/s") {
			t.Errorf("%q: %v", what, err)
		}
	}
}

func TestARefusalKeepsItsCode(t *testing.T) {
	c := daemon(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusConflict)
		_ = json.NewEncoder(w).Encode(api.Error{Code: api.CodeStale, Message: "the facts have moved", Moved: []string{"term was 4 and is 5"}})
	})
	_, err := c.Run(t.Context(), "p1", "pgsql2")
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeStale || len(e.Moved) != 1 {
		t.Fatalf("got %#v", err)
	}
}

func TestSomethingElseOnTheSocketIsNamed(t *testing.T) {
	c := daemon(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "teapot", http.StatusTeapot) })
	_, err := c.State(t.Context())
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeInternal || !strings.Contains(e.Message, "teapot") {
		t.Fatalf("got %v", err)
	}
}

func TestAChangeWithoutAnAnswerIsUnknownAndNeverRepeated(t *testing.T) {
	asked := make(chan struct{}, 10)
	c := daemon(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		panic(http.ErrAbortHandler)
	})
	_, err := c.Run(t.Context(), "p1", "pgsql2")
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeUnknown {
		t.Fatalf("got %v, want code unknown", err)
	}
	if len(asked) != 1 {
		t.Fatalf("asked %d times", len(asked))
	}
}

func TestALookWithoutAnAnswerIsUnreachable(t *testing.T) {
	c := daemon(t, func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
	if _, err := c.State(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
}

func TestACancelledCallIsTheCallersOwnDoing(t *testing.T) {
	c := daemon(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.State(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
}

func TestAnotherVersionIsShownAndWorks(t *testing.T) {
	c := daemon(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.HeaderVersion, "99")
		_, _ = io.WriteString(w, `{"cluster":"main","from_the_future":1}`)
	})
	if v, differs := c.Mismatch(); v != 0 || differs {
		t.Fatalf("before any answer: %d %v", v, differs)
	}
	s, err := c.State(t.Context())
	if err != nil || s.Cluster != "main" {
		t.Fatal(s, err)
	}
	if v, differs := c.Mismatch(); v != 99 || !differs {
		t.Fatalf("after: %d %v", v, differs)
	}
}

func TestOperationWaitsInSlicesUntilItEnds(t *testing.T) {
	ended := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	asked := 0
	c := daemon(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		op := api.Operation{ID: "o 1", State: api.OpRunning}
		if r.URL.Query().Get("wait") == "" || r.URL.EscapedPath() != "/v1/operations/o%201" {
			w.WriteHeader(http.StatusTeapot)
		}
		if asked == 3 {
			op.State, op.Ended = api.OpDone, &ended
		}
		_ = json.NewEncoder(w).Encode(op)
	})
	op, err := c.Operation(t.Context(), "o 1", time.Hour)
	if err != nil || op.State != api.OpDone || asked != 3 {
		t.Fatalf("%+v, %v after %d requests", op, err, asked)
	}
}

func TestWatchGivesMessagesInOrderAndTellsTheEnd(t *testing.T) {
	c := daemon(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("since") != "41" {
			w.WriteHeader(http.StatusTeapot)
		}
		_, _ = io.WriteString(w, ": hello\n\n"+
			"id: 41\nevent: state\ndata: {\"state\":{\"seq\":41}}\n\n"+
			": heartbeat\n\n"+
			"id: 42\nevent: event\r\ndata: {\"event\":{\"seq\":42,\r\ndata: \"text\":\"x\"}}\r\n\r\n")
	})
	var got []string
	err := c.Watch(t.Context(), 41, func(m api.Message) error {
		switch {
		case m.State != nil:
			got = append(got, fmt.Sprintf("state %d", m.State.Seq))
		case m.Event != nil:
			got = append(got, fmt.Sprintf("event %d %s", m.Event.Seq, m.Event.Text))
		}
		return nil
	})
	if want := "state 41,event 42 x"; strings.Join(got, ",") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if !errors.Is(err, ErrUnreachable) || !errors.Is(err, io.EOF) {
		t.Errorf("ended with %v", err)
	}
}

func TestWatchStopsForItsReader(t *testing.T) {
	c := daemon(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "data: {\"state\":{}}\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	enough := errors.New("enough")
	if err := c.Watch(t.Context(), 0, func(api.Message) error { return enough }); err != enough {
		t.Errorf("fn's error came back as %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Watch(ctx, 0, func(api.Message) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
		t.Errorf("a cancelled watch ended with %v", err)
	}
}

func TestWatchGivesUpOnASilentDaemon(t *testing.T) {
	c := daemon(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	c.silence = 50 * time.Millisecond
	err := c.Watch(t.Context(), 0, func(api.Message) error { return nil })
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "silent") {
		t.Fatalf("got %v", err)
	}
}
