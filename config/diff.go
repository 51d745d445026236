package config

import (
	"fmt"
	"reflect"
	"sort"
	"strconv"
	"strings"
)

// entry is one key with its value, in the order of the types.
type entry struct {
	table string // "proxy.client_tls"; "node" for a node, "pool" for a pool
	node  string // the node's name, or whom the pool is for
	index int    // of the node, or the pool
	key   string
	value any
}

// full is the key as the table of keys has it.
func (e entry) full() string { return e.table + "." + e.key }

// listed says whether there may be several of its table.
func (e entry) listed() bool { return e.table == "node" || e.table == "pool" }

// label is the key as a person reads it.
func (e entry) label() string {
	if e.listed() {
		return fmt.Sprintf("%s.%s.%s", e.table, e.node, e.key)
	}
	return e.full()
}

// entries lists every key in the order of the file.
func (c *Config) entries() []entry {
	var out []entry
	v := reflect.ValueOf(*c)
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag.Get("toml")
		if tag == "node" || tag == "pool" || tag == "-" {
			continue
		}
		out = append(out, entriesOf(v.Field(i), entry{table: tag})...)
	}
	for i, p := range c.Pools {
		for _, e := range entriesOf(reflect.ValueOf(p), entry{table: "pool", node: p.who(), index: i}) {
			if e.value != "" {
				out = append(out, e)
			}
		}
	}
	for i, n := range c.Nodes {
		out = append(out, entriesOf(reflect.ValueOf(n), entry{table: "node", node: n.Name, index: i})...)
	}
	return out
}

func entriesOf(v reflect.Value, base entry) []entry {
	var own, below []entry
	for i := range v.NumField() {
		f, tag := v.Type().Field(i), v.Type().Field(i).Tag.Get("toml")
		e := base
		switch {
		case f.Anonymous:
			own = append(own, entriesOf(v.Field(i), base)...)
		case f.Type.Kind() == reflect.Struct:
			e.table = base.table + "." + tag
			below = append(below, entriesOf(v.Field(i), e)...)
		case f.Type.Kind() == reflect.Pointer:
			if !v.Field(i).IsNil() {
				e.key, e.value = tag, v.Field(i).Elem().Interface()
				own = append(own, e)
			}
		default:
			e.key, e.value = tag, v.Field(i).Interface()
			own = append(own, e)
		}
	}
	return append(own, below...)
}

// Diff names the keys in which two configurations differ: those that a reload
// applies and those that need a restart of proxyd. A node that came or went is
// named as "node.NAME", a key of a pool as "pool.DATABASE/USER.KEY". Both lists are
// sorted.
func Diff(old, new *Config) (applied, restart []string) {
	before := map[string]any{}
	for _, e := range old.entries() {
		before[e.label()] = e.value
	}
	has := map[string]bool{}
	for _, n := range old.Nodes {
		has["node."+n.Name] = true
	}
	for _, n := range new.Nodes {
		if id := "node." + n.Name; has[id] {
			delete(has, id)
		} else {
			restart = append(restart, id)
		}
	}
	for gone := range has {
		restart = append(restart, gone)
	}
	for _, e := range new.entries() {
		was, known := before[e.label()]
		delete(before, e.label())
		switch {
		case !known && e.table == "pool":
			applied = append(applied, e.label())
		case !known || reflect.DeepEqual(was, e.value):
		case keys[e.full()].effect == applies:
			applied = append(applied, e.label())
		default:
			restart = append(restart, e.label())
		}
	}
	for label := range before { // those of nodes that are gone are told as the nodes
		if strings.HasPrefix(label, "pool.") {
			applied = append(applied, label)
		}
	}
	sort.Strings(applied)
	sort.Strings(restart)
	return applied, restart
}

// Merge is what is in force after a reload that found next while old was in
// force: the keys that a reload applies as in next, those that need a restart,
// and the nodes there are, as in old. Diff names both kinds by the same table.
func Merge(old, next *Config) *Config {
	m := *old
	keepOrTake(reflect.ValueOf(&m).Elem(), reflect.ValueOf(*next), "")
	m.Pools = next.Pools
	m.Nodes = append([]Node(nil), old.Nodes...)
	for i := range m.Nodes {
		for _, n := range next.Nodes {
			if n.Name == m.Nodes[i].Name {
				keepOrTake(reflect.ValueOf(&m.Nodes[i]).Elem(), reflect.ValueOf(n), "node")
			}
		}
	}
	return &m
}

// keepOrTake sets in v what a reload applies to its value in next; table is
// that of v.
func keepOrTake(v, next reflect.Value, table string) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		at := join(table, f.Tag.Get("toml"))
		switch {
		case f.Anonymous:
			keepOrTake(v.Field(i), next.Field(i), table)
		case f.Type.Kind() == reflect.Struct:
			keepOrTake(v.Field(i), next.Field(i), at)
		default:
			if k, known := keys[at]; known && k.effect == applies {
				v.Field(i).Set(next.Field(i))
			}
		}
	}
}

// tomlWriter writes entries with their table headers.
type tomlWriter struct {
	strings.Builder
	table string
}

func (w *tomlWriter) entry(e entry) {
	id := e.table + "/" + strconv.Itoa(e.index)
	if id != w.table {
		w.table = id
		if e.listed() {
			fmt.Fprintf(w, "\n[[%s]]\n", e.table)
		} else {
			fmt.Fprintf(w, "\n[%s]\n", e.table)
		}
	}
	if s, ok := e.value.(Secret); ok && !s.IsSet() {
		return
	}
	fmt.Fprintf(w, "%s = %s\n", e.key, tomlValue(e.value))
}

// tomlValue writes a value as TOML; a secret as what hides it.
func tomlValue(v any) string {
	switch v := v.(type) {
	case Secret:
		return tomlString(v.String())
	case Duration:
		return tomlString(v.String())
	case string:
		return tomlString(v)
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			quoted[i] = tomlString(s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	return fmt.Sprint(v)
}

// tomlString writes a basic string: TOML knows \uXXXX but not Go's \x and \a.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c < 0x20 || c == 0x7f:
			fmt.Fprintf(&b, "\\u%04X", c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
