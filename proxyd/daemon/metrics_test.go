package daemon

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

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
	t.Run("few at a time", func(t *testing.T) { fewScrapes(t, l.Addr().String()) })
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// fewScrapes: connections that say nothing cost no more than their number, and
// make room when they go.
func fewScrapes(t *testing.T, addr string) {
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	scrape := func() bool {
		res, err := client.Get("http://" + addr + "/metrics")
		if err != nil {
			return false
		}
		res.Body.Close()
		return true
	}
	until := func(what string, seen func() bool) {
		t.Helper()
		for limit := time.Now().Add(time.Minute); !seen(); {
			if time.Now().After(limit) {
				t.Fatalf("not within a minute: %s", what)
			}
		}
	}
	until("there is room", scrape)
	var crowd []net.Conn
	until("there is none", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		crowd = append(crowd, conn)
		return len(crowd) >= maxScrapes && !scrape()
	})
	for _, conn := range crowd {
		conn.Close()
	}
	until("there is room again", scrape)
}
