package session

import "testing"

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
