package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const good = `
[health_check]
password = "a secret"
[ssh]
key_file = %q
known_hosts = %q
[[node]]
name = "pgsql1"
host = "127.0.0.1"
port = 5432
data_directory = "/data1"
[[node]]
name = "pgsql2"
host = "127.0.0.2"
port = 5432
data_directory = "/data2"
`

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheCommandLine(t *testing.T) {
	key, hosts := file(t, "id", "key"), file(t, "known_hosts", "")
	ok := file(t, "ok.toml", fmt.Sprintf(good, key, hosts))
	bad := file(t, "bad.toml", strings.Replace(fmt.Sprintf(good, key, hosts), "port = 5432", "prot = 5432", 1))
	nokey := file(t, "nokey.toml", fmt.Sprintf(good, "/no/such/key", hosts))
	pgpool := file(t, "pgpool.conf", "port = 9998\nbackend_hostname0 = 'a'\nbackend_hostname1 = 'b'\nmemory_cache_enabled = on\n")
	for _, tc := range []struct {
		args []string
		exit int
		out  string // part of stdout; "" for none at all
		errs string
	}{
		{[]string{"--version"}, 0, "proxyd devel", ""},
		{[]string{"--check-config", "--config", ok}, 0, "ok\n", ""},
		{[]string{"--check-config", "--config", bad}, 2, "", bad + ":10: node.prot"},
		{[]string{"--check-config", "--config", nokey}, 2, "", nokey + ":5: ssh.key_file"},
		{[]string{"--config", bad}, 2, "", bad + ":10: node.prot"},
		{[]string{"--config", "/no/such/file"}, 2, "", "/no/such/file"},
		{[]string{"--import-pgpool", pgpool}, 0, "port = 9998", "memory_cache_enabled"},
		{[]string{"--import-pgpool", "/no/such/file"}, 2, "", "/no/such/file"},
		{[]string{"--log-level", "loud", "--config", ok}, 2, "", "debug, info, warn, error"},
		{[]string{"start"}, 2, "", `"start"`},
		{[]string{"--frobnicate"}, 2, "", "-frobnicate"},
		{[]string{"--help"}, 0, "", "-check-config"},
	} {
		var out, errs bytes.Buffer
		exit := run(tc.args, &out, &errs)
		if exit != tc.exit || !strings.Contains(out.String(), tc.out) || tc.out == "" && out.Len() > 0 || !strings.Contains(errs.String(), tc.errs) {
			t.Errorf("%v: exit %d\nout: %s\nerr: %s", tc.args, exit, out.String(), errs.String())
		}
		if strings.Contains(out.String()+errs.String(), "a secret") {
			t.Errorf("%v shows a secret", tc.args)
		}
	}
}
