// Package procs reads the processes of this machine as Linux's /proc tells of
// them (proc(5)). It knows nothing of labs and of PostgreSQL.
package procs

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Process is one that lives.
type Process struct {
	PID, Parent int
	State       byte // T is stopped
	Name        string
	Title       string
	Cwd         string // "" where it is another user's
}

// All are those that live; zombies do not. One that ends meanwhile is left out.
func All() (out []Process, err error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	for _, d := range dirs {
		b, err := os.ReadFile(d + "/stat")
		if err != nil {
			continue
		}
		p := Process{}
		p.PID, _ = strconv.Atoi(filepath.Base(d))
		stat := string(b)
		open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
		if open < 0 || end < open {
			continue
		}
		p.Name = stat[open+1 : end]
		if _, err := fmt.Sscanf(stat[end+1:], " %c %d", &p.State, &p.Parent); err != nil || p.State == 'Z' || p.State == 'X' {
			continue
		}
		p.Cwd, _ = os.Readlink(d + "/cwd")
		cmdline, _ := os.ReadFile(d + "/cmdline")
		p.Title = strings.TrimRight(strings.ReplaceAll(string(cmdline), "\x00", " "), " ")
		out = append(out, p)
	}
	return out, nil
}

// Descendants are the children of some processes and theirs, without those that
// are among them already. It adds what it finds to known.
func Descendants(all []Process, known map[int]bool) (out []Process) {
	for grew := true; grew; {
		grew = false
		for _, p := range all {
			if known[p.Parent] && !known[p.PID] {
				known[p.PID], grew = true, true
				out = append(out, p)
			}
		}
	}
	return out
}
