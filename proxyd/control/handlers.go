package control

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// look gives the context of a request that changes nothing.
func look(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), lookLimit)
}

// change gives the context of a request that changes something: it does not
// end with the caller's connection.
func change(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), changeLimit)
}

// looked serves a route that only reads one thing.
func looked[T any](w http.ResponseWriter, r *http.Request, get func(context.Context) (T, error)) error {
	ctx, cancel := look(r)
	defer cancel()
	v, err := get(ctx)
	return answer(w, v, err)
}

func (s *Server) state(w http.ResponseWriter, r *http.Request) error {
	return looked(w, r, s.backend.State)
}

func (s *Server) pools(w http.ResponseWriter, r *http.Request) error {
	return looked(w, r, s.backend.Pools)
}

func (s *Server) clients(w http.ResponseWriter, r *http.Request) error {
	return looked(w, r, s.backend.Clients)
}

func (s *Server) config(w http.ResponseWriter, r *http.Request) error {
	return looked(w, r, s.backend.Config)
}

func (s *Server) syncFiles(w http.ResponseWriter, r *http.Request) error {
	return looked(w, r, s.backend.SyncFiles)
}

// metrics is the one route that does not speak JSON.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) error {
	if s.figures == nil {
		return &api.Error{Code: api.CodeNotFound, Message: "this daemon has no metrics"}
	}
	s.figures.ServeHTTP(w, r)
	return nil
}

func (s *Server) operations(w http.ResponseWriter, r *http.Request) error {
	return looked(w, r, s.backend.Operations)
}

func (s *Server) drills(w http.ResponseWriter, r *http.Request) error {
	return looked(w, r, s.backend.Drills)
}

func (s *Server) drillReports(w http.ResponseWriter, r *http.Request) error {
	return looked(w, r, s.backend.DrillReports)
}

func (s *Server) planByID(w http.ResponseWriter, r *http.Request) error {
	return looked(w, r, func(ctx context.Context) (api.Plan, error) {
		return s.backend.PlanByID(ctx, r.PathValue("id"))
	})
}

func (s *Server) plan(w http.ResponseWriter, r *http.Request) error {
	req, err := read[api.PlanRequest](w, r)
	if err != nil {
		return err
	}
	return looked(w, r, func(ctx context.Context) (api.Plan, error) {
		return s.backend.Plan(ctx, callerOf(r), req)
	})
}

// operation answers at once, or with ?wait= when it has ended or the time is
// over, whichever is first.
func (s *Server) operation(w http.ResponseWriter, r *http.Request) error {
	wait, err := waitOf(r)
	if err != nil {
		return err
	}
	over := time.NewTimer(wait)
	defer over.Stop()
	for {
		changed := s.backend.Changed()
		op, err := s.backend.Operation(r.Context(), r.PathValue("id"))
		if err != nil || op.Ended != nil || wait == 0 {
			return answer(w, op, err)
		}
		select {
		case <-changed:
		case <-over.C:
			wait = 0
		case <-s.ending.Done():
			wait = 0
		case <-r.Context().Done():
			return nil
		}
	}
}

func waitOf(r *http.Request) (time.Duration, error) {
	v := r.URL.Query().Get("wait")
	if v == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		return 0, &api.Error{Code: api.CodeUsage, Message: fmt.Sprintf("wait=%q is no duration", v), Remedy: "write it as 30s or 500ms"}
	}
	return min(d, api.MaxWait), nil
}

func (s *Server) run(w http.ResponseWriter, r *http.Request) error {
	req, err := read[api.RunRequest](w, r)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	return changed(s, w, r, "run a plan", map[string]string{"plan": id}, func(ctx context.Context) (api.Operation, error) {
		return s.backend.Run(ctx, callerOf(r), id, req.Confirm)
	})
}

func (s *Server) startDrill(w http.ResponseWriter, r *http.Request) error {
	req, err := read[api.DrillRequest](w, r)
	if err != nil {
		return err
	}
	fields := map[string]string{"drill": req.Name, "clients": strconv.Itoa(req.Clients)}
	return changed(s, w, r, "start a drill", fields, func(ctx context.Context) (api.Operation, error) {
		return s.backend.StartDrill(ctx, callerOf(r), req)
	})
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) error {
	if err := empty(w, r); err != nil {
		return err
	}
	return changed(s, w, r, "reload the configuration", nil, func(ctx context.Context) (api.ReloadResult, error) {
		return s.backend.Reload(ctx, callerOf(r))
	})
}

func (s *Server) maintenance(w http.ResponseWriter, r *http.Request) error {
	req, err := read[api.MaintenanceRequest](w, r)
	if err != nil {
		return err
	}
	fields := map[string]string{"on": strconv.FormatBool(req.On), "reason": req.Reason}
	return changed(s, w, r, "set maintenance", fields, func(ctx context.Context) (api.State, error) {
		return s.backend.Maintenance(ctx, callerOf(r), req)
	})
}

// changed serves a route that changes something, and audits it whether it was
// accepted or not.
func changed[T any](s *Server, w http.ResponseWriter, r *http.Request, action string, fields map[string]string, do func(context.Context) (T, error)) error {
	ctx, cancel := change(r)
	defer cancel()
	v, err := do(ctx)
	s.audit(r, action, fields, err)
	return answer(w, v, err)
}

// audit never fails a change that was already made: what cannot be recorded
// is at least in the daemon's own log.
func (s *Server) audit(r *http.Request, action string, fields map[string]string, err error) {
	ctx, cancel := change(r)
	defer cancel()
	a := Audit{By: callerOf(r), Action: action, Fields: fields, Outcome: "accepted"}
	if err != nil {
		e := typed(err)
		a.Outcome, a.Detail = e.Code, e.Message
	}
	s.log.Info("audit", "by", a.By.User, "uid", a.By.UID, "action", a.Action, "fields", a.Fields, "outcome", a.Outcome, "detail", a.Detail)
	if err := s.backend.Audit(ctx, a); err != nil {
		s.log.Error("an audit entry could not be stored", "err", err)
	}
}
