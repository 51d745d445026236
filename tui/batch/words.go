package batch

import (
	"errors"
	"strings"
)

// Words splits a line as a shell does, as far as data needs it: blanks
// separate, '...' keeps everything, "..." keeps all but \" and \\, a backslash
// keeps the next character, and # at the start of a word begins a comment.
// Nothing is ever expanded.
func Words(line string) ([]string, error) {
	var out []string
	var w strings.Builder
	in := false // inside a word, which may be empty quotes
	rs := []rune(line)
	for i := 0; i < len(rs); i++ {
		switch r := rs[i]; {
		case r == ' ' || r == '\t' || r == '\r':
			if in {
				out = append(out, w.String())
				w.Reset()
				in = false
			}
		case r == '#' && !in:
			return out, nil
		case r == '\'' || r == '"':
			end, err := quoted(rs, i, &w)
			if err != nil {
				return nil, err
			}
			i, in = end, true
		case r == '\\':
			if i+1 == len(rs) {
				return nil, errors.New("a backslash ends the line; a command is one line")
			}
			i++
			w.WriteRune(rs[i])
			in = true
		default:
			w.WriteRune(r)
			in = true
		}
	}
	if in {
		out = append(out, w.String())
	}
	return out, nil
}

// quoted reads what stands between the quote at i and its partner, and gives
// the partner's place.
func quoted(rs []rune, i int, w *strings.Builder) (int, error) {
	q := rs[i]
	for j := i + 1; j < len(rs); j++ {
		switch {
		case rs[j] == q:
			return j, nil
		case q == '"' && rs[j] == '\\' && j+1 < len(rs) && (rs[j+1] == '"' || rs[j+1] == '\\'):
			j++
			w.WriteRune(rs[j])
		default:
			w.WriteRune(rs[j])
		}
	}
	return 0, errors.New("the quote " + string(q) + " is not closed")
}

// Quote writes a word so that Words and a POSIX shell read it back as it is.
func Quote(s string) string {
	if s == "" {
		return "''"
	}
	plain := strings.IndexFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=@%+,", r)
	}) < 0
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
