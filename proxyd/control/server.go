package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// Limits of one request.
const (
	bodyLimit   = 64 << 10
	bodyTime    = 10 * time.Second
	lookLimit   = 25 * time.Second // below the client's patience, so that it is told why
	changeLimit = 25 * time.Second
	writeLimit  = 10 * time.Second // a reader of the stream that takes nothing for so long is let go
)

// Options make a Server.
type Options struct {
	Backend       Backend
	Version       string // of proxyd, for the Server header
	OperatorGroup string // empty: only root and the daemon's own user may change things
	Log           *slog.Logger
	Metrics       http.Handler // answers api.PathMetrics; nil: there are none

	// Peer tells who opened a connection; nil means PeerCaller.
	Peer func(net.Conn) (Caller, error)
	// Heartbeat of the event stream; 0 means api.StreamHeartbeat.
	Heartbeat time.Duration
}

// Server answers on the control socket.
type Server struct {
	backend   Backend
	version   string
	log       *slog.Logger
	peer      func(net.Conn) (Caller, error)
	heartbeat time.Duration
	group     atomic.Pointer[string]
	figures   http.Handler

	mux     *http.ServeMux
	http    *http.Server
	ending  context.Context // done when Shutdown begins: streams and long polls end
	stopAll context.CancelFunc
}

type connKey struct{}

// New makes a server; Serve starts it.
func New(o Options) *Server {
	s := &Server{backend: o.Backend, version: o.Version, log: o.Log, peer: o.Peer, heartbeat: o.Heartbeat, figures: o.Metrics, mux: http.NewServeMux()}
	if s.peer == nil {
		s.peer = PeerCaller
	}
	if s.heartbeat == 0 {
		s.heartbeat = api.StreamHeartbeat
	}
	s.SetOperatorGroup(o.OperatorGroup)
	for _, r := range Routes() {
		s.mux.Handle(r.Method+" "+r.Path, s.route(r))
	}
	s.ending, s.stopAll = context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
	}
	return s
}

// SetOperatorGroup changes who may change things, from the next request on.
func (s *Server) SetOperatorGroup(name string) { s.group.Store(&name) }

// Serve answers on l until Shutdown; it returns nil then.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the control socket: %w", err)
	}
	return nil
}

// Shutdown ends the streams and long polls, lets the other requests finish
// until ctx ends, and closes the socket.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopAll()
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close()
	}
	return err
}

func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(api.HeaderVersion, strconv.Itoa(api.Version))
	w.Header().Set("Server", "proxyd/"+s.version)
	w.Header().Set("Cache-Control", "no-store")
	defer s.recovered(w, r)
	h, pattern := s.mux.Handler(r)
	if pattern != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	seen := &refusedWriter{header: http.Header{}}
	h.ServeHTTP(seen, r)
	if seen.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", seen.header.Get("Allow"))
		writeJSON(w, seen.status, &api.Error{
			Code:    api.CodeUsage,
			Message: fmt.Sprintf("%s does not take %s", r.URL.Path, r.Method),
			Remedy:  "it takes " + seen.header.Get("Allow"),
		})
		return
	}
	s.refuse(w, r, &api.Error{
		Code:    api.CodeNotFound,
		Message: fmt.Sprintf("there is nothing at %s", r.URL.Path),
		Remedy:  "start at " + api.PathState,
	})
}

// route wraps a line of the table with what all have in common: rights, the
// body's limit, known parameters, deadlines and the form of errors.
func (s *Server) route(rt Route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := s.caller(r)
		if err != nil {
			s.refuse(w, r, &api.Error{Code: api.CodePermission, Message: err.Error()})
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), callerKey{}, caller))
		r.Body = http.MaxBytesReader(w, r.Body, bodyLimit)
		if err := knownQuery(r, rt.Query); err != nil {
			s.refuse(w, r, err)
			return
		}
		if rt.Access == Change && !caller.Operator {
			err := s.notAllowed(caller)
			s.audit(r, rt.Method+" "+r.URL.Path, nil, err)
			s.refuse(w, r, err)
			return
		}
		if err := rt.serve(s, w, r); err != nil {
			s.refuse(w, r, err)
		}
	})
}

type callerKey struct{}

func callerOf(r *http.Request) Caller { return r.Context().Value(callerKey{}).(Caller) }

func (s *Server) caller(r *http.Request) (Caller, error) {
	conn, _ := r.Context().Value(connKey{}).(net.Conn)
	c, err := s.peer(conn)
	if err != nil {
		return Caller{}, err
	}
	c.Operator = mayChange(c, *s.group.Load())
	return c, nil
}

func (s *Server) notAllowed(c Caller) *api.Error {
	remedy := "only root and proxyd's own user may; set control.operator_group to let others"
	if g := *s.group.Load(); g != "" {
		remedy = fmt.Sprintf("become a member of the group %q (control.operator_group), or use sudo", g)
	}
	return &api.Error{Code: api.CodePermission, Message: c.User + " may look but not change anything", Remedy: remedy}
}

func knownQuery(r *http.Request, known []string) error {
	for k := range r.URL.Query() {
		if slices.Contains(known, k) {
			continue
		}
		remedy := "this route takes none"
		if len(known) > 0 {
			remedy = "known are " + strings.Join(known, ", ")
		}
		return &api.Error{Code: api.CodeUsage, Message: fmt.Sprintf("unknown parameter %q", k), Remedy: remedy}
	}
	return nil
}

// recovered turns a handler's panic into an answer; the daemon lives on.
func (s *Server) recovered(w http.ResponseWriter, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	s.log.Error("a request on the control socket panicked", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	writeJSON(w, http.StatusInternalServerError, &api.Error{
		Code:    api.CodeInternal,
		Message: "proxyd met a fault of its own while it answered",
		Remedy:  "its log has the details; please report them",
	})
}

// refusedWriter learns what the mux says of a request that no route takes.
type refusedWriter struct {
	header http.Header
	status int
}

func (w *refusedWriter) Header() http.Header         { return w.header }
func (w *refusedWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *refusedWriter) WriteHeader(status int)      { w.status = status }
