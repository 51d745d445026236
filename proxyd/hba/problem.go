package hba

import (
	"errors"
	"fmt"
	"strings"
)

// Problem is one fault of a file.
type Problem struct {
	File    string
	Line    int // 0: the file as a whole
	Message string
	Remedy  string
}

func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": " + p.Message)
	if p.Remedy != "" {
		b.WriteString("; " + p.Remedy)
	}
	return b.String()
}

// Problems are all the faults of a file and of what it includes, in order.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}

// fault is what is wrong with a line that is being read.
type fault struct{ message, remedy string }

func (f *fault) Error() string { return f.message }

func wrong(remedy, format string, args ...any) error {
	return &fault{fmt.Sprintf(format, args...), remedy}
}

// at says where a fault is.
func at(file string, line int, err error) Problem {
	p := Problem{File: file, Line: line, Message: err.Error()}
	var f *fault
	if errors.As(err, &f) {
		p.Remedy = f.remedy
	}
	return p
}
