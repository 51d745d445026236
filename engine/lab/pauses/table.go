package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/pgtandem/pgtandem/engine/drill"
)

// median is the middle of the values, or of the two in the middle. There is at
// least one.
func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// table is what was measured, one line for each scene that was played.
func table(chosen []scene, got [][]drill.Measured) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "fault\tgoal\tmedian\tmin..max\terrors beyond in flight\tlost\truns")
	for i, s := range chosen {
		if len(got[i]) == 0 {
			continue
		}
		var pauses []float64
		lost, errs := 0, 0
		for _, m := range got[i] {
			pauses = append(pauses, m.WorstClientMS)
			lost += m.Lost
			errs += beyond(s, m)
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f ms\t%.0f..%.0f ms\t%d\t%d\t%d\n", s.title, s.goal, median(pauses), slices.Min(pauses), slices.Max(pauses), errs, lost, len(got[i]))
	}
	_ = w.Flush() // a strings.Builder takes everything
	return b.String()
}
