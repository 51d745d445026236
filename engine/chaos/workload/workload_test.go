package workload

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/pgtandem/pgtandem/engine/chaos/check"
)

func content() Content {
	return Content{
		Set:       []int64{1, 2, 3},
		Ledger:    check.Ledger{Balances: map[int64]int64{1: 90, 2: 110}, Transfers: []check.Transfer{{ID: 7, From: 1, To: 2, Amount: 10}}},
		Registers: map[int64]int64{1: 5},
		Direct:    []int64{9},
		Seen:      []int64{0, 4},
	}
}

func TestServersThatDifferAreToldApart(t *testing.T) {
	if d := content().Differences(content()); len(d) > 0 {
		t.Errorf("two that are alike differ in %v", d)
	}
	for table, change := range map[string]func(*Content){
		"chaos_set":      func(c *Content) { c.Set = c.Set[:2] },
		"chaos_account":  func(c *Content) { c.Ledger.Balances[2] = 111 },
		"chaos_transfer": func(c *Content) { c.Ledger.Transfers[0].Amount = 11 },
		"chaos_register": func(c *Content) { c.Registers[1] = 4 },
		"chaos_seen":     func(c *Content) { c.Seen[1] = 5 },
		"chaos_direct":   func(c *Content) { c.Direct = append(c.Direct, 10) },
	} {
		other := content()
		change(&other)
		if d := content().Differences(other); len(d) != 1 || !strings.HasPrefix(d[0], table+" ") {
			t.Errorf("%s differs, and what is said is %v", table, d)
		}
	}
}

func TestNoTwoClientsWriteTheSame(t *testing.T) {
	l := &Load{seed: 998} // counts past a thousand
	var bases []int64
	for range 20 {
		c, err := l.client("one", Target{Host: "localhost", Port: 1}, 0)
		if err != nil {
			t.Fatal(err)
		}
		bases = append(bases, c.value())
	}
	if n := len(slices.Compact(slices.Sorted(slices.Values(bases)))); n != len(bases) {
		t.Errorf("%d clients share %d first values: %v", len(bases), n, bases)
	}
}

func TestTheDepositsAreWhatPrepareLeaves(t *testing.T) {
	var total int64
	for balance := range maps.Values(Deposits()) {
		total += balance
	}
	if total != accounts*deposit {
		t.Errorf("the deposits are %d, and the tables get %d", total, accounts*deposit)
	}
}
