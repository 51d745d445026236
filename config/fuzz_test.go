package config

import (
	"strings"
	"testing"
)

// FuzzImportPgpool: whatever stands in a pgpool.conf, what is made of it is
// TOML that is understood or whose faults are named, and no password is in it.
func FuzzImportPgpool(f *testing.F) {
	f.Add(recipe)
	f.Add("backend_hostname0 = 'a'\nbackend_port99999999999 = 1\nbackend_hostname-1 = ''")
	f.Add("sr_check_password = 'it''s \\'x'\nport 1 # x\nlisten_addresses = '*")
	f.Add("failover_command = '\x00\"\"\"'\n= =\n\ufeffport=1")
	f.Fuzz(func(t *testing.T, text string) {
		const secret = "open sesame"
		out, notes, err := ImportPgpool(strings.NewReader(text+"\nsr_check_password = '"+secret+"'\nrecovery_password = '"+secret+"'\n"), "pgpool.conf")
		if err != nil {
			out = err.Error()
		} else {
			Parse("imported.toml", []byte(out)) //nolint:errcheck // what is not complete has a note that says so
		}
		if !strings.Contains(text, secret) && strings.Contains(out+strings.Join(notes, "\n"), secret) {
			t.Errorf("a password was copied:\n%s\n%v", out, notes)
		}
	})
}
