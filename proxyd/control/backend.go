package control

import (
	"context"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// Backend is the daemon as the control socket needs it. Errors that wrap an
// *api.Error keep its code; any other is an internal error. Methods that
// change something are given a context that outlives the caller's connection:
// the daemon owns what it has begun.
type Backend interface {
	State(ctx context.Context) (api.State, error)
	// Changed gives a channel that is closed at the next change of the state,
	// an operation or the event log. Taking it before looking misses nothing.
	Changed() <-chan struct{}

	// Events gives at most limit events with a sequence number above after,
	// LastEvents the newest limit; both oldest first, from the durable log.
	Events(ctx context.Context, after uint64, limit int) ([]api.Event, error)
	LastEvents(ctx context.Context, limit int) ([]api.Event, error)

	Pools(ctx context.Context) ([]api.Pool, error)
	Clients(ctx context.Context) ([]api.Client, error)
	Config(ctx context.Context) (api.Config, error)
	SyncFiles(ctx context.Context) (api.SyncFiles, error)

	Plan(ctx context.Context, by Caller, r api.PlanRequest) (api.Plan, error)
	PlanByID(ctx context.Context, id string) (api.Plan, error)
	Run(ctx context.Context, by Caller, planID, confirm string) (api.Operation, error)
	Operation(ctx context.Context, id string) (api.Operation, error)
	Operations(ctx context.Context) ([]api.Operation, error)

	Drills(ctx context.Context) ([]api.DrillInfo, error)
	StartDrill(ctx context.Context, by Caller, r api.DrillRequest) (api.Operation, error)
	DrillReports(ctx context.Context) ([]api.DrillReport, error)

	Reload(ctx context.Context, by Caller) (api.ReloadResult, error)
	Maintenance(ctx context.Context, by Caller, r api.MaintenanceRequest) (api.State, error)

	// Audit records that somebody changed something or tried to.
	Audit(ctx context.Context, a Audit) error
}

// Audit is one entry of the audit log.
type Audit struct {
	By      Caller
	Action  string            // what was asked: "run a plan", "start a drill", ...
	Fields  map[string]string // with what: plan, node, name; never a secret
	Outcome string            // "accepted", or the error's code
	Detail  string            // the error's message
}
