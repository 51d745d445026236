package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// Load reads the file at path and gives a configuration that is complete and
// free of contradictions. An error that is about the content is Problems; one
// about the file itself wraps what the system said (fs.ErrNotExist, ...).
//
// It opens no other file: the console reads the same configuration without the
// right to read its secrets. The daemon calls Config.CheckFiles as well.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	c, err := Parse(path, data)
	if err != nil {
		return nil, err
	}
	c.Path = path
	return c, nil
}

// Parse is Load for a text in memory; name stands for the file in errors,
// which are Problems.
func Parse(name string, data []byte) (*Config, error) {
	text := string(data)
	tree := map[string]any{}
	if _, err := toml.Decode(text, &tree); err != nil {
		return nil, syntaxProblem(name, text, err)
	}
	r := &report{file: name, at: locate(text)}
	c := defaults()
	r.table(reflect.ValueOf(&c).Elem(), tree, "")
	// Contradictions among values that are wrong by themselves would only
	// repeat the complaint; those among the right ones are told now.
	c.inherit()
	r.contradictions(&c)
	if err := r.problems.err(); err != nil {
		return nil, err
	}
	c.Path = name
	return &c, nil
}

// syntaxProblem gives the parser's complaint, but not where it could quote a
// password that somebody forgot to put in quotes.
func syntaxProblem(name, text string, err error) error {
	p := Problem{File: name, Message: "not TOML: " + err.Error()}
	var pe toml.ParseError
	if errors.As(err, &pe) {
		p.Line, p.Key = pe.Position.Line, pe.LastKey
		p.Message, p.Remedy = "not TOML: "+pe.Message, firstLine(pe.Usage)
	}
	lines := strings.Split(text, "\n")
	if p.Line >= 1 && p.Line <= len(lines) && strings.Contains(lines[p.Line-1], "password") {
		p.Message, p.Remedy = "not TOML, and it is not shown, since it is about a password", "a text stands between double quotes"
	}
	return Problems{p}
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s
}

// table fills the struct v from a TOML table; path is the table's, "" at the
// top.
func (r *report) table(v reflect.Value, tree map[string]any, path string) {
	fields := fieldsOf(v)
	names := make([]string, 0, len(tree))
	for n := range tree {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		at := join(path, n)
		f, ok := fields[n]
		if !ok {
			r.unknown(at, n, fields)
			continue
		}
		r.value(f, tree[n], at)
	}
}

func (r *report) value(f reflect.Value, found any, at string) {
	switch f.Interface().(type) {
	case []Node:
		for i, t := range r.tables(found, at, "one [[node]] table, with double brackets, for each server") {
			n := DefaultNode()
			r.table(reflect.ValueOf(&n).Elem(), t, fmt.Sprintf("%s[%d]", at, i))
			f.Set(reflect.Append(f, reflect.ValueOf(n)))
		}
		return
	case []Pool:
		for i, t := range r.tables(found, at, "one [[pool]] table, with double brackets, for each exception; what holds for all stands in [proxy]") {
			var p Pool
			r.table(reflect.ValueOf(&p).Elem(), t, fmt.Sprintf("%s[%d]", at, i))
			f.Set(reflect.Append(f, reflect.ValueOf(p)))
		}
		return
	case Duration, Secret, []string:
		r.leaf(f, found, at)
		return
	}
	if f.Kind() != reflect.Struct {
		r.leaf(f, found, at)
		return
	}
	sub, ok := found.(map[string]any)
	if !ok {
		r.add(at, "found "+describe(found), "allowed: a table, written as ["+bareKey(at)+"]")
		return
	}
	r.table(f, sub, at)
}

// tables takes what must be an array of tables.
func (r *report) tables(found any, at, allowed string) []map[string]any {
	switch list := found.(type) {
	case []map[string]any:
		return list
	case []any:
		tables := make([]map[string]any, 0, len(list))
		for _, item := range list {
			t, ok := item.(map[string]any)
			if !ok {
				r.add(at, "found "+describe(item)+" among the tables", "allowed: "+allowed)
				return nil
			}
			tables = append(tables, t)
		}
		return tables
	}
	r.add(at, "found "+describe(found), "allowed: "+allowed)
	return nil
}

// leaf sets a value that the table of keys allows, and reports it otherwise.
func (r *report) leaf(f reflect.Value, found any, at string) {
	k := keys[bareKey(at)]
	if f.Kind() == reflect.Pointer { // a key that may be left out
		own := reflect.New(f.Type().Elem())
		n := len(r.problems)
		if r.leaf(own.Elem(), found, at); n == len(r.problems) {
			f.Set(own)
		}
		return
	}
	v, ok := convert(f.Interface(), found)
	if !ok {
		r.add(at, "found "+describeFor(f, found), "allowed: "+k.allowed)
		return
	}
	if k.ok != nil && !k.ok(v) {
		r.add(at, "found "+describeFor(f, found), "allowed: "+k.allowed)
		return
	}
	f.Set(reflect.ValueOf(v))
}

// convert turns what TOML gave into the type of like.
func convert(like, found any) (any, bool) {
	switch like.(type) {
	case string:
		v, ok := found.(string)
		return v, ok
	case Secret:
		v, ok := found.(string)
		return Secret(v), ok
	case bool:
		v, ok := found.(bool)
		return v, ok
	case int:
		v, ok := found.(int64)
		return int(v), ok
	case Duration:
		v, ok := found.(string)
		if !ok {
			return nil, false
		}
		d, err := time.ParseDuration(v)
		return Duration(d), err == nil
	case []string:
		return convertList(found)
	}
	return nil, false
}

func convertList(found any) (any, bool) {
	list, ok := found.([]any)
	if !ok {
		return nil, false
	}
	var out []string // an empty list equals one that is not set
	if len(list) > 0 {
		out = make([]string, len(list))
	}
	for i, item := range list {
		if out[i], ok = item.(string); !ok {
			return nil, false
		}
	}
	return out, true
}

// describeFor is describe, but what was meant as a password is never shown.
func describeFor(f reflect.Value, found any) string {
	if _, ok := f.Interface().(Secret); ok {
		if _, text := found.(string); text {
			return "a text that is not shown"
		}
		return "no text, and it is not shown"
	}
	if _, ok := f.Interface().(Duration); ok {
		if n, ok := found.(int64); ok {
			return fmt.Sprintf("the bare number %d, whose unit nobody can tell", n)
		}
	}
	return describe(found)
}

// describe says what was found as it stands in the file.
func describe(found any) string {
	switch v := found.(type) {
	case string:
		return fmt.Sprintf("the text %q", v)
	case int64:
		return fmt.Sprintf("the number %d", v)
	case float64:
		return fmt.Sprintf("the number %v", v)
	case bool:
		return fmt.Sprintf("%v", v)
	case time.Time:
		return "a date or time"
	case []any:
		return fmt.Sprintf("a list of %d", len(v))
	case []map[string]any:
		return "a list of tables"
	case map[string]any:
		return "a table"
	}
	return fmt.Sprintf("a %T", found)
}

// fieldsOf maps the TOML names of a struct's fields to the fields, those of
// embedded structs included.
func fieldsOf(v reflect.Value) map[string]reflect.Value {
	out := map[string]reflect.Value{}
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("toml")
		switch {
		case f.Anonymous:
			for n, fv := range fieldsOf(v.Field(i)) {
				out[n] = fv
			}
		case tag != "" && tag != "-":
			out[tag] = v.Field(i)
		}
	}
	return out
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
