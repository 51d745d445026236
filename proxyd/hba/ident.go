package hba

import (
	"fmt"
	"regexp"
	"strings"
)

// Maps are the user name maps of a pg_ident.conf.
type Maps struct{ entries []entry }

type entry struct {
	name   string
	system item
	role   token
	as     item // of role, where it holds no \1
}

// LoadMaps reads a file of user name maps. Its faults are Problems.
func LoadMaps(path string) (*Maps, error) {
	r := system()
	if err := r.read(path, 0); err != nil {
		return nil, Problems{{File: path, Message: err.Error(), Remedy: "the account that runs proxyd must be able to read it"}}
	}
	return r.maps()
}

func (r *reader) maps() (*Maps, error) {
	m := &Maps{}
	for _, rec := range r.records {
		e, err := newEntry(rec.fields)
		if err != nil {
			r.problems = append(r.problems, at(rec.file, rec.line, err))
			continue
		}
		m.entries = append(m.entries, e)
	}
	if err := r.problems.err(); err != nil {
		return nil, err
	}
	return m, nil
}

const mapForm = "a line is: map-name system-user database-user"

func newEntry(fields [][]token) (e entry, err error) {
	if len(fields) < 3 {
		return e, wrong(mapForm, "missing entry at end of line")
	}
	if len(fields) > 3 {
		return e, wrong(mapForm, "there is something behind the database user")
	}
	for _, f := range fields {
		if len(f) > 1 {
			return e, wrong("write a line for each", "multiple values in ident field")
		}
	}
	e.name, e.role = fields[0][0].text, fields[2][0]
	if e.system, err = pattern(fields[1][0]); err != nil {
		return e, err
	}
	if strings.Contains(e.role.text, `\1`) {
		if e.system.re != nil && e.system.re.NumSubexp() == 0 {
			return e, wrong("put parentheses around the part that is meant", `regular expression %q has no subexpressions as requested by backreference in %q`, fields[1][0].text[1:], e.role.text)
		}
		if e.system.re != nil {
			return e, nil
		}
	}
	e.as, err = userItem(e.role)
	return e, err
}

// String is every entry on a line.
func (m *Maps) String() string {
	if m == nil {
		return ""
	}
	var b strings.Builder
	for _, e := range m.entries {
		fmt.Fprintf(&b, "%s %q %q %v\n", e.name, e.system.text, e.role.text, e.role.quoted)
	}
	return b.String()
}

// Has says whether there is a map of that name.
func (m *Maps) Has(name string) bool {
	if m != nil {
		for _, e := range m.entries {
			if e.name == name {
				return true
			}
		}
	}
	return false
}

// Allows says whether whom the system knows as system may log in as role. Where
// a rule names no map, the names must be the same.
func (m *Maps) Allows(name, system, role string, memberOf func(group string) bool) bool {
	if name == "" {
		return system == role
	}
	if m == nil {
		return false
	}
	for _, e := range m.entries {
		if e.name == name && e.allows(system, role, memberOf) {
			return true
		}
	}
	return false
}

func (e entry) allows(system, role string, memberOf func(string) bool) bool {
	if e.system.re == nil {
		return e.system.text == system && e.as.user(role, memberOf)
	}
	found := e.system.re.FindStringSubmatch(system)
	switch {
	case found == nil:
		return false
	case strings.Contains(e.role.text, `\1`):
		// What came from outside has no special meaning.
		return strings.Replace(e.role.text, `\1`, found[1], 1) == role
	}
	return e.as.user(role, memberOf)
}

// pattern is a name, or a regular expression behind a slash.
func pattern(t token) (item, error) {
	if !strings.HasPrefix(t.text, "/") {
		return item{text: t.text}, nil
	}
	re, err := regexp.Compile("(?s)" + t.text[1:])
	if err != nil {
		return item{}, wrong("write it with what Go's regexp package knows", "invalid regular expression %q: %v", t.text[1:], err)
	}
	return item{text: t.text, re: re}, nil
}
