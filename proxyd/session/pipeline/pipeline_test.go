package pipeline

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgtandem/pgtandem/proxyd/session/statement"
)

// play runs a story. Words in lower case are sent: q f s p b d e c x are
// Query, Function, Sync, Parse, Bind, Describe, Execute, Close and CopyEnd;
// P, C, K and Q change names; P is a Parse, h a hidden Query, i a hidden Parse, k and K a Close in the place of a Parse.
// A class follows a colon, as in "q:commit". A word after a dash is received,
// as in "-Z:I".
func play(t *testing.T, p *Pipeline, story string) (verdicts string) {
	t.Helper()
	classes := map[string]statement.Class{"": 0, "begin": statement.Begin, "commit": statement.Commit,
		"rollback": statement.Rollback, "unknown": statement.Unknown}
	kinds := map[string]Sent{"q": {Kind: Query}, "f": {Kind: Function}, "s": {Kind: Sync}, "p": {Kind: Parse},
		"b": {Kind: Bind}, "d": {Kind: Describe}, "e": {Kind: Execute}, "c": {Kind: Close}, "x": {Kind: CopyEnd},
		"P": {Kind: Parse, Named: true}, "h": {Kind: Query, Hidden: true}, "i": {Kind: Parse, Hidden: true, Named: true},
		"k": {Kind: CloseAsParse}, "C": {Kind: Close, Named: true}, "K": {Kind: CloseAsParse, Named: true}, "Q": {Kind: Query, Named: true}}
	var out strings.Builder
	for word := range strings.FieldsSeq(story) {
		name, arg, _ := strings.Cut(word, ":")
		if strings.HasPrefix(name, "-") {
			status := byte(0)
			if arg != "" {
				status = arg[0]
			}
			out.WriteByte(".x1!"[p.Receive(name[1], status)])
			continue
		}
		s, ok := kinds[name]
		class, known := classes[arg]
		if !ok || !known {
			t.Fatalf("no such word: %q", word)
		}
		s.Class = class
		p.Send(s)
	}
	return out.String()
}

func TestFollowing(t *testing.T) {
	for _, c := range []struct {
		name, story, verdicts string
		idle                  bool
	}{
		{"a query", "q -T -D -C -Z:I", "....", true},
		{"not answered", "q -T -D", "..", false},
		{"in a transaction", "q:begin -C -Z:T", "..", false},
		{"extended", "p b d e s -1 -2 -T -D -C -Z:I", "......", true},
		{"no Sync yet", "p b e -1 -2 -C", "...", false},
		{"prepared only", "P d s -1 -t -n -Z:I", "....", true},
		{"two queries", "q q -C -Z:I", "..", false},
		{"a hidden query ahead", "h q -S -C -Z:I -T -D -C -Z:I", "xxx....", true},
		{"a hidden query fails", "h q -E", "!", false},
		{"a hidden Parse ahead", "i b e s -1 -2 -C -Z:I", "x...", true},
		{"a Close in the place of a Parse", "k b e s -3 -2 -C -Z:I", "1...", true},
		{"an error skips to Sync", "p b e q p s -1 -E -Z:I", "...", true},
		{"an error, the Sync comes later", "p b e -E s -Z:I", "..", true},
		{"an error, then sent in vain", "p -E b e q s -Z:I", "..", true},
		{"an error at Sync", "e s -C -E -Z:I", "...", true},
		{"a portal in parts", "e s -s -Z:I e s -C -Z:I", "....", true},
		{"a function", "f -V -Z:I", "..", true},
		{"COPY in", "q -G x -C -Z:I", "...", true},
		{"COPY in, end sent ahead", "q x -G -C -Z:I", "...", true},
		{"two COPY in one query", "q -G x -C -G x -C -Z:I", ".....", true},
		{"COPY in fails", "q -G -E -Z:I x", "...", true},
		{"COPY in fails, end sent ahead", "q x q -G -E -Z:I -C -Z:I", ".....", true},
		{"COPY extended, early Sync eaten", "p b e s -1 -2 -G x s -C -Z:I", ".....", true},
		{"COPY extended, no early Sync", "p b e -1 -2 -G x s -C -Z:I", ".....", true},
		{"COPY extended fails, early Sync eaten", "e s -G -E x s -Z:I", "...", false},
		{"COPY extended fails before it reads", "e s -G -E -Z:I", "...", true},
		{"the client gives a COPY up, and the server says so", "q -G x -E -Z:I", "...", true},
		{"COPY in fails, and the client ends it too late", "q -G x x -E -Z:I", "...", true},
		{"a Parse that no Sync follows", "P -1", ".", false},
		{"a query ends what has no Sync", "P q -1 -C -Z:I", "...", true},
		{"late Sync after that", "e s -G -E -Z:I x s -Z:I", "....", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p Pipeline
			if got := play(t, &p, c.story); got != c.verdicts {
				t.Errorf("verdicts %q, want %q", got, c.verdicts)
			}
			if p.Idle() != c.idle {
				t.Errorf("idle %v, want %v", p.Idle(), c.idle)
			}
		})
	}
}

func TestWhatChangesNamesIsAccountedFor(t *testing.T) {
	for _, c := range []struct {
		story         string
		done, dropped int
	}{
		{"P s -1 -Z:I", 1, 0},
		{"P P s -1 -E -Z:I", 1, 1},
		{"p e P P s -1 -E", 0, 2},
		{"i b s -E", 0, 1},
		{"p P s", 0, 0},
		{"C s -3 -Z:I", 1, 0},
		{"e C K P s -E -Z:I", 0, 3},
		{"K C s -3 -3 -Z:I", 2, 0},
		{"Q -C -Z:I", 1, 0},
		{"Q -E -Z:I", 0, 1},
	} {
		var p Pipeline
		play(t, &p, c.story)
		if done, dropped := p.TakeNamed(); done != c.done || dropped != c.dropped {
			t.Errorf("%q: %d done, %d dropped; want %d, %d", c.story, done, dropped, c.done, c.dropped)
		}
	}
}

func TestLost(t *testing.T) {
	const nothing, repeat, doubt = Untouched, RolledBack, InDoubt
	for _, c := range []struct {
		name, story string
		partial     bool
		outcome     Outcome
		groups      string
		skip        bool
		status      byte
	}{
		{"idle", "q -C -Z:I", false, nothing, "", false, 'I'},
		{"idle in a transaction", "q:begin -C -Z:T", false, repeat, "", false, 'E'},
		{"idle in a failed one", "q:begin -C -Z:T q -E -Z:E", false, repeat, "", false, 'E'},
		{"a statement of its own", "q", false, doubt, "I", false, 'I'},
		{"a statement of its own, half sent", "q", true, repeat, "I", false, 'I'},
		{"a statement in a transaction", "q:begin -C -Z:T q", false, repeat, "E", false, 'E'},
		{"COMMIT", "q:begin -C -Z:T q:commit", false, doubt, "I", false, 'I'},
		{"COMMIT of a failed transaction", "q:begin -C -Z:E q:commit", false, repeat, "I", false, 'I'},
		{"ROLLBACK", "q:begin -C -Z:T q:rollback", false, repeat, "I", false, 'I'},
		{"BEGIN", "q:begin", false, repeat, "E", false, 'E'},
		{"work and COMMIT in a pipeline", "q:begin -C -Z:T q q:commit", false, doubt, "EI", false, 'I'},
		{"a whole transaction in a pipeline", "q:begin q q:commit", false, doubt, "EEI", false, 'I'},
		{"COMMIT and the next BEGIN", "q:begin -C -Z:T q:commit q:begin", false, doubt, "IE", false, 'E'},
		{"what cannot be read", "q:begin -C -Z:T q:unknown", false, doubt, "E", false, 'E'},
		{"extended", "p b e s", false, doubt, "I", false, 'I'},
		{"extended, executed", "p b e s -1 -2 -C", false, doubt, "I", false, 'I'},
		{"extended, no Sync", "p b e", false, repeat, "", true, 'I'},
		{"extended, executed, no Sync", "p b e -1 -2 -C", false, repeat, "", true, 'I'},
		{"extended in a transaction", "q:begin -C -Z:T p b e s", false, repeat, "E", false, 'E'},
		{"extended BEGIN executed", "p b e:begin -1 -2 -C", false, repeat, "", false, 'E'},
		{"extended COMMIT", "q:begin -C -Z:T p b e:commit s", false, doubt, "I", false, 'I'},
		{"prepare only", "p d s", false, repeat, "I", false, 'I'},
		{"a hidden query alone", "h", false, nothing, "", false, 'I'},
		{"a hidden query and a statement", "h q", false, doubt, "I", false, 'I'},
		{"COPY in, not ended", "q -G", false, repeat, "I", false, 'I'},
		{"COPY in, ended", "q -G x", false, doubt, "I", false, 'I'},
		{"COPY in, in a transaction", "q:begin -C -Z:T q -G x", false, repeat, "E", false, 'E'},
		{"COPY extended, not ended", "p b e s -1 -2 -G", false, repeat, "", true, 'I'},
		{"COPY extended, ended", "p b e s -1 -2 -G x s", false, doubt, "I", false, 'I'},
		{"an error before Sync", "p b e -E", false, repeat, "", true, 'I'},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p Pipeline
			play(t, &p, c.story)
			l := p.Lost(c.partial)
			if l.Outcome != c.outcome || string(l.Groups) != c.groups || l.Skip != c.skip || l.Status != c.status {
				t.Errorf("outcome %d groups %q skip %v status %c; want %d %q %v %c",
					l.Outcome, l.Groups, l.Skip, l.Status, c.outcome, c.groups, c.skip, c.status)
			}
		})
	}
}

func TestOnlyBegin(t *testing.T) {
	for story, want := range map[string]bool{
		"q:begin": true, "p b d e:begin s": true, "p b d e:begin s -1 -2": true, "h q:begin": true,
		"q:begin q": false, "q": false, "p b e:begin": false, "q:begin -C -Z:T q": false, "p s": false,
		"q:begin q:begin": false, "e q:begin": false,
	} {
		var p Pipeline
		play(t, &p, story)
		if got := p.Lost(false).OnlyBegin; got != want {
			t.Errorf("%q: %v", story, got)
		}
	}
}

func TestOnlyCommit(t *testing.T) {
	const open = "q:begin -C -Z:T "
	for story, want := range map[string]string{
		"q:commit": "only", "h q:commit": "only", "p b e:commit s": "only, unprepared", "p b e:commit s -1 -2": "only",
		"p b d e:commit": "only, unprepared", "e:commit s": "only", "c e:commit s": "only, unprepared",
		"q q:commit": "", "e e:commit s": "", "q:commit q": "", "e:commit s p": "", "q:rollback": "", "p b s": "", "q:commit q:commit": "",
	} {
		var p Pipeline
		play(t, &p, open+story)
		l := p.Lost(false)
		got := ""
		if l.OnlyCommit {
			got = "only"
		}
		if l.Unprepared {
			got += ", unprepared"
		}
		if got != want {
			t.Errorf("%q: %q, want %q", story, got, want)
		}
	}
}

// TestWhatIsAwaited: what a COMMIT has to wait for, and what is only prepared.
func TestWhatIsAwaited(t *testing.T) {
	for _, c := range []struct {
		story                           string
		block, executing, still, ourOwn bool
	}{
		{"", false, false, true, true},
		{"q", false, true, false, false},
		{"q:begin", true, true, false, false},
		{"q:begin -C -Z:T", true, false, true, true},
		{"q:begin -C -Z:T p b d", true, false, false, false},
		{"q:begin -C -Z:T p b e", true, true, false, false},
		{"q:begin -C -Z:T e s -C", true, true, false, false},
		{"q:begin -C -Z:T h", true, true, false, true},
		{"q:begin -C -Z:T q -G", true, true, true, false},
		{"q:begin -C -Z:T e -E", true, false, true, false},
		{"p b e -1 -2 -C", false, false, false, false},
	} {
		var p Pipeline
		play(t, &p, c.story)
		if p.InBlock() != c.block || p.Executing() != c.executing || p.Still() != c.still || p.Ours() != c.ourOwn {
			t.Errorf("%q: in a block %v, executing %v, still %v, ours %v", c.story, p.InBlock(), p.Executing(), p.Still(), p.Ours())
		}
	}
}

// TestNoBelatedCommit: whatever was in flight, a loss is called safe to repeat
// only if no message that commits had been sent whole.
func TestNoBelatedCommit(t *testing.T) {
	words := []string{"q", "q:begin", "q:commit", "q:rollback", "e", "s", "-Z:T", "-Z:I"}
	var walk func(depth int, story string)
	walk = func(depth int, story string) {
		var p Pipeline
		play(t, &p, story)
		if l := p.Lost(false); l.Outcome != InDoubt && mayCommit(story) {
			t.Errorf("%q is called safe", story)
		}
		if depth == 0 {
			return
		}
		for _, w := range words {
			walk(depth-1, fmt.Sprint(story, " ", w))
		}
	}
	walk(4, "")
}

// mayCommit is a naive reading of stories without answers: it says whether
// something that commits is in flight. Stories with answers are left to the
// table above.
func mayCommit(story string) bool {
	if strings.Contains(story, "-") {
		return false
	}
	open, dirty := false, false
	for w := range strings.FieldsSeq(story) {
		switch w {
		case "q:begin": // what an Execute did before belongs to the block now
			open, dirty = true, false
		case "q:commit":
			if open || dirty {
				return true
			}
		case "q:rollback":
			open, dirty = false, false
		case "q":
			if !open {
				return true
			}
		case "e":
			dirty = dirty || !open
		case "s":
			if dirty && !open {
				return true
			}
		}
	}
	return false
}

func FuzzPipeline(f *testing.F) {
	f.Add([]byte("qCZ"), false)
	f.Add([]byte{0, 1, 2, 3, 200, 201, 90, 69, 71, 8, 67}, true)
	f.Fuzz(func(t *testing.T, script []byte, partial bool) {
		var p Pipeline
		for _, b := range script {
			if b < 40 {
				p.Send(Sent{Kind: Kind(b % 10), Class: statement.Class(b / 10), Hidden: b%7 == 0, Named: b%3 == 0})
			} else {
				p.Receive(b, "ITE"[b%3])
			}
			p.TakeNamed()
			p.Idle()
		}
		p.Lost(partial)
	})
}
