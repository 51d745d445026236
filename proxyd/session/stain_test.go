package session

import "testing"

// What a session leaves in its server process and DISCARD ALL does not take
// away must not meet the next client: such a server is closed with its client.
func TestWhatCannotBeCleanedIsNotReused(t *testing.T) {
	const unlogged = "T D:0 C:SELECT 1 Z:I"
	for _, mode := range bothModes {
		own := "ERROR:42704 Z:I"
		if mode == ModeTransaction { // the parameter stays, and its value does not
			own = "T D: C:SHOW Z:I"
		}
		for _, c := range []struct{ name, leaves, sees, want string }{
			{"a temporary schema", "CREATE TEMP TABLE mine (a int)", "SELECT pg_my_temp_schema()", unlogged},
			{"a temporary schema in an extended query", "\x00CREATE TEMP TABLE mine (a int)", "SELECT pg_my_temp_schema()", unlogged},
			{"a parameter of its own", "SET mine.own = 'secret'", "SHOW mine.own", own},
			{"a parameter of its own, by a function", "SELECT set_config('mine.own', 'secret', false)", "SHOW mine.own", "ERROR:42704 Z:I"},
			{"the random sequence", "SELECT setseed(0.5)", "SELECT count(*) FROM (SELECT random() r) x WHERE r = 0.9851677175347999", unlogged},
		} {
			t.Run(string(mode)+"/"+c.name, func(t *testing.T) {
				p := startProxy(t, mode, func(o *Options) { o.Limits.PoolSize = 1 })
				first := p.raw(t)
				first.run(c.leaves)
				first.close()
				expect(t, "the next client", p.raw(t).ask(c.sees), c.want)
			})
		}
	}
}

// Everything else is: a login costs more than cleaning.
func TestAServerThatCanBeCleanedIsReused(t *testing.T) {
	for _, mode := range bothModes {
		for _, leaves := range []string{"SELECT 1", "SET work_mem = '1MB'", "LISTEN x", "SELECT pg_advisory_lock(7)", "PREPARE s AS SELECT 1", "DECLARE c CURSOR WITH HOLD FOR SELECT 1"} {
			t.Run(string(mode)+"/"+leaves, func(t *testing.T) {
				p := startProxy(t, mode, func(o *Options) { o.Limits.PoolSize = 1 })
				first := p.raw(t)
				was := first.ask("SELECT pg_backend_pid()")
				first.run(leaves)
				first.close()
				expect(t, "the next client's server", p.raw(t).ask("SELECT pg_backend_pid()"), was)
			})
		}
	}
}
