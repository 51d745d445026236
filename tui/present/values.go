package present

import (
	"fmt"
	"strings"
	"time"
)

// Bytes is a size in the units of PostgreSQL (1 kB = 1024 bytes), "?" when it
// is not known.
func Bytes(n int64) string {
	switch {
	case n < 0:
		return "?"
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 10<<20:
		return fmt.Sprintf("%d kB", n>>10)
	case n < 10<<30:
		return fmt.Sprintf("%d MB", n>>20)
	case n < 10<<40:
		return fmt.Sprintf("%d GB", n>>30)
	}
	return fmt.Sprintf("%d TB", n>>40)
}

// MS is a duration in milliseconds at the precision that still says something.
func MS(ms float64) string {
	switch {
	case ms < 0:
		return "?"
	case ms < 10:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", ms), ".0") + " ms"
	case ms < 10_000:
		return fmt.Sprintf("%.0f ms", ms)
	case ms < 120_000:
		return fmt.Sprintf("%.1f s", ms/1000)
	}
	return Duration(time.Duration(ms * float64(time.Millisecond)))
}

// Lag is a time that PostgreSQL gives as NULL while nothing is sent.
func Lag(ms *float64) string {
	if ms == nil {
		return "-"
	}
	return MS(*ms)
}

// Age is how old a value is, coarse enough not to flicker.
func Age(d time.Duration) string {
	d = max(d, 0)
	if d < 10*time.Second {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return Duration(d)
}

// Duration is a time in its two largest units.
func Duration(d time.Duration) string {
	d = d.Round(time.Second)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%02dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// Clock is a time of day to the millisecond, in the zone that t carries.
func Clock(t time.Time) string { return t.Format("15:04:05.000") }

// DateTime is a date and a time of day, in the zone that t carries.
func DateTime(t time.Time) string { return t.Format("2006-01-02 15:04:05") }

// Freshness of a value.
type Freshness uint8

// A value is fresh while it is looked at as often as it should be, old when
// looks are being missed, and lost when nobody should act on it.
const (
	Fresh Freshness = iota
	Old
	Lost
)

// Limits of freshness: health and replication checks run every second unless
// configured otherwise, so two missed looks make a value old, five a lost one.
const (
	OldAfter  = 3 * time.Second
	LostAfter = 6 * time.Second
)

// FreshnessOf judges an age.
func FreshnessOf(age time.Duration) Freshness {
	switch {
	case age < OldAfter:
		return Fresh
	case age < LostAfter:
		return Old
	}
	return Lost
}

// Aged is an age with its judgement in a sign and a tone.
func Aged(age time.Duration) Span {
	switch FreshnessOf(age) {
	case Fresh:
		return S(Muted, Age(age))
	case Old:
		return S(Warn, Age(age)+" !")
	}
	return S(Alarm, Age(age)+" ?")
}

// Count is a number with its noun: 1 client, 2 clients.
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Bool is yes or no.
func Bool(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// Or gives v, or otherwise where v is empty.
func Or(v, otherwise string) string {
	if v == "" {
		return otherwise
	}
	return v
}
