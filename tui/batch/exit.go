package batch

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/client"
)

// Exit codes. They are part of the product and do not change.
const (
	ExitDone         = 0
	ExitInternal     = 1
	ExitUsage        = 2
	ExitPrecondition = 3
	ExitUnsafe       = 4
	ExitTimeout      = 5
	ExitUnknown      = 6
	ExitUnreachable  = 7
	ExitPermission   = 8
	ExitVerdict      = 9
	ExitInterrupted  = 130
)

// ExitCodesHelp explains the exit codes.
const ExitCodesHelp = `Exit codes of pgtandem --batch, and what a script may do next:

    0  done
    1  internal error, or an operation failed: read the message
    2  usage: the command is wrong and was not sent
    3  precondition: the cluster is not in the state that this needs, a fact
       has moved since the plan was made, or a confirmation is missing or
       does not match; nothing was changed
    4  refused as unsafe: acknowledged commits could be lost; nothing was changed
    5  timed out; an operation that was begun goes on in the daemon
    6  outcome unknown: it was sent and no answer came; look, never repeat blindly
    7  the daemon is unreachable; nothing was changed
    8  not permitted
    9  a drill ran and its verdict is fail
  130  interrupted; an operation that was begun goes on in the daemon
`

// Error is an error with its exit code.
type Error struct {
	Code int
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

func fail(code int, format string, args ...any) error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

var byAPI = map[string]int{
	api.CodeUsage:        ExitUsage,
	api.CodeNotFound:     ExitUsage,
	api.CodePrecondition: ExitPrecondition,
	api.CodeStale:        ExitPrecondition,
	api.CodeConfirm:      ExitPrecondition,
	api.CodeBusy:         ExitPrecondition,
	api.CodeUnsafe:       ExitUnsafe,
	api.CodeTimeout:      ExitTimeout,
	api.CodeUnknown:      ExitUnknown,
	api.CodePermission:   ExitPermission,
	api.CodeInternal:     ExitInternal,
}

// ExitCode gives the exit code of a command's error.
func ExitCode(err error) int {
	var own *Error
	var theirs *api.Error
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &own):
		return own.Code
	case errors.As(err, &theirs):
		if code, ok := byAPI[theirs.Code]; ok {
			return code
		}
		return ExitInternal
	case errors.Is(err, client.ErrUnreachable):
		return ExitUnreachable
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		return ExitTimeout
	}
	return ExitInternal
}

// Message is an error as a person reads it, with what moved and what to do.
func Message(err error) string {
	var e *api.Error
	if errors.Is(err, context.Canceled) {
		return "interrupted"
	}
	msg := err.Error()
	if errors.As(err, &e) {
		for _, m := range e.Moved {
			msg += "\n  moved: " + m
		}
	}
	return msg
}
