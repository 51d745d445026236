//go:build !portable

package relay

import (
	"runtime"
	"testing"
)

// TestIdleConnectionsHaveNoGoroutines is what the loops are for.
func TestIdleConnectionsHaveNoGoroutines(t *testing.T) {
	g := loops(t, 2)
	before := runtime.NumGoroutine()
	for range 50 {
		p, _ := pair(t)
		p.start(t, g.Next(), echo)
	}
	if now := runtime.NumGoroutine(); now > before {
		t.Errorf("%d goroutines for 50 idle connections", now-before)
	}
}
