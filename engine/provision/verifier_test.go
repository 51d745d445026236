package provision

import (
	"strings"
	"testing"
)

// TestAStoredVerifier: a server that claims a great many rounds, or that no
// password is, keeps nobody busy.
func TestAStoredVerifier(t *testing.T) {
	own, err := verifier("sesame")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		story, stored, password string
		want                    bool
	}{
		{"its own", own, "sesame", true},
		{"another password's", own, "sesam", false},
		{"more rounds than a processor does in a day", strings.Replace(own, "$4096:", "$9000000000000000000:", 1), "sesame", false},
		{"none", strings.Replace(own, "$4096:", "$0:", 1), "sesame", false},
		{"fewer than none", strings.Replace(own, "$4096:", "$-1:", 1), "sesame", false},
		{"md5", "md5aa4c4e0a3b4ea4ad1ecee7a6f8b0ef1c", "sesame", false},
		{"nothing", "", "", false},
		{"a salt that is none", "SCRAM-SHA-256$4096:*$a:b", "sesame", false},
	} {
		if got := matches(c.stored, c.password); got != c.want {
			t.Errorf("%s: %v", c.story, got)
		}
	}
}
