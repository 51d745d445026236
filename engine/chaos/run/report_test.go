package main

import (
	"strings"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/chaos/check"
	"github.com/pgtandem/pgtandem/engine/chaos/schedule"
)

func sample(violations ...check.Violation) result {
	return result{
		seed: 42, nodes: 2, failovers: 1, ok: 3000, failed: 2, unknown: 5,
		plan:  schedule.Schedule{Seed: 42, Gestures: []schedule.Gesture{{Name: "primary-killed", At: 500 * time.Millisecond}, {Name: "daemon-killed", At: 2 * time.Second}}},
		pause: 410 * time.Millisecond, converged: 1200 * time.Millisecond, took: 16 * time.Second, violations: violations,
	}
}

func TestARunIsOneLine(t *testing.T) {
	want := "3/10 seed 42: primary-killed@0.5 daemon-killed@2.0; failovers 1; ok 3000, failed 2, unknown 5; longest pause 0.41 s; whole after 1.2 s; took 16 s; ok"
	if got := sample().line(3, 10); got != want {
		t.Errorf("%s\nshould be\n%s", got, want)
	}
	lost := check.Violation{What: check.Lost, Text: "7 is not there"}
	if got := sample(lost, lost, check.Violation{What: notWhole}).line(3, 10); !strings.HasSuffix(got, "; FAILED: did not converge 1, lost 2") {
		t.Errorf("the verdict is not at the end of %q", got)
	}
}

func TestAFailedRunSaysHowToRepeatIt(t *testing.T) {
	var many []check.Violation
	for range 100 {
		many = append(many, check.Violation{What: check.Lost, Text: "gone"})
	}
	r := sample(append(many, check.Violation{What: check.Total, Text: "the accounts held 5, not 6"})...)
	r.evidence = "/tmp/evidence/2-nodes-seed-42"
	got := r.complaint(options{nodes: 2})
	for _, want := range []string{"the accounts held 5, not 6", "evidence: /tmp/evidence/2-nodes-seed-42", "make chaos RUNS=1 NODES=2 SEED=42"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	if n := strings.Count(got, "gone"); n != mostOfAKind {
		t.Errorf("the same is said %d times, not %d", n, mostOfAKind)
	}
}

func TestTheTableSumsUp(t *testing.T) {
	got := table([]result{sample(), sample(check.Violation{What: check.Lost})})
	for _, want := range []string{
		"primary-killed  2             1                0.41 s",
		"2 runs, 1 failed; 2 changes of primary; requests: 6000 ok, 4 failed, 10 unknown",
		"violations: lost 1",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	if got := table([]result{sample()}); !strings.Contains(got, "violations: none") {
		t.Errorf("a clean table does not say so:\n%s", got)
	}
}
