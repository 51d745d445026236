package config

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// ImportPgpool turns a pgpool.conf into a configuration of ours: the TOML, and
// notes on what has no counterpart, what is done otherwise here, and what a
// person must still do. name stands for the file in notes and errors. Errors
// are Problems about lines that are no setting.
//
// Passwords are not copied: each becomes a password_file to be written, and a
// note that says so.
func ImportPgpool(r io.Reader, name string) (text string, notes []string, err error) {
	settings, seen, problems := readPgpool(r, name)
	if err := problems.err(); err != nil {
		return "", nil, err
	}
	im := importer{name: name, settings: settings, notes: seen, used: map[string]bool{}}
	im.config()
	im.leftover()
	text = im.text()
	if _, err := Parse("import of "+name, []byte(text)); err != nil {
		im.note(0, "the result is not complete yet: %v", err)
	}
	return text, im.sortedNotes(), nil
}

// setting is one line of pgpool.conf.
type setting struct {
	key, value string
	line       int
}

// pgpoolLine is pgpool's own grammar: the equals sign is optional, a value
// stands in single quotes or alone, and a comment may follow.
var pgpoolLine = regexp.MustCompile(`^\s*([A-Za-z_][A-Za-z0-9_.]*)\s*=?\s*(?:'((?:[^'\\]|''|\\.)*)'|([^\s#']*))\s*(?:#.*)?$`)

// typographic quotes come from blog posts that are copied into a file.
var typographic = strings.NewReplacer("‘", "'", "’", "'", "‛", "'", "′", "'")

// readPgpool reads the settings; the last one of a key wins, as in pgpool.
func readPgpool(r io.Reader, name string) (settings map[string]setting, notes []pgpoolNote, problems Problems) {
	settings = map[string]setting{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	n := 0
	for lines.Scan() {
		n++
		line := strings.TrimSpace(strings.TrimPrefix(lines.Text(), "\ufeff"))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		m := pgpoolLine.FindStringSubmatch(line)
		if m == nil {
			m = pgpoolLine.FindStringSubmatch(typographic.Replace(line))
		}
		if m == nil {
			// The line is not shown: it may be one with a password.
			problems = append(problems, Problem{File: name, Line: n, Message: "no setting of pgpool.conf can be read here", Remedy: "allowed: key = value, or key = 'value'"})
			continue
		}
		if m[2] != "" && strings.ContainsAny(line, "‘’‛′") {
			notes = append(notes, pgpoolNote{n, m[1] + " stands in typographic quotes, which pgpool itself does not understand; read as plain ones"})
		}
		value := m[3]
		if value == "" {
			value = unescape(m[2])
		}
		settings[m[1]] = setting{m[1], value, n}
	}
	if err := lines.Err(); err != nil {
		problems = append(problems, Problem{File: name, Line: n, Message: "it cannot be read: " + err.Error()})
	}
	return settings, notes, problems
}

var escapes = strings.NewReplacer("''", "'", `\'`, "'", `\\`, `\`)

func unescape(s string) string { return escapes.Replace(s) }

type pgpoolNote struct {
	line int
	text string
}

// importer gathers the lines of the TOML, table by table.
type importer struct {
	name     string
	settings map[string]setting
	used     map[string]bool
	tables   []string
	lines    map[string][]string
	notes    []pgpoolNote
}

func (im *importer) note(line int, format string, args ...any) {
	im.notes = append(im.notes, pgpoolNote{line, fmt.Sprintf(format, args...)})
}

func (im *importer) sortedNotes() []string {
	sort.SliceStable(im.notes, func(i, j int) bool { return im.notes[i].line < im.notes[j].line })
	out := make([]string, len(im.notes))
	for i, n := range im.notes {
		out[i] = n.text
		if n.line > 0 {
			out[i] = fmt.Sprintf("%s:%d: %s", im.name, n.line, n.text)
		}
	}
	return out
}

// take gives a setting's value and marks it as seen.
func (im *importer) take(key string) (setting, bool) {
	s, ok := im.settings[key]
	im.used[key] = true
	return s, ok
}

// put writes a key; values go through the table of keys, and one that is not
// allowed becomes a note.
func (im *importer) put(table, key string, v any, from setting) {
	if k := keys[bareTable(table)+"."+key]; k.ok != nil && !k.ok(v) {
		im.note(from.line, "%s = %q has no counterpart: %s.%s allows %s", from.key, from.value, bareTable(table), key, k.allowed)
		return
	}
	if im.lines == nil {
		im.lines = map[string][]string{}
	}
	if _, known := im.lines[table]; !known {
		im.tables = append(im.tables, table)
	}
	im.lines[table] = append(im.lines[table], fmt.Sprintf("%s = %s", key, tomlValue(v)))
}

// bareTable turns the importer's "node 0" into "node".
func bareTable(table string) string {
	table, _, _ = strings.Cut(table, " ")
	return table
}

func (im *importer) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Imported from %s. What is not here has its default; see the example file.\n", strings.ReplaceAll(im.name, "\n", " "))
	for _, table := range im.tables {
		if bareTable(table) == "node" {
			b.WriteString("\n[[node]]\n")
		} else {
			fmt.Fprintf(&b, "\n[%s]\n", table)
		}
		for _, line := range im.lines[table] {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// leftover notes every setting that nothing above has used.
func (im *importer) leftover() {
	others := false
	for key, s := range im.settings {
		if im.used[key] || s.value == "" {
			continue
		}
		switch reason, known := pgpoolNotes[key]; {
		case known && reason == "":
		case known:
			im.note(s.line, "%s: %s", key, reason)
		case watchdogKey.MatchString(key):
			others = true
		case backendKey.MatchString(key):
			im.note(s.line, "%s belongs to no backend with a host name; ignored", key)
		default:
			im.note(s.line, "%s has no counterpart; ignored", key)
		}
	}
	if others {
		im.note(0, "the settings of pgpool's watchdog and query cache (wd_, heartbeat_, memqcache_, ...) have no counterpart; ignored")
	}
}

// watchdogKey matches the many settings of two subsystems that are not here.
var watchdogKey = regexp.MustCompile(`^(wd_|heartbeat_|other_|memqcache_|hostname\d|pgpool_port\d|delegate_|trusted_servers|ping_path|if_|arping_|enable_consensus|clear_memqcache)`)

var backendKey = regexp.MustCompile(`^backend_[a-z_]+(\d+)$`)

// backends gives the numbers of the backends that have a host name, in order.
func (im *importer) backends() []int {
	var out []int
	for key, s := range im.settings {
		if n, ok := strings.CutPrefix(key, "backend_hostname"); ok && s.value != "" {
			if i, err := strconv.Atoi(n); err == nil {
				out = append(out, i)
			}
		}
	}
	sort.Ints(out)
	return out
}
