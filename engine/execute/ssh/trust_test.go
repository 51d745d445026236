package ssh

import (
	"errors"
	"testing"

	"github.com/pgtandem/pgtandem/engine/execute"
)

// TestWhoseKeyIsTaken: our own, and root's; of somebody else's he would know.
func TestWhoseKeyIsTaken(t *testing.T) {
	const root, us, somebody = 0, 991, 1000
	for _, c := range []struct {
		story     string
		owner, we int
		ok        bool
	}{
		{"our own", us, us, true},
		{"root's, given to our group", root, us, true},
		{"somebody else's", somebody, us, false},
		{"anybody's, and we are root", somebody, root, true},
	} {
		err := checkOwner("/etc/pgtandem/id", c.owner, c.we)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, execute.ErrRefused) {
			t.Errorf("%s: %v", c.story, err)
		}
	}
}
