package session

import "testing"

// A session that was ended by itself keeps the client's fate its own; a server
// that ended it and is up again when it is asked has ended them all.
func TestAServerThatWasStartedAnewHasEndedEverySession(t *testing.T) {
	p := startProxy(t, ModeSession)
	conn := p.connect(t, "")
	if _, err := conn.Exec(within(t), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	list, _ := p.snapshotBackends()
	if len(list) != 1 {
		t.Fatalf("%d server connections, not one", len(list))
	}
	b := list[0]
	b.mu.Lock()
	l := b.client.login
	b.mu.Unlock()
	if !p.serves(b, l) {
		t.Error("a server that has run all the while is taken for one that ended")
	}
	if err := pg.Stop("fast"); err != nil {
		t.Fatal(err)
	}
	if p.serves(b, l) {
		t.Error("a server that is down is taken for one that goes on")
	}
	if err := pg.StartServer(); err != nil {
		t.Fatal(err)
	}
	if p.serves(b, l) {
		t.Error("a server that was started anew is taken for one that went on")
	}
}
