package config

import (
	"fmt"
	"reflect"
	"sort"
	"strings"
)

// unknown reports a key nobody reads, with the one that was meant where it can
// be guessed: a key that is silently ignored is a setting that is not in force.
func (r *report) unknown(at, name string, known map[string]reflect.Value) {
	if best := nearest(name, sortedNames(known)); best != "" {
		r.add(at, "no such key", fmt.Sprintf("did you mean %s?", best))
		return
	}
	if home := homeOf(name); home != "" {
		r.add(at, "no such key here", fmt.Sprintf("did you mean %s?", home))
		return
	}
	r.add(at, "no such key", "allowed here: "+strings.Join(sortedNames(known), ", "))
}

func sortedNames(m map[string]reflect.Value) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// homeOf finds the only table that has a key of this name.
func homeOf(name string) string {
	home := ""
	for full := range keys {
		if strings.HasSuffix(full, "."+name) {
			if home != "" {
				return ""
			}
			home = full
		}
	}
	return home
}

// nearest gives the candidate that a slip of the fingers turns into name:
// at most a third of its letters, and no fewer than one.
func nearest(name string, candidates []string) string {
	best, least := "", max(1, len(name)/3)+1
	for _, c := range candidates {
		if d := distance(strings.ToLower(name), c); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour (optimal string alignment).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
