package drill

import (
	"strings"
	"testing"
	"time"
)

const s = time.Second

// The stories have one client, a fault sent at 1 s and done at 1.1 s.
func TestVerdict(t *testing.T) {
	ack := func(n int, begun, ended time.Duration) attempt { return attempt{n: n, begun: begun, ended: ended} }
	fail := func(n int, begun, ended time.Duration, code string) attempt {
		return attempt{n: n, begun: begun, ended: ended, code: code, text: "text of " + code}
	}
	fine := []attempt{ack(1, 0, s/10), ack(2, s/2, s*6/10), ack(4, 2*s, 2*s+s/10)}
	for _, tt := range []struct {
		story   string
		more    []attempt
		present []int
		strict  bool // no statement may fail
		limit   time.Duration
		checks  []Check
		verdict string
		says    string
		unknown int
		pause   float64
	}{
		{story: "nothing went wrong", present: []int{1, 2, 4}, verdict: "pass", pause: 1500},
		{story: "a statement in flight failed, its outcome unknown and absent", more: []attempt{fail(3, s, s+s/20, "08007")}, present: []int{1, 2, 4}, verdict: "pass", unknown: 1, pause: 1500},
		{story: "a statement in flight failed although none may", more: []attempt{fail(3, s, s+s/20, "08007")}, present: []int{1, 2, 4}, strict: true, verdict: "fail", says: "1 statements failed", unknown: 1, pause: 1500},
		{story: "a statement sent after the fault failed", more: []attempt{fail(3, s*3/2, s*8/5, "08007")}, present: []int{1, 2, 4}, verdict: "fail", says: "not in flight", unknown: 1, pause: 1500},
		{story: "of one client's statements only the first to fail was in flight", more: []attempt{fail(3, s, s+s/20, "57P01"), fail(5, s+s/20, s+s/15, "57P01")}, present: []int{1, 2, 4}, verdict: "fail", says: "1 statements failed", unknown: 2, pause: 1500},
		{story: "a statement failed before the fault", more: []attempt{fail(3, s/2, s*7/10, "57P01")}, present: []int{1, 2, 4}, verdict: "fail", says: "not in flight", unknown: 1, pause: 1500},
		{story: "a pause before the fault is no matter", more: []attempt{ack(3, s*8/10, s*9/10)}, present: []int{1, 2, 3, 4}, verdict: "pass", pause: 1200},
		{story: "an acknowledged row is gone", present: []int{1, 4}, verdict: "fail", says: "1 acknowledged rows are missing", pause: 1500},
		{story: "told aborted, and the row is there", more: []attempt{fail(3, s, s+s/20, "40001")}, present: []int{1, 2, 3, 4}, verdict: "fail", says: "told that they were not written", pause: 1500},
		{story: "a connection was refused", more: []attempt{fail(3, s, s+s/20, "connect")}, present: []int{1, 2, 4}, verdict: "fail", says: "1 connections were refused", pause: 1500},
		{story: "the pause was above the limit", present: []int{1, 2, 4}, limit: s, verdict: "fail", says: "above the limit of 1s", pause: 1500},
		{story: "a check failed", present: []int{1, 2, 4}, checks: []Check{{Name: "in recovery", Saw: "true"}}, verdict: "fail", says: "check failed: in recovery (saw true)", pause: 1500},
	} {
		t.Run(tt.story, func(t *testing.T) {
			j := judged{attempts: append(append([]attempt{}, fine...), tt.more...), clients: []Client{{Name: "one", Kind: "lasting"}},
				faultAt: s, goneAt: s + s/10, end: 3 * s, mayFail: !tt.strict, limit: tt.limit, checks: tt.checks, present: map[[2]int]bool{}}
			for _, n := range tt.present {
				j.present[[2]int{0, n}] = true
			}
			var r Report
			judge(&r, j)
			if r.Verdict != tt.verdict || !strings.Contains(strings.Join(r.Why, "; "), tt.says) {
				t.Errorf("%s: %q; want %s, saying %q", r.Verdict, r.Why, tt.verdict, tt.says)
			}
			if r.Unknown != tt.unknown || r.LongestPauseMS != tt.pause {
				t.Errorf("unknown %d, pause %.0f ms; want %d, %.0f", r.Unknown, r.LongestPauseMS, tt.unknown, tt.pause)
			}
			sum := 0
			for _, n := range r.Acks {
				sum += n
			}
			if sum != r.Acknowledged {
				t.Errorf("the histogram has %d acknowledgements of %d", sum, r.Acknowledged)
			}
		})
	}
}

func TestNothingAcknowledgedFails(t *testing.T) {
	var r Report
	judge(&r, judged{clients: []Client{{}}, end: s})
	if r.Verdict != "fail" {
		t.Errorf("a drill without one acknowledgement is a %s", r.Verdict)
	}
}

// A drill whose rows could not be read back says nothing of lost rows.
func TestWhatWasNotLookedAtIsNotLost(t *testing.T) {
	var r Report
	judge(&r, judged{clients: []Client{{Name: "one"}}, end: s, attempts: []attempt{{n: 1, ended: s / 2}, {n: 2, begun: s / 2, ended: s, code: "08006"}}, why: []string{"nothing is known of lost rows"}})
	if r.Verdict != "fail" || r.Lost != 0 || r.Clients[0].Errors[0].Outcome != "" || len(r.Why) != 2 {
		t.Errorf("%+v", r)
	}
}

func TestFindNamesWhatThereIs(t *testing.T) {
	if _, err := Find("meteor"); err == nil || !strings.Contains(err.Error(), "primary-stop, standby-stop") {
		t.Errorf("%v", err)
	}
}
