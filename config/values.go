package config

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
)

// Duration is a time.Duration written as "30s" or "250ms". A bare number is
// refused: pgpool counts in seconds, PgBouncer in seconds or milliseconds, and
// a factor of a thousand in a timeout is noticed only in a failure.
type Duration time.Duration

// Std gives the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String writes it as a person would: "1m" and not "1m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText writes the form that UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a number with a unit.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a duration: want a number with its unit, as \"250ms\", \"30s\", \"5m\" or \"1h\"", b)
	}
	*d = Duration(v)
	return nil
}

// hidden is what stands in place of every secret.
const hidden = "********"

// Secret is a value that is never shown: whatever prints, logs or encodes it
// gets "********". Only Reveal gives it away, so that every use can be found.
type Secret string

// Reveal gives the value itself.
func (s Secret) Reveal() string { return string(s) }

// IsSet tells a secret from none, which its printed form does not.
func (s Secret) IsSet() bool { return s != "" }

// String hides the value.
func (Secret) String() string { return hidden }

// GoString hides the value from %#v.
func (Secret) GoString() string { return hidden }

// Format hides the value from every verb: a wrong one, as %d, would print it.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// MarshalText hides the value from JSON, TOML and every other encoder.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// UnmarshalText reads the value.
func (s *Secret) UnmarshalText(b []byte) error { *s = Secret(b); return nil }

// LogValue hides the value from log/slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }
