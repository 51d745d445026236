package history

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestWhatAnAnswerPromises(t *testing.T) {
	sqlstate := func(code string) error { return fmt.Errorf("exec: %w", &pgconn.PgError{Code: code}) }
	for _, c := range []struct {
		why  string
		err  error
		want Outcome
	}{
		{"no error is an acknowledgement", nil, OK},
		{"rolled back, says the contract", sqlstate("40001"), Failed},
		{"held to the limit and never sent", sqlstate("57P03"), Failed},
		{"a standby cannot write", sqlstate("25006"), Failed},
		{"the row was refused", sqlstate("23505"), Failed},
		{"cancelled before its commit", sqlstate("57014"), Failed},
		{"the proxy says that it does not know", sqlstate("08007"), Unknown},
		{"the server stopped, perhaps after its own commit", sqlstate("57P01"), Unknown},
		{"the server crashed", sqlstate("57P02"), Unknown},
		{"an internal error proves nothing", sqlstate("XX000"), Unknown},
		{"the connection ended", io.ErrUnexpectedEOF, Unknown},
		{"the client lost its patience", errors.New("timeout"), Unknown},
	} {
		if got := OutcomeOf(c.err); got != c.want {
			t.Errorf("%s: %v is read as %s, not %s", c.why, c.err, got, c.want)
		}
	}
}

func TestAHistoryIsReadAsItWasWritten(t *testing.T) {
	ops := []Op{
		{Client: "bank-1", Kind: BankRead, Balances: []int64{70, 130}, Invoked: 5, Returned: 9, Outcome: OK, Port: 5432, Timeline: 3},
		{Client: "register-2", Kind: RegCAS, Key: 4, Old: 7, Value: 8, Swapped: true, Invoked: 6, Returned: 7 * time.Second, Outcome: Unknown, Code: "08007", Error: "lost"},
	}
	var b strings.Builder
	if err := Write(&b, ops); err != nil {
		t.Fatal(err)
	}
	got, err := Read(strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, ops) {
		t.Errorf("read %+v, wrote %+v", got, ops)
	}
	if _, err := Read(strings.NewReader(b.String() + "{broken")); err == nil || !strings.Contains(err.Error(), "request 3") {
		t.Errorf("a broken third line is read without saying which: %v", err)
	}
}

func TestTheLongestPauseIsOneClientsOwn(t *testing.T) {
	ack := func(client string, kind Kind, at time.Duration) Op {
		return Op{Client: client, Kind: kind, Returned: at * time.Second, Outcome: OK}
	}
	ops := []Op{
		ack("a", SetAdd, 1), ack("b", SetAdd, 2), ack("d", DirectWrite, 2),
		{Client: "b", Kind: SetAdd, Returned: 3 * time.Second, Outcome: Failed},
		ack("a", SetAdd, 3), ack("b", SetAdd, 5), ack("d", DirectWrite, 20),
	}
	if got := LongestPause(ops); got != 3*time.Second {
		t.Errorf("the longest pause is %s; b was answered at 2 s and at 5 s, and d does not go through the proxy", got)
	}
}
