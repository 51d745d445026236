package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// answerLimit is how long a request that waits for nothing may take. The
// daemon answers from memory; longer means that it hangs.
const answerLimit = 30 * time.Second

// silenceLimit is how long the event stream may be silent, heartbeats
// included, before the daemon counts as gone.
const silenceLimit = 4 * api.StreamHeartbeat

// Client speaks with one daemon. It is safe for concurrent use and keeps no
// state but idle connections and the version that the daemon last named.
type Client struct {
	socket  string
	http    *http.Client
	version atomic.Int64
	silence time.Duration
}

// New makes a client of the daemon that listens on socket, a path. Nothing is
// opened before the first call.
func New(socket string) *Client {
	var d net.Dialer
	return &Client{
		socket:  socket,
		silence: silenceLimit,
		http: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return d.DialContext(ctx, "unix", socket)
			},
			MaxIdleConns:    4,
			IdleConnTimeout: 30 * time.Second,
		}},
	}
}

// Socket is the path the client was made with.
func (c *Client) Socket() string { return c.socket }

// Close ends idle connections. The client may be used again.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Mismatch tells the version of the control socket that the daemon named in
// its last answer, and whether it is another than this program's. A mismatch
// is not an error: fields are only ever added.
func (c *Client) Mismatch() (daemon int, differs bool) {
	v := int(c.version.Load())
	return v, v != 0 && v != api.Version
}

// State is everything the daemon knows now.
func (c *Client) State(ctx context.Context) (api.State, error) {
	return get[api.State](ctx, c, api.PathState, nil)
}

// Events reads the event log, oldest first: with since > 0 the first limit
// events after it, with 0 the newest limit. limit 0 means api.DefaultEvents.
func (c *Client) Events(ctx context.Context, since uint64, limit int) ([]api.Event, error) {
	q := url.Values{"format": {"json"}}
	if since > 0 {
		q.Set("since", strconv.FormatUint(since, 10))
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return get[[]api.Event](ctx, c, api.PathEvents, q)
}

// Plan asks what would be done; nothing is changed.
func (c *Client) Plan(ctx context.Context, r api.PlanRequest) (api.Plan, error) {
	return post[api.Plan](ctx, c, api.PathPlans, r, "the plan")
}

// PlanByID reads a plan that was made before.
func (c *Client) PlanByID(ctx context.Context, id string) (api.Plan, error) {
	return get[api.Plan](ctx, c, withID(api.PathPlan, id), nil)
}

// Run runs a plan; confirm must equal the plan's. It returns as soon as the
// operation has begun.
func (c *Client) Run(ctx context.Context, planID, confirm string) (api.Operation, error) {
	return post[api.Operation](ctx, c, withID(api.PathPlanRun, planID), api.RunRequest{Confirm: confirm}, "the operation")
}

// Operation reads an operation, waiting for its end up to wait. An operation
// that has not ended by then is returned as it stands, without an error.
func (c *Client) Operation(ctx context.Context, id string, wait time.Duration) (api.Operation, error) {
	end := time.Now().Add(wait)
	for {
		left := min(time.Until(end), api.MaxWait)
		q := url.Values{}
		if left > 0 {
			q.Set("wait", left.Round(time.Millisecond).String())
		}
		op, err := getWithin[api.Operation](ctx, c, withID(api.PathOperation, id), q, max(left, 0)+answerLimit)
		if err != nil || op.Ended != nil || time.Until(end) <= 0 {
			return op, err
		}
	}
}

// Operations lists the operations that the daemon remembers, newest first.
func (c *Client) Operations(ctx context.Context) ([]api.Operation, error) {
	return get[[]api.Operation](ctx, c, api.PathOperations, nil)
}

// Drills lists what can be rehearsed.
func (c *Client) Drills(ctx context.Context) ([]api.DrillInfo, error) {
	return get[[]api.DrillInfo](ctx, c, api.PathDrills, nil)
}

// StartDrill begins a drill; the operation's Drill holds the report once it
// has ended.
func (c *Client) StartDrill(ctx context.Context, r api.DrillRequest) (api.Operation, error) {
	return post[api.Operation](ctx, c, api.PathDrills, r, "the drill")
}

// DrillReports lists the reports that the daemon keeps, newest first.
func (c *Client) DrillReports(ctx context.Context) ([]api.DrillReport, error) {
	return get[[]api.DrillReport](ctx, c, api.PathDrillReports, nil)
}

// SyncFiles reads the primary's sync and async configuration and which is in
// force.
func (c *Client) SyncFiles(ctx context.Context) (api.SyncFiles, error) {
	return get[api.SyncFiles](ctx, c, api.PathSyncFiles, nil)
}

// Config is the daemon's running configuration without its secrets.
func (c *Client) Config(ctx context.Context) (api.Config, error) {
	return get[api.Config](ctx, c, api.PathConfig, nil)
}

// Reload makes the daemon read its configuration again.
func (c *Client) Reload(ctx context.Context) (api.ReloadResult, error) {
	return post[api.ReloadResult](ctx, c, api.PathReload, nil, "the reload")
}

// Pools lists the pools of the proxy.
func (c *Client) Pools(ctx context.Context) ([]api.Pool, error) {
	return get[[]api.Pool](ctx, c, api.PathPools, nil)
}

// Clients lists the proxy's clients.
func (c *Client) Clients(ctx context.Context) ([]api.Client, error) {
	return get[[]api.Client](ctx, c, api.PathClients, nil)
}

// Maintenance turns the engine's hands off, or on again.
func (c *Client) Maintenance(ctx context.Context, r api.MaintenanceRequest) (api.State, error) {
	return post[api.State](ctx, c, api.PathMaintenance, r, "the change of maintenance")
}

func withID(pattern, id string) string {
	return strings.Replace(pattern, "{id}", url.PathEscape(id), 1)
}

func get[T any](ctx context.Context, c *Client, path string, q url.Values) (T, error) {
	return getWithin[T](ctx, c, path, q, answerLimit)
}

func getWithin[T any](ctx context.Context, c *Client, path string, q url.Values, limit time.Duration) (T, error) {
	var v T
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	err := c.call(ctx, limit, http.MethodGet, path, nil, "", &v)
	return v, err
}

func post[T any](ctx context.Context, c *Client, path string, body any, what string) (T, error) {
	var v T
	err := c.call(ctx, answerLimit, http.MethodPost, path, body, what, &v)
	return v, err
}

// call does one request and decodes its answer. what names the change that a
// lost answer leaves unknown; it is empty where nothing is changed.
func (c *Client) call(ctx context.Context, limit time.Duration, method, path string, body any, what string, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errNoAnswer)
	defer cancel()
	res, err := c.do(ctx, method, path, body)
	if err != nil {
		return c.failed(ctx, err, what)
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		return refusal(res)
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return c.failed(ctx, fmt.Errorf("read the answer of %s %s: %w", method, path, err), what)
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://pgtandem"+path, r)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	v, err := strconv.Atoi(res.Header.Get(api.HeaderVersion))
	if err == nil {
		c.version.Store(int64(v))
	}
	return res, nil
}

// refusal reads the error body of an answer that is not 2xx.
func refusal(res *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read the daemon's refusal (%s): %w", res.Status, err)
	}
	var e api.Error
	if err := json.Unmarshal(b, &e); err != nil || e.Code == "" {
		return &api.Error{
			Code:    api.CodeInternal,
			Message: fmt.Sprintf("the daemon answered %s: %s", res.Status, strings.TrimSpace(string(b))),
			Remedy:  "is something else than proxyd listening on this socket?",
		}
	}
	return &e
}
