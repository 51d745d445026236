package control

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// streamBatch bounds what one subscriber holds in memory.
const streamBatch = 256

func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	since, err := number(q.Get("since"), "since", 0, 1<<63)
	if err != nil {
		return err
	}
	switch format := q.Get("format"); {
	case format == "json":
		return s.eventList(w, r, since)
	case format != "":
		return &api.Error{Code: api.CodeUsage, Message: fmt.Sprintf("format=%q is not known", format), Remedy: "json, or none for the stream"}
	case q.Get("limit") != "":
		return &api.Error{Code: api.CodeUsage, Message: "limit is for format=json; the stream has no end"}
	}
	if last := r.Header.Get("Last-Event-ID"); since == 0 && last != "" {
		if since, err = number(last, "Last-Event-ID", 0, 1<<63); err != nil {
			return err
		}
	}
	return s.stream(w, r, since)
}

func (s *Server) eventList(w http.ResponseWriter, r *http.Request, since uint64) error {
	limit, err := number(r.URL.Query().Get("limit"), "limit", api.DefaultEvents, api.MaxEvents)
	if err != nil {
		return err
	}
	ctx, cancel := look(r)
	defer cancel()
	if since == 0 {
		es, err := s.backend.LastEvents(ctx, int(limit))
		return answer(w, es, err)
	}
	es, err := s.backend.Events(ctx, since, int(limit))
	return answer(w, es, err)
}

func number(v, name string, otherwise, most uint64) (uint64, error) {
	if v == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil || n > most {
		return 0, &api.Error{Code: api.CodeUsage, Message: fmt.Sprintf("%s=%q is not a number from 0 to %d", name, v, most)}
	}
	return n, nil
}

// stream sends the full state, then every event after since in order and the
// latest state at each change. A subscriber holds nothing but its position:
// one that reads slowly gets fewer states and the same events.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, since uint64) error {
	changed := s.backend.Changed()
	first, err := s.backend.State(r.Context())
	if err != nil {
		return err
	}
	if since == 0 || since > first.Seq { // a position in another log is no position
		since = first.Seq
	}
	w.Header().Set("Content-Type", "text/event-stream")
	sub := &subscriber{w: w, rc: http.NewResponseController(w), seq: since}
	if sub.state(&first) != nil || s.backlog(r, sub) != nil {
		return nil // the headers are out: all that is left is to end
	}
	beat := time.NewTicker(s.heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-changed:
			changed = s.backend.Changed()
			if s.backlog(r, sub) != nil {
				return nil
			}
			st, err := s.backend.State(r.Context())
			if err != nil || sub.state(&st) != nil {
				return nil
			}
		case <-beat.C:
			if sub.write(": heartbeat\n\n") != nil {
				return nil
			}
		case <-s.ending.Done():
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
}

// backlog sends the events that the subscriber has not had.
func (s *Server) backlog(r *http.Request, sub *subscriber) error {
	for {
		es, err := s.backend.Events(r.Context(), sub.seq, streamBatch)
		if err != nil {
			s.log.Warn("the event stream cannot read the log", "after", sub.seq, "err", err)
			return err
		}
		for i := range es {
			if err := sub.event(&es[i]); err != nil {
				return err
			}
		}
		if len(es) < streamBatch {
			return nil
		}
	}
}

// subscriber writes one stream. seq is the last event it was sent, and the id
// of every item, so that a reader resumes after what it really had.
type subscriber struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	seq uint64
}

func (s *subscriber) state(st *api.State) error {
	return s.item(api.StreamState, api.Message{State: st})
}

func (s *subscriber) event(e *api.Event) error {
	s.seq = e.Seq
	return s.item(api.StreamEvent, api.Message{Event: e})
}

func (s *subscriber) item(kind string, m api.Message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode an item of the event stream: %w", err)
	}
	return s.write(fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", s.seq, kind, b))
}

func (s *subscriber) write(text string) error {
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return err
	}
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return s.rc.Flush()
}
