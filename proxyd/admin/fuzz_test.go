package admin

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// FuzzSplit: a text is cut into words that stand in it, or it is a syntax error.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{
		"SHOW POOLS; show clients", "SET x = 'it''s'; -- no\n PAUSE \"a b\"", "/* a /* b */ c", "'", "\"\"\"", ";;;", "KILL_CLIENT 1,2", "--", "a'b\"c'd\"", "\xff;\x00",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := split(text)
		var n *wire.Notice
		if err != nil && (!errors.As(err, &n) || n.Code != wire.CodeSyntaxError) {
			t.Errorf("%q: %v", text, err)
		}
		total := 0
		for _, w := range all {
			if len(w.text) == 0 || len(w.text) != len(w.quoted) {
				t.Errorf("%q: a statement %+v", text, w)
			}
			for i, word := range w.text {
				if total += len(word); !w.quoted[i] && !strings.Contains(text, word) {
					t.Errorf("%q: %q is not in it", text, word)
				}
			}
		}
		if total > len(text) {
			t.Errorf("%d bytes of words in %d", total, len(text))
		}
	})
}

// deaf is a client that says what it was given, and takes everything.
type deaf struct {
	net.Conn
	io.Reader
}

func (d deaf) Read(b []byte) (int, error)       { return d.Reader.Read(b) }
func (deaf) Write(b []byte) (int, error)        { return len(b), nil }
func (deaf) SetReadDeadline(time.Time) error    { return nil }
func (deaf) SetWriteDeadline(t time.Time) error { return nil }

// FuzzConsoleMessages: whatever a visitor sends, the visit ends with it, and
// what is named by the session stays bounded. One who may only look changes
// nothing.
func FuzzConsoleMessages(f *testing.F) {
	msg := func(typ byte, body string) string {
		b, at := wire.Begin(nil, typ)
		return string(wire.End(append(b, body...), at))
	}
	for _, s := range []string{
		msg('Q', "SHOW POOLS; SHOW CONFIG\x00") + msg('X', ""),
		msg('P', "a\x00SHOW CLIENTS\x00\x00\x00") + msg('B', "\x00a\x00\x00\x01\x00\x01\x00\x00\x00\x00") + msg('D', "P\x00") + msg('E', "\x00\x00\x00\x00\x02") + msg('S', ""),
		msg('Q', "KILL shop; PAUSE; SET max_clients = 1; RELOAD\x00") + msg('F', ""),
		msg('B', "\x00\x00\x7f\xff") + msg('C', "Sa\x00") + msg('H', "") + msg('E', "\x00"),
		"Q\xff\xff\xff\xff", "Q\x00\x00\x00\x03", msg('Q', "no end"), msg('p', "secret\x00"), msg('D', ""), msg('Q', "\x00\x00"),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data string) {
		fake := newFake()
		c := New(Options{Plane: fake, Daemon: fake, Rights: func() Rights { return fake.rights }, Version: "1.2.3", Log: slog.New(slog.DiscardHandler)})
		v := &Visit{Conn: deaf{Reader: strings.NewReader(data)}, Address: "10.0.0.9:1", User: "bob", Database: "pgtandem", OnCancel: func(func()) {}}
		s := newSession(c, v)
		if err := s.run(t.Context()); err == nil && !strings.Contains(data, "X") {
			t.Error("it ended without a farewell")
		}
		if len(s.stmts) > maxNamed || len(s.portals) > maxNamed {
			t.Errorf("%d statements and %d portals", len(s.stmts), len(s.portals))
		}
		if did := fake.done(); len(did) > 0 {
			t.Errorf("bob did %v", did)
		}
	})
}
