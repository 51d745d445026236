package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// line is a run in one line.
func (r result) line(n, of int) string {
	verdict := "ok"
	if !r.passed() {
		verdict = "FAILED: " + strings.Join(r.kinds(), ", ")
	}
	if r.directAcks > 0 {
		verdict = fmt.Sprintf("past the proxy %d writes to an older timeline (%s); %s", r.directAcks, r.evidence, verdict)
	}
	reads := ""
	if r.reads {
		reads = "; reads on standbys, by node"
		for _, port := range slices.Sorted(maps.Keys(r.landed)) {
			reads += fmt.Sprintf(" %d", r.landed[port])
		}
	}
	return fmt.Sprintf("%d/%d seed %d: %s; failovers %d; ok %d, failed %d, unknown %d%s; longest pause %.2f s; whole after %.1f s; took %.0f s; %s",
		n, of, r.seed, r.plan.Names(), r.failovers, r.ok, r.failed, r.unknown, reads, r.pause.Seconds(), r.converged.Seconds(), r.took.Seconds(), verdict)
}

// kinds are the kinds of what was found, each with its number.
func (r result) kinds() (out []string) {
	count := map[string]int{}
	for _, v := range r.violations {
		count[v.What]++
	}
	for _, what := range slices.Sorted(maps.Keys(count)) {
		out = append(out, fmt.Sprintf("%s %d", what, count[what]))
	}
	return out
}

const mostOfAKind = 5

// complaint says what was found, where the evidence is, and how to repeat it.
func (r result) complaint(o options) string {
	var b strings.Builder
	said := map[string]int{}
	for _, v := range r.violations {
		if said[v.What]++; said[v.What] <= mostOfAKind {
			fmt.Fprintf(&b, "    %s: %s\n", v.What, v.Text)
		}
	}
	if r.evidence != "" {
		fmt.Fprintf(&b, "    evidence: %s\n", r.evidence)
	}
	fmt.Fprintf(&b, "    again:    make chaos RUNS=1 NODES=%d SEED=%d", o.nodes, r.seed)
	return b.String()
}

// table sums the runs up.
func table(results []result) string {
	if len(results) == 0 {
		return ""
	}
	type row struct {
		runs, failed int
		pause        time.Duration
	}
	byGesture := map[string]row{}
	var total row
	var failovers uint64
	var ok, failed, unknown, strays int
	var pauses, converged []time.Duration
	found := map[string]int{}
	for _, r := range results {
		seen := map[string]bool{}
		for _, g := range r.plan.Gestures {
			if seen[g.Name] {
				continue
			}
			seen[g.Name] = true
			b := byGesture[g.Name]
			b.runs++
			if !r.passed() {
				b.failed++
			}
			b.pause = max(b.pause, r.pause)
			byGesture[g.Name] = b
		}
		total.runs++
		if !r.passed() {
			total.failed++
		}
		failovers += r.failovers
		ok, failed, unknown, strays = ok+r.ok, failed+r.failed, unknown+r.unknown, strays+r.directAcks
		pauses, converged = append(pauses, r.pause), append(converged, r.converged)
		for _, v := range r.violations {
			found[v.What]++
		}
	}
	var b strings.Builder
	b.WriteString("\n")
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "gesture\truns with it\tof those failed\tlongest pause of those\n")
	for _, name := range slices.Sorted(maps.Keys(byGesture)) {
		g := byGesture[name]
		fmt.Fprintf(w, "%s\t%d\t%d\t%.2f s\n", name, g.runs, g.failed, g.pause.Seconds())
	}
	_ = w.Flush() // into memory
	fmt.Fprintf(&b, "\n%d runs, %d failed; %d changes of primary; requests: %d ok, %d failed, %d unknown\n", total.runs, total.failed, failovers, ok, failed, unknown)
	fmt.Fprintf(&b, "longest pause of a client: median %.2f s, longest %.2f s; whole again after: median %.1f s, longest %.1f s\n",
		median(pauses).Seconds(), slices.Max(pauses).Seconds(), median(converged).Seconds(), slices.Max(converged).Seconds())
	fmt.Fprintf(&b, "writes past the proxy that an older timeline took: %d\n", strays)
	if len(found) == 0 {
		b.WriteString("violations: none\n")
	}
	for _, what := range slices.Sorted(maps.Keys(found)) {
		fmt.Fprintf(&b, "violations: %s %d\n", what, found[what])
	}
	return b.String()
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}
