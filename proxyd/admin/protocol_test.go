package admin

import (
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// raw is a client that writes its messages by itself.
func (l *listener) raw(t *testing.T) (*pgproto3.Frontend, net.Conn) {
	t.Helper()
	conn, err := net.Dial("tcp", l.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	f := pgproto3.NewFrontend(conn, conn)
	f.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: map[string]string{"user": "alice", "database": "pgtandem"}})
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
	until(t, f, "Z")
	return f, conn
}

// until reads up to a message of the last kind in the list and gives the
// kinds: one letter for each, with the code of an error behind it.
func until(t *testing.T, f *pgproto3.Frontend, last string) string {
	t.Helper()
	var got []string
	for {
		m, err := f.Receive()
		if err != nil {
			return strings.Join(append(got, "gone"), " ")
		}
		kind := kinds(m)
		got = append(got, kind)
		if kind == last {
			return strings.Join(got, " ")
		}
	}
}

func kinds(m pgproto3.BackendMessage) string {
	switch m := m.(type) {
	case *pgproto3.ReadyForQuery:
		return "Z"
	case *pgproto3.ErrorResponse:
		return "E" + m.Code
	case *pgproto3.RowDescription:
		return "T"
	case *pgproto3.DataRow:
		return "D"
	case *pgproto3.CommandComplete:
		return "C:" + string(m.CommandTag)
	case *pgproto3.ParseComplete:
		return "1"
	case *pgproto3.BindComplete:
		return "2"
	case *pgproto3.CloseComplete:
		return "3"
	case *pgproto3.NoData:
		return "n"
	case *pgproto3.ParameterDescription:
		return "t"
	case *pgproto3.PortalSuspended:
		return "s"
	case *pgproto3.EmptyQueryResponse:
		return "I"
	case *pgproto3.NoticeResponse:
		return "N"
	}
	return "."
}

func TestProtocol(t *testing.T) {
	send := func(ms ...pgproto3.FrontendMessage) []pgproto3.FrontendMessage { return ms }
	sync := &pgproto3.Sync{}
	show := &pgproto3.Parse{Name: "s", Query: "SHOW STATE"}
	for _, c := range []struct {
		what string
		send []pgproto3.FrontendMessage
		want string
	}{
		{"several statements in one query", send(&pgproto3.Query{String: "SHOW VERSION; SHOW VERSION;"}), "T D C:SHOW T D C:SHOW Z"},
		{"up to one that fails", send(&pgproto3.Query{String: "SHOW VERSION; RESUME shop; SHOW VERSION"}), "T D C:SHOW E55000 Z"},
		{"nothing of a text that is not understood", send(&pgproto3.Query{String: "PAUSE; NONSENSE"}), "E42601 Z"},
		{"a notice comes before the answer", send(&pgproto3.Query{String: "PAUSE nowhere"}), "N C:PAUSE Z"},
		{"nothing", send(&pgproto3.Query{}), "I Z"},
		{"a pipeline", send(show, &pgproto3.Describe{ObjectType: 'S', Name: "s"}, &pgproto3.Bind{PreparedStatement: "s"},
			&pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}, sync), "1 t T 2 T D D D D D D D C:SHOW Z"},
		{"rows by portions", send(show, &pgproto3.Bind{PreparedStatement: "s", DestinationPortal: "p"}, &pgproto3.Execute{Portal: "p", MaxRows: 5},
			&pgproto3.Execute{Portal: "p", MaxRows: 5}, sync), "1 2 D D D D D s D D C:SHOW Z"},
		{"no rows", send(&pgproto3.Parse{Query: "RECONNECT"}, &pgproto3.Describe{ObjectType: 'S'}, &pgproto3.Bind{}, &pgproto3.Describe{ObjectType: 'P'},
			&pgproto3.Execute{}, sync), "1 t n 2 n C:RECONNECT Z"},
		{"nothing, prepared", send(&pgproto3.Parse{}, &pgproto3.Bind{}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}, sync), "1 2 n I Z"},
		{"all up to Sync is passed over after an error", send(&pgproto3.Parse{Query: "NONSENSE"}, &pgproto3.Bind{}, &pgproto3.Execute{}, sync,
			&pgproto3.Query{String: "SHOW VERSION"}), "E42601 Z T D C:SHOW Z"},
		{"a parameter", send(show, &pgproto3.Bind{PreparedStatement: "s", Parameters: [][]byte{[]byte("x")}}, sync), "1 E08P01 Z"},
		{"no such statement", send(&pgproto3.Bind{PreparedStatement: "x"}, sync), "E26000 Z"},
		{"no such portal", send(&pgproto3.Execute{Portal: "x"}, sync), "E34000 Z"},
		{"a portal ends with its transaction", send(show, &pgproto3.Bind{PreparedStatement: "s", DestinationPortal: "p"}, sync, &pgproto3.Execute{Portal: "p"}, sync),
			"1 2 Z E34000 Z"},
		{"a name twice", send(show, show, sync), "1 E42P05 Z"},
		{"closed in between", send(show, &pgproto3.Close{ObjectType: 'S', Name: "s"}, show, sync), "1 3 1 Z"},
		{"two statements prepared as one", send(&pgproto3.Parse{Query: "SHOW STATE; SHOW STATE"}, sync), "E42601 Z"},
		{"a function call", send(&pgproto3.FunctionCall{}), "E0A000 Z"},
		{"COPY data that nobody asked for", send(&pgproto3.CopyData{Data: []byte("x")}, &pgproto3.CopyDone{}, &pgproto3.Query{String: "SHOW VERSION"}), "T D C:SHOW Z"},
	} {
		t.Run(c.what, func(t *testing.T) {
			f, _ := listen(t).raw(t)
			for _, m := range c.send {
				f.Send(m)
			}
			if err := f.Flush(); err != nil {
				t.Fatal(err)
			}
			var got []string
			for range strings.Count(c.want, "Z") {
				got = append(got, until(t, f, "Z"))
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got  %s\nwant %s", s, c.want)
			}
		})
	}
}

// TestBrokenMessages: whoever breaks the protocol is told so, and put out.
func TestBrokenMessages(t *testing.T) {
	whole := func(typ byte, body string) string {
		b := binary.BigEndian.AppendUint32([]byte{typ}, uint32(len(body)+4))
		return string(b) + body
	}
	for what, bytes := range map[string]string{
		"a query without its end":       whole('Q', "SHOW"),
		"a query with more behind it":   whole('Q', "SHOW\x00x"),
		"a length below its own":        "Q\x00\x00\x00\x03",
		"a length of a gigabyte":        "Q\x40\x00\x00\x00",
		"a type that is none":           whole('?', ""),
		"a Parse without a query":       whole('P', "s\x00"),
		"a Bind of half a format":       whole('P', "\x00\x00\x00\x00") + whole('B', "\x00\x00\x00"),
		"a Bind with a value cut short": whole('P', "\x00\x00\x00\x00") + whole('B', "\x00\x00\x00\x00\x00\x01\x7f\xff\xff\xffx"),
		"a Bind with a format of three": whole('P', "\x00\x00\x00\x00") + whole('B', "\x00\x00\x00\x00\x00\x00\x00\x01\x00\x03"),
		"an Execute without its count":  whole('P', "\x00\x00\x00\x00") + whole('E', "\x00"),
		"an empty Describe":             whole('D', ""),
		"an empty Close":                whole('C', ""),
	} {
		t.Run(what, func(t *testing.T) {
			f, conn := listen(t).raw(t)
			if _, err := conn.Write([]byte(bytes)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte("S\x00\x00\x00\x04")); err != nil {
				t.Fatal(err)
			}
			if got := until(t, f, "Z"); !strings.HasSuffix(got, "E08P01 gone") {
				t.Errorf("got %s", got)
			}
		})
	}
}

func TestASessionIsBounded(t *testing.T) {
	f, _ := listen(t).raw(t)
	for i := range maxNamed + 1 {
		f.Send(&pgproto3.Parse{Name: "s" + strings.Repeat("x", i), Query: "SHOW STATE"})
	}
	f.Send(&pgproto3.Sync{})
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := until(t, f, "Z"); strings.Count(got, "1") != maxNamed || !strings.HasSuffix(got, "E54000 Z") {
		t.Errorf("got %s", got)
	}
}

func TestTimeouts(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": -1, "0": 0, "100": 100 * time.Millisecond, "10s": 10 * time.Second, "2 min": 2 * time.Minute, "1h": time.Hour, "1d": 24 * time.Hour,
		"5us": 5 * time.Microsecond, "-1": -1, "1.5s": -1, "10 parsecs": -1, "s": -1,
	} {
		got, ok := parseTimeout(text)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
}
