package config

import (
	"bytes"
	"strings"
	"testing"
)

// TestImportPgpool holds, for each testdata/pgpool/NAME.conf, the TOML and the
// notes of NAME.want.
func TestImportPgpool(t *testing.T) {
	pairs(t, "pgpool", func(t *testing.T, name string, data []byte) string {
		text, notes, err := ImportPgpool(bytes.NewReader(data), name)
		got := text + "\n# Notes\n" + strings.Join(notes, "\n") + "\n"
		if err != nil {
			got = "# Refused\n" + err.Error() + "\n"
		}
		if strings.Contains(got, "sesame") {
			t.Errorf("a password was copied:\n%s", got)
		}
		return got
	})
}

// TestImportedRecipeIsComplete: the recipe's pgpool.conf needs no further word
// to be a configuration of ours.
func TestImportedRecipeIsComplete(t *testing.T) {
	text, _, err := ImportPgpool(strings.NewReader(recipe), "pgpool.conf")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse("imported.toml", []byte(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if c.Proxy.Port != 9999 || len(c.Nodes) != 2 || c.Nodes[0].Name != "pgsql1" || c.Nodes[1].BinDirectory != "/usr/local/pgsql/bin" {
		t.Errorf("got %+v", c)
	}
}

const recipe = `
port = 9999
failover_command = 'failover.sh'
backend_hostname0 = 'pgsql1'
backend_data_directory0 = '/usr/local/pgsql/data'
backend_hostname1 = 'pgsql2'
backend_data_directory1 = '/usr/local/pgsql/data'
`

func TestImportPgpoolSaysWhatItsResultLacks(t *testing.T) {
	_, notes, err := ImportPgpool(strings.NewReader("backend_hostname0 = 'alone'\n"), "pgpool.conf")
	if err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(notes, "\n"); !strings.Contains(all, "not complete yet") || !strings.Contains(all, "at least two") {
		t.Errorf("the notes do not say that a node is missing:\n%s", all)
	}
}
