package check

import (
	"strings"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/chaos/history"
)

const s = time.Second

// at gives a request its moments.
func at(from, to time.Duration, op history.Op) history.Op {
	op.Invoked, op.Returned = from, to
	return op
}

func add(id int64, o history.Outcome) history.Op {
	return history.Op{Client: "set", Kind: history.SetAdd, Value: id, Outcome: o}
}

func transfer(id, from, to, amount int64, o history.Outcome) history.Op {
	return history.Op{Client: "bank", Kind: history.BankTransfer, Value: id, Key: from, Old: to, Amount: amount, Outcome: o}
}

func balances(b ...int64) history.Op {
	return history.Op{Client: "bank", Kind: history.BankRead, Balances: b, Outcome: history.OK}
}

func read(v int64) history.Op {
	return history.Op{Client: "reader", Kind: history.RegRead, Key: 1, Value: v, Outcome: history.OK}
}

func write(v int64, o history.Outcome) history.Op {
	return history.Op{Client: "writer", Kind: history.RegWrite, Key: 1, Value: v, Outcome: o}
}

func swap(old, v int64, swapped bool, o history.Outcome) history.Op {
	return history.Op{Client: "swapper", Kind: history.RegCAS, Key: 1, Old: old, Value: v, Swapped: swapped, Outcome: o}
}

// expect holds what a checker found against what was planted; "" is nothing.
func expect(t *testing.T, found []Violation, what string) {
	t.Helper()
	if what == "" && len(found) > 0 {
		t.Fatalf("a correct history is refused: %v", found)
	}
	if what == "" {
		return
	}
	for _, v := range found {
		if v.What == what {
			return
		}
	}
	t.Fatalf("the planted %q is not found; found: %v", what, found)
}

func TestSet(t *testing.T) {
	ops := []history.Op{add(1, history.OK), add(2, history.Unknown), add(3, history.Unknown), add(4, history.Failed), add(5, history.OK)}
	for _, c := range []struct {
		name  string
		there []int64
		want  string
	}{
		{"of two unknown ids one is there", []int64{1, 2, 5}, ""},
		{"both unknown ids are there", []int64{5, 3, 2, 1}, ""},
		{"an acknowledged id is lost", []int64{1, 2}, Lost},
		{"an acknowledged id is there twice", []int64{1, 5, 5}, Duplicate},
		{"an unknown id is there twice", []int64{1, 2, 2, 5}, Duplicate},
		{"a refused id is there", []int64{1, 4, 5}, Phantom},
		{"an id is there that nobody asked for", []int64{1, 5, 99}, Phantom},
	} {
		t.Run(c.name, func(t *testing.T) { expect(t, Set(ops, c.there), c.want) })
	}
}

func TestBank(t *testing.T) {
	before := map[int64]int64{1: 100, 2: 100}
	good := Ledger{Balances: map[int64]int64{1: 60, 2: 140}, Transfers: []Transfer{{7, 1, 2, 30}, {8, 1, 2, 10}}}
	ops := func(more ...history.Op) []history.Op {
		return append([]history.Op{
			transfer(7, 1, 2, 30, history.OK), transfer(8, 1, 2, 10, history.Unknown),
			transfer(9, 2, 1, 5, history.Unknown), transfer(10, 2, 1, 1, history.Failed), balances(70, 130),
		}, more...)
	}
	for _, c := range []struct {
		name  string
		ops   []history.Op
		after Ledger
		want  string
	}{
		{"of two unknown transfers one was done", ops(), good, ""},
		{"a read saw half of a transfer", ops(balances(70, 100)), good, Total},
		{"money is gone in the end", ops(), Ledger{Balances: map[int64]int64{1: 60, 2: 130}, Transfers: good.Transfers}, Total},
		{"the total is right, the balances are not what the transfers make them", ops(), Ledger{Balances: map[int64]int64{1: 70, 2: 130}, Transfers: good.Transfers}, Total},
		{"an acknowledged transfer is lost", ops(), Ledger{Balances: map[int64]int64{1: 90, 2: 110}, Transfers: []Transfer{{8, 1, 2, 10}}}, Lost},
		{"a transfer was done twice", ops(), Ledger{Balances: map[int64]int64{1: 30, 2: 170}, Transfers: append([]Transfer{{7, 1, 2, 30}}, good.Transfers...)}, Duplicate},
		{"a refused transfer was done", ops(), Ledger{Balances: map[int64]int64{1: 71, 2: 129}, Transfers: []Transfer{{7, 1, 2, 30}, {10, 2, 1, 1}}}, Phantom},
	} {
		t.Run(c.name, func(t *testing.T) { expect(t, Bank(c.ops, before, c.after), c.want) })
	}
}

func TestRegister(t *testing.T) {
	for _, c := range []struct {
		name string
		ops  []history.Op
		end  int64
		want string
	}{
		{"reads before, during and after a write", []history.Op{
			at(0, 1*s, read(0)), at(1*s, 4*s, write(5, history.OK)), at(2*s, 3*s, read(0)), at(2*s, 3*s, read(5)), at(5*s, 6*s, read(5)),
		}, 5, ""},
		{"a write of unknown outcome that happened later", []history.Op{
			at(0, 1*s, write(5, history.Unknown)), at(2*s, 3*s, read(0)), at(4*s, 5*s, read(5)), at(6*s, 7*s, write(6, history.OK)),
		}, 6, ""},
		{"a write of unknown outcome that never happened", []history.Op{
			at(0, 1*s, write(5, history.Unknown)), at(2*s, 3*s, read(0)),
		}, 0, ""},
		{"a write of unknown outcome that only the end shows", []history.Op{
			at(0, 1*s, write(5, history.Unknown)), at(2*s, 3*s, read(0)),
		}, 5, ""},
		{"a swap of unknown outcome that happened", []history.Op{
			at(0, 1*s, write(5, history.OK)), at(1*s, 2*s, swap(5, 6, false, history.Unknown)), at(3*s, 4*s, swap(6, 7, true, history.OK)),
		}, 7, ""},
		{"a swap fails because of a write of unknown outcome that nobody read", []history.Op{
			at(0, 1*s, write(5, history.OK)), at(1*s, 2*s, write(6, history.Unknown)), at(3*s, 4*s, swap(5, 7, false, history.OK)), at(5*s, 6*s, write(8, history.OK)),
		}, 8, ""},
		{"a refused write", []history.Op{at(0, 1*s, write(5, history.Failed)), at(2*s, 3*s, read(0))}, 0, ""},
		{"a read is stale", []history.Op{
			at(0, 1*s, write(5, history.OK)), at(2*s, 3*s, read(0)), at(4*s, 5*s, read(5)),
		}, 5, Order},
		{"what was seen is gone again", []history.Op{
			at(0, 1*s, write(5, history.Unknown)), at(2*s, 3*s, read(5)), at(4*s, 5*s, read(0)),
		}, 0, Order},
		{"a refused write is read", []history.Op{
			at(0, 1*s, write(5, history.Failed)), at(2*s, 3*s, read(5)),
		}, 5, Order},
		{"two swaps of the same value both succeed", []history.Op{
			at(0, 1*s, swap(0, 5, true, history.OK)), at(0, 1*s, swap(0, 6, true, history.OK)),
		}, 6, Order},
		{"a swap fails although the value was there", []history.Op{
			at(0, 1*s, write(5, history.OK)), at(2*s, 3*s, swap(5, 6, false, history.OK)),
		}, 5, Order},
		{"the last acknowledged write is not there in the end", []history.Op{
			at(0, 1*s, write(5, history.OK)), at(2*s, 3*s, write(6, history.OK)),
		}, 5, Order},
	} {
		t.Run(c.name, func(t *testing.T) { expect(t, Register(c.ops, map[int64]int64{1: c.end}, time.Minute), c.want) })
	}
	t.Run("a register is gone", func(t *testing.T) {
		expect(t, Register([]history.Op{at(0, s, read(0))}, nil, time.Minute), Lost)
	})
	t.Run("the reason names the answer that does not fit", func(t *testing.T) {
		found := Register([]history.Op{at(0, 1*s, write(5, history.OK)), at(2*s, 3*s, read(0))}, map[int64]int64{1: 5}, time.Minute)
		if len(found) != 1 || !strings.Contains(found[0].Text, "read 0 does not fit") {
			t.Errorf("%v", found)
		}
	})
}

func TestTerms(t *testing.T) {
	acked := func(from, to time.Duration, port int, timeline uint32) history.Op {
		return history.Op{Client: "set", Kind: history.SetAdd, Outcome: history.OK, Invoked: from, Returned: to, Port: port, Timeline: timeline}
	}
	handover := []history.Op{acked(0, 1*s, 1111, 1), acked(1*s, 2*s, 1111, 1), acked(3*s, 4*s, 2222, 2)}
	direct := acked(5*s, 6*s, 1111, 1)
	direct.Kind = history.DirectWrite
	unknown := acked(5*s, 6*s, 1111, 1)
	unknown.Outcome = history.Unknown
	for _, c := range []struct {
		name string
		more []history.Op
		want string
	}{
		{"one after the other", nil, ""},
		{"an answer lay in the client's buffer for a moment", []history.Op{acked(2*s, 4100*time.Millisecond, 1111, 1)}, ""},
		{"the old primary takes a write past the proxy", []history.Op{direct}, ""},
		{"the old primary did not acknowledge", []history.Op{unknown}, ""},
		{"the old primary acknowledges after the new one", []history.Op{acked(4500*time.Millisecond, 5*s, 1111, 1)}, TwoWriters},
		{"what was sent to the old primary is acknowledged when it is woken", []history.Op{acked(2*s, 9*s, 1111, 1)}, TwoWriters},
		{"two servers write one timeline", []history.Op{acked(5*s, 6*s, 3333, 2)}, TwoWriters},
	} {
		t.Run(c.name, func(t *testing.T) { expect(t, Terms(append(handover, c.more...)), c.want) })
	}
}

func TestStraysAreWritesPastTheProxyToAnOlderTimeline(t *testing.T) {
	op := func(kind history.Kind, from, to time.Duration, timeline uint32) history.Op {
		return history.Op{Kind: kind, Outcome: history.OK, Invoked: from, Returned: to, Port: int(timeline), Timeline: timeline}
	}
	ops := []history.Op{
		op(history.SetAdd, 0, 1*s, 1), op(history.DirectWrite, 1*s, 2*s, 1),
		op(history.SetAdd, 3*s, 4*s, 2), op(history.DirectWrite, 5*s, 6*s, 2),
		op(history.DirectWrite, 5*s, 6*s, 1),
	}
	if got := Strays(ops); got != 1 {
		t.Errorf("%d strays; only the last write went to a timeline that was over", got)
	}
}
