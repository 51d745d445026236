package sql

import (
	"strings"
	"testing"
)

// FuzzLastSwitch: a switch position stands in the text it was read from.
func FuzzLastSwitch(f *testing.F) {
	for _, s := range []string{"1\t0/3000060\tno recovery target specified\n", "", "#", "1 x", "a b c\nd", " # 0/0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := lastSwitch(text); err == nil && !strings.Contains(text, "/") {
			t.Errorf("a position was read from %q", text)
		}
	})
}
