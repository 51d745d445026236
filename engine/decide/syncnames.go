package decide

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

var syncNamesForm = regexp.MustCompile(`(?is)^\s*(?:(FIRST|ANY)?\s*(\d+)\s*\((.*)\)|(.*))\s*$`)

// ParseSyncNames reads synchronous_standby_names (PostgreSQL docs, 20.6.2).
// A plain list means FIRST 1. An empty value gives the zero set.
func ParseSyncNames(s string) cluster.SyncSet {
	if strings.TrimSpace(s) == "" {
		return cluster.SyncSet{}
	}
	m := syncNamesForm.FindStringSubmatch(s)
	if m == nil {
		return cluster.SyncSet{}
	}
	set := cluster.SyncSet{Method: "FIRST", K: 1}
	list := m[4]
	if m[2] != "" {
		if m[1] != "" {
			set.Method = strings.ToUpper(m[1])
		}
		set.K, _ = strconv.Atoi(m[2])
		list = m[3]
	}
	for _, name := range strings.Split(list, ",") {
		name = strings.TrimSpace(name)
		if len(name) >= 2 && name[0] == '"' && name[len(name)-1] == '"' {
			name = strings.ReplaceAll(name[1:len(name)-1], `""`, `"`)
		}
		if name != "" {
			set.Members = append(set.Members, cluster.NodeID(name))
		}
	}
	if len(set.Members) == 0 {
		return cluster.SyncSet{}
	}
	return set
}

// FormatSyncNames writes a sync set as PostgreSQL reads it, every name quoted
// so that none is taken for a keyword. The empty set is the empty string.
func FormatSyncNames(s cluster.SyncSet) string {
	if len(s.Members) == 0 {
		return ""
	}
	names := make([]string, len(s.Members))
	for i, m := range s.Members {
		names[i] = `"` + strings.ReplaceAll(string(m), `"`, `""`) + `"`
	}
	return fmt.Sprintf("%s %d (%s)", s.Method, s.K, strings.Join(names, ", "))
}

// SameSet says whether two sets ask the same of a commit. FIRST and ANY are
// alike here: over time FIRST k acknowledges with any k.
func SameSet(a, b cluster.SyncSet) bool {
	if a.K != b.K || len(a.Members) != len(b.Members) {
		return false
	}
	in := map[cluster.NodeID]bool{}
	for _, m := range a.Members {
		in[m] = true
	}
	for _, m := range b.Members {
		if !in[m] {
			return false
		}
	}
	return true
}
