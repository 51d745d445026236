package hba

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	maxToken = 10240 // MAX_TOKEN
	maxDepth = 10    // CONF_FILE_MAX_DEPTH
	maxFile  = 16 << 20
)

// token is a word of a file. A quoted word has no special meaning: "all" in
// quotes is a database of that name.
type token struct {
	text   string
	quoted bool
}

// is says whether the token is a keyword.
func (t token) is(keyword string) bool { return !t.quoted && t.text == keyword }

// record is one line that is not empty: fields, and the words of each that
// commas separate.
type record struct {
	file   string
	line   int // where it begins
	fields [][]token
}

// reader gathers the records of a file and of those it includes.
type reader struct {
	open     func(path string) ([]byte, error)
	list     func(dir string) ([]string, error) // names of the files in it, in order
	records  []record
	problems Problems
}

// system reads the files of this host.
func system() *reader {
	return &reader{open: readFile, list: func(dir string) ([]string, error) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		var names []string
		for _, e := range entries {
			if !e.IsDir() {
				names = append(names, e.Name())
			}
		}
		return names, nil
	}}
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, errors.New(path + " is no regular file of at most 16 MB")
	}
	return os.ReadFile(path)
}

// read adds what stands in a file.
func (r *reader) read(path string, depth int) error {
	data, err := r.open(path)
	if err != nil {
		return err
	}
	r.text(path, string(data), depth)
	return nil
}

// text adds the records of a text. A backslash at the end of a line joins the
// next one to it.
func (r *reader) text(path, text string, depth int) {
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		first := i
		line := strings.TrimRight(lines[i], "\r")
		for strings.HasSuffix(line, `\`) && i+1 < len(lines) {
			i++
			line = strings.TrimSuffix(line, `\`) + strings.TrimRight(lines[i], "\r")
		}
		line = strings.TrimSuffix(line, `\`)
		fields, err := r.fields(path, line, depth)
		if err != nil {
			r.problems = append(r.problems, at(path, first+1, err))
			continue
		}
		if len(fields) == 0 {
			continue
		}
		if err := r.record(record{path, first + 1, fields}, depth); err != nil {
			r.problems = append(r.problems, at(path, first+1, err))
		}
	}
}

// record keeps a line, or follows its include directive.
func (r *reader) record(rec record, depth int) error {
	if len(rec.fields) != 2 {
		r.records = append(r.records, rec)
		return nil
	}
	directive, target := rec.fields[0][0].text, rec.fields[1][0].text
	switch directive {
	case "include", "include_if_exists", "include_dir":
	default:
		r.records = append(r.records, rec)
		return nil
	}
	if len(rec.fields[0]) > 1 || len(rec.fields[1]) > 1 {
		return wrong("give one file to each directive", "multiple values specified for %s", directive)
	}
	if depth >= maxDepth {
		return wrong("does a file include itself?", "files are included more than %d deep", maxDepth)
	}
	path := beside(rec.file, target)
	if directive == "include_dir" {
		return r.directory(path, depth)
	}
	err := r.read(path, depth+1)
	if err == nil || directive == "include_if_exists" && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return wrong("", "could not open file: %v", err)
}

// directory includes the files of a directory whose names end in .conf.
func (r *reader) directory(dir string, depth int) error {
	names, err := r.list(dir)
	if err != nil {
		return wrong("", "could not open directory: %v", err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, ".") || !strings.HasSuffix(name, ".conf") {
			continue
		}
		if err := r.read(filepath.Join(dir, name), depth+1); err != nil {
			return wrong("", "could not open file: %v", err)
		}
	}
	return nil
}

// beside is a path as seen from the file it stands in.
func beside(file, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}

// fields cuts a line.
func (r *reader) fields(path, line string, depth int) (fields [][]token, err error) {
	s := scanner{line: line}
	for {
		field, ok, err := r.field(path, &s, depth)
		if err != nil {
			return nil, err
		}
		if !ok {
			return fields, nil
		}
		fields = append(fields, field)
	}
}

// field reads words up to one that no comma follows; a word @file stands for
// all words in that file.
func (r *reader) field(path string, s *scanner, depth int) (field []token, ok bool, err error) {
	for more := true; more; {
		var t token
		var found bool
		if t, found, more, err = s.next(); err != nil {
			return nil, false, err
		}
		if !found {
			break
		}
		ok = true
		if t.quoted || !strings.HasPrefix(t.text, "@") || len(t.text) == 1 {
			field = append(field, t)
			continue
		}
		words, err := r.words(beside(path, t.text[1:]), depth+1)
		if err != nil {
			return nil, false, err
		}
		field = append(field, words...)
	}
	if ok && len(field) == 0 {
		return nil, false, wrong("", "the file it names is empty")
	}
	return field, ok, nil
}

// words are all the words of a file that a field names.
func (r *reader) words(path string, depth int) (all []token, err error) {
	if depth > maxDepth {
		return nil, wrong("does a file include itself?", "files are included more than %d deep", maxDepth)
	}
	data, err := r.open(path)
	if err != nil {
		return nil, wrong("", "could not open file: %v", err)
	}
	inner := &reader{open: r.open, list: r.list}
	for i, line := range strings.Split(string(data), "\n") {
		fields, err := inner.fields(path, strings.TrimRight(line, "\r"), depth)
		if err != nil {
			return nil, wrong("", "%s:%d: %v", path, i+1, err)
		}
		for _, f := range fields {
			all = append(all, f...)
		}
		if len(all) > 1<<20 {
			return nil, wrong("", "%s holds more than a million words", path)
		}
	}
	return all, nil
}

// scanner cuts one line into words, as next_token() does.
type scanner struct {
	line string
	at   int
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' }

// next reads a word. comma says that one more belongs to the same field.
func (s *scanner) next() (t token, found, comma bool, err error) {
	for s.at < len(s.line) && (blank(s.line[s.at]) || s.line[s.at] == ',') {
		s.at++
	}
	var b strings.Builder
	var inQuote, wasQuote, sawQuote bool
	begin := s.at
	for ; s.at < len(s.line) && (inQuote || !blank(s.line[s.at])); s.at++ {
		c := s.line[s.at]
		if c == '#' && !inQuote {
			s.at = len(s.line)
			break
		}
		if c == ',' && !inQuote {
			s.at++
			comma = true
			break
		}
		if c == 0 {
			return t, false, false, wrong("is it a text file?", "the line holds a zero byte")
		}
		if c != '"' || wasQuote {
			b.WriteByte(c)
		}
		wasQuote = inQuote && c == '"' && !wasQuote
		if c == '"' {
			inQuote, sawQuote = !inQuote, true
			t.quoted = t.quoted || s.at == begin
		}
		if b.Len() > maxToken {
			return t, false, false, wrong("", "a word is longer than %d bytes", maxToken)
		}
	}
	if inQuote {
		return t, false, false, wrong(`close it, and write "" for a quotation mark inside`, "a quotation mark is not closed")
	}
	t.text = b.String()
	return t, sawQuote || t.text != "", comma, nil
}
