package lab_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/labtest"
)

// A lab whose proxyd died while it rewound a former primary comes up with what
// is whole; the rest is for the proxyd that starts then. It is never taken for
// another lab than it is.
func TestUpOverAHalfDoneRewind(t *testing.T) {
	l := labtest.Up(t, lab.Options{WithoutDaemon: true})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for says, opt := range map[string]lab.Options{"has 2 nodes, not 3": {Nodes: 3}, "not files": {SwapMethod: "files"}, "not session": {PoolMode: "session"},
		`no swap method "none"`: {SwapMethod: "none"}, "2 to 5 nodes": {Nodes: 6}} {
		opt.Dir = l.Dir
		if _, err := lab.Up(ctx, opt); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("asked for another lab in its place: %v, which does not say %q", err, says)
		}
	}
	if err := l.Down(ctx); err != nil {
		t.Fatal(err)
	}
	half := l.Status().Nodes[1].DataDirectory
	if err := os.Remove(half + "/standby.signal"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(half+".pgtandem-saved", 0o700); err != nil {
		t.Fatal(err)
	}
	up := func(want string) {
		t.Helper()
		if _, err := lab.Up(ctx, lab.Options{Dir: l.Dir, WithoutDaemon: true}); err != nil {
			t.Fatalf("%s: %v", want, err)
		}
		if s := l.Status(); s.Nodes[0].PID == 0 || s.Nodes[1].PID != 0 {
			t.Errorf("%s: the servers' processes are %d and %d", want, s.Nodes[0].PID, s.Nodes[1].PID)
		}
	}
	up("half rewound")
	if err := os.RemoveAll(half); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(half + ".pgtandem-saved"); err != nil {
		t.Fatal(err)
	}
	up("without data")
	if err := os.WriteFile(l.Dir+"/state/state.db", []byte("not a store"), 0o600); err != nil {
		t.Fatal(err)
	}
	// What the daemon said last is said here, not only where its log is.
	if err := l.RestartDaemon(ctx, labtest.Programs(t)+"/proxyd"); err == nil || !strings.Contains(err.Error(), "move it aside") {
		t.Errorf("a damaged store: %v", err)
	}
}
