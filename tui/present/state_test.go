package present_test

import (
	"strings"
	"testing"

	"github.com/pgtandem/pgtandem/tui/fixture"
	"github.com/pgtandem/pgtandem/tui/present"
)

// Under synchronous replication some commit always waits; only one that waits
// long is worth a word.
func TestOnlyACommitThatWaitsLongIsAWarning(t *testing.T) {
	for oldest, want := range map[int64]bool{3: false, 999: false, 1000: true, 60_000: true} {
		s := fixture.State(fixture.Epoch)
		s.Nodes[0].SyncWaiters, s.Nodes[0].OldestWaitMS = 2, oldest
		got := present.Text(present.NodesTable(s, 0, "", present.ASCII()).Lines(0, present.ASCII()))
		if strings.Contains(got, "2 wait") != want {
			t.Errorf("after %d ms:\n%s", oldest, got)
		}
	}
}
