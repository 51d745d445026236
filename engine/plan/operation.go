package plan

import "time"

// Outcome is how a step, or a whole operation, stands.
type Outcome string

// Outcomes. Unknown is sent-without-answer; it is settled by looking, never by
// a blind retry.
const (
	Pending Outcome = "pending"
	Running Outcome = "running"
	Done    Outcome = "done"
	Skipped Outcome = "skipped" // the postcondition held already
	Failed  Outcome = "failed"
	Unknown Outcome = "unknown"
	Stopped Outcome = "stopped" // of an operation: a moved fact, an invariant, a person
)

// Over says whether nothing more will happen to it.
func (o Outcome) Over() bool {
	return o == Done || o == Skipped || o == Failed || o == Stopped
}

// StepRun is how one step went. It stands at the step's index.
type StepRun struct {
	Outcome Outcome
	Detail  string // what was seen when it was verified, or the error
	Started time.Time
	Took    time.Duration
}

// Operation is a plan that runs or ran: the journal's unit.
type Operation struct {
	ID      string
	Plan    Plan
	Steps   []StepRun
	Outcome Outcome
	Error   string
	Started time.Time
	Ended   time.Time // zero while it runs
	// Extra is what the plan's own kind adds, as JSON: a drill's report.
	Extra []byte
}
