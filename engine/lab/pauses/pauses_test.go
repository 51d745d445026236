package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/drill"
	"github.com/pgtandem/pgtandem/engine/lab/control"
)

func measured(pause float64, beyond, connect, lost int) drill.Measured {
	return drill.Measured{Report: drill.Report{Lost: lost, ConnectErrors: connect}, WorstClientMS: pause, Beyond: beyond}
}

// The table's lines are the scenes that were played, each with the median of
// its runs; a refused connection is an error except where there is nobody to
// connect to.
func TestTheTable(t *testing.T) {
	chosen, err := choose("stopped, proxyd,standby")
	if err != nil {
		t.Fatal(err)
	}
	got := table(chosen, [][]drill.Measured{
		{measured(100, 0, 0, 0), measured(900, 1, 2, 3), measured(200, 0, 0, 0)},
		{measured(400, 0, 70, 0), measured(500, 0, 80, 0)},
		nil,
	})
	want := `
fault                         goal          median  min..max     errors beyond in flight  lost  runs
primary stopped (immediate)   250 ms        200 ms  100..900 ms  3                        3     3
proxyd killed, started again  its downtime  450 ms  400..500 ms  0                        0     2
`
	if got != want[1:] {
		t.Errorf("the table is\n%s\nwant\n%s", got, want[1:])
	}
}

func TestFaultsAreChosenByName(t *testing.T) {
	for list, want := range map[string]string{"": strings.Join(names(), " "), "wakings": "frozen", "back,killed": "back killed"} {
		chosen, err := choose(list)
		var have []string
		for _, s := range chosen {
			have = append(have, s.name)
		}
		if err != nil || strings.Join(have, " ") != want {
			t.Errorf("%q chooses %v, %v; want %s", list, have, err, want)
		}
	}
	if _, err := choose("stopped,melted"); err == nil || !strings.Contains(err.Error(), `"melted"`) {
		t.Errorf("a fault that there is not: %v", err)
	}
}

// A change of primary that nobody asked for, and one that was asked for and
// did not come, are wrong.
func TestWhatIsAWrongAction(t *testing.T) {
	was := control.State{Primary: "pgsql1", Term: 3}
	for _, x := range []struct {
		story string
		scene string
		now   control.State
		wrong bool
	}{
		{"the standby takes over", "killed", control.State{Primary: "pgsql2", Term: 4}, false},
		{"nobody took over", "killed", was, true},
		{"there and back again", "frozen", control.State{Primary: "pgsql1", Term: 5}, true},
		{"twice", "frozen", control.State{Primary: "pgsql2", Term: 6}, true},
		{"the daemon comes back to what it left", "proxyd", was, false},
		{"the daemon comes back and fails over", "proxyd", control.State{Primary: "pgsql2", Term: 4}, true},
		{"a standby died, and the primary with it", "standby", control.State{Primary: "pgsql2", Term: 4}, true},
	} {
		chosen, err := choose(x.scene)
		if err != nil {
			t.Fatal(err)
		}
		if why := chosen[0].right(was, x.now); (why != "") != x.wrong {
			t.Errorf("%s: %q", x.story, why)
		}
	}
}

// What was told is compared with what is there, and nothing is held against
// whoever was told that it is not known.
func TestWhatIsALie(t *testing.T) {
	for _, x := range []struct {
		story string
		told  told
		there bool
		lie   bool
	}{
		{"committed, and there", toldCommitted, true, false},
		{"committed, and lost", toldCommitted, false, true},
		{"rolled back, and not there", toldAborted, false, false},
		{"rolled back, and there all the same", toldAborted, true, true},
		{"not known, and there", toldNothing, true, false},
		{"not known, and not there", toldNothing, false, false},
	} {
		got := lies(map[int64]outcome{7: {x.told, "simple", 3}}, map[int64]bool{7: x.there})
		if (len(got) == 1) != x.lie {
			t.Errorf("%s: %q", x.story, got)
		}
	}
}

// A COMMIT counts as in flight when it left before the kill and was answered
// after it.
func TestWhatWasInFlight(t *testing.T) {
	truths := newTruths()
	truths.shift()
	truths.note(truths.next(), "simple", answer{told: toldCommitted, sent: time.Now()})
	sent := time.Now()
	truths.strike()
	truths.note(truths.next(), "simple", answer{told: toldCommitted, sent: sent})
	truths.note(truths.next(), "extended", answer{told: toldNothing, sent: sent, odd: errors.New("an end")})
	truths.note(truths.next(), "extended", answer{told: toldAborted}) // it had not come to its COMMIT
	truths.note(truths.next(), "extended", answer{told: toldAborted, sent: time.Now()})
	want := `
COMMITs in flight at a kill  told as committed  as not committed  not known
extended                     0                  0                 1
simple                       1                  0                 0
all of these                 1                  0                 1
all transactions             2                  2                 1
1 times: extended: an end
`
	if got := truths.String(); got != want[1:] {
		t.Errorf("the table is\n%s\nwant\n%s", got, want[1:])
	}
	if n := len(truths.take()); n != 5 || len(truths.take()) != 0 {
		t.Errorf("%d answers were taken to be compared, and some of them twice: %d", n, len(truths.take()))
	}
}
