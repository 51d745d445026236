package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// verdict is how a test ended. skip is the test's own word; a test is cut off
// where another ends the process of both.
type verdict string

const (
	pass    verdict = "pass"
	fail    verdict = "fail"
	skip    verdict = "skip"
	cut     verdict = "cut off"
	missing verdict = "not run"
)

// outcome is one test's end, and where it failed what it said.
type outcome struct {
	verdict verdict
	said    string
}

type outcomes map[string]outcome

func (o outcomes) of(test string) outcome {
	if x, ok := o[test]; ok {
		return x
	}
	return outcome{verdict: missing}
}

func (o outcomes) count(v verdict) (n int) {
	for _, x := range o {
		if x.verdict == v {
			n++
		}
	}
	return n
}

// difference is a test that ended one way direct and another way proxied.
type difference struct {
	test            string
	direct, proxied verdict
	said            string // through the proxy
	unlike          bool   // both failed, but not in the same way
}

// comparison is a suite's result.
type comparison struct {
	suite           string
	direct, proxied outcomes
	differ          []difference
	unsteady        []string // ended differently once, and then not
	alike           []string // failed both ways
}

// compare tells what differs. A test that fails both ways tells nothing of the
// proxy, unless what it says of it is the same each time, to the letter, and is
// something else through the proxy.
func compare(suite string, direct, proxied outcomes, toTheLetter bool) comparison {
	c := comparison{suite: suite, direct: direct, proxied: proxied}
	tests := make(map[string]bool)
	for t := range direct {
		tests[t] = true
	}
	for t := range proxied {
		tests[t] = true
	}
	for t := range tests {
		want, got := direct.of(t), proxied.of(t)
		switch {
		case want.verdict != got.verdict:
			c.differ = append(c.differ, difference{test: t, direct: want.verdict, proxied: got.verdict, said: got.said})
		case want.verdict == fail && toTheLetter && want.said != got.said:
			c.differ = append(c.differ, difference{test: t, direct: fail, proxied: fail, said: got.said, unlike: true})
		case want.verdict == fail || want.verdict == cut:
			c.alike = append(c.alike, t)
		}
	}
	slices.SortFunc(c.differ, func(a, b difference) int { return cmp.Compare(a.test, b.test) })
	slices.Sort(c.alike)
	return c
}

// settle takes one repetition of what differed into account.
func (c *comparison) settle(direct, proxied outcomes) {
	c.differ = slices.DeleteFunc(c.differ, func(d difference) bool {
		want := direct.of(d.test).verdict
		if want == missing || want != proxied.of(d.test).verdict {
			return false
		}
		c.unsteady = append(c.unsteady, d.test)
		return true
	})
}

// table prints the comparisons.
func table(results []comparison) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-10s %7s   %-22s %-22s %6s\n", "suite", "tests", "direct", "through proxyd", "differ")
	for _, c := range results {
		fmt.Fprintf(&b, "%-10s %7d   %-22s %-22s %6d\n", c.suite, len(c.direct), c.direct.summary(), c.proxied.summary(), len(c.differ))
	}
	for _, c := range results {
		for _, d := range c.differ {
			fmt.Fprintf(&b, "\n%s %s: direct %s, through proxyd %s%s\n%s", c.suite, d.test, d.direct, d.proxied, d.how(), indent(d.said))
		}
		if len(c.unsteady) > 0 {
			fmt.Fprintf(&b, "\n%s, ended differently once and not when repeated: %s\n", c.suite, strings.Join(tops(c.unsteady), ", "))
		}
		if len(c.alike) > 0 {
			fmt.Fprintf(&b, "\n%s, fails direct as well: %s\n", c.suite, strings.Join(tops(c.alike), ", "))
		}
	}
	return b.String()
}

func (d difference) how() string {
	if d.unlike {
		return ", but not in the same way"
	}
	return ""
}

func (o outcomes) summary() string {
	s := fmt.Sprintf("%d pass, %d fail", o.count(pass), o.count(fail))
	for _, v := range []verdict{skip, cut} {
		if n := o.count(v); n > 0 {
			s += fmt.Sprintf(", %d %s", n, v)
		}
	}
	return s
}

// tops leaves tests out that are part of another one in the list.
func tops(tests []string) []string {
	return slices.DeleteFunc(slices.Clone(tests), func(t string) bool {
		pkg, test, _ := strings.Cut(t, " ")
		top, _, part := strings.Cut(test, "/")
		return part && slices.Contains(tests, pkg+" "+top)
	})
}

// longest of what a test said that is shown; the report has all of it.
const mostLines = 25

func indent(said string) string {
	lines := strings.Split(strings.TrimRight(said, "\n"), "\n")
	if len(lines) == 1 && lines[0] == "" {
		return ""
	}
	if len(lines) > mostLines {
		lines = append(lines[:mostLines], fmt.Sprintf("... %d lines more", len(lines)-mostLines))
	}
	return "    " + strings.Join(lines, "\n    ") + "\n"
}
