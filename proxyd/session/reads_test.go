package session

import (
	"strings"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/route/classify"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// TestWithheld follows what of a flight's answers its client sees, and when. Each
// reading of the server is a word of letters: t a RowDescription, d a DataRow, Z a
// ReadyForQuery, r an error by which a standby refuses, e one of the statement's
// own, w and f the last words of a server that ends, which nobody gets.
func TestWithheld(t *testing.T) {
	bodies := map[byte]struct {
		typ  byte
		body string
	}{
		't': {wire.RowDescription, "\x00\x00"},
		'd': {wire.DataRow, "\x00\x00"},
		'Z': {wire.ReadyForQuery, "I"},
		'r': {wire.ErrorResponse, "SERROR\x00C25006\x00Mno\x00\x00"},
		'e': {wire.ErrorResponse, "SERROR\x00C22012\x00Mno\x00\x00"},
		'w': {wire.NoticeResponse, "SWARNING\x00C57P01\x00Mbye\x00\x00"},
		'f': {wire.ErrorResponse, "SFATAL\x00C57P01\x00Mbye\x00\x00"},
	}
	for _, x := range []struct {
		name     string
		units    int
		readings string
		shown    string // after each reading
		again    int    // units that had been answered when a standby refused one; -1 for none
	}{
		{"all at once", 1, "tdZ", "tdZ", -1},
		{"nothing is shown before a row", 1, "t dZ", " tdZ", -1},
		{"one row, and later more", 1, "td d Z", "td d Z", -1},
		{"an error of its own", 1, "t eZ", " teZ", -1},
		{"refused", 1, "trZ", "", 0},
		{"refused later", 1, "t rZ", " ", 0},
		{"refused behind a row", 1, "tdrZ", "", 0},
		{"refused behind a row that has been shown is an error", 1, "td rZ", "td rZ", -1},
		{"the server ends behind a row", 1, "tdw", "", -1},
		{"it ends behind a row that has been shown", 1, "td dw", "td d", -1},
		{"it shuts down behind a row", 1, "tdf", "", -1},
		{"it ends in the second of two units", 2, "tdZtdw", "tdZ", -1},
		{"two units", 2, "tdZtdZ", "tdZtdZ", -1},
		{"the second is withheld", 2, "tdZt dZ", "tdZ tdZ", -1},
		{"the second is refused", 2, "tdZtrZ", "tdZ", 1},
		{"the second is refused later", 2, "tdZt rZ", "tdZ ", 1},
		{"the first comes in parts, the second is refused with its end", 2, "t dZtrZ", " tdZ", 1},
		{"of three the second", 3, "tdZ t rZ tdZ", "tdZ   ", 1},
	} {
		b := &backend{target: pool.Target{Standby: true}, unshown: unshown{on: true, left: x.units}}
		var shown []string
		for reading := range strings.SplitSeq(x.readings, " ") {
			var out []byte
			for i := range len(reading) {
				m, at := wire.Begin(nil, bodies[reading[i]].typ)
				m = wire.End(append(m, bodies[reading[i]].body...), at)
				if reading[i] == 'w' || reading[i] == 'f' {
					b.notice(nil, m[0], m) //nolint:errcheck // that it ends
					continue
				}
				pass := !b.unshown.judged() || b.shows(m[0], m, false)
				if !pass {
					out = out[:b.unshown.mark]
					continue
				}
				out = append(out, m...)
				if m[0] == wire.ReadyForQuery && b.unshown.left > 0 {
					b.unshown.next(len(out))
				}
			}
			word := ""
			for out = b.part(out); len(out) > 0; {
				m := first(out)
				for letter, body := range bodies {
					if m[0] == body.typ && string(m[wire.HeaderLen:]) == body.body {
						word += string(letter)
					}
				}
				out = out[len(m):]
			}
			shown = append(shown, word)
		}
		again := -1
		if b.unshown.refused != nil {
			again = b.unshown.refused.done
		}
		if got := strings.Join(shown, " "); got != x.shown || again != x.again {
			t.Errorf("%s: of %q the client sees %q, want %q; refused behind %d units, want %d", x.name, x.readings, got, x.shown, again, x.again)
		}
	}
}

// first cuts the first message off, of either side.
func first(buf []byte) []byte {
	_, total := wire.Header(buf)
	return buf[:total]
}

// TestARewoundFlight lies before what its client has sent since, and goes
// without the units that have been answered.
func TestARewoundFlight(t *testing.T) {
	query := func(text string) []byte { return wire.AppendString(nil, wire.Query, text) }
	one, two, next := query("SELECT 1"), query("SELECT 2"), query("SELECT 3")
	for _, x := range []struct {
		name string
		done int
		room int // before what lies in the buffer
		want string
	}{
		{"into the room it came from", 0, 64, string(one) + string(two) + string(next)},
		{"where there is none", 0, 0, string(one) + string(two) + string(next)},
		{"its second half", 1, 64, string(two) + string(next)},
		{"its second half, where there is no room", 1, 3, string(two) + string(next)},
	} {
		if got := behindUnits(append(append([]byte(nil), one...), two...), x.done); !strings.HasPrefix(x.want, string(got)) {
			t.Fatalf("%s: %q is left", x.name, got)
		}
		buf := make([]byte, bufferSize)
		c := &client{in: &buf, r: x.room, w: x.room + copy(buf[x.room:], next)}
		sent := behindUnits(append(append([]byte(nil), one...), two...), x.done)
		c.unread(sent)
		if got := string((*c.in)[c.r:c.w]); got != x.want || c.runFrom != c.r {
			t.Errorf("%s: %q lies in the buffer, want %q", x.name, got, x.want)
		}
	}
}

// TestAFlightAcrossTransactions is judged by the second where a BEGIN READ ONLY
// does not reach to its end.
func TestAFlightAcrossTransactions(t *testing.T) {
	for _, x := range []struct{ first, second, want classify.Kind }{
		{classify.Read, classify.BeginRead, classify.BeginRead}, {classify.BeginRead, classify.Local, classify.BeginRead},
		{classify.BeginRead, classify.Begin, classify.Begin}, {classify.BeginRead, classify.BeginWrite, classify.BeginWrite},
		{classify.BeginRead, classify.Write, classify.Write}, {classify.Write, classify.Read, classify.Write},
	} {
		if got := join(classify.Verdict{Kind: x.first}, classify.Verdict{Kind: x.second}).Kind; got != x.want {
			t.Errorf("%v and then %v is %v, want %v", x.first, x.second, got, x.want)
		}
	}
}

// TestReadOnlyByDefault is what a SET says.
func TestReadOnlyByDefault(t *testing.T) {
	for _, x := range []struct {
		set  string
		want bool
	}{
		{"SET default_transaction_read_only = on", true}, {"SET default_transaction_read_only TO 'true'", true},
		{"set default_transaction_read_only=1", true}, {"SET default_transaction_read_only = off", false},
		{"SET default_transaction_read_only TO DEFAULT", false},
	} {
		if got := saysYes(x.set); got != x.want {
			t.Errorf("%s: read only %v, want %v", x.set, got, x.want)
		}
	}
}

// TestOneDeathOrTwo: what may have brought two servers down is not tried again,
// and one server goes down connection by connection.
func TestOneDeathOrTwo(t *testing.T) {
	lost := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, x := range []struct {
		name   string
		before cluster.NodeID // where it has been lost already
		made   time.Duration  // the connection lost now, after the first loss
		seen   time.Duration  // and when we see that
		want   bool
	}{
		{"the first", "", 0, 0, true},
		{"another connection of that server", "pgsql1", -time.Minute, time.Millisecond, true},
		{"one that was made while it went down", "pgsql1", time.Millisecond, 2 * time.Millisecond, true},
		{"an old connection, and we were slow to look", "pgsql1", -time.Minute, time.Minute, true},
		{"the same server again, started anew", "pgsql1", 30 * time.Second, time.Minute, false},
		{"another server", "pgsql2", -time.Minute, time.Millisecond, false},
	} {
		r := &reading{lostOn: x.before, lostAt: lost}
		if got := r.sameDeath("pgsql1", lost.Add(x.made), lost.Add(x.seen)); got != x.want {
			t.Errorf("%s: one death: %v, want %v", x.name, got, x.want)
		}
	}
}
