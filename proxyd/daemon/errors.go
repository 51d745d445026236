package daemon

import (
	"errors"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine"
	"github.com/pgtandem/pgtandem/engine/drill"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/plan"
	"github.com/pgtandem/pgtandem/engine/store"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

// codes gives the code of the errors that parts mark themselves with.
var codes = []struct {
	err  error
	code string
}{
	{engine.ErrBusy, api.CodeBusy},
	{engine.ErrNotFound, api.CodeNotFound},
	{engine.ErrConfirm, api.CodeConfirm},
	{engine.ErrHalted, api.CodePrecondition},
	{store.ErrNotFound, api.CodeNotFound},
	{drill.ErrNoScenario, api.CodeNotFound},
	{drill.ErrPrecondition, api.CodePrecondition},
	{execute.ErrUnknown, api.CodeUnknown},
	{execute.ErrRefused, api.CodePrecondition},
	{execute.ErrRetry, api.CodePrecondition},
	{execute.ErrUnreachable, api.CodePrecondition},
}

// told says an error of a part in the words of the control socket: by what the
// caller may do about it.
func told(err error) error {
	var already *api.Error
	var refusal *plan.Refusal
	var stale *engine.StaleError
	var problems config.Problems
	switch {
	case err == nil || errors.As(err, &already):
		return err
	case errors.As(err, &refusal):
		return &api.Error{Code: refusalCode(refusal), Message: refusal.Why, Remedy: refusal.Remedy}
	case errors.As(err, &stale):
		return &api.Error{Code: api.CodeStale, Message: "what the plan was made from has moved", Remedy: "ask for a new plan", Moved: stale.Moved}
	case errors.As(err, &problems):
		return &api.Error{Code: api.CodeUsage, Message: problems.Error(), Remedy: "nothing was changed; mend the file and reload again"}
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return &api.Error{Code: c.code, Message: err.Error()}
		}
	}
	return err
}

func refusalCode(r *plan.Refusal) string {
	switch {
	case r.Usage:
		return api.CodeUsage
	case r.Unsafe:
		return api.CodeUnsafe
	}
	return api.CodePrecondition
}
