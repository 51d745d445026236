package daemon

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine"
	"github.com/pgtandem/pgtandem/engine/drill"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/plan"
	"github.com/pgtandem/pgtandem/engine/store"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

// TestWhatTheCallerMayDoAboutAnError: each error of a part has the code, and so
// the exit code, of what may be done about it.
func TestWhatTheCallerMayDoAboutAnError(t *testing.T) {
	for _, tc := range []struct {
		err  error
		code string
		says string
	}{
		{&plan.Refusal{Usage: true, Why: "there is no node \"x\"", Remedy: "nodes: pgsql1"}, api.CodeUsage, "nodes: pgsql1"},
		{&plan.Refusal{Unsafe: true, Why: "pgsql2 is not eligible"}, api.CodeUnsafe, "not eligible"},
		{&plan.Refusal{Why: "pgsql1 does not answer"}, api.CodePrecondition, "does not answer"},
		{&engine.StaleError{Moved: []string{"term was 4 and is 5"}}, api.CodeStale, "new plan"},
		{engine.ErrBusy, api.CodeBusy, "another operation"},
		{engine.ErrNotFound, api.CodeNotFound, "not found"},
		{store.ErrNotFound, api.CodeNotFound, "not found"},
		{engine.ErrConfirm, api.CodeConfirm, "confirmation"},
		{engine.ErrHalted, api.CodePrecondition, "stopped acting"},
		{drill.ErrNoScenario, api.CodeNotFound, "no such drill"},
		{drill.ErrPrecondition, api.CodePrecondition, "not ready"},
		{execute.ErrUnknown, api.CodeUnknown, "unknown"},
		{execute.ErrRefused, api.CodePrecondition, "refused"},
		{execute.ErrUnreachable, api.CodePrecondition, "unreachable"},
		{config.Problems{{File: "f", Line: 3, Key: "proxy.port", Message: "found the number 0"}}, api.CodeUsage, "f:3: proxy.port"},
		{&api.Error{Code: api.CodeConfirm, Message: "m"}, api.CodeConfirm, "m"},
	} {
		for _, err := range []error{tc.err, fmt.Errorf("asked: %w", tc.err)} {
			var e *api.Error
			if !errors.As(told(err), &e) || e.Code != tc.code || !strings.Contains(e.Error(), tc.says) {
				t.Errorf("%v is told as %#v, want %s saying %q", err, told(err), tc.code, tc.says)
			}
		}
	}
	if told(nil) != nil {
		t.Error("no error became one")
	}
	var e *api.Error
	if plain := errors.New("disk full"); told(plain) != plain || errors.As(told(plain), &e) {
		t.Error("an error of no kind was given a code")
	}
}
