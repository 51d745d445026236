package present_test

import (
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/tui/present"
)

func TestSizesAreInPostgreSQLsUnits(t *testing.T) {
	for n, want := range map[int64]string{
		-1: "?", 0: "0 B", 8192: "8192 B", 10 << 10: "10 kB", 98_760: "96 kB", 16 << 20: "16 MB", 3 << 30: "3072 MB", 1 << 50: "1024 TB",
	} {
		if got := present.Bytes(n); got != want {
			t.Errorf("%d bytes: %q, want %q", n, got, want)
		}
	}
}

func TestTimesKeepThePrecisionThatSaysSomething(t *testing.T) {
	for v, want := range map[float64]string{
		-1: "?", 0: "0 ms", 0.42: "0.4 ms", 9.96: "10 ms", 318.4: "318 ms", 9_999: "9999 ms", 12_345: "12.3 s", 200_000: "3m20s", 7.5e6: "2h05m",
	} {
		if got := present.MS(v); got != want {
			t.Errorf("%v ms: %q, want %q", v, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		-time.Second: "0.0s", 400 * time.Millisecond: "0.4s", 12 * time.Second: "12s", 252 * time.Second: "4m12s",
		26*time.Hour + 14*time.Minute: "26h14m", 72 * time.Hour: "3d00h",
	} {
		if got := present.Age(d); got != want {
			t.Errorf("an age of %s: %q, want %q", d, got, want)
		}
	}
}

func TestALagThatPostgreSQLDoesNotKnowIsNotZero(t *testing.T) {
	zero := 0.0
	if present.Lag(nil) != "-" || present.Lag(&zero) != "0 ms" {
		t.Errorf("NULL is %q, zero is %q", present.Lag(nil), present.Lag(&zero))
	}
}

// An age says by a sign, not by its colour alone, that a value is old.
func TestOldValuesAreMarked(t *testing.T) {
	for age, want := range map[time.Duration]present.Span{
		0:                              present.S(present.Muted, "0.0s"),
		present.OldAfter - 1:           present.S(present.Muted, "3.0s"),
		present.OldAfter:               present.S(present.Warn, "3.0s !"),
		present.LostAfter:              present.S(present.Alarm, "6.0s ?"),
		4*time.Minute + 12*time.Second: present.S(present.Alarm, "4m12s ?"),
	} {
		if got := present.Aged(age); got != want {
			t.Errorf("%s: %+v, want %+v", age, got, want)
		}
	}
}

func TestLargeNumbersAreGrouped(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1 000", 6_120_455: "6 120 455"} {
		if got := present.Thousands(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
