package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/engine/sim"
)

// String is the line that tells of a bug as soon as it is known.
func (o outcome) String() string {
	switch {
	case o.err != nil:
		return fmt.Sprintf("FAILED  %-38s %v", o.bug.name, o.err)
	case !o.caught:
		return fmt.Sprintf("MISSED  %-38s in %d seeds: %s", o.bug.name, o.played, o.bug.what)
	}
	return fmt.Sprintf("caught  %-38s seed %d, %5.1f s: %s", o.bug.name, o.seed, o.took.Seconds(), o.why)
}

// report prints the table, and what each invariant has caught. An error is that
// something was missed; where all bugs were planted, so is an invariant that
// caught none.
func report(all []outcome, seeds uint64, whole bool, took time.Duration) error {
	fmt.Printf("\n%-38s %6s  %-62s %s\n", "bug", "seed", "the rule that it breaks", "the invariant that caught it")
	caught, by := 0, map[string]int{}
	for _, o := range all {
		seed, by1 := "missed", ""
		if o.caught {
			seed, by1 = fmt.Sprint(o.seed), o.invariant
			caught++
			by[o.invariant]++
		}
		fmt.Printf("%-38s %6s  %-62s %s\n", o.bug.name, seed, o.bug.what, by1)
		if with := beside[o.bug.name]; len(with) > 0 {
			fmt.Printf("%-38s %6s  with: %s\n", "", "", strings.Join(with, ", "))
		}
	}
	fmt.Println()
	var idle []string
	for _, i := range sim.Invariants() {
		fmt.Printf("%4d caught by: %s\n", by[string(i)], i)
		if by[string(i)] == 0 {
			idle = append(idle, string(i))
		}
	}
	fmt.Printf("%d of %d planted bugs caught within %d seeds each, in %s\n", caught, len(all), seeds, took.Round(time.Second))
	var bad []error
	if caught < len(all) {
		bad = append(bad, fmt.Errorf("%d were not caught", len(all)-caught))
	}
	if whole && len(idle) > 0 {
		bad = append(bad, fmt.Errorf("no bug breaks: %s", strings.Join(idle, "; ")))
	}
	return errors.Join(bad...)
}
