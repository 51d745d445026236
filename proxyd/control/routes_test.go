package control_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/control"
)

var update = flag.Bool("update", false, "write the goldens anew")

// raw asks as curl would and gives the status and the body.
func raw(t *testing.T, socket, method, path, body string) (*http.Response, string) {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://x"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func TestTheRoutesAreFrozen(t *testing.T) {
	var got []string
	for _, r := range control.Routes() {
		got = append(got, fmt.Sprintf("%-6s %s %s %s", r.Access, r.Path, r.Method, strings.Join(r.Query, ",")))
	}
	want := []string{
		"look   /metrics GET ",
		"look   /v1/clients GET ",
		"look   /v1/config GET ",
		"look   /v1/drills GET ",
		"change /v1/drills POST ",
		"look   /v1/drills/reports GET ",
		"look   /v1/events GET since,limit,format",
		"change /v1/maintenance POST ",
		"look   /v1/operations GET ",
		"look   /v1/operations/{id} GET wait",
		"look   /v1/plans POST ",
		"look   /v1/plans/{id} GET ",
		"change /v1/plans/{id}/run POST ",
		"look   /v1/pools GET ",
		"change /v1/reload POST ",
		"look   /v1/state GET ",
		"look   /v1/sync-files GET ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the table is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !slices.IsSortedFunc(control.Routes(), func(a, b control.Route) int {
		return strings.Compare(a.Path+" "+a.Method, b.Path+" "+b.Method)
	}) {
		t.Error("the table is not sorted")
	}
}

// TestEveryRouteAnswersAsWritten holds what each route says, byte for byte;
// consoles of other releases read it.
func TestEveryRouteAnswersAsWritten(t *testing.T) {
	f := newFake()
	f.ops["o1"] = api.Operation{ID: "o1", State: api.OpDone, Started: noon, Ended: &noon, TookMS: 12.5}
	c, _ := serve(t, f, "", nil)
	bodies := map[string]string{
		api.PathDrills:      `{"name":"primary-stop","confirm":"main"}`,
		api.PathMaintenance: `{"on":true,"reason":"new disk"}`,
		api.PathPlans:       `{"action":"switchover","node":"pgsql2"}`,
		api.PathPlanRun:     `{"confirm":"pgsql2"}`,
	}
	for _, r := range control.Routes() {
		path := strings.ReplaceAll(r.Path, "{id}", map[bool]string{true: "o1", false: "p1"}[r.Path == api.PathOperation])
		body := ""
		if r.Method == "POST" {
			body = bodies[r.Path]
		}
		if r.Path == api.PathEvents {
			path += "?format=json"
		}
		res, got := raw(t, c.Socket(), r.Method, path, body)
		kind := "application/json"
		if r.Path == api.PathMetrics {
			kind = "text/plain; version=0.0.4"
		}
		if res.StatusCode != 200 || res.Header.Get(api.HeaderVersion) != fmt.Sprint(api.Version) || res.Header.Get("Content-Type") != kind {
			t.Errorf("%s %s: %d %v", r.Method, path, res.StatusCode, res.Header)
		}
		name := strings.ToLower(r.Method) + strings.NewReplacer("/v1/", "-", "/", "-", "{", "", "}", "").Replace(r.Path) + ".golden"
		golden(t, name, fmt.Sprintf("%s %s\n%s\n%s", r.Method, path, body, got))
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func TestWhatIsNotUnderstoodIsNamed(t *testing.T) {
	c, _ := serve(t, newFake(), "", nil)
	for _, tc := range []struct {
		method, path, body string
		status             int
		code               string
		says               []string
	}{
		{"POST", "/v1/plans", `{"action":"promote","nod":"pgsql2"}`, 400, "usage", []string{`unknown field "nod"`, "node (string)", "force (bool)"}},
		{"POST", "/v1/plans", `{"action":7}`, 400, "usage", []string{`"action" is a JSON number`, "string"}},
		{"POST", "/v1/plans", `[]`, 400, "usage", []string{"JSON array", "object"}},
		{"POST", "/v1/plans", ``, 400, "usage", []string{"empty"}},
		{"POST", "/v1/plans", `{"action":"x"} {}`, 400, "usage", []string{"goes on"}},
		{"POST", "/v1/plans", `{"action"`, 400, "usage", []string{"not JSON"}},
		{"POST", "/v1/plans", `{"action":"` + strings.Repeat("x", 70000) + `"}`, 400, "usage", []string{"larger than 65536"}},
		{"POST", "/v1/reload", `{}`, 400, "usage", []string{"no body"}},
		{"GET", "/v1/state?verbose=1", ``, 400, "usage", []string{`"verbose"`, "takes none"}},
		{"GET", "/v1/events?sinc=1", ``, 400, "usage", []string{`"sinc"`, "since, limit, format"}},
		{"GET", "/v1/events?since=x", ``, 400, "usage", []string{`since="x"`}},
		{"GET", "/v1/events?format=xml", ``, 400, "usage", []string{"xml", "json"}},
		{"GET", "/v1/events?limit=3", ``, 400, "usage", []string{"format=json"}},
		{"GET", "/v1/events?format=json&limit=10001", ``, 400, "usage", []string{"limit", "10000"}},
		{"GET", "/v1/operations/o9", ``, 404, "not_found", []string{"no operation o9"}},
		{"GET", "/v1/operations/o9?wait=soon", ``, 400, "usage", []string{"soon", "30s"}},
		{"GET", "/v1/operations/o9?wait=-1s", ``, 400, "usage", []string{"-1s"}},
		{"GET", "/v1/nothing", ``, 404, "not_found", []string{"/v1/nothing", "/v1/state"}},
		{"DELETE", "/v1/state", ``, 405, "usage", []string{"DELETE", "GET"}},
	} {
		res, body := raw(t, c.Socket(), tc.method, tc.path, tc.body)
		var e api.Error
		if err := json.Unmarshal([]byte(body), &e); err != nil {
			t.Errorf("%s %s: %v in %s", tc.method, tc.path, err, body)
			continue
		}
		if res.StatusCode != tc.status || e.Code != tc.code {
			t.Errorf("%s %s %.40s: %d %s, want %d %s", tc.method, tc.path, tc.body, res.StatusCode, e.Code, tc.status, tc.code)
		}
		for _, part := range tc.says {
			if !strings.Contains(e.Error(), part) {
				t.Errorf("%s %s %.40s: %q does not say %q", tc.method, tc.path, tc.body, e.Error(), part)
			}
		}
	}
}
