package admin

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

var update = flag.Bool("update", false, "write what is got as what is wanted; then read the difference")

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, []byte(got)) {
		t.Errorf("%s differs; -update rewrites it. got:\n%s", path, got)
	}
}

// list reads one line for each name: the name, a colon, words.
func list(t *testing.T, file string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string][]string)
	for line := range strings.Lines(string(text)) {
		if name, words, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && !strings.HasPrefix(line, "#") {
			out[name] = strings.Fields(words)
		}
	}
	return out
}

// TestTheColumnsArePgBouncers: its names stand first and in its order, so that
// what reads a column by its number reads the same.
func TestTheColumnsArePgBouncers(t *testing.T) {
	theirs := list(t, "pgbouncer-1.25.columns")
	extra := map[string][]string{}
	for _, sh := range shows() {
		var names []string
		for _, c := range sh.columns {
			names = append(names, c.name)
		}
		want := theirs[sh.word]
		delete(theirs, sh.word)
		if len(want) > len(names) || !slices.Equal(names[:len(want)], want) {
			t.Errorf("SHOW %s has\n%v, PgBouncer\n%v", sh.word, names, want)
			continue
		}
		if more := names[len(want):]; len(more) > 0 {
			extra[sh.word] = more
		}
	}
	for word := range theirs {
		t.Errorf("SHOW %s is missing", word)
	}
	want := map[string]string{
		"ACTIVE_SOCKETS": "node pinned waits_for", "CLIENTS": "node pinned waits_for route", "DATABASES": "gate",
		"NODES": "name gate timeline lsn eligible warnings", "POOLS": "cl_held cl_pinned gate pool_size min_pool_size reserve_pool_size", "ROUTES": "to reason count meaning", "SERVERS": "node pinned", "SOCKETS": "node pinned waits_for",
	}
	for word, more := range extra {
		if strings.Join(more, " ") != want[word] {
			t.Errorf("SHOW %s has more than PgBouncer: %v", word, more)
		}
	}
}

// TestEveryShow is every answer to the busy day, by the simple protocol, where
// all is text, and by the extended one in binary.
func TestEveryShow(t *testing.T) {
	l := listen(t)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeCacheStatement} {
		conn := l.connect(t, "bob", "")
		var out strings.Builder
		for _, sh := range shows() {
			if sh.word == "MEM" { // differs each time
				continue
			}
			fmt.Fprintf(&out, "=== SHOW %s\n%s", sh.word, tableOf(t, conn, "SHOW "+sh.word, mode))
		}
		fmt.Fprintf(&out, "=== SHOW HELP\n%s", tableOf(t, conn, "SHOW HELP", mode))
		golden(t, "show.golden", out.String())
	}
}

// tableOf writes a result: the columns, then a line for each row.
func tableOf(t *testing.T, conn *pgx.Conn, sql string, mode pgx.QueryExecMode) string {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, mode)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	defer rows.Close()
	var out strings.Builder
	for i, f := range rows.FieldDescriptions() {
		if i > 0 {
			out.WriteString("|")
		}
		out.WriteString(f.Name)
	}
	out.WriteString("\n")
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		for i, v := range values {
			if i > 0 {
				out.WriteString("|")
			}
			out.WriteString(valueText(t, v))
		}
		out.WriteString("\n")
	}
	if rows.Err() != nil {
		t.Fatalf("%s: %v", sql, rows.Err())
	}
	return out.String()
}

func valueText(t *testing.T, v any) string {
	t.Helper()
	if v == nil {
		return "NULL"
	}
	if n, ok := v.(fmt.Stringer); ok {
		return n.String()
	}
	if n, ok := v.(interface{ MarshalJSON() ([]byte, error) }); ok { // pgtype.Numeric
		b, err := n.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return fmt.Sprint(v)
}

func TestMem(t *testing.T) {
	l := listen(t)
	got := tableOf(t, l.connect(t, "bob", ""), "SHOW MEM", pgx.QueryExecModeExec)
	for _, want := range []string{"name|size|used|free|memtotal\n", "\nheap|1|", "\nclients|NULL|5|NULL|NULL\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
}
