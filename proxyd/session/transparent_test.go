package session

import (
	"testing"
)

// A session is one server process, and the client knows it by its own pid.
func TestASessionHasItsServersPid(t *testing.T) {
	p := startProxy(t, ModeSession)
	one, two := p.connect(t, ""), p.connect(t, "")
	for range 2 {
		var pid uint32
		if err := one.QueryRow(within(t), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
			t.Fatal(err)
		}
		if got := one.PgConn().PID(); got != pid {
			t.Errorf("the client was told pid %d, its server is %d", got, pid)
		}
	}
	// And a cancel request by that pid finds it.
	ran := make(chan error, 1)
	go func() {
		_, err := two.Exec(within(t), "SELECT pg_sleep(60)")
		ran <- err
	}()
	sleeping(t)
	if err := one.PgConn().CancelRequest(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := two.PgConn().CancelRequest(within(t)); err != nil {
		t.Fatal(err)
	}
	expect(t, "canceled", code(<-ran), "57014")
}

// What clients prepare is kept as long as one of them has it.
func TestTheTextsOfClientsThatAreGoneAreForgotten(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			p := startProxy(t, mode)
			for range 3 {
				c := p.raw(t)
				c.send(prep("mine", "SELECT 1"), prep("ours", "SELECT 2"), endSync)
				expect(t, "prepare", c.story(1), "1 1 Z:I")
				c.close()
			}
			eventually(t, "no text is left", func() bool {
				p.texts.mu.Lock()
				defer p.texts.mu.Unlock()
				return len(p.texts.byKey) == 0
			})
		})
	}
}
