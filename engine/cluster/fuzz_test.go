package cluster

import (
	"strings"
	"testing"
)

// FuzzLSN: what is taken for a position is PostgreSQL's text form of it.
func FuzzLSN(f *testing.F) {
	for _, s := range []string{"", "0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF", "1/100000000", "/", "-1/0", "+1/0", "0x1/0", "1_0/0", "0/ 0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLSN(s)
		if err != nil {
			if l != 0 {
				t.Errorf("%q is refused and is %v", s, l)
			}
			return
		}
		again, err := ParseLSN(l.String())
		if err != nil || again != l {
			t.Errorf("%q is %v, and that is %v, %v", s, l, again, err)
		}
		if strings.ContainsAny(s, "+-_xX ") {
			t.Errorf("%q is taken for a position", s)
		}
	})
}
