package decide_test

import (
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
)

func TestDampingIsSaid(t *testing.T) {
	p := healthy().Policy // 3 checks, a second apart
	p.DampingWindow = 10 * time.Minute
	at := func(n int) (ts []time.Time) {
		for i := range n {
			ts = append(ts, epoch.Add(-time.Duration(i)*time.Minute))
		}
		return ts
	}
	for _, tt := range []struct {
		story  string
		memory decide.Memory
		says   string
	}{
		{"nothing has happened", decide.Memory{}, ""},
		{"whatever was lost once is welcome back", decide.Memory{Losses: map[cluster.NodeID][]time.Time{"pgsql2": at(1)}}, ""},
		{"one failover", decide.Memory{Failovers: at(1)}, "a silent primary is lost after 6 failed checks instead of 3 (proof acts at once)"},
		{"three losses of a standby", decide.Memory{Losses: map[cluster.NodeID][]time.Time{"pgsql2": at(3)}}, "pgsql2 must stream for 6s before commits wait for it again"},
	} {
		if got := decide.DampingOf(p, tt.memory).Sentence(); got != tt.says {
			t.Errorf("%s: %q, want %q", tt.story, got, tt.says)
		}
	}
}

func TestAsyncCountsFromTheEarliestMomentThatIsKnown(t *testing.T) {
	ago := func(d time.Duration) time.Time { return epoch.Add(-d) }
	for _, tt := range []struct {
		story          string
		recorded, seen time.Time
		want           time.Time
	}{
		{"recorded before this daemon saw it", ago(time.Hour), ago(time.Minute), ago(time.Hour)},
		{"recorded by an earlier version, without its moment", time.Time{}, ago(time.Minute), ago(time.Minute)},
		{"recorded before the clock was set back", epoch.Add(time.Hour), ago(time.Minute), ago(time.Minute)},
		{"seen first", ago(time.Second), ago(time.Minute), ago(time.Minute)},
	} {
		if got := decide.AsyncSince(cluster.Record{WantSince: tt.recorded}, decide.Memory{AsyncSince: tt.seen}, epoch); !got.Equal(tt.want) {
			t.Errorf("%s: %s, want %s", tt.story, got, tt.want)
		}
	}
}

// TestASwitchoverIsNoFailover: while it runs the primary is seen stopped, and a
// decision to promote is made that nobody carries out.
func TestASwitchoverIsNoFailover(t *testing.T) {
	for stopping, want := range map[cluster.NodeID]int{"pgsql1": 0, "": 1} {
		in := healthy()
		in.Policy.DampingWindow = 10 * time.Minute
		stopped("pgsql1")(&in)
		in.Record.Stopping = stopping
		d, mem, _ := decide.Decide(in)
		if d.Action != cluster.Promote {
			t.Fatalf("%q decided, want promote", d.Action)
		}
		in.Memory, in.Record.Stopping = mem, ""
		in.Record.Term, in.Record.Primary, in.Record.Timeline = 2, "pgsql2", 2
		node(&in, "pgsql2").Role = cluster.RolePrimary
		later(time.Second)(&in)
		if _, mem, _ = decide.Decide(in); len(mem.Failovers) != want {
			t.Errorf("stopping %q: %d failovers are counted, want %d", stopping, len(mem.Failovers), want)
		}
	}
}
