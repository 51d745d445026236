package session

import (
	"testing"
)

// pinned is why a client keeps its server, as SHOW CLIENTS has it.
func (p *proxy) pinned(t *testing.T) string {
	t.Helper()
	clients := p.Look().Clients
	if len(clients) != 1 {
		t.Fatalf("%d clients", len(clients))
	}
	return clients[0].Pinned
}

// TestWhatPinsAndWhatDoesNot: what can be followed costs nobody a server, and
// what cannot has a reason that can be seen.
func TestWhatPinsAndWhatDoesNot(t *testing.T) {
	for _, c := range []struct {
		what string
		says []string
		why  string
	}{
		{"a setting", []string{"SET work_mem = '2MB'", "RESET work_mem", "RESET ALL"}, ""},
		{"a setting of the transaction", []string{"BEGIN", "SET LOCAL work_mem = '2MB'", "COMMIT"}, ""},
		{"a setting in a transaction", []string{"BEGIN", "SET work_mem = '2MB'", "COMMIT"}, "a setting of SET"},
		{"what is reported, in a transaction", []string{"BEGIN", "SET TimeZone = 'UTC'", "SET application_name = 'x'", "COMMIT"}, ""},
		{"a role", []string{"SET ROLE test1"}, "a setting of SET"},
		{"a setting by a function", []string{"SELECT set_config('work_mem', '2MB', false)"}, "a setting of SET"},
		{"PREPARE", []string{"PREPARE s AS SELECT 1", "EXECUTE s", "DEALLOCATE s"}, ""},
		{"PREPARE among others", []string{"PREPARE s AS SELECT 1; SELECT 2"}, "a statement of SQL PREPARE"},
		{"PREPARE of what pins", []string{"PREPARE s AS SELECT pg_advisory_lock(3)"}, ""},
		{"and its EXECUTE", []string{"PREPARE s AS SELECT pg_advisory_lock(3)", "EXECUTE s"}, "a session advisory lock"},
		{"a temporary table", []string{"CREATE TEMP TABLE a (b int)"}, "a temporary table"},
		{"LISTEN", []string{"LISTEN a"}, "LISTEN"},
		{"a cursor", []string{"BEGIN", "DECLARE c CURSOR FOR SELECT 1", "COMMIT"}, ""},
		{"a cursor WITH HOLD", []string{"BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "COMMIT"}, "a cursor WITH HOLD"},
		{"all of it, and DISCARD ALL", []string{"LISTEN a", "CREATE TEMP TABLE a (b int)", "SET ROLE test1", "DISCARD ALL"}, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			p := startProxy(t, ModeTransaction)
			r := p.raw(t)
			for _, q := range c.says {
				r.must(q)
			}
			expect(t, "pinned by", p.pinned(t), c.why)
			eventually(t, "it has its server only where it must", func() bool { return p.Look().Clients[0].ServerID != 0 == (c.why != "") })
		})
	}
}

// must lets a statement succeed, in a transaction or not.
func (r *raw) must(q string) {
	r.t.Helper()
	r.send(query(q))
	for {
		switch word := r.word(); {
		case word == "EOF" || len(word) > 5 && word[:5] == "ERROR":
			r.t.Fatalf("%s: %s", q, word)
		case len(word) > 2 && word[:2] == "Z:":
			return
		}
	}
}

// TestDiscardAllForgetsNoMoreThanItDiscards: what was sent behind it counts.
func TestDiscardAllForgetsNoMoreThanItDiscards(t *testing.T) {
	p := startProxy(t, ModeTransaction)
	r := p.raw(t)
	r.send(query("DISCARD ALL"), query("LISTEN a"))
	expect(t, "both", r.story(2), "C:DISCARD ALL Z:I C:LISTEN Z:I")
	expect(t, "pinned by", p.pinned(t), "LISTEN")
}
