package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/proxyd/admin"
	"github.com/pgtandem/pgtandem/proxyd/admin/metrics"
	"github.com/pgtandem/pgtandem/proxyd/api"
)

// figures is where the metrics come from.
type figures struct{ *Daemon }

var _ metrics.Source = figures{}

// View implements metrics.Source.
func (f figures) View() admin.View { return plane(f).View() }

// State implements metrics.Source.
func (f figures) State(ctx context.Context) (api.State, error) { return backend(f).State(ctx) }

// listenMetrics opens the address that Prometheus reads; nil for none.
func listenMetrics(c config.Metrics) (net.Listener, error) {
	if c.Port == 0 {
		return nil, nil
	}
	address := c.Address
	if address == "*" {
		address = ""
	}
	l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(c.Port)))
	if err != nil {
		return nil, fmt.Errorf("listen for Prometheus (metrics.address, metrics.port): %w", err)
	}
	return l, nil
}

// maxScrapes are the connections that there may be at a time: more than anybody
// scrapes with, and few of the descriptors that clients need.
const maxScrapes = 64

// atMost closes connections beyond a number as they come.
func atMost(n int64) func(net.Conn, http.ConnState) {
	var open atomic.Int64
	return func(c net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			if open.Add(1) > n {
				_ = c.Close() // its reader sees it, and counts it off
			}
		case http.StateClosed, http.StateHijacked:
			open.Add(-1)
		}
	}
}

// serveMetrics answers scrapes until ctx is done. Nobody proves who they are
// here, so that everything is bounded: what may be asked, how long, how many.
func (d *Daemon) serveMetrics(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("GET "+api.PathMetrics, d.metrics)
	s := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 8 << 10, ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug), ConnState: atMost(maxScrapes),
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() }) // a scrape that is cut off is made again
	defer stop()
	if err := s.Serve(d.scrapes); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the metrics: %w", err)
	}
	return nil
}
