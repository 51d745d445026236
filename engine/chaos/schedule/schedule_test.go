package schedule

import (
	"reflect"
	"testing"

	"github.com/pgtandem/pgtandem/engine/lab/fault"
)

var everything = append([]fault.Verb{fault.KillOne, fault.Freeze, fault.FreezeHost, fault.FreezeOne, fault.PauseReplay, fault.KillDaemon,
	fault.PromoteByHand, fault.AlterSystem, fault.FillDisk, fault.Cut, fault.Loss, fault.Jitter}, kills...)

func draw(t *testing.T, seed uint64, nodes int, offered []fault.Verb) Schedule {
	t.Helper()
	s, err := Make(seed, nodes, offered)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestASeedIsASchedule(t *testing.T) {
	if a, b := draw(t, 7, 2, everything), draw(t, 7, 2, everything); !reflect.DeepEqual(a, b) {
		t.Errorf("the seed 7 gives %+v and then %+v", a, b)
	}
	if a, b := draw(t, 7, 2, everything), draw(t, 8, 2, everything); reflect.DeepEqual(a.Gestures, b.Gestures) {
		t.Errorf("the seeds 7 and 8 give the same: %+v", a)
	}
}

func TestConsecutiveSeedsMissNoGesture(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(len(kinds)) {
		seen[draw(t, 1000+seed, 3, everything).Gestures[0].Name] = true
	}
	for _, k := range kinds {
		if !seen[k.name] {
			t.Errorf("%s does not come first in %d consecutive seeds", k.name, len(kinds))
		}
	}
}

func TestASchedule(t *testing.T) {
	for seed := range uint64(3000) {
		s := draw(t, seed, 2+int(seed%2), everything)
		if n := len(s.Gestures); n < 1 || n > 6 {
			t.Fatalf("seed %d has %d gestures: %s", seed, n, s.Names())
		}
		for i, g := range s.Gestures {
			if g.At > latest || i > 0 && g.At < s.Gestures[i-1].At {
				t.Errorf("seed %d: %s is too late, or before its turn: %s", seed, g.Name, s.Names())
			}
			if len(g.Steps) == 0 || g.Steps[0].Undo {
				t.Errorf("seed %d: %s breaks nothing: %v", seed, g.Name, g.Steps)
			}
			for j := range g.Steps[1:] {
				if g.Steps[j+1].After < g.Steps[j].After {
					t.Errorf("seed %d: the steps of %s are not in order: %v", seed, g.Name, g.Steps)
				}
			}
		}
	}
}

func TestWhatIsMadeAloneIsAlone(t *testing.T) {
	alone, seen := map[string]bool{}, 0
	for _, k := range kinds {
		alone[k.name] = k.alone
	}
	for seed := range uint64(3000) {
		s := draw(t, seed, 3, everything)
		for i, g := range s.Gestures {
			for j, other := range s.Gestures {
				if !alone[g.Name] || i == j {
					continue
				}
				seen++
				before := Schedule{Gestures: []Gesture{other}}
				if gap := g.At - end(before); j < i && gap < clear {
					t.Errorf("seed %d: %s begins %s after the end of %s", seed, g.Name, gap, other.Name)
				}
				if gap := other.At - g.At; j > i && gap < clear {
					t.Errorf("seed %d: %s begins %s after %s", seed, other.Name, gap, g.Name)
				}
			}
		}
	}
	if seen == 0 {
		t.Error("no schedule has one beside others")
	}
}

func TestOnlyWhatIsOffered(t *testing.T) {
	offer := []fault.Verb{fault.KillDaemon, fault.Freeze}
	for seed := range uint64(500) {
		for _, g := range draw(t, seed, 2, offer).Gestures {
			for _, s := range g.Steps {
				if v := s.Fault.Verb; v != fault.KillDaemon && v != fault.Freeze && v != Switchover {
					t.Errorf("seed %d uses %s, which is not offered", seed, v)
				}
			}
		}
	}
	for seed := range uint64(500) {
		for _, g := range draw(t, seed, 2, everything).Gestures {
			if g.Name == "two-killed" || g.Name == "standbys-cut-from-each-other" {
				t.Errorf("seed %d: %s needs three nodes", seed, g.Name)
			}
		}
	}
}
