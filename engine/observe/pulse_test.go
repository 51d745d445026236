package observe

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// The stories are told by what happens on connections a, b and c at times in
// milliseconds; the timeout is 1000 ms and the period 500 ms. Wanted are the
// times at which a failure is counted, with the count, and 0 where a sign of
// life ends the silence.
func TestOnlySilenceCounts(t *testing.T) {
	type event struct {
		at   int
		what string // ask, hear, settle
		on   string
	}
	login := func(on string, at, trip, trips int) (e []event) {
		e = append(e, event{at, "ask", on})
		for range trips {
			at += trip
			e = append(e, event{at, "hear", on})
		}
		return append(e, event{at, "settle", on})
	}
	for _, tt := range []struct {
		story  string
		events []event
		until  int
		want   []string
	}{
		{"nothing was asked", nil, 9000, nil},
		{"an answer in time", []event{{0, "ask", "a"}, {400, "hear", "a"}, {400, "settle", "a"}}, 9000, nil},
		{"frozen: two failures after two timeouts, and one more with each", []event{{0, "ask", "a"}}, 3500, []string{"1000:1", "2000:2", "3000:3"}},
		{"a login of seven late round trips takes long and is no silence", login("a", 0, 400, 7), 9000, nil},
		{"a lost packet in a login is a failure that the next byte ends", append(login("a", 0, 1300, 2), login("a", 4000, 400, 7)...), 9000,
			[]string{"1000:1", "1300:0", "2300:1", "2600:0"}},
		{"one connection is stuck and another is not", append(append([]event{{0, "ask", "a"}}, login("b", 250, 400, 1)...), login("b", 900, 400, 1)...), 9000, nil},
		{"both are stuck, and the login made for the case gets through", append([]event{{0, "ask", "a"}, {250, "ask", "b"}}, login("c", 500, 800, 3)...), 9000,
			[]string{"1000:1", "1300:0"}},
		{"frozen although one was answered after the other was asked", append(append([]event{{0, "ask", "a"}}, login("b", 250, 400, 1)...), event{900, "ask", "b"}), 3000,
			[]string{"1900:1", "2900:2"}},
		{"frozen in the middle of an answer", []event{{0, "ask", "a"}, {100, "hear", "a"}}, 2500, []string{"1100:1", "2100:2"}},
		{"a question that is withdrawn is owed by nobody", []event{{0, "ask", "a"}, {900, "settle", "a"}}, 9000, nil},
	} {
		t.Run(tt.story, func(t *testing.T) {
			epoch := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
			now := epoch
			p := newPulse(func() time.Time { return now })
			lines := map[string]*line{}
			check := Check{Period: 500 * time.Millisecond, Timeout: time.Second}
			var v vigil
			var got []string
			facts := cluster.NodeFacts{Reach: cluster.ReachOK}
			counted := time.Time{}
			for ms := 0; ms <= tt.until; ms++ {
				now = epoch.Add(time.Duration(ms) * time.Millisecond)
				for _, e := range tt.events {
					if e.at != ms {
						continue
					}
					if lines[e.on] == nil {
						lines[e.on] = &line{p}
					}
					map[string]func(){"ask": lines[e.on].ask, "hear": lines[e.on].hear, "settle": lines[e.on].settle}[e.what]()
				}
				since := p.silence()
				if v.spoken(since) {
					facts = Spoke(facts)
					got = append(got, fmt.Sprintf("%d:%d", ms, facts.Failures))
				}
				if since.IsZero() {
					continue
				}
				if at, began := v.due(check.Timeout, check.step()); !now.Before(at) {
					v.counted++
					facts, counted = Failed(facts, cluster.ReachTimeout, began, "", counted, check.Period)
					got = append(got, fmt.Sprintf("%d:%d", ms, facts.Failures))
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}
