package sim

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A seed must be the same each time, or nobody could look at what it found.
func TestASeedReplaysExactly(t *testing.T) {
	for seed := uint64(1); seed <= 25; seed++ {
		var told []string
		a := Run(Options{Seed: seed})
		b := Run(Options{Seed: seed, Trace: func(s string) { told = append(told, s) }})
		if a != b {
			t.Errorf("seed %d: %+v, then %+v", seed, a, b)
		}
		if len(told) == 0 {
			t.Errorf("seed %d tells nothing", seed)
		}
	}
}

// Seeds that once broke something, and what it was, are in testdata/seeds.
func TestSeedsThatOnceFailed(t *testing.T) {
	f, err := os.Open("testdata/seeds")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		text, story, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if text == "" || text[0] == '#' {
			continue
		}
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("testdata/seeds: %v", err)
		}
		if r := Run(Options{Seed: seed}); r.Wrong != "" {
			t.Errorf("seed %d (%s): %s", seed, story, r.Wrong)
		}
	}
}

func BenchmarkSeeds(b *testing.B) {
	for i := range b.N {
		Run(Options{Seed: uint64(1 + i)})
	}
}

// Nothing but a slow network, with packets lost, is no reason to fail over, and
// no client may be cut off for it.
func TestAFalseAlarmNeverFailsOver(t *testing.T) {
	for seed := uint64(1); seed <= 40; seed++ {
		w := fresh(t, seed, 2+int(seed%2))
		w.slow = 200 * time.Millisecond
		w.run(w.now+2*time.Minute, w.fine)
		if w.wrong != "" || w.stats.Promotions > 0 {
			t.Errorf("seed %d: %d promotions, %s", seed, w.stats.Promotions, w.wrong)
		}
		w.over()
	}
}
