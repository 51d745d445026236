package config

import (
	"reflect"
	"testing"
)

const pair = `
[health_check]
period = "1s"
user = "postgres"
password = "old"

[proxy]
port = 9999

[[pool]]
database = "app"
pool_size = 5

[[pool]]
user = "old"
pool_mode = "session"

[[node]]
name = "pgsql1"
host = "10.0.0.1"
data_directory = "/data"

[[node]]
name = "pgsql2"
host = "10.0.0.2"
data_directory = "/data"
`

func TestDiff(t *testing.T) {
	for _, c := range []struct {
		name             string
		change           func(*Config)
		applied, restart []string
	}{
		{"nothing", func(*Config) {}, nil, nil},
		{"a timeout and a limit apply", func(c *Config) { c.Proxy.HoldTimeout++; c.Proxy.MaxClients++ },
			[]string{"proxy.hold_timeout", "proxy.max_clients"}, nil},
		{"a new password applies", func(c *Config) { c.Recovery.Password = "new" },
			[]string{"recovery.password"}, nil},
		{"a policy applies", func(c *Config) { c.Failover.NotInSync = "promote" },
			[]string{"failover.when_not_in_sync"}, nil},
		{"the loops need a restart", func(c *Config) { c.Proxy.Loops = 2 },
			nil, []string{"proxy.loops"}},
		{"the port needs a restart", func(c *Config) { c.Proxy.Port = 5432 },
			nil, []string{"proxy.port"}},
		{"the addresses need a restart", func(c *Config) { c.Proxy.ListenAddresses = []string{"10.0.0.9"} },
			nil, []string{"proxy.listen_addresses"}},
		{"a node's weight applies, its host needs a restart", func(c *Config) { c.Nodes[1].Weight, c.Nodes[1].Host = 5, "h" },
			[]string{"node.pgsql2.weight"}, []string{"node.pgsql2.host"}},
		{"nodes in another order are the same nodes", func(c *Config) { c.Nodes[0], c.Nodes[1] = c.Nodes[1], c.Nodes[0] },
			nil, nil},
		{"a node that comes", func(c *Config) { c.Nodes = append(c.Nodes, Node{Name: "pgsql3"}) },
			nil, []string{"node.pgsql3"}},
		{"a node that goes", func(c *Config) { c.Nodes = c.Nodes[:1] },
			nil, []string{"node.pgsql2"}},
		{"a node that is renamed", func(c *Config) { c.Nodes[0].Name = "pgsql9" },
			nil, []string{"node.pgsql1", "node.pgsql9"}},
		{"pools that come, go and change apply", func(c *Config) {
			five, six := 5, 6
			c.Pools = []Pool{{Database: "app", PoolSize: &six, MaxClients: &five}, {User: "new", PoolMode: "session"}}
		}, []string{"pool.*/new.pool_mode", "pool.*/new.user", "pool.*/old.pool_mode", "pool.*/old.user", "pool.app/*.max_clients", "pool.app/*.pool_size"}, nil},
		{"both at once", func(c *Config) { c.Log.Level, c.Log.Format = "debug", "json" },
			[]string{"log.level"}, []string{"log.format"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			old, new := parsed(t, pair), parsed(t, pair)
			c.change(new)
			applied, restart := Diff(old, new)
			if !reflect.DeepEqual(applied, c.applied) || !reflect.DeepEqual(restart, c.restart) {
				t.Errorf("applied %v, restart %v; want %v and %v", applied, restart, c.applied, c.restart)
			}
		})
	}
}

// TestDiffSeesEveryKey changes one key after the other, by reflection.
func TestDiffSeesEveryKey(t *testing.T) {
	n := len(leaves(reflect.ValueOf(parsed(t, pair)).Elem()))
	for i := range n {
		old, new := parsed(t, pair), parsed(t, pair)
		leaf := leaves(reflect.ValueOf(new).Elem())[i]
		if leaf.identity() {
			continue // tested above
		}
		change(t, leaf.value)
		applied, restart := Diff(old, new)
		if len(applied)+len(restart) != 1 {
			t.Errorf("%s.%s changed, and Diff says %v and %v", leaf.of, leaf.name, applied, restart)
		}
	}
}

// TestMergeAppliesWhatDiffSaysIsApplied changes every key at once: what is in
// force afterwards differs from before in the applied keys alone, and from the
// file in the keys that wait for a restart alone.
func TestMergeAppliesWhatDiffSaysIsApplied(t *testing.T) {
	old, next := parsed(t, pair), parsed(t, pair)
	for _, leaf := range leaves(reflect.ValueOf(next).Elem()) {
		if !leaf.identity() {
			change(t, leaf.value)
		}
	}
	applied, restart := Diff(old, next)
	if len(applied) == 0 || len(restart) == 0 {
		t.Fatalf("applied %v, restart %v", applied, restart)
	}
	inForce := Merge(old, next)
	if a, r := Diff(old, inForce); !reflect.DeepEqual(a, applied) || r != nil {
		t.Errorf("from old to what is in force: applied %v, restart %v; want %v and nothing", a, r, applied)
	}
	if a, r := Diff(inForce, next); a != nil || !reflect.DeepEqual(r, restart) {
		t.Errorf("from what is in force to the file: applied %v, restart %v; want nothing and %v", a, r, restart)
	}
	if a, r := Diff(old, parsed(t, pair)); a != nil || r != nil {
		t.Errorf("Merge has changed old: %v, %v", a, r)
	}
}

func TestMergeKeepsTheNodesThatAreThere(t *testing.T) {
	old, next := parsed(t, pair), parsed(t, pair)
	next.Nodes[1].Weight = 7
	next.Nodes = append([]Node{{Name: "pgsql3"}}, next.Nodes[1])
	got := Merge(old, next)
	if len(got.Nodes) != 2 || got.Nodes[0].Name != "pgsql1" || got.Nodes[1].Weight != 7 || old.Nodes[1].Weight != 1 {
		t.Errorf("got %+v; old is %+v", got.Nodes, old.Nodes)
	}
}

type leafValue struct {
	of, name string
	value    reflect.Value
}

// identity says whether it is the value by which a node or a pool is known.
func (l leafValue) identity() bool {
	return l.of == "Node" && l.name == "name" || l.of == "Pool" && (l.name == "database" || l.name == "user")
}

func leaves(v reflect.Value) []leafValue {
	var out []leafValue
	for i := range v.NumField() {
		f := v.Type().Field(i)
		switch {
		case f.Tag.Get("toml") == "-":
		case f.Type.Kind() == reflect.Struct:
			out = append(out, leaves(v.Field(i))...)
		case f.Type == reflect.TypeFor[[]Node](), f.Type == reflect.TypeFor[[]Pool]():
			for j := range v.Field(i).Len() {
				out = append(out, leaves(v.Field(i).Index(j))...)
			}
		default:
			out = append(out, leafValue{v.Type().Name(), f.Tag.Get("toml"), v.Field(i)})
		}
	}
	return out
}

func change(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Pointer:
		own := reflect.New(v.Type().Elem())
		if !v.IsNil() {
			own.Elem().Set(v.Elem())
			change(t, own.Elem())
		}
		v.Set(own)
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.ValueOf("x")))
	default:
		t.Fatalf("a kind of value that Diff's test does not know: %s", v.Kind())
	}
}

func parsed(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("pair.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
