// Package control asks a lab's proxyd over its control socket, as curl would:
// what it knows, what happened, and a switchover. It has types of its own for
// the few fields that a fault, a chaos run or a measurement looks at, because
// the engine never imports the daemon.
//
// It must never know how the daemon comes to its answers.
package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// ErrRefused: the daemon answered, and the answer is no.
var ErrRefused = errors.New("proxyd refused")

// State is what the daemon knows, as far as a lab's user asks.
type State struct {
	Seq         uint64     `json:"seq"`
	Term        uint64     `json:"term"`
	Primary     string     `json:"primary"`
	Mode        string     `json:"mode"` // sync, async
	Gate        string     `json:"gate"` // open, closed
	Maintenance bool       `json:"maintenance"`
	Halted      string     `json:"halted"` // an invariant was found broken
	Nodes       []Node     `json:"nodes"`
	Operation   *Operation `json:"operation"` // the one in progress
	Rule        struct {
		Number int    `json:"number"`
		Name   string `json:"name"`
		Reason string `json:"reason"`
	} `json:"rule"`
}

// Node is one server as the daemon sees it.
type Node struct {
	Name           string   `json:"name"`
	Role           string   `json:"role"` // primary, standby, unknown
	Reachable      bool     `json:"reachable"`
	Postmaster     string   `json:"postmaster"` // running, stopped, absent
	SyncState      string   `json:"sync_state"` // sync, quorum, potential, async
	Timeline       uint32   `json:"timeline"`
	LSN            string   `json:"lsn"`
	ReplayPaused   bool     `json:"replay_paused"`
	Eligible       bool     `json:"eligible"`
	EligibleReason string   `json:"eligible_reason"`
	Fenced         bool     `json:"fenced"`
	InSyncSet      bool     `json:"in_sync_set"`
	SyncNames      string   `json:"synchronous_standby_names"`
	Warnings       []string `json:"warnings"`
}

// Operation is a plan that runs or ran.
type Operation struct {
	ID       string     `json:"id"`
	State    string     `json:"state"` // running, done, failed, unknown, stopped
	Error    string     `json:"error"`
	Progress string     `json:"progress"`
	Started  time.Time  `json:"started"`
	Ended    *time.Time `json:"ended"`
	TookMS   float64    `json:"took_ms"`
	Plan     struct {
		ID      string `json:"id"`
		Action  string `json:"action"`
		Node    string `json:"node"`
		Reason  string `json:"reason"`
		Rule    int    `json:"rule"`
		Confirm string `json:"confirm"`
		Steps   []struct {
			Kind   string  `json:"kind"`
			Node   string  `json:"node"`
			Title  string  `json:"title"`
			State  string  `json:"state"`
			Detail string  `json:"detail"`
			TookMS float64 `json:"took_ms"`
		} `json:"steps"`
	} `json:"plan"`
}

// Event is one line of the durable log.
type Event struct {
	Seq   uint64    `json:"seq"`
	At    time.Time `json:"at"`
	Level string    `json:"level"` // info, warn, error
	Kind  string    `json:"kind"`
	Node  string    `json:"node"`
	Term  uint64    `json:"term"`
	Op    string    `json:"op"`
	Rule  int       `json:"rule"`
	Text  string    `json:"text"`
}

// Node finds a node by its name.
func (s State) Node(name string) (Node, bool) {
	i := slices.IndexFunc(s.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return Node{}, false
	}
	return s.Nodes[i], true
}

// Standbys are the names of all nodes but the primary, in their order.
func (s State) Standbys() (out []string) {
	for _, n := range s.Nodes {
		if n.Name != s.Primary {
			out = append(out, n.Name)
		}
	}
	return out
}

// Short says what keeps the cluster from being whole: a primary behind an open
// gate, in sync, every node reachable and eligible, nothing in progress. It is
// empty when nothing does.
func (s State) Short() string {
	switch {
	case s.Halted != "":
		return "halted: " + s.Halted
	case s.Primary == "":
		return "there is no primary"
	case s.Gate != "open":
		return "the gate is " + s.Gate
	case s.Operation != nil:
		return "an operation is in progress: " + s.Operation.Plan.Action
	case s.Mode != "sync":
		return "the mode is " + s.Mode
	}
	for _, n := range s.Nodes {
		switch {
		case !n.Reachable:
			return n.Name + " is not reachable"
		case n.Fenced:
			return n.Name + " is fenced"
		case !n.Eligible:
			return fmt.Sprintf("%s is not eligible: %s", n.Name, n.EligibleReason)
		case n.Name != s.Primary && n.Role != "standby":
			return n.Name + " is no standby"
		case n.Name != s.Primary && n.SyncState == "":
			return n.Name + " does not stream"
		}
	}
	return ""
}

// Client asks one daemon. It is safe for concurrent use.
type Client struct{ http *http.Client }

// New makes a client of the daemon behind a socket; nothing is opened yet.
func New(socket string) *Client {
	var d net.Dialer
	return &Client{http: &http.Client{Transport: &http.Transport{
		DialContext:  func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
		MaxIdleConns: 2, IdleConnTimeout: 5 * time.Second,
	}}}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// do makes one request and decodes its answer.
func (c *Client) do(ctx context.Context, method, path string, body, into any) error {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("ask proxyd for %s: %w", path, err)
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://proxyd"+path, r)
	if err != nil {
		return fmt.Errorf("ask proxyd for %s: %w", path, err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask proxyd for %s: %w", path, err)
	}
	defer func() { _ = res.Body.Close() }() // read to its end, or of no use
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("ask proxyd for %s: %w", path, err)
	}
	if res.StatusCode/100 != 2 {
		var e struct{ Message, Remedy string }
		_ = json.Unmarshal(b, &e) // an answer in another form is shown by its status alone
		return fmt.Errorf("%w %s: %s: %s %s", ErrRefused, path, res.Status, e.Message, e.Remedy)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("ask proxyd for %s: %w", path, err)
	}
	return nil
}

// State is everything the daemon knows now.
func (c *Client) State(ctx context.Context) (s State, err error) {
	return s, c.do(ctx, http.MethodGet, "/v1/state", nil, &s)
}

// Events are those after a sequence number, oldest first, at most limit.
func (c *Client) Events(ctx context.Context, since uint64, limit int) (out []Event, err error) {
	q := url.Values{"format": {"json"}, "since": {strconv.FormatUint(since, 10)}, "limit": {strconv.Itoa(limit)}}
	return out, c.do(ctx, http.MethodGet, "/v1/events?"+q.Encode(), nil, &out)
}

// Operations are those the daemon remembers, newest first.
func (c *Client) Operations(ctx context.Context) (out []Operation, err error) {
	return out, c.do(ctx, http.MethodGet, "/v1/operations", nil, &out)
}

// Switchover hands over to a node as a person would ask for it, and returns
// when that has ended. A refusal wraps ErrRefused.
func (c *Client) Switchover(ctx context.Context, node string) error {
	var plan struct{ ID, Confirm string }
	if err := c.do(ctx, http.MethodPost, "/v1/plans", map[string]string{"action": "switchover", "node": node}, &plan); err != nil {
		return err
	}
	var op Operation
	if err := c.do(ctx, http.MethodPost, "/v1/plans/"+plan.ID+"/run", map[string]string{"confirm": plan.Confirm}, &op); err != nil {
		return err
	}
	for op.Ended == nil {
		if err := c.do(ctx, http.MethodGet, "/v1/operations/"+op.ID+"?wait=10s", nil, &op); err != nil {
			return err
		}
	}
	if op.State != "done" {
		return fmt.Errorf("the switchover to %s is %s: %s", node, op.State, op.Error)
	}
	return nil
}

// Reload puts the configuration file in force.
func (c *Client) Reload(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/v1/reload", nil, new(struct{}))
}

// Until asks again and again until the state is as it should be: short says
// what is missing, and nothing when nothing is. A daemon that does not answer
// is asked again.
func (c *Client) Until(ctx context.Context, what string, short func(State) string) (State, error) {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	var last string
	for {
		s, err := c.State(ctx)
		if err == nil {
			if last = short(s); last == "" {
				return s, nil
			}
		} else if ctx.Err() == nil || last == "" {
			last = err.Error()
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return s, fmt.Errorf("wait until %s: %s: %w", what, last, ctx.Err())
		}
	}
}

// Whole waits until nothing keeps the cluster from being whole.
func (c *Client) Whole(ctx context.Context) (State, error) {
	return c.Until(ctx, "the cluster is whole", State.Short)
}
