package decide

import (
	"reflect"
	"testing"
)

// FuzzSyncNames: whatever a server says its synchronous_standby_names are, what
// is made of it means the same when it is written and read again.
func FuzzSyncNames(f *testing.F) {
	for _, s := range []string{
		"", "*", "pgsql1", "pgsql1, pgsql2", "FIRST 1 (a, b)", "any 2 (\"a\", \"b\"\"c\", d)", "2 (a)", "FIRST 1 ()", "FIRST 99999999999999999999 (a)",
		"FIRST", "ANY 1 (", "\"a,b\"", "\"", "\"\"", "first 0 (\xff)", "FIRST 1 (ANY 2 (a))", "\n a \n, ,",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		set := ParseSyncNames(s)
		if written := FormatSyncNames(set); !reflect.DeepEqual(ParseSyncNames(written), set) {
			t.Errorf("%q is %+v, written as %q, and that is %+v", s, set, written, ParseSyncNames(written))
		}
	})
}

// FuzzConninfo: a primary_conninfo is a text that anybody may have written.
func FuzzConninfo(f *testing.F) {
	for _, s := range []string{"", "host=a port=5432", "host='a b' port = '1'", "host='", "=", "host==a", "host = ' port=1", "postgresql://a:1/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if host, port := hostPort(s); len(host)+len(port) > len(s) {
			t.Errorf("%q has %q and %q", s, host, port)
		}
	})
}
