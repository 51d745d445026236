package config

import "fmt"

// Setting is one key as it is in force. A secret is hidden.
type Setting struct {
	Key        string // "proxy.max_clients"; "node.pgsql1.host" for a node's, "pool.reports/*.pool_size" for a pool's
	Value      string
	Default    string
	Reloadable bool
}

// Settings lists every key, in the order of the file, and the file's own path
// before them.
func (c *Config) Settings() []Setting {
	base := *Default()
	base.Nodes = []Node{DefaultNode()}
	defaults := map[string]any{}
	for _, e := range base.entries() {
		defaults[e.full()] = e.value
	}
	out := []Setting{{Key: "path", Value: c.Path, Default: DefaultPath}}
	inForce := map[string]any{}
	for _, e := range c.entries() {
		inForce[e.full()] = e.value
		if own, ok := inForce["proxy."+e.key]; ok && e.table == "pool" { // what it would be without
			defaults[e.full()] = own
		}
		out = append(out, Setting{Key: e.label(), Value: settingText(e.value), Default: settingText(defaults[e.full()]), Reloadable: keys[e.full()].effect == applies})
	}
	return out
}

// settingText writes a value for people: a list as in the file, a secret that
// is not set as nothing.
func settingText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case Secret:
		if !v.IsSet() {
			return ""
		}
	case []string:
		return tomlValue(v)
	}
	return fmt.Sprint(v)
}
