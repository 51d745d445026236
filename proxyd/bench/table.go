package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// result is what the rounds of one target came to.
type result[S any] struct {
	target  *target
	samples []S
}

// median of a figure over the rounds.
func (r result[S]) median(of func(S) float64) float64 {
	values := make([]float64, len(r.samples))
	for i, s := range r.samples {
		values[i] = of(s)
	}
	return median(values)
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// column is one figure of a table.
type column[S any] struct {
	title string
	cell  func(r, first result[S]) string
}

// figure shows the median of a figure.
func figure[S any](title, format string, of func(S) float64) column[S] {
	return column[S]{title, func(r, _ result[S]) string { return fmt.Sprintf(format, r.median(of)) }}
}

// share shows the median of a figure as a part of the first target's.
func share[S any](title string, of func(S) float64) column[S] {
	return column[S]{title, func(r, first result[S]) string {
		if base := first.median(of); base > 0 {
			return fmt.Sprintf("%.0f %%", 100*r.median(of)/base)
		}
		return "-"
	}}
}

// proxies shows the median of a figure that only a proxy has.
func proxies[S any](title, format string, of func(S) float64) column[S] {
	return column[S]{title, func(r, _ result[S]) string {
		if r.target.pid == 0 {
			return "-"
		}
		return fmt.Sprintf(format, r.median(of))
	}}
}

// table has a line for each target.
func table[S any](all []result[S], columns ...column[S]) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, c := range columns {
		fmt.Fprintf(w, "\t%s", c.title)
	}
	fmt.Fprintln(w, "\t")
	for _, r := range all {
		fmt.Fprint(w, r.target.name)
		for _, c := range columns {
			fmt.Fprintf(w, "\t%s", c.cell(r, all[0]))
		}
		fmt.Fprintln(w, "\t")
	}
	_ = w.Flush() // into memory
	return b.String()
}
