package drill

import (
	"fmt"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/plan"
)

// Report is what a drill measured. Its JSON is part of the product.
type Report struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Cluster string    `json:"cluster"`
	Started time.Time `json:"started"`
	TookMS  float64   `json:"took_ms"`
	Verdict string    `json:"verdict"` // pass, fail
	Why     []string  `json:"why,omitempty"`

	FaultAtMS        float64        `json:"fault_at_ms"`
	LongestPauseMS   float64        `json:"longest_pause_ms"`
	Errors           map[string]int `json:"errors"` // by SQLSTATE
	InFlight         int            `json:"in_flight"`
	ConnectErrors    int            `json:"connect_errors"`
	Acknowledged     int            `json:"acknowledged"`
	Lost             int            `json:"lost"`
	Unknown          int            `json:"unknown"`
	UnknownPresent   int            `json:"unknown_present"`
	LongestConnectMS float64        `json:"longest_connect_ms"`

	Steps   []Step   `json:"steps"`
	Checks  []Check  `json:"checks"`
	Clients []Client `json:"clients"`
	Marks   []Mark   `json:"marks"`
	Acks    []int    `json:"acks_per_100ms"`
}

// Step is one of the engine's steps, with its timing.
type Step struct {
	ID      string     `json:"id"`
	Kind    string     `json:"kind"`
	Node    string     `json:"node,omitempty"`
	Title   string     `json:"title"`
	Command string     `json:"command,omitempty"`
	State   string     `json:"state"`
	Detail  string     `json:"detail,omitempty"`
	Started *time.Time `json:"started,omitempty"`
	TookMS  float64    `json:"took_ms"`
}

// Check is one thing that was looked at afterwards.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Saw  string `json:"saw"`
}

// Client is what one client saw.
type Client struct {
	Name           string  `json:"name"`
	Kind           string  `json:"kind"`
	Acknowledged   int     `json:"acknowledged"`
	LongestPauseMS float64 `json:"longest_pause_ms"`
	Errors         []Error `json:"errors,omitempty"`
}

// Error is one error a client got.
type Error struct {
	AtMS    float64 `json:"at_ms"`
	Code    string  `json:"code"`
	Text    string  `json:"text"`
	Outcome string  `json:"outcome,omitempty"` // of the row: present, absent
}

// Mark is one moment of the timeline.
type Mark struct {
	AtMS float64 `json:"at_ms"`
	Who  string  `json:"who"` // fault, daemon, clients, restore
	Text string  `json:"text"`
}

// attempt is one row that a client tried to write.
type attempt struct {
	client int
	n      int
	begun  time.Duration // after the drill's start
	ended  time.Duration
	code   string // SQLSTATE, "connection", "connect"; empty when acknowledged
	text   string
	dial   time.Duration // how long connecting took, where it connected
}

func (a attempt) acked() bool { return a.code == "" }

// definite errors say that the row was not written; a row that is there after
// one of them means that a client was told a lie.
func definite(code string) bool {
	switch code {
	case "40001", "57P03", "25P02", "53300", "connect":
		return true
	}
	return false
}

// judged is all that a verdict is made from.
type judged struct {
	attempts []attempt
	clients  []Client        // names and kinds, in the order of attempt.client
	present  map[[2]int]bool // rows that were read back; nil when that was not possible
	faultAt  time.Duration   // the command was sent
	goneAt   time.Duration   // the command came back: the server is gone
	end      time.Duration
	checks   []Check
	// mayFail: a statement in flight at the fault may end in an error.
	mayFail bool
	// limit on the longest pause, above which the drill fails; 0 for none.
	limit time.Duration
	why   []string // failures found while it ran
}

// judge turns what happened into figures and a verdict. It gives what it added
// up on the way.
func judge(r *Report, j judged) *tally {
	r.Errors = map[string]int{}
	r.Clients, r.Checks = j.clients, j.checks
	r.Why = slices.Clone(j.why)
	r.FaultAtMS = ms(j.faultAt)
	t := tally{Report: r, judged: j, perClient: make([][]time.Duration, len(j.clients)), excused: map[int]bool{}}
	for _, a := range j.attempts {
		t.count(a)
	}
	slices.Sort(t.acks)
	r.LongestPauseMS = ms(longest(t.acks, j.faultAt))
	for i := range r.Clients {
		r.Clients[i].Acknowledged = len(t.perClient[i])
		r.Clients[i].LongestPauseMS = ms(longest(t.perClient[i], j.faultAt))
	}
	r.Acks = histogram(t.acks, j.end)
	r.fail(r.Lost > 0, "%d acknowledged rows are missing", r.Lost)
	r.fail(t.lies > 0, "%d rows are there although the client was told that they were not written", t.lies)
	r.fail(r.ConnectErrors > 0, "%d connections were refused", r.ConnectErrors)
	r.fail(t.beyond > 0, "%d statements failed that were not in flight at the fault", t.beyond)
	r.fail(r.Acknowledged == 0, "no row was acknowledged at all")
	r.fail(j.limit > 0 && r.LongestPauseMS > ms(j.limit), "the longest pause, %.0f ms, is above the limit of %s", r.LongestPauseMS, j.limit)
	for _, c := range j.checks {
		r.fail(!c.OK, "check failed: %s (saw %s)", c.Name, c.Saw)
	}
	r.Verdict = "pass"
	if len(r.Why) > 0 {
		r.Verdict = "fail"
	}
	return &t
}

// tally adds attempts up.
type tally struct {
	*Report
	judged
	acks      []time.Duration
	perClient [][]time.Duration
	excused   map[int]bool // clients whose statement in flight has failed
	beyond    int          // failed statements that nothing excuses
	lies      int          // rows that are there after a definite no
}

func (t *tally) count(a attempt) {
	t.LongestConnectMS = max(t.LongestConnectMS, ms(a.dial))
	// The server died somewhere between the command and its return.
	inFlight := a.begun <= t.goneAt && a.ended >= t.faultAt
	if inFlight {
		t.InFlight++
	}
	there := t.present[[2]int{a.client, a.n}]
	if a.acked() {
		t.Acknowledged++
		t.acks = append(t.acks, a.ended)
		t.perClient[a.client] = append(t.perClient[a.client], a.ended)
		if t.present != nil && !there {
			t.Lost++
		}
		return
	}
	e := Error{AtMS: ms(a.ended), Code: a.code, Text: a.text}
	switch {
	case there:
		e.Outcome = "present"
	case t.present != nil:
		e.Outcome = "absent"
	}
	t.Report.Clients[a.client].Errors = append(t.Report.Clients[a.client].Errors, e)
	if a.code == "connect" {
		t.ConnectErrors++
	} else {
		t.Errors[a.code]++
		// One statement of each client can be in flight when a server dies.
		if !t.mayFail || !inFlight || t.excused[a.client] {
			t.beyond++
		}
		t.excused[a.client] = true
	}
	switch {
	case definite(a.code) && there:
		t.lies++
	case !definite(a.code):
		t.Unknown++
		if there {
			t.UnknownPresent++
		}
	}
}

func (r *Report) fail(when bool, format string, args ...any) {
	if when {
		r.Why = append(r.Why, fmt.Sprintf(format, args...))
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// longest is the greatest distance between two neighbours of a sorted list, of
// which the later is not before from: while the clients were starting, a pause
// says nothing of the cluster.
func longest(t []time.Duration, from time.Duration) time.Duration {
	var l time.Duration
	for i := 1; i < len(t); i++ {
		if t[i] >= from {
			l = max(l, t[i]-t[i-1])
		}
	}
	return l
}

// histogram counts acknowledgements in each tenth of a second.
func histogram(acks []time.Duration, end time.Duration) []int {
	const bucket = 100 * time.Millisecond
	h := make([]int, int(end/bucket)+1)
	for _, a := range acks {
		if i := int(a / bucket); i < len(h) {
			h[i]++
		}
	}
	return h
}

// stepsOf are an operation's steps as a report shows them.
func stepsOf(op plan.Operation) []Step {
	var out []Step
	for i, s := range op.Plan.Steps {
		st := Step{ID: s.ID, Kind: string(s.Kind), Node: string(s.Node), Title: s.Title, Command: s.Command, State: string(plan.Pending)}
		if i < len(op.Steps) {
			run := op.Steps[i]
			st.State, st.Detail, st.TookMS = string(run.Outcome), run.Detail, ms(run.Took)
			if !run.Started.IsZero() {
				at := run.Started
				st.Started = &at
			}
		}
		out = append(out, st)
	}
	return out
}
