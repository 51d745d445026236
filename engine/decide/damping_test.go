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
		{"one failover", decide.Memory{Failovers: at(1)}, "a silent primary is lost after 6 failed checks instead of 3, one that is proved to be stopped at once"},
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
