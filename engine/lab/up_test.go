package lab_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/labtest"
)

// A lab whose proxyd died while it rewound a former primary comes up with what
// is whole; the rest is for the proxyd that starts then.
func TestUpOverAHalfDoneRewind(t *testing.T) {
	l := labtest.Up(t, lab.Options{WithoutDaemon: true})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
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
}
