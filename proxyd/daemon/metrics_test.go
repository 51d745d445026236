package daemon

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"testing"

	"github.com/pgtandem/pgtandem/config"
)

func TestTheListenerForMetrics(t *testing.T) {
	if l, err := listenMetrics(config.Default().Metrics); l != nil || err != nil {
		t.Fatalf("it is not off by default: %v, %v", l, err)
	}
	l, err := listenMetrics(config.Metrics{Address: "127.0.0.1", Port: freePort(t)})
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{log: slog.New(slog.DiscardHandler), scrapes: l, metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "pgtandem_gate_open 1\n") //nolint:errcheck // a test's answer
	})}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- d.serveMetrics(ctx) }()
	for path, want := range map[string]int{"/metrics": 200, "/": 404, "/v1/state": 404} {
		res, err := http.Get("http://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != want || want == 200 && string(body) != "pgtandem_gate_open 1\n" {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
