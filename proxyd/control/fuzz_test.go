package control

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// FuzzRequestBody: what comes over the control socket is understood, or refused
// as the caller's fault with words for a person.
func FuzzRequestBody(f *testing.F) {
	for _, s := range []string{
		`{"action": "switchover", "node": "pgsql2"}`, `{}`, ``, `null`, `[]`, `{"node": 1}`, `{"x": 1}`, `{} {}`, `{"node": "\ud800"}`,
		strings.Repeat(`{"a":`, 20000), `{"node": "a", "node": "b"}`, "\x00", `{"node":`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		_, err := read[api.PlanRequest](httptest.NewRecorder(), httptest.NewRequest("POST", "/", strings.NewReader(body)))
		var e *api.Error
		if err != nil && (!errors.As(err, &e) || e.Code != api.CodeUsage || e.Message == "") {
			t.Errorf("%q: %v", body, err)
		}
	})
}
