package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// statuses is the HTTP status of each code; api names them.
var statuses = map[string]int{
	api.CodeUsage:        http.StatusBadRequest,
	api.CodePrecondition: http.StatusConflict,
	api.CodeStale:        http.StatusConflict,
	api.CodeConfirm:      http.StatusConflict,
	api.CodeBusy:         http.StatusConflict,
	api.CodeUnsafe:       http.StatusUnprocessableEntity,
	api.CodeTimeout:      http.StatusGatewayTimeout,
	api.CodeUnknown:      http.StatusBadGateway,
	api.CodePermission:   http.StatusForbidden,
	api.CodeNotFound:     http.StatusNotFound,
	api.CodeInternal:     http.StatusInternalServerError,
}

// typed finds the api.Error in err, or makes one.
func typed(err error) *api.Error {
	var e *api.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return &api.Error{Code: api.CodeTimeout, Message: err.Error(), Remedy: "ask again; the state tells what is slow"}
	}
	return &api.Error{Code: api.CodeInternal, Message: err.Error()}
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := typed(err)
	status, ok := statuses[e.Code]
	if !ok {
		status = http.StatusInternalServerError
	}
	if status == http.StatusInternalServerError {
		s.log.Error("a request on the control socket failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	writeJSON(w, status, e)
}

// writeJSON answers with v. A caller that has gone is not an error.
func writeJSON(w http.ResponseWriter, status int, v any) {
	// Ends a caller that takes nothing; not every writer of a test has a connection.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeLimit))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v)
}

// answer is writeJSON for what a Backend returned; a list is never null.
func answer[T any](w http.ResponseWriter, v T, err error) error {
	if err != nil {
		return err
	}
	if rv := reflect.ValueOf(v); rv.Kind() == reflect.Slice && rv.IsNil() {
		v = reflect.MakeSlice(rv.Type(), 0, 0).Interface().(T)
	}
	writeJSON(w, http.StatusOK, v)
	return nil
}

// read decodes the body strictly: one JSON object, known fields only.
func read[T any](w http.ResponseWriter, r *http.Request) (T, error) {
	var v T
	defer within(w, bodyTime)()
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, misread(err, fields(reflect.TypeFor[T]()))
	}
	if _, err := d.Token(); err != io.EOF {
		return v, &api.Error{Code: api.CodeUsage, Message: "the body goes on after its JSON object", Remedy: "send one object"}
	}
	return v, nil
}

// empty refuses a body where none is read.
func empty(w http.ResponseWriter, r *http.Request) error {
	defer within(w, bodyTime)()
	n, err := r.Body.Read(make([]byte, 1))
	if n > 0 || (err != nil && err != io.EOF) {
		return &api.Error{Code: api.CodeUsage, Message: "this route takes no body"}
	}
	return nil
}

// within bounds the reading of a body and gives back the function that ends
// the bound: left standing, it would end the request's context later on.
func within(w http.ResponseWriter, d time.Duration) func() {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(d))
	return func() { _ = rc.SetReadDeadline(time.Time{}) }
}

func misread(err error, known string) error {
	e := &api.Error{Code: api.CodeUsage, Remedy: "the fields are " + known}
	var wrongType *json.UnmarshalTypeError
	var tooLarge *http.MaxBytesError
	name, unknown := strings.CutPrefix(err.Error(), "json: unknown field ")
	switch {
	case errors.As(err, &tooLarge):
		e.Message = fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit)
	case errors.As(err, &wrongType) && wrongType.Field == "":
		e.Message = fmt.Sprintf("the body is a JSON %s and must be an object", wrongType.Value)
	case errors.As(err, &wrongType):
		e.Message = fmt.Sprintf("the field %q is a JSON %s and must be a %s", wrongType.Field, wrongType.Value, wrongType.Type)
	case unknown:
		e.Message = "unknown field " + name
	case errors.Is(err, io.EOF):
		e.Message = "the body is empty and must be a JSON object"
	default:
		e.Message = fmt.Sprintf("the body is not JSON: %v", err)
	}
	return e
}

// fields names the JSON fields of a request with their types.
func fields(t reflect.Type) string {
	var names []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, fmt.Sprintf("%s (%s)", name, t.Field(i).Type))
	}
	return strings.Join(names, ", ")
}
