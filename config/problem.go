package config

import (
	"fmt"
	"sort"
	"strings"
)

// Problem is one thing that is wrong with a configuration, with its place and
// what to do about it. It never holds a secret.
type Problem struct {
	File    string
	Line    int    // counted from 1; 0 where the problem has no line
	Key     string // dotted, as "proxy.port" or "node.host"; empty for a syntax error
	Message string // what was found
	Remedy  string // what is allowed, or what to do
}

// Error gives "file:line: key: message; remedy".
func (p Problem) Error() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": ")
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Message)
	if p.Remedy != "" {
		b.WriteString("; " + p.Remedy)
	}
	return b.String()
}

// Problems is everything that is wrong with a configuration, in the order of
// the file, so that a person mends it in one go.
type Problems []Problem

// Error gives one problem a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// err gives nil where there are none, sorted by line otherwise.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	sort.SliceStable(ps, func(i, j int) bool { return ps[i].Line < ps[j].Line })
	return ps
}

// report collects problems of one file.
type report struct {
	file     string
	at       positions
	problems Problems
}

// add records a problem at the line of path, where path may carry an index as
// in "node[1].port"; people see the key without it.
func (r *report) add(path, message, remedy string) {
	r.problems = append(r.problems, Problem{
		File: r.file, Line: r.at.line(path), Key: bareKey(path), Message: message, Remedy: remedy,
	})
}

// standing gives the first of the paths that stands in the file: a
// contradiction between a default and a key is told where the key is.
func (r *report) standing(paths ...string) string {
	for _, p := range paths {
		if _, ok := r.at[p]; ok {
			return p
		}
	}
	return paths[0]
}

// bareKey turns "node[1].port" into "node.port".
func bareKey(path string) string {
	for {
		i := strings.IndexByte(path, '[')
		if i < 0 {
			return path
		}
		j := strings.IndexByte(path[i:], ']')
		if j < 0 {
			return path
		}
		path = path[:i] + path[i+j+1:]
	}
}
