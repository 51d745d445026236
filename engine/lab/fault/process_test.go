package fault

import "testing"

// The title of a process says what it is (PostgreSQL docs, 28.1), and a server
// process's what it does.
func TestProcessesAreKnownByTheirTitles(t *testing.T) {
	for _, x := range []struct {
		title  string
		kind   Process
		commit bool
	}{
		{"postgres: pgsql1: checkpointer ", Checkpointer, false},
		{"postgres: pgsql1: walsender replication 127.0.0.1(4711) streaming 0/3000148", Walsender, false},
		{"postgres: pgsql1: background writer ", "", false},
		{"postgres: pgsql1: test1 test1 127.0.0.1(4711) idle", Backend, false},
		{"postgres: pgsql1: test1 test1 127.0.0.1(4711) COMMIT", Backend, true},
		{"postgres: pgsql1: test1 test1 127.0.0.1(4711) COMMIT waiting for 0/3000148", Backend, true},
		{"postgres: pgsql1: test1 test1 127.0.0.1(4711) INSERT", Backend, false},
		{"postgres: pgsql2: test1 test1 127.0.0.1(4711) COMMIT", "", true},
	} {
		if got := kind(x.title, "pgsql1"); got != x.kind {
			t.Errorf("%q is a %q, want %q", x.title, got, x.kind)
		}
		if got := commits(x.title); got != x.commit {
			t.Errorf("%q is in a COMMIT: %v", x.title, got)
		}
	}
}
