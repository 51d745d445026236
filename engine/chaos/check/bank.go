package check

import (
	"maps"
	"slices"

	"github.com/pgtandem/pgtandem/engine/chaos/history"
)

// Ledger is what the bank's tables hold.
type Ledger struct {
	Balances  map[int64]int64 // by account
	Transfers []Transfer
}

// Transfer is one row of the bank's journal.
type Transfer struct{ ID, From, To, Amount int64 }

// Bank judges the bank workload: every read shows the total that there was in
// the beginning, each acknowledged transfer is in the journal once, and the
// journal explains the balances to the unit, so that no transfer was done by
// half.
func Bank(ops []history.Op, before map[int64]int64, after Ledger) (out []Violation) {
	total := sum(slices.Collect(maps.Values(before)))
	for _, op := range ops {
		if op.Kind == history.BankRead && op.Outcome == history.OK && sum(op.Balances) != total {
			out = append(out, violation(Total, "the accounts held %d, not %d: %s", sum(op.Balances), total, said(op)))
		}
	}
	if got := sum(slices.Collect(maps.Values(after.Balances))); got != total {
		out = append(out, violation(Total, "the accounts hold %d in the end, not %d", got, total))
	}
	there := make([]int64, len(after.Transfers))
	want := maps.Clone(before)
	for i, t := range after.Transfers {
		there[i] = t.ID
		want[t.From] -= t.Amount
		want[t.To] += t.Amount
	}
	for _, account := range slices.Sorted(maps.Keys(want)) {
		if got := after.Balances[account]; got != want[account] {
			out = append(out, violation(Total, "account %d holds %d; its transfers make it %d", account, got, want[account]))
		}
	}
	return append(out, ids(ops, history.BankTransfer, there)...)
}

func sum(balances []int64) (total int64) {
	for _, b := range balances {
		total += b
	}
	return total
}
