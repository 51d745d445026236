package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

var (
	shownKey = regexp.MustCompile(`(?m)^#?([a-z_]+) = `)
	heading  = regexp.MustCompile(`^#?\[+([a-z_.]+)\]+$`)

	// Of one [[pool]] the example shows more than one may have.
	pools = regexp.MustCompile(`(?s)#\[\[pool\]\].*?\n\n\n`)
)

// uncommented takes the "#" from every line that shows a key.
func uncommented(text string) string {
	text = pools.ReplaceAllString(text, "")
	return shownKey.ReplaceAllString(text, "$1 = ")
}

// allKeys lists by reflection every key the types can decode.
func allKeys() []string {
	c := *Default()
	c.Nodes = []Node{{}}
	c.Pools = []Pool{everything()}
	var out []string
	for _, e := range c.entries() {
		out = append(out, e.full())
	}
	return out
}

// everything is a pool with every key.
func everything() Pool {
	p := Pool{Database: "d", User: "u", PoolMode: "session"}
	v := reflect.ValueOf(&p).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Pointer {
			f.Set(reflect.New(f.Type().Elem()))
		}
	}
	return p
}

// TestTheExamplesPool: it is one that can be had, but for the two keys that are
// for a database or a user alone.
func TestTheExamplesPool(t *testing.T) {
	shown := shownKey.ReplaceAllString(strings.Replace(pools.FindString(Example()), "#[[", "[[", 1), "$1 = ")
	_, err := Parse("example.toml", []byte(pair+shown))
	if err == nil || strings.Count(err.Error(), "\n") != 1 || strings.Count(err.Error(), "stands with both") != 2 {
		t.Fatalf("%v", err)
	}
	c, err := Parse("example.toml", []byte(pair+regexp.MustCompile(`(?m)^user = .*$`).ReplaceAllString(shown, "")))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Pools[len(c.Pools)-1].Over(c.Proxy); got.PoolSize != 5 || got.PoolMode != "session" || got.WaitTimeout.Std() != 10*time.Minute {
		t.Errorf("%+v", got)
	}
}

func TestEveryKeyIsInTheTable(t *testing.T) {
	inTypes := map[string]bool{}
	for _, k := range allKeys() {
		inTypes[k] = true
		if _, ok := keys[k]; !ok {
			t.Errorf("%s is in the types but not in the table of keys: say what a reload does with it and which values it may have", k)
		}
	}
	for k, v := range keys {
		if !inTypes[k] {
			t.Errorf("%s is in the table of keys but not in the types", k)
		}
		if v.allowed == "" {
			t.Errorf("%s does not say what is allowed", k)
		}
	}
}

// TestStrangersAreATenth: connections that have proved nothing, of all that there
// may be; and one address has not all of their places.
func TestStrangersAreATenth(t *testing.T) {
	p := Default().Proxy
	if 10*p.MaxLogins > p.MaxClients || p.MaxLoginsPerAddress >= p.MaxLogins {
		t.Errorf("%d of %d, %d of an address", p.MaxLogins, p.MaxClients, p.MaxLoginsPerAddress)
	}
}

func TestEveryDefaultIsAllowed(t *testing.T) {
	c := *Default()
	n := DefaultNode()
	n.Name, n.Host, n.DataDirectory = "pgsql1", "192.168.0.11", "/usr/local/pgsql/data"
	c.Nodes = []Node{n}
	for _, e := range c.entries() {
		if k := keys[e.full()]; k.ok != nil && !k.ok(e.value) {
			t.Errorf("the default of %s, %v, is not allowed: %s", e.full(), e.value, k.allowed)
		}
	}
}

func TestExampleShowsEveryKeyUnderAComment(t *testing.T) {
	shown := map[string]bool{}
	table, explained := "", false
	for _, line := range strings.Split(Example(), "\n") {
		if m := heading.FindStringSubmatch(line); m != nil {
			table, explained = m[1], false
			continue
		}
		if m := shownKey.FindStringSubmatch(line); m != nil {
			k := table + "." + m[1]
			if !shown[k] && !explained && k != "node.data_directory" {
				t.Errorf("%s stands without a reason", k)
			}
			shown[k] = true
			continue
		}
		explained = strings.HasPrefix(line, "# ")
		if line != "" && !strings.HasPrefix(line, "#") {
			t.Errorf("a line that is neither key, table nor comment: %q", line)
		}
	}
	for _, k := range allKeys() {
		if !shown[k] {
			t.Errorf("%s is missing in the example", k)
		}
	}
}

func TestExampleShowsTheDefaults(t *testing.T) {
	got, err := Parse("example.toml", []byte(uncommented(Example())))
	if err != nil {
		t.Fatal(err)
	}
	active, err := Parse("example.toml", []byte(Example()))
	if err != nil {
		t.Fatal(err)
	}
	// What the commented lines say is what leaving them out gives, but that
	// an example shows the inherited password_file of nobody.
	for _, c := range []*Config{got, active} {
		c.ReplicationCheck.PasswordFile, c.Recovery.PasswordFile = "", ""
	}
	if !reflect.DeepEqual(got, active) {
		t.Errorf("the commented lines differ from the defaults in %v", differences(active, got))
	}
	want := Default()
	want.Path = "example.toml"
	want.HealthCheck.PasswordFile = active.HealthCheck.PasswordFile
	want.Replication.PasswordFile = active.Replication.PasswordFile
	want.Nodes = active.Nodes
	if !reflect.DeepEqual(active, want) {
		t.Errorf("the example's lines that are not commented differ from Default() in %v", differences(want, active))
	}
}

func differences(a, b *Config) []string {
	applied, restart := Diff(a, b)
	return append(applied, restart...)
}

func TestExamplePassesCheckConfigOnceItsFilesAreThere(t *testing.T) {
	dir := t.TempDir()
	text := strings.ReplaceAll(Example(), "/etc/pgtandem/", dir+"/")
	text = strings.ReplaceAll(text, "#key_file = \""+dir, "key_file = \""+dir)
	text = strings.ReplaceAll(text, "#known_hosts = \""+dir, "known_hosts = \""+dir)
	path := write(t, dir, "pgtandem.toml", text, 0o644)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	err = c.CheckFiles()
	if err == nil {
		t.Fatal("no complaint about files that are not there")
	}
	for _, key := range []string{"health_check.password_file", "replication.password_file", "ssh.key_file", "ssh.known_hosts"} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("%s is not named in:\n%v", key, err)
		}
	}
	write(t, dir, "health_check.password", "sesame\n", 0o600)
	write(t, dir, "replication.password", "sesame\n", 0o640)
	write(t, dir, "id_ed25519", "key", 0o600)
	write(t, dir, "known_hosts", "", 0o644)
	if err := c.CheckFiles(); err != nil {
		t.Errorf("with every file there: %v", err)
	}
}

func write(t *testing.T, dir, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}
