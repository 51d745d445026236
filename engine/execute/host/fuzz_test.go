package host

import (
	"strings"
	"testing"
)

// FuzzControlData: a node that answers anything in place of pg_controldata has
// told nothing, or all of it.
func FuzzControlData(f *testing.F) {
	good := `Database system identifier:           7412345678901234567
Database cluster state:               shut down
Latest checkpoint location:           0/3000060
Latest checkpoint's TimeLineID:       2
Minimum recovery ending location:     0/0
Min recovery ending loc's timeline:   0
`
	f.Add(good)
	f.Add(good + "pgtandem backup_label: yes\n")
	f.Add(strings.ReplaceAll(good, "7412345678901234567", "18446744073709551616"))
	f.Add(strings.ReplaceAll(good, "0/3000060", "0/1000000000"))
	f.Add("")
	f.Add(":\n:::\nDatabase cluster state:\n")
	f.Fuzz(func(t *testing.T, out string) {
		cd, err := parseControlData(out)
		if err == nil && (cd.State == "" || !strings.Contains(out, "Database system identifier") || !strings.Contains(out, "Latest checkpoint location")) {
			t.Errorf("%+v was read from %q", cd, out)
		}
	})
}

// FuzzStandbySettings: whatever stood in postgresql.auto.conf, each of our
// settings is there once, on a line of its own, and doing it again changes
// nothing.
func FuzzStandbySettings(f *testing.F) {
	f.Add("# Do not edit\nprimary_conninfo = 'host=a'\nwork_mem = '4MB'", "host=b password='it''s \\ here'", "slot", 5433)
	f.Add("recovery_target_time = 'now'\r\nPORT=1\nport", "", "", 0)
	f.Add("include 'x'\n\n=\n = 1", "a\x00b", "'", -1)
	f.Fuzz(func(t *testing.T, text, conninfo, slot string, port int) {
		if strings.ContainsAny(conninfo+slot, "\n\r") {
			return // a line of its own is what follows is about
		}
		once := standbySettings(text, conninfo, slot, port)
		if again := standbySettings(once, conninfo, slot, port); again != once {
			t.Errorf("once:\n%q\ntwice:\n%q", once, again)
		}
		found := 0
		for _, line := range strings.Split(once, "\n") {
			if settingOf(line) == "primary_conninfo" {
				found++
			}
		}
		if found != 1 {
			t.Errorf("primary_conninfo stands there %d times:\n%s", found, once)
		}
	})
}
